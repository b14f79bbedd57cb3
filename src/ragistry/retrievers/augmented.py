"""A dense searcher whose vectors can be made to keep the keywords of their texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from ..encoders.token_table import Arrays, TokenTable
from ..protocols import Encoder, Files, Index, State
from ..types import Document, Floats
from .keeping import Keeping

if TYPE_CHECKING:
    from ..encoders.token_aware import TokenAware

Aware: TypeAlias = "TokenTable | TokenAware"
CHUNK = 4096
"""Documents changed at a time, which bounds memory."""


class Augmented(Keeping):
    """A dense searcher with a token bridge. Without one it is the plain searcher, exactly.

    Where documents are changed their vectors as they were encoded are kept beside the changed ones, so that another bridge
    can take the place of the first and no document is encoded again.

    Args:
        encoder: A stack over a transformer, maybe with a cache.
        make: Makes the empty index to search in.
        keep: Makes the empty index for vectors as they were encoded.

    Example:
        >>> from ragistry.encoders.backbones import stack
        >>> from ragistry.indexes.faiss import Faiss
        >>> searcher = Augmented(stack("all-MiniLM-L6-v2"), Faiss, Faiss)
        >>> searcher.add([Document("1", "fourteen lines"), Document("2", "a cat")])
        >>> searcher.search(["how long is a sonnet?"], k=1)[0].ids
        ('1',)
    """

    def __init__(self, encoder: Encoder, make: Callable[[], Index], keep: Callable[[], Index]) -> None:
        super().__init__(encoder, make, keep)
        self._aware: Aware | None = None
        self._stored: Callable[[], Aware] | None = None

    @property
    def aware(self) -> Aware | None:
        """The encoder with its bridge; what was saved is put together when first asked for, as that loads the model."""
        if self._aware is None and self._stored is not None:
            self._aware = self._stored()
        return self._aware

    @property
    def takes_vectors(self) -> bool:
        """Whether a query's vector is all that is needed: with a bridge its tokens are, too."""
        return super().takes_vectors and self.aware is None

    def taught(
        self, ids: Sequence[str], aware: Aware, documents: Callable[[Sequence[str]], Sequence[Document]]
    ) -> Self:
        """The same documents, searched with this encoder; this one stays as it is.

        Args:
            ids: Of all that are held.
            aware: Over the encoder of this searcher. Documents are encoded again only if it has another model for them.
            documents: Gives those with some ids; asked for some thousands at a time, and only if their vectors change.

        Raises:
            UnknownName: If a document is not there.
        """
        twin = self._twin(self._make())
        twin._aware, twin._stored, twin._recent = aware, None, {}
        changes = aware.changes("document") or aware.both
        twin.raw = self._keep() if changes else None
        for first in range(0, len(ids), CHUNK):
            some = list(ids[first : first + CHUNK])
            vectors = self.encoded(some)
            if twin.raw is not None:
                twin.raw.add(some, vectors)
            twin.index.add(some, twin._altered(documents(some), vectors) if changes else vectors)
        return twin

    def save(self, files: Files) -> State:
        """Store arrays in `files` and return the rest."""
        state = super().save(files)
        if (aware := self.aware) is not None:
            settings, arrays = aware.parts()
            state["bridge"] = {"settings": settings, "arrays": _put(arrays, files)}
            state["tuned"] = {"both": aware.both, "arrays": _put(aware.tuned, files)}
        return state

    def load(self, state: State, files: Files) -> None:
        """Become what was saved."""
        super().load(state, files)
        self._aware, self._stored = None, None
        if found := state.get("bridge"):
            encoder, tuned = self.encoder, state["tuned"]
            arrays, weights = _got(found["arrays"], files), _got(tuned["arrays"], files)
            self._stored = lambda: served(encoder, found["settings"], arrays, weights, tuned["both"])

    def _altered(self, documents: Sequence[Document], vectors: Floats) -> Floats:
        aware = self.aware
        if aware is None:
            return vectors
        return aware.encode(documents, "document") if aware.both else aware.augmented(vectors, documents, "document")

    def _asking(self) -> Encoder:
        return self.encoder if self.aware is None else self.aware


def served(encoder: Encoder, settings: Mapping[str, Any], arrays: Arrays, tuned: Arrays, both: bool) -> Aware:
    """What encodes with a bridge and weights that were learnt: without torch, where no model has to weigh the tokens."""
    if settings["paradigm"] == "slr" and not tuned:
        return TokenTable(encoder, settings, arrays)
    from ..encoders.token_aware import TokenAware, bridge_of

    return TokenAware(encoder, bridge_of(settings, arrays, encoder), tuned, both)


def _put(arrays: Mapping[str, Any], files: Files) -> dict[str, str]:
    return {name: files.put(value) for name, value in sorted(arrays.items())}


def _got(names: Mapping[str, str], files: Files) -> dict[str, Floats]:
    return {name: files.get(file) for name, file in names.items()}

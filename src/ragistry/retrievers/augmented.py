"""A dense searcher whose vectors can be made to keep the keywords of their texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self, cast

from ..encoders.token_aware import TokenAware, bridge_of, parts_of
from ..protocols import NOTHING, Encoder, Files, Index, State
from ..types import Document, Floats
from .searcher import Searcher

CHUNK = 4096
"""Documents changed at a time, which bounds memory."""


class Augmented(Searcher):
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
        super().__init__(encoder, make())
        self._make, self._keep = make, keep
        self.raw: Index | None = None
        self._aware: TokenAware | None = None
        self._stored: Callable[[], TokenAware] | None = None

    @property
    def aware(self) -> TokenAware | None:
        """The encoder with its bridge; what was saved is put together when first asked for, as that loads the model."""
        if self._aware is None and self._stored is not None:
            self._aware = self._stored()
        return self._aware

    def add(self, documents: Sequence[Document], *, same: Mapping[str, str] = NOTHING) -> None:
        """Insert; a document whose id is already there is replaced."""
        super().add(documents, same=same)
        if self.raw is not None and documents:
            ids = [document.id for document in documents]
            encoded = self.index.vectors(ids)
            self.raw.add(ids, encoded)
            self.index.add(ids, self._changed(cast(Floats, encoded), documents))

    def remove(self, ids: Iterable[str]) -> None:
        """Take ids out; ids that are not there are passed over."""
        gone = ids if isinstance(ids, str) else list(ids)  # a text, which the index refuses, would pass as its letters
        super().remove(gone)
        if self.raw is not None:
            self.raw.remove(gone)

    def taught(
        self, ids: Sequence[str], aware: TokenAware, documents: Callable[[Sequence[str]], Sequence[Document]]
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
            twin.index.add(some, twin._changed(vectors, documents(some)) if changes else vectors)
        return twin

    def encoded(self, ids: Sequence[str]) -> Floats:
        """Vectors of documents as they were encoded, float32 [len(ids), d].

        Raises:
            UnknownName: If an id is not there.
        """
        return cast(Floats, (self.index if self.raw is None else self.raw).vectors(ids))

    def fork(self) -> Self:
        """A copy that shares what is stored: changing one leaves the other as it was."""
        twin = super().fork()
        twin.raw = None if self.raw is None else self.raw.fork()
        return twin

    def save(self, files: Files) -> State:
        """Store arrays in `files` and return the rest."""
        state = super().save(files)
        if self.raw is not None:
            state["raw"] = self.raw.save(files)
        if (aware := self.aware) is not None:
            settings, arrays = parts_of(aware.bridge)
            state["bridge"] = {"settings": settings, "arrays": _put(arrays, files)}
            state["tuned"] = {"both": aware.both, "arrays": _put(aware.tuned, files)}
        return state

    def load(self, state: State, files: Files) -> None:
        """Become what was saved."""
        super().load(state, files)
        self.raw, self._aware, self._stored = None, None, None
        if "raw" in state:
            self.raw = self._keep()
            self.raw.load(state["raw"], files)
        if found := state.get("bridge"):
            encoder, tuned = self.encoder, state["tuned"]
            arrays, weights = _got(found["arrays"], files), _got(tuned["arrays"], files)
            self._stored = lambda: TokenAware(
                encoder, bridge_of(found["settings"], arrays, encoder), weights, tuned["both"]
            )

    def _changed(self, vectors: Floats, documents: Sequence[Document]) -> Floats:
        aware = self.aware
        if aware is None:
            return vectors
        return aware.encode(documents, "document") if aware.both else aware.augmented(vectors, documents, "document")

    def _asking(self) -> Encoder:
        return self.encoder if self.aware is None else self.aware

    def _copied(self, ids: Sequence[str]) -> Floats:
        return self.encoded(ids)


def _put(arrays: Mapping[str, Any], files: Files) -> dict[str, str]:
    return {name: files.put(value) for name, value in sorted(arrays.items())}


def _got(names: Mapping[str, str], files: Files) -> dict[str, Floats]:
    return {name: files.get(file) for name, file in names.items()}

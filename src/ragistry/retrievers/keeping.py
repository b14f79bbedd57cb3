"""A dense searcher that changes the vectors of documents after encoding, and keeps them as they were encoded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Self, cast

from ..protocols import NOTHING, Encoder, Files, Index, State
from ..types import Document, Floats
from .searcher import Searcher


class Keeping(Searcher):
    """What searchers share that can be taught again and again without encoding a document twice.

    A subclass says in `_altered` how documents are changed, and sets `raw` where they are.

    Args:
        encoder: A dense encoder.
        make: Makes the empty index to search in.
        keep: Makes the empty index for vectors as they were encoded.
    """

    def __init__(self, encoder: Encoder, make: Callable[[], Index], keep: Callable[[], Index]) -> None:
        super().__init__(encoder, make())
        self._make, self._keep = make, keep
        self.raw: Index | None = None

    def add(self, documents: Sequence[Document], *, same: Mapping[str, str] = NOTHING) -> None:
        """Insert; a document whose id is already there is replaced."""
        super().add(documents, same=same)
        if self.raw is not None and documents:
            ids = [document.id for document in documents]
            encoded = self.index.vectors(ids)
            self.raw.add(ids, encoded)
            self.index.add(ids, self._altered(documents, cast(Floats, encoded)))

    def remove(self, ids: Iterable[str]) -> None:
        """Take ids out; ids that are not there are passed over."""
        gone = ids if isinstance(ids, str) else list(ids)  # a text, which the index refuses, would pass as its letters
        super().remove(gone)
        if self.raw is not None:
            self.raw.remove(gone)

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
        return state

    def load(self, state: State, files: Files) -> None:
        """Become what was saved."""
        super().load(state, files)
        self.raw = None
        if "raw" in state:
            self.raw = self._keep()
            self.raw.load(state["raw"], files)

    def _altered(self, documents: Sequence[Document], vectors: Floats) -> Floats:
        raise NotImplementedError(f"{type(self).__name__} must define _altered")

    def _copied(self, ids: Sequence[str]) -> Floats:
        return self.encoded(ids)

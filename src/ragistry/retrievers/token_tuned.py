"""A multi-vector searcher whose model can be trained: for queries alone, or for documents too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Self

from ..protocols import Encoder, Index
from ..types import Document, Floats
from .retrained import Retrained

CHUNK = 256
"""Documents encoded at a time: of several vectors each they take more memory than dense ones."""


class TokenTuned(Retrained):
    """A multi-vector searcher with other weights in its model, once it is taught. Before, it is the plain searcher, exactly.

    By default queries alone are read with other weights, and documents keep the vectors that they have.

    Args:
        encoder: A `TokenStack`.
        make: Makes the empty index to search in.
        documents: Whether what is learnt changes documents' vectors too, which are then all made again.
    """

    def __init__(self, encoder: Encoder, make: Callable[[], Index], *, documents: bool = False) -> None:
        super().__init__(encoder, make)
        self.documents = documents
        self._queries = encoder

    def taught(
        self,
        ids: Sequence[str],
        weights: Mapping[str, Floats],
        documents: Callable[[Sequence[str]], Sequence[Document]],
    ) -> Self:
        """The same documents, searched with these weights of the model; this one stays as it is. See `Retrained.taught`."""
        twin = self._twin(self._make() if self.documents else self.index.fork())
        twin._use(weights)
        for first in range(0, len(ids) if self.documents else 0, CHUNK):
            twin.add(documents(list(ids[first : first + CHUNK])))
        return twin

    def _asking(self) -> Encoder:
        return self._queries

    def _use(self, weights: Mapping[str, Floats]) -> None:
        super()._use(weights)
        self._queries = self.encoder
        if not self.documents:
            self.encoder = self.base

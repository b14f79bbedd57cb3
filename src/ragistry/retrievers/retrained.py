"""A dense searcher whose model can be trained further, which encodes all documents again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, cast

from ..encoders.cached import Cached
from ..encoders.token_aware import stack_of
from ..encoders.tuned import Tuned
from ..protocols import Encoder, Files, Index, State
from ..types import Document, Floats
from .searcher import Searcher

CHUNK = 4096
"""Documents encoded at a time, which bounds memory."""


class Retrained(Searcher):
    """A dense searcher with other weights in its model, once it is taught. Before, it is the plain searcher, exactly.

    Args:
        encoder: A stack over a transformer, maybe with a cache.
        make: Makes the empty index to search in.

    Example:
        >>> from ragistry.encoders.backbones import stack
        >>> from ragistry.indexes.faiss import Faiss
        >>> searcher = Retrained(stack("all-MiniLM-L6-v2"), Faiss)
        >>> searcher.add([Document("1", "fourteen lines"), Document("2", "a cat")])
        >>> searcher.search(["how long is a sonnet?"], k=1)[0].ids
        ('1',)
    """

    def __init__(self, encoder: Encoder, make: Callable[[], Index]) -> None:
        super().__init__(encoder, make())
        self.base = encoder
        self.weights: Mapping[str, Floats] = {}
        self._make = make

    @property
    def takes_vectors(self) -> bool:
        """Whether a query's vector is all that is needed: a trained model makes others than the one it was before."""
        return super().takes_vectors and not self.weights

    def taught(
        self,
        ids: Sequence[str],
        weights: Mapping[str, Floats],
        documents: Callable[[Sequence[str]], Sequence[Document]],
    ) -> Self:
        """The same documents, encoded and searched with these weights of the model; this one stays as it is.

        Args:
            ids: Of all that are held.
            weights: By their names in the model.
            documents: Gives those with some ids; asked for some thousands at a time.

        Raises:
            InvalidInput: If the model has no such weight, or of another shape.
        """
        twin = self._twin(self._make())
        twin._use(weights)
        for first in range(0, len(ids), CHUNK):
            some = list(ids[first : first + CHUNK])
            twin.add(documents(some))
        return twin

    def encoded(self, ids: Sequence[str]) -> Floats:
        """Vectors of documents, float32 [len(ids), d].

        Raises:
            UnknownName: If an id is not there.
        """
        return cast(Floats, self.index.vectors(ids))

    def save(self, files: Files) -> State:
        """Store arrays in `files` and return the rest."""
        state = super().save(files)
        if self.weights:
            state["weights"] = {name: files.put(value) for name, value in sorted(self.weights.items())}
        return state

    def load(self, state: State, files: Files) -> None:
        """Become what was saved."""
        super().load(state, files)
        self._use({name: files.get(file) for name, file in state.get("weights", {}).items()})

    def _use(self, weights: Mapping[str, Floats]) -> None:
        self.weights, self._recent = weights, {}
        self.encoder = self.base
        if weights:
            base = stack_of(self.base)
            encoder: Any = base.over(Tuned(base.backbone, weights), base.steps)
            self.encoder = Cached(encoder, self.base.path) if isinstance(self.base, Cached) else encoder

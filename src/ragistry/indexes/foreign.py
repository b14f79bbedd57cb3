"""The vectors of someone else's store as an index: searched, never changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NoReturn, Self, cast

import numpy as np

from ..errors import InvalidInput
from ..protocols import Files, Source, State
from ..types import Among, Floats, Hit, Kind, Ranking, Vectors

FIRST = 64
"""How many hits are looked at first where only some documents are allowed."""


class Foreign:
    """A vector store that belongs to another application, as an index: for `Searcher`, and so for fusions and rerankers.

    It is only read. Where only some ids are allowed, the store is asked for ever more until enough of them have come, as no
    store knows another's sets of ids: exact, and slow where few are allowed among many.

    Args:
        source: The store.
        where: A filter in the store's own language that every search is held to.

    Raises:
        InvalidInput: From `add`, `remove`, `vectors`, `save` and `load`, which need the store to be one's own.

    Example:
        >>> from ragistry.types import Hit
        >>> class One:
        ...     def near(self, vector, k, where=None):
        ...         return [Hit("1", 1.0, "fourteen lines")][:k]
        ...     async def anear(self, vector, k, where=None):
        ...         return self.near(vector, k)
        ...     def get(self, ids):
        ...         return []
        >>> Foreign(One()).search(np.ones((1, 2), np.float32), 5)[0].ids
        ('1',)
    """

    kind: Kind = "dense"

    def __init__(self, source: Source, where: Any = None) -> None:
        if not isinstance(source, Source):
            raise InvalidInput(f"{type(source).__name__} has not the methods `near`, `anear` and `get`; give a Source")
        self.source, self.where = source, where

    def search(self, queries: Vectors, k: int, *, among: Among = None) -> list[Ranking]:
        """The nearest `k` of `among` for each query, float32 [n, d]; fewer when there are fewer."""
        return [self._ranked(query, k, among) for query in cast(Floats, queries)]

    def vectors(self, ids: Sequence[str]) -> NoReturn:
        """Not to be had: stores have no common way to give vectors."""
        self._refuse("gives no vectors; encode the documents' texts again")

    def add(self, ids: Sequence[str], vectors: Vectors) -> None:
        """Refused."""
        self._refuse("takes no documents")

    def remove(self, ids: Iterable[str]) -> None:
        """Refused."""
        self._refuse("gives up no documents")

    def fork(self) -> Self:
        """Itself, as nothing can change it."""
        return self

    def save(self, files: Files) -> State:
        """Refused."""
        self._refuse("is saved where it is")

    def load(self, state: State, files: Files) -> None:
        """Refused."""
        self._refuse("is loaded where it is")

    def __len__(self) -> int:
        """At least 1: how many there are is the store's own business."""
        return 1

    def _ranked(self, query: Floats, k: int, among: Among) -> Ranking:
        if k < 1 or (among is not None and not among):
            return ranked([])
        if among is None:
            return ranked(self.source.near(query, k, self.where)).head(k)
        allowed, asked = frozenset(among), max(FIRST, k)
        while True:
            hits = self.source.near(query, asked, self.where)
            found = [hit for hit in hits if hit.id in allowed]
            if len({hit.id for hit in found}) >= min(k, len(allowed)) or len(hits) < asked:
                return ranked(found).head(k)
            asked *= 4

    def _refuse(self, problem: str) -> NoReturn:
        raise InvalidInput(
            f"a store of someone else's ({type(self.source).__name__}) is only read: it {problem}; change it by its own "
            "means, or keep documents in a Collection"
        )


def ranked(hits: Sequence[Hit]) -> Ranking:
    """Hits of a store, in its order, as a ranking: with its scores if they can be a ranking's, else with 1 / rank."""
    first = {hit.id: hit.score for hit in reversed(hits)}
    ids = tuple(dict.fromkeys(hit.id for hit in hits))
    scores = np.array([first[id] for id in ids], np.float32)
    falling = np.isfinite(scores).all() and all(
        a > b or (a == b and one < other) for a, b, one, other in zip(scores, scores[1:], ids, ids[1:], strict=False)
    )
    ranks = np.arange(1, len(ids) + 1, dtype=np.float32)
    return Ranking(ids, scores if falling else np.float32(1) / ranks)

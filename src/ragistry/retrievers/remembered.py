"""A retriever that answers a question it has been asked before from memory."""

from __future__ import annotations

from collections.abc import Sequence

from ..protocols import Retriever
from ..types import Among, Query, Ranking


class Remembered:
    """Keeps every ranking it gives, for comparing many fusions of the same members.

    Use it while the documents do not change, and drop it afterwards: memory grows with every new question.

    Args:
        retriever: Who is asked the first time.

    Example:
        >>> from ragistry import create
        >>> Remembered(create("bm25")).search(["anything"])[0].ids
        ()
    """

    def __init__(self, retriever: Retriever) -> None:
        self.retriever = retriever
        self._known: dict[tuple[Query, int, frozenset[str] | None], Ranking] = {}

    def search(self, queries: Sequence[Query], k: int = 10, *, among: Among = None) -> list[Ranking]:
        """One ranking per query, at most `k` long, of ids in `among`."""
        allowed = None if among is None else frozenset(among)
        unknown = list(dict.fromkeys(query for query in queries if (query, k, allowed) not in self._known))
        if unknown:
            for query, ranking in zip(unknown, self.retriever.search(unknown, k, among=among), strict=True):
                self._known[query, k, allowed] = ranking
        return [self._known[query, k, allowed] for query in queries]

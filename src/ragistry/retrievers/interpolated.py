"""A dense searcher with feedback, fused with words before the feedback, after it, or both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

from ..errors import InvalidInput
from ..protocols import Expander, Retriever
from ..types import Among, Query, Ranking
from .asking import check_search
from .fuse import Fuse
from .prf import PRF, Texts
from .remembered import Remembered
from .searcher import Searcher

Position: TypeAlias = Literal["before", "after", "both"]


class Interpolated(Fuse):
    """Two members, asked in an arrangement of `Fuse` and `PRF`; documents are kept once, whatever it is.

    Before: feedback is what the fusion of words and vectors finds, the second look is by vectors alone. After: feedback is
    what vectors find, and the second look is fused with words. Both: the one and the other.

    Args:
        sparse: The member that looks at words.
        dense: The member whose queries learn from feedback.
        expander: How.
        position: "before", "after" or "both".
        weight: Of the words in every fusion, 0 to 1. With 0 there is no fusion, only feedback.
        feedback: How many documents the queries learn from; with 0 they learn nothing.
        depth: How many documents of each list are fused.

    Raises:
        InvalidInput: If a setting is out of range.

    Example:
        >>> from ragistry import Document, create
        >>> from ragistry.encoders.functions import Function
        >>> from ragistry.indexes.faiss import Faiss
        >>> from ragistry.retrievers.expanders import VectorPRF
        >>> vowels = Function(lambda texts: [[text.count(vowel) for vowel in "aeiou"] for text in texts], "vowels")
        >>> both = Interpolated(create("bm25"), Searcher(vowels, Faiss()), VectorPRF())
        >>> both.add([Document("1", "fourteen lines"), Document("2", "three cats")])
        >>> both.search(["lines"])[0].ids
        ('1', '2')

    Source: "To interpolate or not to interpolate", arXiv:2205.00235 (SIGIR 2022): scores from the least to the largest of
    each list are brought to 0 .. 1, and documents that one list has not found get 0 for it.
    """

    def __init__(
        self,
        sparse: Retriever,
        dense: Searcher,
        expander: Expander,
        *,
        position: Position = "both",
        weight: float = 0.5,
        feedback: int = 5,
        depth: int = 100,
    ) -> None:
        if position not in get_args(Position):
            raise InvalidInput(f"position={position!r:.100} is not known; known: {', '.join(get_args(Position))}")
        if not 0 <= weight <= 1:
            raise InvalidInput(f"weight={weight!r:.100}; give a number from 0 (no words) to 1 (words alone)")
        weights = {"sparse": weight, "dense": 1 - weight}
        super().__init__(
            {"sparse": sparse, "dense": dense}, weights, normalise="min-max", missing="minimum", depth=depth
        )
        self.expander, self.position, self.feedback = expander, position, feedback
        self._source: Texts | None = None
        self.arranged()  # refuses what does not fit together

    def search(self, queries: Sequence[Query], k: int = 10, *, among: Among = None) -> list[Ranking]:
        """One ranking per query, at most `k` long, of ids in `among`.

        Raises:
            InvalidInput: If `queries` is no sequence of texts, `k` no whole number, or `among` no collection.
        """
        check_search(queries, k, among)
        return self.arranged().search(queries, k, among=among)

    def read_from(self, documents: Texts) -> None:
        """Tell members and expander, if they read texts, where to: see `ragistry.protocols.Reading`."""
        super().read_from(documents)
        self._source = documents

    def arranged(self) -> Retriever:
        """The members in their arrangement, for one search: what words find is found once."""
        sparse, dense = Remembered(self.members["sparse"]), self.members["dense"]

        def fused(dense: Retriever) -> Retriever:
            members = {"sparse": sparse, "dense": dense}
            return Fuse(members, self.weights, normalise=self.normalise, missing=self.missing, depth=self.depth)

        first = None if self.position == "after" else fused(dense)
        looking = PRF(dense, self.expander, depth=self.feedback, first=first)  # type: ignore[arg-type]  # checked there
        if self._source is not None:
            looking.read_from(self._source)
        return looking if self.position == "before" else fused(looking)

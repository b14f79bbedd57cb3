"""A dense searcher beside an index of queries with known answers, which lend their documents a share of the score."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Self, cast

import numpy as np

from ..errors import InvalidInput
from ..protocols import Encoder, Files, Index, State
from ..types import Among, Floats, Query, Ranking
from .asking import check_search
from .searcher import Searcher

Answers = tuple[tuple[str, ...], ...]


class Neighbours(Searcher):
    """share q.d + (1 - share) (1 / k) sum over the k known queries x nearest to q of (q.x) [d answers x].

    Without known queries it is the plain searcher, exactly. Every document that could be among the best is scored: the best
    by their own score and all answers of the nearest queries.

    Args:
        encoder: A dense encoder, never changed.
        index: Of documents.
        known: An empty index, for known queries.
        share: Of the document's own score, 0 to 1.
        neighbours: k.

    Raises:
        InvalidInput: If the encoder is not dense, or a value is out of range.

    Example:
        >>> from ragistry import Document
        >>> from ragistry.encoders.functions import Function
        >>> from ragistry.indexes.faiss import Faiss
        >>> base = Function(lambda texts: [[len(text), 1.0] for text in texts], "length")
        >>> searcher = Neighbours(base, Faiss(), Faiss(), neighbours=1)
        >>> searcher.add([Document("1", "fourteen lines"), Document("2", "three")])
        >>> searcher.knowing(np.array([[1.0, 0.0]], np.float32), [("2",)]).search(["how many?"])[0].ids
        ('2', '1')

    Source: PEFA-XL, arXiv:2312.02429 (WSDM 2024), section 3.3, in the form that divides by k.
    """

    def __init__(
        self, encoder: Encoder, index: Index, known: Index, *, share: float = 0.5, neighbours: int = 32
    ) -> None:
        super().__init__(encoder, index)
        if encoder.kind != "dense" or not 0 <= share <= 1 or neighbours < 1:
            raise InvalidInput(
                f"an encoder of kind {encoder.kind!r}, share={share}, neighbours={neighbours}: a dense encoder, a share "
                "from 0 to 1 and at least 1 neighbour are needed"
            )
        self.known, self.share, self.neighbours = known, share, neighbours
        self.answers: Answers = ()

    def search(self, queries: Sequence[Query], k: int = 10, *, among: Among = None) -> list[Ranking]:
        """One ranking per query, at most `k` long, of ids in `among`."""
        check_search(queries, k, among)
        if not queries:
            return []
        self._check()
        vectors = cast(Floats, self._encoded(queries))
        found = self.index.search(vectors, k, among=among)
        if not self.answers or k < 1:
            return found
        near = self.known.search(vectors, self.neighbours)
        return [self._joined(vectors[i : i + 1], found[i], near[i], k, among) for i in range(len(queries))]

    def knowing(self, vectors: Floats, answers: Sequence[Sequence[str]]) -> Self:
        """The same documents, with these queries in place of those known before.

        Args:
            vectors: Of queries, float32 [n, d].
            answers: Of each, the ids of documents that answer it.

        Raises:
            InvalidInput: If their numbers differ.
        """
        if len(vectors) != len(answers):
            raise InvalidInput(f"{len(vectors)} queries have {len(answers)} answers; one each is needed")
        twin = self._twin(self.index.fork())
        twin.known = self.known.fork()
        twin.known.remove(str(i) for i in range(len(self.answers)))
        twin.known.add([str(i) for i in range(len(vectors))], vectors)
        twin.answers = tuple(tuple(ids) for ids in answers)
        return twin

    def encoded(self, ids: Sequence[str]) -> Floats:
        """Vectors of documents as they were encoded, float32 [len(ids), d].

        Raises:
            UnknownName: If an id is not there.
        """
        return self._copied(ids)

    def turned(self, vectors: Floats) -> Floats:
        """Vectors of queries as they are searched with."""
        return vectors

    def fork(self) -> Self:
        """A copy that shares what is stored: changing one leaves the other as it was."""
        twin = super().fork()
        twin.known = self.known.fork()
        return twin

    def save(self, files: Files) -> State:
        """Store arrays in `files` and return the rest."""
        return super().save(files) | {"known": self.known.save(files), "answers": [list(ids) for ids in self.answers]}

    def load(self, state: State, files: Files) -> None:
        """Become what was saved."""
        super().load(state, files)
        self.known = self.known.fork()
        self.known.load(state["known"], files)
        self.answers = tuple(tuple(ids) for ids in state["answers"])

    def _joined(self, vector: Floats, found: Ranking, near: Ranking, k: int, among: Among) -> Ranking:
        lent: dict[str, float] = {}
        for number, similarity in near:
            for id in self.answers[int(number)]:
                lent[id] = lent.get(id, 0.0) + similarity / self.neighbours
        if losing := sum(value < 0 for value in lent.values()):  # may fall behind as many that are not among the best k
            found = self.index.search(vector, k + losing, among=among)[0]
        others = self._present(set(lent) - set(found.ids), among)
        scores = dict(found)
        if others:
            scores |= dict(self.index.search(vector, len(others), among=others)[0])
        ids = list(scores)
        joined = [self.share * scores[id] + (1 - self.share) * lent.get(id, 0.0) for id in ids]
        return Ranking.of(ids, np.array(joined, np.float32), k)

    def _present(self, ids: Iterable[str], among: Among) -> list[str]:
        """Those that may be returned; documents may have been removed since."""
        allowed: Any = None if among is None else frozenset(among)
        return sorted(id for id in ids if allowed is None or id in allowed)

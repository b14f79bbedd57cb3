"""Batches of queries that are near each other, found by walking from query to document to query."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Literal, TypeAlias, get_args

import numpy as np
from scipy.sparse import csr_array

from ..errors import InvalidInput
from ..types import Ints
from .samplers import Nearest, Rows, Sampler

Order: TypeAlias = Literal["snow", "walk"]


class GraphWalk(Sampler):
    """Batches in which the others' documents are hard negatives: each is a walk through who found what.

    A query is linked to a document that a first search found for it among its best (`near`), a document to the queries for
    which it was found further down (`far`): they are about something similar, and it hardly answers them. A batch begins at
    a query drawn from those not used yet, takes one of its near documents that does not answer it as its hard negative,
    and waits with that document's queries; the next query is one of those waiting, or drawn where none is left. Each query
    is used once in an epoch.

    Args:
        judged: Relevance, CSR [queries, documents].
        found: Rows of the documents that the first search found for each query, best first, int64 [queries, depth]; -1
            where there are fewer.
        near: Places of hard negatives, from and to (without).
        far: Places by which a document leads on to queries.
        order: `snow` goes on with the query that has waited longest, which keeps near to the beginning; `walk` with the
            latest.
        walks: Walks in a batch, each with its own beginning.
        size: Queries in a batch.
        seed: Of the draws.

    Raises:
        InvalidInput: If no document answers a query, `found` does not fit, or a value is out of range.

    Example:
        >>> judged = csr_array(np.eye(4, dtype=np.float32))
        >>> found = np.array([[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]])
        >>> batches = list(GraphWalk(judged, found, near=(0, 2), far=(0, 2), size=2).epoch(0))
        >>> sorted(sorted(batch.queries.tolist()) for batch in batches)  # documents 0 and 1 lead from 0 to 1
        [[0, 1], [2, 3]]

    Source: locality-centric sampling, BiDR, arXiv:2201.05409, section 3.3; its code has near=(0, 200), far=(200, 400).
    """

    def __init__(
        self,
        judged: csr_array,
        found: Ints,
        *,
        near: tuple[int, int] = (0, 200),
        far: tuple[int, int] = (200, 400),
        order: Order = "snow",
        walks: int = 1,
        size: int = 128,
        seed: int = 0,
    ) -> None:
        super().__init__(judged, negatives="in-batch", size=size, seed=seed)
        if found.ndim != 2 or len(found) != self.judged.shape[0]:
            raise InvalidInput(
                f"`found` is of shape {found.shape}; rows [{self.judged.shape[0]} queries, depth] are needed"
            )
        if order not in get_args(Order) or walks < 1 or any(not 0 <= first < last for first, last in (near, far)):
            raise InvalidInput(
                f"order={order!r}, walks={walks}, near={near}, far={far}: the order is one of "
                f"{', '.join(get_args(Order))}, walks at least 1, and places run from 0 or more to more"
            )
        self.order, self.walks = order, walks
        self._near, self._far = found[:, slice(*near)], found[:, slice(*far)]
        self._leads: dict[int, list[int]] = {}
        for query in self.queries.tolist():
            for document in self._far[query].tolist():
                if document >= 0:
                    self._leads.setdefault(document, []).append(query)

    def epoch(self, number: int, nearest: Nearest | None = None) -> Iterator[Rows]:
        """Every query that has an answer once, neighbours together."""
        draw = np.random.default_rng([self.seed, number])
        fresh = deque(draw.permutation(self.queries).tolist())
        left = dict.fromkeys(self.queries.tolist())
        while left:
            batch, negatives = list[int](), list[int]()
            share = -(-self.size // self.walks)
            while left and len(batch) < self.size:
                self._walk(min(share, self.size - len(batch)), fresh, left, draw, batch, negatives)
            yield self._rows(np.array(batch, np.int64), np.array(negatives, np.int64))

    def _walk(
        self,
        most: int,
        fresh: deque[int],
        left: dict[int, None],
        draw: np.random.Generator,
        batch: list[int],
        negatives: list[int],
    ) -> None:
        """Add so many queries to a batch, with a hard negative each."""
        waiting: deque[int] = deque()
        for _ in range(min(most, len(left))):
            query = self._next(waiting, fresh, left)
            del left[query]
            batch.append(query)
            start, end = self.judged.indptr[query], self.judged.indptr[query + 1]
            own = self.judged.indices[start:end][self.judged.data[start:end] > 0]
            near = self._near[query]
            near = near[(near >= 0) & ~np.isin(near, own)]
            if len(near):
                negative = int(draw.choice(near))
                negatives.append(negative)
                waiting.extend(draw.permutation(self._leads.get(negative, [])).astype(int).tolist())

    def _next(self, waiting: deque[int], fresh: deque[int], left: dict[int, None]) -> int:
        while waiting:
            query = waiting.popleft() if self.order == "snow" else waiting.pop()
            if query in left:
                return query
        while True:
            query = fresh.popleft()
            if query in left:
                return query

"""Which queries meet which documents in a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from scipy.sparse import csr_array

from ..errors import InvalidInput
from ..types import Floats, Ints

Negatives: TypeAlias = Literal["in-batch", "judged", "mined", "corpus"]
Nearest: TypeAlias = Callable[[Ints, int], Ints]
"""From rows of queries and k to rows of their k nearest documents under the encoder as it is, int64 [n, k]; -1 for none."""
WHOLE = 20_000
"""Up to so many documents, `corpus` compares with all of them."""


@dataclass(frozen=True, slots=True)
class Rows:
    """One batch by row numbers: queries int64 [b], documents int64 [m] (each once), relevance float32 [b, m]."""

    queries: Ints
    documents: Ints
    relevance: Floats


class Sampler:
    """Batches of queries with candidates: all their own judged documents, and others that do not answer them.

    | negatives | candidates besides the batch's own |
    |---|---|
    | `in-batch` | none |
    | `judged` | `sample` of the documents that answer some query, drawn anew for each batch |
    | `mined` | of each query, its `depth` nearest under the encoder as it was when the epoch began |
    | `corpus` | all documents up to 20,000; beyond, `sample` of all, and each query's `depth` nearest as in `mined` |

    `judged` is fair to documents without examples: were they ever only negatives, an encoder would learn to push away what
    it has no examples for. A document known to answer a query is never a negative of it.

    Args:
        judged: Relevance, CSR [queries, documents]; a stored 0 is a hard negative of its query.
        negatives: See the table.
        size: Queries in a batch.
        sample: See the table.
        depth: See the table.
        seed: Of the order and the draws.

    Raises:
        InvalidInput: If no document answers a query, or a value is out of range.

    Example:
        >>> from scipy.sparse import csr_array
        >>> batch = next(Sampler(csr_array([[1.0, 0.0], [0.0, 1.0]]), size=2).epoch(0))
        >>> sorted(batch.documents.tolist()), batch.relevance.sum()
        ([0, 1], np.float32(2.0))
    """

    def __init__(
        self,
        judged: csr_array,
        *,
        negatives: Negatives = "judged",
        size: int = 256,
        sample: int = 1024,
        depth: int = 8,
        seed: int = 0,
    ) -> None:
        if negatives not in get_args(Negatives) or min(size, sample, depth) < 1:
            raise InvalidInput(
                f"negatives={negatives!r}, size={size}, sample={sample}, depth={depth}: negatives are one of "
                f"{', '.join(get_args(Negatives))}, the others at least 1"
            )
        self.judged = csr_array(judged)
        self.negatives, self.size, self.sample, self.depth, self.seed = negatives, size, sample, depth, seed
        entries = np.repeat(np.arange(self.judged.shape[0]), np.diff(self.judged.indptr))
        answers = self.judged.data > 0
        self.queries: Ints = np.unique(entries[answers]).astype(np.int64)
        self.answers: Ints = np.unique(self.judged.indices[answers]).astype(np.int64)
        if not len(self.queries):
            raise InvalidInput(
                "no document answers any query, so there is nothing to learn; give pairs of relevance above 0"
            )

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-len(self.queries) // self.size)

    @property
    def mining(self) -> bool:
        """Whether `epoch` needs `nearest`."""
        return self.negatives == "mined" or (self.negatives == "corpus" and self.judged.shape[1] > WHOLE)

    def epoch(self, number: int, nearest: Nearest | None = None) -> Iterator[Rows]:
        """Every query that has an answer once, in an order of the epoch's own."""
        draw = np.random.default_rng([self.seed, number])
        order = draw.permutation(self.queries)
        if self.mining and nearest is None:
            raise InvalidInput(f"negatives={self.negatives!r} need a way to find the nearest documents; give `nearest`")
        # A query's own answers may be among the nearest, and are then no negatives; the others still fill the depth.
        mined = nearest(self.queries, self.depth) if self.mining and nearest is not None else None
        for first in range(0, len(order), self.size):
            queries = order[first : first + self.size]
            others = [] if mined is None else [mined[np.searchsorted(self.queries, queries)].ravel()]
            yield self._rows(queries, np.concatenate([*others, self._drawn(draw)]))

    def _drawn(self, draw: np.random.Generator) -> Ints:
        total = self.judged.shape[1]
        if self.negatives == "corpus" and total <= WHOLE:
            return np.arange(total)
        if self.negatives in ("in-batch", "mined"):
            return np.empty(0, np.int64)
        pool = self.answers if self.negatives == "judged" else None
        size = len(pool) if pool is not None else total
        drawn = draw.choice(size, min(self.sample, size), replace=False)
        return drawn if pool is None else pool[drawn]

    def _rows(self, queries: Ints, others: Ints) -> Rows:
        starts, ends = self.judged.indptr[queries], self.judged.indptr[queries + 1]
        entries = np.concatenate([np.arange(start, end) for start, end in zip(starts, ends, strict=True)])
        own = self.judged.indices[entries]
        documents = np.unique(np.concatenate([own, others[others >= 0]])).astype(np.int64)
        relevance = np.zeros((len(queries), len(documents)), np.float32)
        relevance[np.repeat(np.arange(len(queries)), ends - starts), np.searchsorted(documents, own)] = np.maximum(
            self.judged.data[entries], 0
        )
        return Rows(queries, documents, relevance)

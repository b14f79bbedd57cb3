"""Which documents are worth scoring: those with tokens near the centroids that a query's tokens are near to.

Token vectors are clustered, and each centroid lists the documents that have a token nearest to it. A query token stands by
its nearest few centroids; of those that a document is listed by, the best one's product is the token's part in the
document's estimated score, and where there is none, that of the best centroid not looked at. The documents of the highest
estimates are then scored exactly.

How many is measured when the lists are made: twice the first of 128, 256, 512 and so on with which 32 queries find 99 % of
their exact best ten; with what recall, is measured with 32 others. The queries are 16 tokens of a document drawn at random,
each turned away from by noise (see `ragistry.indexes.fastscan`). Twice, as real queries may need more: of 1,280 short
abstracts (SciFact, MiniLM's tokens), 80 candidates found 92 % for the made queries and 87 % for 32 claims, 160 found 96 %
for both. Where a quarter of the documents is not enough, all are scored.

Source: Santhanam et al., "PLAID: An Efficient Engine for Late Interaction Retrieval" (CIKM 2022), arXiv:2205.09707, its
centroid interaction. Here nothing but the documents is pruned, vectors are not compressed, and parts that are missing are
imputed as in Lee et al., "Rethinking the Role of Token Retrieval in Multi-Vector Retrieval" (XTR, NeurIPS 2023),
arXiv:2304.01982.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ..protocols import Files, State
from ..registry import require
from ..types import Bools, Floats, Ints, MultiVectors
from .tokens import Tokens

Depth: TypeAlias = int | Literal["auto"] | None
"""How many documents are scored exactly: what was measured to suffice, a number, or all."""

GOAL = 0.99  # of recall@10
_WHOLE = 1 << 18  # tokens of a segment below which all are compared
_SHARE = 4  # as candidates, at most one document in so many
_K = 10  # measured with
_PROBES = 16  # centroids by which a query token is stood for, at least
_LISTED = 2  # times as many documents as candidates are wanted are listed by those, about
_FIRST = 128  # the first depth tried; the next ones are twice as deep each
_CAUTION = 2  # times as deep are searches
_QUERIES, _TOKENS = 64, 16  # measured with
_TRAINED, _ROUNDS = 40, 8  # tokens for each centroid, and rounds of k-means
_TOGETHER = 1 << 23  # numbers of tokens in memory at once


@dataclass(frozen=True, eq=False)
class Centroids:
    """Centroids float32 [centroids, dimensions] with lists of documents: centroid i's are `rows[starts[i]:starts[i + 1]]`.

    `depth` is how many candidates to score for the best ten, `None` for all documents; `recall` what was measured with it.
    """

    points: Floats
    starts: Ints
    rows: npt.NDArray[np.int32]
    depth: int | None
    recall: float

    def save(self, files: Files) -> State:
        """Store arrays in `files` and return the rest."""
        arrays = {name: files.put(getattr(self, name)) for name in ("points", "starts", "rows")}
        return arrays | {"depth": self.depth, "recall": self.recall}

    @classmethod
    def read(cls, state: State, files: Files) -> Centroids:
        """What `save` wrote."""
        points, starts, rows = (files.get(state[name]) for name in ("points", "starts", "rows"))
        return cls(points, starts, rows, state["depth"], float(state["recall"]))

    def wanted(self, k: int, allowed: int) -> int | None:
        """How many candidates to score for the best `k` of so many documents, `None` for all of them."""
        depth = None if self.depth is None else max(self.depth, math.ceil(self.depth * k / _K))
        return None if depth is None or _SHARE * depth >= allowed else depth

    def candidates(self, query: Floats, depth: int, allowed: Bools) -> Ints:
        """The allowed documents of the highest estimates, ascending; fewer than `depth` if fewer are listed nearby."""
        near = query @ self.points.T
        lists = max(_PROBES, math.ceil(_LISTED * depth * len(self.points) / max(len(self.rows), 1)))
        probes = min(lists + 1, len(self.points))
        chosen = np.argpartition(near, -probes, axis=1)[:, -probes:]
        sums, gains = np.zeros(len(allowed), np.float32), np.zeros(len(allowed), np.float32)
        for scores, centroids in zip(near, chosen, strict=True):
            rising = centroids[np.argsort(scores[centroids], kind="stable")]
            least = scores[rising[0]]
            for centroid in rising[1:].tolist():  # a document keeps what the best of its centroids wrote last
                gains[self.rows[self.starts[centroid] : self.starts[centroid + 1]]] = scores[centroid] - least
            sums += gains
            gains.fill(0)
        found = np.flatnonzero((sums > 0) & allowed)
        if len(found) > depth:
            found = np.sort(found[np.argpartition(sums[found], -depth)[-depth:]])
        return found


def worthwhile(tokens: Tokens) -> bool:
    """Whether there is so much to compare, in so many documents, that candidates may save time."""
    return len(tokens.codes) >= _WHOLE and len(tokens.lengths) > _SHARE * _CAUTION * _FIRST


def build(tokens: Tokens, depth: int | None, seed: int) -> Centroids:
    """Cluster the tokens of a segment, list its documents, and measure.

    Args:
        tokens: Enough to be worthwhile.
        depth: How many documents to score exactly for the best ten; `None` to find out.
        seed: For k-means and for what is measured with.
    """
    points, nearest = _clustered(tokens, seed)
    documents = np.repeat(np.arange(len(tokens.lengths)), tokens.lengths)
    pairs = np.unique(nearest * len(tokens.lengths) + documents)
    owners, rows = np.divmod(pairs, len(tokens.lengths))
    starts = np.searchsorted(owners, np.arange(len(points) + 1)).astype(np.int64)
    return _measured(tokens, Centroids(points, starts, rows.astype(np.int32), depth, 0.0), seed)


def _clustered(tokens: Tokens, seed: int) -> tuple[Floats, Ints]:
    """Centroids, about four times as many as the root of the number of tokens, and the nearest of each token."""
    faiss = require("faiss", "dense")
    count, width = tokens.codes.shape
    centroids = 1 << math.floor(math.log2(4 * math.sqrt(count)))
    sample = np.random.default_rng(seed).choice(count, min(count, _TRAINED * centroids), replace=False)
    kmeans = faiss.Kmeans(width, centroids, niter=_ROUNDS, seed=seed, min_points_per_centroid=1)
    kmeans.train(tokens.take(np.sort(sample)))
    step = max(1, _TOGETHER // width)
    nearest = [kmeans.index.search(tokens.read(i, min(i + step, count)), 1)[1][:, 0] for i in range(0, count, step)]
    return kmeans.centroids, np.concatenate(nearest)


def _measured(tokens: Tokens, lists: Centroids, seed: int) -> Centroids:
    """The lists with the depth that half of the queries need, if none is set, and the recall@10 of the others."""
    queries, half = _queries(tokens, seed), _QUERIES // 2
    held, ranks = np.flatnonzero(tokens.held), np.arange(len(tokens.lengths), dtype=np.int32)
    exact = [scores[-1] for _, scores in tokens.nearest(queries, _K, held, ranks)]

    def recall(depth: int, some: range) -> float:
        reached = []
        for i in some:
            query = MultiVectors(queries[i], np.array([0, len(queries[i])]))
            rows = lists.candidates(query.values, depth, tokens.held)
            reached.append(np.count_nonzero(tokens.nearest(query, _K, rows, ranks)[0][1] >= exact[i]) / _K)
        return float(np.mean(reached))

    depth = lists.depth or _FIRST
    if lists.depth is None:
        while _SHARE * _CAUTION * depth < len(held) and recall(depth, range(half)) < GOAL:
            depth *= 2
        depth *= _CAUTION
    if _SHARE * depth >= len(held):
        return replace(lists, recall=1.0)
    return replace(lists, depth=depth, recall=recall(depth, range(half, _QUERIES)))


def _queries(tokens: Tokens, seed: int) -> MultiVectors:
    """Parts of documents, turned away from."""
    from .fastscan import perturbed

    rng = np.random.default_rng(seed)
    made = []
    for row in rng.choice(np.flatnonzero(tokens.held), _QUERIES).tolist():
        some = tokens.document(row)
        made.append(perturbed(some, min(len(some), _TOKENS), int(rng.integers(1 << 31))))
    return MultiVectors(np.concatenate(made), np.cumsum([0, *map(len, made)], dtype=np.int64))

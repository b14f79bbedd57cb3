"""What a segment of a dense index holds: raw vectors, from which every score is computed, and perhaps a faiss index."""

from __future__ import annotations

import math
import threading
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..protocols import Files, State
from ..types import Bools, Floats, Ints
from . import fastscan
from .factory import Built, Factory, faiss, one_thread

Hits: TypeAlias = tuple[Ints, Floats]
"""Rows best first, and their scores."""

Base: TypeAlias = tuple[Built, int]
"""An index over other rows, and how many of its rows are the first of one's own: all of them, or 0."""

_ROUNDING: float = 2.0**-24  # of float32, relative
_SCORES = 1 << 24  # how many scores a batch of queries may hold at once
_FEW = 64  # so many rows more than are wanted are not worth a look in single precision first
_TOGETHER = 128  # rows scored at once: their terms stay in the cache


class Block:
    """Raw vectors float32 [n, dimensions], their squared lengths, and a faiss index that is built when first needed."""

    def __init__(
        self, factory: Factory, vectors: Floats, squares: Floats, built: Built | None = None, base: Base | None = None
    ) -> None:
        self.factory, self.vectors, self.squares = factory, vectors, squares
        self.built, self._base, self._lock = built, base, threading.Lock()

    @cached_property
    def longest(self) -> float:
        """The length of the longest vector, rounded up."""
        return math.sqrt(float(self.squares.max())) * (1 + 4 * _ROUNDING * len(self.vectors[0])) + 1e-15

    def base(self, full: bool) -> Base | None:
        """What the index of a block that begins with these rows, or with some of them, can be made from."""
        known = (self.built, len(self.vectors)) if self.built else self._base
        return known if known is None or full else (known[0], 0)

    def index(self) -> Built | None:
        """The index, built if need be, or `None` where there are too few rows for one."""
        if not self.factory.approximate or len(self.vectors) < self.factory.enough:
            return None
        if self.built is None:
            with self._lock:
                if self.built is None:
                    if self._base is None:
                        built = self.factory.build(self.vectors)
                    else:
                        built = self.factory.extend(*self._base, self.vectors)
                    if self.factory.measured:
                        built.trust = fastscan.measure(self, built)
                    self.built, self._base = built, None
        return self.built

    def save(self, files: Files) -> State:
        """Store the vectors, and the index if there is one by now."""
        return {
            "vectors": files.put(self.vectors),
            "squares": files.put(self.squares),
            "built": self.built.save(files) if self.built else {},
            "settings": [self.factory.name, self.factory.metric, self.factory.seed],
        }

    def exact(
        self, queries: Floats, k: int, mask: Bools, ranks: npt.NDArray[np.int32], rows: Ints | None = None
    ) -> list[Hits]:
        """The best `k` allowed rows by exact score, ties by rank; `rows` are those of the mask, if they are known."""
        allowed = np.flatnonzero(mask) if rows is None else rows
        if len(allowed) <= max(k, len(mask) // 4):
            return [self.best(query, allowed, k, ranks) for query in queries]
        found, step = [], max(1, _SCORES // len(mask))
        for first in range(0, len(queries), step):
            some = queries[first : first + step]
            rough = self._rough(some)
            if self.factory.metric == "l2":
                rough *= 2
                rough -= self.squares
            if len(allowed) < len(mask):
                np.copyto(rough, -np.inf, where=~mask)
            for query, scores in zip(some, rough, strict=True):
                found.append(self.best(query, self._contenders(query, scores, k), k, ranks))
        return found

    def _rough(self, queries: Floats) -> Floats:
        """Inner products, float32 [len(queries), n]."""
        if len(queries) > 1:
            return np.asarray(queries @ self.vectors.T)
        # Below some size, waking other cores takes longer than the product, and much longer where they are busy.
        product = np.vecdot if self.vectors.size < _SCORES else np.matmul
        return np.asarray(product(self.vectors, queries[0]))[None]

    def best(self, query: Floats, rows: Ints, k: int, ranks: npt.NDArray[np.int32]) -> Hits:
        """The best `k` of some rows by exact score, ties by rank."""
        if len(rows) > k + _FEW:
            rough = self._products(rows, query)
            if self.factory.metric == "l2":
                rough = 2 * rough - self.squares[rows]
            rows = rows[self._contenders(query, rough, k)]
        scores = self._scores(rows, query)
        if k < len(rows):
            kept = np.flatnonzero(scores >= np.partition(scores, len(rows) - k)[len(rows) - k])
            rows, scores = rows[kept], scores[kept]
        order = np.lexsort((ranks[rows], -scores))[:k]
        return rows[order], scores[order]

    def _products(self, rows: Ints, query: Floats) -> Floats:
        """Inner products of some rows, rounded one way or another."""
        products, rows = np.empty(len(rows), np.float32), np.ascontiguousarray(rows, np.int64)
        at = faiss.swig_ptr
        with one_thread():  # a few microseconds' work each, which others would only wait for
            faiss.fvec_inner_products_by_idx(
                at(products), at(query), at(self.vectors), at(rows), len(query), 1, len(rows)
            )
        return products

    def _scores(self, rows: Ints, query: Floats) -> Floats:
        """Scores of some rows, the same bits whatever the company: float64 terms added in pairs, halves onto halves."""
        scores, wide = np.empty(len(rows), np.float32), query.astype(np.float64)
        for first in range(0, len(rows), _TOGETHER):
            terms = self.vectors[rows[first : first + _TOGETHER]].astype(np.float64)
            if self.factory.metric == "l2":
                terms -= wide
                terms *= -terms
            else:
                terms *= wide
            size = len(query)
            while size > 1:
                half = (size + 1) // 2
                terms[:, : size - half] += terms[:, half:size]
                size = half
            scores[first : first + _TOGETHER] = terms[:, 0] + 0.0
        return scores

    def _contenders(self, query: Floats, rough: Floats, k: int) -> Ints:
        """Where those are that can be among the best `k` by exact score, ties included."""
        kth = float(np.partition(rough, len(rough) - k)[len(rough) - k])
        found: Ints = np.flatnonzero(rough >= kth - 2 * self._error(query))
        return found

    def _error(self, query: Floats) -> float:
        """How far a rough score can be from the exact one: the usual bound for a float32 sum in any order."""
        length = math.sqrt(float(np.dot(query.astype(np.float64), query.astype(np.float64))))
        scale = self.longest * length if self.factory.metric == "ip" else math.pow(self.longest + length, 2)
        return 1.01 * (len(query) + 16) * _ROUNDING * scale + 1e-37 * len(query)

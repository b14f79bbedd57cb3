"""Dense vectors behind any of faiss's index families, with raw vectors beside them so that every score is exact."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from numba import boolean, float32, types

from ..compiled import F32, I64, compiled
from ..errors import InvalidInput
from ..protocols import Files, State
from ..types import Among, Bools, Floats, Ints, Kind, Ranking, Vectors
from .factory import SMALL, Built, Factory, Metric
from .segments import Segment, Segmented

Hits: TypeAlias = tuple[Ints, Floats]
"""Rows best first, and their scores."""

Base: TypeAlias = tuple[Built, int]
"""An index over other rows, and how many of its rows are the first of one's own: all of them, or 0."""

_SPARSE = 8  # a search allowed one row in so many is done exactly
_ROUNDING: float = 2.0**-24  # of float32, relative
_LONGEST = 1e18  # products of longer vectors do not fit float32
_SCORES = 1 << 24  # how many scores a batch of queries may hold at once


@compiled(float32[::1](types.Array(float32, 2, "C", readonly=True), I64, F32, boolean))
def _score(vectors: Any, rows: Any, query: Any, distance: bool) -> Any:
    """Scores of some rows, the same bits whatever the company: float64 terms added in pairs, halves onto halves."""
    scores, terms, wide = np.empty(len(rows), np.float32), np.empty(len(query)), query.astype(np.float64)
    for i in range(len(rows)):
        vector = vectors[rows[i]]
        if distance:
            for j in range(len(query)):
                terms[j] = (vector[j] - wide[j]) * (wide[j] - vector[j])
        else:
            for j in range(len(query)):
                terms[j] = vector[j] * wide[j]
        size = len(query)
        while size > 1:
            half = (size + 1) // 2
            for j in range(size - half):
                terms[j] += terms[j + half]
            size = half
        scores[i] = np.float32(terms[0] + 0.0)
    return scores


class Block:
    """Raw vectors float32 [n, dimensions], their squared lengths, and a faiss index that is built when first needed."""

    def __init__(
        self, factory: Factory, vectors: Floats, squares: Floats, built: Built | None = None, base: Base | None = None
    ) -> None:
        self.factory, self.vectors, self.squares = factory, vectors, squares
        self._built, self._base, self._lock = built, base, threading.Lock()

    @cached_property
    def longest(self) -> float:
        """The length of the longest vector, rounded up."""
        return math.sqrt(float(self.squares.max())) * (1 + 4 * _ROUNDING * len(self.vectors[0])) + 1e-15

    def base(self, full: bool) -> Base | None:
        """What the index of a block that begins with these rows, or with some of them, can be made from."""
        known = (self._built, len(self.vectors)) if self._built else self._base
        return known if known is None or full else (known[0], 0)

    def index(self) -> Built | None:
        """The index, or `None` where there are too few rows for one."""
        if not self.factory.approximate or len(self.vectors) < self.factory.enough:
            return None
        if self._built is None:
            with self._lock:
                if self._built is None:
                    if self._base is None:
                        self._built = self.factory.build(self.vectors)
                    else:
                        self._built = self.factory.extend(*self._base, self.vectors)
                    self._base = None
        return self._built

    def save(self, files: Files) -> State:
        built = self.index()
        return {
            "vectors": files.put(self.vectors),
            "squares": files.put(self.squares),
            "built": {"index": built.save(files), "trained": built.trained} if built else {},
            "settings": [self.factory.name, self.factory.metric, self.factory.seed],
        }

    def exact(self, queries: Floats, k: int, mask: Bools, ranks: npt.NDArray[np.int32]) -> list[Hits]:
        """The best `k` allowed rows by exact score, ties by rank."""
        allowed = np.flatnonzero(mask)
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
                kth = float(np.partition(scores, len(scores) - k)[len(scores) - k])
                rows = np.flatnonzero(scores >= kth - 2 * self._error(query))
                found.append(self.best(query, rows, k, ranks))
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
        scores = _score(self.vectors, rows, query, self.factory.metric == "l2")
        if k < len(rows):
            kept = np.flatnonzero(scores >= np.partition(scores, len(rows) - k)[len(rows) - k])
            rows, scores = rows[kept], scores[kept]
        order = np.lexsort((ranks[rows], -scores))[:k]
        return rows[order], scores[order]

    def _error(self, query: Floats) -> float:
        """How far a rough score can be from the exact one: the usual bound for a float32 sum in any order."""
        length = math.sqrt(float(np.dot(query.astype(np.float64), query.astype(np.float64))))
        scale = self.longest * length if self.factory.metric == "ip" else math.pow(self.longest + length, 2)
        return 1.01 * (len(query) + 16) * _ROUNDING * scale + 1e-37 * len(query)


class Faiss(Segmented[Block]):
    """Dense vectors, searched exactly or by any of faiss's index families.

    Raw vectors are kept beside the faiss index. Whatever the index proposes is scored again with them, in double
    precision, so scores are exact inner products (or negated squared distances), comparable between segments and the
    same bits however documents were divided into batches. With `Flat` the ranking is exact too, ties broken by id. With
    the other factories the index proposes `4 k + 60` candidates (`k` where it holds the vectors themselves), so a
    document may be missed, but never are fewer than `k` returned while `k` are allowed: where the index finds too few,
    the allowed vectors are scanned.

    Scanned exactly as well, because it is as fast: a search allowed at most 2,000 vectors or an eighth of a segment, and a
    segment of at most 2,000 vectors or of fewer than 39 for each centroid to train (the number of IVF lists; 256 for PQ and
    OPQ, 16 for PQ x4). An index is built when first searched or saved. It grows by addition, and is trained again once it
    holds four times what it was trained on. Building is reproducible: graphs (HNSW) and rotations (OPQ, PCA) are built by
    one thread for that reason.

    Safe to search from many threads; one thread at a time may change it.

    Args:
        factory: `Flat`; `SQ8` (or 4, 6, fp16, bf16); `PQ16` (16 codes of 8 bits; `PQ16x4fs` for the fast 4-bit scan);
            `IVF256,` before any of these; `HNSW32` or `HNSW32,SQ8`; `OPQ16,`, `OPQ16_64,` or `PCA64,` before any of these.
        metric: `"ip"`, the inner product, which for unit vectors is the cosine; or `"l2"`, for which a score is minus the
            squared distance.
        probes: How many IVF lists are looked at; an eighth of them, at least 8, by default. More when only some of the
            vectors may be returned, in proportion.
        ef: How many HNSW nodes are kept in view; `4 k + 60` by default. More when only some may be returned, likewise.
        seed: For k-means and for graph levels.

    Raises:
        InvalidInput: If the factory is unknown, or `probes` or `ef` do not belong to it.

    Example:
        >>> import numpy as np
        >>> index = Faiss()
        >>> index.add(["a", "b"], np.array([[1.0, 0.0], [0.6, 0.8]], np.float32))
        >>> list(index.search(np.array([[0.0, 1.0]], np.float32), k=1)[0])
        [('b', 0.800000011920929)]

    Source: Douze et al., "The Faiss library" (2024), arXiv:2401.08281.
    """

    kind: Kind = "dense"

    def __init__(
        self,
        factory: str = "Flat",
        *,
        metric: Metric = "ip",
        probes: int | None = None,
        ef: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self._factory = Factory(factory, metric, probes, ef, seed)
        self._factory.check()

    def add(self, ids: Sequence[str], vectors: Vectors) -> None:
        """Insert vectors [len(ids), dimensions]; an id that is already there is replaced. They are copied, as float32.

        Raises:
            InvalidInput: If ids and vectors do not match one to one, an id is given twice, the dimension differs from
                that of the vectors held or does not suit the factory, or a number is NaN, infinite or too large.
        """
        super().add(ids, self._checked(vectors, "vectors"))

    def search(self, queries: Any, k: int, *, among: Among = None) -> list[Ranking]:
        """The best `k` of `among` for each row of `queries`, [queries, dimensions].

        Raises:
            InvalidInput: If the dimension differs from that of the vectors held, or a number is NaN, infinite or too
                large.
        """
        segments = self._segments
        asked = self._checked(queries, "queries")
        if k <= 0 or not segments or (among is not None and not among):
            return [Ranking((), np.empty(0, np.float32))] * len(asked)
        found: list[tuple[list[str], list[Floats]]] = [([], []) for _ in asked]
        for segment in segments:
            hits = self._nearest(segment, asked, k, self._mask(segment, among))
            for (ids, scores), (rows, values) in zip(found, hits, strict=True):
                ids += segment.ids.at(rows.tolist())
                scores.append(values)
        if len(segments) == 1:
            return [Ranking(tuple(ids), scores[0]) for ids, scores in found]
        return [Ranking.of(ids, np.concatenate(scores), k) for ids, scores in found]

    def vectors(self, ids: Sequence[str]) -> Floats:
        """The vectors as they were added, float32 [len(ids), dimensions], in the order asked.

        Raises:
            UnknownName: If an id is not there.
        """
        segments = self._segments
        located = self._locate(segments, ids)
        found = np.empty((len(located), self._dimension or 0), np.float32)
        for i, (number, row) in enumerate(located):
            found[i] = segments[number].content.vectors[row]
        return found

    def _nearest(self, segment: Segment[Block], queries: Floats, k: int, mask: Bools) -> list[Hits]:
        block, ranks, allowed = segment.content, segment.ids.ranks, int(np.count_nonzero(mask))
        built = None if allowed <= max(k, SMALL, len(mask) // _SPARSE) else block.index()
        if built is None or not len(queries):
            return block.exact(queries, k, mask, ranks)
        proposed = self._factory.candidates(built.index, queries, k, None if allowed == len(mask) else mask, allowed)
        return [
            block.best(query, rows, k, ranks) if len(rows) >= k else block.exact(query[None], k, mask, ranks)[0]
            for query, rows in zip(queries, proposed, strict=True)
        ]

    @property
    def _dimension(self) -> int | None:
        return self._segments[0].content.vectors.shape[1] if self._segments else None

    def _checked(self, vectors: Any, what: str) -> Floats:
        try:
            given = np.asarray(vectors)
        except (TypeError, ValueError, RuntimeError):
            given = np.empty(0, np.object_)  # rows of unequal lengths, or a tensor that numpy cannot see
        if given.ndim != 2 or not given.shape[1] or not np.can_cast(given.dtype, np.float32, "same_kind"):
            raise InvalidInput(
                f"the {what} are {type(vectors).__name__} of shape {given.shape} and type {given.dtype}; a faiss index "
                f"needs an array of real numbers [{what}, dimensions]"
            )
        known = self._dimension
        if known is not None and given.shape[1] != known:
            raise InvalidInput(
                f"the {what} have {given.shape[1]} dimensions, the index holds vectors of {known}; use the encoder the "
                "index was made with"
            )
        with np.errstate(over="ignore"):
            checked = np.ascontiguousarray(given, np.float32)
            squares = _squares(checked)
        bad = np.flatnonzero(~(squares <= _LONGEST**2))
        if len(bad):
            raise InvalidInput(
                f"row {bad[0]} of the {what} holds NaN or infinity, or is longer than {_LONGEST:g}; remove or scale it"
            )
        return checked

    def _make(self, vectors: Floats) -> Block:
        self._factory.check_dimension(vectors.shape[1])
        return Block(self._factory, vectors.copy(), _squares(vectors))

    def _merge(self, segments: Sequence[Segment[Block]]) -> Block:
        vectors = np.concatenate([s.content.vectors[s.alive] for s in segments])
        squares = np.concatenate([s.content.squares[s.alive] for s in segments])
        return Block(self._factory, vectors, squares, base=segments[0].content.base(segments[0].full))

    def _read(self, state: State, files: Files) -> Block:
        vectors, squares, built = files.get(state["vectors"]), files.get(state["squares"]), None
        # An index made with other settings is left aside and built again.
        if state["built"] and state["settings"] == [self._factory.name, self._factory.metric, self._factory.seed]:
            built = Built(None, int(state["built"]["trained"]), files.get(state["built"]["index"]))
        return Block(self._factory, vectors, squares, built)


def _squares(vectors: Floats) -> Floats:
    squares: Floats = np.einsum("ij,ij->i", vectors, vectors)
    return squares

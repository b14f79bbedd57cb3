"""Dense vectors behind any of faiss's index families, with raw vectors beside them so that every score is exact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..protocols import Files, State
from ..types import Among, Floats, Kind, Ranking, Vectors
from . import fastscan
from .block import Block, Hits
from .coded import checked
from .factory import SMALL, Built, Factory, Metric
from .segments import Allowed, Segment, Segmented

_SPARSE = 8  # a search allowed one row in so many is done exactly
_SPARSE_MEASURED = 32  # the same, where the codes of all rows are scanned faster than an index is asked
_LARGEST = 1 << 26  # numbers in a segment that `auto` makes, so that making one takes little memory


class Faiss(Segmented[Block]):
    """Dense vectors, searched exactly or by any of faiss's index families.

    Raw vectors are kept beside the faiss index. Whatever the index proposes is scored again with them, in double
    precision, so scores are exact inner products (or negated squared distances), comparable between segments and the
    same bits however documents were divided into batches. With `Flat` the ranking is exact too, ties broken by id. With
    the other factories but `auto` the index proposes `4 k + 60` candidates (`k` where it holds the vectors themselves), so a
    document may be missed, but never are fewer than `k` returned while `k` are allowed: where the index finds too few,
    the allowed vectors are scanned.

    Scanned exactly as well, because it is as fast: a search allowed at most 2,000 vectors or an eighth of a segment, and a
    segment of at most 2,000 vectors or of fewer than 39 for each centroid to train (the number of IVF lists; 256 for PQ and
    OPQ, 16 for PQ x4). An index is built when first searched or saved. It grows by addition, and is trained again once it
    holds four times what it was trained on. Building is reproducible: graphs (HNSW) and rotations (OPQ, PCA) are built by
    one thread for that reason.

    `auto` scans all vectors while there are fewer than 20,000. Then it scans 4-bit codes of all, of segments of 5,000 or
    more, and scores as many candidates as it takes for the ranking to be the exact one, by what was measured when the codes
    were made: see `ragistry.indexes.fastscan`, and `recall` for the figure. A search allowed one row in 32 or fewer is done
    exactly. No segment grows beyond 67 million numbers by merging, so building takes bounded memory.

    Safe to search from many threads; one thread at a time may change it.

    Args:
        factory: `Flat`; `auto`; `SQ8` (or 4, 6, fp16, bf16); `PQ16` (16 codes of 8 bits; `PQ16x4fs` for the fast 4-bit
            scan); `IVF256,` before any of these; `HNSW32` or `HNSW32,SQ8`; `OPQ16,`, `OPQ16_64,` or `PCA64,` before any of
            these.
        metric: `"ip"`, the inner product, which for unit vectors is the cosine; or `"l2"`, for which a score is minus the
            squared distance (not with `auto`).
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
        super().add(ids, checked(vectors, "vectors", self._dimension))

    def search(self, queries: Any, k: int, *, among: Among = None) -> list[Ranking]:
        """The best `k` of `among` for each row of `queries`, [queries, dimensions].

        Raises:
            InvalidInput: If the dimension differs from that of the vectors held, or a number is NaN, infinite or too
                large.
        """
        segments = self._segments
        total = sum(segment.size for segment in segments)
        asked = checked(queries, "queries", self._dimension)
        if k <= 0 or not segments or (among is not None and not among):
            return [Ranking((), np.empty(0, np.float32))] * len(asked)
        found: list[tuple[list[str], list[Floats]]] = [([], []) for _ in asked]
        for segment in segments:
            hits = self._nearest(segment, asked, k, self._allowed(segment, among), total)
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

    @property
    def recall(self) -> float | None:
        """The least recall@10 measured in building the parts of an index made by `auto`; `None` where nothing was built."""
        built = [segment.content.built for segment in self._segments]
        return min((known.trust.recall for known in built if known and known.trust), default=None)

    def save(self, files: Files) -> State:
        """Store arrays in `files` and return the rest. What searching needs is built first, so that opening need not."""
        for segment in self._segments:
            self._built(segment.content, len(self))
        return super().save(files)

    def _nearest(self, segment: Segment[Block], queries: Floats, k: int, among: Allowed, total: int) -> list[Hits]:
        block, ranks, (mask, rows) = segment.content, segment.ids.ranks, among
        allowed = int(np.count_nonzero(mask)) if rows is None else len(rows)
        sparse = _SPARSE_MEASURED if block.factory.measured else _SPARSE
        built = None if allowed <= max(k, SMALL, len(mask) // sparse) else self._built(block, total)
        if built is None or not len(queries):
            return block.exact(queries, k, mask, ranks, rows)
        if built.trust is not None:
            return fastscan.nearest(block, built, queries, k, mask, allowed, ranks)
        proposed = block.factory.candidates(built.index, queries, k, None if allowed == len(mask) else mask, allowed)
        return [
            block.best(query, rows, k, ranks) if len(rows) >= k else block.exact(query[None], k, mask, ranks)[0]
            for query, rows in zip(queries, proposed, strict=True)
        ]

    @staticmethod
    def _built(block: Block, total: int) -> Built | None:
        """The index of a block, where that is worth having in an index of so many vectors."""
        return None if block.factory.measured and total < fastscan.WHOLE else block.index()

    @property
    def _dimension(self) -> int | None:
        return self._segments[0].content.vectors.shape[1] if self._segments else None

    def _make(self, vectors: Floats) -> Block:
        factory = self._factory.suited(vectors.shape[1])
        factory.check_dimension(vectors.shape[1])
        return Block(factory, vectors.copy(), _squares(vectors))

    def _merge(self, segments: Sequence[Segment[Block]]) -> Block:
        vectors = np.concatenate([s.content.vectors[s.alive] for s in segments])
        squares = np.concatenate([s.content.squares[s.alive] for s in segments])
        first = segments[0]
        return Block(first.content.factory, vectors, squares, base=first.content.base(first.full))

    def _may_merge(self, segments: Sequence[Segment[Block]]) -> bool:
        numbers = sum(segment.size for segment in segments) * (self._dimension or 0)
        return not segments[0].content.factory.measured or numbers <= _LARGEST

    def _read(self, state: State, files: Files) -> Block:
        vectors, squares, built = files.get(state["vectors"]), files.get(state["squares"]), None
        factory = self._factory.suited(vectors.shape[1])
        # An index made with other settings is left aside and built again.
        if state["built"] and state["settings"] == [factory.name, factory.metric, factory.seed]:
            built = Built.read(state["built"], files)
            if (built.trust is not None) != factory.measured:
                built = None
        return Block(factory, vectors, squares, built)


def _squares(vectors: Floats) -> Floats:
    squares: Floats = np.einsum("ij,ij->i", vectors, vectors)
    return squares

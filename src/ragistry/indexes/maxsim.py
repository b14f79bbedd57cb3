"""Several vectors a document, compared token by token: late interaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import InvalidInput
from ..protocols import Files, State
from ..types import Among, Floats, Kind, MultiVectors, Ranking, Vectors
from .centroids import Centroids, Depth, build, worthwhile
from .precision import TYPES, Precision
from .segments import Allowed, Segment, Segmented
from .tokens import Hits, Tokens

_LONGEST = 1e15  # sums of products of longer vectors may not fit float32
_LARGEST = 1 << 28  # numbers in a segment that merging makes, so that making one takes little memory


class MaxSim(Segmented[Tokens]):
    """Multi-vectors, by the sum over the query's tokens of the largest inner product with a token of the document.

    The sum is one-sided and not normalised. A document without tokens is kept but never found; a query without tokens
    finds nothing. Nothing is padded, so scores may be negative.

    Every score is exact for the vectors as they are stored: the sum in double precision, rounded once, the same bits
    however documents were divided into batches. All documents are compared while a segment has fewer than 262,144 tokens.
    Of a larger one, centroids of tokens propose candidates, which are scored exactly: as many as were measured to be
    needed when the centroids were made, in proportion for `k` above 10, and all documents where a quarter of them would
    not do. See `ragistry.indexes.centroids`, and `recall` for what was measured. Centroids are made when a segment is
    first searched or saved. No segment grows beyond 268 million numbers by merging.

    Loaded vectors stay memory-mapped. Safe to search from many threads; one thread at a time may change it.

    Args:
        precision: How vectors are stored: `"fp32"`; `"fp16"`, for numbers up to 65,504; `"int8"`, with a scale for each
            token. Queries are not rounded.
        depth: How many candidates are scored for the best ten: `"auto"`, by what is measured; a number; or `None`, all
            documents, whatever their number.
        seed: For k-means, and for what is measured with.

    Raises:
        InvalidInput: If the precision is unknown or the depth none of these.

    Example:
        >>> import numpy as np
        >>> index = MaxSim()
        >>> tokens = np.array([[1, 0], [0, 1], [0.5, 0.5]], np.float32)
        >>> index.add(["both", "between", "none"], MultiVectors(tokens, np.array([0, 2, 3, 3])))
        >>> list(index.search(MultiVectors(tokens[:2], np.array([0, 2])), k=3)[0])
        [('both', 2.0), ('between', 1.0)]

    Source: Khattab and Zaharia, "ColBERT: Efficient and Effective Passage Search via Contextualized Late Interaction over
    BERT" (SIGIR 2020), arXiv:2004.12832.
    """

    kind: Kind = "multi"

    def __init__(self, precision: Precision = "fp16", *, depth: Depth = "auto", seed: int = 0) -> None:
        super().__init__()
        if precision not in TYPES:
            raise InvalidInput(f"the precision {precision!r} is not known; give one of {', '.join(TYPES)}")
        whole = isinstance(depth, int) and not isinstance(depth, bool) and depth >= 1
        if not whole and depth is not None and depth != "auto":
            raise InvalidInput(f"depth={depth!r}: 'auto', a whole number of 1 or more, or None is needed")
        self._precision, self._depth, self._seed = precision, depth, seed

    def add(self, ids: Sequence[str], vectors: Vectors) -> None:
        """Insert; an id that is already there is replaced.

        Raises:
            InvalidInput: If ids and vectors do not match one to one, an id is not text or given twice, vectors are no
                `MultiVectors`, their dimension differs from that of those held, or a number is NaN, infinite or too large.
        """
        super().add(ids, self._checked(vectors, "vectors"))

    def search(self, queries: Vectors, k: int, *, among: Among = None) -> list[Ranking]:
        """The best `k` of `among` for each of the queries.

        Raises:
            InvalidInput: If they are no `MultiVectors`, their dimension differs from that of the vectors held, or a number
                is NaN, infinite or too large.
        """
        segments, asked = self._segments, self._checked(queries, "queries")
        found = [Ranking((), np.empty(0, np.float32))] * len(asked)
        sizes = np.diff(asked.offsets)
        full = np.flatnonzero(sizes)
        if k <= 0 or not segments or not len(full) or (among is not None and not among):
            return found
        asked = MultiVectors(asked.values, np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes[full])]))
        parts: list[tuple[list[str], list[Floats]]] = [([], []) for _ in full]
        for segment in segments:
            hits = self._nearest(segment, asked, k, self._allowed(segment, among))
            for (ids, scores), (rows, values) in zip(parts, hits, strict=True):
                ids += segment.ids.at(rows.tolist())
                scores.append(values)
        for i, (ids, scores) in zip(full.tolist(), parts, strict=True):
            found[i] = Ranking.of(ids, np.concatenate(scores), k)
        return found

    def vectors(self, ids: Sequence[str]) -> MultiVectors:
        """The vectors as they are stored, float32 [tokens, dimensions] for each id, in the order asked.

        Raises:
            UnknownName: If an id is not there.
        """
        segments = self._segments
        parts = [segments[number].content.document(row) for number, row in self._locate(segments, ids)]
        empty = np.empty((0, self._dimension or 0), np.float32)
        return MultiVectors(np.concatenate([empty, *parts]), np.cumsum([0, *map(len, parts)], dtype=np.int64))

    @property
    def recall(self) -> float | None:
        """The least recall@10 measured in making the parts' centroids; `None` where all documents are compared."""
        made = [segment.content.centroids for segment in self._segments]
        return min((centroids.recall for centroids in made if centroids), default=None)

    def save(self, files: Files) -> State:
        """Store arrays in `files` and return the rest. Centroids are made first, so that opening need not."""
        for segment in self._segments:
            self._centroids(segment.content)
        return super().save(files) | {"settings": [self._depth, self._seed]}

    def load(self, state: State, files: Files) -> None:
        """Become what was saved; arrays stay memory-mapped. Centroids made with other settings are left aside."""
        super().load(state, files)
        if state["settings"] != [self._depth, self._seed]:
            for segment in self._segments:
                segment.content.centroids = None

    def _nearest(self, segment: Segment[Tokens], queries: MultiVectors, k: int, among: Allowed) -> list[Hits]:
        tokens, ranks, (mask, rows) = segment.content, segment.ids.ranks, among
        rows = np.flatnonzero(mask & tokens.held) if rows is None else rows[tokens.held[rows]]
        centroids = self._centroids(tokens) if len(rows) > k else None
        depth = centroids.wanted(k, len(rows)) if centroids else None
        if centroids is None or depth is None:
            return tokens.nearest(queries, k, rows, ranks)
        hits = []
        for i in range(len(queries)):
            query = MultiVectors(queries[i], np.array([0, len(queries[i])]))
            some = centroids.candidates(query.values, depth, mask)
            hits += tokens.nearest(query, k, some if len(some) >= k else rows, ranks)
        return hits

    def _centroids(self, tokens: Tokens) -> Centroids | None:
        """The centroids of a segment, made if need be, or `None` where all documents are compared."""
        if self._depth is None or not worthwhile(tokens):
            return None
        if tokens.centroids is None:
            with tokens.lock:
                if tokens.centroids is None:
                    tokens.centroids = build(tokens, None if self._depth == "auto" else self._depth, self._seed)
        return tokens.centroids

    @property
    def _dimension(self) -> int | None:
        return self._segments[0].content.codes.shape[1] if self._segments else None

    def _checked(self, vectors: Any, what: str) -> MultiVectors:
        if not isinstance(vectors, MultiVectors):
            raise InvalidInput(
                f"the {what} are {type(vectors).__name__} {getattr(vectors, 'shape', '')}; a MaxSim index needs "
                "MultiVectors, several vectors for each text"
            )
        values = np.asarray(vectors.values)
        if not values.shape[1] or not np.can_cast(values.dtype, np.float32, "same_kind"):
            raise InvalidInput(
                f"the {what} are of shape {values.shape} and type {values.dtype}; real numbers [tokens, "
                "dimensions] are needed"
            )
        known = self._dimension
        if known is not None and values.shape[1] != known:
            raise InvalidInput(
                f"the {what} have {values.shape[1]} dimensions, the index holds vectors of {known}; use the encoder the "
                "index was made with"
            )
        with np.errstate(over="ignore"):
            checked = np.ascontiguousarray(values, np.float32)
            squares = np.einsum("ij,ij->i", checked, checked)
        bad = np.flatnonzero(~(squares <= _LONGEST**2))
        if len(bad):
            raise InvalidInput(
                f"row {bad[0]} of the {what} holds NaN or infinity, or is longer than {_LONGEST:g}; remove or scale it"
            )
        return MultiVectors(checked, vectors.offsets)

    def _make(self, vectors: MultiVectors) -> Tokens:
        return Tokens.of(vectors, self._precision)

    def _merge(self, segments: Sequence[Segment[Tokens]]) -> Tokens:
        return Tokens.joined([(segment.content, segment.alive) for segment in segments])

    def _may_merge(self, segments: Sequence[Segment[Tokens]]) -> bool:
        codes = [segment.content.codes for segment in segments]
        return len({some.dtype for some in codes}) == 1 and sum(some.size for some in codes) <= _LARGEST

    def _read(self, state: State, files: Files) -> Tokens:
        arrays = [files.get(state[name]) for name in ("codes", "scales", "offsets")]
        tokens = Tokens(arrays[0], arrays[1], arrays[2], float(state["longest"]))
        if state["centroids"]:
            tokens.centroids = Centroids.read(state["centroids"], files)
        return tokens

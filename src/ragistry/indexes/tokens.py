"""What a segment of a multi-vector index holds: the token vectors of its documents, from which every score is computed."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..compiled import compiled, worth_loading
from ..protocols import Files, State
from ..types import Bools, Floats, Ints, MultiVectors
from .precision import Codes, Precision, decode, encode

if TYPE_CHECKING:
    from .centroids import Centroids

Hits: TypeAlias = tuple[Ints, Floats]
"""Rows best first, and their scores."""

_ROUNDING: float = 2.0**-24  # of float32, relative
_NUMBERS = 1 << 18  # of tokens compared at once, which stay in the cache
_ASKED = 512  # query tokens compared at once
_PAIRS = 1 << 19  # numbers multiplied in double precision at once
_A_STEP = 64  # products that numpy compares in what a step of the interpreter takes


class Tokens:
    """Token vectors of documents, ragged.

    Args:
        codes: [tokens, dimensions], in one of the types of `precision`.
        scales: float32 [tokens] for codes of 8 bits, else empty.
        offsets: int64 [documents + 1]: document i owns rows `offsets[i]:offsets[i + 1]`.
        longest: The length of the longest vector.
    """

    def __init__(self, codes: Codes, scales: Floats, offsets: Ints, longest: float) -> None:
        self.codes, self.scales, self.offsets, self.longest = codes, scales, offsets, longest
        self.centroids: Centroids | None = None
        self.lock = threading.Lock()

    @classmethod
    def of(cls, vectors: MultiVectors, precision: Precision) -> Tokens:
        """Vectors stored in some precision."""
        made = cls(*encode(vectors.values, precision), vectors.offsets.astype(np.int64), 0.0)
        for _, _, some, _ in made._chunks(np.flatnonzero(made.held)):
            squares = np.einsum("ij,ij->i", some, some, dtype=np.float64)
            made.longest = max(made.longest, math.sqrt(float(squares.max())))
        return made

    @classmethod
    def joined(cls, parts: Sequence[tuple[Tokens, Bools]]) -> Tokens:
        """The documents of each part that its mask keeps, in order."""
        kept = [(part, np.repeat(mask, part.lengths)) for part, mask in parts]
        lengths = np.concatenate([part.lengths[mask] for part, mask in parts])
        return cls(
            np.concatenate([part.codes[rows] for part, rows in kept]),
            np.concatenate([part.scales[rows] if len(part.scales) else part.scales for part, rows in kept]),
            np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]),
            max(part.longest for part, _ in parts),
        )

    @cached_property
    def lengths(self) -> Ints:
        """How many tokens each document has."""
        return np.diff(self.offsets)

    @cached_property
    def held(self) -> Bools:
        """Which documents have a token, and so can be found."""
        return self.lengths > 0

    def read(self, first: int, last: int) -> Floats:
        """Tokens of some rows, float32 [last - first, dimensions]."""
        return decode(self.codes[first:last], self.scales[first:last])

    def take(self, rows: Ints) -> Floats:
        """Tokens of any rows, float32 [len(rows), dimensions]."""
        return decode(self.codes.take(rows, axis=0), self.scales.take(rows) if len(self.scales) else self.scales)

    def document(self, row: int) -> Floats:
        """The tokens of a document, float32 [tokens, dimensions]."""
        return self.read(int(self.offsets[row]), int(self.offsets[row + 1]))

    def save(self, files: Files) -> State:
        """Store codes, and centroids if there are any by now."""
        return {
            "codes": files.put(self.codes),
            "scales": files.put(self.scales),
            "offsets": files.put(self.offsets),
            "longest": self.longest,
            "centroids": self.centroids.save(files) if self.centroids else {},
        }

    def nearest(self, queries: MultiVectors, k: int, rows: Ints, ranks: npt.NDArray[np.int32]) -> list[Hits]:
        """The best `k` of some documents for each query, by exact score, ties by rank.

        Args:
            queries: Each of at least one token.
            k: At least 1.
            rows: Documents that have a token, ascending.
            ranks: int32 [documents].
        """
        if not len(rows):
            return [(rows, np.empty(0, np.float32))] * len(queries)
        found: list[Hits] = []
        while len(found) < len(queries):
            first = len(found)
            ends = queries.offsets[first:]
            last = first + max(1, int(np.searchsorted(ends, ends[0] + _ASKED, side="right")) - 1)
            some = MultiVectors(
                queries.values[ends[0] : queries.offsets[last]], queries.offsets[first : last + 1] - ends[0]
            )
            for i, rough in enumerate(self._rough(some, rows)):
                query, keep = some[i], min(k, len(rows))
                kth = float(np.partition(rough, len(rows) - keep)[len(rows) - keep])
                near = rows[rough >= kth - 2 * self._errors(query, len(query)).sum()]
                scores = self._scores(query, near)
                order = np.lexsort((ranks[near], -scores))[:k]
                found.append((near[order], scores[order]))
        return found

    def _rough(self, queries: MultiVectors, rows: Ints) -> Floats:
        """Scores of some documents in single precision, float32 [queries, rows]."""
        found = np.empty((len(queries), len(rows)), np.float32)
        for first, last, tokens, starts in self._chunks(rows):
            best = _maxima(tokens @ queries.values.T, starts)
            found[:, first:last] = np.add.reduceat(best, queries.offsets[:-1], axis=1).T
        return found

    def _scores(self, query: Floats, rows: Ints) -> Floats:
        """Scores of some documents, the same bits whatever the company: float64 sums, halves onto halves."""
        found, wide = np.empty(len(rows), np.float32), query.astype(np.float64)
        errors, step = self._errors(query), max(1, _PAIRS // query.shape[1])
        for first, last, tokens, starts in self._chunks(rows):
            # In double precision are multiplied only those that may be a query token's nearest in the document.
            rough, document = tokens @ query.T, np.repeat(np.arange(last - first), np.diff(starts))
            best = np.full((last - first, len(query)), -np.inf)
            token, asked = np.nonzero(rough >= _maxima(rough, starts)[document] - 2 * errors)
            for i in range(0, len(token), step):
                some, other = token[i : i + step], asked[i : i + step]
                products = _halved(tokens[some].astype(np.float64) * wide[other])
                np.maximum.at(best, (document[some], other), products)
            found[first:last] = _halved(best) + 0.0
        return found

    def _errors(self, query: Floats, more: int = 0) -> Floats:
        """How far products with each query token may be off: the usual bound for a float32 sum in any order.

        `more`: How many of them are then added up.
        """
        lengths = np.linalg.norm(query.astype(np.float64), axis=1)
        scale = 1.01 * (query.shape[1] + more + 16) * _ROUNDING * self.longest
        errors: Floats = (scale * lengths + 1e-37 * query.shape[1]).astype(np.float32)
        return errors

    def _chunks(self, rows: Ints) -> Iterator[tuple[int, int, Floats, Ints]]:
        """A few documents at a time: which of `rows`, their tokens, and where those of each begin and the last one's end."""
        ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.lengths[rows])])
        most, first = max(1, _NUMBERS // self.codes.shape[1]), 0
        while first < len(rows):
            last = max(first + 1, int(np.searchsorted(ends, ends[first] + most, side="right")) - 1)
            starts = ends[first : last + 1] - ends[first]
            low, high = int(self.offsets[rows[first]]), int(self.offsets[rows[last - 1] + 1])
            if high - low == starts[-1]:
                tokens = self.read(low, high)
            else:
                where = np.arange(starts[-1]) + np.repeat(self.offsets[rows[first:last]] - starts[:-1], np.diff(starts))
                tokens = self.take(where)
            yield first, last, tokens, starts
            first = last


def _halved(terms: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The sum of each row, added in an order that depends on nothing but the number of columns. Overwrites the terms."""
    size = terms.shape[1]
    while size > 1:
        half = (size + 1) // 2
        terms[:, : size - half] += terms[:, half:size]
        size = half
    return terms[:, 0]


def _maxima(products: Floats, starts: Ints) -> Floats:
    """The largest of each document's rows, float32 [documents, columns]."""
    if not worth_loading(products.size // _A_STEP):
        return np.maximum.reduceat(products, starts[:-1], axis=0)
    products = np.ascontiguousarray(products)
    best = np.empty((len(starts) - 1, products.shape[1]), np.float32)
    _highest(products, starts, best)
    return best


@compiled("void(float32[:, ::1], I64, float32[:, ::1])")
def _highest(products: Any, starts: Any, best: Any) -> None:
    """The largest of the rows from each start to the next, for each column; there is at least one."""
    for i in range(len(starts) - 1):
        best[i] = products[starts[i]]
        for row in range(starts[i] + 1, starts[i + 1]):
            for j in range(products.shape[1]):
                best[i, j] = max(best[i, j], products[row, j])

"""Dense vectors kept as short codes: what the compressing indexes share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from ..compiled import compiled, worth_loading
from ..errors import InvalidInput
from ..protocols import Files, State
from ..types import Among, Floats, Ints, Kind, Ranking, Vectors
from .segments import Segment, Segmented

Codes: TypeAlias = npt.NDArray[Any]
"""One row of numbers for each vector: [n, width], whatever their type."""
Bytes: TypeAlias = npt.NDArray[np.uint8]

ENOUGH = 9_984
"""Vectors from which codes are learnt well: 39 for each of 256 centroids, below which faiss warns."""
CHUNK = 4_096
"""Vectors worked on at a time, which bounds memory."""
LONGEST = 1e18
"""Products of longer vectors do not fit float32."""
_TOGETHER = 128  # rows multiplied at once: they stay in the cache
_LOOKUPS = 1_000  # of numpy's in the time of one step of the interpreter


class Coder(Protocol):
    """How vectors become codes, and what a query makes of codes. Never changed."""

    def encode(self, vectors: Floats) -> Codes:
        """The codes of vectors float32 [n, d], one row each.

        Raises:
            InvalidInput: If vectors of so many dimensions, or such numbers, cannot be coded.
        """

    def decode(self, codes: Codes) -> Floats:
        """What codes stand for, float32 [n, d]."""

    def scores(self, query: Floats, codes: Codes, rows: Ints) -> Floats:
        """Inner products, float32 [len(rows)], of a query [d] with what rows stand for, the same bits in any company."""

    def save(self, files: Files) -> State:
        """Store arrays in `files` and return the rest."""


class Whole:
    """No code at all: vectors stay as they are."""

    def encode(self, vectors: Floats) -> Floats:
        """A copy."""
        return vectors.copy()

    def decode(self, codes: Codes) -> Floats:
        """The vectors themselves."""
        return codes

    def scores(self, query: Floats, codes: Codes, rows: Ints) -> Floats:
        """Inner products."""
        return products(query, codes, rows)

    def save(self, files: Files) -> State:
        """Nothing."""
        return {}


@dataclass(frozen=True, eq=False)
class Coded:
    """The codes of a segment's vectors, and how to read them."""

    coder: Coder
    codes: Codes

    @cached_property
    def dimension(self) -> int:
        """Of the vectors."""
        return int(self.coder.decode(self.codes[:1]).shape[1])

    def save(self, files: Files) -> State:
        """Store the codes."""
        return {"codes": files.put(self.codes)}


class Compressed(Segmented[Coded]):
    """An index of dense vectors that keeps nothing of them but codes. Scores are inner products with what codes stand for.

    All segments are read by one coder. It is given, or learnt from the vectors by the first `add` after which there are
    enough; until then they stay whole and scores are exact. Then codes stay as they are: later vectors are coded in the
    same way, and nothing is coded again.

    A subclass says how a coder is learnt (`_learn`) and read (`_read_coder`), and may narrow searches (`_candidates`).

    Args:
        coder: How vectors are coded, if that is known.
        enough: How many vectors a coder is learnt from, at least.

    Raises:
        InvalidInput: If `enough` is not positive.
    """

    kind: Kind = "dense"

    def __init__(self, coder: Coder | None, enough: int = ENOUGH) -> None:
        super().__init__()
        if enough < 1:
            raise InvalidInput(f"enough={enough}; a positive number of vectors is needed to learn codes from")
        self.enough = enough
        self._coder = coder

    def _learn(self, vectors: Floats) -> Coder:
        raise InvalidInput(f"{type(self).__name__} does not say how codes are learnt")

    def _read_coder(self, state: State, files: Files) -> Coder:
        raise InvalidInput(f"{type(self).__name__} does not say how its coder is read")

    def _check(self, vectors: Floats) -> None:
        """Refuse vectors that stay whole for now and cannot be coded later."""

    def _candidates(
        self, segments: Sequence[Segment[Coded]], allowed: Sequence[Ints], query: Floats, k: int
    ) -> Sequence[Ints]:
        """The rows of each segment that are scored, at least `k` of those allowed: all of them."""
        return allowed

    def add(self, ids: Sequence[str], vectors: Vectors) -> None:
        """Insert vectors [len(ids), dimensions]; an id that is already there is replaced.

        Raises:
            InvalidInput: If ids and vectors do not match one to one, an id is given twice, the dimension differs from
                that of the vectors held or does not suit the code, or a number is NaN, infinite or too large.
        """
        given = checked(vectors, "vectors", self._dimension)
        if self._coder is None:
            self._check(given)
        before = self._segments
        super().add(ids, given)
        if self._coder is None and len(self) >= self.enough:
            held = [segment.content.codes[segment.alive] for segment in self._segments]
            try:
                self._use(self._learn(np.concatenate(held)))
            except BaseException:  # learning takes long enough to be interrupted
                self._segments = before
                raise

    def search(self, queries: Any, k: int, *, among: Among = None) -> list[Ranking]:
        """The best `k` of `among` for each row of `queries`, [queries, dimensions].

        Raises:
            InvalidInput: If the dimension differs from that of the vectors held, or a number is NaN, infinite or too
                large.
        """
        segments = self._segments
        asked = checked(queries, "queries", self._dimension)
        if k <= 0 or not segments or (among is not None and not among):
            return [Ranking((), np.empty(0, np.float32))] * len(asked)
        allowed = []
        for segment in segments:
            mask, rows = self._allowed(segment, among)
            allowed.append(np.flatnonzero(mask) if rows is None else rows)
        return [self._ranked(segments, allowed, query, k) for query in asked]

    def vectors(self, ids: Sequence[str]) -> Floats:
        """What the codes of documents stand for, float32 [len(ids), dimensions], in the order asked.

        Raises:
            UnknownName: If an id is not there.
        """
        segments = self._segments
        rows = self._held(segments, ids)
        return segments[0].content.coder.decode(rows) if len(rows) else np.empty((0, self._dimension or 0), np.float32)

    def codes(self, ids: Sequence[str]) -> Codes:
        """The codes of documents, [len(ids), width], in the order asked; vectors float32 as long as nothing is coded.

        Raises:
            UnknownName: If an id is not there.
        """
        return self._held(self._segments, ids)

    def save(self, files: Files) -> State:
        """Store arrays in `files` and return the rest."""
        return super().save(files) | {"coder": self._coder.save(files) if self._coder else None}

    def load(self, state: State, files: Files) -> None:
        """Become what was saved, its coder included; arrays stay memory-mapped."""
        self._coder = self._read_coder(state["coder"], files) if state["coder"] is not None else None
        super().load(state, files)

    def _ranked(self, segments: Sequence[Segment[Coded]], allowed: Sequence[Ints], query: Floats, k: int) -> Ranking:
        ids: list[str] = []
        scores = []
        for segment, rows in zip(segments, self._candidates(segments, allowed, query, k), strict=True):
            content = segment.content
            values = content.coder.scores(query, content.codes, rows)
            found = best(values, segment.ids.ranks[rows], k)
            ids += segment.ids.at(rows[found].tolist())
            scores.append(values[found])
        return Ranking(tuple(ids), scores[0]) if len(segments) == 1 else Ranking.of(ids, np.concatenate(scores), k)

    def _held(self, segments: Sequence[Segment[Coded]], ids: Sequence[str]) -> Codes:
        found = [segments[number].content.codes[row] for number, row in self._locate(segments, ids)]
        return np.stack(found) if found else np.empty((0, 0), np.float32)

    def _use(self, coder: Coder) -> None:
        """Read the codes with a coder; vectors that are whole are coded by it."""

        def read(content: Coded) -> Codes:
            return coder.encode(content.codes) if isinstance(content.coder, Whole) else content.codes

        segments = [Segment(one.ids, one.alive, Coded(coder, read(one.content))) for one in self._segments]
        self._coder, self._segments = coder, tuple(segments)

    @property
    def _dimension(self) -> int | None:
        segments = self._segments
        return segments[0].content.dimension if segments else None

    def _make(self, vectors: Floats) -> Coded:
        coder = self._coder or Whole()
        return Coded(coder, coder.encode(vectors))

    def _merge(self, segments: Sequence[Segment[Coded]]) -> Coded:
        codes = np.concatenate([segment.content.codes[segment.alive] for segment in segments])
        return Coded(segments[0].content.coder, codes)

    def _read(self, state: State, files: Files) -> Coded:
        return Coded(self._coder or Whole(), files.get(state["codes"]))


def checked(vectors: Any, what: str, dimension: int | None) -> Floats:
    """Vectors as float32 [n, dimensions], C-contiguous.

    Args:
        vectors: What was given.
        what: What to call them in errors.
        dimension: What it must be, if that is known.

    Raises:
        InvalidInput: If they are no array of real numbers [n, dimensions], of another dimension, or hold a number that is
            NaN, infinite or too large.
    """
    try:
        given = np.asarray(vectors)
    except (TypeError, ValueError, RuntimeError):
        given = np.empty(0, np.object_)  # rows of unequal lengths, or a tensor that numpy cannot see
    if given.ndim != 2 or not given.shape[1] or not np.can_cast(given.dtype, np.float32, "same_kind"):
        raise InvalidInput(
            f"the {what} are {type(vectors).__name__} of shape {given.shape} and type {given.dtype}; an index of dense "
            f"vectors needs an array of real numbers [{what}, dimensions]"
        )
    if dimension is not None and given.shape[1] != dimension:
        raise InvalidInput(
            f"the {what} have {given.shape[1]} dimensions, the index holds vectors of {dimension}; use the encoder the "
            "index was made with"
        )
    with np.errstate(over="ignore"):
        found = np.ascontiguousarray(given, np.float32)
        squares = np.einsum("ij,ij->i", found, found)
    bad = np.flatnonzero(~(squares <= LONGEST**2))
    if len(bad):
        raise InvalidInput(
            f"row {bad[0]} of the {what} holds NaN or infinity, or is longer than {LONGEST:g}; remove or scale it"
        )
    return found


def best(scores: Floats, ranks: npt.NDArray[np.int32], k: int) -> Ints:
    """Where the best `k` scores are, best first, ties by rank."""
    found = np.arange(len(scores))
    if k < len(scores):
        found = np.flatnonzero(scores >= np.partition(scores, len(scores) - k)[len(scores) - k])
    order: Ints = found[np.lexsort((ranks[found], -scores[found]))[:k]]
    return order


def products(query: Floats, vectors: npt.NDArray[Any], rows: Ints) -> Floats:
    """Inner products of a query [d] with some rows, whatever their floating type: float32 [len(rows)].

    Each is added up by itself, in the same order in any company, as matrix products are not.
    """
    found = np.empty(len(rows), np.float32)
    for part in chunks(len(rows), _TOGETHER):
        np.einsum("ij,j->i", vectors[rows[part]].astype(np.float32, copy=False), query, out=found[part])
    return found


def looked_up(table: Floats, codes: Bytes, rows: Ints) -> Floats:
    """Sums of what a table float32 [width, 256] holds for the codes [n, width] of some rows: float32 [len(rows)]."""
    found = np.zeros(len(rows), np.float32)
    if worth_loading(len(rows) * len(table) // _LOOKUPS):
        _look_up(table.reshape(-1), codes.reshape(-1), len(table), np.ascontiguousarray(rows, np.int64), found)
        return found
    for part in chunks(len(rows)):  # the same additions in the same order
        for entries, column in zip(table, codes[rows[part]].T, strict=True):
            found[part] += entries[column]
    return found


@compiled("void(F32, U8, int64, I64, float32[::1])")
def _look_up(table: Any, codes: Any, width: Any, rows: Any, found: Any) -> None:
    for i in range(len(rows)):
        first, total = rows[i] * width, np.float32(0)
        for part in range(width):
            total += table[256 * part + codes[first + part]]
        found[i] = total


def chunks(count: int, size: int = CHUNK) -> Iterator[slice]:
    """Slices of some size that cover so many rows."""
    return (slice(first, first + size) for first in range(0, count, size))

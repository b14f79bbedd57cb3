"""The inverted index: term counts by term, scored by any weighting."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from ..compiled import worth_loading
from ..errors import InvalidInput
from ..protocols import Files, State
from ..types import Among, Counts, Floats, Ints, Kind, Ranking
from . import kernels, plain
from .segments import Segment, Segmented
from .weighting import Statistics, Weighting

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_A_STEP = 64  # postings, or rows, that numpy works through in the time of one step of the interpreter


@dataclass(frozen=True, eq=False)
class Postings:
    """Of each term, the rows that hold it (rising) and how often: term i owns `starts[i]:starts[i + 1]`."""

    terms: Ints
    starts: Ints
    rows: npt.NDArray[np.int32]
    values: Floats
    lengths: Floats
    columns: int

    def save(self, files: Files) -> State:
        arrays = (self.terms, self.starts, self.rows, self.values, self.lengths)
        return {"postings": [files.put(array) for array in arrays], "columns": self.columns}


class _Term(NamedTuple):
    """Of a term: where each segment has it, -1 for nowhere; the most it adds to any document there; and to every one."""

    places: list[int]
    tops: list[float]
    added: float


class _Weighed:
    """What each posting adds to a score, for one weighting of one state of the index.

    A term is weighed when a query first holds it. Threads that do so at the same time write the same numbers.
    """

    def __init__(
        self, segments: tuple[Segment[Postings], ...], weighting: Weighting, totals: Mapping[Segment[Postings], float]
    ) -> None:
        self.segments, self.weighting = segments, weighting
        self.totals = {segment: totals[segment] if segment in totals else _total(segment) for segment in segments}
        self.statistics = Statistics(sum(s.size for s in segments), sum(self.totals.values()))
        self.weights = [np.empty(len(segment.content.values), np.float32) for segment in segments]
        self.full = all(segment.full for segment in segments)
        self.exact = not weighting.prior and weighting.form in plain.FORMS
        self._constants = weighting.constants(self.statistics)
        self._terms: dict[int, _Term] = {}

    def term(self, key: int) -> _Term:
        """A term, weighed."""
        return self._terms.get(key) or self._weigh(key)

    def compiled(self, terms: Iterable[Sequence[int]]) -> bool:
        """Whether to add up terms, of which the places are given, by compiled code; else numpy gives the same bits."""
        if not self.exact or worth_loading(0):
            return True
        postings = sum(len(self._postings(*held)) for places in terms for held in _held(places))
        return worth_loading((postings + sum(len(segment.alive) for segment in self.segments)) // _A_STEP)

    def _postings(self, number: int, place: int) -> range:
        return range(*self.segments[number].content.starts[place : place + 2].tolist())

    def _weigh(self, key: int) -> _Term:
        places = [_place(segment.content.terms, key) for segment in self.segments]
        documents, occurrences = 0, 0.0
        for number, place in _held(places):
            segment, at = self.segments[number], self._postings(number, place)
            values = segment.content.values[at.start : at.stop]
            if not segment.full:
                values = values[segment.alive[segment.content.rows[at.start : at.stop]]]
            documents += len(values)
            occurrences += float(values.sum(dtype=np.float64))
        tops = [0.0] * len(places)
        if not documents:
            return _Term([-1] * len(places), tops, 0.0)
        factor, added = self.weighting.term(self.statistics, documents, occurrences)
        weigh = kernels.weigh if self.compiled([places]) else plain.weigh
        for number, place in _held(places):
            content, at = self.segments[number].content, self._postings(number, place)
            weights = self.weights[number][at.start : at.stop]
            weigh(
                content.rows[at.start : at.stop], content.values[at.start : at.stop], content.lengths,
                self.weighting.form, factor, *self._constants, weights,
            )  # fmt: skip
            tops[number] = float(weights.max())
        self._terms[key] = _Term(places, tops, added)
        return self._terms[key]


def _total(segment: Segment[Postings]) -> float:
    """How many terms the alive rows hold in all."""
    return float(np.sum(segment.content.lengths, dtype=np.float64, where=segment.alive))


def _place(terms: Ints, key: int) -> int:
    place = int(np.searchsorted(terms, key))
    return place if place < len(terms) and terms[place] == key else -1


def _held(places: Sequence[int]) -> list[tuple[int, int]]:
    """The segments that hold a term, and where."""
    return [(number, place) for number, place in enumerate(places) if place >= 0]


class Inverted(Segmented[Postings]):
    """An exact inverted index over sparse vectors.

    Counts are what is kept, and every score is derived from them when a query asks: after any sequence of additions and
    removals, scores equal, bit for bit, those of an index built afresh. Documents sharing no term with the query are not
    returned. Safe to search from many threads; one thread at a time may change it.

    Args:
        weighting: `BM25`, `Dirichlet`, `JelinekMercer` or `Impact`.

    Example:
        >>> from scipy.sparse import csr_array
        >>> from ragistry.indexes.weighting import Impact
        >>> index = Inverted(Impact())
        >>> index.add(["a", "b"], csr_array([[1.0, 0.0], [2.0, 3.0]]))
        >>> list(index.search(csr_array([[1.0, 0.0]]), k=5)[0])
        [('b', 2.0), ('a', 1.0)]
    """

    kind: Kind = "sparse"

    def __init__(self, weighting: Weighting) -> None:
        super().__init__()
        self.weighting = weighting
        self._weighed = _Weighed(self._segments, weighting, {})

    def search(self, queries: Any, k: int, *, among: Among = None) -> list[Ranking]:
        """The best `k` of `among` for each row of `queries`, a CSR array [queries, columns] or its `Counts`."""
        state = self._current()
        segments = state.segments
        rows = self._checked(queries, segments)
        if k <= 0 or not segments or (among is not None and not among):
            return [Ranking((), np.empty(0, np.float32))] * rows.shape[0]
        masks = [self._mask(segment, among) for segment in segments]
        whole, prior = among is None and state.full, state.weighting.prior
        keys, amounts = rows.indices.tolist(), np.asarray(rows.data, np.float32)
        found = []
        for first, last in itertools.pairwise(rows.indptr.tolist()):
            terms, mine = [state.term(key) for key in keys[first:last]], amounts[first:last]
            base = sum(amount * term.added for amount, term in zip(mine.tolist(), terms, strict=True))
            # Words that no document has tell nothing of any: their probability in the collection is 0.
            held = (amount for amount, term in zip(mine.tolist(), terms, strict=True) if max(term.places) >= 0)
            mass = sum(held) if prior else 0.0
            ask = kernels.search if state.compiled(term.places for term in terms) else plain.search
            ids: list[str] = []
            scores: list[Floats] = []
            for number, (segment, mask, weights) in enumerate(zip(segments, masks, state.weights, strict=True)):
                content = segment.content
                places = np.array([term.places[number] for term in terms], np.int64)
                tops = np.array([term.tops[number] for term in terms], np.float32)
                best, values = ask(
                    content.starts, content.rows, weights, content.lengths, places, mine, tops, base, prior, mass,
                    mask, whole, segment.ids.ranks, min(k, len(mask)),
                )  # fmt: skip
                ids += segment.ids.at(best.tolist())
                scores.append(values)
            if len(segments) == 1:
                found.append(Ranking(tuple(ids), scores[0]))
            else:
                found.append(Ranking.of(ids, np.concatenate(scores), k))
        return found

    def vectors(self, ids: Sequence[str]) -> csr_array:
        """The stored counts, CSR float32 [len(ids), columns], in the order asked.

        Raises:
            UnknownName: If an id is not there.
        """
        segments = self._segments
        located = self._locate(segments, ids)
        parts: list[tuple[Ints, Floats]] = [(np.empty(0, np.int64), np.empty(0, np.float32))] * len(located)
        for number, segment in enumerate(segments):
            content = segment.content
            wanted = {row: i for i, (where, row) in enumerate(located) if where == number}
            if not wanted:
                continue
            chosen = np.zeros(len(segment.alive), np.bool_)
            chosen[list(wanted)] = True
            at = np.flatnonzero(chosen[content.rows])
            terms = content.terms[np.searchsorted(content.starts, at, "right") - 1]
            owners, values = content.rows[at], content.values[at]
            order = np.argsort(owners, kind="stable")
            cuts = [*np.searchsorted(owners[order], sorted(wanted), "left").tolist(), len(order)]
            for row, first, last in zip(sorted(wanted), cuts[:-1], cuts[1:], strict=True):
                mine = order[first:last]
                parts[wanted[row]] = terms[mine], values[mine]
        return _csr(parts, segments[0].content.columns if segments else 0)

    def weighted(self, weighting: Weighting) -> Self:
        """The same counts under another weighting."""
        twin = self.fork()
        twin.weighting = weighting
        return twin

    def _current(self) -> _Weighed:
        state = self._weighed
        if state.segments is not self._segments or state.weighting is not self.weighting:
            state = self._weighed = _Weighed(self._segments, self.weighting, state.totals)
        return state

    @staticmethod
    def _checked(vectors: Any, segments: Sequence[Segment[Postings]]) -> Any:
        """The vectors, a CSR array or its `Counts`, if they can be held or asked."""
        if not (isinstance(vectors, Counts) or _is_csr(vectors)):
            raise InvalidInput(
                "an inverted index holds sparse vectors (a scipy csr_array of two dimensions); given "
                f"{type(vectors).__name__}"
            )
        if segments and segments[0].content.columns != vectors.shape[1]:
            raise InvalidInput(
                f"the index holds vectors of {segments[0].content.columns} columns; given {vectors.shape[1]}"
            )
        weights = vectors.data
        if not ((weights >= 0) & (weights <= np.finfo(np.float32).max)).all():
            raise InvalidInput("a sparse vector has a weight that is NaN, infinite or negative; weights must be >= 0")
        return vectors

    def _make(self, vectors: Any) -> Postings:
        rows = self._checked(vectors, self._segments)
        columns = rows.shape[1]
        if not isinstance(rows, Counts) and not rows.has_canonical_format:
            rows = rows.copy()
            rows.sum_duplicates()
        terms, starts, numbers, values, lengths = kernels.invert(
            np.asarray(rows.indices, np.int64), np.asarray(rows.indptr, np.int64), np.asarray(rows.data, np.float32)
        )
        return Postings(terms, starts, numbers, values, lengths, columns)

    def _merge(self, segments: Sequence[Segment[Postings]]) -> Postings:
        contents = [segment.content for segment in segments]
        terms = contents[0].terms
        for content in contents[1:]:
            terms = kernels.union(terms, content.terms)
        places = [kernels.find(terms, content.terms) for content in contents]
        rows_of, shift = [], 0
        for segment in segments:
            rows_of.append(np.where(segment.alive, np.cumsum(segment.alive) - 1 + shift, -1).astype(np.int32))
            shift += segment.size
        counts = np.zeros(len(terms) + 1, np.int64)
        for content, renumbered, where in zip(contents, rows_of, places, strict=True):
            kernels.count_kept(content.starts, content.rows, renumbered, where, counts)
        starts = np.cumsum(counts)
        rows, values = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.float32)
        cursor = starts[:-1].copy()
        for content, renumbered, where in zip(contents, rows_of, places, strict=True):
            kernels.copy_kept(content.starts, content.rows, content.values, renumbered, where, cursor, rows, values)
        used = np.diff(starts) > 0
        lengths = np.concatenate([s.content.lengths[s.alive] for s in segments])
        return Postings(
            terms[used], np.concatenate(([0], starts[1:][used])), rows, values, lengths, contents[0].columns
        )

    def _read(self, state: State, files: Files) -> Postings:
        terms, starts, rows, values, lengths = (files.get(name) for name in state["postings"])
        return Postings(terms, starts, rows, values, lengths, int(state["columns"]))


def _is_csr(vectors: Any) -> bool:
    from scipy.sparse import csr_array

    return isinstance(vectors, csr_array) and vectors.ndim == 2


def _csr(parts: Sequence[tuple[Ints, Floats]], columns: int) -> csr_array:
    from scipy.sparse import csr_array

    rows = csr_array((len(parts), columns), dtype=np.float32)
    if parts:
        rows.indptr = np.cumsum([0, *(len(terms) for terms, _ in parts)], dtype=np.int64)
        rows.indices = np.concatenate([terms for terms, _ in parts])
        rows.data = np.concatenate([values for _, values in parts])
    return rows

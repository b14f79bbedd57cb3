"""Choosing among candidates by queries they have not seen, and saying what the choice brought on queries it has not seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from ..evaluation import measures
from ..evaluation.measures import depth_of, parse_measure
from ..evaluation.significance import randomisation_test
from ..types import Floats, Ints, Ranking
from .folds import Fold

Goal: TypeAlias = Literal["balanced", "seen", "unseen"]
Doubles: TypeAlias = npt.NDArray[np.float64]
Scores: TypeAlias = Callable[[Ints], Floats]
"""From rows of queries to their scores of all documents, float32 [n, m]."""
HEADROOM = 100
_CELLS = 1 << 24
PARTS = ("seen", "unseen")
MARGIN = 0.25
"""Standard errors by which unseen queries must gain on average for a candidate to be chosen."""
ENOUGH = 30
"""Queries of a kind below which their mean is too uncertain to choose by, where there are others."""


@dataclass(frozen=True)
class Candidate:
    """Something fitted on the training rows of a fold: a label that is the same in every fold, and its scores."""

    label: str
    settings: Mapping[str, Any]
    scores: Scores


@dataclass(frozen=True, slots=True)
class Part:
    """One kind of held-out query: how many, what base, fitted and a perfect order of the base's first 100 reach, and p."""

    queries: int
    base: float
    fitted: float
    headroom: float
    p: float


@dataclass
class Tried:
    """One candidate over all folds: its settings in each, and its values."""

    settings: list[Mapping[str, Any]] = field(default_factory=list)
    values: list[dict[str, Doubles]] = field(default_factory=list)


@dataclass(frozen=True)
class Choice:
    """What cross-fitting found.

    Attributes:
        label: The best candidate on all folds; "" where the base is.
        settings: Its settings in each fold.
        parts: Base and fitted on held-out queries, seen and unseen apart; for each fold the candidate was chosen by the
            others, so that the choice had no part in what it is judged by.
        base: What the goal is made of, for the base.
        fitted: The same for what was chosen.
        p: Two-sided, of the difference on the goal's queries.
        tried: By label, the means on seen and unseen queries (NaN where there are none).
    """

    label: str
    settings: list[Mapping[str, Any]]
    parts: dict[str, Part]
    base: float
    fitted: float
    p: float
    headroom: float
    tried: dict[str, tuple[float, float]]


class Judge:
    """Measures scores of documents for queries by row.

    Args:
        judged: Relevance, CSR [queries, documents].
        ids: Of documents; equal scores are in their order.
        measure: As in ir_measures.
    """

    def __init__(self, judged: csr_array, ids: Sequence[str], measure: str) -> None:
        self.judged = judged
        self.measure = parse_measure(measure)
        self.depth = min(depth_of([self.measure]), len(ids))
        order = sorted(range(len(ids)), key=ids.__getitem__)
        self.rank = np.empty(len(ids), np.int64)
        self.rank[order] = np.arange(len(ids))

    def values(self, rows: Ints, scores: Scores) -> Doubles:
        """The measure for each query."""
        return self._measured(rows, self.best(rows, scores, self.depth))

    def best(self, rows: Ints, scores: Scores, k: int) -> list[Ints]:
        """Rows of the best `k` documents of each query, best first."""
        found: list[Ints] = []
        step = max(1, _CELLS // self.judged.shape[1])
        for first in range(0, len(rows), step):
            for line in scores(rows[first : first + step]):
                near = np.arange(len(line))
                if k < len(line):  # whatever ties with the last one is looked at, so that ids decide
                    near = np.flatnonzero(line >= np.partition(line, len(line) - k)[len(line) - k])
                found.append(near[np.lexsort((self.rank[near], -line[near]))][:k])
        return found

    def headroom(self, rows: Ints, scores: Scores) -> Doubles:
        """The measure, were the first 100 of each query perfectly sorted."""
        best = self.best(rows, scores, max(self.depth, min(HEADROOM, self.judged.shape[1])))
        sorted_ = []
        for row, near in zip(rows, best, strict=True):
            relevance = np.zeros(self.judged.shape[1], np.float32)
            start, end = self.judged.indptr[row], self.judged.indptr[row + 1]
            relevance[self.judged.indices[start:end]] = self.judged.data[start:end]
            sorted_.append(near[np.argsort(-relevance[near], kind="stable")][: self.depth])
        return self._measured(rows, sorted_)

    def _measured(self, rows: Ints, best: Sequence[Ints]) -> Doubles:
        qrels, run = {}, {}
        for i, (row, near) in enumerate(zip(rows, best, strict=True)):
            start, end = self.judged.indptr[row], self.judged.indptr[row + 1]
            judged = zip(self.judged.indices[start:end].tolist(), self.judged.data[start:end].tolist(), strict=True)
            qrels[str(i)] = {str(document): int(relevance) for document, relevance in judged}
            run[str(i)] = Ranking(tuple(map(str, near.tolist())), np.arange(len(near), 0, -1, dtype=np.float32))
        if not qrels:
            return np.empty(0)
        [found] = measures.values([self.measure], qrels, run)
        return np.array([found[str(i)] for i in range(len(rows))])


def crossfit(
    judge: Judge,
    divided: Sequence[Fold],
    base: Scores,
    propose: Callable[[Fold], Iterator[Candidate]],
    goal: Goal,
    pool: ThreadPoolExecutor | None = None,
) -> Choice:
    """Fit candidates on each fold's training rows, measure them on its held-out ones, and choose.

    Args:
        judge: Measures.
        divided: Folds.
        base: What is there already; always a candidate.
        propose: Makes the candidates of a fold: in every fold the same labels.
        goal: Whose mean is to be high: that of queries whose documents were `seen` with other queries, of those `unseen`,
            or of both means (`balanced`), in which case a candidate on which unseen queries lose is out.
        pool: Works on folds side by side.
    """
    rows = [{"seen": fold.seen, "unseen": fold.unseen} for fold in divided]
    bases = [{part: judge.values(of[part], base) for part in PARTS} for of in rows]
    tried: dict[str, Tried] = {"": Tried([{}] * len(divided), bases)}

    def work(number: int) -> list[tuple[str, Mapping[str, Any], dict[str, Doubles]]]:
        return [
            (one.label, one.settings, {part: judge.values(rows[number][part], one.scores) for part in PARTS})
            for one in propose(divided[number])
        ]

    for found in (pool.map if pool else map)(work, range(len(divided))):
        for name, settings, values in found:
            one = tried.setdefault(name, Tried())
            one.settings.append(settings)
            one.values.append(values)
    full = {label: one for label, one in tried.items() if len(one.values) == len(divided)}
    everything = range(len(divided))
    label = _best(full, everything, goal)
    chosen = []
    for fold_number in everything:
        others = [i for i in everything if i != fold_number] or [fold_number]
        chosen.append(full[_best(full, others, goal)].values[fold_number])
    heads = [{part: judge.headroom(of[part], base) for part in PARTS} for of in rows]
    parts = {}
    for part in PARTS:
        before, after, most = (np.concatenate([one[part] for one in many]) for many in (bases, chosen, heads))
        if len(before):
            p = randomisation_test(after - before)
            parts[part] = Part(len(before), float(before.mean()), float(after.mean()), float(most.mean()), p)
    aims = _aims(goal, {part: found.queries for part, found in parts.items()})
    difference = np.concatenate(
        [one[part] - two[part] for part in aims for one, two in zip(chosen, bases, strict=True)]
    )
    return Choice(
        label=label,
        settings=list(full[label].settings),
        parts=parts,
        base=float(np.mean([parts[part].base for part in aims])),
        fitted=float(np.mean([parts[part].fitted for part in aims])),
        p=randomisation_test(difference),
        headroom=float(np.mean([parts[part].headroom for part in aims])),
        tried={name: (_mean(one, everything, "seen"), _mean(one, everything, "unseen")) for name, one in full.items()},
    )


def _best(tried: Mapping[str, Tried], folds: Sequence[int], goal: Goal) -> str:
    aims = _aims(goal, {part: sum(len(tried[""].values[i][part]) for i in folds) for part in PARTS})

    def worth(label: str) -> float:
        if not aims:
            return 0.0 if label else 1.0  # nothing says that anything helps
        seen, unseen = (_mean(tried[label], folds, part) for part in PARTS)
        if goal != "seen" and label and _loses(tried[label], tried[""], folds):
            return -math.inf
        return float(np.mean([{"seen": seen, "unseen": unseen}[part] for part in aims]))

    return max(tried, key=worth)


def _loses(one: Tried, base: Tried, folds: Sequence[int]) -> bool:
    """Whether unseen queries lose, or gain so little that a choice among many would turn it into a loss."""
    differences = np.concatenate([one.values[i]["unseen"] - base.values[i]["unseen"] for i in folds])
    if len(differences) < 2:
        return False
    return bool(differences.mean() < MARGIN * differences.std() / math.sqrt(len(differences)))


def _aims(goal: Goal, queries: Mapping[str, int]) -> list[str]:
    """The kinds of query whose means count, of those that there are: all, where there are few of each."""
    there = [part for part in PARTS if queries.get(part)]
    wanted = [part for part in there if goal in (part, "balanced")] or there
    return [part for part in wanted if queries[part] >= ENOUGH] or wanted


def _mean(one: Tried, folds: Sequence[int], part: str) -> float:
    found = np.concatenate([one.values[i][part] for i in folds])
    return float(found.mean()) if len(found) else math.nan

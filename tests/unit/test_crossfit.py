"""Cross-fitting: values are the evaluation's own, and no choice is judged by what it was made with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from ragistry import Ranking
from ragistry.evaluation.evaluate import measure_run
from ragistry.training.crossfit import Candidate, Choice, Goal, Judge, Scores, crossfit
from ragistry.training.folds import Fold
from ragistry.types import Floats, Ints

MEASURES = ["nDCG@10", "nDCG@3", "RR@10", "AP", "R@2", "P@5", "nDCG"]


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    measure=st.sampled_from(MEASURES),
    documents=st.integers(1, 40),
    levels=st.integers(1, 6),
)
def test_values_are_those_of_an_evaluation_ties_included(seed: int, measure: str, documents: int, levels: int) -> None:
    draw = np.random.default_rng(seed)
    queries = 6
    table = draw.integers(0, 4, (queries, documents)) * (draw.random((queries, documents)) < 0.5)
    table[:, 0] = 1
    ids = [f"d{number}" for number in draw.permutation(documents)]
    scores = draw.integers(0, levels, (queries, documents)).astype(np.float32)
    judged = csr_array(table.astype(np.float32))
    judge, rows = Judge(judged, ids, measure), draw.permutation(queries)[:5]
    run = {str(row): Ranking.of(ids, scores[row], judge.depth) for row in rows}
    qrels = {str(row): {ids[i]: int(table[row, i]) for i in judged[[row]].indices} for row in rows}
    want = measure_run(run, qrels, [measure]).per_query[measure]
    found = judge.values(rows, lambda some: scores[some])
    np.testing.assert_allclose(found, [want[str(row)] for row in rows], atol=1e-9)
    for row, best in zip(rows, judge.best(rows, lambda some: scores[some], 3), strict=True):
        assert [ids[i] for i in best] == list(Ranking.of(ids, scores[row], 3).ids)
    headroom = judge.headroom(rows, lambda some: scores[some])
    assert (headroom >= found - 1e-9).all()
    assert (headroom <= 1 + 1e-9).all()


def test_headroom_is_what_the_first_100_could_give() -> None:
    scores = -np.arange(300, dtype=np.float32)[None]
    near, far = np.zeros((1, 300), np.float32), np.zeros((1, 300), np.float32)
    near[0, 99] = far[0, 100] = 1
    ids = [f"{i:03}" for i in range(300)]
    for table, want in ((near, 1.0), (far, 0.0)):
        judge = Judge(csr_array(table), ids, "nDCG@10")
        assert judge.values(np.array([0]), lambda rows: scores[rows])[0] == 0
        assert judge.headroom(np.array([0]), lambda rows: scores[rows])[0] == want


def test_no_queries_have_no_values() -> None:
    judge = Judge(csr_array(np.eye(3, dtype=np.float32)), ["a", "b", "c"], "nDCG@10")
    assert judge.values(np.empty(0, np.int64), lambda rows: np.empty((len(rows), 3), np.float32)).shape == (0,)


def test_blocks_cannot_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    scores = draw.normal(size=(20, 9)).astype(np.float32)
    judge = Judge(csr_array((draw.random((20, 9)) < 0.4).astype(np.float32)), list("abcdefghi"), "nDCG@3")
    rows = draw.permutation(20)
    asked: list[int] = []

    def noting(some: Ints) -> Floats:
        asked.append(len(some))
        return scores[some]

    whole = judge.values(rows, noting)
    monkeypatch.setattr("ragistry.training.crossfit._CELLS", 30)
    np.testing.assert_array_equal(judge.values(rows, noting), whole)
    assert asked == [20, 3, 3, 3, 3, 3, 3, 2]


QUERIES, PER_FOLD = 50, 10
JUDGE = Judge(csr_array(np.eye(QUERIES, dtype=np.float32)), [f"{i:02}" for i in range(QUERIES)], "RR@10")
SEEN = np.arange(QUERIES) % PER_FOLD < 5
"""Each fold tests ten queries, of which the first half are of documents that were seen."""
FOLDS = [
    Fold(
        np.setdiff1d(np.arange(QUERIES), np.arange(first, first + PER_FOLD)),
        np.arange(first, first + 5),
        np.arange(first + 5, first + PER_FOLD),
    )
    for first in range(0, QUERIES, PER_FOLD)
]


def giving(value: float | Floats) -> Scores:
    """Scores for which the reciprocal rank of each query is this: 1, 1/2, 1/4 or 0."""
    values = np.broadcast_to(np.asarray(value, np.float32), (QUERIES,))

    table = np.zeros((QUERIES, QUERIES), np.float32)
    for row, line in enumerate(table):
        better = round(1 / values[row]) - 1 if values[row] else 20
        line[[column for column in range(QUERIES) if column != row][:better]] = 2
        line[row] = 1
    return lambda rows: table[rows]


def chosen(candidates: Mapping[str, Callable[[int], float | Floats]], goal: Goal, base: float = 0.5) -> Choice:
    """Of candidates, each a function from a fold's number to the values it gives there."""

    def propose(fold: Fold) -> Iterator[Candidate]:
        number = int(fold.unseen[0]) // PER_FOLD
        for label, values in candidates.items():
            yield Candidate(label, {"fold": number}, giving(values(number)))

    return crossfit(JUDGE, FOLDS, giving(base), propose, goal)


GOALS: list[Goal] = ["balanced", "seen", "unseen"]


@pytest.mark.parametrize("goal", GOALS)
def test_what_is_better_everywhere_is_chosen(goal: Goal) -> None:
    found = chosen({"worse": lambda fold: 0.25, "better": lambda fold: 1.0}, goal)
    assert found.label == "better"
    assert found.settings == [{"fold": number} for number in range(5)]
    assert (found.base, found.fitted, found.headroom) == (0.5, 1.0, 1.0)
    assert found.p < 0.001
    assert {part: (one.queries, one.base, one.fitted) for part, one in found.parts.items()} == {
        "seen": (25, 0.5, 1.0),
        "unseen": (25, 0.5, 1.0),
    }
    assert found.tried == {"": (0.5, 0.5), "worse": (0.25, 0.25), "better": (1.0, 1.0)}


@pytest.mark.parametrize("goal", GOALS)
def test_the_base_stays_where_nothing_is_better(goal: Goal) -> None:
    for candidates in ({}, {"worse": lambda fold: 0.25}, {"same": lambda fold: 0.5}):
        found = chosen(candidates, goal)
        assert (found.label, found.base, found.fitted, found.p) == ("", 0.5, 0.5, 1.0)
        assert found.settings == [{}] * 5


@pytest.mark.parametrize("goal", GOALS)
def test_what_helps_on_one_fold_only_is_not_reported_as_better(goal: Goal) -> None:
    candidates = {f"lucky {own}": lambda fold, own=own: 1.0 if fold == own else 0.5 for own in range(5)}
    found = chosen(candidates, goal)
    assert max(seen for seen, _ in found.tried.values()) == pytest.approx(0.6)
    assert found.fitted == found.base == 0.5
    assert found.p == 1.0


def test_for_each_fold_the_candidate_is_chosen_by_the_others() -> None:
    found = chosen({"mostly better": lambda fold: 0.25 if fold == 0 else 1.0}, "balanced")
    assert found.label == "mostly better"
    assert found.fitted == pytest.approx((0.25 + 4 * 1.0) / 5)


def halves(seen: float, unseen: float) -> Callable[[int], Floats]:
    return lambda fold: np.where(SEEN, seen, unseen).astype(np.float32)


def test_what_unseen_queries_lose_by_is_out_unless_only_seen_ones_count() -> None:
    candidates = {"selfish": halves(1.0, 0.25)}
    assert chosen(candidates, "balanced").label == ""
    assert chosen(candidates, "unseen").label == ""
    found = chosen(candidates, "seen")
    assert found.label == "selfish"
    assert (found.base, found.fitted) == (0.5, 1.0)
    assert found.parts["unseen"].fitted == 0.25
    modest = {**candidates, "modest": halves(0.5, 1.0)}
    assert [chosen(modest, goal).label for goal in GOALS] == ["modest", "selfish", "modest"]


def test_a_gain_of_unseen_queries_within_their_noise_is_no_gain() -> None:
    noisy, sure = (np.where(SEEN, 1.0, 0.5).astype(np.float32) for _ in range(2))
    noisy[np.flatnonzero(~SEEN)[:8]] = 1.0
    noisy[np.flatnonzero(~SEEN)[8:23]] = 0.25
    found = chosen({"noisy": lambda fold: noisy, "sure": lambda fold: sure}, "balanced")
    assert sum(found.tried["noisy"]) > sum(found.tried["sure"])
    assert found.label == "sure"


def test_candidates_that_are_missing_from_a_fold_are_left_out() -> None:
    def propose(fold: Fold) -> Iterator[Candidate]:
        if fold.unseen[0] != 5:
            yield Candidate("partly", {}, giving(1.0))
        yield Candidate("whole", {}, giving(np.where(np.arange(QUERIES) % 2, 1.0, 0.5)))

    found = crossfit(JUDGE, FOLDS, giving(0.5), propose, "balanced")
    assert found.label == "whole"
    assert set(found.tried) == {"", "whole"}


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("missing", ["seen", "unseen"])
def test_where_there_is_one_kind_of_query_it_decides(goal: Goal, missing: str) -> None:
    empty = np.empty(0, np.int64)
    divided = [Fold(fold.train, *((empty, fold.unseen) if missing == "seen" else (fold.seen, empty))) for fold in FOLDS]

    def propose(fold: Fold) -> Iterator[Candidate]:
        yield Candidate("better", {}, giving(1.0))

    found = crossfit(JUDGE, divided, giving(0.5), propose, goal)
    assert (found.label, found.fitted, list(found.parts)) == (
        "better",
        1.0,
        ["unseen" if missing == "seen" else "seen"],
    )


def test_one_fold_is_judged_by_itself() -> None:
    def propose(fold: Fold) -> Iterator[Candidate]:
        yield Candidate("better", {}, giving(1.0))

    found = crossfit(JUDGE, FOLDS[:1], giving(0.5), propose, "balanced")
    assert (found.label, found.fitted, found.parts["seen"].queries) == ("better", 1.0, 5)


def test_the_fewest_queries_of_a_kind_do_not_decide_where_there_are_many_of_the_other() -> None:
    many = [Fold(fold.train, np.concatenate([fold.seen, fold.unseen[:4]]), fold.unseen[4:]) for fold in FOLDS]
    values = np.full(QUERIES, 0.5, np.float32)
    other = np.full(QUERIES, 0.25, np.float32)
    for fold in many:
        values[fold.unseen] = 0.25
        other[fold.unseen] = 1.0

    def propose(fold: Fold) -> Iterator[Candidate]:
        yield Candidate("helps many", {}, giving(values))
        yield Candidate("helps few", {}, giving(other))

    assert crossfit(JUDGE, many, giving(0.25), propose, "balanced").label == "helps many"

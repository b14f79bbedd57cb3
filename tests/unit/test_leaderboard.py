"""Leaderboards: intervals, tests against the best, and the sentence that says which one to use."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from ragistry.errors import InvalidInput
from ragistry.evaluation import Evaluation, measure_run
from ragistry.evaluation.leaderboard import Cost, Leaderboard, leaderboard
from ragistry.evaluation.significance import interval
from ragistry.types import Ranking

QUERIES = {f"q{number}": f"question {number}" for number in range(40)}
QRELS = {query: {"yes": 1} for query in QUERIES}


def reaching(name: str, hits: int, first: int = 0) -> Evaluation:
    """One that answers so many queries, from the first one on."""
    found = set(list(QUERIES)[first : first + hits])
    run = {query: Ranking.of(["yes" if query in found else "no"], [1.0]) for query in QUERIES}
    return measure_run(run, QRELS, ["P@1", "R@10"], name=name, seconds=2.0)


def board(*evaluations: Evaluation, costs: dict[str, Cost] | None = None) -> Leaderboard:
    return leaderboard("letters", evaluations, QUERIES, QRELS, costs=costs, documents=2)


def test_best_first_with_tests_against_the_best() -> None:
    found = board(reaching("low", 5), reaching("high", 35), reaching("middle", 33))
    assert [entry.name for entry in found.entries] == ["high", "middle", "low"]
    best, middle, low = found.entries
    assert best.against_best is None
    assert middle.against_best is not None
    assert (middle.against_best.difference, middle.behind, low.behind) == (pytest.approx(-0.05), False, True)
    assert found.measures == ("P@1", "R@10")


def test_intervals_hold_the_mean_and_are_those_of_the_binomial() -> None:
    [entry] = board(reaching("half", 20)).entries
    low, high = entry.intervals["P@1"] or (0, 0)
    assert low < 0.5 < high
    expected = stats.binom.ppf([0.025, 0.975], 40, 0.5) / 40  # the bootstrap of zeros and ones is binomial
    np.testing.assert_allclose((low, high), expected, atol=0.026)


def test_intervals_at_the_limits() -> None:
    assert interval([0.3]) is None
    assert interval([]) is None
    assert interval([0.3, 0.3, 0.3]) == (0.3, 0.3)
    assert interval([0.0, 1.0, 0.5], seed=1) == interval([0.0, 1.0, 0.5], seed=1)


def test_intervals_cover_as_often_as_they_say() -> None:
    generator = np.random.default_rng(5)
    covered = 0
    for seed in range(200):
        low, high = interval(generator.beta(2, 3, 60).tolist(), samples=500, seed=seed) or (1, 0)
        covered += low <= 0.4 <= high
    assert 0.88 <= covered / 200 <= 0.99


def test_the_verdict_names_the_best_and_the_quickest_that_is_as_good() -> None:
    slow, quick = Cost(p50_ms=30.0), Cost(p50_ms=0.5)
    high, level, low = reaching("high", 35), reaching("level", 34), reaching("low", 5)
    assert board(high, low).verdict() == "high is best, with P@1 0.875, beyond chance against every other."
    said = board(high, level, low, costs={"high": slow, "level": quick, "low": quick}).verdict()
    assert said == (
        "high is best, with P@1 0.875; that it is better than level may be chance. level answers 60.0 times as fast."
    )
    assert board(high).verdict() == "high is best, with P@1 0.875."
    assert "times as fast" not in board(high, level, costs={"high": slow}).verdict()
    assert "than a, b or level may" in board(high, reaching("a", 34), reaching("b", 34), level).verdict()


def test_the_verdict_calls_equals_level() -> None:
    assert board(reaching("a", 40), reaching("b", 40)).verdict() == "a and b are level, with P@1 1.000."
    said = board(reaching("a", 30), reaching("b", 30), reaching("c", 29), reaching("d", 1)).verdict()
    assert said == "a and b are level, with P@1 0.750; that they are better than c may be chance."


def test_the_best_of_many_equals_is_seldom_called_better() -> None:
    generator, called = np.random.default_rng(0), 0
    for _ in range(60):
        found = []
        for name in "abcdef":
            hits = set(np.array(list(QUERIES))[generator.random(40) < 0.5].tolist())
            run = {query: Ranking.of(["yes" if query in hits else "no"], [1.0]) for query in QUERIES}
            found.append(measure_run(run, QRELS, ["P@1"], name=name))
        called += any(entry.behind for entry in board(*found).entries)
    assert called <= 6  # 5 % of them, and chance


def test_everything_goes_into_json() -> None:
    found = json.loads(json.dumps(board(reaching("a", 3), reaching("b", 4), costs={"a": Cost(1.5)}).to_json()))
    assert [retriever["name"] for retriever in found["retrievers"]] == ["b", "a"]
    assert found["retrievers"][1]["cost"]["index_seconds"] == 1.5
    assert found["retrievers"][1]["against_best"]["baseline"] == "b"
    assert found["retrievers"][0]["against_best"] is None
    assert len(found["retrievers"][0]["intervals"]["P@1"]) == 2
    assert found["queries"] == 40


def test_what_does_not_belong_together_is_refused() -> None:
    with pytest.raises(InvalidInput, match="at least one"):
        board()
    with pytest.raises(InvalidInput, match="share the names"):
        board(reaching("a", 1), reaching("a", 2))
    other = measure_run({"q0": Ranking.of(["yes"], [1.0])}, {"q0": {"yes": 1}}, ["P@1", "R@10"], name="other")
    with pytest.raises(InvalidInput, match="different queries"):
        board(reaching("a", 1), other)
    with pytest.raises(InvalidInput, match="different measures"):
        board(reaching("a", 1), measure_run({"q0": Ranking.of(["yes"], [1.0])}, QRELS, ["P@1"], name="b"))

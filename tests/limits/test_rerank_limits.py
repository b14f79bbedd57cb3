"""Reranking where it must equal something simpler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragistry import Document, Ranking, create
from ragistry.retrievers.fuse import Fuse
from ragistry.retrievers.rerank import Rerank, merged
from ragistry.types import Among, Floats

Normalise = Literal["min-max", "z-score", "none"]
NORMALISE: tuple[Normalise, ...] = ("min-max", "z-score", "none")
DOCUMENTS = [Document(f"{i:02}", f"{'cat ' * (i % 4)}{'dog ' * (i % 3)}number {i}") for i in range(40)]
QUERIES = ["cat", "dog cat", "number 7", "nothing of that kind", ""]


class Letters:
    """Counts the letters that query and document share."""

    def score(self, query: str, documents: Sequence[Document]) -> Floats:
        return np.array([len(set(query) & set(document.full_text)) for document in documents], np.float32)


class Failing:
    """A scorer that must not be asked."""

    def score(self, query: str, documents: Sequence[Document]) -> Floats:
        raise AssertionError("asked")


class Given:
    """Scores by document id, and counts."""

    def __init__(self, scores: Mapping[str, float]) -> None:
        self.scores = scores

    def score(self, query: str, documents: Sequence[Document]) -> Floats:
        return np.array([self.scores[document.id] for document in documents], np.float32)


class Listed:
    """A retriever with the same scores for every query."""

    def __init__(self, scores: Mapping[str, float]) -> None:
        self.scores = scores

    def search(self, queries: Sequence[str], k: int = 10, *, among: Among = None) -> list[Ranking]:
        found = [name for name in self.scores if among is None or name in among]
        return [Ranking.of(found, [self.scores[name] for name in found], k) for _ in queries]


def reranked(first: Mapping[str, float], scorer: Mapping[str, float], k: int = 100, **settings: object) -> Ranking:
    made = Rerank(Listed(first), Given(scorer), **settings)  # type: ignore[arg-type]
    made.read_from(lambda ids: [Document(value, "") for value in ids])
    return made.search(["any"], k)[0]


@pytest.mark.parametrize("normalise", NORMALISE)
@pytest.mark.parametrize("depth", [1, 5, 100])
@pytest.mark.parametrize("among", [None, [f"{i:02}" for i in range(0, 40, 3)]])
def test_weight_0_is_the_first_retriever(normalise: Normalise, depth: int, among: Among) -> None:
    made = Rerank(create("bm25"), Failing(), weight=0.0, depth=depth, normalise=normalise)
    made.add(DOCUMENTS)
    for k in (1, 5, 100):
        assert made.search(QUERIES, k, among=among) == made.first.search(QUERIES, k, among=among)


@pytest.mark.parametrize("normalise", NORMALISE)
@pytest.mark.parametrize("depth", [40, 100])
@pytest.mark.parametrize("batch", [1, 7, 100])
def test_all_documents_and_weight_1_is_the_scorer_alone(normalise: Normalise, depth: int, batch: int) -> None:
    first = {document.id: float(i * 7 % 40) for i, document in enumerate(DOCUMENTS)}
    by_id = {document.id: document for document in DOCUMENTS}
    made = Rerank(Listed(first), Letters(), weight=1.0, depth=depth, normalise=normalise, batch=batch)
    made.read_from(lambda ids: [by_id[value] for value in ids])
    for query, ranking in zip(QUERIES, made.search(QUERIES, 40), strict=True):
        scores = dict(zip(by_id, Letters().score(query, DOCUMENTS).tolist(), strict=True))
        assert list(ranking.ids) == sorted(by_id, key=lambda value: (-scores[value], -first[value]))
        if normalise == "none":
            np.testing.assert_allclose(ranking.scores, [scores[value] for value in ranking.ids], rtol=1e-5, atol=1e-5)


def test_the_sum_by_hand() -> None:
    first, scorer = {"a": 6.0, "b": 4.0, "c": 2.0, "d": 1.0}, {"a": -1.0, "b": -3.0, "c": 1.0}
    # min-max over a, b and c: first 1, 1/2 and 0; scorer 1/2, 0 and 1.
    found = dict(reranked(first, scorer, depth=3, weight=0.75))
    assert found == pytest.approx({"c": 0.75, "a": 0.625, "b": 0.125, "d": 0.125 - 1 / 2})
    # z-scores: deviations are the square root of 8/3 in both.
    unit = float(np.sqrt(8 / 3))
    found = dict(reranked(first, scorer, depth=3, weight=0.75, normalise="z-score"))
    assert found == pytest.approx(
        {"c": (0.75 * 2 - 0.25 * 2) / unit, "a": 0.25 * 2 / unit, "b": -0.75 * 2 / unit, "d": -0.75 * 2 / unit - 1 / 2}
    )
    found = dict(reranked(first, scorer, depth=3, weight=0.75, normalise="none"))
    assert found == pytest.approx({"a": 0.75, "c": 1.25, "b": -1.25, "d": -1.25 - 1 / 2})


@pytest.mark.parametrize("weight", [0.3, 0.8, 1.0])
@pytest.mark.parametrize("normalise", NORMALISE)
def test_a_scorer_that_cannot_decide_changes_no_order(weight: float, normalise: Normalise) -> None:
    first = {"c": 3.0, "a": 2.0, "d": 2.0, "b": 1.0}
    assert reranked(first, dict.fromkeys(first, 7.0), weight=weight, normalise=normalise).ids == ("c", "a", "d", "b")
    same = dict.fromkeys(first, 7.0)
    assert reranked(same, same, weight=weight, normalise=normalise).ids == ("a", "b", "c", "d")
    assert reranked({"a": 1.0}, {"a": 2.0}, weight=weight, normalise=normalise).ids == ("a",)


def test_a_first_retriever_that_cannot_decide_leaves_it_to_the_scorer() -> None:
    scorer = {"a": 1.0, "b": 3.0, "c": 2.0}
    assert reranked(dict.fromkeys(scorer, 1.0), scorer, weight=0.2).ids == ("b", "c", "a")


@pytest.mark.parametrize("normalise", NORMALISE)
@pytest.mark.parametrize("batch", [1, 3, 16])
def test_the_order_of_candidates_is_invisible(normalise: Normalise, batch: int) -> None:
    random = np.random.default_rng(0)
    scorer = {str(i): float(value) for i, value in enumerate(random.standard_normal(20))}
    expected = reranked(dict.fromkeys(scorer, 1.0), scorer, weight=1.0, normalise=normalise)
    for _ in range(5):
        first = dict(zip(scorer, random.permutation(20).tolist(), strict=True))
        found = reranked(first, scorer, weight=1.0, normalise=normalise, batch=batch)
        assert found.ids == expected.ids
        np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("k", [1, 3, 5, 9, 100])
def test_hits_beyond_depth_keep_their_order_below(k: int) -> None:
    first = {value: 9.0 - i for i, value in enumerate("hgfedcba")}
    scorer = {value: float(i) for i, value in enumerate("hgfe")}
    found = reranked(first, scorer, k, depth=4, weight=1.0)
    assert "".join(found.ids) == "efghdcba"[:k]
    assert found == reranked(first, scorer, 100, depth=4, weight=1.0).head(k)
    assert (np.diff(found.scores) < 0).all()


class TestBudget:
    """With a clock that a scorer moves on by 10 ms each time, and only "d" and "h" worth anything."""

    def searched(self, budget: float | None, depth: int = 100) -> tuple[Ranking, int]:
        now, letters = [5.0], "abcdefgh"

        class Slow(Given):
            def score(self, query: str, documents: Sequence[Document]) -> Floats:
                now.append(now[-1] + 0.010)
                return super().score(query, documents)

        first = Listed({value: -float(i) for i, value in enumerate(letters)})
        scorer = Slow({value: float(value in "dh") for value in letters})
        made = Rerank(first, scorer, weight=1.0, budget_ms=budget, batch=2, depth=depth)
        made.read_from(lambda ids: [Document(value, "") for value in ids])
        made._clock = lambda: now[-1]
        found, again = made.search(["any", "any"], 20)
        assert found == again, "the time that one query took was counted against the next"
        return found, (len(now) - 1) // 2

    @pytest.mark.parametrize(
        ("budget", "batches", "expected"),
        [
            (0, 1, "abcdefgh"),
            (9.0, 1, "abcdefgh"),
            (10.5, 2, "dabcefgh"),
            (25.0, 3, "dabcefgh"),
            (39.0, 4, "dhabcefg"),
            (None, 4, "dhabcefg"),
        ],
    )
    def test_what_is_scored_comes_first(self, budget: float | None, batches: int, expected: str) -> None:
        found, scored = self.searched(budget)
        assert ("".join(found.ids), scored) == (expected, batches)
        assert (np.diff(found.scores[2 * batches - 1 :]) < 0).all(), "the rest does not follow below"

    def test_hits_beyond_depth_follow_too(self) -> None:
        assert "".join(self.searched(15.0, depth=6)[0].ids) == "dabcefgh"


def test_alone_in_a_fusion() -> None:
    first, scorer = {"a": 3.0, "b": 2.0, "c": 1.0}, {"a": 1.0, "b": 2.0, "c": 3.0}
    member = Rerank(Listed(first), Given(scorer))
    both = Fuse({"words": Listed(first), "reranked": member}, {"words": 0.0}, missing="minimum")
    both.read_from(lambda ids: [Document(value, "") for value in ids])
    assert both.search(["any"]) == member.search(["any"]) == [reranked(first, scorer)]
    equal = Fuse(both.members, missing="minimum")  # z-scores 1.2, 0, -1.2 for words, and turned round with weight 0.6
    assert set(equal.search(["any"])[0].ids) == set("abc")


def test_scores_stay_finite_and_apart() -> None:
    largest = float(np.finfo(np.float32).max)
    first = {"d": 4.0, "c": 3.0, "b": 2.0, "a": 1.0}
    for score in (largest, -largest):
        found = reranked(first, dict.fromkeys(first, score), weight=1.0, normalise="none", depth=3)
        assert found.ids == ("d", "c", "b", "a")
    found = reranked(first, {"d": 1.0, "c": 0.0, "b": 0.0, "a": 0.0}, weight=1.0)
    assert found.ids == ("d", "c", "b", "a")
    assert np.diff(found.scores).max() < -1e-31, "what a processor may take for 0 tells two scores apart"


floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
few = st.sampled_from([0.0, 1.0, -1.0, 2.0, float(np.float32(0.1))])


@st.composite
def cases(draw: st.DrawFn) -> tuple[Ranking, Floats, float, Normalise]:
    names = draw(st.lists(st.text(max_size=3), min_size=1, max_size=12, unique=True))
    numbers = draw(st.sampled_from([floats, few]))
    own = draw(st.lists(numbers, min_size=len(names), max_size=len(names)))
    scores = draw(st.lists(numbers, max_size=len(names)))
    weight = draw(st.sampled_from([0.1, 0.5, 1.0]) | st.floats(0, 1))
    return Ranking.of(names, own), np.array(scores, np.float32), weight, draw(st.sampled_from(NORMALISE))


def norm(values: Floats, how: Normalise) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    wide = values.astype(np.float64)
    if how == "none":
        return wide
    if how == "min-max":
        spread = wide.max() - wide.min()
        return (wide - wide.min()) / spread if spread else np.ones(len(wide))
    return (wide - wide.mean()) / wide.std() if wide.std() else np.zeros(len(wide))


@given(cases())
def test_merging(case: tuple[Ranking, Floats, float, Normalise]) -> None:
    first, scores, weight, how = case
    found = merged(first, scores, weight, how)  # a Ranking refuses what is not finite, not sorted, or there twice
    count = len(scores)
    if not count:
        assert found == first
        return
    assert set(found.ids[:count]) == set(first.ids[:count])
    assert found.ids[count:] == first.ids[count:]
    assert (np.diff(found.scores[count - 1 :]) < 0).all()
    sums = weight * norm(scores, how) + (1 - weight) * norm(first.scores[:count], how)
    assert list(found.ids[:count]) == [first.ids[i] for i in sorted(range(count), key=lambda i: (-sums[i], i))]
    expected = np.clip(np.sort(sums)[::-1], -1e38, 1e38)
    np.testing.assert_allclose(found.scores[:count], expected, rtol=1e-5, atol=1e-5)

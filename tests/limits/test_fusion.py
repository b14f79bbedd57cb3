"""Fusion against its members and against sums written out by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from ragistry import Document, Ranking, create
from ragistry.retrievers.fuse import Fuse, Method, Missing, Normalise
from ragistry.types import Among

DOCUMENTS = [Document(str(i), f"{'cat ' * (i % 4)}{'dog ' * (i % 3)}number {i}") for i in range(40)]
QUERIES = ["cat", "dog cat", "number 7", "nothing of that kind", ""]


class Listed:
    """A retriever with the same scores for every query, which finds only its best few unless told where to look."""

    def __init__(self, scores: Mapping[str, float], few: int = 10) -> None:
        self.scores, self.few = scores, few

    def search(self, queries: Sequence[str], k: int = 10, *, among: Among = None) -> list[Ranking]:
        found = [name for name in self.scores if among is None or name in among]
        most = min(k, self.few) if among is None else k
        return [Ranking.of(found, [self.scores[name] for name in found], most) for _ in queries]


A = {"x": 4.0, "y": 2.0, "z": 1.0}
B = {"y": 9.0, "z": 5.0, "w": 1.0}


def fused(a: Mapping[str, float], b: Mapping[str, float], few: int = 10, **settings: object) -> dict[str, float]:
    fuse = Fuse({"a": Listed(a, few), "b": Listed(b, few)}, **settings)  # type: ignore[arg-type]
    return dict(fuse.search(["any"])[0])


@pytest.mark.parametrize("method", ["interpolation", "reciprocal-rank"])
@pytest.mark.parametrize("missing", ["search", "minimum", "zero", "drop"])
@pytest.mark.parametrize("normalise", ["min-max", "z-score", "maximum", "none"])
@pytest.mark.parametrize("among", [None, [str(i) for i in range(0, 40, 3)]])
def test_weights_1_and_0_give_the_first_member(
    method: Method, missing: Missing, normalise: Normalise, among: Among
) -> None:
    members = {"a": create("bm25"), "b": create("query-likelihood")}
    both = Fuse(members, {"a": 1.0, "b": 0.0}, method=method, missing=missing, normalise=normalise, depth=5)
    both.add(DOCUMENTS)
    for k in (1, 5, 100):
        assert both.search(QUERIES, k, among=among) == members["a"].search(QUERIES, k, among=among)


def test_the_member_without_weight_is_not_asked() -> None:
    class Failing:
        def search(self, queries: Sequence[str], k: int = 10, *, among: Among = None) -> list[Ranking]:
            raise AssertionError("asked")

    assert Fuse({"a": Failing(), "b": Listed(B)}, {"a": 0.0}).search(["any"])[0].ids == ("y", "z", "w")


def test_a_retriever_fused_with_itself_ranks_alike() -> None:
    member = create("bm25")
    for normalise in ("min-max", "z-score", "maximum", "none"):
        both = Fuse({"a": member, "b": member}, normalise=normalise)
        if normalise == "min-max":
            both.members["a"].add(DOCUMENTS)  # type: ignore[attr-defined]
        found, expected = both.search(QUERIES, 40), member.search(QUERIES, 40)
        assert [ranking.ids for ranking in found] == [ranking.ids for ranking in expected]


# Each finds its best two: x 4, y 2 and y 9, z 5.
# min-max: x 1, y 0 and y 1, z 0.  z-score: x 1, y -1 and y 1, z -1.  maximum: x 1, y 1/2 and y 1, z 5/9.
@pytest.mark.parametrize(
    ("normalise", "missing", "expected"),
    [
        ("min-max", "search", {"x": 1.0 + 0.0, "y": 0.0 + 1.0, "z": -0.5 + 0.0}),
        ("min-max", "minimum", {"x": 1.0 + 0.0, "y": 0.0 + 1.0, "z": 0.0 + 0.0}),
        ("min-max", "zero", {"x": 1.0, "y": 0.0 + 1.0, "z": 0.0}),
        ("min-max", "drop", {"y": 0.0 + 1.0}),
        ("z-score", "search", {"x": 1.0 - 1.0, "y": -1.0 + 1.0, "z": -1.0 - 2 * (1 - math.exp(-1 / 2)) - 1.0}),
        ("z-score", "minimum", {"x": 1.0 - 1.0, "y": -1.0 + 1.0, "z": -1.0 - 1.0}),
        ("z-score", "zero", {"x": 1.0, "y": -1.0 + 1.0, "z": -1.0}),
        ("z-score", "drop", {"y": -1.0 + 1.0}),
        ("maximum", "search", {"x": 1.0 + 5 / 9, "y": 0.5 + 1.0, "z": 0.25 + 5 / 9}),
        ("maximum", "minimum", {"x": 1.0 + 5 / 9, "y": 0.5 + 1.0, "z": 0.5 + 5 / 9}),
        ("maximum", "zero", {"x": 1.0, "y": 0.5 + 1.0, "z": 5 / 9}),
        ("maximum", "drop", {"y": 0.5 + 1.0}),
        ("none", "search", {"x": 4.0 + 5.0, "y": 2.0 + 9.0, "z": 1.0 + 5.0}),
        ("none", "minimum", {"x": 4.0 + 5.0, "y": 2.0 + 9.0, "z": 2.0 + 5.0}),
        ("none", "zero", {"x": 4.0, "y": 2.0 + 9.0, "z": 5.0}),
        ("none", "drop", {"y": 2.0 + 9.0}),
    ],
)
def test_every_normalisation_and_rule_by_hand(
    normalise: Normalise, missing: Missing, expected: dict[str, float]
) -> None:
    found = fused(A, B, normalise=normalise, missing=missing, few=2)
    assert found == pytest.approx(expected)
    assert list(found) == sorted(found, key=lambda name: (-found[name], name))


def test_a_member_that_knows_nothing_vetoes_nothing() -> None:
    sure, clueless = {"x": 9.0, "y": 1.0}, {"y": 0.31, "z": 0.30, "w": -400.0, "x": -500.0}
    found = fused(sure, clueless, weights={"a": 1.0, "b": 1.0}, missing="search", few=2)
    assert found["x"] == pytest.approx(1.0 - 1.0 - 2.0)


def test_what_is_below_a_list_keeps_its_order_and_its_distance_where_that_is_small() -> None:
    flat = {"p": 1.0, "q": 1.0, "r": 1.0, "s": 1.0}
    other = {"y": 2.0, "z": 0.0, "p": -0.02, "q": -0.5, "r": -1.5, "s": -4.0}
    found = fused(flat, other, missing="search", few=4)
    scores = [found[name] for name in "pqrs"]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == 4


def test_weights_multiply_normalised_scores() -> None:
    found = fused(A, B, weights={"a": 3.0, "b": 0.5}, normalise="maximum", missing="zero", few=2)
    assert found == pytest.approx({"x": 3.0, "y": 1.5 + 0.5, "z": 0.5 * 5 / 9})


@pytest.mark.parametrize(
    ("normalise", "expected"),
    [("min-max", {"x": 2.0, "y": 2.0}), ("z-score", {"x": 0.0, "y": 0.0}), ("maximum", {"x": 2.0, "y": 2.0})],
)
def test_equal_scores(normalise: Normalise, expected: dict[str, float]) -> None:
    alike = {"x": 3.0, "y": 3.0}
    assert fused(alike, alike, normalise=normalise) == expected


@pytest.mark.parametrize("normalise", ["min-max", "z-score", "maximum", "none"])
def test_zero_and_negative_scores(normalise: Normalise) -> None:
    zero, negative = {"x": 0.0, "y": 0.0}, {"x": -1.0, "y": -3.0}
    for one, other in ((zero, zero), (negative, negative), (zero, negative)):
        found = fused(one, other, normalise=normalise)
        assert list(found) == ["x", "y"]
        assert np.isfinite(list(found.values())).all()


@pytest.mark.parametrize(("missing", "expected"), [("search", A), ("minimum", A), ("zero", A), ("drop", {})])
def test_a_member_that_finds_nothing_adds_nothing(missing: Missing, expected: dict[str, float]) -> None:
    assert fused(A, {}, normalise="none", missing=missing) == expected
    assert fused({}, {}, normalise="z-score", missing=missing) == {}


def test_reciprocal_ranks_by_hand() -> None:
    found = fused(A, B, method="reciprocal-rank", few=2)
    assert found == pytest.approx({"y": 1 / 62 + 1 / 61, "x": 1 / 61, "z": 1 / 62})
    weighted = fused(A, B, method="reciprocal-rank", weights={"a": 2.0, "b": 0.5}, rank_constant=0.0)
    assert weighted == pytest.approx({"x": 2 / 1, "y": 2 / 2 + 0.5 / 1, "z": 2 / 3 + 0.5 / 2, "w": 0.5 / 3})


def test_depth_reaches_at_least_k() -> None:
    fuse = Fuse({"a": Listed(A), "b": Listed(B)}, depth=1, missing="zero", normalise="none")
    assert len(fuse.search(["any"], 4)[0]) == 4
    assert fuse.search(["any"], 1)[0].ids == ("y",)

"""Reducers: which tokens are joined or kept, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ragistry.encoders.reducing import Reducer, assign, means
from ragistry.errors import InvalidInput
from ragistry.types import Floats, MultiVectors

RNG = np.random.default_rng(0)


def blobs(clusters: int, each: int, width: int = 8, seed: int = 0) -> tuple[Floats, list[int]]:
    """Tokens around centres far apart, in turn, and the centre of each."""
    rng = np.random.default_rng(seed)
    centres = 20 * np.eye(clusters, width)
    owners = list(range(clusters)) * each
    return (centres[owners] + 0.1 * rng.standard_normal((len(owners), width))).astype(np.float32), owners


def inertia(tokens: Floats, groups: Any) -> float:
    return float(np.square(tokens - means(tokens, groups)[groups]).sum())


class TestAssign:
    @pytest.mark.parametrize("seed", range(5))
    def test_clusters_far_apart_are_found(self, seed: int) -> None:
        tokens, owners = blobs(6, 7)
        assert assign(tokens, 6, seed).tolist() == owners

    def test_nothing_can_be_gained_by_moving_a_token_to_a_nearer_mean(self) -> None:
        tokens = RNG.standard_normal((60, 5)).astype(np.float32)
        groups = assign(tokens, 7)
        distances = np.square(tokens[:, None] - means(tokens, groups)).sum(axis=2)
        assert (distances.argmin(axis=1) == groups).all()
        assert inertia(tokens, groups) < 0.8 * inertia(tokens, np.arange(60) % 7)

    @pytest.mark.parametrize("clusters", [5, 6, 100])
    def test_as_many_clusters_as_tokens(self, clusters: int) -> None:
        assert assign(np.ones((5, 2), np.float32), clusters).tolist() == [0, 1, 2, 3, 4]

    @pytest.mark.parametrize("clusters", [1, 2, 4, 5])
    def test_equal_tokens_leave_no_cluster_empty(self, clusters: int) -> None:
        assert set(assign(np.ones((6, 3), np.float32), clusters).tolist()) == set(range(clusters))

    def test_where_the_origin_is_does_not_matter(self) -> None:
        tokens = RNG.standard_normal((40, 4)).astype(np.float32)
        np.testing.assert_array_equal(assign(tokens, 6), assign(tokens + np.float32(64), 6))

    def test_the_seed_counts(self) -> None:
        tokens = RNG.standard_normal((60, 5)).astype(np.float32)
        assert len({tuple(assign(tokens, 7, seed).tolist()) for seed in range(5)}) > 1

    def test_no_tokens(self) -> None:
        found = assign(np.empty((0, 4), np.float32), 3)
        assert found.shape == (0,)
        assert found.dtype == np.int64

    def test_the_type_is_that_of_indexes(self) -> None:
        assert assign(RNG.standard_normal((9, 2)).astype(np.float32), 3).dtype == np.int64

    def test_refusals(self) -> None:
        tokens = np.ones((3, 2), np.float32)
        with pytest.raises(InvalidInput, match="clusters=0: at least 1"):
            assign(tokens, 0)
        with pytest.raises(InvalidInput, match=r"shape \(2,\)"):
            assign(tokens[0], 1)
        tokens[1, 1] = np.nan
        with pytest.raises(InvalidInput, match="NaN or infinity"):
            assign(tokens, 2)


class TestReducer:
    @pytest.mark.parametrize(
        ("reducer", "groups"),
        [
            (Reducer("tail", 2), [-1, -1, -1, 0, 1]),
            (Reducer("tail", 5), [0, 1, 2, 3, 4]),
            (Reducer("tail", 9), [0, 1, 2, 3, 4]),
            (Reducer("spacing", 1), [0, 1, 2, 3, 4]),
            (Reducer("spacing", 2), [0, -1, 1, -1, 2]),
            (Reducer("spacing", 9), [0, -1, -1, -1, -1]),
            (Reducer("relative", 0.39), [0, 0, 0, 0, 0]),
            (Reducer("relative", 0.01), [0, 0, 0, 0, 0]),
            (Reducer("relative", 0.4), [0, 0, 0, 1, 1]),
            (Reducer("fixed", 2), [0, 0, 0, 1, 1]),
            (Reducer("fixed", 5), [0, 1, 2, 3, 4]),
        ],
        ids=repr,
    )
    def test_groups(self, reducer: Reducer, groups: list[int]) -> None:
        tokens = np.array([[0.0], [0.1], [0.2], [9.0], [9.1]], np.float32)
        found = reducer.groups(tokens)
        assert found.tolist() == groups
        assert found.dtype == np.int64

    def test_a_share_that_is_no_binary_fraction(self) -> None:
        tokens = RNG.standard_normal((100, 3)).astype(np.float32)  # 0.29 * 100 is 28.999... in floating point
        assert Reducer("relative", 0.29).groups(tokens).max() == 28

    def test_vectors_are_the_means_of_groups(self) -> None:
        tokens, _ = blobs(3, 4)
        found = Reducer("fixed", 3).reduce(MultiVectors(tokens, np.array([0, 12])))
        np.testing.assert_allclose(found.values, tokens.reshape(4, 3, -1).mean(axis=0), rtol=1e-6)
        assert found.values.dtype == np.float32

    def test_texts_without_tokens_keep_none(self) -> None:
        offsets = np.array([0, 0, 3, 3])
        for reducer in (Reducer("fixed", 2), Reducer("relative", 0.5), Reducer("tail", 1), Reducer("spacing", 2)):
            found = reducer.reduce(MultiVectors(np.eye(3, dtype=np.float32), offsets))
            assert np.diff(found.offsets)[[0, 2]].tolist() == [0, 0]
            assert len(found[1]) >= 1
        assert len(Reducer("fixed", 2).reduce(MultiVectors(np.empty((0, 3), np.float32), np.array([0])))) == 0

    @pytest.mark.parametrize("method", ["fixed", "tail", "spacing"])
    @pytest.mark.parametrize("size", [0, -1, 1.5, np.nan, np.inf])
    def test_sizes_that_are_no_counts(self, method: Any, size: float) -> None:
        with pytest.raises(InvalidInput, match="a whole number of 1 or more"):
            Reducer(method, size)

    @pytest.mark.parametrize("size", [0, -0.5, 1.01, np.nan])
    def test_sizes_that_are_no_shares(self, size: float) -> None:
        with pytest.raises(InvalidInput, match="above 0 and at most 1"):
            Reducer("relative", size)

    @pytest.mark.parametrize("size", [True, "8", None])
    def test_sizes_that_are_no_numbers(self, size: Any) -> None:
        with pytest.raises(InvalidInput, match="a number is needed"):
            Reducer("fixed", size)

    def test_other_refusals(self) -> None:
        name: Any = "first"
        with pytest.raises(InvalidInput, match="give one of fixed, relative, tail, spacing"):
            Reducer(name, 4)
        dense: Any = np.ones((2, 3), np.float32)
        with pytest.raises(InvalidInput, match="ndarray; a reducer needs MultiVectors"):
            Reducer("tail", 4).reduce(dense)

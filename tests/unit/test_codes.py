"""Indexes of compressed vectors: what is learnt when, what is refused, what is stored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragistry.errors import InvalidInput
from ragistry.indexes import coded
from ragistry.indexes.binary import Binary
from ragistry.indexes.coded import Compressed
from ragistry.indexes.quantised import CENTROIDS, Codec, Quantised
from ragistry.indexes.reduced import Axes, Reduced
from ragistry.recipes.compressed import CompressedRecipe
from ragistry.storage import ArrayFiles
from ragistry.types import Floats

RNG = np.random.default_rng(0)
VECTORS = (RNG.standard_normal((700, 4)) @ RNG.standard_normal((4, 16)) + 0.1 * RNG.standard_normal((700, 16))).astype(
    np.float32
)
"""All dimensions of them depend on four, so that a rotation helps."""
IDS = [str(number) for number in range(len(VECTORS))]
QUERIES = VECTORS[:5] + np.float32(0.01)
CODEC = Codec.train(VECTORS, 2)


def filled(index: Compressed, count: int = len(VECTORS), batch: int = 100) -> Compressed:
    for first in range(0, count, batch):
        some = slice(first, min(first + batch, count))
        index.add(IDS[some], VECTORS[some])
    return index


def loss(codec: Codec) -> float:
    return float(np.square(VECTORS - codec.decode(codec.encode(VECTORS))).sum())


@pytest.mark.parametrize("make", [lambda: Quantised(2, enough=300), lambda: Reduced(4, enough=300)], ids=["pq", "pca"])
def test_vectors_are_coded_once_there_are_enough_and_never_again(make: Callable[[], Compressed]) -> None:
    index = filled(make(), 299)
    np.testing.assert_array_equal(index.vectors(IDS[:299]), VECTORS[:299])
    before = index.fork()
    index.add(IDS[299:300], VECTORS[299:300])
    codes = index.codes(IDS[:300])
    assert codes.dtype != np.float32
    coder = index._coder
    np.testing.assert_array_equal(before.vectors(IDS[:299]), VECTORS[:299])  # a fork is not coded with its original
    filled(index)
    assert index._coder is coder
    np.testing.assert_array_equal(index.codes(IDS[:300]), codes)
    index.remove(IDS)
    assert len(index) == 0
    index.add(IDS[:300], VECTORS[:300])
    np.testing.assert_array_equal(index.codes(IDS[:300]), codes)


@pytest.mark.parametrize("make", [lambda: Quantised(2, enough=300), lambda: Reduced(4, enough=300)], ids=["pq", "pca"])
def test_a_coder_outlives_its_vectors_and_refuses_others(make: Callable[[], Compressed]) -> None:
    index = filled(make(), 300)
    index.remove(IDS)
    with pytest.raises(InvalidInput, match="8 dimensions were given to"):
        index.add(["a"], np.ones((1, 8), np.float32))
    assert len(index) == 0


def test_an_interrupted_lesson_leaves_the_index_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    index = filled(Quantised(2, enough=300), 200)
    before = index.search(QUERIES, 20)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Codec, "train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            index.add(IDS[200:300], VECTORS[200:300])
    assert len(index) == 200
    assert index.search(QUERIES, 20) == before
    assert filled(index).codes(IDS).dtype == np.uint8


def test_removed_vectors_are_not_learnt_from() -> None:
    index = Quantised(2, enough=300)
    index.add([f"gone {id}" for id in IDS[:200]], 1000 * VECTORS[:200])
    index.remove(f"gone {id}" for id in IDS[:200])
    filled(index, 300, batch=300)
    assert index.codec is not None
    np.testing.assert_array_equal(index.codec.centroids, Codec.train(VECTORS[:300], 2).centroids)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Binary(7, np.linspace(-0.1, 0.1, 16, dtype=np.float32)),
        lambda: Quantised(2, enough=300),
        lambda: Quantised(2, rotate=False, enough=300),
        lambda: Quantised(2),
        lambda: Reduced(4, enough=300),
        lambda: Reduced(),
    ],
    ids=["binary", "opq", "pq", "whole", "pca", "half"],
)
def test_what_was_learnt_is_saved(make: Callable[[], Compressed], tmp_path: Path) -> None:
    index, loaded, other = filled(make()), make(), filled(Reduced(), 20)
    state = index.save(ArrayFiles(tmp_path))
    loaded.load(state, ArrayFiles(tmp_path))
    assert loaded.search(QUERIES, 20) == index.search(QUERIES, 20)
    loaded.add(["new"], QUERIES[:1])
    index.add(["new"], QUERIES[:1])
    np.testing.assert_array_equal(loaded.codes(["new", "3"]), index.codes(["new", "3"]))
    assert loaded.search(QUERIES, 20) == index.search(QUERIES, 20)
    assert len(other) == 20


def test_learning_is_repeatable_and_follows_its_seed() -> None:
    one, same, other = (Codec.train(VECTORS, 2, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.centroids, same.centroids)
    assert not np.array_equal(one.centroids, other.centroids)


def test_a_rotation_is_orthogonal_and_loses_less() -> None:
    assert CODEC.rotation is not None
    np.testing.assert_allclose(CODEC.rotation @ CODEC.rotation.T, np.eye(16), atol=1e-5)
    assert (CODEC.parts, CODEC.dimension) == (2, 16)
    assert loss(CODEC) < 0.8 * loss(Codec.train(VECTORS, 2, rotate=False))


def test_parts_share_what_varies() -> None:
    spread = VECTORS * np.geomspace(8, 1, 16, dtype=np.float32)
    rotation = Codec.train(RNG.standard_normal(spread.shape).astype(np.float32) * spread.std(axis=0), 4).rotation
    assert rotation is not None
    axes = np.abs(rotation).argmax(axis=1).reshape(4, 4)
    greatest = set(np.argsort(-spread.std(axis=0))[:4].tolist())
    assert all(len(greatest & set(part)) == 1 for part in axes.tolist())


def test_more_vectors_than_needed_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragistry.indexes.quantised.SAMPLE", 300)
    drawn = np.sort(np.random.default_rng(5).choice(len(VECTORS), 300, replace=False))
    sampled = Codec.train(VECTORS, 2, seed=5)
    np.testing.assert_array_equal(sampled.centroids, Codec.train(VECTORS[drawn], 2, seed=5).centroids)


def test_few_different_values_are_their_own_centroids() -> None:
    vectors = np.repeat(VECTORS[:10], 60, axis=0)  # more rows than centroids
    codec = Codec.train(vectors, 2, rotate=False)
    assert codec.centroids.shape == (2, CENTROIDS, 8)
    np.testing.assert_array_equal(codec.decode(codec.encode(vectors)), vectors)


def test_principal_axes_keep_what_varies() -> None:
    axes = Axes.principal(VECTORS, 4)
    rest = VECTORS - axes.decode(axes.encode(VECTORS))
    assert float(np.square(rest).sum()) < 0.05 * float(np.square(VECTORS).sum())


@pytest.mark.parametrize(("dimension", "parts"), [(3, 1), (8, 1), (16, 2), (100, 10), (384, 48)])
def test_default_parts_are_an_eighth_of_the_dimension_or_a_divisor_below(dimension: int, parts: int) -> None:
    index = Quantised(enough=4)
    index.add(IDS[:4], RNG.standard_normal((4, dimension), np.float32))
    assert index.codes(IDS[:4]).shape == (4, parts)


def test_other_centroids_read_the_same_codes() -> None:
    index = Quantised(codec=CODEC)
    filled(index)
    twin = index.with_codec(Codec(CODEC.rotation, CODEC.centroids * 2))
    np.testing.assert_array_equal(twin.codes(IDS), index.codes(IDS))
    found, doubled = index.search(QUERIES, 20), twin.search(QUERIES, 20)
    assert [ranking.ids for ranking in doubled] == [ranking.ids for ranking in found]
    for one, other in zip(found, doubled, strict=True):
        np.testing.assert_allclose(other.scores, 2 * one.scores, rtol=1e-6)
    assert index.codec is CODEC
    with pytest.raises(InvalidInput, match="so must it have"):
        index.with_codec(Codec.train(VECTORS, 4))


def test_a_codec_codes_vectors_that_are_whole() -> None:
    whole = Quantised()
    filled(whole)
    coded_later, coded_first = whole.with_codec(CODEC), Quantised(codec=CODEC)
    filled(coded_first)
    assert whole.codec is None
    assert coded_later.search(QUERIES, 20) == coded_first.search(QUERIES, 20)


def test_compiled_sums_are_those_of_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.flatnonzero(RNG.random(700) < 0.6)
    codes, table = RNG.integers(0, 256, (700, 5), np.uint8), RNG.standard_normal((5, 256), np.float32)
    found = []
    for compiled in (False, True):
        monkeypatch.setattr(coded, "worth_loading", lambda steps, compiled=compiled: compiled)
        found.append(coded.looked_up(table, codes, rows))
    np.testing.assert_array_equal(*found)
    np.testing.assert_allclose(found[0], table[np.arange(5), codes[rows]].sum(axis=1), rtol=1e-4, atol=1e-5)


def test_products_have_the_same_bits_in_any_company(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = coded.products(QUERIES[0], VECTORS, np.arange(700))
    monkeypatch.setattr(coded, "_TOGETHER", 7)
    alone = [coded.products(QUERIES[0], VECTORS, np.array([row]))[0] for row in range(700)]
    np.testing.assert_array_equal(everything, alone)
    np.testing.assert_array_equal(everything, coded.products(QUERIES[0], VECTORS, np.arange(700)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Binary(0), "depth=0"),
        (lambda: Binary(threshold=np.nan), "above -1"),
        (lambda: Binary(threshold=-1.0), "above -1"),
        (lambda: Binary(threshold=np.zeros((2, 8), np.float32)), "shape"),
        (lambda: Quantised(0), "parts=0"),
        (lambda: Quantised(4, codec=CODEC), "parts=4; 2"),
        (lambda: Quantised(enough=0), "enough=0"),
        (lambda: Reduced(0), "dimensions=0"),
        (lambda: Codec(None, np.zeros((2, 8, 255), np.float32)), "centroids"),
        (lambda: Codec(np.eye(8, dtype=np.float32), CODEC.centroids), "rotation"),
        (lambda: Codec.train(VECTORS[:0], 2), "at least one"),
        (lambda: Codec.train([[1.0], [2.0, 3.0]], 1), "array of real numbers"),
        (lambda: Codec.train(VECTORS, 3), "give one of 1, 2, 4, 8, 16"),
        (lambda: Binary().add(["a"], np.ones((1, 12), np.float32)), "multiple of 8"),
        (lambda: Binary(threshold=np.zeros(8, np.float32)).add(["a"], VECTORS[:1]), "one threshold"),
        (lambda: Quantised(3).add(["a"], VECTORS[:1]), "into 3 equal parts"),
        (lambda: Quantised(codec=CODEC).add(["a"], np.ones((1, 8), np.float32)), "codes for 16"),
        (lambda: Reduced(17).add(["a"], VECTORS[:1]), "17 are to be kept"),
        (lambda: Reduced().add(["a"], np.full((1, 16), 1e6, np.float32)), "65,504"),
        (lambda: Reduced(4).add(["a"], np.full((1, 16), 6e4, np.float32)), "reaches 240000"),
        (lambda: Codec(None, np.full((2, 256, 8), np.nan, np.float32)), "NaN"),
        (lambda: Compressed(None, 1).add(["a"], VECTORS[:1]), "does not say how codes are learnt"),
    ],
)
def test_what_does_not_fit_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        make()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"codes": "sign", "bytes": 48}, "leave bytes out"),
        ({"codes": "pca"}, "needs bytes"),
        ({"codes": "pca", "bytes": 7}, "needs bytes"),
        ({"index": "Flat"}, "auto"),
        ({"depth": 0}, "greater than 0"),
    ],
)
def test_the_recipe_refuses_what_does_not_fit(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CompressedRecipe(**fields)


@pytest.mark.parametrize(
    ("fields", "width"),
    [
        ({"codes": "opq"}, 2),
        ({"codes": "pq", "bytes": 4}, 4),
        ({"codes": "sign"}, 2),
        ({"codes": "pca", "bytes": 6}, 3),
    ],
    ids=repr,
)
def test_the_recipe_makes_codes_of_so_many_bytes(fields: dict[str, Any], width: int) -> None:
    index: Any = CompressedRecipe(**fields, enough=700, rescore=False).empty()
    assert filled(index).codes(["1"]).shape == (1, width)
    tiered: Any = CompressedRecipe(**fields, enough=700, depth=30, weight=0.5).empty()
    assert (tiered.depth, tiered.weight) == (30, 0.5)
    filled(tiered)
    assert tiered.coarse.codes(["1"]).shape == (1, width)
    np.testing.assert_array_equal(tiered.vectors(["1"]), VECTORS[1:2])


def test_a_rotation_of_vectors_without_variance_is_one_all_the_same() -> None:
    flat: Floats = np.concatenate([VECTORS[:, :8], np.zeros((700, 8), np.float32)], axis=1)
    codec = Codec.train(flat, 2)
    assert codec.rotation is not None
    np.testing.assert_allclose(codec.rotation @ codec.rotation.T, np.eye(16), atol=1e-5)

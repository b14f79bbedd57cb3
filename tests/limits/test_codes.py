"""Compressed vectors in settings in which they equal something simpler, exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ragistry.indexes.binary import Binary, hamming
from ragistry.indexes.coded import Compressed
from ragistry.indexes.faiss import Faiss
from ragistry.indexes.quantised import Codec, Quantised
from ragistry.indexes.reduced import Axes, Reduced
from ragistry.indexes.tiered import Tiered
from ragistry.storage import ArrayFiles
from ragistry.types import Floats, Ranking

COUNT, DIMENSION = 600, 64
CORNERS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float32) * 2 - 1


def normal(count: int, dimension: int = DIMENSION, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal((count, dimension), np.float32)


def ids(count: int = COUNT) -> list[str]:
    return [str(number) for number in range(count)]


def signs(vectors: Floats) -> Floats:
    return np.where(vectors >= 0, 1, -1).astype(np.float32)


@pytest.mark.parametrize(
    ("index", "times"),
    [(Binary(), 32), (Quantised(enough=COUNT), 32), (Quantised(4, enough=COUNT), 64), (Reduced(), 2)],
    ids=["Binary", "Quantised", "Quantised(4)", "Reduced"],
)
def test_codes_are_so_many_times_smaller_exactly(index: Compressed, times: int, tmp_path: Path) -> None:
    index = index.fork()
    vectors = normal(COUNT)
    index.add(ids(), vectors)
    files = ArrayFiles(tmp_path)
    [segment] = index.save(files)["segments"]
    assert list(segment["content"]) == ["codes"]
    codes = files.get(segment["content"]["codes"])
    assert codes.nbytes * times == vectors.nbytes


def test_products_of_signs_count_differing_bits() -> None:
    vectors, query = normal(COUNT), normal(1, seed=1)
    coded = Binary()
    coded.add(ids(), np.concatenate([-query, query, vectors[2:]]))
    codes = coded.codes(ids())
    bits = np.packbits(query[0] >= 0)
    distances = hamming(bits, codes, np.arange(COUNT))
    assert distances[:2].tolist() == [DIMENSION, 0]  # a product of -64, which unsigned numbers would not hold
    np.testing.assert_array_equal(DIMENSION - 2 * distances, signs(query)[0] @ coded.vectors(ids()).T)


@pytest.mark.parametrize("depth", [COUNT, COUNT + 1])
def test_all_as_candidates_is_the_exhaustive_scan(depth: int) -> None:
    vectors, queries = np.round(2 * normal(COUNT)), np.round(8 * normal(5, seed=1))  # whole numbers add up exactly
    index = Binary(depth)
    index.add(ids(), vectors)
    expected = [Ranking.of(ids(), signs(vectors) @ query, 20) for query in queries]
    assert index.search(queries, 20) == expected
    fewer = Binary(20)
    fewer.add(ids(), vectors)
    assert fewer.search(queries, 20) != expected  # so that depth matters here
    assert fewer.search(queries, COUNT) == index.search(queries, COUNT)  # never fewer candidates than k


def test_a_byte_of_signs_is_a_part_whose_centroids_are_corners() -> None:
    vectors, queries = normal(COUNT), normal(5, seed=1)
    codec = Codec(None, np.tile(CORNERS, (DIMENSION // 8, 1, 1)))
    quantised, binary = Quantised(codec=codec), Binary(COUNT)
    for index in (quantised, binary):
        index.add(ids(), vectors)
    np.testing.assert_array_equal(quantised.codes(ids()), binary.codes(ids()))
    assert [r.ids for r in quantised.search(queries, COUNT)] == [r.ids for r in binary.search(queries, COUNT)]


@pytest.mark.parametrize("rotate", [False, True])
def test_no_more_vectors_than_centroids_lose_nothing(rotate: bool) -> None:
    vectors = np.tile(normal(256), (2, 1))
    codec = Codec.train(vectors, 4, rotate=rotate)
    if rotate:
        np.testing.assert_allclose(codec.decode(codec.encode(vectors)), vectors, atol=1e-5)
    else:
        np.testing.assert_array_equal(codec.decode(codec.encode(vectors)), vectors)


@pytest.mark.parametrize("rotate", [False, True])
def test_looked_up_scores_are_products_with_decoded_vectors(rotate: bool) -> None:
    queries = normal(5, seed=1)
    index = Quantised(8, rotate, enough=COUNT)
    index.add(ids(), normal(COUNT))
    decoded = index.vectors(ids())
    assert not np.allclose(decoded, normal(COUNT), atol=0.1)
    for query, ranking in zip(queries, index.search(queries, COUNT), strict=True):
        found = dict(ranking)
        np.testing.assert_allclose([found[id] for id in ids()], decoded @ query, atol=1e-5 * np.linalg.norm(query) * 8)


def test_fewer_than_enough_rank_as_exact_vectors_do() -> None:
    vectors, queries = np.round(4 * normal(COUNT)), np.round(4 * normal(5, seed=1))
    exact = Faiss("Flat")
    exact.add(ids(), vectors)
    for index in (Quantised(), Reduced(3)):
        index.add(ids(), vectors)
        assert index.search(queries, 50) == exact.search(queries, 50)
        np.testing.assert_array_equal(index.vectors(["5", "3"]), vectors[[5, 3]])


def test_the_same_codec_changes_nothing() -> None:
    index = Quantised(8, enough=COUNT)
    index.add(ids(), normal(COUNT))
    assert index.codec is not None
    twin = index.with_codec(Codec(index.codec.rotation, index.codec.centroids.copy()))
    assert twin.search(normal(5, seed=1), COUNT) == index.search(normal(5, seed=1), COUNT)


def test_half_precision_holds_small_whole_numbers_exactly() -> None:
    vectors, queries = np.round(4 * normal(COUNT)), np.round(4 * normal(5, seed=1))
    exact, half = Faiss("Flat"), Reduced()
    for index in (exact, half):
        index.add(ids(), vectors)
    assert half.search(queries, 50) == exact.search(queries, 50)


def test_all_principal_axes_are_another_basis() -> None:
    vectors, queries = normal(COUNT), normal(5, seed=1)
    axes = Axes.principal(vectors, DIMENSION)
    assert axes.axes is not None
    np.testing.assert_allclose(axes.axes @ axes.axes.T, np.eye(DIMENSION), atol=1e-5)
    np.testing.assert_allclose(axes.decode(axes.encode(vectors)), vectors, atol=1e-2)
    scores = [axes.scores(query, axes.encode(vectors), np.arange(COUNT)) for query in queries]
    np.testing.assert_allclose(scores, queries @ vectors.T, atol=0.1)


@pytest.mark.parametrize(
    "coarse", [Binary(1), Quantised(4, enough=COUNT), Reduced(2, enough=COUNT)], ids=["signs", "codes", "axes"]
)
@pytest.mark.parametrize("depth", [COUNT, 10 * COUNT])
def test_everything_on_the_shortlist_is_the_fine_index_alone(coarse: Compressed, depth: int) -> None:
    vectors, queries = normal(COUNT), normal(5, seed=1)
    fine, tiered = Faiss("Flat"), Tiered(coarse.fork(), Faiss("Flat"), depth)
    for index in (fine, tiered):
        index.add(ids(), vectors)
    assert tiered.search(queries, 30) == fine.search(queries, 30)
    allowed = ids()[::7]
    assert tiered.search(queries, 30, among=allowed) == fine.search(queries, 30, among=allowed)

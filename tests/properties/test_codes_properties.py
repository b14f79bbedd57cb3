"""Properties of compressed vectors: division, history and filters are invisible, more candidates find no less."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ragistry.indexes.binary import Binary, hamming
from ragistry.indexes.coded import Compressed
from ragistry.indexes.quantised import Codec, Quantised
from ragistry.indexes.reduced import Reduced
from ragistry.storage import ArrayFiles
from ragistry.types import Floats, Ranking

unhurried = settings(deadline=None, max_examples=40)  # other work may hold the machine up
DIMENSION = 16
CODEC = Codec.train(np.random.default_rng(0).standard_normal((400, DIMENSION), np.float32), 4)
MAKERS: dict[str, Callable[[], Compressed]] = {
    "signs": lambda: Binary(5),
    "many signs": lambda: Binary(1000, np.linspace(-0.5, 1, DIMENSION, dtype=np.float32)),
    "codes": lambda: Quantised(codec=CODEC),
    "whole": lambda: Quantised(),
    "half": lambda: Reduced(),
}
Case = tuple[Callable[[], Compressed], list[str], Floats, Floats]


@st.composite
def cases(draw: st.DrawFn, makers: Sequence[str] = tuple(MAKERS)) -> Case:
    """A maker, ids, vectors and queries: on a coarse grid, where ties abound, or anywhere, some rows copied."""
    rows = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    if draw(st.booleans()):
        vectors, queries = (rng.integers(-2, 3, (n, DIMENSION)) for n in (rows, 4))
    else:
        vectors, queries = (rng.standard_normal((n, DIMENSION)) for n in (rows, 4))
    vectors = vectors[rng.integers(0, rows, rows)]
    ids = draw(st.lists(st.text("abé🙂Z1", min_size=1, max_size=3), min_size=rows, max_size=rows, unique=True))
    return MAKERS[draw(st.sampled_from(makers))], ids, vectors.astype(np.float32), queries.astype(np.float32)


K = st.integers(1, 45)
CUTS = st.lists(st.integers(0, 40), max_size=5)
CHOICES = st.sets(st.integers(0, 39))


def filled(make: Callable[[], Compressed], ids: list[str], vectors: Floats, cuts: Sequence[int] = ()) -> Compressed:
    index = make()
    bounds = [0, *sorted(min(cut, len(ids)) for cut in cuts), len(ids)]
    for first, last in itertools.pairwise(bounds):
        index.add(ids[first:last], vectors[first:last])
    return index


@unhurried
@given(cases(), K, CUTS, st.randoms(use_true_random=False))
def test_batches_and_order_are_invisible(case: Case, k: int, cuts: list[int], random: Random) -> None:
    make, ids, vectors, queries = case
    order = list(range(len(ids)))
    random.shuffle(order)
    parts = filled(make, [ids[i] for i in order], vectors[order], cuts)
    wanted = filled(make, ids, vectors).search(queries, k)
    assert parts.search(queries, k) == wanted
    assert [parts.search(query[None], k)[0] for query in queries] == wanted


@unhurried
@given(cases(), K, CUTS, CHOICES)
def test_removing_is_absence(case: Case, k: int, cuts: list[int], chosen: set[int]) -> None:
    make, ids, vectors, queries = case
    index = filled(make, ids, vectors, cuts)
    index.remove([ids[i] for i in chosen if i < len(ids)])
    kept = [i for i in range(len(ids)) if i not in chosen]
    expected = filled(make, [ids[i] for i in kept], vectors[kept]).search(queries, k)
    assert index.search(queries, k) == expected
    assert filled(make, ids, vectors).search(queries, k, among=[ids[i] for i in kept]) == expected


@unhurried
@given(cases(), K, CUTS)
def test_scores_are_products_with_what_vectors_gives(case: Case, k: int, cuts: list[int]) -> None:
    make, ids, vectors, queries = case
    index = filled(make, ids, vectors, cuts)
    decoded = dict(zip(ids, index.vectors(ids), strict=True))
    for query, ranking in zip(queries, index.search(queries, k), strict=True):
        assert len(ranking) == min(k, len(ids))
        expected = [float(decoded[id] @ query) for id in ranking.ids]
        np.testing.assert_allclose(ranking.scores, expected, rtol=1e-4, atol=1e-4)


@unhurried
@given(cases(["signs", "many signs", "codes", "half"]))
def test_what_codes_stand_for_has_the_same_codes(case: Case) -> None:
    make, ids, vectors, _ = case
    index = filled(make, ids, vectors)
    again = filled(make, ids, index.vectors(ids))
    np.testing.assert_array_equal(again.vectors(ids), index.vectors(ids))


@unhurried
@given(cases(), K)
def test_saving_keeps_everything(case: Case, k: int) -> None:
    make, ids, vectors, queries = case
    index, loaded = filled(make, ids, vectors), make()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        loaded.load(index.save(ArrayFiles(Path(directory))), ArrayFiles(Path(directory)))
        assert loaded.search(queries, k) == index.search(queries, k)
        np.testing.assert_array_equal(loaded.codes(ids), index.codes(ids))


@unhurried
@given(cases(["signs"]), st.integers(1, 40), st.integers(1, 40), CUTS)
def test_more_candidates_keep_the_fewer(case: Case, one: int, other: int, cuts: list[int]) -> None:
    _, ids, vectors, queries = case
    few, many = sorted((one, other))

    def candidates(depth: int) -> list[Ranking]:
        return filled(lambda: Binary(depth), ids, vectors, cuts).search(queries, depth)

    for fewer, more in zip(candidates(few), candidates(many), strict=True):
        assert set(fewer.ids) <= set(more.ids)


@unhurried
@given(cases(["signs"]), st.integers(1, 40), CUTS)
def test_candidates_are_the_nearest_by_differing_bits(case: Case, depth: int, cuts: list[int]) -> None:
    _, ids, vectors, queries = case
    found = filled(lambda: Binary(depth), ids, vectors, cuts).search(queries, depth)
    for query, ranking in zip(queries, found, strict=True):
        differing = ((vectors >= 0) != (query >= 0)).sum(axis=1)
        nearest = Ranking.of(ids, -differing.astype(np.float32), depth)
        assert set(ranking.ids) == set(nearest.ids)


@unhurried
@given(st.integers(1, 40), st.integers(1, 18), st.integers(0, 2**32))
def test_hamming_counts_bits_of_any_width(count: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    codes, code = rng.integers(0, 256, (count, width), np.uint8), rng.integers(0, 256, width, np.uint8)
    rows = np.flatnonzero(rng.random(count) < rng.choice([0.5, 1.0]))
    expected = [int.from_bytes((codes[row] ^ code).tobytes(), "big").bit_count() for row in rows]
    assert hamming(code, codes, rows).tolist() == expected

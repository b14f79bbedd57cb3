"""Properties of the faiss index: division, history and filters are invisible, ties included."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ragistry.indexes.factory import Metric
from ragistry.indexes.faiss import Faiss
from ragistry.storage import ArrayFiles
from ragistry.types import Floats, Ranking

unhurried = settings(deadline=None)  # other work may hold the machine up
Case = tuple[list[str], Floats, Floats]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Ids, vectors and queries: on a coarse grid, where ties abound, or anywhere, some rows copied."""
    rows, dimensions = draw(st.integers(1, 40)), draw(st.sampled_from([1, 2, 3, 8, 17, 100]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    if draw(st.booleans()):
        vectors, queries = (rng.integers(-2, 3, (n, dimensions)) for n in (rows, 4))
    else:
        scale = draw(st.sampled_from([1e-6, 1.0, 1e6]))
        vectors, queries = (scale * rng.standard_normal((n, dimensions)) for n in (rows, 4))
    vectors = vectors[rng.integers(0, rows, rows)]
    ids = draw(st.lists(st.text("abé🙂Z1", min_size=1, max_size=3), min_size=rows, max_size=rows, unique=True))
    return ids, vectors.astype(np.float32), queries.astype(np.float32)


METRICS: st.SearchStrategy[Metric] = st.sampled_from(["ip", "l2"])
CUTS = st.lists(st.integers(0, 40), max_size=5)
CHOICES = st.sets(st.integers(0, 39))
K = st.integers(1, 45)


def flat(ids: list[str], vectors: Floats, metric: Metric, cuts: Sequence[int] = ()) -> Faiss:
    index = Faiss(metric=metric)
    bounds = [0, *sorted(min(cut, len(ids)) for cut in cuts), len(ids)]
    for first, last in itertools.pairwise(bounds):
        index.add(ids[first:last], vectors[first:last])
    return index


@unhurried
@given(cases(), METRICS, K)
def test_the_ranking_is_that_of_the_definition(case: Case, metric: Metric, k: int) -> None:
    ids, vectors, queries = case
    found = flat(ids, vectors, metric).search(queries, k)
    wide = vectors.astype(np.float64)
    for query, ranking in zip(queries.astype(np.float64), found, strict=True):
        scores = wide @ query if metric == "ip" else -np.square(wide - query).sum(axis=1)
        known = dict(zip(ids, scores.tolist(), strict=True))
        assert len(ranking) == min(k, len(ids))
        size = float(np.abs(scores).max()) + float(np.abs(wide).max() * np.abs(query).max()) + 1e-30
        np.testing.assert_allclose(ranking.scores, [known[i] for i in ranking.ids], rtol=1e-6, atol=1e-12 * size)
        if (vectors == np.round(vectors)).all():
            assert ranking == Ranking.of(ids, scores.astype(np.float32), k)


@unhurried
@given(cases(), METRICS, K, CUTS, st.randoms(use_true_random=False))
def test_batches_and_order_are_invisible(case: Case, metric: Metric, k: int, cuts: list[int], random: Random) -> None:
    ids, vectors, queries = case
    whole = flat(ids, vectors, metric)
    order = list(range(len(ids)))
    random.shuffle(order)
    parts = flat([ids[i] for i in order], vectors[order], metric, cuts)
    wanted = whole.search(queries, k)
    assert parts.search(queries, k) == wanted
    assert [parts.search(query[None], k)[0] for query in queries] == wanted


@unhurried
@given(cases(), METRICS, K, CUTS, CHOICES)
def test_removal_equals_absence_and_adding_again_restores(
    case: Case, metric: Metric, k: int, cuts: list[int], chosen: set[int]
) -> None:
    ids, vectors, queries = case
    index = flat(ids, vectors, metric, cuts)
    before, twin = index.search(queries, k), index.fork()
    gone = [i for i in range(len(ids)) if i in chosen]
    kept = [i for i in range(len(ids)) if i not in chosen]
    index.remove([ids[i] for i in gone])
    absent = flat([ids[i] for i in kept], vectors[kept], metric)
    assert index.search(queries, k) == absent.search(queries, k)
    assert len(index) == len(kept)
    index.add([ids[i] for i in gone], vectors[gone])
    assert index.search(queries, k) == before
    np.testing.assert_array_equal(index.vectors(ids), vectors)
    index.add(ids, np.zeros_like(vectors))
    assert twin.search(queries, k) == before


@unhurried
@given(cases(), METRICS, st.integers(1, 20), st.integers(0, 20), CUTS)
def test_a_longer_ranking_begins_with_the_shorter(
    case: Case, metric: Metric, k: int, more: int, cuts: list[int]
) -> None:
    ids, vectors, queries = case
    index = flat(ids, vectors, metric, cuts)
    for short, long in zip(index.search(queries, k), index.search(queries, k + more), strict=True):
        assert long.head(k) == short


@unhurried
@given(cases(), METRICS, K, CUTS, CHOICES)
def test_among_filters_the_exhaustive_ranking(
    case: Case, metric: Metric, k: int, cuts: list[int], chosen: set[int]
) -> None:
    ids, vectors, queries = case
    index = flat(ids, vectors, metric, cuts)
    allowed = {ids[i] for i in chosen if i < len(ids)}
    everything = index.search(queries, len(ids))
    for ranking, full in zip(index.search(queries, k, among=allowed), everything, strict=True):
        kept = [(i, score) for i, score in full if i in allowed][:k]
        assert list(ranking) == kept


@settings(unhurried, max_examples=30)
@given(cases(), METRICS, K, CUTS, CHOICES)
def test_saving_and_loading(case: Case, metric: Metric, k: int, cuts: list[int], chosen: set[int]) -> None:
    ids, vectors, queries = case
    index = flat(ids, vectors, metric, cuts)
    index.remove([ids[i] for i in chosen if i < len(ids)])
    with tempfile.TemporaryDirectory() as folder:
        states = [index.save(ArrayFiles(Path(folder, name))) for name in "ab"]
        written = [{f.name: f.read_bytes() for f in Path(folder, name).glob("*")} for name in "ab"]
        assert states[0] == states[1] and written[0] == written[1]
        twin = Faiss(metric=metric)
        twin.load(states[0], ArrayFiles(Path(folder, "a")))
        assert twin.search(queries, k) == index.search(queries, k)
        assert len(twin) == len(index)


@settings(unhurried, max_examples=20)
@given(
    st.sampled_from(["HNSW8", "IVF16,Flat", "SQ8", "PQ4x4fs", "IVF8,PQ4x4", "PCA4,SQ8"]), METRICS, st.integers(0, 99),
    st.integers(1, 400), st.integers(1, 5000), CUTS,
)  # fmt: skip
def test_no_factory_ever_returns_too_few_or_the_wrong_ids(
    factory: str, metric: Metric, seed: int, k: int, size: int, cuts: list[int]
) -> None:
    rng = np.random.default_rng(seed)
    rows = 5000
    ids, vectors = [f"{i:04}" for i in range(rows)], rng.standard_normal((rows, 8)).astype(np.float32)
    vectors[rows // 2 :] = vectors[0]  # half of them the same, which starves graphs and lists
    index = Faiss(factory, metric=metric)
    bounds = [0, *sorted(100 * cut for cut in cuts), rows]
    for first, last in itertools.pairwise(bounds):
        index.add(ids[first:last], vectors[first:last])
    gone = set(rng.choice(ids, 500, replace=False).tolist())
    index.remove(gone)
    allowed = set(rng.choice(ids, size, replace=False).tolist())
    for query, ranking in zip(vectors[:3], index.search(vectors[:3], k, among=allowed), strict=True):
        assert len(ranking) == min(k, len(allowed - gone))
        assert (allowed - gone).issuperset(ranking.ids)
        exact = flat(list(ranking.ids), index.vectors(ranking.ids), metric).search(query[None], k)[0]
        assert ranking == exact

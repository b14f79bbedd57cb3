"""Properties of the MaxSim index and of the reducers: division, history and filters are invisible, ties included."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ragistry.encoders.reducing import Method, Reducer, assign
from ragistry.indexes.maxsim import MaxSim
from ragistry.indexes.precision import TYPES, Precision
from ragistry.storage import ArrayFiles
from ragistry.testing.checks import take
from ragistry.types import MultiVectors, Ranking

unhurried = settings(deadline=None, max_examples=50)  # other work may hold the machine up
Case = tuple[list[str], MultiVectors, MultiVectors]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Ids, documents and queries, of 0 to 5 tokens: on a coarse grid, where ties abound, or anywhere, some copied."""
    count, width = draw(st.integers(1, 30)), draw(st.sampled_from([1, 2, 3, 8, 17]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    grid, scale = draw(st.booleans()), draw(st.sampled_from([1e-3, 1.0, 1e3]))

    def texts(lengths: list[int]) -> MultiVectors:
        shape = (sum(lengths), width)
        values = rng.integers(-2, 3, shape) if grid else scale * rng.standard_normal(shape)
        return MultiVectors(values.astype(np.float32), np.cumsum([0, *lengths], dtype=np.int64))

    documents = take(texts(rng.integers(0, 6, count).tolist()), rng.integers(0, count, count).tolist())
    ids = draw(st.lists(st.text("abé🙂Z1", min_size=1, max_size=3), min_size=count, max_size=count, unique=True))
    return ids, documents, texts(rng.integers(0, 6, 4).tolist())


CUTS = st.lists(st.integers(0, 30), max_size=5)
CHOICES = st.sets(st.integers(0, 29))
K = st.integers(1, 35)
PRECISIONS: st.SearchStrategy[Precision] = st.sampled_from(sorted(TYPES))
METHODS: st.SearchStrategy[Method] = st.sampled_from(["fixed", "relative", "tail", "spacing"])


def filled(ids: list[str], documents: MultiVectors, precision: Precision = "fp32", cuts: Sequence[int] = ()) -> MaxSim:
    index = MaxSim(precision)
    bounds = [0, *sorted(min(cut, len(ids)) for cut in cuts), len(ids)]
    for first, last in itertools.pairwise(bounds):
        index.add(ids[first:last], take(documents, range(first, last)))
    return index


@unhurried
@given(cases(), K)
def test_the_ranking_is_that_of_the_definition(case: Case, k: int) -> None:
    ids, documents, queries = case
    held = [i for i in range(len(ids)) if len(documents[i])]
    for i, ranking in enumerate(filled(ids, documents).search(queries, k)):
        query = queries[i].astype(np.float64)
        if not len(query):
            assert len(ranking) == 0
            continue
        scores = [float((query @ documents[j].astype(np.float64).T).max(axis=1).sum()) for j in held]
        known = dict(zip([ids[j] for j in held], scores, strict=True))
        assert len(ranking) == min(k, len(held))
        size = float(np.abs(documents.values).max(initial=0) * np.abs(query).sum())
        np.testing.assert_allclose(ranking.scores, [known[i] for i in ranking.ids], rtol=1e-6, atol=1e-12 * size)
        if (queries.values == np.round(queries.values)).all():
            assert ranking == Ranking.of(list(known), np.array(scores, np.float32), k)


@unhurried
@given(cases(), PRECISIONS, K, CUTS, st.randoms(use_true_random=False))
def test_batches_and_order_are_invisible(
    case: Case, precision: Precision, k: int, cuts: list[int], random: Random
) -> None:
    ids, documents, queries = case
    wanted = filled(ids, documents, precision).search(queries, k)
    order = list(range(len(ids)))
    random.shuffle(order)
    parts = filled([ids[i] for i in order], take(documents, order), precision, cuts)
    assert parts.search(queries, k) == wanted
    assert [parts.search(take(queries, [i]), k)[0] for i in range(len(queries))] == wanted


@unhurried
@given(cases(), PRECISIONS, K, CUTS, CHOICES)
def test_removal_equals_absence_and_adding_again_restores(
    case: Case, precision: Precision, k: int, cuts: list[int], chosen: set[int]
) -> None:
    ids, documents, queries = case
    index = filled(ids, documents, precision, cuts)
    before, twin = index.search(queries, k), index.fork()
    gone = [i for i in range(len(ids)) if i in chosen]
    kept = [i for i in range(len(ids)) if i not in chosen]
    index.remove([ids[i] for i in gone])
    absent = filled([ids[i] for i in kept], take(documents, kept), precision)
    assert index.search(queries, k) == absent.search(queries, k)
    assert len(index) == len(kept)
    index.add([ids[i] for i in gone], take(documents, gone))
    assert index.search(queries, k) == before == twin.search(queries, k)
    np.testing.assert_array_equal(index.vectors(ids).offsets, documents.offsets)
    np.testing.assert_array_equal(index.vectors(ids).values, twin.vectors(ids).values)


@unhurried
@given(cases(), st.integers(1, 15), st.integers(0, 15), CUTS)
def test_a_longer_ranking_begins_with_the_shorter(case: Case, k: int, more: int, cuts: list[int]) -> None:
    ids, documents, queries = case
    index = filled(ids, documents, cuts=cuts)
    for short, long in zip(index.search(queries, k), index.search(queries, k + more), strict=True):
        assert long.head(k) == short


@unhurried
@given(cases(), K, CUTS, CHOICES)
def test_among_filters_the_exhaustive_ranking(case: Case, k: int, cuts: list[int], chosen: set[int]) -> None:
    ids, documents, queries = case
    index = filled(ids, documents, cuts=cuts)
    allowed = {ids[i] for i in chosen if i < len(ids)}
    everything = index.search(queries, len(ids))
    for ranking, full in zip(index.search(queries, k, among=allowed), everything, strict=True):
        assert list(ranking) == [(i, score) for i, score in full if i in allowed][:k]


@settings(unhurried, max_examples=20)
@given(cases(), PRECISIONS, K, CUTS, CHOICES)
def test_saving_and_loading(case: Case, precision: Precision, k: int, cuts: list[int], chosen: set[int]) -> None:
    ids, documents, queries = case
    index = filled(ids, documents, precision, cuts)
    index.remove([ids[i] for i in chosen if i < len(ids)])
    with tempfile.TemporaryDirectory() as folder:
        states = [index.save(ArrayFiles(Path(folder, name))) for name in "ab"]
        written = [{f.name: f.read_bytes() for f in Path(folder, name).glob("*")} for name in "ab"]
        assert states[0] == states[1] and written[0] == written[1]
        twin = MaxSim(precision)
        twin.load(states[0], ArrayFiles(Path(folder, "a")))
        assert twin.search(queries, k) == index.search(queries, k)
        assert len(twin) == len(index)


@unhurried
@given(cases(), st.integers(1, 7), st.integers(0, 3))
def test_clusters_are_numbered_as_they_come_and_none_is_empty(case: Case, clusters: int, seed: int) -> None:
    documents = case[1]
    for i in range(len(documents)):
        found = assign(documents[i], clusters, seed)
        _, firsts = np.unique(found, return_index=True)
        assert set(found.tolist()) == set(range(min(len(documents[i]), clusters)))
        assert (np.diff(firsts) > 0).all()
        np.testing.assert_array_equal(found, assign(documents[i].copy(), clusters, seed))


@unhurried
@given(cases(), METHODS, st.integers(1, 7))
def test_every_text_is_reduced_by_itself(case: Case, method: Method, size: int) -> None:
    documents = case[1]
    reducer = Reducer(method, size / 7 if method == "relative" else size)
    whole = reducer.reduce(documents)
    for i in range(len(documents)):
        np.testing.assert_array_equal(whole[i], reducer.reduce(take(documents, [i])).values)
        assert min(1, len(documents[i])) <= len(whole[i]) <= len(documents[i])

"""Late interaction, and fewer vectors for it, in settings where they must equal something simpler."""

from __future__ import annotations

import numpy as np
import pytest

from ragistry.encoders.reducing import Reducer
from ragistry.indexes import centroids
from ragistry.indexes.faiss import Faiss
from ragistry.indexes.maxsim import MaxSim
from ragistry.types import Floats, MultiVectors, Ranking

IDS = [f"d{i:02}" for i in range(50)]


def several(count: int, seed: int, most: int = 9, width: int = 16) -> MultiVectors:
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(1, most + 1, count))]).astype(np.int64)
    return MultiVectors(rng.standard_normal((int(offsets[-1]), width), np.float32), offsets)


def searched(documents: MultiVectors, queries: MultiVectors, k: int = len(IDS)) -> list[Ranking]:
    index = MaxSim("fp32")
    index.add(IDS, documents)
    return index.search(queries, k)


def twice(vectors: MultiVectors) -> MultiVectors:
    parts = [np.concatenate([vectors[i], vectors[i]]) for i in range(len(vectors))]
    return MultiVectors(np.concatenate(parts), 2 * vectors.offsets)


def means(vectors: MultiVectors) -> Floats:
    return np.stack([vectors[i].astype(np.float64).mean(axis=0) for i in range(len(vectors))]).astype(np.float32)


DOCUMENTS, QUERIES = several(50, 0), several(5, 1)


@pytest.mark.parametrize(
    "reducer", [Reducer("fixed", 9), Reducer("relative", 1), Reducer("tail", 9), Reducer("spacing", 1)]
)
def test_as_many_clusters_as_tokens_are_the_tokens(reducer: Reducer) -> None:
    reduced = reducer.reduce(DOCUMENTS)
    np.testing.assert_array_equal(reduced.values, DOCUMENTS.values)
    np.testing.assert_array_equal(reduced.offsets, DOCUMENTS.offsets)
    assert searched(reduced, QUERIES) == searched(DOCUMENTS, QUERIES)


def test_one_cluster_is_mean_pooling() -> None:
    one = Reducer("fixed", 1)
    documents, queries = one.reduce(DOCUMENTS), one.reduce(QUERIES)
    np.testing.assert_allclose(documents.values, means(DOCUMENTS), rtol=1e-6, atol=1e-7)
    dense = Faiss("Flat")
    dense.add(IDS, documents.values)
    assert searched(documents, queries) == dense.search(queries.values, len(IDS))


@pytest.mark.parametrize(
    "reducer", [Reducer("fixed", 3), Reducer("relative", 0.5), Reducer("tail", 2), Reducer("spacing", 2)]
)
def test_fewer_document_vectors_never_score_higher(reducer: Reducer) -> None:
    full = [dict(ranking) for ranking in searched(DOCUMENTS, QUERIES)]
    for ranking, known in zip(searched(reducer.reduce(DOCUMENTS), QUERIES), full, strict=True):
        assert all(score <= known[i] + 1e-6 for i, score in ranking)
        assert dict(ranking) != known


def test_document_tokens_given_twice_change_nothing() -> None:
    assert searched(twice(DOCUMENTS), QUERIES) == searched(DOCUMENTS, QUERIES)


def test_query_tokens_given_twice_double_the_scores() -> None:
    for double, single in zip(searched(DOCUMENTS, twice(QUERIES)), searched(DOCUMENTS, QUERIES), strict=True):
        assert double.ids == single.ids
        np.testing.assert_array_equal(double.scores, 2 * single.scores)


def test_short_documents_are_not_padded() -> None:
    index = MaxSim()
    tokens = -np.ones((4, 2), np.float32)
    index.add(["long", "short"], MultiVectors(tokens, np.array([0, 3, 4])))
    found = index.search(MultiVectors(-tokens[:2], np.array([0, 2])), 2)[0]
    assert list(found) == [("long", -4.0), ("short", -4.0)]


def test_all_documents_as_candidates_are_the_exhaustive_ranking(monkeypatch: pytest.MonkeyPatch) -> None:
    documents, queries = several(1200, 2, most=3), several(10, 3)
    ids = [f"d{i:04}" for i in range(1200)]
    monkeypatch.setattr(centroids, "_WHOLE", 1000)
    monkeypatch.setattr(centroids, "_PROBES", 10**6)
    monkeypatch.setattr(centroids, "_SHARE", 1)
    whole, by_candidates = MaxSim("fp32", depth=None), MaxSim("fp32", depth=1199)
    for index in (whole, by_candidates):
        index.add(ids, documents)
    assert by_candidates.search(queries, 10) == whole.search(queries, 10)
    assert by_candidates.recall == 1.0
    assert whole.recall is None

"""The faiss index: every factory keeps the contract, and what cannot be used is refused with advice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from ragistry.errors import InvalidInput, UnknownName
from ragistry.indexes.factory import Built, Factory, Metric
from ragistry.indexes.faiss import Faiss
from ragistry.protocols import Index
from ragistry.storage import ArrayFiles
from ragistry.types import Floats, MultiVectors, Ranking

COARSE = {"PQ8x6": 0.8, "IVF16,PQ16x4fs": 0.8, "OPQ8_16,PQ8x4": 0.7, "PCA12,SQ8": 0.8}
FINE = ["Flat", "HNSW32", "HNSW16,SQ8", "IVF16,Flat", "SQ8", "PQ8", "PQ16x4fs", "IVF16,PQ8", "PCA14,HNSW16"]
SLOW = [pytest.param("OPQ8_16,PQ8", marks=pytest.mark.slow)]  # a rotation for 256 codes takes many rounds of k-means
DIMENSIONS = 16


def clustered(rows: int, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((60, DIMENSIONS))
    vectors = centres[rng.integers(0, len(centres), rows)] + 0.4 * rng.standard_normal((rows, DIMENSIONS))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def named(rows: int) -> list[str]:
    return [f"d{i:05}" for i in range(rows)]


ROWS = 5_200
IDS, VECTORS, QUERIES = named(ROWS), clustered(ROWS, 0), clustered(25, 1)


def filled(factory: str, rows: int = ROWS, *, probes: int | None = None, ef: int | None = None, seed: int = 0) -> Faiss:
    index = Faiss(factory, probes=probes, ef=ef, seed=seed)
    index.add(named(rows), clustered(rows, 0))
    return index


def recall(found: list[Ranking], wanted: list[Ranking]) -> float:
    shared = [len(set(f.ids) & set(w.ids)) / len(w.ids) for f, w in zip(found, wanted, strict=True)]
    return float(np.mean(shared))


@pytest.fixture(scope="module")
def flat() -> Faiss:
    return filled("Flat")


@dataclass(frozen=True)
class Case:
    index: Faiss
    flat: Faiss
    ids: list[str]
    bound: float


@pytest.fixture(scope="module", params=[*FINE, *COARSE, *SLOW])
def case(request: pytest.FixtureRequest) -> Case:
    factory = request.param
    rows = 10_000 if factory.endswith("PQ8") else ROWS  # what 256 codes need
    index = filled(factory, rows)
    index.search(QUERIES[:1], 1)
    assert (index._segments[0].content.index() is None) == (factory == "Flat")
    return Case(index, filled("Flat", rows), named(rows), COARSE.get(factory, 0.9))


def test_is_an_index(flat: Faiss) -> None:
    assert isinstance(flat, Index)
    assert flat.kind == "dense"


class TestEveryFactory:
    def test_finds_most_neighbours_with_their_exact_scores(self, case: Case) -> None:
        found = case.index.search(QUERIES, 10)
        assert recall(found, case.flat.search(QUERIES, 10)) >= case.bound
        for query, ranking in zip(QUERIES, found, strict=True):
            assert len(ranking) == 10
            exact = case.index.vectors(ranking.ids).astype(np.float64) @ query.astype(np.float64)
            np.testing.assert_array_equal(ranking.scores, exact.astype(np.float32))

    def test_half_of_the_ids(self, case: Case) -> None:
        half = set(case.ids[::2])
        found = case.index.search(QUERIES, 10, among=half)
        assert all(len(ranking) == 10 and half.issuperset(ranking.ids) for ranking in found)
        assert recall(found, case.flat.search(QUERIES, 10, among=half)) >= case.bound

    def test_few_ids_are_ranked_exactly(self, case: Case) -> None:
        few = case.ids[5:1900:3]
        assert case.index.search(QUERIES, 10, among=few) == case.flat.search(QUERIES, 10, among=few)

    def test_allowed_ids_far_from_the_query_are_still_returned(self, case: Case) -> None:
        far = {case.ids[i] for i in np.argsort(clustered(len(case.ids), 0) @ QUERIES[0])[:2600].tolist()}
        ranking = case.index.search(QUERIES[:1], 300, among=far)[0]
        assert len(ranking) == 300
        assert far.issuperset(ranking.ids)

    def test_as_many_as_asked(self, case: Case) -> None:
        assert [len(ranking) for ranking in case.index.search(QUERIES[:2], 5000)] == [5000, 5000]
        assert set(case.index.search(QUERIES[:1], 20_000)[0].ids) == set(case.ids)

    def test_removed_ids_are_gone_from_a_fork_only(self, case: Case) -> None:
        before, exact, fork = case.index.search(QUERIES, 5), case.flat.fork(), case.index.fork()
        gone = {ranking.ids[0] for ranking in before}
        fork.remove(gone)
        exact.remove(gone)
        found = fork.search(QUERIES, 5)
        assert all(len(ranking) == 5 and gone.isdisjoint(ranking.ids) for ranking in found)
        assert recall(found, exact.search(QUERIES, 5)) >= case.bound
        assert case.index.search(QUERIES, 5) == before
        assert len(case.index) == len(case.ids) == len(fork) + len(gone)

    @pytest.mark.parametrize("gone", [0, 7])
    def test_grows_by_addition_even_after_removal(self, case: Case, gone: int) -> None:
        before, exact, fork = case.index.search(QUERIES, 5), case.flat.fork(), case.index.fork()
        rows = len(case.ids) * 2 // 3
        names, more = [f"n{i}" for i in range(rows)], clustered(rows, 7)
        for target in (fork, exact):
            target.remove(case.ids[:gone])
            target.add(names, more)
        assert len(fork._segments) == 1
        assert recall(fork.search(QUERIES, 10), exact.search(QUERIES, 10)) >= case.bound - 0.05
        assert (
            np.mean([r.ids[0] == n for r, n in zip(fork.search(more[:50], 1), names, strict=False)])
            >= case.bound - 0.05
        )
        assert case.index.search(QUERIES, 5) == before

    def test_saved_and_loaded(self, case: Case, tmp_path: Path) -> None:
        index = case.index.fork()
        index.remove(case.ids[:7])
        state = index.save(ArrayFiles(tmp_path / "first"))
        assert index.save(ArrayFiles(tmp_path / "second")) == state
        twin = index.fork()
        twin.load(state, ArrayFiles(tmp_path / "first"))
        half = case.ids[1::2]
        assert twin.search(QUERIES, 10) == index.search(QUERIES, 10)
        assert twin.search(QUERIES, 10, among=half) == index.search(QUERIES, 10, among=half)
        np.testing.assert_array_equal(twin.vectors(case.ids[7:50]), case.flat.vectors(case.ids[7:50]))
        assert twin.save(ArrayFiles(tmp_path / "third")) == state
        names = sorted(path.name for path in (tmp_path / "first").iterdir())
        assert names == sorted(path.name for path in (tmp_path / "third").iterdir())
        twin.add(["new"], QUERIES[:1])
        assert twin.search(QUERIES[:1], 1)[0].ids == ("new",)


@pytest.mark.parametrize("factory", ["HNSW16", "IVF16,PQ16x4fs", "PCA12,SQ8"])
def test_built_twice_saves_the_same_bytes(factory: str, tmp_path: Path) -> None:
    states = [filled(factory).save(ArrayFiles(tmp_path)) for _ in range(2)]
    assert states[0] == states[1]
    assert states[0]["segments"][0]["content"]["built"]


def test_another_seed_trains_another_index(tmp_path: Path) -> None:
    built = [filled("IVF16,Flat", seed=s).save(ArrayFiles(tmp_path))["segments"][0]["content"]["built"] for s in (0, 1)]
    assert built[0]["index"] != built[1]["index"]


def test_an_index_saved_with_other_settings_is_built_again(flat: Faiss, tmp_path: Path) -> None:
    state = filled("IVF16,Flat").save(ArrayFiles(tmp_path))
    other = Faiss("Flat")
    other.load(state, ArrayFiles(tmp_path))
    assert other.search(QUERIES, 10) == flat.search(QUERIES, 10)
    graph = Faiss("HNSW16")
    graph.load(state, ArrayFiles(tmp_path))
    assert recall(graph.search(QUERIES, 10), flat.search(QUERIES, 10)) >= 0.9


def test_an_index_grows_until_it_has_outgrown_its_training() -> None:
    index, ids, vectors = Faiss("IVF16,Flat"), named(16_800), clustered(16_800, 0)
    trained = []
    for first, last in ((0, 2100), (2100, 4200), (4200, 8400), (8400, 16_800)):
        index.add(ids[first:last], vectors[first:last])
        built = index._segments[0].content.index()
        assert built is not None
        assert built.index.ntotal == len(index) == last
        trained.append(built.trained)
    assert trained == [2100, 2100, 2100, 16_800]


def test_an_index_that_merging_replaces_at_once_is_never_built(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[int] = []
    build = Factory.build

    def counted(self: Factory, vectors: Floats) -> Built:
        built.append(len(vectors))
        return build(self, vectors)

    monkeypatch.setattr(Factory, "build", counted)
    index = Faiss("SQ8")
    for first in range(0, ROWS, 650):
        index.add(IDS[first : first + 650], VECTORS[first : first + 650])
    index.search(QUERIES, 1)
    assert built == [len(index)] == [ROWS]


def test_small_segments_are_never_built(tmp_path: Path) -> None:
    index = Faiss("IVF16,PQ8")
    index.add(IDS[:5000], VECTORS[:5000])
    assert not index.save(ArrayFiles(tmp_path))["segments"][0]["content"]["built"]
    exact = Faiss()
    exact.add(IDS[:5000], VECTORS[:5000])
    assert index.search(QUERIES, 10) == exact.search(QUERIES, 10)


def test_more_probes_find_more_and_all_find_everything(flat: Faiss) -> None:
    exact = flat.search(QUERIES, 10)
    few, some, every = (recall(filled("IVF64,Flat", probes=p).search(QUERIES, 10), exact) for p in (1, 8, 64))
    assert few < some <= every == 1.0


def test_a_wider_view_of_the_graph_finds_more(flat: Faiss) -> None:
    exact = flat.search(QUERIES, 10)
    narrow, wide = (recall(filled("HNSW4", ef=ef).search(QUERIES, 10), exact) for ef in (1, 400))
    assert narrow < wide


def test_building_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    for factory in ("PQ16x4fs", "IVF16,SQ8", "OPQ2,PQ2x4"):
        index = Faiss(factory)
        index.add(IDS[:2001], VECTORS[:2001])
        index.search(QUERIES, 1)
        assert index._segments[0].content.index() is not None
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("factory", ["Flat", "HNSW16", "PQ16x4fs"])
def test_many_threads_search_while_the_index_is_built(factory: str) -> None:
    index, alone = filled(factory), filled(factory)
    wanted = alone.search(QUERIES, 5)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda q: index.search(q[None], 5)[0], np.repeat(QUERIES, 4, axis=0)))
    assert found == [ranking for ranking in wanted for _ in range(4)]


@pytest.mark.parametrize("factory", ["HNSW16", "IVF16,PQ16x4fs", "SQ8"])
def test_squared_distances(factory: str) -> None:
    long = VECTORS * np.linspace(0.5, 3, ROWS, dtype=np.float32)[:, None]
    index, exact = Faiss(factory, metric="l2"), Faiss(metric="l2")
    for target in (index, exact):
        target.add(IDS, long)
    found, wanted = index.search(QUERIES, 10), exact.search(QUERIES, 10)
    assert recall(found, wanted) >= 0.9
    for query, ranking in zip(QUERIES, wanted, strict=True):
        distances = np.square(long.astype(np.float64) - query).sum(axis=1)
        order = np.argsort(distances)[:10]
        assert ranking.ids == tuple(IDS[i] for i in order.tolist())
        np.testing.assert_allclose(ranking.scores, -distances[order], rtol=1e-6)
    assert str(exact.search(long[:1], 1)[0].scores[0]) == "0.0"


@pytest.mark.parametrize("metric", ["ip", "l2"])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e15])
def test_near_ties_that_single_precision_cannot_tell_apart(metric: Metric, scale: float) -> None:
    rng = np.random.default_rng(3)
    base = rng.standard_normal(384)
    vectors = (scale * (base + 3e-6 * rng.standard_normal((500, 384)))).astype(np.float32)
    query = (scale * rng.standard_normal(384)).astype(np.float32)
    ids = [f"{i:03}" for i in range(500)]
    index = Faiss(metric=metric)
    index.add(ids, vectors)
    wide, asked = vectors.astype(np.float64), query.astype(np.float64)
    exact = wide @ asked if metric == "ip" else -np.square(wide - asked).sum(axis=1)
    wanted = Ranking.of(ids, exact.astype(np.float32), 20)
    found = index.search(query[None], 20)[0]
    np.testing.assert_array_equal(found.scores, wanted.scores)
    assert found.ids == wanted.ids


def test_vectors_of_any_real_type_are_kept_as_float32() -> None:
    for dtype in (np.float16, np.float32, np.float64, np.int64, np.uint8, np.bool_):
        index = Faiss()
        given = np.array([[0, 1], [1, 1]], dtype)
        index.add(["a", "b"], given)
        given[:] = 0
        np.testing.assert_array_equal(index.vectors(["b", "a"]), np.array([[1, 1], [0, 1]], np.float32))
        assert index.search([[1.0, 0.0]], 1) == index.search(np.asfortranarray([[1, 0]]), 1) == [Ranking(("b",), [1.0])]


def test_nothing_to_find(flat: Faiss) -> None:
    assert Faiss("HNSW32").search(QUERIES, 5) == [Ranking.of([], [])] * len(QUERIES)
    assert flat.search(QUERIES, 0) == flat.search(QUERIES, 5, among=[]) == [Ranking.of([], [])] * len(QUERIES)
    assert flat.search(QUERIES[:2], 5, among=["unknown"]) == [Ranking.of([], [])] * 2
    assert flat.search(QUERIES[:0], 5) == filled("SQ8").search(QUERIES[:0], 5) == []
    assert flat.vectors([]).shape == (0, DIMENSIONS)


@pytest.mark.parametrize(
    "factory",
    ["", "Nonsense", "flat", "HNSW0", "HNSW1", "IVF0,Flat", "IVF16", "PQ0", "SQ3", "LSH", "HNSW32,PQ8", "IDMap,Flat"],
)
def test_unknown_factories_are_refused_at_once(factory: str) -> None:
    with pytest.raises(InvalidInput, match=r"is not one this index knows; give Flat"):
        Faiss(factory)


def test_settings_that_do_not_belong_together() -> None:
    with pytest.raises(InvalidInput, match=r"probes=4 with 'Flat'.*needs an IVF factory"):
        Faiss("Flat", probes=4)
    with pytest.raises(InvalidInput, match=r"ef=4 with 'IVF4,Flat'.*needs an HNSW factory"):
        Faiss("IVF4,Flat", ef=4)
    with pytest.raises(InvalidInput, match="at least 1"):
        Faiss("IVF4,Flat", probes=0)
    with pytest.raises(InvalidInput, match="give 'ip' or 'l2'"):
        Faiss("Flat", metric="cosine")
    with pytest.raises(InvalidInput, match="PCA takes one number"):
        Faiss("PCA8_4,Flat")


@pytest.mark.parametrize(
    "factory", ["PQ5", "IVF4,PQ6", "OPQ8_32,PQ8", "OPQ5,PQ8", "PCA17,Flat", "PCA12,PQ8", "OPQ8_12,PQ4"]
)
def test_dimensions_that_do_not_suit_the_factory_are_refused_at_the_first_addition(factory: str) -> None:
    index = Faiss(factory)
    with pytest.raises(InvalidInput, match=r"does not suit vectors of 16 dimensions: .* a multiple of"):
        index.add(IDS[:5], VECTORS[:5])
    assert len(index) == 0


def test_what_is_not_an_array_of_vectors() -> None:
    index = Faiss()
    index.add(["a"], VECTORS[:1])
    for bad in (
        VECTORS[0],
        VECTORS[:1].astype(complex),
        [["x"] * DIMENSIONS],
        [[1.0], [1.0, 2.0]],
        None,
        np.empty((1, 0)),
    ):
        with pytest.raises(InvalidInput, match="needs an array of real numbers"):
            index.search(bad, 1)
    with pytest.raises(InvalidInput, match="needs an array of real numbers"):
        index.add(["b"], MultiVectors(VECTORS[:2], np.array([0, 2])))
    for call in (lambda v: index.search(v, 1), lambda v: index.add(["b"], v)):
        with pytest.raises(InvalidInput, match=r"have 3 dimensions, the index holds vectors of 16"):
            call(np.ones((1, 3), np.float32))
        for number in (np.nan, np.inf, -np.inf, 1e30, 1e300):
            with pytest.raises(
                InvalidInput, match=r"row 1 of the (queries|vectors) holds NaN or infinity, or is longer"
            ):
                call(np.array([[0.0] * DIMENSIONS, [number] + [0.0] * (DIMENSIONS - 1)]))
    with pytest.raises(InvalidInput, match="2 ids were given with 1 vectors"):
        index.add(["b", "c"], VECTORS[:1])
    assert len(index) == 1


def test_unknown_ids_have_no_vectors(flat: Faiss) -> None:
    with pytest.raises(UnknownName, match="'nobody'"):
        flat.vectors(["nobody"])


def test_a_score_of_nothing_has_no_sign() -> None:
    for metric in ("ip", "l2"):
        index = Faiss(metric=metric)
        index.add(["a"], np.zeros((1, 1)))
        assert str(index.search([[-1.0 if metric == "ip" else 0.0]], 1)[0].scores.tolist()) == "[0.0]"

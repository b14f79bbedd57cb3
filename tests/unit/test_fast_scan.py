"""The default index: its rankings are those of the exact scan, however they were reached, and what it tells is true."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragistry import Collection, Document, create
from ragistry.encoders.functions import register_encoder
from ragistry.errors import InvalidInput
from ragistry.indexes import block, factory, faiss, fastscan
from ragistry.indexes.block import Block
from ragistry.indexes.faiss import Faiss
from ragistry.indexes.recall import measured
from ragistry.storage import ArrayFiles
from ragistry.testing import IndexContract
from ragistry.types import Floats, Ranking

ROWS, DIMENSIONS = 24_000, 32


def unit(vectors: Floats) -> Floats:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def textlike(rows: int, seed: int) -> Floats:
    """Around many centres, some near each other, in directions that matter ever less."""
    rng, weights = np.random.default_rng(seed), 1 / np.sqrt(1 + np.arange(DIMENSIONS))
    centres = np.random.default_rng(99).standard_normal((400, DIMENSIONS)) * weights
    return unit(centres[rng.integers(0, len(centres), rows)] + 0.7 * rng.standard_normal((rows, DIMENSIONS)) * weights)


def named(rows: int) -> list[str]:
    return [f"d{i:05}" for i in range(rows)]


IDS, VECTORS, QUERIES = named(ROWS), textlike(ROWS, 0), textlike(40, 1)
STRANGE = unit(np.random.default_rng(2).standard_normal((10, DIMENSIONS)))


def filled(name: str, vectors: Floats = VECTORS) -> Faiss:
    index = Faiss(name)
    index.add(named(len(vectors)), vectors)
    return index


def content(index: Faiss) -> Block:
    return index._segments[0].content


def trust(index: Faiss) -> factory.Trust:
    built = content(index).built
    assert built is not None and built.trust is not None
    return built.trust


def recall(found: list[Ranking], wanted: list[Ranking]) -> float:
    return float(np.mean([len(set(f.ids) & set(w.ids)) / len(w.ids) for f, w in zip(found, wanted, strict=True)]))


@pytest.fixture(scope="module")
def auto() -> Faiss:
    index = filled("auto")
    index.search(QUERIES[:1], 1)
    return index


@pytest.fixture(scope="module")
def flat() -> Faiss:
    return filled("Flat")


@pytest.fixture
def no_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever falls back to scanning everything fails."""

    def refuse(self: Block, *arguments: Any) -> Any:
        raise AssertionError("all vectors were scanned")

    monkeypatch.setattr(Block, "exact", refuse)


class TestRankings:
    @pytest.mark.parametrize("k", [1, 10, 100])
    def test_are_those_of_the_exact_scan(self, auto: Faiss, flat: Faiss, k: int) -> None:
        wanted = flat.search(QUERIES, k)
        assert auto.search(QUERIES, k) == wanted
        assert [auto.search(query[None], k)[0] for query in QUERIES] == wanted

    @pytest.mark.usefixtures("no_scan")
    def test_are_reached_without_it(self, auto: Faiss) -> None:
        assert [len(ranking) for ranking in auto.search(QUERIES, 10)] == [10] * len(QUERIES)
        half = frozenset(IDS[::2])
        assert [ranking.ids[0] for ranking in auto.search(VECTORS[:10:2], 1, among=half)] == IDS[:10:2]

    @pytest.mark.parametrize("k", [10, 1000])
    def test_of_strange_queries(self, auto: Faiss, flat: Faiss, k: int) -> None:
        strange = np.concatenate([STRANGE, -VECTORS[:3], 1e-9 * STRANGE[:1], 1e9 * STRANGE[:1], VECTORS[:3]])
        assert auto.search(strange, k) == flat.search(strange, k)

    def test_of_a_query_that_says_nothing(self, auto: Faiss, flat: Faiss) -> None:
        nothing = np.zeros((1, DIMENSIONS), np.float32)
        assert auto.search(nothing, 5) == flat.search(nothing, 5)

    @pytest.mark.parametrize("share", [1 / 2, 1 / 10, 1 / 50])
    def test_with_a_filter(self, auto: Faiss, flat: Faiss, share: float) -> None:
        chosen = np.random.default_rng(5).random(ROWS) < share
        among = frozenset(np.array(IDS)[chosen].tolist())
        found = auto.search(QUERIES, 10, among=among)
        assert found == flat.search(QUERIES, 10, among=among) == auto.search(QUERIES, 10, among=sorted(among))

    def test_with_a_filter_that_leaves_only_what_is_far_away(self, auto: Faiss) -> None:
        far = np.argsort(VECTORS @ QUERIES[0])[: ROWS // 2]
        allowed = frozenset(IDS[i] for i in far.tolist())
        wanted = far[np.argsort(-(VECTORS[far].astype(np.float64) @ QUERIES[0].astype(np.float64)))][:10]
        assert auto.search(QUERIES[:1], 10, among=allowed)[0].ids == tuple(IDS[i] for i in wanted.tolist())

    def test_of_thousands_of_equals_begin_with_the_first_ids(self) -> None:
        vectors = VECTORS.copy()
        vectors[5::5] = vectors[0]
        found, wanted = (filled(name, vectors).search(vectors[:1], 10) for name in ("auto", "Flat"))
        assert found == wanted
        assert found[0].ids == tuple(IDS[i] for i in range(0, 50, 5))

    @pytest.mark.parametrize("spread", [0.0, 1e-6])
    def test_of_vectors_too_near_for_codes(self, spread: float, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fastscan, "_QUERIES", 20)  # each of which is a scan with thousands of ties
        rng = np.random.default_rng(6)
        vectors = (VECTORS[:1] + spread * rng.standard_normal((ROWS, DIMENSIONS))).astype(np.float32)
        auto, flat = filled("auto", vectors), filled("Flat", vectors)
        assert auto.search(QUERIES[:5], 10) == flat.search(QUERIES[:5], 10)

    def test_of_vectors_of_any_length(self) -> None:
        vectors = VECTORS * np.random.default_rng(7).uniform(0, 50, (ROWS, 1)).astype(np.float32)
        vectors[:30] = 0
        assert filled("auto", vectors).search(3 * QUERIES, 10) == filled("Flat", vectors).search(3 * QUERIES, 10)

    @pytest.mark.parametrize("dimensions", [1, 7])
    def test_of_vectors_of_odd_dimensions(self, dimensions: int) -> None:
        vectors, queries = VECTORS[:, :dimensions].copy(), QUERIES[:, :dimensions].copy()
        auto = filled("auto", vectors)
        assert auto.search(queries, 10) == filled("Flat", vectors).search(queries, 10)
        assert content(auto).built is not None

    def test_while_many_threads_ask(self, flat: Faiss) -> None:
        index = filled("auto")
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda query: index.search(query[None], 5)[0], np.repeat(QUERIES, 3, axis=0)))
        assert found == [ranking for ranking in flat.search(QUERIES, 5) for _ in range(3)]


class TestTrust:
    def test_is_measured_and_told(self, auto: Faiss) -> None:
        found = trust(auto)
        assert found.margin is not None and 0 < found.margin < 0.5
        assert fastscan.GOAL <= found.recall <= 1
        assert auto.recall == found.recall
        assert filled("Flat").recall is None

    def test_makes_a_search_look_further(self, monkeypatch: pytest.MonkeyPatch, flat: Faiss) -> None:
        monkeypatch.setattr(fastscan, "_DEPTH", (4, 0))
        wanted, careless = flat.search(QUERIES, 10), filled("auto")
        assert careless.search(QUERIES, 10) == wanted
        built = content(careless).built
        assert built is not None
        built.trust = factory.Trust(-1.0, 1.0)
        assert recall(careless.search(QUERIES, 10), wanted) < 0.95

    def test_is_refused_to_codes_that_miss(self, monkeypatch: pytest.MonkeyPatch, flat: Faiss) -> None:
        def missing(*arguments: Any) -> Any:
            return [(rows + 1, scores - 1) for rows, scores in nearest(*arguments)]

        nearest = fastscan.nearest
        monkeypatch.setattr(fastscan, "nearest", missing)
        index = filled("auto")
        content(index).index()
        monkeypatch.setattr(fastscan, "nearest", nearest)
        assert trust(index) == factory.Trust(None, 1.0)
        assert index.search(QUERIES, 10) == flat.search(QUERIES, 10)

    def test_counts_half_the_queries_only(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The recall is not that of the queries that the margin was chosen by."""
        asked: list[Floats] = []
        nearest = fastscan.nearest

        def noted(block: Block, built: Any, queries: Floats, *rest: Any) -> Any:
            asked.append(queries)
            return nearest(block, built, queries, *rest)

        monkeypatch.setattr(fastscan, "nearest", noted)
        content(filled("auto")).index()
        every = fastscan.perturbed(VECTORS, 400, 0)
        np.testing.assert_array_equal(asked[0], every[200:])
        assert len({row.tobytes() for row in every}) == 400

    def test_queries_are_as_far_from_documents_as_real_ones(self) -> None:
        rows = VECTORS.copy()
        rows[:100] = 0
        queries = fastscan.perturbed(rows, 300, 3)
        np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, rtol=1e-6)
        assert 0.55 < float(np.median((queries @ rows.T).max(axis=1))) < 0.8
        assert not np.array_equal(queries, fastscan.perturbed(rows, 300, 4))
        assert fastscan.perturbed(rows[:5], 300, 3).shape == (300, DIMENSIONS)


class TestBuilding:
    def test_waits_until_there_are_enough_vectors(self, tmp_path: Path) -> None:
        index = filled("auto", VECTORS[: fastscan.WHOLE - 1])
        index.search(QUERIES, 10)
        assert not index.save(ArrayFiles(tmp_path))["segments"][0]["content"]["built"]
        assert index.recall is None
        index.add(["one more"], QUERIES[:1])
        index.save(ArrayFiles(tmp_path))
        assert index.recall is not None

    def test_leaves_small_segments_alone(self) -> None:
        index = filled("auto")
        index.add([f"new {i}" for i in range(factory.CODED - 1)], textlike(factory.CODED - 1, 8))
        exact = filled("Flat")
        exact.add([f"new {i}" for i in range(factory.CODED - 1)], textlike(factory.CODED - 1, 8))
        assert index.search(QUERIES, 10) == exact.search(QUERIES, 10)
        assert [segment.content.built is not None for segment in index._segments] == [True, False]

    def test_adds_to_the_codes_and_measures_again(self, monkeypatch: pytest.MonkeyPatch, auto: Faiss) -> None:
        sizes: list[int] = []
        measure = fastscan.measure

        def noted(block: Block, built: Any) -> factory.Trust:
            sizes.append(len(block.vectors))
            return measure(block, built)

        monkeypatch.setattr(fastscan, "measure", noted)
        grown, exact, more = auto.fork(), filled("Flat"), textlike(ROWS, 9)
        for index in (grown, exact):
            index.remove(IDS[:5])
            index.add([f"new {i}" for i in range(ROWS)], more)
        assert grown.search(QUERIES, 10) == exact.search(QUERIES, 10)
        built = content(grown).built
        assert built is not None
        assert (sizes, built.trained, built.index.ntotal) == ([2 * ROWS - 5], ROWS, 2 * ROWS - 5)
        assert auto.search(QUERIES, 10) == filled("Flat").search(QUERIES, 10)

    def test_keeps_segments_small_enough_for_memory(self, monkeypatch: pytest.MonkeyPatch, flat: Faiss) -> None:
        monkeypatch.setattr(faiss, "_LARGEST", 9_000 * DIMENSIONS)
        index = Faiss("auto")
        for first in range(0, ROWS, 1000):
            index.add(IDS[first : first + 1000], VECTORS[first : first + 1000])
        sizes = [segment.size for segment in index._segments]
        assert max(sizes) <= 9_000 and len(sizes) <= 6
        assert index.search(QUERIES, 10) == flat.search(QUERIES, 10)

    def test_forgets_what_is_removed(self, auto: Faiss, flat: Faiss) -> None:
        gone = {ranking.ids[0] for ranking in auto.search(QUERIES, 1)}
        among = frozenset(IDS[::2])
        before = auto.search(QUERIES, 10, among=among)
        fork, exact = auto.fork(), flat.fork()
        for index in (fork, exact):
            index.remove(gone)
        for allowed in (None, among):
            assert fork.search(QUERIES, 10, among=allowed) == exact.search(QUERIES, 10, among=allowed)
        assert auto.search(QUERIES, 10, among=among) == before

    def test_is_not_repeated_at_opening(self, auto: Faiss, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        state = auto.save(ArrayFiles(tmp_path / "first"))
        assert state["segments"][0]["content"]["built"]["recall"] == measured(state) == auto.recall
        assert (
            auto.save(ArrayFiles(tmp_path / "second")) == state == filled("auto").save(ArrayFiles(tmp_path / "third"))
        )
        monkeypatch.setattr(factory.Factory, "build", None)
        monkeypatch.setattr(fastscan, "measure", None)
        twin = Faiss("auto")
        twin.load(state, ArrayFiles(tmp_path / "first"))
        assert twin.search(QUERIES, 10) == auto.search(QUERIES, 10)
        assert trust(twin) == trust(auto)
        assert not content(twin).vectors.flags.owndata  # still in the file
        assert twin.save(ArrayFiles(tmp_path / "fourth")) == state

    def test_is_repeated_for_another_factory(self, auto: Faiss, flat: Faiss, tmp_path: Path) -> None:
        """The same faiss factory without a margin, or a state without one, is not taken for the other."""
        state = auto.save(ArrayFiles(tmp_path))
        named_so = Faiss(content(auto).factory.name)
        named_so.load(state, ArrayFiles(tmp_path))
        assert content(named_so).built is None
        named_so.search(QUERIES, 1)
        other = named_so.save(ArrayFiles(tmp_path))
        assert measured(other) is None
        twin = Faiss("auto")
        twin.load(other, ArrayFiles(tmp_path))
        assert twin.search(QUERIES, 10) == flat.search(QUERIES, 10)
        assert twin.recall is not None


@pytest.mark.parametrize("settings", [{"metric": "l2"}, {"metric": "cosine"}, {"probes": 4}, {"ef": 4}])
def test_settings_that_auto_does_not_take(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match=r"the factory 'auto' with metric=.* choose another factory"):
        Faiss("auto", **settings)


@pytest.mark.parametrize("metric", ["ip", "l2"])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e15])
def test_few_allowed_that_single_precision_cannot_tell_apart(metric: factory.Metric, scale: float) -> None:
    rng = np.random.default_rng(3)
    base = rng.standard_normal(200)
    vectors = (scale * (base + 3e-6 * rng.standard_normal((2000, 200)))).astype(np.float32)
    query = (scale * rng.standard_normal(200)).astype(np.float32)
    ids, chosen = named(2000), np.arange(0, 2000, 5)
    index = Faiss(metric=metric)
    index.add(ids, vectors)
    wide, asked = vectors[chosen].astype(np.float64), query.astype(np.float64)
    exact = wide @ asked if metric == "ip" else -np.square(wide - asked).sum(axis=1)
    among = frozenset(ids[i] for i in chosen.tolist())
    wanted = Ranking.of(sorted(among), exact.astype(np.float32), 20)
    for _ in range(2):
        assert index.search(query[None], 20, among=among)[0] == wanted


def test_filters_that_come_and_go_are_told_apart() -> None:
    """What a filter allows is remembered by its address, which another may get after it."""
    index = Faiss()
    index.add(IDS[:100], VECTORS[:100])
    for i in range(100):
        among = frozenset(IDS[i : i + 1])
        assert [ranking.ids for ranking in index.search(QUERIES[:1], 3, among=among)] == [(IDS[i],)]
    kept = [frozenset(IDS[i : i + 1]) for i in range(100)]
    for _ in range(2):
        for i, among in enumerate(kept):
            assert index.search(QUERIES[:1], 3, among=among)[0].ids == (IDS[i],)
    assert len(index._segments[0].filters) <= 32


def test_a_set_that_changes_is_read_again() -> None:
    index = Faiss()
    index.add(IDS[:100], VECTORS[:100])
    among = {IDS[3]}
    assert index.search(QUERIES[:1], 3, among=among)[0].ids == (IDS[3],)
    among.add(IDS[4])
    assert set(index.search(QUERIES[:1], 3, among=among)[0].ids) == {IDS[3], IDS[4]}


def test_a_collection_builds_opens_and_tells(tmp_path: Path) -> None:
    def vectors(texts: Sequence[str]) -> Floats:
        return np.stack([VECTORS[int(text)] for text in texts])

    register_encoder("test-fast-scan", vectors)
    recipe = create("dense", model="test-fast-scan")
    with Collection.create(tmp_path / "docs", recipe) as docs:
        assert docs.recipe["index"] == "auto"
        docs.add(Document(str(i), str(i), metadata={"even": i % 2 == 0}) for i in range(100))
        assert docs.info()["recall"] is None
        docs.add((Document(str(i), str(i), metadata={"even": i % 2 == 0}) for i in range(fastscan.WHOLE)), batch=20_000)
        assert docs.info()["recall"] >= fastscan.GOAL
        wanted = docs.search_many(["7", "8"], 5), docs.search("9", 5, where={"even": True})
    with Collection.open(tmp_path / "docs") as docs:
        assert (docs.search_many(["7", "8"], 5), docs.search("9", 5, where={"even": True})) == wanted
        exact = np.argsort(-(VECTORS[: fastscan.WHOLE].astype(np.float64) @ VECTORS[7].astype(np.float64)))[:5]
        assert [hit.id for hit in wanted[0][0]] == [str(i) for i in exact.tolist()]


class TestSmallest(IndexContract):
    """The contract, with everything set so that some tens of vectors are coded, and searched by their codes."""

    @pytest.fixture(autouse=True)
    def few(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Codes from the first vectors on."""
        for module, name, value in (
            (faiss, "SMALL", 0), (fastscan, "WHOLE", 0), (factory, "CODED", 20), (factory, "_POINTS", 1),
            (fastscan, "_DEPTH", (4, 0)), (fastscan, "_SHARE", 1), (block, "_FEW", 0), (fastscan, "_QUERIES", 64),
        ):  # fmt: skip
            monkeypatch.setattr(module, name, value)
        yield

    def make(self) -> Faiss:
        """An empty index."""
        return Faiss("auto")

    def test_codes_are_used(self) -> None:
        """Else this would test nothing."""
        index: Any = self.filled()
        index.search(self.queries(), 3)
        assert content(index).built is not None

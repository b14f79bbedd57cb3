"""The MaxSim index: precisions, candidates, what is measured and stored, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragistry.errors import InvalidInput, UnknownName
from ragistry.indexes import centroids, maxsim, precision, tokens
from ragistry.indexes.maxsim import MaxSim
from ragistry.indexes.precision import TYPES, Precision, decode, encode
from ragistry.storage import ArrayFiles
from ragistry.testing.checks import at_once, take
from ragistry.types import MultiVectors, Ranking

WIDTH, COUNT = 16, 3000
IDS = [f"d{i:04}" for i in range(COUNT)]


def clustered(count: int, seed: int) -> MultiVectors:
    """Texts of 4 to 8 tokens about one of 100 topics."""
    rng = np.random.default_rng(seed)
    topics = np.random.default_rng(99).standard_normal((100, WIDTH))
    lengths = rng.integers(4, 9, count)
    about = np.repeat(rng.integers(0, len(topics), count), lengths)
    values = topics[about] + 0.4 * rng.standard_normal((len(about), WIDTH))
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return MultiVectors(values.astype(np.float32), np.cumsum([0, *lengths], dtype=np.int64))


DOCUMENTS, QUERIES = clustered(COUNT, 0), clustered(20, 1)


def filled(depth: Any = "auto", stored: Precision = "fp16", seed: int = 0) -> MaxSim:
    index = MaxSim(stored, depth=depth, seed=seed)
    index.add(IDS, DOCUMENTS)
    return index


def recall(found: list[Ranking], wanted: list[Ranking]) -> float:
    return float(np.mean([len(set(f.ids) & set(w.ids)) / len(w.ids) for f, w in zip(found, wanted, strict=True)]))


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Centroids are made of 5,000 tokens or more."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(centroids, "_WHOLE", 5000)
        yield


@pytest.fixture(scope="module")
def whole(small: None) -> MaxSim:
    return filled(depth=None)


@pytest.fixture(scope="module")
def auto(small: None) -> MaxSim:
    index = filled()
    index.search(QUERIES, 1)
    return index


class TestCandidates:
    def test_the_depth_is_measured_and_so_is_the_recall(self, auto: MaxSim, whole: MaxSim) -> None:
        made = auto._segments[0].content.centroids
        assert made is not None and made.depth == 256
        assert auto.recall is not None and 0.95 <= auto.recall <= 1
        assert recall(auto.search(QUERIES, 10), whole.search(QUERIES, 10)) >= 0.95
        assert whole.recall is None

    def test_scores_are_exact(self, auto: MaxSim, whole: MaxSim) -> None:
        for found, wanted in zip(auto.search(QUERIES, 10), whole.search(QUERIES, COUNT), strict=True):
            known = dict(wanted)
            assert all(known[i] == score for i, score in found)

    def test_few_candidates_are_really_all_that_is_scored(self, whole: MaxSim, monkeypatch: pytest.MonkeyPatch) -> None:
        index, scored = filled(depth=20), []
        index.search(QUERIES, 1)
        nearest = tokens.Tokens.nearest

        def watched(self: Any, queries: Any, k: int, rows: Any, ranks: Any) -> Any:
            scored.append(len(rows))
            return nearest(self, queries, k, rows, ranks)

        monkeypatch.setattr(tokens.Tokens, "nearest", watched)
        found = index.search(QUERIES, 10)
        assert scored == [20] * len(QUERIES)
        assert 0.3 < recall(found, whole.search(QUERIES, 10)) < 1
        scored.clear()
        index.search(QUERIES, 25)
        assert scored == [50] * len(QUERIES)

    def test_fewer_candidates_have_less_recall(self, auto: MaxSim) -> None:
        index = filled(depth=10)
        index.search(QUERIES, 1)
        assert index.recall is not None and auto.recall is not None
        assert index.recall < auto.recall

    def test_where_a_quarter_is_not_enough_all_are_scored(self, whole: MaxSim, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(centroids, "GOAL", 1.1)
        index = filled()
        assert index.search(QUERIES, 10) == whole.search(QUERIES, 10)
        assert index.recall == 1.0

    def test_many_hits_or_few_allowed_are_exact(self, auto: MaxSim, whole: MaxSim) -> None:
        assert auto.search(QUERIES, 400) == whole.search(QUERIES, 400)
        few = IDS[::3]
        assert auto.search(QUERIES, 10, among=few) == whole.search(QUERIES, 10, among=few)

    def test_filters_come_first(self, auto: MaxSim, whole: MaxSim) -> None:
        half = frozenset(IDS[::2])
        found = auto.search(QUERIES, 10, among=half)
        assert all(half.issuperset(ranking.ids) and len(ranking) == 10 for ranking in found)
        assert recall(found, whole.search(QUERIES, 10, among=half)) >= 0.95

    def test_too_few_candidates_nearby_are_no_fewer_hits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(centroids, "_PROBES", 1)
        index = filled(depth=20)
        found = index.search(take(QUERIES, [0]), 140)
        assert len(found[0]) == 140

    def test_a_document_without_tokens_is_never_found(self, whole: MaxSim) -> None:
        index = filled(depth=20)
        index.add(["empty"], MultiVectors(np.empty((0, WIDTH), np.float32), np.array([0, 0])))
        for k in (10, COUNT + 1):
            assert all("empty" not in ranking.ids for ranking in index.search(QUERIES, k))
        assert len(index.search(QUERIES, COUNT + 1)[0]) == COUNT
        assert index.search(QUERIES, 1, among=["empty"])[0].ids == ()
        assert len(index.vectors(["empty"])[0]) == 0

    def test_removed_documents_are_no_candidates(self, auto: MaxSim, whole: MaxSim) -> None:
        fork, exact = auto.fork(), whole.fork()
        gone = {ranking.ids[0] for ranking in auto.search(QUERIES, 1)}
        for index in (fork, exact):
            index.remove(gone)
        found = fork.search(QUERIES, 10)
        assert all(gone.isdisjoint(ranking.ids) for ranking in found)
        assert recall(found, exact.search(QUERIES, 10)) >= 0.95

    def test_another_seed_makes_other_centroids(self, auto: MaxSim) -> None:
        other = filled(seed=1)
        other.search(QUERIES, 1)
        made = [index._segments[0].content.centroids for index in (auto, other)]
        assert made[0] is not None and made[1] is not None
        assert not np.array_equal(made[0].points, made[1].points)

    def test_threads_make_them_once(self, auto: MaxSim, monkeypatch: pytest.MonkeyPatch) -> None:
        built, build = [], centroids.build

        def counted(*given: Any) -> centroids.Centroids:
            built.append(1)
            return build(*given)

        monkeypatch.setattr(maxsim, "build", counted)
        index = filled()
        answers = at_once([lambda: index.search(QUERIES, 10)] * 4)
        assert built == [1]
        assert all(found == auto.search(QUERIES, 10) for found in answers)


class TestSaving:
    def test_centroids_are_made_before_and_kept(self, auto: MaxSim, tmp_path: Path) -> None:
        states = [filled().save(ArrayFiles(tmp_path / name)) for name in "ab"]
        assert states[0] == states[1]
        twin = MaxSim()
        twin.load(states[0], ArrayFiles(tmp_path / "a"))
        content = twin._segments[0].content
        assert content.centroids is not None and isinstance(content.codes.base, np.memmap)
        assert twin.recall == auto.recall == states[0]["segments"][0]["content"]["centroids"]["recall"]
        assert twin.search(QUERIES, 10) == auto.search(QUERIES, 10)
        assert twin.save(ArrayFiles(tmp_path / "c")) == states[0]

    def test_another_depth_makes_them_anew(self, whole: MaxSim, tmp_path: Path) -> None:
        files = ArrayFiles(tmp_path)
        state = filled().save(files)
        exact, other = MaxSim(depth=None), MaxSim(depth=10)
        for index in (exact, other):
            index.load(state, files)
        assert exact.search(QUERIES, 10) == whole.search(QUERIES, 10)
        other.search(QUERIES, 1)
        assert other._segments[0].content.centroids is not None
        assert other._segments[0].content.centroids.depth == 10

    def test_another_precision_is_for_what_is_added(self, tmp_path: Path) -> None:
        files, old = ArrayFiles(tmp_path), MaxSim("int8")
        old.add(IDS[:5], take(DOCUMENTS, range(5)))
        index = MaxSim("fp32")
        index.load(old.save(files), files)
        index.add(IDS[5:10], take(DOCUMENTS, range(5, 10)))
        np.testing.assert_array_equal(index.vectors(IDS[:5]).values, old.vectors(IDS[:5]).values)
        np.testing.assert_array_equal(index.vectors(IDS[5:10]).values, take(DOCUMENTS, range(5, 10)).values)
        assert len(index.search(QUERIES, 20)[0]) == 10

    def test_parts_that_would_be_too_large_are_not_merged(self, monkeypatch: pytest.MonkeyPatch, whole: MaxSim) -> None:
        monkeypatch.setattr(maxsim, "_LARGEST", 30_000)
        index = MaxSim(depth=None)
        for first in range(0, COUNT, 250):
            index.add(IDS[first : first + 250], take(DOCUMENTS, range(first, first + 250)))
        assert len(index._segments) > 4
        assert max(segment.content.codes.size for segment in index._segments) <= 30_000
        assert index.search(QUERIES, 10) == whole.search(QUERIES, 10)


class TestPrecision:
    @pytest.mark.parametrize(("stored", "share"), [("fp32", 0.0), ("fp16", 2.0**-11), ("int8", 0.5 / 127)])
    def test_how_far_stored_vectors_are_off(self, stored: Precision, share: float) -> None:
        found = filled(stored=stored, depth=None).vectors(IDS[:200]).values
        given = take(DOCUMENTS, range(200)).values
        largest = np.abs(given).max(axis=1, keepdims=True)
        assert (np.abs(found - given) <= 1.001 * share * largest).all()

    @pytest.mark.parametrize("stored", sorted(TYPES))
    def test_scores_are_those_of_the_stored_vectors(self, stored: Precision) -> None:
        index = filled(stored=stored, depth=None)
        exact = MaxSim("fp32", depth=None)
        exact.add(IDS, index.vectors(IDS))
        assert index.search(QUERIES, 10) == exact.search(QUERIES, 10)

    @pytest.mark.parametrize(("stored", "each"), [("fp32", 4), ("fp16", 2), ("int8", 1)])
    def test_bytes(self, stored: Precision, each: int) -> None:
        assert encode(DOCUMENTS.values, stored)[0].nbytes == each * DOCUMENTS.values.size

    @pytest.mark.parametrize("stored", ["fp16", "int8"])
    def test_compiled_code_and_numpy_read_the_same_bits(
        self, stored: Precision, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rng = np.random.default_rng(0)
        values = (rng.standard_normal((300, WIDTH)) * 10.0 ** rng.integers(-9, 5, (300, 1))).astype(np.float32)
        values[0], values[1, 0], values[2] = 0, 65504, -values[2]
        codes = encode(np.clip(values, -65504, 65504), stored)
        found = []
        for compiled in (True, False):
            monkeypatch.setattr(precision, "worth_loading", lambda _, use=compiled: use)
            found.append(decode(*codes))
        np.testing.assert_array_equal(found[0].view(np.uint32), found[1].view(np.uint32))
        assert np.count_nonzero(found[0]) > 1000

    def test_compiled_code_and_numpy_find_the_same(self, whole: MaxSim, monkeypatch: pytest.MonkeyPatch) -> None:
        found = []
        for compiled in (True, False):
            for module in (precision, tokens):
                monkeypatch.setattr(module, "worth_loading", lambda _, use=compiled: use)
            found.append(whole.search(QUERIES, 10))
        assert found[0] == found[1]

    def test_numbers_too_large_for_halves(self) -> None:
        values = np.ones((3, 2), np.float32)
        values[1, 1] = 70_000
        one = MultiVectors(values, np.array([0, 3]))
        index = MaxSim("fp16")
        with pytest.raises(InvalidInput, match=r"row 1 of the vectors holds a number beyond 65,504.*precision='fp32'"):
            index.add(["a"], one)
        others: list[Precision] = ["fp32", "int8"]
        for stored in others:
            other = MaxSim(stored)
            other.add(["a"], one)
            assert other.search(one, 1)[0].ids == ("a",)


class TestShapes:
    @pytest.mark.parametrize("numbers", [1, 100, 3000])
    def test_how_much_is_compared_at_once_is_invisible(
        self, numbers: int, whole: MaxSim, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ids = frozenset(IDS[:100] + IDS[200:300:2])
        wanted = whole.search(QUERIES, 10, among=ids)
        monkeypatch.setattr(tokens, "_NUMBERS", numbers)
        monkeypatch.setattr(tokens, "_PAIRS", numbers)
        monkeypatch.setattr(tokens, "_ASKED", 1)
        assert whole.search(QUERIES, 10, among=ids) == wanted

    def test_queries_without_tokens_find_nothing(self, whole: MaxSim) -> None:
        some = MultiVectors(QUERIES.values[: QUERIES.offsets[2]], np.insert(QUERIES.offsets[:3], 1, [0, 0]))
        found = whole.search(some, 3)
        assert [len(ranking) for ranking in found] == [0, 0, 3, 3]
        assert found[2:] == whole.search(take(QUERIES, [0, 1]), 3)

    def test_nothing_but_documents_without_tokens(self) -> None:
        index = MaxSim()
        index.add(["a", "b"], MultiVectors(np.empty((0, WIDTH), np.float32), np.zeros(3, np.int64)))
        assert len(index) == 2
        assert [len(ranking) for ranking in index.search(QUERIES, 3)] == [0] * 20

    def test_equal_scores_are_in_the_order_of_ids_whatever_k_cuts(self) -> None:
        index = MaxSim()
        same = take(QUERIES, [0] * 300)
        index.add([f"{i * 7 % 300:03}" for i in range(300)], same)
        assert index.search(take(QUERIES, [0]), 5)[0].ids == ("000", "001", "002", "003", "004")

    def test_many_threads(self, auto: MaxSim) -> None:
        wanted = auto.search(QUERIES, 10)
        with ThreadPoolExecutor(4) as pool:
            assert all(found == wanted for found in pool.map(lambda _: auto.search(QUERIES, 10), range(12)))


class TestRefusals:
    @pytest.mark.parametrize("depth", [0, -1, True, 2.5, "all"])
    def test_depth(self, depth: Any) -> None:
        with pytest.raises(InvalidInput, match="a whole number of 1 or more"):
            MaxSim(depth=depth)

    def test_precision(self) -> None:
        name: Any = "fp8"
        with pytest.raises(InvalidInput, match="'fp8' is not known; give one of fp32, fp16, int8"):
            MaxSim(name)

    @pytest.mark.parametrize("given", [QUERIES.values, [[1.0]], None], ids=["dense", "list", "nothing"])
    def test_other_kinds(self, given: Any, whole: MaxSim) -> None:
        with pytest.raises(InvalidInput, match="needs MultiVectors, several vectors for each text"):
            whole.search(given, 3)
        with pytest.raises(InvalidInput, match="needs MultiVectors"):
            whole.fork().add(["a"], given)

    def test_another_width(self, whole: MaxSim) -> None:
        with pytest.raises(InvalidInput, match="the queries have 3 dimensions, the index holds vectors of 16"):
            whole.search(MultiVectors(np.ones((1, 3), np.float32), np.array([0, 1])), 3)

    @pytest.mark.parametrize("value", [np.nan, np.inf, 1e20])
    def test_numbers(self, value: float, whole: MaxSim) -> None:
        values = take(QUERIES, [0]).values.copy()
        values[0, 3] = value
        bad = MultiVectors(values, np.array([0, len(values)]))
        with pytest.raises(InvalidInput, match="row 0 of the queries holds NaN or infinity, or is longer than"):
            whole.search(bad, 3)

    @pytest.mark.parametrize("values", [np.array([["a"]]), np.empty((1, 0), np.float32)], ids=["text", "no width"])
    def test_no_numbers(self, values: Any) -> None:
        with pytest.raises(InvalidInput, match="real numbers"):
            MaxSim().add(["a"], MultiVectors(values, np.array([0, 1])))

    def test_unknown_ids(self, whole: MaxSim) -> None:
        with pytest.raises(UnknownName, match="nowhere"):
            whole.vectors(["nowhere"])

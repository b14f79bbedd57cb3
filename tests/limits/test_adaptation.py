"""Adaptation against what it must be at its limits: nothing learnt, nothing shared, everything known."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from ragistry import Document
from ragistry.encoders.functions import Function
from ragistry.encoders.projected import Form, Projection
from ragistry.encoders.steps.residual import Residual, Side, residual_of
from ragistry.errors import InvalidInput, UnknownName
from ragistry.indexes.faiss import Faiss
from ragistry.retrievers.adapted import Adapted, Memory, crowding
from ragistry.retrievers.neighbours import Neighbours
from ragistry.retrievers.searcher import Searcher
from ragistry.storage import ArrayFiles
from ragistry.training.losses import Batch
from ragistry.training.losses.ranking import InfoNCE
from ragistry.types import Floats, Role

D = 6
MAPS: list[tuple[Form, int | None]] = [("softmax", 3), ("linear", 2), ("linear", None)]
SIDES: list[Side] = ["query", "both", "shared"]
ROLES: list[Role] = ["query", "document"]
VECTORS = arrays(np.float32, st.tuples(st.integers(1, 6), st.just(D)), elements=st.floats(-100, 100, width=16))
DOCUMENTS = [Document(str(i), f"document {i % 13}") for i in range(20)]
IDS = [document.id for document in DOCUMENTS]
QUERIES = ["one", "two", "document 3", ""]


def hashed(texts: Sequence[str]) -> Floats:
    seeds = [list(hashlib.sha256(text.encode()).digest()) for text in texts]
    return np.array([np.random.default_rng(seed).normal(size=D) for seed in seeds], np.float32)


ENCODER = Function(hashed, "hashed")


def drawn(seed: int, *shape: int) -> Floats:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def random(form: Form, rank: int | None, side: Side, seed: int = 0) -> Residual:
    step = Residual(D, form, rank, side)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in step.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draw))
    return step


def turned(step: nn.Module, vectors: Floats, role: Role) -> Floats:
    with torch.no_grad():
        found: Floats = step({"vector": torch.from_numpy(vectors)}, role)["vector"].numpy()
    return found


def adapted() -> Adapted:
    searcher = Adapted(ENCODER, Faiss, Faiss)
    searcher.add(DOCUMENTS)
    return searcher


def plain() -> Searcher:
    searcher = Searcher(ENCODER, Faiss())
    searcher.add(DOCUMENTS)
    return searcher


@settings(deadline=None, max_examples=25)
@given(vectors=VECTORS, which=st.sampled_from(MAPS), side=st.sampled_from(SIDES))
def test_an_untrained_residual_changes_no_bit(vectors: Floats, which: tuple[Form, int | None], side: Side) -> None:
    step = Residual(D, *which, side)
    step.start("query", vectors)
    projection = step.projection()
    for role in ROLES:
        np.testing.assert_array_equal(turned(step, vectors, role), vectors)
        np.testing.assert_array_equal(projection(vectors, role), vectors)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(("form", "rank"), MAPS)
def test_a_projection_without_a_residual_changes_no_ranking(form: Form, rank: int | None, side: Side) -> None:
    arrays = {
        role: {
            name: np.zeros_like(value) if name in ("values", "up", "weight") else value for name, value in of.items()
        }
        for role, of in random(form, rank, side).projection().arrays.items()
    }
    taught = adapted().taught(IDS, Projection(form, arrays))
    for k in (1, 7, 20):
        assert taught.search(QUERIES, k) == plain().search(QUERIES, k)
        assert taught.search(QUERIES, k, among=IDS[::3]) == plain().search(QUERIES, k, among=IDS[::3])


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(("form", "rank"), MAPS)
@pytest.mark.parametrize("seed", range(3))
def test_torch_and_numpy_agree(form: Form, rank: int | None, side: Side, seed: int) -> None:
    step, vectors = random(form, rank, side, seed), drawn(seed, 50, D)
    again = residual_of(step.projection())
    for role in ROLES:
        want = turned(step, vectors, role)
        np.testing.assert_allclose(step.projection()(vectors, role), want, atol=1e-5)
        np.testing.assert_allclose(turned(again, vectors, role), want, atol=1e-5)


@pytest.mark.parametrize(("form", "rank"), MAPS)
def test_sides(form: Form, rank: int | None) -> None:
    vectors = drawn(1, 9, D)
    query, both, shared = (random(form, rank, side) for side in SIDES)
    np.testing.assert_array_equal(turned(query, vectors, "document"), vectors)
    np.testing.assert_array_equal(query.projection()(vectors, "document"), vectors)
    assert not np.allclose(turned(query, vectors, "query"), vectors, atol=0.1)
    assert not np.allclose(turned(both, vectors, "query"), turned(both, vectors, "document"), atol=0.1)
    np.testing.assert_array_equal(turned(shared, vectors, "query"), turned(shared, vectors, "document"))


@pytest.mark.parametrize(("form", "rank"), MAPS)
def test_a_document_part_without_effect_is_query_only(form: Form, rank: int | None) -> None:
    both = random(form, rank, "both")
    zero = Residual(D, form, rank, "both").projection().arrays["document"]
    query = both.projection().arrays["query"]
    one = adapted().taught(IDS, Projection(form, {"query": query, "document": zero}))
    two = adapted().taught(IDS, Projection(form, {"query": query}))
    np.testing.assert_array_equal(one.index.vectors(IDS), two.index.vectors(IDS))
    assert one.search(QUERIES, 20) == two.search(QUERIES, 20) != plain().search(QUERIES, 20)


@settings(deadline=None, max_examples=20)
@given(vectors=VECTORS, seed=st.integers(0, 50), which=st.sampled_from(MAPS), side=st.sampled_from(SIDES))
def test_lengths_are_kept(vectors: Floats, seed: int, which: tuple[Form, int | None], side: Side) -> None:
    projection = random(*which, side, seed).projection()
    for role in ROLES:
        after = projection(vectors, role)
        np.testing.assert_allclose(np.linalg.norm(after, axis=1), np.linalg.norm(vectors, axis=1), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("rank", [1, 2, 5])
@pytest.mark.parametrize("form", ["linear", "softmax"])
def test_the_residual_before_scaling_has_at_most_the_rank(form: Form, rank: int) -> None:
    vectors = drawn(3, 40, D).astype(np.float64)
    projection = random(form, rank, "query").projection()
    part = {name: value.astype(np.float64) for name, value in projection.arrays["query"].items()}
    if form == "linear":
        residual = vectors @ part["down"] @ part["up"]
    else:
        logits = np.exp(vectors @ part["keys"].T)
        residual = logits / logits.sum(axis=1, keepdims=True) @ part["values"]
    before, moved = (np.linalg.norm(some, axis=1, keepdims=True) for some in (vectors, vectors + residual))
    found = projection(vectors.astype(np.float32), "query") * moved / before - vectors
    np.testing.assert_allclose(found, residual, atol=1e-4)
    assert np.linalg.matrix_rank(found, tol=1e-3) == min(rank, D)


@settings(deadline=None, max_examples=20)
@given(vectors=VECTORS, seed=st.integers(0, 50))
def test_a_dictionary_moves_no_vector_further_than_its_longest_value(vectors: Floats, seed: int) -> None:
    projection = random("softmax", 3, "query", seed).projection()
    longest = np.linalg.norm(projection.arrays["query"]["values"], axis=1).max()
    lengths = np.linalg.norm(vectors, axis=1)
    found = projection(vectors, "query").astype(np.float64)
    for vector, length, after in zip(vectors.astype(np.float64), lengths, found, strict=True):
        if length > longest:  # what lies on the ray of `after`, nearest to the vector, is no further than the sum
            nearest = after * (after @ vector) / max(length**2, 1e-30)
            assert np.linalg.norm(nearest - vector) <= longest * (1 + 1e-4) + 1e-3


@pytest.mark.parametrize(("form", "rank"), MAPS)
def test_what_ships_is_no_dead_start(form: Form, rank: int | None) -> None:
    step = Residual(D, form, rank, "query")
    vectors = torch.from_numpy(drawn(5, 12, D))
    batch = Batch({"vector": vectors}, {"vector": torch.from_numpy(drawn(6, 12, D))}, torch.eye(12))
    optimiser = torch.optim.SGD(step.parameters(), lr=0.1)
    first = {"softmax": "keys", "linear": "weight" if rank is None else "down"}[form]
    gradients = []
    for _ in range(5):
        optimiser.zero_grad()
        InfoNCE(0.1)(step, batch).backward()
        gradients.append(step.maps["query"].get_parameter(first).grad.norm().item())  # type: ignore[union-attr]
        optimiser.step()
    assert gradients[0] == 0 or rank is None
    assert min(gradients[1:]) > 1e-6
    part = {name: value.detach() for name, value in step.maps["query"].named_parameters()}
    if form == "softmax":
        learnt = torch.softmax(vectors @ part["keys"].T, dim=-1) @ part["values"]
    else:
        learnt = vectors @ (part["weight"] if rank is None else part["down"] @ part["up"])
    shift = learnt.mean(dim=0)
    assert (learnt - shift).norm(dim=1).mean() > 0.2 * learnt.norm(dim=1).mean() > 0


@pytest.mark.parametrize(("form", "rank"), [("softmax", None), ("linear", 0), ("softmax", -1)])
def test_a_rank_that_does_not_suit_is_refused(form: Form, rank: int | None) -> None:
    with pytest.raises(InvalidInput, match="rank="):
        Residual(D, form, rank)
    with pytest.raises(InvalidInput, match="not known"):
        Residual(D, "cubic", 2)  # type: ignore[arg-type]


def test_untaught_it_is_the_plain_searcher_whatever_happens(tmp_path: Path) -> None:
    one, two, held = adapted(), plain(), set(IDS)
    changes: list[tuple[list[Document], list[str]]] = [
        ([], []),
        ([Document("new", "document 3"), Document("4", "another text")], ["0", "unknown"]),
        ([], IDS[5:]),
    ]
    for added, removed in changes:
        for searcher in (one, two):
            searcher.add(added)
            searcher.remove(removed)
        held = (held | {document.id for document in added}) - set(removed)
        for k in (1, 5, 100):
            for among in (None, ["4", "new", "11", "nowhere"]):
                assert one.search(QUERIES, k, among=among) == two.search(QUERIES, k, among=among)
        assert one.taught(sorted(held)).search(QUERIES) == one.fork().search(QUERIES) == two.search(QUERIES)
    state = one.save(files := ArrayFiles(tmp_path))
    fresh = Adapted(ENCODER, Faiss, Faiss)
    fresh.load(state, files)
    assert fresh.search(QUERIES) == two.search(QUERIES)


def memory(share: float = 0.5, **values: object) -> Memory:
    return Memory(("1", "3", "gone"), drawn(7, 3, D), share, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("keep_length", [True, False])
def test_a_memory_of_which_documents_take_nothing_changes_no_ranking(keep_length: bool) -> None:
    taught = adapted().taught(IDS, memory=memory(1.0, keep_length=keep_length))
    for k in (1, 7, 20):
        assert taught.search(QUERIES, k) == plain().search(QUERIES, k)
    assert adapted().taught(IDS, memory=memory(0.5)).search(QUERIES, 20) != plain().search(QUERIES, 20)


@settings(deadline=None, max_examples=20)
@given(vectors=VECTORS, share=st.floats(0.01, 1), scale=st.floats(0.1, 2))
def test_a_memory_keeps_lengths_and_leaves_what_has_no_examples(vectors: Floats, share: float, scale: float) -> None:
    ids = [str(i) for i in range(len(vectors))]
    found = memory(share, scale=scale)(ids, vectors)
    known = np.array([id in ("1", "3") for id in ids])
    np.testing.assert_array_equal(found[~known], vectors[~known])
    lengths = np.linalg.norm(vectors[known], axis=1) * scale
    np.testing.assert_allclose(np.linalg.norm(found[known], axis=1), lengths, rtol=1e-3, atol=1e-6)


def test_a_memory_of_which_documents_take_nothing_changes_no_bit() -> None:
    vectors = drawn(9, 200, D)
    ids = tuple(map(str, range(200)))
    np.testing.assert_array_equal(Memory(ids, drawn(10, 200, D), 1.0)(ids, vectors), vectors)


def test_a_memory_by_hand() -> None:
    vector, means = np.array([[6.0, 8.0]], np.float32), np.array([[0.0, 100.0]], np.float32)
    mixed = np.array([0.25 * 0.6, 0.25 * 0.8 + 0.75])
    found = Memory(("a",), means, 0.25, 0.5)(["a"], vector)
    np.testing.assert_allclose(found[0], mixed / np.linalg.norm(mixed) * 10 * 0.5, rtol=1e-5)
    found = Memory(("a",), means, 0.25, 0.5, keep_length=False)(["a", "b"], np.vstack([vector, vector]))
    np.testing.assert_allclose(found, [[0.5 * 1.5, 0.5 * (2.0 + 75.0)], [1.5, 2.0]], rtol=1e-5)


def test_a_memory_goes_from_the_document_to_its_queries() -> None:
    means, vector = drawn(7, 3, D), drawn(8, 1, D)
    directions = [
        memory(share)(["1"], vector)[0] @ means[0] / np.linalg.norm(vector) / np.linalg.norm(means[0])
        for share in (1.0, 0.7, 0.4, 0.1, 1e-6)
    ]
    assert directions == sorted(directions)
    assert directions[-1] == pytest.approx(1, abs=1e-4)


def test_damping_by_hand_and_without_effect_at_the_level() -> None:
    vectors, crowd = drawn(9, 3, D), drawn(10, 8, D)
    crowd /= np.linalg.norm(crowd, axis=1, keepdims=True)
    cosines = np.sort(vectors @ crowd.T / np.linalg.norm(vectors, axis=1, keepdims=True), axis=1)
    want = cosines[:, -5:].mean(axis=1)
    np.testing.assert_allclose(crowding(vectors, crowd), want, atol=1e-6)
    ids = ["x", "y", "z"]
    damped = memory(crowd=crowd, damping=0.5, level=0.2)(ids, vectors)
    np.testing.assert_allclose(damped, vectors * (1 - 0.5 * (want - 0.2))[:, None], atol=1e-5)
    alone = memory(crowd=crowd, damping=0.5, level=float(want[0]))(["x"], vectors[:1])
    np.testing.assert_allclose(alone, vectors[:1], atol=1e-6)


@pytest.mark.parametrize("values", [{"share": 0.0}, {"share": 1.1}, {"scale": 0.0}, {"damping": 1.5}, {"damping": -1}])
def test_memories_that_make_no_sense_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(InvalidInput, match="a share in"):
        memory(**values)
    with pytest.raises(InvalidInput, match="one row each"):
        Memory(("1",), drawn(0, 2, D))


def test_what_was_taught_can_be_taught_otherwise_and_undone() -> None:
    base = adapted()
    taught = base.taught(IDS, random("linear", None, "both").projection(), memory())
    np.testing.assert_array_equal(taught.encoded(IDS), base.encoded(IDS))
    assert taught.taught(IDS).search(QUERIES, 20) == base.search(QUERIES, 20) == plain().search(QUERIES, 20)
    again = base.taught(IDS, random("linear", None, "both", 1).projection())
    assert taught.taught(IDS, random("linear", None, "both", 1).projection()).search(QUERIES, 20) == again.search(
        QUERIES, 20
    )


def test_what_was_taught_holds_for_documents_that_come_later() -> None:
    projection = random("softmax", 3, "both").projection()
    whole = adapted().taught(IDS, projection, memory())
    part = Adapted(ENCODER, Faiss, Faiss)
    part.add(DOCUMENTS[:7])
    later = part.taught(IDS[:7], projection, memory())
    before = part.search(QUERIES, 20)
    later.add(DOCUMENTS[7:], same={"13": "0"})
    later.remove(["19"])
    whole.remove(["19"])
    np.testing.assert_allclose(
        np.asarray(later.index.vectors(IDS[:-1])), np.asarray(whole.index.vectors(IDS[:-1])), atol=1e-6
    )
    np.testing.assert_array_equal(later.encoded(IDS[:-1]), whole.encoded(IDS[:-1]))
    assert part.search(QUERIES, 20) == before
    with pytest.raises(UnknownName):
        later.encoded(["19"])


def test_a_fork_of_what_was_taught_goes_its_own_way() -> None:
    taught = adapted().taught(IDS, random("linear", None, "both").projection())
    fork = taught.fork()
    kept = taught.encoded(["1"])
    fork.add([Document("1", "changed")])
    np.testing.assert_array_equal(taught.encoded(["1"]), kept)
    assert not np.allclose(fork.encoded(["1"]), kept)


def test_what_was_taught_comes_back_from_disk(tmp_path: Path) -> None:
    crowd = np.eye(D, dtype=np.float32)
    taught = adapted().taught(
        IDS, random("softmax", 3, "shared").projection(), memory(0.3, scale=0.9, crowd=crowd, damping=0.5, level=0.1)
    )
    state = taught.save(files := ArrayFiles(tmp_path))
    fresh = Adapted(ENCODER, Faiss, Faiss)
    fresh.load(state, files)
    assert fresh.search(QUERIES, 20) == taught.search(QUERIES, 20)
    fresh.add([Document("1", "changed"), Document("new", "new")])
    taught.add([Document("1", "changed"), Document("new", "new")])
    assert fresh.search(QUERIES, 20) == taught.search(QUERIES, 20)
    assert fresh.taught([*IDS, "new"]).search(QUERIES, 20) != fresh.search(QUERIES, 20)


def neighbours(share: float = 0.5, k: int = 32) -> Neighbours:
    searcher = Neighbours(ENCODER, Faiss(), Faiss(), share=share, neighbours=k)
    searcher.add(DOCUMENTS)
    return searcher


def test_without_known_queries_neighbours_are_the_plain_searcher() -> None:
    searcher = neighbours()
    for k in (1, 7, 20):
        for among in (None, ["4", "11", "nowhere"]):
            want = plain().search(QUERIES, k, among=among)
            assert searcher.search(QUERIES, k, among=among) == want
            forgot = searcher.knowing(drawn(0, 2, D), [("4",), ("5",)]).knowing(drawn(0, 0, D), [])
            assert forgot.search(QUERIES, k, among=among) == want


def test_a_share_of_1_gives_the_ranking_of_the_plain_searcher() -> None:
    searcher = neighbours(1.0).knowing(drawn(11, 15, D), [[IDS[i]] for i in range(15)])
    for k in (1, 7, 20):
        assert searcher.search(QUERIES, k) == plain().search(QUERIES, k)


pairs = st.lists(st.lists(st.sampled_from(IDS), max_size=4, unique=True), min_size=1, max_size=8)


@settings(deadline=None, max_examples=20)
@given(answers=pairs, seed=st.integers(0, 100), share=st.floats(0.05, 1))
def test_one_index_and_two_score_alike_if_every_query_is_near(
    answers: list[list[str]], seed: int, share: float
) -> None:
    asked = drawn(seed, len(answers), D)
    two = neighbours(share, len(answers)).knowing(asked, answers)
    warm = sorted({id for ids in answers for id in ids})
    sums = [sum(vector for vector, ids in zip(asked, answers, strict=True) if id in ids) for id in warm]
    means = np.array(sums, np.float32).reshape(len(warm), D) / len(answers)
    one = adapted().taught(IDS, memory=Memory(tuple(warm), means, share, keep_length=False))
    for a, b in zip(one.search(QUERIES, 20), two.search(QUERIES, 20), strict=True):
        scores = dict(b)
        assert set(a.ids) == set(b.ids) == set(IDS)
        np.testing.assert_allclose(a.scores, [scores[id] for id in a.ids], atol=1e-5)


@settings(deadline=None, max_examples=20)
@given(answers=pairs, seed=st.integers(0, 100), k=st.integers(1, 5), near=st.integers(1, 8))
def test_a_short_list_is_the_beginning_of_a_long_one(answers: list[list[str]], seed: int, k: int, near: int) -> None:
    searcher = neighbours(0.5, near).knowing(drawn(seed, len(answers), D), answers)
    for among in (None, IDS[::2]):
        long = searcher.search(QUERIES, 20, among=among)
        for short, whole in zip(searcher.search(QUERIES, k, among=among), long, strict=True):
            assert short.ids == whole.ids[:k]
            np.testing.assert_array_equal(short.scores, whole.scores[:k])


def test_neighbours_by_hand() -> None:
    held = {"a": [1.0, 0.0], "b": [0.0, 1.0], "c": [0.6, 0.8], "q": [0.8, 0.6]}
    encoder = Function(lambda texts: [held[text] for text in texts], "by hand")
    searcher = Neighbours(encoder, Faiss(), Faiss(), share=0.25, neighbours=2)
    searcher.add([Document(id, id) for id in "abc"])
    taught = searcher.knowing(np.array([[1, 0], [0, 1], [-1, 0]], np.float32), [("b",), ("b", "c"), ("a",)])
    want = {"a": 0.25 * 0.8, "b": 0.25 * 0.6 + 0.75 * (0.8 + 0.6) / 2, "c": 0.25 * 0.96 + 0.75 * 0.6 / 2}
    assert dict(taught.search(["q"])[0]) == pytest.approx(want, abs=1e-6)
    few = Neighbours(encoder, searcher.index, Faiss(), share=0.25, neighbours=8)
    lent = few.knowing(np.array([[1, 0], [0, 1]], np.float32), [("b",), ("b", "c")])
    want = {"a": 0.25 * 0.8, "b": 0.25 * 0.6 + 0.75 * (0.8 + 0.6) / 8, "c": 0.25 * 0.96 + 0.75 * 0.6 / 8}
    assert dict(lent.search(["q"])[0]) == pytest.approx(want, abs=1e-6)
    taught.remove(["b"])
    assert set(taught.search(["q"], 1)[0].ids) == {"c"}
    assert taught.fork().search(["q"]) == taught.search(["q"])


def test_known_queries_come_back_from_disk(tmp_path: Path) -> None:
    taught = neighbours(0.5, 2).knowing(drawn(12, 3, D), [("1", "2"), (), ("3",)])
    state = taught.save(files := ArrayFiles(tmp_path))
    fresh = Neighbours(ENCODER, Faiss(), Faiss(), share=0.5, neighbours=2)
    fresh.load(state, files)
    assert fresh.search(QUERIES, 20) == taught.search(QUERIES, 20) != plain().search(QUERIES, 20)


@pytest.mark.parametrize(("share", "k"), [(-0.1, 1), (1.1, 1), (0.5, 0)])
def test_neighbours_that_make_no_sense_are_refused(share: float, k: int) -> None:
    with pytest.raises(InvalidInput, match="a share"):
        neighbours(share, k)
    with pytest.raises(InvalidInput, match="one each"):
        neighbours().knowing(drawn(0, 2, D), [("1",)])

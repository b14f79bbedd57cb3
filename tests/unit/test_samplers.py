"""Batches: who meets whom, that no answer is ever a negative, and what the nearest are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from torch import nn

from ragistry.encoders.steps import Features
from ragistry.encoders.steps.residual import Residual
from ragistry.errors import InvalidInput
from ragistry.training import samplers
from ragistry.training.samplers import Negatives, Rows, Sampler
from ragistry.training.trainer import Stored
from ragistry.types import Floats, Ints, Role

MODES: list[Negatives] = ["in-batch", "judged", "mined", "corpus"]


class Identity(nn.Module):
    def forward(self, features: Features, role: Role) -> Features:
        return features


def stored(rows: list[list[float | None]]) -> csr_array:
    """None is no judgement, and 0 one that is stored."""
    entries = [(i, j, value) for i, row in enumerate(rows) for j, value in enumerate(row) if value is not None]
    indptr = np.cumsum([0, *(sum(value is not None for value in row) for row in rows)])
    data, columns = np.array([e[2] for e in entries], np.float32), np.array([e[1] for e in entries], np.int64)
    return csr_array((data, columns, indptr), shape=(len(rows), len(rows[0])))


@st.composite
def judgements(draw: st.DrawFn) -> csr_array:
    width = draw(st.integers(1, 8))
    cells = st.sampled_from([None, None, None, 0.0, -1.0, 1.0, 2.0])
    rows = draw(st.lists(st.lists(cells, min_size=width, max_size=width), min_size=1, max_size=8))
    rows[draw(st.integers(0, len(rows) - 1))][draw(st.integers(0, width - 1))] = 1.0
    return stored(rows)


def last(rows: Ints, k: int) -> Ints:
    """As the nearest, the documents 7 and 6."""
    return np.tile(np.array([7, 6, -1])[:k], (len(rows), 1))


def batches(sampler: Sampler, epoch: int = 0) -> list[Rows]:
    width = sampler.judged.shape[1]

    def nearest(rows: Ints, k: int) -> Ints:
        draw = np.random.default_rng(epoch)
        return draw.integers(-1, width, (len(rows), k))

    return list(sampler.epoch(epoch, nearest))


@settings(deadline=None, max_examples=50)
@given(judged=judgements(), mode=st.sampled_from(MODES), size=st.integers(1, 4), sample=st.integers(1, 5))
def test_every_query_meets_all_its_judgements_and_no_answer_is_a_negative(
    judged: csr_array, mode: Negatives, size: int, sample: int
) -> None:
    sampler = Sampler(judged, negatives=mode, size=size, sample=sample, depth=2, seed=size)
    table = judged.toarray()
    found = batches(sampler)
    assert len(found) == len(sampler)
    assert sorted(query for batch in found for query in batch.queries) == np.flatnonzero((table > 0).any(1)).tolist()
    for batch in found:
        assert 1 <= len(batch.queries) <= size
        assert sorted(set(batch.documents.tolist())) == batch.documents.tolist()
        np.testing.assert_array_equal(batch.relevance, table[batch.queries][:, batch.documents].clip(min=0))
        for query in batch.queries:
            start, end = judged.indptr[query], judged.indptr[query + 1]
            assert set(judged.indices[start:end]) <= set(batch.documents)


JUDGED = stored(
    [
        [1, None, None, None, None, None, None, None],
        [None, 1, 0, None, None, None, None, None],
        [None, None, None, 2, None, None, None, None],
        [None, None, None, 0, 0, None, None, None],
        [None, None, None, None, None, 3, None, None],
    ]
)


def test_in_batch_candidates_are_the_judged_documents_of_the_batch() -> None:
    own = {0: {0}, 1: {1, 2}, 2: {3}, 4: {5}}
    for batch in Sampler(JUDGED, negatives="in-batch", size=2).epoch(0):
        assert set(batch.documents) == set.union(*(own[query] for query in batch.queries.tolist()))


def test_judged_candidates_are_drawn_anew_from_documents_that_answer() -> None:
    draws = set()
    for epoch in range(20):
        for batch in Sampler(JUDGED, negatives="judged", size=1, sample=2).epoch(epoch):
            others = set(batch.documents.tolist()) - ({2} if 1 in batch.queries else set())
            assert others <= {0, 1, 3, 5}
            assert len(others) in (2, 3)
            draws.add(frozenset(others))
    assert len(draws) > 4
    whole = next(Sampler(JUDGED, negatives="judged", size=9).epoch(0))
    assert whole.documents.tolist() == [0, 1, 2, 3, 5]


def test_mined_candidates_are_the_nearest() -> None:
    for batch in Sampler(JUDGED, negatives="mined", size=1, depth=3).epoch(0, last):
        own = {0: {0}, 1: {1, 2}, 2: {3}, 4: {5}}[batch.queries.tolist()[0]]
        assert set(batch.documents.tolist()) == own | {6, 7}
    with pytest.raises(InvalidInput, match="give `nearest`"):
        next(Sampler(JUDGED, negatives="mined").epoch(0))


def test_mined_rows_go_to_their_own_queries() -> None:
    def nearest(rows: Ints, k: int) -> Ints:
        return np.array([[{0: 7, 1: 6, 2: 4, 4: 2}[row]] for row in rows.tolist()])

    for batch in Sampler(JUDGED, negatives="mined", size=1, depth=1).epoch(3, nearest):
        query = batch.queries.tolist()[0]
        assert set(batch.documents.tolist()) == {0: {0, 7}, 1: {1, 2, 6}, 2: {3, 4}, 4: {5, 2}}[query]


def test_corpus_candidates_are_all_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = Sampler(JUDGED, negatives="corpus", size=1, sample=3, depth=2)
    assert [batch.documents.tolist() for batch in sampler.epoch(0)] == [list(range(8))] * 4
    assert not sampler.mining
    monkeypatch.setattr(samplers, "WHOLE", 7)
    assert sampler.mining
    sizes = [len(batch.documents) for batch in sampler.epoch(0, last)]
    assert all({6, 7} <= set(batch.documents) for batch in sampler.epoch(0, last))
    assert max(sizes) <= 3 + 2 + 2
    assert len({tuple(batch.documents) for epoch in range(9) for batch in sampler.epoch(epoch, last)}) > 4


def test_stored_zeros_are_candidates_of_their_query() -> None:
    for mode in MODES:
        for batch in Sampler(JUDGED, negatives=mode, size=1, depth=1).epoch(0, lambda rows, k: last(rows, k)):
            if 1 in batch.queries:
                assert batch.relevance[0, batch.documents.tolist().index(2)] == 0
                break
        else:
            raise AssertionError("query 1 is missing")


def seen(sampler: Sampler, epoch: int) -> list[tuple[list[int], list[int]]]:
    return [(batch.queries.tolist(), batch.documents.tolist()) for batch in batches(sampler, epoch)]


@pytest.mark.parametrize("mode", MODES)
def test_epochs_differ_and_seeds_repeat_them(mode: Negatives) -> None:
    judged = csr_array(np.eye(40, dtype=np.float32))
    one, two, other = (Sampler(judged, negatives=mode, size=8, sample=4, seed=seed) for seed in (5, 5, 6))
    assert seen(one, 3) == seen(two, 3) == seen(one, 3)
    orders = {str(seen(one, epoch)) for epoch in range(4)} | {str(seen(other, 0))}
    assert len(orders) == 5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"negatives": "hard"}, "negatives='hard'"),
        ({"size": 0}, "size=0"),
        ({"sample": 0}, "sample=0"),
        ({"depth": 0}, "depth=0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Sampler(JUDGED, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("table", [np.zeros((2, 3)), np.zeros((0, 0)), -np.eye(2)])
def test_without_answers_there_is_nothing_to_sample(table: Floats) -> None:
    with pytest.raises(InvalidInput, match="nothing to learn"):
        Sampler(csr_array(table))
    with pytest.raises(InvalidInput, match="nothing to learn"):
        Sampler(stored([[0.0, None], [None, 0.0]]))


@settings(deadline=None, max_examples=50)
@given(judged=judgements(), seed=st.integers(0, 100), k=st.integers(1, 9))
def test_the_nearest_are_those_of_brute_force_ties_by_row(judged: csr_array, seed: int, k: int) -> None:
    draw = np.random.default_rng(seed)
    directions = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], np.float32)  # few and exact, so that many tie
    asked = directions[draw.integers(0, 4, judged.shape[0])]
    held = directions[draw.integers(0, 4, judged.shape[1])] * draw.choice([1, 2, 4], (judged.shape[1], 1))
    rows = np.flatnonzero(np.diff(judged.indptr)).astype(np.int64)
    found = Stored(asked, held).nearest(Identity(), rows, k, judged)
    table, scores = judged.toarray(), asked @ (held / np.abs(held).sum(axis=1, keepdims=True)).T
    for row, near in zip(rows.tolist(), found.tolist(), strict=True):
        order = sorted(range(len(held)), key=lambda document: (-scores[row, document], document))
        want = [document for document in order if table[row, document] <= 0][:k]
        assert near == want + [-1] * (k - len(want))


@pytest.mark.parametrize("seed", range(5))
def test_of_many_that_tie_the_first_rows_are_the_nearest(seed: int) -> None:
    draw = np.random.default_rng(seed)
    held = np.eye(3, dtype=np.float32)[draw.integers(0, 3, 200)]
    judged = csr_array((draw.random((3, 200)) < 0.02).astype(np.float32))
    found = Stored(np.eye(3, dtype=np.float32), held).nearest(Identity(), np.arange(3), 10, judged)
    wrong = (held.T > 0) & (judged.toarray() == 0)
    np.testing.assert_array_equal(found, [np.flatnonzero(row)[:10] for row in wrong])


def test_the_nearest_are_so_under_the_encoder_as_it_is() -> None:
    draw = np.random.default_rng(0)
    asked, held = draw.normal(size=(300, 4)).astype(np.float32), draw.normal(size=(50, 4)).astype(np.float32)
    step = Residual(4, "linear", None, "both")
    judged, rows, source = csr_array(np.eye(300, 50, dtype=np.float32)), np.arange(300), Stored(asked, held)
    with torch.no_grad():
        before = source.nearest(step, rows, 3, judged)
        for weight in step.parameters():
            weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
        after = source.nearest(step, rows, 3, judged)
    projection = step.projection()
    turned = projection(held, "document")
    scores = projection(asked, "query") @ (turned / np.linalg.norm(turned, axis=1, keepdims=True)).T
    scores[np.arange(50), np.arange(50)] = -np.inf
    np.testing.assert_array_equal(after, np.argsort(-scores, axis=1, kind="stable")[:, :3])
    assert (before != after).any()

"""Folds: what teaches never tests, what is unseen is unseen, and order plays no part."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from ragistry.training.folds import FOLDS, Fold, folds

Answers = list[set[int]]


def judged(answers: Answers, documents: int, zeros: bool = False) -> csr_array:
    """With relevance 1 and 2, and where there are `zeros` the document after each answer stored as 0."""
    table = np.full((len(answers), documents), np.nan, np.float32)
    for row, own in enumerate(answers):
        for document in own:
            table[row, document] = 1 + document % 2
        for document in own if zeros else ():
            if document + 1 < documents and document + 1 not in own:
                table[row, document + 1] = 0
    rows, columns = np.nonzero(~np.isnan(table))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(answers)))])
    return csr_array((table[rows, columns], columns, indptr), shape=table.shape)


def divided(answers: Answers, documents: int, runs: int = FOLDS, zeros: bool = False) -> list[Fold]:
    queries, ids = [f"query {i}" for i in range(len(answers))], [f"document {i}" for i in range(documents)]
    return list(folds(judged(answers, documents, zeros), queries, ids, runs))


DOCUMENTS = 12
many = st.integers(1, DOCUMENTS).flatmap(
    lambda used: st.lists(st.sets(st.integers(0, used - 1), max_size=3), min_size=1, max_size=30)
)


@settings(deadline=None, max_examples=60)
@given(answers=many, zeros=st.booleans())
def test_what_teaches_does_not_test_and_what_is_unseen_is_unseen(answers: Answers, zeros: bool) -> None:
    tested: list[int] = []
    for fold in divided(answers, DOCUMENTS, zeros=zeros):
        train, seen, unseen = (rows.tolist() for rows in (fold.train, fold.seen, fold.unseen))
        parts = [*train, *seen, *unseen]
        assert len(parts) == len(set(parts))
        assert all(answers[row] for row in parts)
        taught = set().union(*(answers[row] for row in train))
        for row in unseen:
            assert not answers[row] & taught
        for row in seen:
            assert answers[row] & taught
        tested += unseen
    assert len(tested) == len(set(tested))


@settings(deadline=None, max_examples=20)
@given(answers=many, seed=st.integers(0, 1000))
def test_the_order_of_queries_and_documents_plays_no_part(answers: Answers, seed: int) -> None:
    answers = answers * 2
    draw = np.random.default_rng(seed)
    rows, columns = draw.permutation(len(answers)), draw.permutation(DOCUMENTS)
    table = judged(answers, DOCUMENTS)
    queries, ids = [f"query {i}" for i in range(len(answers))], [f"document {i}" for i in range(DOCUMENTS)]
    shuffled = csr_array(table.toarray()[rows][:, columns])
    again = folds(shuffled, [queries[row] for row in rows], [ids[column] for column in columns])
    for one, two in zip(folds(table, queries, ids), again, strict=True):
        for part in ("train", "seen", "unseen"):
            assert set(getattr(one, part)) == set(rows[getattr(two, part)])


def test_judgements_of_0_and_below_play_no_part() -> None:
    answers: Answers = [{i % DOCUMENTS} for i in range(30)]
    plain, zeros = divided(answers, DOCUMENTS), divided(answers, DOCUMENTS, zeros=True)
    negative = judged(answers, DOCUMENTS, zeros=True)
    negative.data[negative.data == 0] = -1
    queries, ids = [f"query {i}" for i in range(30)], [f"document {i}" for i in range(DOCUMENTS)]
    for one, two, three in zip(plain, zeros, folds(negative, queries, ids), strict=True):
        for part in ("train", "seen", "unseen"):
            np.testing.assert_array_equal(getattr(one, part), getattr(two, part))
            np.testing.assert_array_equal(getattr(one, part), getattr(three, part))


def test_of_pairs_each_is_unseen_once_and_four_fifths_teach() -> None:
    found = divided([{i} for i in range(100)], 100)
    assert sorted(row for fold in found for row in fold.unseen.tolist()) == list(range(100))
    assert [len(fold.unseen) for fold in found] == [20] * 5
    assert [len(fold.train) for fold in found] == [80] * 5
    assert [len(fold.seen) for fold in found] == [0] * 5


def test_where_queries_share_answers_some_test_what_others_teach() -> None:
    found = divided([{i % 20} for i in range(200)], 20)
    for fold in found:
        assert len(fold.unseen) == 40
        assert 10 <= len(fold.seen) <= 80
        assert len(fold.train) + len(fold.seen) == 160
    assert len({row for fold in found for row in fold.seen.tolist()}) > 100


def test_documents_with_a_query_in_common_stay_together() -> None:
    answers: Answers = [{2 * (i % 20), 2 * (i % 20) + 1} for i in range(100)]
    for fold in divided(answers, 40):
        assert len(fold.train) + len(fold.seen) + len(fold.unseen) == 100
        assert len(fold.unseen) == 20


def test_one_giant_component_is_cut() -> None:
    chain: Answers = [{i, i + 1} for i in range(0, 60)]
    found = divided(chain, 61)
    assert all(len(fold.train) > 10 for fold in found)
    assert sum(len(fold.unseen) for fold in found) >= 5
    star: Answers = [{0, i} for i in range(1, 60)] + [{i} for i in range(1, 60)]
    found = divided(star, 60)
    assert all(len(fold.train) > 10 for fold in found)
    assert sum(len(fold.unseen) for fold in found) > 20
    assert sum(len(fold.seen) for fold in found) > 5


@pytest.mark.parametrize("queries", [2, 7, 30])
def test_one_document_can_be_divided(queries: int) -> None:
    found = divided([{0}] * queries, 1)
    assert sum(len(fold.seen) + len(fold.unseen) for fold in found) == queries
    for fold in found:
        assert len(fold.train) + len(fold.seen) + len(fold.unseen) == queries
        assert len(fold.train) >= 1


def test_where_queries_share_many_answers_queries_are_divided() -> None:
    answers: Answers = [{(7 * i + 11 * j * j) % 100 for j in range(12)} for i in range(50)]
    for fold in divided(answers, 100):
        assert len(fold.train) == 40
        assert len(fold.seen) + len(fold.unseen) == 10


def test_queries_without_answers_are_left_out() -> None:
    found = divided([set(), {0}, set(), {1}, {1}], 2)
    assert {row for fold in found for row in [*fold.train, *fold.seen, *fold.unseen]} == {1, 3, 4}
    assert [len(fold.train) for fold in divided([set(), set()], 3)] == [0] * 5


@pytest.mark.parametrize("runs", [1, 2, 5])
def test_fewer_runs_are_the_first_ones(runs: int) -> None:
    answers: Answers = [{i % 15} for i in range(40)]
    for one, two in zip(divided(answers, 15, runs), divided(answers, 15)[:runs], strict=True):
        np.testing.assert_array_equal(one.train, two.train)
        np.testing.assert_array_equal(one.seen, two.seen)
        np.testing.assert_array_equal(one.unseen, two.unseen)

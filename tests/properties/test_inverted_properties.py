"""The inverted index against one built afresh, whatever came before."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from ragistry.indexes import kernels
from ragistry.indexes.inverted import Inverted
from ragistry.indexes.weighting import BM25, Dirichlet, Impact, JelinekMercer, Weighting
from ragistry.storage import ArrayFiles
from ragistry.types import Ranking

COLUMNS = 6
IDS = ("a", "b", "B", "é", "id 10", "id 9", "🦜", "z/z", "", "aa")

Counts: TypeAlias = tuple[int, ...]
Change: TypeAlias = dict[str, Counts] | list[str]
"""What is added, by id, or the ids that are removed."""

counts = st.tuples(*[st.sampled_from((0, 0, 1, 2, 7))] * COLUMNS)
ids = st.sampled_from(IDS)
changes = st.lists(
    st.one_of(st.dictionaries(ids, counts, max_size=6), st.lists(ids, max_size=6)), min_size=1, max_size=12
)
queries = st.lists(counts, min_size=1, max_size=4)
weightings = st.sampled_from(
    [
        *(BM25(variant=variant) for variant in ("robertson", "lucene", "atire", "bm25l", "bm25+")),
        BM25(k1=0.0, b=1.0),
        Dirichlet(mu=20.0),
        JelinekMercer(weight=0.4),
        Impact(),
    ]
)


def sparse(rows: list[Counts]) -> csr_array:
    return csr_array(np.array(rows, np.float32).reshape(len(rows), COLUMNS))


def apply(index: Inverted, held: dict[str, Counts], change: Change) -> None:
    if isinstance(change, dict):
        index.add(list(change), sparse(list(change.values())))
        held.update(change)
    else:
        index.remove(change)
        for name in change:
            held.pop(name, None)


def changed(weighting: Weighting, history: list[Change]) -> tuple[Inverted, dict[str, Counts]]:
    index, held = Inverted(weighting), dict[str, Counts]()
    for change in history:
        apply(index, held, change)
    return index, held


def fresh(weighting: Weighting, held: dict[str, Counts]) -> Inverted:
    index = Inverted(weighting)
    index.add(sorted(held), sparse([held[name] for name in sorted(held)]))
    return index


def bits(rankings: list[Ranking]) -> list[tuple[tuple[str, ...], bytes]]:
    return [(ranking.ids, ranking.scores.tobytes()) for ranking in rankings]


@given(weightings, changes, queries, st.integers(0, 12))
def test_any_history_equals_a_fresh_build_bit_for_bit(
    weighting: Weighting, history: list[Change], asked: list[Counts], k: int
) -> None:
    index, held = changed(weighting, history)
    assert len(index) == len(held)
    assert bits(index.search(sparse(asked), k)) == bits(fresh(weighting, held).search(sparse(asked), k))


@given(weightings, changes, queries, st.integers(0, 12))
def test_searching_in_between_changes_nothing(
    weighting: Weighting, history: list[Change], asked: list[Counts], k: int
) -> None:
    index, held = Inverted(weighting), dict[str, Counts]()
    for change in history:
        apply(index, held, change)
        assert bits(index.search(sparse(asked), k)) == bits(fresh(weighting, held).search(sparse(asked), k))


@given(weightings, changes, queries)
def test_exactly_the_documents_sharing_a_term_are_found(
    weighting: Weighting, history: list[Change], asked: list[Counts]
) -> None:
    index, held = changed(weighting, history)
    for query, ranking in zip(asked, index.search(sparse(asked), len(IDS)), strict=True):
        sharing = {name for name, row in held.items() if any(a and b for a, b in zip(query, row, strict=True))}
        assert set(ranking.ids) == sharing


@given(weightings, changes, queries, st.integers(0, 10), st.integers(0, 10))
def test_fewer_hits_are_the_first_of_more(
    weighting: Weighting, history: list[Change], asked: list[Counts], k: int, more: int
) -> None:
    index, _ = changed(weighting, history)
    longer = index.search(sparse(asked), k + more)
    assert bits(index.search(sparse(asked), k)) == bits([ranking.head(k) for ranking in longer])


@given(weightings, changes, queries, st.integers(0, 10), st.sets(st.sampled_from([*IDS, "nowhere"])))
def test_among_is_the_filtered_full_ranking(
    weighting: Weighting, history: list[Change], asked: list[Counts], k: int, allowed: set[str]
) -> None:
    index, _ = changed(weighting, history)
    expected = []
    for ranking in index.search(sparse(asked), len(IDS)):
        kept = [i for i, name in enumerate(ranking.ids) if name in allowed][:k]
        expected.append(Ranking(tuple(ranking.ids[i] for i in kept), ranking.scores[kept]))
    for among in (allowed, frozenset(allowed), sorted(allowed)):
        assert bits(index.search(sparse(asked), k, among=among)) == bits(expected)


@given(weightings, changes, queries)
def test_queries_together_find_what_each_alone_finds(
    weighting: Weighting, history: list[Change], asked: list[Counts]
) -> None:
    index, _ = changed(weighting, history)
    alone = [index.search(sparse([query]), 5)[0] for query in asked]
    assert bits(index.search(sparse(asked), 5)) == bits(alone)


@settings(max_examples=25)
@given(weightings, changes, changes, queries)
def test_saving_and_loading_change_nothing(
    weighting: Weighting, history: list[Change], later: list[Change], asked: list[Counts]
) -> None:
    index, held = changed(weighting, history)
    with TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        state = index.save(ArrayFiles(Path(directory)))
        loaded = Inverted(weighting)
        loaded.load(state, ArrayFiles(Path(directory)))
        assert bits(loaded.search(sparse(asked), 9)) == bits(index.search(sparse(asked), 9))
        for change in later:
            apply(loaded, held, change)
        assert bits(loaded.search(sparse(asked), 9)) == bits(fresh(weighting, held).search(sparse(asked), 9))


@given(weightings, changes, changes, changes, queries)
def test_forks_are_isolated(
    weighting: Weighting, history: list[Change], one: list[Change], other: list[Change], asked: list[Counts]
) -> None:
    index, held = changed(weighting, history)
    fork, held_by_fork = index.fork(), dict(held)
    for change in one:
        apply(index, held, change)
    for change in other:
        apply(fork, held_by_fork, change)
    assert bits(index.search(sparse(asked), 9)) == bits(fresh(weighting, held).search(sparse(asked), 9))
    assert bits(fork.search(sparse(asked), 9)) == bits(fresh(weighting, held_by_fork).search(sparse(asked), 9))


@given(changes, st.data())
def test_vectors_are_what_was_added(history: list[Change], data: st.DataObject) -> None:
    index, held = changed(Impact(), history)
    asked = data.draw(st.permutations(sorted(held)))
    found = index.vectors(asked)
    assert found.dtype == np.float32
    if asked:
        assert found.toarray().tolist() == [list(map(float, held[name])) for name in asked]
    else:
        assert found.shape[0] == 0


@given(changes, changes, queries, weightings, weightings)
def test_another_weighting_over_the_same_counts(
    history: list[Change], later: list[Change], asked: list[Counts], one: Weighting, other: Weighting
) -> None:
    index, held = changed(one, history)
    before = bits(index.search(sparse(asked), 9))
    twin = index.weighted(other)
    assert bits(twin.search(sparse(asked), 9)) == bits(fresh(other, held).search(sparse(asked), 9))
    twin_held = dict(held)
    for change in later:
        apply(twin, twin_held, change)
    assert bits(twin.search(sparse(asked), 9)) == bits(fresh(other, twin_held).search(sparse(asked), 9))
    assert bits(index.search(sparse(asked), 9)) == before


sorted_numbers = st.sets(st.integers(0, 2**63 - 2), max_size=30).map(lambda some: np.array(sorted(some), np.int64))


@settings(deadline=None)
@given(sorted_numbers, sorted_numbers)
def test_a_union_of_terms_holds_each_once_in_order(one: np.ndarray, other: np.ndarray) -> None:
    np.testing.assert_array_equal(kernels.union(one, other), np.union1d(one, other))
    np.testing.assert_array_equal(kernels.union(one, one), one)

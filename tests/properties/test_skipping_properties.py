"""What may be passed over, and what is done without compiled code: nothing but time depends on either.

The reference is the same search told that every term may add infinitely much, so that nothing is ever passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from ragistry import Analyzer, characters, compiled, text
from ragistry.encoders import terms
from ragistry.encoders.terms import Terms
from ragistry.indexes import inverted, kernels, plain
from ragistry.indexes.inverted import Inverted
from ragistry.indexes.weighting import BM25, Dirichlet, Impact, JelinekMercer, Weighting
from ragistry.types import Ranking

WORDS = 60
WEIGHTINGS: list[Weighting] = [
    *(BM25(variant=variant) for variant in ("robertson", "lucene", "atire", "bm25l", "bm25+")),
    BM25(k1=0.0, b=1.0),
    BM25(k1=2.0, b=0.0),
    Dirichlet(mu=20.0),
    Dirichlet(mu=2000.0),
    JelinekMercer(weight=0.4),
    Impact(),
]
seeds = st.integers(0, 2**32 - 1)
weightings = st.sampled_from(WEIGHTINGS)
unhurried = settings(deadline=None, max_examples=40)

COLLECTIONS: dict[tuple[int, bool], Inverted] = {}


def made(size: int, updated: bool) -> Inverted:
    """An index of words as frequent as in language, in several segments with removed documents if it was updated."""
    if (size, updated) not in COLLECTIONS:
        draw = np.random.default_rng(size)
        index = Inverted(Impact())
        names = draw.permutation(3 * size)[:size].astype(str).tolist()  # so that ties are not broken by row
        cuts = [0, size * 7 // 10, size * 19 // 20, size] if updated else [0, size]
        for first, last in pairwise(cuts):
            index.add(names[first:last], counts(draw, last - first, 12))
        if updated:
            index.remove(names[::7])
        COLLECTIONS[size, updated] = index
    return COLLECTIONS[size, updated]


def counts(draw: np.random.Generator, rows: int, length: int) -> csr_array:
    share = 1 / np.arange(1.0, WORDS + 1)
    words = draw.choice(WORDS, rows * length, p=share / share.sum())
    owners = np.repeat(np.arange(rows), length)
    found = csr_array((np.ones(len(words), np.float32), (owners, words)), shape=(rows, WORDS))
    found.sum_duplicates()
    return found


def bits(rankings: list[Ranking]) -> list[tuple[tuple[str, ...], bytes]]:
    return [(ranking.ids, ranking.scores.tobytes()) for ranking in rankings]


def told(bound: float, search: Callable[..., Any]) -> Callable[..., Any]:
    """A search that is told what every term adds at most."""

    def ask(
        starts: Any, rows: Any, weights: Any, lengths: Any, places: Any, amounts: Any, tops: Any, *rest: Any
    ) -> Any:
        return search(starts, rows, weights, lengths, places, amounts, np.full_like(tops, bound), *rest)

    return ask


@contextmanager
def searching(by: Callable[..., Any]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "search", by)
        yield


@contextmanager
def loading(wanted: bool) -> Iterator[None]:
    """With compiled code for everything, or for nothing that can be done without."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (inverted, characters, text, terms):
            patch.setattr(module, "worth_loading", lambda steps: wanted)
        yield


@contextmanager
def nothing_compiled() -> Iterator[None]:
    """Kernels are only there as they are written."""
    with pytest.MonkeyPatch.context() as patch, loading(False):
        kept = {kernels: ["search", "weigh"], terms: ["_count"], characters: ["_tokenize"]}
        kept |= {text: ["hashed", "_lookup", "_insert"]}
        for module, names in kept.items():
            for name in names:
                patch.setattr(module, name, SimpleNamespace(__wrapped__=getattr(module, name).__wrapped__))
        yield


@unhurried
@given(
    st.sampled_from([50, 9_000, 40_000]),
    st.booleans(),
    weightings,
    seeds,
    st.integers(1, 30),
    st.sampled_from([1, 3, 10, 200]),
)
def test_what_is_passed_over_changes_nothing(
    size: int, updated: bool, weighting: Weighting, seed: int, words: int, k: int
) -> None:
    draw = np.random.default_rng(seed)
    queries = counts(draw, 5, words)
    index = made(size, updated).weighted(weighting)
    among = frozenset(draw.permutation(3 * size)[: draw.integers(1, 3 * size)].astype(str).tolist())
    with loading(True):
        for allowed in (None, among):
            found = bits(index.search(queries, k, among=allowed))
            with searching(told(np.inf, kernels.search)):
                assert found == bits(index.search(queries, k, among=allowed))


@unhurried
@given(seeds, st.integers(1, 6), st.sampled_from([1e-42, 1e-38, 1e-20, 1.0, 1e30]), st.integers(1, 5))
def test_weights_of_any_size(seed: int, words: int, scale: float, k: int) -> None:
    draw = np.random.default_rng(seed)
    documents = csr_array((draw.random((9_000, words)) < 0.3) * draw.choice([1.0, 2.0, 1 + 1e-7, 3.3], (9_000, words)))
    documents = csr_array(documents.astype(np.float64) * scale).astype(np.float32)
    index = Inverted(Impact())
    index.add([str(i) for i in draw.permutation(9_000)], documents)
    queries = csr_array(draw.choice([0.0, 1.0, 0.1, 7.0], (3, words)).astype(np.float32))
    with loading(True):
        found = bits(index.search(queries, k))
        with searching(told(np.inf, kernels.search)):
            assert found == bits(index.search(queries, k))
    with loading(False):
        assert found == bits(index.weighted(Impact()).search(queries, k))


def test_terms_are_passed_over() -> None:
    """A bound that is too low loses documents, so bounds are heeded; where that does no harm, nothing is lost."""
    index, draw = made(40_000, False).weighted(BM25()), np.random.default_rng(1)
    queries = counts(draw, 20, 4)
    with loading(True):
        right = bits(index.search(queries, 10))
        with searching(told(1e-6, kernels.search)):
            assert bits(index.search(queries, 10)) != right


@unhurried
@given(
    st.sampled_from([50, 9_000]), st.booleans(), weightings, seeds, st.integers(0, 12), st.sampled_from([1, 10, 60])
)  # fmt: skip
def test_numpy_gives_the_same_bits(
    size: int, updated: bool, weighting: Weighting, seed: int, words: int, k: int
) -> None:
    draw = np.random.default_rng(seed)
    queries = counts(draw, 4, words)
    among = draw.permutation(3 * size)[: draw.integers(0, 3 * size)].astype(str).tolist()
    for allowed in (None, among):
        with loading(True):
            expected = bits(made(size, updated).weighted(weighting).search(queries, k, among=allowed))
        with loading(False):
            assert bits(made(size, updated).weighted(weighting).search(queries, k, among=allowed)) == expected
        with nothing_compiled():
            index = made(size, updated).weighted(weighting)
            if weighting.form in plain.FORMS and not weighting.prior:
                assert bits(index.search(queries, k, among=allowed)) == expected


anything = st.characters(codec=None, categories=("L", "N", "M", "P", "S", "Z", "C"))
texts = st.lists(
    st.one_of(
        st.text(max_size=30),
        st.text(anything, max_size=15),
        st.text("aB1_.:-/+# 東京가\u1100\u1161\u0301\0\u200d\U000e0101🦜", max_size=40),
        st.sampled_from(
            ["os.path.join", "getUserName C++ C#", "aB" * 200, "東" * 300, "the sonnet has fourteen lines"]
        ),
    ),
    max_size=4,
)


@settings(deadline=None)
@given(texts, st.booleans())
@example(["C++"], True)
@example([], True)
def test_texts_give_the_same_terms(given_texts: list[str], identifiers: bool) -> None:
    def found() -> list[Any]:
        analyzer = Analyzer(identifiers=identifiers)
        counted = Terms(analyzer).counts(given_texts)
        spans = [analyzer.tokens(one) for one in given_texts]
        return [*(array.tolist() for array in counted[:3]), counted.shape, spans]

    with loading(True):
        expected = found()
    with nothing_compiled():
        assert found() == expected


def test_counts_are_the_arrays_of_the_encoded() -> None:
    items = ["The cat sat on the mat. The cat, the cat!", "", "os.path.join"]
    encoded, counted = Terms(Analyzer()).encode(items, "query"), Terms(Analyzer()).counts(items)
    assert encoded.shape == counted.shape
    for name in ("data", "indices", "indptr"):
        assert getattr(encoded, name).tolist() == getattr(counted, name).tolist()
    index = Inverted(BM25())
    index.add(["a", "b", "c"], encoded)
    assert bits(index.search(encoded, 3)) == bits(index.search(counted, 3))


def test_every_code_point_has_the_class_it_has_alone() -> None:
    some = np.random.default_rng(0).choice(0x110000, 3_000, replace=False)
    codes = np.unique(np.concatenate((some, np.arange(0x3100)))).astype(np.uint32)
    assert characters._classes(codes).tolist() == characters._table()[codes].tolist()


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_loaded", False)
    monkeypatch.setattr(compiled, "_steps", 0)
    assert not compiled.worth_loading(400_000)
    assert not compiled.worth_loading(0)
    assert compiled.worth_loading(200_000)
    assert compiled.worth_loading(0)
    monkeypatch.setattr(compiled, "_steps", 0)
    monkeypatch.setattr(compiled, "_loaded", True)
    assert compiled.worth_loading(0)

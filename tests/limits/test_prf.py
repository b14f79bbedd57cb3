"""Feedback where it must equal something simpler, and sums written out by hand."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from ragistry import Analyzer, Document, Ranking, create
from ragistry.encoders.functions import Function
from ragistry.encoders.projected import Projection
from ragistry.indexes.faiss import Faiss
from ragistry.protocols import Feedback
from ragistry.retrievers.adapted import Adapted
from ragistry.retrievers.expanders import RM3, VectorPRF
from ragistry.retrievers.fuse import Fuse
from ragistry.retrievers.interpolated import Interpolated
from ragistry.retrievers.prf import PRF
from ragistry.retrievers.searcher import Searcher
from ragistry.types import Among

WORDS = "cat dog mat poem line sonnet river stone house bread".split()
DOCUMENTS = [
    Document(f"{i:02}", " ".join(WORDS[(i * j + j + i % 3) % 10] for j in range(2 + i % 5)) + f" {i}")
    for i in range(40)
]
QUERIES = ["cat", "dog mat", "a poem of stone and bread, a poem", "number 7", "nothing of that kind", ""]
SOME = [f"{i:02}" for i in range(0, 40, 3)]
LEXICAL = [
    {"name": "bm25"},
    {"name": "bm25", "variant": "bm25+"},
    {"name": "query-likelihood", "mu": 20.0},
    {"name": "query-likelihood", "smoothing": "jelinek-mercer"},
]


def letters(texts: list[str]) -> np.ndarray:
    return np.array([[1 + text.count(letter) for letter in "abcdemnoprst"] for text in texts], np.float32)


def dense(documents: Sequence[Document] = DOCUMENTS) -> Searcher:
    made = Searcher(Function(letters, "letters of feedback"), Faiss())
    made.add(documents)
    return made


def words(spec: dict[str, Any] | str = "bm25") -> Any:
    made: Any = create(spec)
    made.add(DOCUMENTS)
    return made


@pytest.mark.parametrize("among", [None, SOME, SOME[:2]])
@pytest.mark.parametrize("settings", [{"expander": VectorPRF(alpha=0.3, beta=0.0), "depth": 5}, {"depth": 0}])
def test_no_feedback_is_the_base(settings: dict[str, Any], among: Among) -> None:
    base = dense()
    looking = PRF(base, **({"expander": VectorPRF()} | settings))
    for k in (1, 5, 100):
        assert looking.search(QUERIES, k, among=among) == base.search(QUERIES, k, among=among)


def test_what_was_learnt_of_queries_is_searched_with() -> None:
    base = Adapted(Function(letters, "letters of feedback"), Faiss, Faiss)
    base.add(DOCUMENTS)
    turn = np.random.default_rng(0).standard_normal((12, 12)).astype(np.float32)
    taught = base.taught(SOME, Projection("linear", {"query": {"weight": turn}}))
    assert taught.search(QUERIES, 40) != base.search(QUERIES, 40)
    assert PRF(taught, VectorPRF(beta=0.0)).search(QUERIES, 40) == taught.search(QUERIES, 40)
    alone = PRF(taught, VectorPRF(alpha=0.0, beta=1.0), depth=1).search(QUERIES, 40)
    assert alone == taught.index.search(taught.index.vectors([r.ids[0] for r in taught.search(QUERIES, 1)]), 40)


@pytest.mark.parametrize("spec", LEXICAL)
@pytest.mark.parametrize("among", [None, SOME, SOME[:2]])
def test_words_with_all_the_weight_on_the_query_are_the_base(spec: dict[str, Any], among: Among) -> None:
    base = words(spec)
    looking = PRF(base, RM3(weight=1.0), depth=5, common=0.5)
    for k in (1, 5, 100):
        assert looking.search(QUERIES, k, among=among) == base.search(QUERIES, k, among=among)


@pytest.mark.parametrize("among", [None, SOME])
def test_one_document_without_the_query_is_a_search_by_that_document(among: Among) -> None:
    base = dense()
    found = PRF(base, VectorPRF(alpha=0.0, beta=1.0), depth=1).search(QUERIES, 40, among=among)
    nearest = [ranking.ids[0] for ranking in base.search(QUERIES, 1, among=among)]
    assert found == base.index.search(base.index.vectors(nearest), 40, among=among)
    assert [ranking.ids[0] for ranking in found] == nearest


@pytest.mark.parametrize("depth", [1, 3, 100])
def test_the_average_is_rocchio(depth: int) -> None:
    base, used = dense(), min(depth, len(DOCUMENTS))
    average = PRF(base, VectorPRF("average"), depth=depth).search(QUERIES, 40)
    rocchio = PRF(base, VectorPRF(alpha=1 / (used + 1), beta=used / (used + 1)), depth=depth).search(QUERIES, 40)
    assert average == rocchio


def test_the_mean_by_hand() -> None:
    base = dense()
    nearest = base.search(["poem line"], 3)[0]
    own = base.encoder.encode(["poem line"], "query")
    found: Any = base.index.vectors(nearest.ids)
    for mode, expected in (
        ("rocchio", 0.25 * own[0] + 2.0 * (found[0] + found[1] + found[2]) / 3),  # type: ignore[index]
        ("average", (own[0] + found[0] + found[1] + found[2]) / 4),  # type: ignore[index]
    ):
        looking = PRF(base, VectorPRF(mode, alpha=0.25, beta=2.0), depth=3)  # type: ignore[arg-type]
        by_hand = base.index.search(expected[None].astype(np.float32), 40)[0]
        scores = dict(by_hand)
        result = looking.search(["poem line"], 40)[0]
        assert dict(result) == pytest.approx(scores, rel=1e-5)
        assert result.ids[:5] == by_hand.ids[:5]


@given(scale=st.sampled_from([0.25, 4.0, 1024.0]), share=st.sampled_from([0.125, 0.5, 0.75]))
def test_only_the_ratio_of_alpha_and_beta_orders(scale: float, share: float) -> None:
    base = dense()
    one, other = (PRF(base, VectorPRF(alpha=c * (1 - share), beta=c * share)).search(QUERIES, 40) for c in (1.0, scale))
    assert [ranking.ids for ranking in one] == [ranking.ids for ranking in other]


def test_without_feedback_queries_stay_as_they_were() -> None:
    nothing = Feedback([], np.empty((0, 2), np.float32), np.empty(0, np.float32))
    own = np.array([[3, 4]], np.float32)
    for expander in (VectorPRF("average"), VectorPRF(alpha=0.0)):
        assert expander.expand("any", own, nothing) is own
    sparse = csr_array([[3.0, 0.0]])
    for likelihood in (False, True):
        for found, scores in ((csr_array((0, 2)), []), (csr_array([[0.0, 0.0]]), [2.0])):
            feedback = Feedback([], found, np.array(scores, np.float32))
            assert RM3(weight=0.0, likelihood=likelihood).expand("any", sparse, feedback) is sparse


def test_a_relevance_model_by_hand() -> None:
    # Scores 3 and 1. Shares of words: a 1/4 and 1/2, b 3/4 and 0, c 0 and 1/2: sums 5/4, 9/4 and 1/2.
    found, query = csr_array([[1.0, 3.0, 0.0, 0.0], [1.0, 0.0, 1.0, 0.0]]), csr_array([[0.0, 0.0, 1.0, 3.0]])
    feedback = Feedback([], found, np.array([3, 1], np.float32))
    every = RM3(terms=3, weight=0.5).expand("any", query, feedback).toarray()[0]
    np.testing.assert_allclose(every, [5 / 32, 9 / 32, 1 / 8 + 1 / 16, 3 / 8], rtol=1e-6)
    two = RM3(terms=2, weight=0.25).expand("any", query, feedback).toarray()[0]
    np.testing.assert_allclose(two, [0.75 * 5 / 14, 0.75 * 9 / 14, 1 / 16, 3 / 16], rtol=1e-6)
    alone = RM3(terms=1, weight=0.0).expand("any", query, feedback).toarray()[0]
    np.testing.assert_allclose(alone, [0, 1, 0, 0])
    # As log-likelihoods the documents weigh 1 and exp(-2); what is added to both changes nothing.
    lesser = math.exp(-2)
    sums = np.array([1 / 4 + lesser / 2, 3 / 4, lesser / 2])
    for shift in (0.0, -700.0, 500.0):
        moved = Feedback([], found, np.array([3 + shift, 1 + shift], np.float32))
        likely = RM3(terms=3, weight=0.0, likelihood=True).expand("any", query, moved).toarray()[0]
        np.testing.assert_allclose(likely[:3], sums / sums.sum(), rtol=1e-6)


@pytest.mark.parametrize("scores", [[0.0, 0.0], [-2.0, -1.0]])
def test_scores_that_weigh_nothing_weigh_alike(scores: list[float]) -> None:
    feedback = Feedback([], csr_array([[1.0, 0.0], [0.0, 1.0]]), np.array(sorted(scores)[::-1], np.float32))
    model = RM3(terms=1, weight=0.0).expand("any", csr_array([[1.0, 1.0]]), feedback).toarray()[0]
    assert model.tolist() == [1.0, 0.0]  # the first column of equal ones


def model_of(query: str, look: Ranking, terms: int, weight: float, common: float, likelihood: bool) -> dict[str, float]:
    """RM3 once more, over texts and in plain sums."""
    counts = {document.id: Counter(Analyzer().terms(document.text)) for document in DOCUMENTS}
    holding = Counter(term for held in counts.values() for term in held)
    best = max(look.scores.tolist(), default=0.0)
    sums: dict[str, float] = {}
    for id, score in look:
        kept = {term: n for term, n in counts[id].items() if holding[term] <= max(7, common * len(DOCUMENTS))}
        for term, n in kept.items():
            of = math.exp(score - best) if likelihood else score
            sums[term] = sums.get(term, 0.0) + of * n / sum(kept.values())
    kept = dict(sorted(sums.items(), key=lambda item: -item[1])[:terms])
    own = Counter(Analyzer().terms(query))
    mixed = {term: weight * n / own.total() for term, n in own.items()}
    for term, value in kept.items():
        mixed[term] = mixed.get(term, 0.0) + (1 - weight) * value / sum(kept.values())
    return mixed


@pytest.mark.parametrize("query", QUERIES[:4])
@pytest.mark.parametrize("common", [0.2, 1.0])
@pytest.mark.parametrize("spec", [LEXICAL[0], LEXICAL[3]])
def test_a_document_gets_the_sum_over_the_model(query: str, common: float, spec: dict[str, Any]) -> None:
    base, likelihood = words(spec), spec["name"] == "query-likelihood"
    looking = PRF(base, RM3(terms=100, weight=0.3, likelihood=likelihood), depth=7, common=common)
    expected: dict[str, float] = {}
    for term, weight in model_of(query, base.search([query], 7)[0], 100, 0.3, common, likelihood).items():
        for id, score in base.search([term], 40)[0]:
            expected[id] = expected.get(id, 0.0) + weight * score
    assert dict(looking.search([query], 40)[0]) == pytest.approx(expected, rel=1e-4)


def test_documents_are_counted_as_they_come_and_go() -> None:
    """Words that are too common are found so in any state of the index: in parts, with documents removed."""
    looking = PRF(create("bm25"), RM3(terms=5), depth=3, common=0.2)  # type: ignore[arg-type]
    for first in range(0, 40, 7):
        looking.add(DOCUMENTS[first : first + 7])
    looking.add([Document(f"gone {i}", "poem cat") for i in range(30)])
    looking.remove(f"gone {i}" for i in range(30))
    assert looking.search(QUERIES, 40) == PRF(words(), RM3(terms=5), depth=3, common=0.2).search(QUERIES, 40)


def test_fewer_documents_than_are_looked_at() -> None:
    few = dense(DOCUMENTS[:3])
    looks = [PRF(few, VectorPRF(), depth=depth).search(QUERIES) for depth in (3, 4, 1000)]
    assert looks[0] == looks[1] == looks[2]
    assert [len(ranking) for ranking in looks[0]] == [3] * len(QUERIES)
    base = words()
    only = SOME[:2]
    assert PRF(base, RM3(), depth=2).search(QUERIES, among=only) == PRF(base, RM3(), depth=9).search(
        QUERIES, among=only
    )


def test_a_first_look_by_the_same_searcher_changes_nothing() -> None:
    base = dense()
    for among in (None, SOME):
        one = PRF(base, VectorPRF(), depth=4, first=base).search(QUERIES, 40, among=among)
        assert one == PRF(base, VectorPRF(), depth=4).search(QUERIES, 40, among=among)


@pytest.mark.parametrize("position", ["before", "after", "both"])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("among", [None, SOME])
def test_interpolation_is_a_composition(
    position: Literal["before", "after", "both"], weight: float, among: Among
) -> None:
    sparse, near, expander = words(), dense(), VectorPRF()

    def fused(member: Any) -> Any:
        members, weights = {"sparse": sparse, "dense": member}, {"sparse": weight, "dense": 1 - weight}
        return Fuse(members, weights, normalise="min-max", missing="minimum", depth=9)

    made = Interpolated(sparse, near, expander, position=position, weight=weight, feedback=4, depth=9)
    by_hand = {
        "before": PRF(near, expander, depth=4, first=fused(near)),
        "after": fused(PRF(near, expander, depth=4)),
        "both": fused(PRF(near, expander, depth=4, first=fused(near))),
    }
    for k in (1, 7, 40):
        found = made.search(QUERIES, k, among=among)
        assert found == by_hand[position].search(QUERIES, k, among=among)
        if weight == 0:
            assert found == PRF(near, expander, depth=4).search(QUERIES, k, among=among)
        if weight == 1 and position != "before":
            assert found == sparse.search(QUERIES, k, among=among)


@pytest.mark.parametrize("settings", [{"feedback": 0}, {"expander": VectorPRF(alpha=1.0, beta=0.0)}])
def test_interpolation_without_feedback_is_fusion_or_the_dense_member(settings: dict[str, Any]) -> None:
    sparse, near = words(), dense()
    given: dict[str, Any] = {"expander": VectorPRF(), "weight": 0.3} | settings
    fuse = Fuse({"a": sparse, "b": near}, {"a": 0.3, "b": 0.7}, normalise="min-max", missing="minimum")
    assert Interpolated(sparse, near, position="before", **given).search(QUERIES) == near.search(QUERIES)
    assert Interpolated(sparse, near, position="after", **given).search(QUERIES) == fuse.search(QUERIES)
    assert Interpolated(sparse, near, position="both", **given).search(QUERIES) == fuse.search(QUERIES)


def test_a_tenant_learns_nothing_of_another() -> None:
    """Dense scores among one tenant's documents are those of an index that holds no others, to the bit."""
    mine, other = DOCUMENTS[::2], DOCUMENTS[1::2]
    ids = [document.id for document in mine]
    for expander in (VectorPRF(), VectorPRF("average")):
        alone = PRF(dense(mine), expander, depth=4)
        together = PRF(dense([*mine, *other]), expander, depth=4)
        assert together.search(QUERIES, 40, among=ids) == alone.search(QUERIES, 40)
        assert together.search(QUERIES, 40) != together.search(QUERIES, 40, among=ids)
    sparse = words()
    before = PRF(sparse, RM3(), common=None).search(QUERIES, 40, among=ids)
    sparse.add([Document(d.id, " ".join(reversed(d.text.split()))) for d in other])  # the same counts in all
    looks = [looked for ranking in before for looked in ranking.ids]
    assert set(looks) <= set(ids)
    assert PRF(sparse, RM3(), common=None).search(QUERIES, 40, among=ids) == before


def test_words_of_another_tenant_are_not_added() -> None:
    base: Any = create("bm25")
    base.add(
        [Document("a", "sonnet love"), Document("b", "sonnet secret"), Document("c", "love"), Document("d", "secret")]
    )
    looking = PRF(base, RM3())
    assert looking.search(["sonnet"])[0].ids == ("a", "b", "c", "d")
    assert looking.search(["sonnet"], among=["a", "c", "d"])[0].ids == ("a", "c")
    assert looking.search(["sonnet"], among=["c", "d"])[0].ids == ()


def test_equal_documents_are_fed_back_in_the_order_of_their_ids() -> None:
    twins = [
        Document(name, text) for name, text in (("b", "cat mat"), ("a", "cat mat"), ("c", "dog"), ("d", "cat dog"))
    ]
    one, other = PRF(dense(twins), VectorPRF(), depth=1), PRF(dense(twins[::-1]), VectorPRF(), depth=1)
    assert one.search(QUERIES) == other.search(QUERIES)

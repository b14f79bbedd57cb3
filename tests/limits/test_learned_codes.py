"""Learnt codes at their limits: untrained they are the codes they begin with, what is frozen stays, all seen is exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.sparse import csr_array

from ragistry.encoders.functions import Function
from ragistry.indexes.binary import Binary
from ragistry.indexes.faiss import Faiss
from ragistry.indexes.quantised import Codec, Quantised
from ragistry.retrievers.learned_codes import Coding, LearnedCodes
from ragistry.retrievers.searcher import Searcher
from ragistry.training.adapting import Problem
from ragistry.training.compressing import Lessons, Schedule
from ragistry.training.hashing import Hashed, Hashing, signs
from ragistry.training.losses import Batch
from ragistry.training.losses.compression import CodeHinge, LambdaRank
from ragistry.training.losses.distillation import MarginMSE
from ragistry.training.losses.ranking import PairwiseLogistic
from ragistry.training.quantising import Quantise, Quantising, TwoStage
from ragistry.training.samplers import Sampler
from ragistry.training.walks import GraphWalk
from ragistry.types import Document, Floats

D, N, QUERIES = 16, 90, 40
DRAW = np.random.default_rng(0)
HELD: Floats = DRAW.standard_normal((N, D)).astype(np.float32)
ASKED: Floats = (HELD[:QUERIES] + 0.3 * DRAW.standard_normal((QUERIES, D))).astype(np.float32)
IDS = [f"d{i:02}" for i in range(N)]
TEXTS = [f"q{i:02}" for i in range(QUERIES)]
VECTORS = dict(zip([*IDS, *TEXTS], np.concatenate([HELD, ASKED]), strict=True))
ENCODER = Function(lambda texts: [VECTORS[text] for text in texts], "given", normalise=False)
DOCUMENTS = [Document(id, id) for id in IDS]
ROTATION: Floats = np.linalg.qr(DRAW.standard_normal((D, D)))[0].astype(np.float32)
FEW = np.repeat(DRAW.standard_normal((4, 8, 4)), 32, axis=1).astype(np.float32)
CODEC = Codec(ROTATION, FEW)
"""One that loses much: 8 centroids, each of them 32 times."""
SHORT = Schedule(epochs=2, size=16)
ROWS = np.arange(QUERIES)


def problem() -> Problem:
    judged = csr_array((np.ones(QUERIES, np.float32), (ROWS, ROWS)), shape=(QUERIES, N))
    return Problem(TEXTS, ASKED, IDS, HELD, judged)


def coded(**settings: Any) -> LearnedCodes:
    return LearnedCodes(ENCODER, lambda: Quantised(4, codec=CODEC), Faiss, **settings)


def filled(searcher: Any) -> Any:
    searcher.add(DOCUMENTS)
    return searcher


METHODS: dict[str, Any] = {
    "hashing": Hashing(schedule=SHORT),
    "hashing straight through": Hashing(schedule=SHORT, smooth="straight-through", negatives="mined"),
    "quantising": Quantising(CODEC, depth=20, schedule=SHORT),
    "two stages": TwoStage(CODEC, candidates=20, depth=30, coarse=SHORT, fine=SHORT),
}


@pytest.mark.parametrize("make", [Binary, lambda: Quantised(4, codec=CODEC)], ids=["bits", "codes"])
def test_untaught_it_is_the_searcher_over_codes(make: Any) -> None:
    plain, mine = filled(Searcher(ENCODER, make())), filled(LearnedCodes(ENCODER, make, Faiss))
    for k in (1, 7, N):
        assert mine.search(TEXTS, k) == plain.search(TEXTS, k)
        assert mine.search(TEXTS, k, among=IDS[::3]) == plain.search(TEXTS, k, among=IDS[::3])
        assert mine.search_vectors(ASKED, k) == plain.search_vectors(ASKED, k)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_before_the_first_step_training_ranks_as_the_base(method: Any) -> None:
    lessons = Lessons(problem(), QUERIES)
    if isinstance(method, TwoStage):
        before = Coding()
    else:
        looks, _ = method.train(lessons, ROWS)
        before = looks[0]
        assert not np.array_equal(method.scores(problem(), looks[2])(ROWS), method.base(problem())(ROWS))
    np.testing.assert_array_equal(method.scores(problem(), before)(ROWS), method.base(problem())(ROWS))


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_what_is_chosen_by_is_what_is_served(method: Any) -> None:
    """Scores in training and those of the taught searcher rank alike."""
    start: LearnedCodes = (
        coded() if "hash" not in type(method).__name__.lower() else LearnedCodes(ENCODER, Binary, Faiss)
    )
    if isinstance(method, TwoStage):
        start = coded(depth=method.depth, weight=method.weight)
    looks, _ = method.train(Lessons(problem(), QUERIES), ROWS)
    last = looks[max(looks)]
    taught = method.taught(filled(start), IDS, last)
    scores = method.scores(problem(), last)(ROWS)
    for row, ranking in enumerate(taught.search(TEXTS, 10)):
        found = scores[row, [IDS.index(id) for id in ranking.ids]]
        np.testing.assert_allclose(found, ranking.scores, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found, np.sort(scores[row])[::-1][:10], rtol=1e-4, atol=1e-4)


def test_codes_and_rotation_stay_while_centroids_are_learnt() -> None:
    searcher = filled(coded())
    method: Quantising = METHODS["quantising"]
    looks, _ = method.train(Lessons(problem(), QUERIES), ROWS)
    taught: Any = method.taught(searcher, IDS, looks[2])
    learnt = taught.coding.codec
    assert learnt is not None
    np.testing.assert_array_equal(learnt.rotation, CODEC.rotation)
    np.testing.assert_array_equal(taught.codes.codes(IDS), CODEC.encode(HELD))
    assert not np.array_equal(learnt.centroids, CODEC.centroids)
    again = taught.fork()
    again.remove(IDS[:5])
    again.add(DOCUMENTS[:5])
    np.testing.assert_array_equal(again.codes.codes(IDS), CODEC.encode(HELD))
    assert again.search(TEXTS, N) == taught.search(TEXTS, N)


def test_all_documents_as_candidates_is_exact_search() -> None:
    exact = filled(Searcher(ENCODER, Faiss()))
    assert filled(coded(depth=N)).search(TEXTS, 10) == exact.search(TEXTS, 10)


def test_recall_does_not_fall_with_depth() -> None:
    exact = filled(Searcher(ENCODER, Faiss())).search(TEXTS, 10)

    def recall(depth: int) -> float:
        found = filled(coded(depth=depth)).search(TEXTS, 10)
        return float(np.mean([len({*a.ids} & {*b.ids}) for a, b in zip(found, exact, strict=True)]))

    recalls = [recall(depth) for depth in (10, 20, 40, N)]
    assert recalls == sorted(recalls) and recalls[-1] == 10 and recalls[0] < 10


@settings(deadline=None, max_examples=25)
@given(vectors=arrays(np.float32, st.tuples(st.integers(1, 5), st.just(8)), elements=st.floats(-50, 50, width=16)))
def test_untrained_bits_are_signs_and_their_product_counts_differences(vectors: Floats) -> None:
    step = Hashed(8).eval()
    with torch.no_grad():
        code = step({"vector": torch.from_numpy(vectors)}, "document")["vector"].numpy()
    np.testing.assert_array_equal(code, signs(vectors))
    differences = (code[:, None] != code[None]).sum(axis=2)
    np.testing.assert_array_equal(code @ code.T, 8 - 2.0 * differences)


def test_tanh_grows_into_a_sign() -> None:
    step = Hashed(D).train()
    gaps = []
    for step.sharpness in (1.0, 10.0, 1000.0):
        with torch.no_grad():
            soft = step({"vector": torch.from_numpy(HELD)}, "document")["code"]
        gaps.append(float((soft - torch.from_numpy(signs(HELD))).abs().mean()))
    assert gaps[0] > gaps[1] > gaps[2] and gaps[2] < 0.01


def test_straight_through_is_the_nearest_centroid_and_teaches_both_sides() -> None:
    step = Quantise(CODEC)
    document = torch.from_numpy(HELD.copy()).requires_grad_()
    step.train()
    found = step({"vector": document}, "document")["vector"]
    named = CODEC.rotated(CODEC.decode(CODEC.encode(HELD)))
    np.testing.assert_allclose(found.detach().numpy(), named, atol=1e-5)
    step.eval()
    np.testing.assert_allclose(step({"vector": document}, "document")["vector"].detach().numpy(), named, atol=1e-5)
    found.pow(2).sum().backward()
    assert document.grad is not None and float(document.grad.abs().sum()) > 0
    assert step.centroids.grad is not None and float(step.centroids.grad.abs().sum()) > 0


def same(features: dict[str, torch.Tensor], role: str) -> dict[str, torch.Tensor]:
    return features


def batch(relevance: Floats) -> Batch:
    asked = {"vector": torch.from_numpy(ASKED[: len(relevance)]), "row": torch.arange(len(relevance))}
    held = {"vector": torch.from_numpy(HELD[: relevance.shape[1]]), "row": torch.arange(relevance.shape[1])}
    return Batch(asked, held, torch.from_numpy(relevance))


def test_a_margin_loss_does_not_see_what_is_added_to_a_query() -> None:
    relevance = np.eye(4, 8, dtype=np.float32)
    labels = DRAW.standard_normal((4, 8)).astype(np.float32)
    shifted = labels + np.array([[1], [-2], [30], [0.5]], np.float32)
    one, other = (MarginMSE(csr_array(found))(same, batch(relevance)) for found in (labels, shifted))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    own = csr_array((ASKED[:4] @ HELD[:8].T).astype(np.float32))
    assert MarginMSE(own)(same, batch(relevance)).item() < 1e-9


def test_the_order_loss_with_every_weight_equal_is_the_logistic_one() -> None:
    """One answer and one other document: the weight is a constant."""
    relevance = np.array([[1.0, 0.0]], np.float32)
    found = LambdaRank(temperature=2.0)(same, batch(relevance))
    logistic = PairwiseLogistic(2.0, "dot")(same, batch(relevance))
    torch.testing.assert_close(found, 0.5 * logistic)  # |1/1 - 1/2|


def test_beyond_the_cutoff_nothing_counts() -> None:
    relevance = np.zeros((1, 8), np.float32)
    scores = ASKED[:1] @ HELD[:8].T
    relevance[0, scores[0].argmin()] = 1
    far, cut = (LambdaRank(1.0, cutoff=c)(same, batch(relevance)) for c in (8, 1))
    best = torch.nn.functional.softplus(torch.tensor(scores.max() - scores.min()))
    torch.testing.assert_close(cut, best)  # against the first alone, with the weight 1
    assert far > cut


def test_no_margin_no_hinge() -> None:
    codes = {"vector": torch.from_numpy(signs(HELD[:4]))}
    both = Batch(codes, codes, torch.eye(4))

    def coding(features: dict[str, torch.Tensor], role: str) -> dict[str, torch.Tensor]:
        return features | {"code": features["vector"]}

    assert CodeHinge(margin=0)(coding, both).item() == 0  # each is nearest to itself
    assert CodeHinge(margin=2 * D)(coding, both).item() > 0


def test_a_walk_that_leads_nowhere_is_a_plain_sampler_of_queries() -> None:
    lists = np.full((QUERIES, 4), -1)
    judged = problem().judged
    walk = list(GraphWalk(judged, lists, near=(0, 2), far=(2, 4), size=16).epoch(3))
    plain = list(Sampler(judged, negatives="in-batch", size=16).epoch(3))
    for one, other in zip(walk, plain, strict=True):
        np.testing.assert_array_equal(one.queries, other.queries)
        np.testing.assert_array_equal(one.documents, other.documents)

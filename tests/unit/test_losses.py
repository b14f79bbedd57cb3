"""Losses against sums written out by hand, and what must leave them unchanged."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ragistry.encoders.steps import Features
from ragistry.errors import InvalidInput
from ragistry.training.losses import Batch, Loss, Sum
from ragistry.training.losses.ranking import InfoNCE, PairwiseLogistic, Triplet
from ragistry.training.losses.regularisers import Prediction, Recovery
from ragistry.types import Role


class Identity(nn.Module):
    def forward(self, features: Features, role: Role) -> Features:
        return features


class Shifted(nn.Module):
    def forward(self, features: Features, role: Role) -> Features:
        return features | {"vector": features["vector"] + (1.0 if role == "query" else -2.0)}


def scored(scores: list[list[float]], relevance: list[list[float]]) -> Batch:
    """A batch whose dot products are these scores: queries are unit vectors, documents columns."""
    table = torch.tensor(scores)
    return Batch({"vector": torch.eye(len(scores))}, {"vector": table.T}, torch.tensor(relevance))


def value(loss: Loss, batch: Batch, encoder: nn.Module | None = None) -> float:
    return float(loss(encoder or Identity(), batch).item())


def drawn(seed: int, queries: int = 4, documents: int = 7, grades: int = 3) -> Batch:
    draw = torch.Generator().manual_seed(seed)
    relevance = torch.randint(0, grades, (queries, documents), generator=draw).float()
    return Batch(
        {"vector": torch.randn(queries, 5, generator=draw)},
        {"vector": torch.randn(documents, 5, generator=draw)},
        relevance * (torch.rand(queries, documents, generator=draw) < 0.5),
    )


def softmax(scores: list[float], positive: int, negatives: list[int]) -> float:
    powers = [math.exp(score) for score in scores]
    return -math.log(powers[positive] / (powers[positive] + sum(powers[i] for i in negatives)))


RANKING: list[Callable[[], Loss]] = [
    lambda: InfoNCE(0.5, "dot"),
    lambda: Triplet(0.3, "dot"),
    lambda: PairwiseLogistic(0.5, "dot"),
]


def test_infonce_by_hand() -> None:
    scores = [[2.0, 1.0, 0.0], [0.5, 1.5, 1.0]]
    batch = scored(scores, [[1, 0, 0], [0, 1, 0]])
    want = (softmax(scores[0], 0, [1, 2]) + softmax(scores[1], 1, [0, 2])) / 2
    assert value(InfoNCE(1.0, "dot"), batch) == pytest.approx(want, abs=1e-6)
    halved = [[score / 0.5 for score in row] for row in scores]
    want = (softmax(halved[0], 0, [1, 2]) + softmax(halved[1], 1, [0, 2])) / 2
    assert value(InfoNCE(0.5, "dot"), batch) == pytest.approx(want, abs=1e-6)


def test_cosine_takes_no_notice_of_lengths() -> None:
    batch = drawn(0)
    longer = Batch(
        {"vector": batch.queries["vector"] * 3}, {"vector": batch.documents["vector"] * 0.2}, batch.relevance
    )
    for loss in (InfoNCE(0.1), Triplet(0.5), PairwiseLogistic(0.1)):
        assert value(loss, longer) == pytest.approx(value(loss, batch), abs=1e-5)
    for make in RANKING:
        assert value(make(), longer) != pytest.approx(value(make(), batch), abs=1e-3)


def test_other_answers_of_a_query_are_no_negatives_of_it() -> None:
    scores = [[2.0, 1.0, 0.0, 3.0]]
    want = (softmax(scores[0], 0, [1, 2]) + softmax(scores[0], 3, [1, 2])) / 2
    assert value(InfoNCE(1.0, "dot"), scored(scores, [[1, 0, 0, 1]])) == pytest.approx(want, abs=1e-6)
    hinge = (max(0.0, 0.3 + 1.0 - 2.0) + max(0.0, 0.3 + 1.0 - 3.0)) / 2
    assert value(Triplet(0.3, "dot"), scored(scores, [[1, 0, 0, 1]])) == pytest.approx(hinge)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 1000), queries=st.integers(2, 5))
def test_a_document_that_several_queries_bring_is_one_candidate(seed: int, queries: int) -> None:
    """Queries of one answer each: by hand, each against every other distinct document."""
    draw = np.random.default_rng(seed)
    answer = draw.integers(0, 3, queries)
    documents = draw.normal(size=(3, 4))
    asked = draw.normal(size=(queries, 4))
    distinct = sorted(set(answer.tolist()))
    scores = asked @ documents[distinct].T
    want = np.mean(
        [
            softmax(list(row), distinct.index(own), [i for i, other in enumerate(distinct) if other != own])
            for row, own in zip(scores, answer.tolist(), strict=True)
        ]
    )
    relevance = [[float(own == other) for other in distinct] for own in answer.tolist()]
    batch = Batch(
        {"vector": torch.from_numpy(asked)}, {"vector": torch.from_numpy(documents[distinct])}, torch.tensor(relevance)
    )
    assert value(InfoNCE(1.0, "dot"), batch) == pytest.approx(want, abs=1e-6)


def test_a_duplicate_of_an_answer_is_no_negative_if_it_is_known_to_answer() -> None:
    alone = scored([[2.0, 1.0, 0.0]], [[1, 0, 0]])
    doubled = scored([[2.0, 1.0, 0.0, 2.0]], [[1, 0, 0, 1]])
    unknown = scored([[2.0, 1.0, 0.0, 2.0]], [[1, 0, 0, 0]])
    for make in RANKING:
        assert value(make(), doubled) == pytest.approx(value(make(), alone), abs=1e-6)
        assert value(make(), unknown) > value(make(), alone) + 0.1


@pytest.mark.parametrize("best", [1.0, 4.0])
def test_better_answers_weigh_more_by_their_share_of_the_best(best: float) -> None:
    scores = [[2.0, 1.0, 0.0]]
    batch = scored(scores, [[best, best / 4, 0.0]])
    want = (softmax(scores[0], 0, [2]) + softmax(scores[0], 1, [2]) / 4) / 1.25
    assert value(InfoNCE(1.0, "dot"), batch) == pytest.approx(want, abs=1e-6)
    hinge = (max(0.0, 1.5 + 0.0 - 2.0) + max(0.0, 1.5 + 0.0 - 1.0) / 4) / 1.25
    assert value(Triplet(1.5, "dot"), batch) == pytest.approx(hinge, abs=1e-6)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 1000), which=st.integers(0, 2))
def test_the_order_of_queries_and_documents_does_not_matter(seed: int, which: int) -> None:
    batch, loss = drawn(seed), RANKING[which]()
    draw = torch.Generator().manual_seed(seed)
    rows, columns = torch.randperm(4, generator=draw), torch.randperm(7, generator=draw)
    other = Batch(
        {"vector": batch.queries["vector"][rows]},
        {"vector": batch.documents["vector"][columns]},
        batch.relevance[rows][:, columns],
    )
    assert value(loss, other) == pytest.approx(value(loss, batch), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("make", RANKING)
@pytest.mark.parametrize("relevance", [[[0, 0, 0], [0, 0, 0]], [[1, 1, 1], [1, 1, 1]], [[0, 0, 0], [2, 2, 2]]])
def test_without_a_difference_to_learn_there_is_no_loss(make: Callable[[], Loss], relevance: list[list[float]]) -> None:
    batch = scored([[2.0, 1.0, 0.0], [-1.0, 3.0, 7.0]], relevance)
    batch.documents["vector"].requires_grad_()
    loss = make()(Identity(), batch)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    gradient = batch.documents["vector"].grad
    assert gradient is not None
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("make", RANKING)
def test_a_step_along_the_gradient_brings_answers_nearer(make: Callable[[], Loss]) -> None:
    scores = torch.tensor([[0.0, 1.0, 0.5], [1.0, 0.9, 0.8]], requires_grad=True)
    batch = Batch({"vector": torch.eye(2)}, {"vector": scores.T}, torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]))
    make()(Identity(), batch).backward()
    gradient = scores.grad
    assert gradient is not None
    assert (gradient[batch.relevance > 0] < 0).all()
    assert gradient[0, 1] > 0
    assert gradient[1, 0] > 0


def test_triplet_falls_as_the_answer_comes_nearer_and_ends_at_the_margin() -> None:
    losses = [
        value(Triplet(0.2, "dot"), scored([[score, 1.0, 0.5]], [[1, 0, 0]])) for score in (0.0, 0.5, 1.0, 1.25, 1.5)
    ]
    assert losses == pytest.approx([1.2, 0.7, 0.2, 0.0, 0.0], abs=1e-6)
    angles = [0.1, 0.5, 1.0, 2.0, 3.0]
    turned = [
        value(
            Triplet(0.2),
            Batch(
                {"vector": torch.tensor([[1.0, 0.0]])},
                {"vector": torch.tensor([[math.cos(angle), math.sin(angle)], [0.5, -0.5]])},
                torch.tensor([[1.0, 0.0]]),
            ),
        )
        for angle in angles
    ]
    assert turned == sorted(turned)
    assert turned[-1] > turned[0]


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 1000), margin=st.floats(0, 2))
def test_the_hardest_negative_is_that_of_brute_force(seed: int, margin: float) -> None:
    batch = drawn(seed, grades=2)
    queries, documents = (
        torch.nn.functional.normalize(features["vector"], dim=-1).numpy()
        for features in (batch.queries, batch.documents)
    )
    hinges = []
    for query, relevance in zip(queries, batch.relevance.numpy(), strict=True):
        scores = [float(query @ document) for document in documents]
        wrong = [score for score, found in zip(scores, relevance, strict=True) if found == 0]
        hinges += [
            max(0.0, margin + max(wrong, default=-math.inf) - score)
            for score, found in zip(scores, relevance, strict=True)
            if found > 0
        ]
    want = sum(hinges) / max(1, len(hinges))
    assert value(Triplet(margin), batch) == pytest.approx(want, abs=1e-5)


def test_a_kept_margin_teaches_nothing() -> None:
    batch = scored([[2.0, 1.0], [0.0, 1.0]], [[1, 0], [0, 1]])
    documents = batch.documents["vector"].requires_grad_()
    Triplet(0.9, "dot")(Identity(), batch).backward()
    assert documents.grad is not None
    assert torch.equal(documents.grad, torch.zeros_like(documents))
    documents.grad = None
    Triplet(1.1, "dot")(Identity(), batch).backward()
    assert documents.grad.abs().sum() > 0


def test_pairwise_logistic_by_hand() -> None:
    scores, relevance = [2.0, 1.0, 0.5], [2.0, 1.0, 0.0]
    pairs = [(0, 1, 1.0), (0, 2, 2.0), (1, 2, 1.0)]
    want = sum(weight * math.log(1 + math.exp((scores[k] - scores[j]) / 0.5)) for j, k, weight in pairs) / 4
    assert value(PairwiseLogistic(0.5, "dot"), scored([scores], [relevance])) == pytest.approx(want, abs=1e-6)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 1000), constants=st.lists(st.floats(-5, 5), min_size=4, max_size=4))
def test_ranking_losses_see_differences_of_scores_only(seed: int, constants: list[float]) -> None:
    relevance = drawn(seed).relevance
    scores = torch.randn(4, 7, generator=torch.Generator().manual_seed(seed))
    shifted = scores + torch.tensor(constants)[:, None]
    for make in RANKING:
        one, two = (
            value(make(), Batch({"vector": torch.eye(4)}, {"vector": table.T}, relevance))
            for table in (scores, shifted)
        )
        assert one == pytest.approx(two, rel=1e-4, abs=1e-4)


def test_only_pairwise_logistic_learns_an_order_among_answers() -> None:
    right, wrong = scored([[3.0, 2.0, 0.0]], [[2, 1, 0]]), scored([[2.0, 3.0, 0.0]], [[2, 1, 0]])
    assert value(PairwiseLogistic(1.0, "dot"), right) < value(PairwiseLogistic(1.0, "dot"), wrong) - 0.1
    assert value(Triplet(0.1, "dot"), right) == value(Triplet(0.1, "dot"), wrong) == 0
    hard = scored([[2.0, 3.0]], [[2, 1]])
    assert value(InfoNCE(1.0, "dot"), hard) == pytest.approx(0, abs=1e-6)
    assert value(PairwiseLogistic(1.0, "dot"), hard) == pytest.approx(math.log(1 + math.e), abs=1e-5)


def test_recovery_is_how_far_vectors_were_moved() -> None:
    batch = drawn(3)
    assert value(Recovery(), batch) == 0
    assert value(Recovery(), batch, Shifted()) == pytest.approx(5 * 1.0 + 5 * 2.0, abs=1e-4)


def test_prediction_is_nothing_where_answers_are_their_queries() -> None:
    same = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    batch = Batch({"vector": same}, {"vector": same}, torch.eye(4))
    assert value(Prediction(5), batch) == pytest.approx(0, abs=1e-5)
    assert value(Prediction(5), batch, Shifted()) == pytest.approx(5 * 3.0, abs=1e-4)


def test_prediction_is_weighted_by_relevance_and_learns() -> None:
    queries, documents = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 2.0], [4.0, 0.0], [9.0, 9.0]])
    batch = Batch({"vector": queries}, {"vector": documents}, torch.tensor([[3.0, 1.0, 0.0]]))
    loss = Prediction(2)
    assert value(loss, batch) == pytest.approx((3 * 2.0 + 1 * 3.0) / 4, abs=1e-6)
    with torch.no_grad():
        loss.predictor.weight.zero_()
        loss.predictor.bias.copy_(queries[0])
    assert value(loss, batch) == pytest.approx(0, abs=1e-6)
    assert {name for name, _ in loss.named_parameters()} == {"predictor.weight", "predictor.bias"}


class Noting(Loss):
    def __init__(self, constant: float) -> None:
        super().__init__()
        self.constant = nn.Parameter(torch.tensor(constant))
        self.steps: list[int] = []

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        return self.constant * 1

    def after_step(self, encoder: nn.Module, step: int) -> None:
        self.steps.append(step)


def test_a_sum_adds_trains_and_tells_its_parts() -> None:
    one, two = Noting(3.0), Noting(5.0)
    total = Sum([(2.0, one), (0.5, two)])
    loss = total(Identity(), drawn(0))
    loss.backward()
    total.after_step(Identity(), 7)
    assert loss.item() == 2 * 3.0 + 0.5 * 5.0
    assert [part.constant.grad.item() for part in (one, two)] == [2.0, 0.5]  # type: ignore[union-attr]
    assert len(list(total.parameters())) == 2
    assert one.steps == two.steps == [7]


@pytest.mark.parametrize(
    "make",
    [
        lambda: InfoNCE(0.0),
        lambda: InfoNCE(-1.0),
        lambda: InfoNCE(math.nan),
        lambda: Triplet(-0.1),
        lambda: Triplet(math.nan),
        lambda: PairwiseLogistic(0.0),
        lambda: PairwiseLogistic(math.nan),
    ],
)
def test_arguments_that_make_no_sense_are_refused(make: Callable[[], Loss]) -> None:
    with pytest.raises(InvalidInput, match="is needed"):
        make()


def test_a_loss_must_say_what_it_is() -> None:
    class Empty(Loss):
        pass

    with pytest.raises(NotImplementedError, match="Empty must define forward"):
        Empty()(Identity(), drawn(0))

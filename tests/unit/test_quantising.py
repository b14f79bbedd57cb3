"""Centroids learnt for the order of an index: what its losses see and what its training keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from ragistry.errors import InvalidInput
from ragistry.indexes.quantised import Codec
from ragistry.training.adapting import Problem
from ragistry.training.compressing import Lessons, Numbered, Schedule, best_of
from ragistry.training.losses import Batch, Loss
from ragistry.training.losses.compression import Distortion, LambdaRank, Unquantised
from ragistry.training.losses.distillation import Divided, MarginMSE
from ragistry.training.losses.ranking import InfoNCE
from ragistry.training.quantising import Quantise, Quantising, TwoStage
from ragistry.types import Floats

D, N, QUERIES = 8, 60, 30
DRAW = np.random.default_rng(3)
HELD: Floats = DRAW.standard_normal((N, D)).astype(np.float32)
ASKED: Floats = (HELD[:QUERIES] + 0.3 * DRAW.standard_normal((QUERIES, D))).astype(np.float32)
TURN: Floats = np.linalg.qr(DRAW.standard_normal((D, D)))[0].astype(np.float32)
CODEC = Codec(TURN, np.repeat(DRAW.standard_normal((2, 16, 4)), 16, axis=1).astype(np.float32))
ROWS = np.arange(QUERIES)


def problem(judged: Floats | None = None) -> Problem:
    found = np.eye(QUERIES, N, dtype=np.float32) if judged is None else judged
    queries, ids = [f"q{i}" for i in range(QUERIES)], [f"d{i}" for i in range(N)]
    return Problem(queries, ASKED, ids, HELD, csr_array(found))


def batch(queries: int = 4, documents: int = 9) -> Batch:
    source = Numbered(ASKED, HELD)
    return Batch(
        source.queries(np.arange(queries)), source.documents(np.arange(documents)), torch.eye(queries, documents)
    )


def test_a_codec_comes_back_as_it_was() -> None:
    codec = Quantise(CODEC).codec()
    np.testing.assert_array_equal(codec.centroids, CODEC.centroids)
    assert codec.rotation is CODEC.rotation


@pytest.mark.parametrize("rotation", [None, TURN], ids=["plain", "rotated"])
def test_inner_products_are_those_of_the_index(rotation: Floats | None) -> None:
    codec = Codec(rotation, CODEC.centroids)
    codes = codec.encode(HELD)
    step, source = Quantise(codec, codes).eval(), Numbered(ASKED, HELD)
    with torch.no_grad():
        asked = step(source.queries(np.arange(5)), "query")["vector"]
        held = step(source.documents(np.arange(N)), "document")["vector"]
    np.testing.assert_allclose((asked @ held.T).numpy(), ASKED[:5] @ codec.decode(codes).T, rtol=1e-4, atol=1e-5)


def test_frozen_codes_stay_where_centroids_move() -> None:
    """Another centroid may have become nearer: what a document is called does not change."""
    step = Quantise(CODEC, CODEC.encode(HELD)).train()
    with torch.no_grad():
        step.centroids.mul_(-1)
    found = step(batch().documents, "document")["vector"].detach().numpy()
    np.testing.assert_allclose(found, -CODEC.rotated(CODEC.decode(CODEC.encode(HELD[:9]))), atol=1e-5)


def test_the_distortion_is_that_of_rotated_vectors() -> None:
    step = Quantise(CODEC).eval()
    lost = np.square(HELD[:9] - CODEC.decode(CODEC.encode(HELD[:9]))).sum(axis=1).mean()
    assert Distortion()(step, batch()).item() == pytest.approx(lost, rel=1e-4)
    exact = Codec.train(HELD, 2)
    assert Distortion()(Quantise(exact).eval(), batch()).item() < 1e-9


def test_unquantised_is_the_loss_of_the_vectors_themselves() -> None:
    class Same(torch.nn.Module):
        def forward(self, features: Any, role: str) -> Any:
            return features

    loss = InfoNCE(0.5, "dot")
    torch.testing.assert_close(Unquantised(loss)(Quantise(CODEC), batch()), loss(Same(), batch()))


def test_answers_beyond_the_depth_count_as_the_next() -> None:
    class Given(torch.nn.Module):
        def forward(self, features: Any, role: str) -> Any:
            return features

    asked, held = torch.ones(1, 1), torch.arange(5, 0, -1.0)[:, None]
    last = torch.tensor([[0.0, 0, 0, 0, 1]])
    found = LambdaRank(1.0, depth=2)(Given(), Batch({"vector": asked}, {"vector": held}, last))
    gaps = torch.nn.functional.softplus(torch.tensor([4.0, 3.0]))
    # Ranked 5th, it counts as 3rd; so do the others beyond the second, between which nothing is to gain.
    torch.testing.assert_close(found, gaps @ torch.tensor([1 - 1 / 3, 1 / 2 - 1 / 3]))


def test_a_teacher_counts_where_it_scored_and_a_zero_is_a_score() -> None:
    class Same(torch.nn.Module):
        def forward(self, features: Any, role: str) -> Any:
            return features

    labels = csr_array((np.array([1.0, 0.0], np.float32), np.array([0, 2]), np.array([0, 2, 2])), shape=(2, N))
    scores = ASKED[0] @ HELD[[0, 2]].T
    found = MarginMSE(labels, scale=2.0)(Same(), batch(2, 4))
    assert found.item() == pytest.approx((2 * (scores[0] - scores[1]) - 1) ** 2, rel=1e-4)
    untold = csr_array((2, N), dtype=np.float32)
    assert MarginMSE(untold)(Same(), batch(2, 4)).item() == 0


@pytest.mark.parametrize("mine", [[True, False, True, False], [True] * 4, [False] * 4], ids=["both", "all", "none"])
def test_queries_are_divided_between_two_losses(mine: list[bool]) -> None:
    class Rows(Loss):
        def __init__(self, share: float) -> None:
            super().__init__()
            self.share, self.steps = share, 0

        def forward(self, encoder: Any, batch: Batch) -> Any:
            return self.share * batch.queries["row"].float().mean()

        def after_step(self, encoder: Any, step: int) -> None:
            self.steps = step

    one, other = Rows(1.0), Rows(100.0)
    loss = Divided(np.array(mine), one, other)
    wanted = sum(row * (1 if is_mine else 100) for row, is_mine in enumerate(mine)) / 4
    assert loss(torch.nn.Identity(), batch()).item() == pytest.approx(wanted)
    loss.after_step(torch.nn.Identity(), 7)
    assert one.steps == other.steps == 7


@pytest.mark.parametrize(
    ("value", "scale"), [(np.nan, 1.0), (1.0, 0.0), (1.0, np.inf)], ids=["nan", "zero", "infinite"]
)
def test_labels_that_are_no_numbers_are_refused(value: float, scale: float) -> None:
    with pytest.raises(InvalidInput, match="not finite"):
        MarginMSE(csr_array(np.array([[value]], np.float32)), scale)


def test_the_nearest_are_by_inner_product_without_the_answers() -> None:
    source, step = Numbered(ASKED, HELD * 3), Quantise(CODEC, CODEC.encode(HELD)).eval()
    answers = problem().answers()
    with torch.no_grad():
        found = source.nearest(step, ROWS, 5, answers)
        all_of = source.nearest(step, ROWS[:2], N, answers)
    scores = ASKED @ CODEC.decode(CODEC.encode(HELD)).T
    scores[ROWS, ROWS] = -np.inf
    taken = np.take_along_axis(scores, found, axis=1)
    np.testing.assert_allclose(taken, -np.sort(-scores, axis=1)[:, :5], rtol=1e-4)
    assert (found != ROWS[:, None]).all()
    assert (all_of[:, -1] == -1).all() and (all_of[:, :-1] >= 0).all()


def test_equal_scores_are_in_the_order_of_their_columns() -> None:
    scores = np.array([[1, 3, 1, 3, 0]], np.float32)
    assert best_of(scores, 4).tolist() == [[1, 3, 0, 2]]
    assert best_of(scores, 99).tolist() == [[1, 3, 0, 2, 4]]


def test_a_search_beyond_its_candidates_finds_nothing_more() -> None:
    method = TwoStage(CODEC, depth=5, weight=0.0)
    scores = method.base(problem())(ROWS)
    assert ((scores > -1e8).sum(axis=1) == 5).all()
    everything = replace(method, depth=N).base(problem())(ROWS)
    np.testing.assert_allclose(everything, ASKED @ HELD.T, rtol=1e-4, atol=1e-5)
    some = scores > -1e8
    np.testing.assert_array_equal(scores[some], everything[some])


@pytest.mark.parametrize(
    "method",
    [
        Quantising(CODEC, depth=10, schedule=Schedule(2, size=8)),
        TwoStage(CODEC, candidates=20, distortion=0.1, coarse=Schedule(1, size=8), fine=Schedule(2, size=8)),
    ],
    ids=["quantising", "two stages"],
)
def test_training_repeats_and_stops_where_it_is_told(method: Any) -> None:
    lessons = Lessons(problem(), QUERIES)
    whole, _ = method.train(lessons, ROWS)
    again, _ = method.train(lessons, ROWS)
    first = min(epoch for epoch in whole if epoch)
    part, _ = method.train(lessons, ROWS, until=first)
    assert max(part) == first
    for epoch, other in ((max(whole), again), (first, part)):
        one, two = (method.scores(problem(), found[epoch])(ROWS) for found in (whole, other))
        np.testing.assert_array_equal(one, two)


def test_labelled_queries_learn_from_the_teacher() -> None:
    """Taught by the vectors themselves, codes come nearer to them."""
    scores = (ASKED @ HELD.T).astype(np.float32)
    judged = np.eye(QUERIES, N, dtype=np.float32)
    full = csr_array((scores / scores.std()).astype(np.float32))
    stored = csr_array((judged.ravel(), full.indices, full.indptr), shape=full.shape)
    given = replace(problem(), judged=stored)
    method = Quantising(CODEC, depth=10, schedule=Schedule(20, size=8, rate=0.01))
    looks, _ = method.train(Lessons(given, 0, full), ROWS)

    def margins(found: Floats) -> Floats:
        return np.diag(found)[:, None] - found

    gaps = [np.abs(margins(method.scores(given, looks[at])(ROWS) - scores)).mean() for at in (0, max(looks))]
    assert gaps[1] < 0.9 * gaps[0]


@pytest.mark.parametrize(("queries", "epochs"), [(10, 80), (256, 40), (5000, 10)])
def test_few_queries_are_seen_more_often(queries: int, epochs: int) -> None:
    assert Schedule().length(queries) == epochs
    assert Schedule(epochs=3).length(queries) == 3

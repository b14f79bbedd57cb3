"""Free vectors: both losses have the right gradient, and what is proven of few dimensions comes out."""

from itertools import combinations

import numpy as np
import pytest

from ragistry.errors import InvalidInput
from ragistry.evaluation.free_embedding import (
    Loss,
    critical_n,
    free_embedding,
    loss_and_slopes,
    witness,
)


@pytest.mark.parametrize("loss", ["per-pair", "joint"])
@pytest.mark.parametrize(("documents", "relevant"), [(5, 2), (6, 3), (4, 1)])
def test_gradients_are_those_of_autograd(loss: Loss, documents: int, relevant: int) -> None:
    torch = pytest.importorskip("torch")
    sets = np.array(list(combinations(range(documents), relevant)))
    wanted = np.zeros((len(sets), documents), np.bool_)
    wanted[np.arange(len(sets))[:, None], sets] = True
    vectors = np.random.default_rng(0).standard_normal((documents + len(sets), 3))
    given = torch.tensor(vectors, requires_grad=True)
    logs = torch.log_softmax(given[documents:] @ given[:documents].T / 0.1, dim=1)
    own = logs[torch.tensor(wanted)].reshape(len(sets), relevant)
    theirs = -own.mean() if loss == "per-pair" else -torch.logsumexp(own, dim=1).mean()
    theirs.backward()
    value, slopes = loss_and_slopes(vectors, wanted, loss, 0.1)
    assert value == pytest.approx(theirs.item(), rel=1e-10)
    np.testing.assert_allclose(slopes, given.grad.numpy(), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_the_two_losses_are_one_for_one_document_each(seed: int) -> None:
    per_pair = free_embedding(5, 3, relevant=1, loss="per-pair", seed=seed, most=100)
    joint = free_embedding(5, 3, relevant=1, loss="joint", seed=seed, most=100)
    assert per_pair.loss == pytest.approx(joint.loss)
    np.testing.assert_allclose(per_pair.document_vectors, joint.document_vectors, atol=1e-8)


@pytest.mark.parametrize(("documents", "dimensions"), [(3, 2), (4, 3)])
def test_what_can_be_solved_is(documents: int, dimensions: int) -> None:
    found = next(result for seed in (44, 42, 43) if (result := free_embedding(documents, dimensions, seed=seed)).solved)
    assert found.accuracy == 1.0
    assert found.iterations % 50 == 0
    np.testing.assert_allclose(np.linalg.norm(found.document_vectors, axis=1), 1)
    np.testing.assert_allclose(np.linalg.norm(found.query_vectors, axis=1), 1)
    scores = found.query_vectors @ found.document_vectors.T
    tops = [tuple(sorted(row)) for row in np.argsort(-scores, axis=1)[:, :2].tolist()]
    assert tops == list(combinations(range(documents), 2))


@pytest.mark.parametrize("loss", ["per-pair", "joint"])
@pytest.mark.parametrize(("documents", "dimensions"), [(4, 2), (5, 3)])
def test_what_cannot_be_solved_is_not(documents: int, dimensions: int, loss: Loss) -> None:
    for seed in range(2):
        found = free_embedding(documents, dimensions, loss=loss, seed=seed, most=3000)
        assert not found.solved
        assert found.accuracy < 1.0


@pytest.mark.parametrize(("dimensions", "proven"), [(2, 3), (3, 4)])
def test_critical_n_is_what_is_proven(dimensions: int, proven: int) -> None:
    assert critical_n(dimensions, seeds=(44,) if dimensions == 2 else (41,), most=1500) == proven


def test_it_stops_without_improvement() -> None:
    found = free_embedding(4, 2)
    assert 1000 < found.iterations < 100_000
    assert free_embedding(4, 2, most=7).iterations == 7


@pytest.mark.parametrize(("documents", "least"), [(3, 0.1), (46, 3e-5), (100, 1e-6)])
def test_four_dimensions_hold_every_pair(documents: int, least: float) -> None:
    found = witness(documents)
    assert found.exact
    assert found.accuracy == 1.0
    assert found.margin > least
    assert len(found.pairs) == documents * (documents - 1) // 2
    assert found.document_vectors.shape == (documents, 4)
    np.testing.assert_allclose(np.linalg.norm(found.document_vectors, axis=1), 1)
    np.testing.assert_allclose(np.linalg.norm(found.query_vectors, axis=1), 1)
    scores = found.query_vectors @ found.document_vectors.T
    assert np.sort(np.argsort(-scores, axis=1)[:, :2], axis=1).tolist() == found.pairs.tolist()


def test_margins_fall_with_the_fourth_power_and_short_floats_lose_them() -> None:
    assert witness(50).margin / witness(100).margin == pytest.approx(16, rel=0.1)
    short = witness(200, dtype=np.float32)
    assert short.document_vectors.dtype == np.float32
    assert not short.exact
    assert 0.9 < short.accuracy < 1.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"documents": 2}, "documents=2; more than the 2 of each query"),
        ({"documents": 0}, "documents=0; a whole number of 1"),
        ({"dimensions": 0}, "dimensions=0; a whole number of 1"),
        ({"loss": "hinge"}, "loss='hinge'; 'per-pair' or 'joint'"),
        ({"rate": 0.0}, "rate=0.0 and temperature=0.1; both"),
        ({"temperature": float("nan")}, "temperature=nan; both"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        free_embedding(**{"documents": 3, "dimensions": 2, **settings})  # type: ignore[arg-type]


def test_witnesses_and_searches_that_cannot_be() -> None:
    with pytest.raises(InvalidInput, match="3 documents or more and a float"):
        witness(2)
    with pytest.raises(InvalidInput, match="3 documents or more and a float"):
        witness(5, dtype=np.int32)
    with pytest.raises(InvalidInput, match="2 dimensions and one seed"):
        critical_n(1)
    with pytest.raises(InvalidInput, match="2 dimensions and one seed"):
        critical_n(2, seeds=())

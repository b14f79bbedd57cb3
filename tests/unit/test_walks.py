"""Batches by walking from query to document to query."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

from ragistry.errors import InvalidInput
from ragistry.training.samplers import Sampler
from ragistry.training.walks import GraphWalk

TOPICS, EACH = 12, 10
N = TOPICS * EACH


def circles(order: Any = "snow", **settings: Any) -> tuple[GraphWalk, np.ndarray[Any, Any]]:
    """Queries and documents in topics: a query finds the documents of its own topic first, from its own place on."""
    judged = csr_array(np.eye(N, dtype=np.float32))
    place = np.arange(EACH)
    lists = np.array([[EACH * (i // EACH) + (i + place) % EACH for place in place] for i in range(N)])
    return GraphWalk(judged, lists, near=(0, 5), far=(5, 10), order=order, size=EACH, **settings), lists


@pytest.mark.parametrize("order", ["snow", "walk"])
@pytest.mark.parametrize("walks", [1, 3])
@pytest.mark.parametrize("size", [7, 10, 500])
def test_each_query_is_used_once_an_epoch(order: Any, walks: int, size: int) -> None:
    sampler, _ = circles(order, walks=walks)
    sampler.size = size
    batches = list(sampler.epoch(0))
    assert sorted(np.concatenate([batch.queries for batch in batches]).tolist()) == list(range(N))
    assert len(batches) == len(sampler) and all(len(batch.queries) <= size for batch in batches)


def test_batches_hold_neighbours_and_their_hard_negatives() -> None:
    sampler, lists = circles()
    plain = Sampler(sampler.judged, negatives="in-batch", size=EACH)

    def topics(batches: Any) -> float:
        return float(np.mean([len(set((batch.queries // EACH).tolist())) for batch in batches]))

    walked = list(sampler.epoch(0))
    assert topics(walked) < 4 < topics(plain.epoch(0))
    for batch in walked:
        own = set(batch.queries.tolist())
        near = {int(one) for query in own for one in lists[query, :5]}
        assert own <= set(batch.documents.tolist()) <= own | near


def test_an_answer_is_no_hard_negative() -> None:
    judged = csr_array(np.ones((1, 2), np.float32))
    [batch] = GraphWalk(judged, np.array([[0, 1]]), near=(0, 2), far=(0, 2)).epoch(0)
    assert batch.relevance.tolist() == [[1.0, 1.0]]


def test_the_same_seed_gives_the_same_batches_and_epochs_differ() -> None:
    def of(seed: int, epoch: int) -> list[list[int]]:
        return [batch.queries.tolist() for batch in circles(seed=seed)[0].epoch(epoch)]

    assert of(1, 2) == of(1, 2)
    assert of(1, 2) != of(1, 3) and of(1, 2) != of(2, 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"order": "run"}, "one of snow, walk"),
        ({"walks": 0}, "walks at least 1"),
        ({"near": (3, 3)}, "places run"),
        ({"found": np.zeros((2, 3), np.int64)}, r"\[4 queries, depth\]"),
    ],
    ids=["order", "walks", "near", "found"],
)
def test_what_cannot_be_walked_is_refused(settings: dict[str, Any], message: str) -> None:
    given = {"found": np.zeros((4, 3), np.int64)} | settings
    with pytest.raises(InvalidInput, match=message):
        GraphWalk(csr_array(np.eye(4, dtype=np.float32)), **given)

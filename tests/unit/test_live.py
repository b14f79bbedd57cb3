"""Training through a model: what is trained, what is not, and where features come from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from ragistry.encoders.backbones import stack
from ragistry.encoders.stack import Stack
from ragistry.encoders.token_aware import TokenAware, new_bridge
from ragistry.training.live import Live, Tokens, embeddings_of, vectors_of
from ragistry.training.losses.ranking import InfoNCE
from ragistry.training.samplers import Sampler
from ragistry.training.trainer import Trainer

from ..tiny import tiny_model

QUERIES = ["cat", "dog on mat", "sonnet line", "a poem has lines"]
DOCUMENTS = ["the cat sat", "dogs on the mat", "fourteen lines", "poem", "a a a"]
JUDGED = csr_array(np.eye(4, 5, dtype=np.float32))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Stack:
    return stack(tiny_model(tmp_path_factory.mktemp("models")), precision="fp32")


def tokens(base: Stack, **given: Any) -> Tokens:
    return Tokens(base.tokens(QUERIES, "query"), base.tokens(DOCUMENTS, "document"), **given)


def rows(count: int) -> Any:
    return np.arange(count)


def test_untrained_it_gives_what_the_stack_gives(base: Stack) -> None:
    for live in (Live(base, None), Live(base, new_bridge(base), ["query"]), Live(base, None, ["query", "document"])):
        assert np.allclose(vectors_of(live, tokens(base), rows(4), "query"), base.encode(QUERIES, "query"), atol=1e-6)
        found = vectors_of(live, tokens(base), rows(5), "document")
        assert np.allclose(found, base.encode(DOCUMENTS, "document"), atol=1e-6)
        assert live.weights() == {}


def test_vectors_that_are_there_are_taken(base: Stack) -> None:
    held = np.eye(5, 32, dtype=np.float32)
    live, source = Live(base, None, ["query"]), tokens(base, held_vectors=held)
    assert np.array_equal(vectors_of(live, source, np.array([3, 1]), "document"), held[[3, 1]])


@pytest.mark.parametrize("tuned", [(), ("query",), ("query", "document")], ids=["bridge", "queries", "both"])
def test_only_what_is_tuned_changes_and_is_served(base: Stack, tuned: tuple[Any, ...]) -> None:
    before = base.encode(QUERIES, "query")
    live = Live(base, new_bridge(base, paradigm="llr"), tuned)
    kept = {name: value.clone() for name, value in live.state_dict().items()}
    sampler = Sampler(JUDGED, negatives="mined", size=4, depth=2)
    held = None if "document" in tuned else base.encode(DOCUMENTS, "document")
    trainer = Trainer(epochs=3, rate=1e-2, warmup=0, looks=3, slower={"model.": 0.1})
    history = trainer.fit(live, InfoNCE(0.1), sampler, tokens(base, held_vectors=held))
    losses = [point.loss for point in history.points if point.loss is not None]
    assert losses[-1] < losses[0]
    assert np.array_equal(base.encode(QUERIES, "query"), before)
    changed = {name for name, value in live.state_dict().items() if not torch.equal(value, kept[name])}
    assert any(name.startswith("after.maps") for name in changed)
    assert any(name.startswith("model.") for name in changed) == bool(tuned)
    assert not any("word_embeddings" in name for name in changed)
    served = TokenAware(base, live.after, live.weights(), "document" in tuned)  # type: ignore[arg-type]
    assert np.allclose(served.encode(QUERIES, "query"), vectors_of(live, tokens(base), rows(4), "query"), atol=1e-5)
    documents = vectors_of(live, tokens(base, held_vectors=held), rows(5), "document")
    assert np.allclose(served.encode(DOCUMENTS, "document"), documents, atol=1e-5)
    assert np.array_equal(documents, base.encode(DOCUMENTS, "document")) == ("document" not in tuned)


def test_dropout_stays_off(base: Stack) -> None:
    live = Live(base, None, ["query"]).train()
    assert live.training
    assert not any(part.training for part in live.model.modules())


def test_a_share_of_the_rate_is_what_a_part_learns_with(base: Stack) -> None:
    moved = []
    for share in (1.0, 0.0):
        live = Live(base, new_bridge(base), ["query"])
        kept = {name: value.clone() for name, value in live.model.state_dict().items()}
        trainer = Trainer(epochs=1, rate=1e-3, slower={"model.": share})
        trainer.fit(live, InfoNCE(0.1), Sampler(JUDGED, size=4), tokens(base))
        moved.append(any(not torch.equal(value, kept[name]) for name, value in live.model.state_dict().items()))
    assert moved == [True, False]


def test_embeddings_computed_before_are_those_of_the_model(base: Stack) -> None:
    found = embeddings_of(base, base.tokens(QUERIES, "query"))
    source = tokens(base, asked_vectors=base.encode(QUERIES, "query"), embeddings=found)
    features, lengths = source.queries(np.array([3, 0])), [len(found[3]), len(found[0])]
    assert features["embedding"].shape == (2, max(lengths), 32)
    assert not features["embedding"][1, lengths[1] :].any()
    live = Live(base, new_bridge(base, paradigm="llr"))
    live.after.maps["query"].data.normal_()  # type: ignore[union-attr, index]
    assert np.allclose(
        vectors_of(live, source, rows(4), "query"), vectors_of(live, tokens(base), rows(4), "query"), atol=1e-5
    )


def test_nearest_leaves_out_answers(base: Stack) -> None:
    live = Live(base, None)
    with torch.no_grad():
        found = tokens(base).nearest(live, rows(4), 4, JUDGED)
    scores = base.encode(QUERIES, "query") @ base.encode(DOCUMENTS, "document").T
    for row, near in enumerate(found):
        wanted = [document for document in np.argsort(-scores[row]) if document != row]
        assert near.tolist() == wanted

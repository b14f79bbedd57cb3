"""Feedback that is read: where it must be the searcher itself, and what training it must not touch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ragistry import Document
from ragistry.encoders.backbones import stack
from ragistry.indexes.faiss import Faiss
from ragistry.protocols import Feedback
from ragistry.retrievers.expanders import TextPRF
from ragistry.retrievers.prf import PRF
from ragistry.retrievers.searcher import Searcher
from ragistry.retrievers.text_feedback import Rereading, separator_of, tower
from ragistry.testing.checks import saved
from ragistry.training.feedback import Fed, Listed
from ragistry.training.losses import Batch
from ragistry.training.losses.ranking import InfoNCE

from ..tiny import tiny_model

WORDS = "cat dog mat poem line sonnet".split()
DOCUMENTS = [Document(f"{i:02}", " ".join(WORDS[(i * j + j) % 6] for j in range(1 + i % 4))) for i in range(12)]
QUERIES = ["the cat", "a poem on dogs", "sonnet", ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def base(folder: Path) -> Any:
    return stack(folder, precision="fp32", threads=1)


@pytest.fixture(scope="module")
def searcher(base: Any) -> Searcher:
    made = Searcher(base, Faiss())
    made.add(DOCUMENTS)
    return made


def documents(ids: Any) -> list[Document]:
    return [DOCUMENTS[int(id)] for id in ids]


def moved(base: Any, size: float = 0.5) -> dict[str, np.ndarray]:
    """Other weights for the model."""
    name = "encoder.layer.1.output.dense.weight"
    weight = base.loaded().model.state_dict()[name].numpy()
    return {name: weight + size * np.random.default_rng(0).standard_normal(weight.shape).astype(np.float32)}


def test_untaught_it_is_the_searcher(searcher: Searcher) -> None:
    assert Rereading(searcher).search(QUERIES, 12) == searcher.search(QUERIES, 12)


def test_with_the_weights_that_it_has_and_nothing_to_read_it_is_the_searcher(base: Any, searcher: Searcher) -> None:
    same = {name: value.numpy() for name, value in base.loaded().model.state_dict().items()}
    taught = Rereading(searcher, depth=0).taught(same, separator_of(base))
    assert taught.search(QUERIES, 12) == searcher.search(QUERIES, 12)
    reading = TextPRF(tower(base, same), separator_of(base))
    assert [reading.text(query, []) for query in QUERIES] == QUERIES
    for query in QUERIES:
        vector = base.encode([query], "query")
        assert np.array_equal(reading.expand(query, vector, Feedback([], vector[:0], np.empty(0, np.float32))), vector)
        assert np.array_equal(reading.encoder.encode([reading.text(query, [])], "query"), vector)


def test_taught_it_searches_with_query_and_documents_read_together(base: Any, searcher: Searcher) -> None:
    weights, separator = moved(base), separator_of(base)
    assert separator == " [SEP] "
    taught = Rereading(searcher, depth=2, length=7).taught(weights, separator)
    taught.read_from(documents)
    looks = searcher.search(QUERIES, 2)
    texts = [
        separator.join([query, *(document.text[:7] for document in documents(look.ids))])
        for query, look in zip(QUERIES, looks, strict=True)
    ]
    wanted = searcher.index.search(tower(base, weights).encode(texts, "query"), 12)
    for one, other in zip(taught.search(QUERIES, 12), wanted, strict=True):
        assert one.ids == other.ids and np.allclose(one.scores, other.scores, atol=1e-5)
    # As any expander does under PRF.
    plain = PRF(searcher, taught.expander, depth=2)
    plain.read_from(documents)
    assert plain.search(QUERIES, 12) == taught.search(QUERIES, 12)


def test_what_does_not_fit_is_of_the_last_documents_never_of_the_query(base: Any) -> None:
    separator, reading = separator_of(base), TextPRF(base, separator_of(base), 400)
    query, found = "the cat sat on the mat", [Document("1", "sonnet " * 10), Document("2", "poem " * 20)]
    end = base.loaded().tokenizer.token_to_id(separator.strip())
    plain, first, both = base.tokens([query, reading.text(query, found[:1]), reading.text(query, found)], "query")
    assert first[: len(plain)] == plain and both[: len(plain)] == plain  # the query, and what ends it
    assert first[-1] == both[-1] == end
    assert len(both) == base.loaded().max_length
    assert both[: len(first)] == first  # the first document whole, then some of the second
    long = "dog " * 100
    assert base.tokens([reading.text(long, found)], "query") == base.tokens([long], "query")


def test_documents_and_their_index_are_never_touched(base: Any, searcher: Searcher) -> None:
    one = Rereading(searcher, depth=2)
    before = saved(searcher)
    vectors = searcher.index.vectors([document.id for document in DOCUMENTS]).copy()  # type: ignore[union-attr]
    taught = one.taught(moved(base), separator_of(base))
    taught.read_from(documents)
    taught.search(QUERIES)
    assert saved(searcher) == saved(taught.searcher) == before
    assert np.array_equal(taught.encoded([document.id for document in DOCUMENTS]), vectors)


class Same(nn.Module):
    def forward(self, given: Any, role: str) -> Any:
        return given


def test_a_query_learns_from_its_own_candidates_alone() -> None:
    draw = torch.Generator().manual_seed(0)
    queries, held = (
        torch.randn(2, 4, generator=draw).requires_grad_(),
        torch.randn(5, 4, generator=draw).requires_grad_(),
    )
    relevance = torch.tensor([[1.0, 0, 0, 0, 0], [0, 0, 0, 0, 1.0]])
    batch = Batch(
        {"vector": queries, "candidates": torch.tensor([[20, 30], [30, -1]])},
        {"vector": held, "row": torch.tensor([10, 20, 30, 40, 50])},
        relevance,
    )
    found = Listed(InfoNCE(0.5))(Same(), batch)
    unit = [part / part.norm(dim=-1, keepdim=True) for part in (queries, held)]
    scores = unit[0] @ unit[1].T / 0.5
    wanted = [
        torch.logsumexp(scores[0, [0, 1, 2]], 0) - scores[0, 0],
        torch.logsumexp(scores[1, [4, 2]], 0) - scores[1, 4],
    ]
    assert found.item() == pytest.approx(sum(wanted).item() / 2, rel=1e-5)
    torch.autograd.backward(found)
    assert held.grad is not None
    assert not held.grad[3].any()  # no one's candidate: the others' are no negatives either
    assert all(held.grad[row].any() for row in (0, 1, 2, 4))


def test_negatives_are_drawn_anew_from_those_near_and_judged_ones_always_come() -> None:
    from scipy.sparse import csr_array

    judged = csr_array(np.array([[1, 0, 0, 0, 0, 0, 0, 0]], np.float32))
    judged = csr_array((np.array([1, 0], np.float32), np.array([0, 7]), np.array([0, 2])), shape=(1, 8))
    source = Fed([[1, 2]], np.eye(8, dtype=np.float32), np.array([[1, 2, 3, 4, 7, -1]]), seed=0)
    draws = [source.nearest(nn.Identity(), np.array([0]), 3, judged)[0].tolist() for _ in range(20)]
    assert all(drawn[0] == 7 and 7 not in drawn[1:] and set(drawn[1:]) <= {1, 2, 3, 4} for drawn in draws)
    assert len({tuple(sorted(drawn)) for drawn in draws}) > 1
    assert source.queries(np.array([0]))["candidates"].tolist() == [draws[-1]]
    assert source.nearest(nn.Identity(), np.array([0]), 9, judged)[0, 5:].tolist() == [-1] * 4

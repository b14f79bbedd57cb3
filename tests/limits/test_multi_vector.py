"""Late interaction at its limits: one vector a text, as many clusters as tokens, nothing learnt, a plain transformer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModel, AutoTokenizer

from ragistry import Document
from ragistry.encoders.backbones import stack
from ragistry.encoders.multi import TokenStack, token_stack
from ragistry.encoders.reducing import Reducer
from ragistry.encoders.steps import Features
from ragistry.encoders.steps.clusters import Clusters
from ragistry.encoders.token_layout import TokenBackbone
from ragistry.indexes.maxsim import MaxSim as Index
from ragistry.retrievers.searcher import Searcher
from ragistry.retrievers.token_tuned import TokenTuned
from ragistry.training.live import Live
from ragistry.training.losses import Batch
from ragistry.training.losses.late import MaxSim, maxsim
from ragistry.training.losses.ranking import InfoNCE
from ragistry.training.matching import filled, ragged
from ragistry.types import Floats, MultiVectors, Role

from ..tiny import tiny_model

TEXTS = ["the cat sat", "", "a sonnet has fourteen lines, a poem.", "dog", "poem " * 40, "the mat"]
DOCUMENTS = [Document(f"d{i}", text) for i, text in enumerate(TEXTS)]
ROLES: tuple[Role, ...] = ("query", "document")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def encoder(folder: Path) -> TokenStack:
    return token_stack(folder, precision="fp32")


def texts_of(seed: int, count: int, longest: int, width: int = 5, least: int = 0) -> MultiVectors:
    draw = np.random.default_rng(seed)
    lengths = draw.integers(least, longest + 1, count)
    return MultiVectors(
        draw.standard_normal((lengths.sum(), width)).astype(np.float32), np.concatenate([[0], lengths.cumsum()])
    )


def by_hand(queries: MultiVectors, documents: MultiVectors) -> Floats:
    found = np.zeros((len(queries), len(documents)), np.float32)
    for i, j in np.ndindex(*found.shape):
        found[i, j] = (queries[i] @ documents[j].T).max(axis=1).sum()
    return found


@pytest.mark.parametrize("length", [4, 24])
def test_vectors_are_those_of_the_plain_transformer(folder: Path, length: int) -> None:
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).float().eval()
    found = token_stack(folder, precision="fp32", document_length=length).encode(TEXTS, "document")
    for text, vectors in zip(TEXTS, found, strict=True):  # type: ignore[call-overload]
        tokens = tokenizer(text, truncation=True, max_length=length, return_tensors="pt")
        with torch.no_grad():
            states = model(**tokens).last_hidden_state[0]
        np.testing.assert_allclose(vectors, torch.nn.functional.normalize(states, dim=-1).numpy(), atol=1e-5)


def test_the_mean_of_raw_vectors_is_the_dense_vector(folder: Path, encoder: TokenStack) -> None:
    raw = TokenStack(encoder.backbone, encoder.steps[:1], max_length=encoder.max_length, precision="fp32")
    one = TokenStack(
        raw.backbone,
        [*raw.steps, Clusters({"document": Reducer("fixed", 1)})],
        max_length=raw.max_length,
        precision="fp32",
    )
    dense = stack(folder, precision="fp32").encode(TEXTS, "document")
    means = one.encode(TEXTS, "document").values
    assert means.shape == dense.shape
    np.testing.assert_allclose(means / np.linalg.norm(means, axis=1, keepdims=True), dense, atol=1e-5)
    np.testing.assert_allclose(means, [raw.encode([text], "document").values.mean(axis=0) for text in TEXTS], atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), queries=st.integers(1, 4), documents=st.integers(1, 40))
def test_maxsim_is_the_sum_of_largest_products(seed: int, queries: int, documents: int) -> None:
    asked, held = texts_of(seed, queries, 6), texts_of(seed + 1, documents, 9, least=1)
    found = maxsim(filled(asked), filled(held)).numpy()
    np.testing.assert_allclose(found, by_hand(asked, held), rtol=1e-4, atol=1e-4)


def test_the_loss_and_the_index_score_alike() -> None:
    asked, held = texts_of(3, 5, 6, least=1), texts_of(4, 9, 8, least=1)
    index = Index("fp32")
    index.add([str(i) for i in range(len(held))], held)
    scores = maxsim(filled(asked), filled(held)).numpy()
    for row, ranking in enumerate(index.search(asked, 9)):
        np.testing.assert_allclose(ranking.scores, scores[row, [int(id) for id in ranking.ids]], rtol=1e-5, atol=1e-5)
        assert len(ranking) == 9


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6), more=st.integers(1, 5))
def test_padding_is_no_vector(seed: int, more: int) -> None:
    asked, held = texts_of(seed, 3, 4, least=1), texts_of(seed + 1, 6, 5, least=1)
    # Every product negative: were padding read as zeros, it would be the nearest.
    asked, held = (
        MultiVectors(np.abs(asked.values), asked.offsets),
        MultiVectors(-np.abs(held.values) - np.float32(0.1), held.offsets),
    )
    found = maxsim(filled(asked), filled(held))
    assert (found < 0).all()

    def longer(features: Features, value: float) -> Features:
        shape = (len(features["kept"]), more)
        vector = torch.full((*shape, features["vector"].shape[2]), value)
        return {
            "vector": torch.cat([features["vector"], vector], dim=1),
            "kept": torch.cat([features["kept"], torch.zeros(shape, dtype=torch.bool)], dim=1),
        }

    again = maxsim(longer(filled(asked), 50.0), longer(filled(held), 7.0))
    np.testing.assert_allclose(again.numpy(), found.numpy(), rtol=1e-5)


def test_of_one_vector_each_the_loss_is_that_of_dense_vectors() -> None:
    class Same(torch.nn.Module):
        def forward(self, features: Features, role: Role) -> Features:
            return features

    draw = np.random.default_rng(0)
    asked, held = (draw.standard_normal((n, 6)).astype(np.float32) for n in (4, 9))
    asked, held = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (asked, held))
    relevance = torch.zeros(4, 9)
    relevance[torch.arange(4), torch.tensor([2, 5, 5, 0])] = torch.tensor([1.0, 2.0, 1.0, 1.0])
    relevance[1, 7] = 1.0
    dense = Batch({"vector": torch.from_numpy(asked)}, {"vector": torch.from_numpy(held)}, relevance)
    one, other = (filled(MultiVectors(x, np.arange(len(x) + 1))) for x in (asked, held))
    many = Batch(one, other, relevance)
    wanted = InfoNCE(0.1)(Same(), dense)
    torch.testing.assert_close(MaxSim(InfoNCE(0.1, "dot"))(Same(), many), wanted)


def test_one_token_each_ranks_as_cosine() -> None:
    asked, held = texts_of(1, 4, 1, least=1), texts_of(2, 30, 1, least=1)
    units = [MultiVectors(x.values / np.linalg.norm(x.values, axis=1, keepdims=True), x.offsets) for x in (asked, held)]
    index = Index("fp32")
    index.add([f"{i:02}" for i in range(30)], units[1])
    cosines = units[0].values @ units[1].values.T
    for row, ranking in enumerate(index.search(units[0], 30)):
        assert [int(id) for id in ranking.ids] == np.argsort(-cosines[row]).tolist()
        np.testing.assert_allclose(ranking.scores, np.sort(cosines[row])[::-1], atol=1e-6)


@pytest.mark.parametrize(
    "reducer", [Reducer("fixed", 64), Reducer("relative", 1.0), Reducer("tail", 64), Reducer("spacing", 1)], ids=str
)
def test_clusters_of_all_tokens_change_nothing(encoder: TokenStack, reducer: Reducer) -> None:
    reduced = encoder.over(encoder.backbone, [*encoder.steps, Clusters({"query": reducer, "document": reducer})])
    plain = encoder.over(encoder.backbone, encoder.steps)
    for role in ROLES:
        one, other = plain.encode(TEXTS, role), reduced.encode(TEXTS, role)
        np.testing.assert_array_equal(one.offsets, other.offsets)
        np.testing.assert_array_equal(one.values, other.values)


@pytest.mark.parametrize(
    "reducer", [Reducer("fixed", 4), Reducer("relative", 0.3), Reducer("tail", 3), Reducer("spacing", 3)], ids=str
)
def test_clusters_are_those_of_the_reducer(encoder: TokenStack, reducer: Reducer) -> None:
    reduced = encoder.over(encoder.backbone, [*encoder.steps, Clusters({"document": reducer})])
    wanted = reducer.reduce(encoder.encode(TEXTS, "document"))
    found = reduced.encode(TEXTS, "document")
    np.testing.assert_array_equal(found.offsets, wanted.offsets)
    np.testing.assert_allclose(found.values, wanted.values, atol=1e-6)
    plain = encoder.encode(TEXTS, "query")
    np.testing.assert_array_equal(reduced.encode(TEXTS, "query").values, plain.values)  # of a role without a reducer


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 9))
def test_a_token_has_its_share_of_its_clusters_gradient(seed: int, size: int) -> None:
    held, reducer = texts_of(seed, 4, 8, least=1), Reducer("fixed", size)
    features = filled(held)
    features["vector"].requires_grad_()
    made = Clusters({"document": reducer})(features, "document")
    wanted = torch.from_numpy(np.random.default_rng(seed).standard_normal(made["vector"].shape).astype(np.float32))
    (made["vector"] * wanted)[made["kept"]].sum().backward()
    gradient: Any = features["vector"].grad
    for row in range(4):
        groups = reducer.groups(held[row])
        sizes = np.bincount(groups)
        shares = wanted[row].numpy()[groups] / sizes[groups][:, None]
        np.testing.assert_allclose(gradient[row, : len(groups)].numpy(), shares, rtol=1e-5, atol=1e-6)
        assert not gradient[row, len(groups) :].any()


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 6))
def test_clusters_of_documents_never_score_higher(seed: int, size: int) -> None:
    asked, held = texts_of(seed, 3, 4, least=1), texts_of(seed + 1, 5, 9, least=1)
    reduced = ragged(Clusters({"document": Reducer("fixed", size)})(filled(held), "document"))
    assert np.diff(reduced.offsets).tolist() == np.minimum(np.diff(held.offsets), size).tolist()
    assert (by_hand(asked, reduced) <= by_hand(asked, held) + 1e-4).all()


def test_ragged_is_the_reverse_of_filled() -> None:
    for texts in (texts_of(5, 7, 6), texts_of(6, 3, 0)):
        again = ragged(filled(texts))
        np.testing.assert_array_equal(again.offsets, texts.offsets)
        np.testing.assert_array_equal(again.values, texts.values)


@pytest.mark.parametrize("documents", [False, True], ids=["queries", "both"])
def test_untaught_it_is_the_plain_searcher(encoder: TokenStack, documents: bool) -> None:
    plain, tuned = Searcher(encoder, Index()), TokenTuned(encoder, Index, documents=documents)
    for searcher in (plain, tuned):
        searcher.add(DOCUMENTS)
    empty = tuned.taught([d.id for d in DOCUMENTS], {}, lambda ids: [d for d in DOCUMENTS if d.id in ids])
    wanted = plain.search(TEXTS, 10)
    assert tuned.search(TEXTS, 10) == wanted
    assert empty.search(TEXTS, 10) == wanted


def test_the_module_to_train_gives_the_encoders_vectors(encoder: TokenStack) -> None:
    reducers: dict[Role, Reducer] = {"query": Reducer("fixed", 2), "document": Reducer("fixed", 4)}
    reduced = encoder.over(TokenBackbone(encoder.backbone.name), [*encoder.steps, Clusters(reducers)])
    live = Live(reduced, None, ROLES).eval()
    for role in ROLES:
        tokens: Sequence[Sequence[int]] = reduced.tokens(TEXTS, role)
        with torch.no_grad():
            found = ragged(live(reduced.reader(role).features(tokens), role))
        wanted = reduced.encode(TEXTS, role)
        np.testing.assert_array_equal(found.offsets, wanted.offsets)
        np.testing.assert_allclose(found.values, wanted.values, atol=1e-5)
    assert live.weights() == {}

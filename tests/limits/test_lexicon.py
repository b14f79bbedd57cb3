"""Lexicons where they must equal something simpler, and formulas written out by hand."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from torch import nn

from ragistry import Document
from ragistry.encoders.backbones import Backbone
from ragistry.encoders.lexical import Expansion, Lexical, pruned
from ragistry.encoders.steps import lexicon
from ragistry.encoders.steps.lexicon import Lexicon
from ragistry.encoders.steps.token_bridge import Statistics
from ragistry.indexes.inverted import Inverted
from ragistry.indexes.weighting import Impact
from ragistry.retrievers.expanded import Expanded
from ragistry.training.losses import Batch
from ragistry.training.losses.ranking import InfoNCE
from ragistry.training.losses.sparsity import Sparse, flops

from ..tiny import tiny_model

DOCUMENTS = [
    Document("1", "the cat sat on the mat"),
    Document("2", "a sonnet has fourteen lines"),
    Document("3", "poem, line; dog", title="Poems"),
    Document("4", "the the the the dog the"),
    Document("5", ""),
    Document("6", "cats " * 30),
]
TEXTS = [document.full_text for document in DOCUMENTS]
QUERIES = ["the cat", "lines lines", "dog on mat", "zebra?", ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def splade(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A masked language model in the layout that sentence-transformers has for SPLADE."""
    from transformers import BertConfig, BertForMaskedLM

    folder = tiny_model(tmp_path_factory.mktemp("models"), seed=3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        BertForMaskedLM(BertConfig.from_pretrained(folder)).save_pretrained(folder)
    kinds = {"": "MLMTransformer", "1_SpladePooling": "SpladePooling"}
    modules = [
        {"path": path, "type": f"sentence_transformers.sparse_encoder.models.{kind}"} for path, kind in kinds.items()
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_SpladePooling").mkdir()
    (folder / "1_SpladePooling" / "config.json").write_text(
        '{"pooling_strategy": "max", "activation_function": "relu"}'
    )
    return folder


def untaught(folder: Path, **settings: Any) -> Lexical:
    return Lexical(folder, precision="fp32", threads=1, **settings)


def expansion(encoder: Lexical, scale: float = 1.0, **weights: Any) -> Expansion:
    statistics = Statistics.of(encoder.tokens(TEXTS), encoder.width)
    return Expansion(np.arange(5, 60), statistics.idf, statistics.length, weights, scale=scale)


def filled(encoder: Lexical) -> Expanded:
    searcher = Expanded(encoder)
    searcher.add(DOCUMENTS)
    return searcher


def features(embedding: torch.Tensor, mask: list[list[int]], ids: list[list[int]] | None = None) -> dict[str, Any]:
    held = torch.tensor(mask)
    return {
        "embedding": embedding,
        "attention_mask": held,
        "input_ids": torch.full_like(held, 9) if ids is None else torch.tensor(ids),
    }


# Untaught, or with nothing added, it is BM25 over word pieces


def test_untaught_it_is_bm25_over_word_pieces(folder: Path) -> None:
    tokenizer = Backbone(folder).load(torch.float32).tokenizer
    tokenizer.no_truncation()  # words are counted in all of a text
    held = [tokenizer.encode(text, add_special_tokens=False).ids for text in TEXTS]
    average = sum(map(len, held)) / len(held)
    for query, found in zip(QUERIES, filled(untaught(folder)).search(QUERIES), strict=True):
        wanted = {}
        for document, ids in zip(DOCUMENTS, held, strict=True):
            score = 0.0
            for token in tokenizer.encode(query, add_special_tokens=False).ids:
                n = sum(token in other for other in held)
                idf = math.log(1 + (len(held) - n + 0.5) / (n + 0.5))
                count = ids.count(token)
                score += idf * count / (count + 1.2 * (0.25 + 0.75 * len(ids) / average))
            if score:
                wanted[document.id] = score
        assert dict(found) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("queries", ["model", "words"])
def test_with_nothing_added_it_ranks_as_untaught(folder: Path, queries: Any) -> None:
    encoder = untaught(folder, queries=queries)
    taught = filled(encoder.taught(expansion(encoder, scale=0.0)))
    before, after = filled(encoder).search(QUERIES), taught.search(QUERIES)
    for one, other in zip(before, after, strict=True):
        assert one.ids == other.ids
        assert np.allclose(one.scores, other.scores, rtol=1e-5)
    # With something added that is no longer so.
    added = filled(encoder.taught(expansion(encoder, scale=1.0, shift=np.full(55, 0.5, np.float32)))).search(QUERIES)
    assert [dict(ranking) for ranking in added] != [dict(ranking) for ranking in before]


def test_the_model_adds_to_words_and_takes_nothing_from_them(folder: Path) -> None:
    encoder = untaught(folder)
    found = encoder.taught(expansion(encoder, scale=0.5))
    for role in ("query", "document"):
        words, heard = (part.toarray() for part in (found.words(TEXTS, role), found.heard(TEXTS, role)))
        assert (heard > 0).any() and not heard[:, :5].any() and not heard[:, 60:].any()
        assert np.allclose(found.encode(TEXTS, role).toarray(), words + 0.5 * heard, atol=1e-6)
    # Queries are weighed by idf, what is added to them as well.
    idf = found.expansion.idf  # type: ignore[union-attr]
    assert np.allclose(found.heard(TEXTS, "query").toarray(), found.heard(TEXTS, "document").toarray() * idf, atol=1e-5)


# Scores are inner products


@pytest.mark.parametrize("kind", ["taught", "cut", "model", "words"])
def test_the_inverted_score_is_the_inner_product(folder: Path, splade: Path, kind: str) -> None:
    if kind == "model":
        encoder = untaught(splade, start="model")
    else:
        terms: Any = {"document": 9, "query": 4} if kind == "cut" else None
        encoder = untaught(folder, terms=terms, queries="words" if kind == "words" else "model")
        encoder = encoder.taught(expansion(encoder))
    asked, held = encoder.encode(QUERIES, "query").toarray(), encoder.encode(TEXTS, "document").toarray()
    assert (asked >= 0).all() and (held >= 0).all()
    scores = asked.astype(np.float64) @ held.T.astype(np.float64)
    assert scores.any()
    searcher = filled(encoder)
    assert searcher.index.weighting == Impact()  # type: ignore[attr-defined]
    for row, ranking in enumerate(searcher.search(QUERIES, len(DOCUMENTS))):
        wanted = {DOCUMENTS[i].id: score for i, score in enumerate(scores[row]) if score > 0}
        assert dict(ranking) == pytest.approx(wanted, rel=1e-5, abs=1e-5)


def test_a_published_model_gives_its_own_weights(splade: Path) -> None:
    from transformers import AutoTokenizer, BertForMaskedLM

    model, tokenizer = BertForMaskedLM.from_pretrained(splade).eval(), AutoTokenizer.from_pretrained(splade)
    encoder = untaught(splade, start="model")
    for role in ("query", "document"):
        found = encoder.encode(TEXTS[:4], role).toarray()
        for row, text in enumerate(TEXTS[:4]):
            with torch.no_grad():
                logits = model(**tokenizer(text, return_tensors="pt", truncation=True, max_length=32)).logits[0]
            assert np.allclose(found[row], torch.log1p(torch.relu(logits).amax(dim=0)).numpy(), atol=1e-5)


# The step


def by_hand(step: Lexicon, given: dict[str, Any]) -> torch.Tensor:
    """The formula over a tensor of batch, length and vocabulary."""
    mask = given["attention_mask"].bool()
    for token in step.ignored:
        mask = mask & (given["input_ids"] != token)
    logits = step.head(given["embedding"]).masked_fill(~mask[..., None], -1e6)
    return torch.log1p(torch.relu(logits.amax(dim=1) * step.gain + step.shift))


@pytest.mark.parametrize("cells", [1 << 24, 40, 1], ids=["whole", "some places", "one place"])
def test_the_step_is_its_formula_however_it_is_divided(monkeypatch: pytest.MonkeyPatch, cells: int) -> None:
    draw = torch.Generator().manual_seed(0)
    head = nn.Linear(4, 7)
    step = Lexicon(head, 7, ignored=[3])
    with torch.no_grad():
        step.gain.copy_(torch.rand(7, generator=draw) + 0.5)
        step.shift.copy_(torch.randn(7, generator=draw) * 0.3)
    given = features(
        torch.randn(3, 5, 4, generator=draw),
        [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]],
        [[3, 9, 9, 9, 3], [3, 3, 9, 9, 9], [3, 9, 3, 9, 9]],
    )
    wanted = by_hand(step, given)
    monkeypatch.setattr(lexicon, "CELLS", cells)
    found = step(given, "document")["vector"]
    assert torch.allclose(found, wanted, atol=1e-6)
    assert (found[0] > 0).any()
    assert not found[1].any()  # nothing but tokens around a text
    # The way back is the formula's, too.
    for one in (found, wanted):
        torch.autograd.backward(one.square().sum(), retain_graph=True)
    gradient = head.weight.grad
    head.weight.grad = None
    torch.autograd.backward(wanted.square().sum())
    assert head.weight.grad is not None and gradient is not None
    assert torch.allclose(gradient, 2 * head.weight.grad, atol=1e-5)


def test_what_is_not_heard_can_be_learnt_but_of_nothing_nothing_is() -> None:
    step = Lexicon(nn.Linear(4, 7), 7)
    with torch.no_grad():
        step.shift.fill_(-9.0)
    given = features(torch.ones(2, 1, 4), [[1], [0]])
    found = step(given, "document")["vector"]
    assert not found.any()
    torch.autograd.backward(found.sum())
    assert step.shift.grad is not None and step.gain.grad is not None
    assert torch.allclose(step.shift.grad, torch.full((7,), lexicon.SLOPE))  # from the first text alone
    assert torch.allclose(step.gain.grad, lexicon.SLOPE * step.head(torch.ones(4)).detach(), atol=1e-6)


def test_padding_is_never_heard() -> None:
    step, embedding = Lexicon(nn.Linear(4, 7), 7), torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1))
    louder = embedding.clone()
    louder[0, 1:], louder[1, 2:] = 1e3, -1e3
    mask = [[1, 0, 0], [1, 1, 0]]
    quiet, loud = (step(features(one, mask), "query")["vector"] for one in (embedding, louder))
    assert torch.equal(quiet, loud)
    assert torch.allclose(quiet[:1], step(features(embedding[:1, :1], [[1]]), "query")["vector"], atol=1e-6)


def test_it_starts_with_every_term_heard_in_few_documents() -> None:
    draw = torch.Generator().manual_seed(2)
    step = Lexicon(nn.Linear(8, 50), 50)
    given = features(torch.randn(400, 6, 8, generator=draw), [[1] * 6] * 400)
    with torch.no_grad():
        assert (step(given, "document")["vector"] > 0).float().mean() > 0.5
        step.start(step.loudest(given).numpy())
        share = (step(given, "document")["vector"] > 0).float().mean(dim=0)
    assert 0 < share.mean() < 0.06
    assert share.max() < 0.1


# The loss


def test_flops_are_less_for_weights_that_are_spread() -> None:
    spread, heap = torch.eye(8), torch.zeros(8, 8)
    heap[:, 0] = 1
    assert flops(spread).item() == pytest.approx(8 * (1 / 8) ** 2)
    assert flops(heap).item() == pytest.approx(1.0)


def test_flops_make_weights_fewer() -> None:
    weights = torch.rand(16, 32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    before = (torch.relu(weights - 0.5) > 0).sum()
    optimiser = torch.optim.SGD([weights], lr=20.0)
    for _ in range(20):
        optimiser.zero_grad()
        flops(torch.relu(weights - 0.5)).backward()
        optimiser.step()
    assert (torch.relu(weights - 0.5) > 0.01).sum() < before / 2


class Same(nn.Module):
    def forward(self, given: Any, role: str) -> Any:
        return given


def test_a_sparse_loss_adds_flops_that_rise_with_the_square_of_the_steps() -> None:
    draw = torch.Generator().manual_seed(4)
    queries, documents = torch.rand(3, 6, generator=draw), torch.rand(4, 6, generator=draw)
    batch = Batch({"vector": queries}, {"vector": documents}, torch.eye(3, 4))
    ranking = InfoNCE(1.0, "dot")
    plain = ranking(Same(), batch).item()
    assert Sparse(ranking, 0, 0)(Same(), batch).item() == pytest.approx(plain)
    loss = Sparse(ranking, 0.5, 2.0, warmup=4)
    full = 0.5 * flops(queries).item() + 2.0 * flops(documents).item()
    for step, share in ((0, 0.0), (1, 1 / 16), (2, 1 / 4), (4, 1.0), (9, 1.0)):
        if step:
            loss.after_step(Same(), step)
        assert loss(Same(), batch).item() == pytest.approx(plain + share * full, rel=1e-5)


# Pruning


def test_pruning_keeps_the_largest_and_never_less_for_more_terms() -> None:
    draw = np.random.default_rng(0)
    dense = (draw.integers(0, 5, (20, 30)) * (draw.random((20, 30)) < 0.6)).astype(np.float32)
    every = csr_array(dense)
    every.eliminate_zeros()
    before = np.zeros(20)
    for terms in (1, 3, 8, 30):
        found = pruned(every, terms).toarray()
        assert ((found == dense) | (found == 0)).all()
        assert ((found > 0).sum(axis=1) == np.minimum(terms, (dense > 0).sum(axis=1))).all()
        best = np.sort(dense, axis=1)[:, ::-1][:, :terms].sum(axis=1)
        assert np.allclose(found.sum(axis=1), best)
        assert (found.sum(axis=1) >= before).all()
        before = found.sum(axis=1)
    assert pruned(every, 30) is every and pruned(every, None) is every


def test_memory_and_recall_fall_together(folder: Path) -> None:
    """The best document of every query under all terms is found among as many as before, or fewer, with fewer terms."""
    encoder = untaught(folder)
    found = expansion(encoder)
    postings, scores = [], []
    for terms in (2, 6, 20, None):
        one = untaught(folder, terms={"document": terms}).taught(found)
        held, asked = one.encode(TEXTS, "document"), one.encode(QUERIES, "query")
        index = Inverted(Impact())
        index.add([document.id for document in DOCUMENTS], held)
        postings.append(held.nnz)
        scores.append((asked @ held.T).toarray())
    assert postings == sorted(postings) and len(set(postings)) == 4
    assert all((less <= more + 1e-5).all() for less, more in pairwise(scores))

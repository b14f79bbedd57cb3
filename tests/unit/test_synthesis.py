"""Queries that a language model writes: against a plain loop of transformers, alone and together, and what is left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from ragistry.errors import InvalidInput
from ragistry.scorers.language_model import LanguageModel
from ragistry.scorers.likelihood import start_of, stop_mask
from ragistry.scorers.query_likelihood import QueryLikelihood
from ragistry.training import synthesis
from ragistry.training.synthesis import synthesise
from ragistry.training.writing import Sampling, continued
from ragistry.types import Document, Ranking

from ..tiny import LIMIT, tiny_language_model

KINDS = ("llama", "gpt2", "t5", "bart", "gemma2", "opt", "bert")
of_kinds = pytest.mark.parametrize("kind", KINDS)
of_three = pytest.mark.parametrize("kind", ["llama", "gpt2", "t5"])
TEXTS = ["a sonnet has fourteen lines", "the cat sat on the mat. " * 4, "dog", "poem, line; the cats", ""]
DOCUMENTS = [Document(f"d{i}", text) for i, text in enumerate(TEXTS)]
WORDS = ["cat", "dog", "sonnet", "poem", "line", "mat", "fourteen"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LanguageModel]:
    place = tmp_path_factory.mktemp("models")
    return {kind: LanguageModel(tiny_language_model(place, kind), precision="fp32", threads=1) for kind in KINDS}


def likeliest(scorer: QueryLikelihood, document: Document, most: int) -> list[int]:
    """Tokens chosen greedily by a loop that reads everything again for each."""
    model, [prefix] = scorer.model, scorer.prefixes([document])
    found: list[int] = []
    with torch.inference_mode():
        while len(found) < most:
            if model.causal:
                ids, mask = torch.tensor([[*prefix, *found]]), None
                if scorer.attention == "stop":
                    mask = stop_mask(torch.tensor([len(prefix) - 1]), ids.shape[1])
                places = torch.arange(ids.shape[1])[None]
                output = model.model(input_ids=ids, attention_mask=mask, position_ids=places, use_cache=False)
                logits = output.logits[0, -1]
            else:
                said = torch.tensor([[start_of(model.model.config), *found]])
                logits = model.model(input_ids=torch.tensor([prefix]), decoder_input_ids=said, use_cache=False).logits
                logits = logits[0, -1]
            token = int(logits.argmax())
            if token == model.end:
                break
            found.append(token)
    return found


def written(scorer: QueryLikelihood, documents: Sequence[Document], **how: Any) -> list[list[int]]:
    """The tokens written of each document, in one batch."""
    settings = {"queries": 1, "temperature": 1.0, "top_p": 0.95, "most_tokens": 12, "seed": 0} | how
    sampling = Sampling(**settings)
    prefixes = scorer.model.read(scorer.prefixes(documents), stop=scorer.attention == "stop")
    draws = torch.cat([sampling.draws(document.full_text) for document in documents])
    with torch.inference_mode():
        return continued(scorer.model, [p for p in prefixes for _ in range(sampling.queries)], draws, sampling)


class Says(LanguageModel):
    """A model whose tokens stand for whatever a test wants them to."""

    def __init__(self, model: LanguageModel, said: list[str]) -> None:
        super().__init__(model.name, precision="fp32", threads=1)
        self.said = iter(said)

    def text(self, tokens: Sequence[int]) -> str:
        return next(self.said)


class Finds:
    """A retriever that gives the same ids for every query, or those of a query."""

    def __init__(self, ids: dict[str, list[str]]) -> None:
        self.ids, self.asked = ids, list[tuple[list[str], int]]()

    def search(self, queries: Sequence[str], k: int = 10, *, among: Any = None) -> list[Ranking]:
        self.asked.append((list(queries), k))
        found = [self.ids.get(query, [])[:k] for query in queries]
        return [Ranking(tuple(ids), -np.arange(len(ids), dtype=np.float32)) for ids in found]


@of_kinds
def test_without_temperature_it_is_the_likeliest_token_each_time(models: Any, kind: str) -> None:
    scorer = QueryLikelihood(
        models[kind], prompt="{document} asks:" if kind in ("llama", "gemma2") else "plain", query_tokens=12
    )
    expected = [likeliest(scorer, document, 12) for document in DOCUMENTS]
    assert written(scorer, DOCUMENTS, temperature=0) == expected
    assert any(expected)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt", "bert"])
def test_attention_stops(models: Any, kind: str) -> None:
    scorer = QueryLikelihood(models[kind], attention="stop", query_tokens=7)
    expected = [likeliest(scorer, document, 7) for document in DOCUMENTS]
    assert written(scorer, DOCUMENTS, temperature=0, most_tokens=7) == expected


@of_three
def test_queries_are_seeded_and_do_not_depend_on_what_is_beside_them(
    models: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = QueryLikelihood(models[kind])
    together = synthesise(scorer, DOCUMENTS, queries=3)
    assert together == synthesise(scorer, DOCUMENTS, queries=3)
    assert together != synthesise(scorer, DOCUMENTS, queries=3, seed=1)
    assert [pair.document_id for pair in together] == sorted(pair.document_id for pair in together)
    assert all(pair.query == " ".join(pair.query.split()) and pair.relevance == 1 for pair in together)
    other = synthesise(scorer, DOCUMENTS[::-1], queries=3)
    assert sorted(other, key=lambda pair: pair.document_id) == together
    monkeypatch.setattr(synthesis, "ROWS", 1)
    assert synthesise(scorer, DOCUMENTS, queries=3) == together
    # Alone, a query that another document has as well is not left out.
    alone = [pair for document in DOCUMENTS[:4] for pair in synthesise(scorer, [document], queries=3)]
    assert set(alone) >= {pair for pair in together if pair.document_id != "d4"}
    # A generator of torch's own is not touched.
    before = torch.random.get_rng_state()
    synthesise(scorer, DOCUMENTS[:1])
    assert torch.equal(torch.random.get_rng_state(), before)


@of_three
def test_it_ends_where_the_model_does_and_never_goes_on_too_long(models: Any, kind: str) -> None:
    scorer = QueryLikelihood(models[kind])
    found = written(scorer, DOCUMENTS, queries=30, top_p=1.0, most_tokens=12, temperature=3.0)
    lengths = {len(tokens) for tokens in found}
    assert max(lengths) == 12
    assert min(lengths) < 12
    assert all(models[kind].end not in tokens for tokens in found)


@of_three
def test_no_more_is_written_than_the_model_can_read(models: Any, kind: str) -> None:
    scorer = QueryLikelihood(models[kind], query_tokens=3)
    long = Document("long", "a cat sat on the mat " * 50)
    [row] = scorer.prefixes([long])
    for found in written(scorer, [long, DOCUMENTS[2]], queries=8, most_tokens=20)[:8]:
        assert len(found) <= (LIMIT - len(row) if models[kind].causal else 20)


def test_draws_have_the_model_s_probabilities() -> None:
    logits = torch.log(torch.tensor([[0.1, 0.5, 0.15, 0.25]])).expand(4000, -1)
    draws = torch.rand(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def shares(**how: float) -> list[float]:
        settings: dict[str, Any] = {"queries": 1, "temperature": 1.0, "top_p": 1.0, "most_tokens": 1, "seed": 0} | how
        tokens = Sampling(**settings).chosen(logits, draws)
        return (torch.bincount(tokens, minlength=4) / 4000).tolist()

    assert shares() == pytest.approx([0.1, 0.5, 0.15, 0.25], abs=0.03)
    # The fewest that reach the share: 0.5 + 0.25; then one more.
    assert shares(top_p=0.75) == pytest.approx([0, 2 / 3, 0, 1 / 3], abs=0.03)
    assert shares(top_p=0.76) == pytest.approx([0, 5 / 9, 1 / 6, 5 / 18], abs=0.03)
    assert shares(top_p=1e-9) == shares(temperature=0) == shares(temperature=1e-300) == [0, 1, 0, 0]
    squares = np.array([0.01, 0.25, 0.0225, 0.0625])
    assert shares(temperature=0.5) == pytest.approx(list(squares / squares.sum()), abs=0.03)


def test_what_says_nothing_or_nothing_new_is_left_out(models: Any) -> None:
    documents = [
        Document("a", "one"),
        Document("b", "the other"),
        Document("c", "the third text"),
        Document("d", "one"),
    ]
    # Longer texts are written of first: c, b, a; d is a.
    said = [" what\n is c ", "WHAT IS C", "shared", "", "b?", "\ufffdb \ufffd?", "Shared", "a  ?", "a ?"]
    scorer = QueryLikelihood(Says(models["gpt2"], said))
    found = synthesise(scorer, documents, queries=3)
    assert [(pair.query, pair.document_id) for pair in found] == [
        ("a ?", "a"), ("b?", "b"), ("b ?", "b"), ("what is c", "c"), ("a ?", "d"),
    ]  # fmt: skip


def test_the_first_wording_stays_in_its_place(models: Any) -> None:
    found = synthesise(QueryLikelihood(Says(models["gpt2"], ["A", "b", "a"])), DOCUMENTS[:1], queries=3)
    assert [pair.query for pair in found] == ["A", "b"]


def test_a_judge_must_find_the_document(models: Any) -> None:
    documents = [Document("a", "one"), Document("b", "the other text"), Document("a2", "one")]
    said = ["b well", "b badly", "a as its twin", "nobody"]
    judge = Finds({"b well": ["a", "b"], "b badly": ["a", "a2", "b"], "a as its twin": ["b", "a2"], "nobody": []})
    found = synthesise(QueryLikelihood(Says(models["gpt2"], said)), documents, queries=2, judge=judge, keep=2)
    assert [(pair.query, pair.document_id) for pair in found] == [
        ("a as its twin", "a"), ("b well", "b"), ("a as its twin", "a2"),
    ]  # fmt: skip
    assert [(len(asked), k) for asked, k in judge.asked] == [(4, 2)]


def test_nothing_left_is_explained(models: Any) -> None:
    documents = [Document("a", "one"), Document("b", "the other text")]
    said = ["same", "", "alone", "same", "Same", "SAME"]
    message = "of 6 queries that were generated none is left: 1 were empty, 4 duplicates, and 1 failed the round trip"
    with pytest.raises(InvalidInput, match=message):
        synthesise(QueryLikelihood(Says(models["gpt2"], said)), documents, queries=3, judge=Finds({}))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"queries": 0}, "queries=0"),
        ({"most_tokens": 0}, "most_tokens=0"),
        ({"keep": 0}, "keep=0"),
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"top_p": 0.0}, "top_p=0.0"),
        ({"top_p": 1.5}, "top_p=1.5"),
        ({"documents": []}, "no documents"),
    ],
)
def test_what_is_out_of_range_is_refused(models: Any, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        synthesise(QueryLikelihood(models["gpt2"]), **({"documents": DOCUMENTS} | wrong))


def test_an_encoder_decoder_cannot_be_stopped(models: Any) -> None:
    with pytest.raises(InvalidInput, match="encoder-decoder"):
        synthesise(QueryLikelihood(models["t5"], attention="stop"), DOCUMENTS)

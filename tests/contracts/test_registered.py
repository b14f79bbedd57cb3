"""Every registered retriever keeps the contract; a new name without a run here fails."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ragistry import Document, create, names, register
from ragistry.protocols import Retriever
from ragistry.registry import Recipe
from ragistry.testing import UpdatableContract

from ..tiny import tiny_language_model, tiny_model

MODEL = "MODEL"
"""Stands for the folder of a tiny model."""
SPEAKER = "SPEAKER"
"""Stands for that of a tiny language model."""
WRITER = "WRITER"
"""Stands for that of a tiny encoder-decoder."""

DENSE: dict[str, Any] = {"name": "dense", "model": MODEL, "precision": "fp32"}
SPECS: dict[str, dict[str, Any]] = {
    "bm25": {"name": "bm25"},
    "bm25 shifted": {"name": "bm25", "variant": "bm25+", "identifiers": False, "stemmer": None, "stop_words": None},
    "dirichlet": {"name": "query-likelihood", "mu": 50},
    "jelinek-mercer": {"name": "query-likelihood", "smoothing": "jelinek-mercer"},
    "dense": DENSE,
    "adder": {**DENSE, "name": "adder"},
    "adder of queries": {**DENSE, "name": "adder", "form": "softmax", "rank": 8, "side": "query"},
    "lexsembridge": {**DENSE, "name": "lexsembridge"},
    "llm-ql": {**DENSE, "name": "llm-ql"},
    "llm-ql of a language model": {**DENSE, "name": "llm-ql", "model": SPEAKER},
    "ql-rerank": {"name": "ql-rerank", "model": SPEAKER, "prompt": "plain", "precision": "fp32", "weight": 0.7},
    "ql-rerank of embeddings": {
        "name": "ql-rerank",
        "model": SPEAKER,
        "first": DENSE,
        "prompt": "plain",
        "query_tokens": 16,
        "attention": "stop",
        "precision": "fp32",
        "depth": 3,
    },
    "vector-prf": {"name": "vector-prf", "first": DENSE},
    "rm3": {"name": "rm3"},
    "rm3 of query likelihood": {"name": "rm3", "first": "query-likelihood", "common": 0.5},
    "interpolated-prf": {"name": "interpolated-prf", "dense": DENSE},
    "genre": {
        "name": "genre",
        "model": WRITER,
        "beams": 30,
        "few": 0,
        "length_penalty": 0.5,
        "query_tokens": 32,
        "name_tokens": 12,
    },
    "genre of a causal model": {"name": "genre", "model": SPEAKER, "prompt": "{query} =", "query_tokens": 48},
    "genre of embeddings": {"name": "genre", "model": MODEL, "query_tokens": 48},
    "ance-prf": {**DENSE, "name": "ance-prf"},
    "lexicon": {"name": "lexicon", "model": MODEL, "precision": "fp32"},
    "lexicon of words": {"name": "lexicon", "model": MODEL, "precision": "fp32", "queries": "words", "terms": None},
    "colbert": {"name": "colbert", "model": MODEL, "precision": "fp32"},
    "colbert as bytes": {
        "name": "colbert",
        "model": MODEL,
        "precision": "fp32",
        "expansion": 12,
        "skip_punctuation": True,
        "dimension": 16,
        "stored": "int8",
    },
    "crisp": {"name": "crisp", "model": MODEL, "precision": "fp32", "document_size": 4, "query_size": 3},
    "compressed": {**DENSE, "name": "compressed"},
    "compressed to signs": {**DENSE, "name": "compressed", "codes": "sign", "rescore": False},
    "compressed to signs, rescored": {**DENSE, "name": "compressed", "codes": "sign", "weight": 0.3},
    "compressed to halves": {**DENSE, "name": "compressed", "codes": "fp16", "rescore": False},
    "compressed to axes": {**DENSE, "name": "compressed", "codes": "pca", "bytes": 8, "rescore": False},
    "bpr": {**DENSE, "name": "bpr"},
    "jpq": {**DENSE, "name": "jpq"},
    "bidr": {**DENSE, "name": "bidr"},
    "income-bpr": {**DENSE, "name": "income-bpr"},
    "income-jpq": {**DENSE, "name": "income-jpq"},
    "pefa-xs": {**DENSE, "name": "pefa-xs"},
    "pefa-xl": {**DENSE, "name": "pefa-xl"},
    "hybrid": {"name": "hybrid", "members": {"bm25": "bm25", "dense": DENSE}},
    "hybrid of words": {
        "name": "hybrid",
        "members": {"a": "bm25", "b": "query-likelihood"},
        "weights": {"a": 0.3},
        "normalise": "z-score",
        "missing": "minimum",
    },
    "reciprocal ranks": {
        "name": "hybrid",
        "members": {"a": "bm25", "b": {"name": "hybrid", "members": {"c": "bm25", "d": "query-likelihood"}}},
        "method": "reciprocal-rank",
    },
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    speakers = {SPEAKER: "llama", WRITER: "bart"}
    return {MODEL: str(tiny_model(folder))} | {k: str(tiny_language_model(folder, v)) for k, v in speakers.items()}


def filled_in(spec: Any, models: dict[str, str]) -> Any:
    if isinstance(spec, dict):
        return {key: filled_in(value, models) for key, value in spec.items()}
    return models.get(spec, spec) if isinstance(spec, str) else spec


class TestRegistered(UpdatableContract):
    @pytest.fixture(autouse=True, params=SPECS.values(), ids=SPECS.keys())
    def settings(self, request: pytest.FixtureRequest, models: dict[str, str]) -> Iterator[None]:
        self.spec = filled_in(request.param, models)
        yield

    def make(self) -> Retriever:
        return create(self.spec)


def test_every_name_has_a_run() -> None:
    tested = {spec["name"] for spec in SPECS.values()}
    assert set(names()) == tested, "add the new retriever to SPECS above, so that the contract is run over it"


def test_a_newly_registered_name_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragistry.registry._registered", {})

    class Unheard(Recipe):
        name: str = "unheard-of"

    register(Unheard)
    with pytest.raises(AssertionError, match="unheard-of"):
        test_every_name_has_a_run()


def test_documents_differ_in_title_and_text() -> None:
    documents = UpdatableContract().documents()
    assert len({document.full_text for document in documents}) == len(documents)
    assert all(isinstance(document, Document) for document in documents)

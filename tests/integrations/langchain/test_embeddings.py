"""`RagistryEmbeddings`: encoders, taught ones too, in any vector store."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

pytest.importorskip("langchain_core")

from langchain_core.vectorstores import InMemoryVectorStore

from ragistry import Collection, Document, create
from ragistry.encoders.functions import Function, register_encoder
from ragistry.encoders.projected import Projected, Projection
from ragistry.encoders.terms import Terms
from ragistry.errors import InvalidInput
from ragistry.text import Analyzer
from ragistry_langchain import RagistryEmbeddings, borrow


def letters(texts: list[str]) -> np.ndarray:
    return np.array([[text.count(letter) + 0.125 for letter in "abcdefgh"] for text in texts], np.float32)


ENCODER = Function(letters, "letters", normalise=False)
TURN = Projection("linear", {"query": {"weight": np.roll(np.eye(8, dtype=np.float32), 1, axis=0)}})


def test_vectors_are_lists_of_floats() -> None:
    embeddings = RagistryEmbeddings(ENCODER)
    (first, second) = embeddings.embed_documents(["a cab", "a bee"])
    assert first == letters(["a cab"])[0].tolist() and second == letters(["a bee"])[0].tolist()
    assert type(first) is list and all(type(value) is float for value in first)
    assert embeddings.embed_query("a cab") == first
    assert embeddings.embed_documents([]) == []


async def test_the_same_without_blocking() -> None:
    embeddings = RagistryEmbeddings(ENCODER)
    assert await embeddings.aembed_documents(["a cab"]) == embeddings.embed_documents(["a cab"])
    assert await embeddings.aembed_query("a cab") == embeddings.embed_query("a cab")


def test_queries_and_documents_are_told_apart() -> None:
    taught = RagistryEmbeddings(Projected(ENCODER, TURN))
    assert taught.embed_documents(["a cab"]) == RagistryEmbeddings(ENCODER).embed_documents(["a cab"])
    assert taught.embed_query("a cab") == Projected(ENCODER, TURN).encode(["a cab"], "query")[0].tolist()
    assert taught.embed_query("a cab") != taught.embed_documents(["a cab"])[0]


@pytest.mark.parametrize("wrong", [None, "all-MiniLM-L6-v2", letters, Terms(Analyzer())])
def test_other_things_are_refused(wrong: Any) -> None:
    with pytest.raises(InvalidInput, match="a dense encoder is needed"):
        RagistryEmbeddings(wrong)


def test_texts_that_cannot_be_encoded_are_refused() -> None:
    with pytest.raises(InvalidInput, match="item 1"):
        RagistryEmbeddings(ENCODER).embed_documents(["fine", None])  # type: ignore[list-item]


@pytest.fixture
def dense(tmp_path: Path) -> Any:
    name = f"letters-{uuid4()}"
    register_encoder(name, letters, normalise=False)
    with Collection.create(tmp_path / "dense", create("adder", model=name)) as made:
        made.add([Document("1", "a cab"), Document("2", "a bee")])
        yield made


def test_of_a_collection_is_its_encoder_until_it_is_taught(dense: Collection) -> None:
    assert RagistryEmbeddings.of(dense).embed_query("a cab") == letters(["a cab"])[0].tolist()


def test_of_a_taught_collection_is_what_it_has_learnt(dense: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    taught = dense.retriever().taught(["1", "2"], projection=TURN)  # type: ignore[attr-defined]
    monkeypatch.setattr(dense, "retriever", lambda: taught)
    found = RagistryEmbeddings.of(dense)
    assert isinstance(found.encoder, Projected)
    assert found.embed_query("a cab") == Projected(ENCODER, TURN).encode(["a cab"], "query")[0].tolist()


def test_of_a_token_aware_collection_is_the_encoder_with_its_bridge() -> None:
    aware = Function(letters, "aware")
    collection: Any = SimpleNamespace(retriever=lambda: SimpleNamespace(encoder=ENCODER, aware=aware))
    assert RagistryEmbeddings.of(collection).encoder is aware
    collection = SimpleNamespace(retriever=lambda: SimpleNamespace(encoder=ENCODER, aware=None))
    assert RagistryEmbeddings.of(collection).encoder is ENCODER


def test_of_a_collection_without_vectors_says_so(docs: Collection) -> None:
    with pytest.raises(InvalidInput, match="dense"):
        RagistryEmbeddings.of(docs)


def test_of_a_borrowed_store(tmp_path: Path) -> None:
    store = InMemoryVectorStore(RagistryEmbeddings(ENCODER))
    assert RagistryEmbeddings.of(borrow(store, ENCODER)).encoder is ENCODER
    turned = Projected(ENCODER, TURN)
    assert RagistryEmbeddings.of(borrow(store, turned)).encoder is turned


def test_a_vector_store_uses_it() -> None:
    store = InMemoryVectorStore(RagistryEmbeddings(ENCODER))
    store.add_texts(["a cab", "a bee", "hah"], ids=["1", "2", "3"])
    assert [found.id for found in store.similarity_search("cab", k=1)] == ["1"]
    turned = InMemoryVectorStore(RagistryEmbeddings(Projected(ENCODER, TURN)))
    turned.store = store.store
    # Every letter of a query now stands for the one before it.
    assert [found.id for found in turned.similarity_search("ff", k=1)] == ["2"]

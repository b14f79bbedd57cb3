"""Encoders as embedding models: batches, roles, and what is and is not serialised."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import threading
from typing import Any

import numpy as np
import pytest

pytest.importorskip("llama_index.core")

from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import TextNode

from ragistry import Collection, create
from ragistry.encoders.functions import Function
from ragistry.encoders.terms import Terms
from ragistry.errors import InvalidInput
from ragistry.text import Analyzer
from ragistry_llama_index import RagistryEmbedding


class Roles:
    """Queries lie to the left, documents to the right; calls are counted."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.calls.append(("document", len(texts)))
        return [[float(len(text)), 1.0] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        self.calls.append(("query", 1))
        return [-float(len(text)), 1.0]


def made(source: Any = None, **settings: Any) -> tuple[Roles, RagistryEmbedding]:
    roles = source or Roles()
    return roles, RagistryEmbedding(Function(roles, "roles", normalise=False), **settings)


async def test_queries_and_texts_are_encoded_as_what_they_are() -> None:
    _, embedding = made()
    assert isinstance(embedding, BaseEmbedding)
    assert embedding.get_query_embedding("abc") == await embedding.aget_query_embedding("abc") == [-3.0, 1.0]
    assert embedding.get_text_embedding("abc") == await embedding.aget_text_embedding("abc") == [3.0, 1.0]
    assert embedding.get_agg_embedding_from_queries(["a", "abc"]) == [-2.0, 1.0]
    assert all(type(value) is float for value in embedding.get_text_embedding("abc"))


async def test_texts_go_to_the_encoder_together() -> None:
    roles, embedding = made()
    texts = ["x" * n for n in range(10)]
    expected = [[float(n), 1.0] for n in range(10)]
    assert embedding.get_text_embedding_batch(texts) == expected
    assert await embedding.aget_text_embedding_batch(texts) == expected
    assert roles.calls == [("document", 10)] * 2
    roles, embedding = made(embed_batch_size=4)
    assert embedding.get_text_embedding_batch(texts) == expected
    assert await embedding.aget_text_embedding_batch(texts) == expected
    assert sorted(roles.calls) == [("document", 2)] * 2 + [("document", 4)] * 4
    assert embedding.get_text_embedding_batch([]) == []


async def test_the_loop_runs_on_while_it_embeds() -> None:
    class Waiting(Roles):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            assert told.wait(timeout=20)
            return super().embed_documents(texts)

        def embed_query(self, text: str) -> list[float]:
            assert told.wait(timeout=20)
            return super().embed_query(text)

    async def tell() -> None:
        await asyncio.sleep(0)
        told.set()

    told = threading.Event()
    _, embedding = made(Waiting())
    for call in (
        lambda: embedding.aget_query_embedding("q"),
        lambda: embedding.aget_text_embedding("t"),
        lambda: embedding.aget_text_embedding_batch(["t", "u"]),
    ):
        told.clear()
        await asyncio.gather(call(), tell())


def test_an_index_of_theirs_is_built_with_it() -> None:
    roles, embedding = made()
    nodes = [TextNode(id_=str(n), text="x" * n) for n in range(1, 6)]
    index = VectorStoreIndex(nodes, embed_model=embedding)
    assert roles.calls == [("document", 5)]
    # [-1, 1] is nearest to the shortest text
    assert index.as_retriever(similarity_top_k=1).retrieve("q")[0].node_id == "1"


class Lengths:
    """An encoder of one's own, that can be pickled."""

    kind = "dense"

    def encode(self, items: Any, role: str) -> Any:
        return np.array([[len(item)] for item in items], np.float32)

    def fingerprint(self) -> str:
        return "lengths" * 9


class Unwilling(Roles):
    """Must not be pickled to see whether it can be."""

    def __reduce__(self) -> Any:
        raise TypeError("no")


def test_serialised_it_is_a_name_and_settings() -> None:
    _, embedding = made(Unwilling(), embed_batch_size=32)
    payload = embedding.to_payload() if hasattr(embedding, "to_payload") else embedding.to_dict()  # from 0.14.25 on
    for form in (embedding.to_dict(), payload, json.loads(embedding.to_json())):
        assert form["class_name"] == "RagistryEmbedding"
        assert form["model_name"] == embedding.model_name
        assert form["model_name"].startswith("roles ")
        assert form["embed_batch_size"] == 32
        assert "encoder" not in form
    assert "Unwilling" not in repr(embedding)


def test_names_tell_encoders_apart() -> None:
    one, other = (RagistryEmbedding(Function(Roles(), "roles", normalise=unit)) for unit in (True, False))
    assert one.model_name != other.model_name
    assert RagistryEmbedding(Function(Roles(), "roles"), model_name="mine").to_dict()["model_name"] == "mine"


def test_pickled_it_is_whole_or_an_error() -> None:
    embedding = RagistryEmbedding(Lengths(), embed_batch_size=7)
    again = pickle.loads(pickle.dumps(embedding))  # noqa: S301 (made here)
    assert again.get_query_embedding("abc") == [3.0]
    assert again.model_name == embedding.model_name
    assert again.embed_batch_size == embedding.embed_batch_size
    _, unwilling = made(Unwilling())
    unwilling.__getstate__()  # pickles nothing itself
    with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
        pickle.dumps(unwilling)  # LlamaIndex's way would leave the encoder out, and fail when it is used
    assert copy.copy(unwilling).get_query_embedding("abc") == [-3.0, 1.0]


def test_an_ingestion_pipeline_runs_it() -> None:
    roles, embedding = made()
    nodes = IngestionPipeline(transformations=[embedding]).run(nodes=[TextNode(text="abc"), TextNode(text="a")])
    assert [node.embedding for node in nodes] == [[3.0, 1.0], [1.0, 1.0]]
    assert roles.calls == [("document", 2)]


def test_of_a_collection(dense, docs, tmp_path) -> None:
    embedding = RagistryEmbedding.of(dense)
    expected = dense.retriever().encoder.encode(["three lines"], "query")[0]
    assert np.allclose(embedding.get_query_embedding("three lines"), expected)
    for other in (docs, object()):
        with pytest.raises(InvalidInput, match="is not searched with one dense vector"):
            RagistryEmbedding.of(other)
    with (
        Collection.create(
            tmp_path / "fused", create("hybrid", members={"one": dense.recipe, "other": docs.recipe})
        ) as fused,
        pytest.raises(InvalidInput, match="is not searched with one dense vector"),
    ):
        RagistryEmbedding.of(fused)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (Terms(Analyzer()), "Terms of kind 'sparse' was given; an encoder of kind 'dense' is needed"),
        (Roles(), "Roles of kind None was given"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_dense_encoder_is_refused(encoder, message) -> None:
    with pytest.raises(InvalidInput, match=message):
        RagistryEmbedding(encoder)

"""Searching with vectors of queries that were made elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragistry import Collection, Document, create
from ragistry.borrowed import Borrowed
from ragistry.encoders.functions import Function, register_encoder
from ragistry.encoders.projected import Projected, Projection
from ragistry.errors import InvalidInput
from ragistry.indexes.faiss import Faiss
from ragistry.retrievers.adapted import Adapted

from .test_borrowed import WIDTH, Store, encode


def letters(texts: list[str]) -> np.ndarray:
    return np.array([[1 + text.count(letter) for letter in "abcdefgh"] for text in texts], np.float32)


@pytest.fixture
def docs(tmp_path: Path) -> Iterator[Collection]:
    model = register_encoder("letters of search_vectors", letters)
    with Collection.create(tmp_path / "docs", create("dense", model=model.name)) as docs:
        docs.add([Document(word, word * 2, metadata={"long": len(word)}) for word in ("abba", "bee", "head", "gaffe")])
        yield docs


def test_a_querys_own_vector_finds_what_the_query_does(docs: Collection) -> None:
    encoder = docs.retriever().encoder  # type: ignore[attr-defined]
    queries = ["bed", "cab"]
    for where in (None, {"long": {"gt": 3}}, {"long": 99}):
        expected = docs.search_many(queries, 3, where=where)
        found = docs.search_vectors(encoder.encode(queries, "query"), 3, where=where)
        assert [[hit.id for hit in hits] for hits in found] == [[hit.id for hit in hits] for hits in expected]
        assert [[hit.metadata for hit in hits] for hits in found] == [
            [hit.metadata for hit in hits] for hits in expected
        ]
    assert docs.search_vectors(encoder.encode(queries, "query").tolist(), 0) == [[], []]
    assert docs.search_vectors(np.empty((0, 8))) == []


@pytest.mark.parametrize(
    "vectors", [[1.0, 2.0], [["a"]], [[float("nan")] * 8], [[1.0] * 7], [[1.0], [1.0, 2.0]], "text", None], ids=str
)
def test_what_is_no_vector(docs: Collection, vectors: Any) -> None:
    with pytest.raises(InvalidInput):
        docs.search_vectors(vectors)


def test_retrievers_that_read_texts_say_so(tmp_path: Path) -> None:
    with Collection.create(tmp_path / "docs", create("bm25")) as words:
        words.add(Document("1", "a cat"))
        with pytest.raises(InvalidInput, match="'bm25' reads the texts of queries"):
            words.search_vectors([[1.0]])
        with pytest.raises(InvalidInput, match="reads the texts"):
            words.retriever().search_vectors([[1.0]])  # type: ignore[attr-defined]


def test_what_was_learnt_is_applied() -> None:
    model = Function(encode, "turned away")
    weight = np.roll(np.eye(WIDTH, dtype=np.float32), 1, axis=0)
    projection = Projection("linear", {"query": {"weight": weight}})
    vectors, store = model.encode(["ask 5 1"], "query"), Store()
    mine = Borrowed(store, Projected(model, projection))
    assert (
        mine.search_vectors(vectors, 4) == [mine.search("ask 5 1", 4)] != [Borrowed(store, model).search("ask 5 1", 4)]
    )
    assert mine.search_vectors(vectors, 0) == [[]]
    with pytest.raises(InvalidInput):
        mine.search_vectors([1.0, 2.0])

    own = Adapted(model, Faiss, Faiss)
    own.add([Document(id, text) for id, text in store.texts.items()])
    own.projection = projection
    assert own.search_vectors(vectors, 4)[0].ids == own.search(["ask 5 1"], 4)[0].ids

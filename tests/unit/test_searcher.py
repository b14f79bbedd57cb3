"""A searcher asks its encoder for nothing twice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from ragistry import Collection, Document, Recipe, create, registry
from ragistry.indexes.faiss import Faiss
from ragistry.protocols import Retriever
from ragistry.retrievers.searcher import RECENT, Searcher
from ragistry.types import Floats, Item, Kind, Role


class Counting:
    """Hashes texts to vectors, and remembers what it was asked."""

    kind: Kind = "dense"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode(self, items: Sequence[Item], role: Role) -> Floats:
        texts = [item.full_text if isinstance(item, Document) else item for item in items]
        self.asked += texts
        rows = [np.random.default_rng(list(text.encode())).normal(size=8) for text in texts]
        return np.array(rows, np.float32).reshape(len(texts), 8)

    def fingerprint(self) -> str:
        return "counting"


ENCODER = Counting()


class CountingRecipe(Recipe):
    name: str = "counting-for-searcher-tests"

    def build(self) -> Retriever:
        return Searcher(ENCODER, Faiss("Flat"))


def test_equal_texts_in_one_call_are_encoded_once() -> None:
    searcher = Searcher(encoder := Counting(), Faiss("Flat"))
    searcher.add([Document("a", "one"), Document("b", "two"), Document("c", "one")])
    assert sorted(encoder.asked) == ["one", "two"]
    first, _, third = np.asarray(searcher.index.vectors(["a", "b", "c"]))
    assert (first == third).all()


def test_what_is_the_same_is_copied() -> None:
    searcher = Searcher(encoder := Counting(), Faiss("Flat"))
    searcher.add([Document("a", "one"), Document("b", "two")])
    encoder.asked.clear()
    searcher.add([Document("c", "two"), Document("d", "three"), Document("b", "one")], same={"c": "b", "b": "a"})
    assert encoder.asked == ["three"]
    expected = Counting().encode(["one", "one", "two", "three"], "document")
    assert (np.asarray(searcher.index.vectors(["a", "b", "c", "d"])) == expected).all()


def test_a_query_asked_again_is_not_encoded_again() -> None:
    searcher = Searcher(encoder := Counting(), Faiss("Flat"))
    searcher.add([Document("a", "one"), Document("b", "two")])
    encoder.asked.clear()
    once = searcher.search(["x", "y", "x"])
    assert encoder.asked == ["x", "y"]
    assert searcher.search(["y", "z", "x"]) == [once[1], searcher.search(["z"])[0], once[0]]
    assert encoder.asked == ["x", "y", "z"]
    searcher.search([str(i) for i in range(2 * RECENT)])
    searcher.search(["x"])
    assert encoder.asked.count("x") == 2, "old queries are forgotten"


def test_a_collection_embeds_only_texts_it_does_not_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})
    registry.register(CountingRecipe)
    docs = Collection.create(tmp_path / "docs", create("counting-for-searcher-tests"))
    docs.add([Document("old/1", "one"), Document("old/2", "two")])
    ENCODER.asked.clear()
    change = docs.add(
        [Document("new/1", "one"), Document("new/2", "two, edited"), Document("old/1", "one", metadata={"a": 1})]
    )
    assert ENCODER.asked == ["two, edited"]
    assert change == (2, 1, 0, 1)
    assert docs.remove(["old/1", "old/2"]) == 2
    assert {hit.id for hit in docs.search("one", k=5)} == {"new/1", "new/2"}
    docs.check()

"""A store of someone else's: searched as it is, taught, and never written to."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragistry import Document, Hit, create
from ragistry.borrowed import Borrowed
from ragistry.encoders.functions import Function
from ragistry.encoders.projected import Projected, Projection
from ragistry.errors import InvalidInput
from ragistry.indexes.foreign import Foreign, ranked
from ragistry.protocols import Searchable
from ragistry.retrievers.fuse import Fuse
from ragistry.retrievers.searcher import Searcher
from ragistry.tools import SearchTool

WIDTH, TOPICS = 24, 120
TURN = np.linalg.qr(np.random.default_rng(0).normal(size=(WIDTH, WIDTH)))[0]


def topic(name: str) -> np.ndarray:
    return np.random.default_rng(abs(int(name)) + 7).normal(size=WIDTH)


def encode(texts: list[str]) -> np.ndarray:
    """A question lies elsewhere than its document: turned, and a little off."""
    rows = []
    for text in texts:
        kind, name, *which = text.split()
        vector = topic(name)
        if kind == "ask":
            vector = 0.8 * vector + 1.2 * TURN @ vector + 0.3 * np.random.default_rng(int(which[0])).normal(size=WIDTH)
        rows.append(vector / np.linalg.norm(vector))
    return np.array(rows, np.float32)


class Store:
    """Exact search over vectors that were made once; every call is counted, and none writes."""

    def __init__(self, gives: bool = True) -> None:
        self.texts = {f"d{name}": f"tell {name}" for name in range(TOPICS)}
        self.vectors = encode(list(self.texts.values()))
        self.gives, self.calls, self.filters = gives, 0, list[Any]()

    def near(self, vector: np.ndarray, k: int, where: Any = None) -> list[Hit]:
        assert vector.shape == (WIDTH,)
        self.calls += 1
        self.filters.append(where)
        order = np.argsort(-(self.vectors @ vector), kind="stable")
        ids = [id for id in np.array(list(self.texts))[order].tolist() if not where or int(id[1:]) % 2 == where["odd"]]
        return [Hit(id, 1 / rank, self.texts[id]) for rank, id in enumerate(ids[:k], 1)]

    async def anear(self, vector: np.ndarray, k: int, where: Any = None) -> list[Hit]:
        return self.near(vector, k, where)

    def get(self, ids: Any) -> list[Document]:
        return [Document(id, self.texts[id]) for id in ids if self.gives and id in self.texts]


@pytest.fixture
def model() -> Function:
    return Function(encode, "turned away")


def questions(topics: range, each: int = 3) -> list[tuple[str, str]]:
    return [(f"ask {name} {name * 10 + i}", f"d{name}") for name in topics for i in range(each)]


def right(mine: Borrowed, pairs: list[tuple[str, str]]) -> float:
    found = mine.search_many([query for query, _ in pairs], 1)
    return float(np.mean([hits[0].id == id for hits, (_, id) in zip(found, pairs, strict=True)]))


def test_untaught_it_answers_as_the_store_does(model: Function) -> None:
    store = Store()
    mine = Borrowed(store, model)
    assert isinstance(mine, Searchable)
    vector = model.encode(["ask 5 1"], "query")[0]
    assert mine.search("ask 5 1", 7) == store.near(vector, 7)
    assert mine.search_many(["ask 5 1", "ask 9 1"], 3)[0] == store.near(vector, 3)
    assert asyncio.run(mine.asearch_many(["ask 5 1"], 7)) == [store.near(vector, 7)]
    assert mine.search_many([]) == [] == asyncio.run(mine.asearch_many([]))
    assert mine.search_many(["ask 5 1"], 0) == [[]] == asyncio.run(mine.asearch_many(["ask 5 1"], 0))
    assert mine.adapter() is None


def test_fit_learns_what_holds_for_documents_it_never_saw(model: Function, tmp_path: Path) -> None:
    store = Store()
    before = store.vectors.copy(), dict(store.texts)
    mine, unseen = Borrowed(store, model), questions(range(90, 120))
    base = right(mine, unseen)
    fit = mine.fit(questions(range(90)))
    assert fit.kept
    assert fit.fitted > fit.base
    assert right(mine, unseen) > base + 0.1
    assert (store.vectors == before[0]).all()
    assert store.texts == before[1]

    adapter = mine.adapter()
    assert adapter is not None
    adapter.save(tmp_path / "adapter.safetensors")
    again = Borrowed(store, Projected.load(tmp_path / "adapter.safetensors", model))
    assert again.search("ask 95 1", 5) == mine.search("ask 95 1", 5)
    # A fit starts anew, from the encoder as it is.
    assert again.fit(questions(range(90))).base == fit.base


def test_fit_with_texts_that_the_store_cannot_give(model: Function) -> None:
    store = Store(gives=False)
    lone = Borrowed(store, model)
    given = [Document(id, text) for id, text in store.texts.items()]
    assert lone.fit(questions(range(90)), documents=given, depth=3).skipped == 0
    # Without them, only what is among some query's hits is known: pairs that name others are left out, and counted.
    assert Borrowed(store, model).fit(questions(range(90)), depth=1).skipped > 0


def test_what_does_not_help_is_not_kept() -> None:
    rng = np.random.default_rng(3)
    model = Function(encode, "turned away")
    pairs = [(f"ask {name} 1", f"d{rng.integers(TOPICS)}") for name in range(60)]
    mine = Borrowed(Store(), model)
    assert not mine.fit(pairs).kept
    assert mine.encoder is model


def test_another_encoder_than_the_stores_is_noticed() -> None:
    def other(texts: list[str]) -> np.ndarray:
        return np.array([np.random.default_rng(len(text) + sum(map(ord, text))).normal(size=WIDTH) for text in texts])

    mine = Borrowed(Store(), Function(other, "another"))
    with pytest.raises(InvalidInput, match=r"made by another encoder, or of other texts; give the encoder"):
        mine.fit(questions(range(40)))


def test_documents_that_are_not_there(model: Function) -> None:
    with pytest.raises(InvalidInput, match="0 queries have an answer"):
        Borrowed(Store(), model).fit([(query, "elsewhere") for query, _ in questions(range(20))])


def test_filters_are_the_stores_own_and_are_not_mixed(model: Function) -> None:
    store = Store()
    mine = Borrowed(store, model)
    assert {int(hit.id[1:]) % 2 for hit in mine.search("ask 5 1", 20, where={"odd": 1})} == {1}
    held = Borrowed(store, model, where={"odd": 0})
    store.filters.clear()
    assert {int(hit.id[1:]) % 2 for hit in held.search("ask 5 1", 20)} == {0}
    held.retriever().search(["ask 5 1"], 3)
    held.fit(questions(range(0, 90, 2)), depth=3)
    assert all(where == {"odd": 0} for where in store.filters)
    with pytest.raises(InvalidInput, match="held to one already"):
        held.search("ask 5 1", where={"odd": 1})


def test_as_a_tool_no_model_writes_its_filters(model: Function) -> None:
    tool = SearchTool(Borrowed(Store(), model), where={"odd": 1})
    assert {int(hit.id[1:]) % 2 for hit in tool({"query": "ask 5 1"}).hits} == {1}
    assert asyncio.run(tool.acall({"query": "ask 5 1"})) == tool({"query": "ask 5 1"})
    with pytest.raises(InvalidInput, match="known fields: none"):
        tool({"query": "ask 5 1", "filters": [{"field": "odd", "value": 0}]})
    with pytest.raises(InvalidInput, match="give one that says both"):
        tool({"query": "ask 5 1"}, where={"odd": 0})


@pytest.mark.parametrize("query", [3, "\ud800"])
def test_queries_that_are_no_text(model: Function, query: Any) -> None:
    with pytest.raises(InvalidInput):
        Borrowed(Store(), model).search(query)


def test_what_cannot_be_borrowed(model: Function) -> None:
    with pytest.raises(InvalidInput, match="give a Source"):
        Borrowed(object(), model)  # type: ignore[arg-type]
    both = {role: {"weight": np.zeros((WIDTH, WIDTH), np.float32)} for role in ("query", "document")}
    with pytest.raises(InvalidInput, match="side=query"):
        Borrowed(Store(), Projected(model, Projection("linear", both)))  # type: ignore[arg-type]


def test_the_index_allows_some_ids_by_asking_for_more(model: Function) -> None:
    store = Store()
    index, vectors = Foreign(store), model.encode(["ask 5 1"], "query")
    everything = index.search(vectors, TOPICS)[0]
    assert set(everything.ids) == set(store.texts)
    last = set(everything.ids[-3:])
    assert index.search(vectors, 2, among=last)[0].ids == everything.ids[-3:-1]
    assert index.search(vectors, 9, among={*last, "elsewhere"})[0].ids == everything.ids[-3:]
    assert len(index.search(vectors, 5, among=set())[0]) == len(index.search(vectors, 0)[0]) == 0
    assert index.fork() is index


@pytest.mark.parametrize("change", ["add", "remove", "vectors", "save", "load"])
def test_the_index_is_only_read(change: str) -> None:
    arguments: tuple[Any, ...] = (["a"],) if change in {"remove", "vectors", "save"} else (["a"], None)
    with pytest.raises(InvalidInput, match="only read"):
        getattr(Foreign(Store()), change)(*arguments)


def test_a_store_joins_words_of_ones_own(model: Function) -> None:
    words = create("bm25")
    words.add([Document(f"d{name}", f"tell {name}") for name in range(TOPICS)])  # type: ignore[attr-defined]
    both = Fuse({"words": words, "store": Borrowed(Store(), model).retriever()})
    assert both.search(["ask 5 1"], 1)[0].ids == ("d5",)
    assert isinstance(Borrowed(Store(), model).retriever(), Searcher)


def test_scores_that_are_no_rankings_become_ranks() -> None:
    hits = [Hit("a", 0.2, ""), Hit("b", 0.9, ""), Hit("a", 0.1, "")]
    assert list(ranked(hits)) == [("a", 1.0), ("b", 0.5)]
    assert [id for id, _ in ranked([Hit("b", float("nan"), ""), Hit("a", 1.0, "")])] == ["b", "a"]
    assert [score for _, score in ranked([Hit("b", 0.75, ""), Hit("a", 0.5, "")])] == [0.75, 0.5]
    assert len(ranked([])) == 0

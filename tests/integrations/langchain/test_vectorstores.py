"""`borrow`: any vector store of LangChain's, read, searched with other queries, and taught."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("langchain_core")

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore

import ragistry
from ragistry.encoders.functions import Function
from ragistry.encoders.projected import Projected, Projection
from ragistry.errors import InvalidInput
from ragistry.protocols import Source
from ragistry_langchain import RagistryRetriever, VectorStoreSource, borrow, search_tool

WIDTH, TOPICS = 16, 50
TURN = np.linalg.qr(np.random.default_rng(0).normal(size=(WIDTH, WIDTH)))[0]


class Topics(Embeddings):
    """A document is its topic; a question lies elsewhere: turned, and a little off."""

    model = "topics-16"

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self._topic(text).tolist() for text in texts]

    def embed_query(self, text: str) -> list[float]:
        kind, _, *which = text.split()
        vector = self._topic(text)
        if kind == "ask":
            vector = vector + 1.5 * TURN @ vector + 0.3 * np.random.default_rng(int(which[0])).normal(size=WIDTH)
        return vector.tolist()

    def _topic(self, text: str) -> np.ndarray:
        return np.random.default_rng(int(text.split()[1]) + 7).normal(size=WIDTH)


@pytest.fixture
def store() -> InMemoryVectorStore:
    made = InMemoryVectorStore(Topics())
    made.add_documents(
        [Document(f"about {n}", id=f"d{n}", metadata={"even": n % 2 == 0, "key": f"k{n}"}) for n in range(TOPICS)]
    )
    return made


QUERIES = [f"ask {n} {n + 1000}" for n in range(30)]


# The source.


async def test_a_source_gives_the_stores_order(store: InMemoryVectorStore) -> None:
    source = VectorStoreSource(store)
    vector = np.array(store.embeddings.embed_query(QUERIES[0]), np.float32)
    hits = source.near(vector, 4, None)
    assert [hit.id for hit in hits] == [d.id for d in store.similarity_search(QUERIES[0], k=4)]
    assert [hit.score for hit in hits] == [1, 1 / 2, 1 / 3, 1 / 4]
    assert (hits[0].text, hits[0].title) == (store.similarity_search(QUERIES[0], k=1)[0].page_content, "")
    assert await source.anear(vector, 4, None) == hits


async def test_a_source_passes_filters_on(store: InMemoryVectorStore) -> None:
    source = VectorStoreSource(store)
    vector = np.array(store.embeddings.embed_query(QUERIES[0]), np.float32)

    def even(document: Document) -> bool:
        return bool(document.metadata["even"])

    hits = source.near(vector, 5, even)
    assert len(hits) == 5 and all(hit.metadata["even"] for hit in hits)
    assert await source.anear(vector, 5, even) == hits


def test_a_source_gives_documents_by_id(store: InMemoryVectorStore) -> None:
    found = VectorStoreSource(store).get(["d3", "nowhere", "d1", "d3"])
    assert found == [
        ragistry.Document("d3", "about 3", metadata={"even": False, "key": "k3"}),
        ragistry.Document("d1", "about 1", metadata={"even": False, "key": "k1"}),
    ]
    assert VectorStoreSource(store).get([]) == []


def test_what_a_hit_holds_is_not_the_stores(store: InMemoryVectorStore) -> None:
    vector = np.array(store.embeddings.embed_documents(["about 3"])[0], np.float32)
    (hit,) = VectorStoreSource(store).near(vector, 1, None)
    hit.metadata["key"] = "mine"  # type: ignore[index]
    assert store.get_by_ids(["d3"])[0].metadata["key"] == "k3"


class Odd(VectorStore):
    """A store of the older kind: documents without ids, none to be looked up, a filter by another name."""

    def __init__(self, inner: InMemoryVectorStore) -> None:
        self.inner, self.filters = inner, list[Any]()

    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **about: Any) -> list[Document]:
        self.filters.append(about)
        return [
            Document(d.page_content, metadata=d.metadata) for d in self.inner.similarity_search_by_vector(embedding, k)
        ]

    def similarity_search(self, query: str, k: int = 4, **about: Any) -> list[Document]:
        raise AssertionError("searched by text")

    @classmethod
    def from_texts(cls, *given: Any, **about: Any) -> Odd:
        raise AssertionError("written to")

    def add_texts(self, texts: Iterable[str], *given: Any, **about: Any) -> list[str]:
        raise AssertionError("written to")


async def test_ids_are_taken_from_metadata_where_the_store_gives_none(store: InMemoryVectorStore) -> None:
    odd = Odd(store)
    vector = np.array(store.embeddings.embed_documents(["about 3"])[0], np.float32)
    with pytest.raises(InvalidInput, match=r"Odd gave a document without an id; give `id_key`.*even, key"):
        VectorStoreSource(odd).near(vector, 2, None)
    with pytest.raises(InvalidInput, match="without an id under 'other'"):
        VectorStoreSource(odd, id_key="other").near(vector, 2, None)
    source = VectorStoreSource(odd, id_key="key", filter_key="expr")
    assert source.near(vector, 1, "even")[0].id == "k3"
    assert (await source.anear(vector, 1, None))[0].id == "k3"
    assert odd.filters[-2:] == [{"expr": "even"}, {}]
    assert source.get(["k3"]) == []


class Underscored(Odd):
    """Has documents' ids where langchain-qdrant has them."""

    def similarity_search_by_vector(self, embedding: Any, k: int = 4, **kwargs: Any) -> list[Document]:
        found = super().similarity_search_by_vector(embedding, k=k, **kwargs)
        return [Document(one.page_content, metadata={"_id": one.metadata["key"]}) for one in found]


def test_ids_that_a_store_hides_in_the_metadata(store: InMemoryVectorStore) -> None:
    vector = np.array(store.embeddings.embed_query(QUERIES[0]), np.float32)
    expected = [hit.id for hit in VectorStoreSource(Odd(store), id_key="key").near(vector, 3)]
    assert [hit.id for hit in VectorStoreSource(Underscored(store)).near(vector, 3)] == expected


class ByTextOnly(Odd):
    similarity_search_by_vector = VectorStore.similarity_search_by_vector


async def test_a_store_that_cannot_be_searched_by_vector_is_refused(store: InMemoryVectorStore) -> None:
    mine = borrow(ByTextOnly(store), Function(Topics(), "topics"))
    with pytest.raises(InvalidInput, match="ByTextOnly cannot be searched by vector"):
        mine.search(QUERIES[0])
    with pytest.raises(InvalidInput, match="ByTextOnly cannot be searched by vector"):
        await mine.asearch_many(QUERIES[:1])


# Borrowed.


async def test_untaught_it_answers_as_the_store_does(store: InMemoryVectorStore) -> None:
    mine = borrow(store)
    assert isinstance(mine.source, Source)
    expected = [[d.id for d in store.similarity_search(query, k=6)] for query in QUERIES]
    assert [[hit.id for hit in hits] for hits in mine.search_many(QUERIES, 6)] == expected
    assert [[hit.id for hit in hits] for hits in await mine.asearch_many(QUERIES, 6)] == expected
    assert isinstance(mine.encoder, Function) and mine.encoder.name == "Topics:topics-16"


def test_another_encoder_may_be_given(store: InMemoryVectorStore) -> None:
    turned = Projected(
        Function(Topics(), "topics", normalise=False),
        Projection("linear", {"query": {"weight": np.eye(WIDTH, dtype=np.float32)}}),
    )
    assert borrow(store, turned).encoder is turned


def test_what_cannot_be_borrowed_is_refused(store: InMemoryVectorStore) -> None:
    with pytest.raises(InvalidInput, match="VectorStoreRetriever was given"):
        borrow(store.as_retriever())  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="Odd does not say what its embeddings are; give `encoder`"):
        borrow(Odd(store))


async def test_it_learns_and_the_store_stays_as_it_was(store: InMemoryVectorStore) -> None:
    before = {id: (one["text"], list(one["vector"])) for id, one in store.store.items()}
    mine = borrow(store)
    pairs = [(f"ask {n} {n + 100 * turn}", f"d{n}") for n in range(TOPICS) for turn in (1, 2)]
    new = [(f"ask {n} {n + 5000}", f"d{n}") for n in range(TOPICS)]

    def right() -> int:
        return sum(mine.search(query, 1)[0].id == id for query, id in new)

    untaught = right()
    assert mine.fit(pairs).kept
    assert right() > 1.5 * untaught
    assert {id: (one["text"], list(one["vector"])) for id, one in store.store.items()} == before
    retriever = RagistryRetriever(collection=mine, k=1)
    found = retriever.batch([query for query, _ in new])
    assert sum(documents[0].id == id for documents, (_, id) in zip(found, new, strict=True)) == right()
    assert (await retriever.ainvoke(new[0][0]))[0].id == retriever.invoke(new[0][0])[0].id


# A borrowed store behind the retriever and the tool.


def even(document: Document) -> bool:
    return bool(document.metadata["even"])


def odd(document: Document) -> bool:
    return not even(document)


def test_a_retriever_hands_on_the_stores_own_filter(store: InMemoryVectorStore) -> None:
    retriever = RagistryRetriever(collection=borrow(store), k=5, filter=even)
    assert all(document.metadata["even"] for document in retriever.invoke(QUERIES[0]))
    with pytest.raises(InvalidInput, match="only the store knows how to join them"):
        retriever.invoke(QUERIES[0], filter=odd)


def test_no_model_writes_filters_for_a_borrowed_store(store: InMemoryVectorStore) -> None:
    tool = search_tool(borrow(store), where=even, k=5)
    call = {"type": "tool_call", "id": "1", "name": "search", "args": {"query": QUERIES[0]}}
    assert all(document.metadata["even"] for document in tool.invoke(call).artifact)
    call["args"] = {"query": QUERIES[0], "filters": [{"field": "even", "op": "eq", "value": False}]}
    assert "known fields: none" in tool.invoke(call).content
    for two in ({"where": even, "tenant": lambda caller: odd}, {"where": even}, {"tenant": lambda caller: odd}):
        with pytest.raises(InvalidInput, match="one filter at most"):
            search_tool(borrow(store, where=None if len(two) == 2 else even), **two)
    with pytest.raises(InvalidInput, match="give no `fields`"):
        search_tool(borrow(store), fields={"even": "whether it is even"})

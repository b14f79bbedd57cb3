"""Vector stores of LlamaIndex, searched as they are, and taught, while they are only read."""

from __future__ import annotations

import asyncio
import copy
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("llama_index.core")

from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.schema import QueryBundle, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryResult,
)
from pydantic import Field

from ragistry import Document
from ragistry.borrowed import Borrowed
from ragistry.encoders.functions import Function
from ragistry.encoders.projected import Projected, Projection
from ragistry.errors import InvalidInput
from ragistry.protocols import Searchable, Source
from ragistry_llama_index import RagistryEmbedding, RagistryRetriever, VectorStoreSource, borrow, search_tool

QUERIES = ["how many lines?", "prose", "a story", "lines of verse", "z"]


class Keeping(BasePydanticVectorStore):
    """A store that keeps nodes itself, numbers them as it likes, and has an asynchronous query."""

    stores_text: bool = True
    kept: SimpleVectorStore
    nodes: dict[str, Any] = Field(default_factory=dict)
    gives_scores: bool = True
    asked: list[str] = Field(default_factory=list)

    @property
    def client(self) -> None:
        return None

    def add(self, nodes: Any, **settings: Any) -> list[str]:
        self.nodes.update({node.node_id: node for node in nodes})
        return self.kept.add(nodes)

    def delete(self, ref_doc_id: str, **settings: Any) -> None:
        raise AssertionError("a borrowed store is not changed")

    def get_nodes(self, node_ids: Any = None, filters: Any = None) -> list[Any]:
        return [self.nodes[id] for id in reversed(node_ids) if id in self.nodes]

    def query(self, query: VectorStoreQuery, **settings: Any) -> VectorStoreQueryResult:
        self.asked.append("query")
        found = self.kept.query(replace(query, node_ids=query.node_ids or None))
        nodes = [self.nodes[id] for id in found.ids or ()]
        scores = found.similarities if self.gives_scores else None
        return VectorStoreQueryResult(nodes=nodes, similarities=scores, ids=[f"row {id}" for id in found.ids or ()])

    async def aquery(self, query: VectorStoreQuery, **settings: Any) -> VectorStoreQueryResult:
        found = self.query(query)
        self.asked[-1] = "aquery"
        return found


class Rows(SimpleVectorStore):
    """Gives ids of its own, as FAISS does; the index knows which nodes they are."""

    def add(self, nodes: Any, **settings: Any) -> list[str]:
        renamed = [node.model_copy(update={"id_": f"row {number}"}) for number, node in enumerate(nodes)]
        return super().add(renamed)

    def query(self, query: VectorStoreQuery, **settings: Any) -> VectorStoreQueryResult:
        return super().query(replace(query, node_ids=None))


@pytest.fixture
def nodes(documents) -> list[TextNode]:
    return [
        TextNode(
            id_=document.id,
            text=document.text,
            metadata={**document.metadata, **({"title": document.title} if document.title else {})},
            excluded_embed_metadata_keys=["tags", "year"],
        )
        for document in documents
    ]


@pytest.fixture
def index(nodes, embedding) -> VectorStoreIndex:
    return VectorStoreIndex(nodes, embed_model=embedding)


def answers(found: Any) -> list[tuple[str, float]]:
    return [(node.node_id, node.score) for node in found]


def test_it_is_what_a_borrower_asks_for(index) -> None:
    mine = borrow(index)
    assert isinstance(mine, Borrowed)
    assert isinstance(mine, Searchable)
    assert isinstance(mine.source, Source)


@pytest.mark.parametrize("kind", ["simple", "keeping", "rows"])
async def test_untaught_it_answers_as_the_index_does(nodes, embedding, kind) -> None:
    store = {"simple": SimpleVectorStore, "keeping": lambda: Keeping(kept=SimpleVectorStore()), "rows": Rows}[kind]()
    index = VectorStoreIndex(
        nodes, embed_model=embedding, storage_context=StorageContext.from_defaults(vector_store=store)
    )
    theirs, ours = index.as_retriever(similarity_top_k=3), RagistryRetriever(borrow(index), similarity_top_k=3)
    for query in QUERIES:
        expected = theirs.retrieve(query)
        for found in (ours.retrieve(query), await ours.aretrieve(query)):
            assert answers(found) == [(id, pytest.approx(score, abs=1e-6)) for id, score in answers(expected)]
            assert [node.node.hash for node in found] == [node.node.hash for node in expected]
    bundle = QueryBundle("other", custom_embedding_strs=["prose", "a story"])
    assert answers(ours.retrieve(bundle)) == [
        (id, pytest.approx(score, abs=1e-6)) for id, score in answers(theirs.retrieve(bundle))
    ]


def test_searches_change_nothing(index) -> None:
    before = copy.deepcopy(index.vector_store.to_dict()), copy.deepcopy(index.docstore.docs)
    mine = borrow(index)
    for query in QUERIES:
        for found in RagistryRetriever(mine).retrieve(query):
            found.node.metadata["score"] = 1
            found.node.metadata.get("tags", []).append("changed")
    assert (index.vector_store.to_dict(), index.docstore.docs) == before


OLD = MetadataFilters(filters=[MetadataFilter(key="year", value=1606, operator=FilterOperator.LT)])


@pytest.mark.parametrize("where", [OLD, {"year": {"lt": 1606}}])
async def test_filters_are_the_stores(index, where) -> None:
    mine = borrow(index)
    expected = {node.node_id for node in index.as_retriever(filters=OLD, similarity_top_k=5).retrieve("prose")}
    assert expected == {"novel", "essay"}
    assert {hit.id for hit in mine.search("prose", 5, where=where)} == expected
    assert {hit.id for hit in (await mine.asearch_many(["prose"], 5, where=where))[0]} == expected
    assert {hit.id for hit in borrow(index, where=where).search("prose", 5)} == expected
    assert {node.node_id for node in RagistryRetriever(mine, filters=where).retrieve("prose")} == expected
    by_vector = QueryBundle("x", custom_embedding_strs=["prose"])
    for retriever in (RagistryRetriever(mine, filters=where), RagistryRetriever(borrow(index, where=where))):
        assert {node.node_id for node in retriever.retrieve(by_vector)} == expected
    with pytest.raises(InvalidInput, match="held to one already"):
        RagistryRetriever(borrow(index, where=where), filters=where).retrieve(by_vector)


def test_nodes_of_another_index_in_the_same_store_are_left_out(nodes, embedding) -> None:
    store = SimpleVectorStore()
    one, other = (
        VectorStoreIndex(some, embed_model=embedding, storage_context=StorageContext.from_defaults(vector_store=store))
        for some in (nodes[:2], nodes[2:])
    )
    for index in (one, other):
        expected = [node.node_id for node in index.as_retriever(similarity_top_k=5).retrieve("prose")]
        assert [hit.id for hit in borrow(index).search("prose")] == expected


def test_a_tool_searches_it(index) -> None:
    tool = search_tool(borrow(index), where=OLD)
    assert {hit.id for hit in tool.call(query="prose").raw_output.hits} == {"novel", "essay"}
    with pytest.raises(InvalidInput, match="known fields: none"):  # a model does not know the store's language
        tool.call(query="prose", filters=[{"field": "year", "op": "lt", "value": 1606}])


def test_documents_are_given_as_they_were_embedded(index) -> None:
    """Title and all, as LlamaIndex writes metadata before the text; `fit` has them encoded again."""
    source = borrow(index).source
    assert source.get(["haiku", "missing", "sonnet"]) == [
        Document("haiku", "The haiku has three lines and a season.", metadata={"year": 1680, "tags": ["verse"]}),
        Document(
            "sonnet",
            "title: Sonnet\n\nThe sonnet has fourteen lines.",
            metadata={"year": 1609, "tags": ["verse", "love"], "title": "Sonnet"},
        ),
    ]
    assert source.get([]) == []


def test_documents_come_from_docstore_or_store(nodes, embedding) -> None:
    kept = Keeping(kept=SimpleVectorStore())
    kept.nodes.update({node.node_id: node for node in nodes[2:]})
    docstore = SimpleDocumentStore()
    docstore.add_documents(nodes[:2])
    ids = [node.node_id for node in nodes]
    assert [document.id for document in VectorStoreSource(kept, docstore).get([*ids, "missing"])] == ids
    assert [document.id for document in VectorStoreSource(kept).get(ids)] == ids[2:]
    assert VectorStoreSource(SimpleVectorStore()).get(ids) == []  # it can give none


async def test_a_store_without_texts_needs_a_docstore(index, embedding) -> None:
    bare = VectorStoreSource(index.vector_store)
    vector = np.array(embedding.get_query_embedding("prose"), np.float32)
    with pytest.raises(InvalidInput, match=r"SimpleVectorStore found 'essay' and gives ids only; give the docstore"):
        bare.near(vector, 1)
    with pytest.raises(InvalidInput, match="gives ids only"):
        await bare.anear(vector, 1)
    assert VectorStoreSource(index.vector_store, index.docstore).near(vector, 1)[0].id == "essay"


async def test_a_store_with_its_own_asynchronous_query_that_gives_ids(index) -> None:
    class Remote(SimpleVectorStore):
        async def aquery(self, query: VectorStoreQuery, **settings: Any) -> VectorStoreQueryResult:
            return super().query(query)

        def query(self, query: VectorStoreQuery, **settings: Any) -> VectorStoreQueryResult:
            raise AssertionError("asked in the way that blocks")

    vector = np.ones(27, np.float32)
    source = VectorStoreSource(Remote(index.vector_store.data), index.docstore)
    assert await source.anear(vector, 3) == VectorStoreSource(index.vector_store, index.docstore).near(vector, 3)


async def test_a_store_that_tells_no_scores(nodes, embedding) -> None:
    store = Keeping(kept=SimpleVectorStore(), gives_scores=False)
    for node in nodes:
        node.embedding = embedding.get_text_embedding(node.text)
    store.add(nodes)
    hits = borrow(store, embedding).search("prose", 3)
    assert [hit.score for hit in hits] == [1.0, 1 / 2, 1 / 3]
    assert store.asked[-1] == "query"
    assert (await borrow(store, embedding).asearch_many(["prose"], 3))[0] == hits
    assert store.asked[-1] == "aquery"  # its own way


def test_an_empty_store_finds_nothing(embedding) -> None:
    assert borrow(VectorStoreIndex([], embed_model=embedding)).search("x") == []


async def test_the_loop_runs_on_where_the_store_would_block_it(index) -> None:
    class Slow(SimpleVectorStore):
        def query(self, query: VectorStoreQuery, **settings: Any) -> VectorStoreQueryResult:
            assert told.wait(timeout=20), "the loop did not run while this searched"
            return super().query(query)

    async def tell() -> None:
        await asyncio.sleep(0)
        told.set()

    told = threading.Event()
    source = VectorStoreSource(Slow(index.vector_store.data), index.docstore)
    found, _ = await asyncio.gather(source.anear(np.ones(27, np.float32), 2), tell())
    assert len(found) == 2


def test_encoders_of_either_kind(index, embedding, dense) -> None:
    expected = [hit.id for hit in borrow(index).search("prose")]
    store = index.vector_store
    ours = Function(lambda texts: [embedding.get_text_embedding(text) for text in texts], "letters", normalise=False)
    for encoder in (embedding, ours):
        assert [hit.id for hit in borrow(store, encoder, docstore=index.docstore).search("prose")] == expected
    with pytest.raises(InvalidInput, match="a vector store has no encoder"):
        borrow(store, docstore=index.docstore)
    with pytest.raises(InvalidInput, match="list was given; a vector store or VectorStoreIndex is needed"):
        borrow([])


def test_a_query_that_was_embedded_is_turned_as_what_was_learnt(index) -> None:
    mine = borrow(index)
    weight = np.roll(np.eye(27, dtype=np.float32), 3, axis=0)
    mine.encoder = Projected(mine.encoder, Projection("linear", {"query": {"weight": weight}}))
    embedded = QueryBundle("x", embedding=index._embed_model.get_query_embedding("a story"))
    retriever = RagistryRetriever(mine)
    expected = answers(retriever.retrieve("a story"))
    assert answers(retriever.retrieve(embedded)) == [(id, pytest.approx(score, abs=1e-5)) for id, score in expected]
    assert expected != answers(RagistryRetriever(borrow(index)).retrieve("a story"))
    turned = RagistryEmbedding.of(mine)
    assert np.allclose(turned.get_query_embedding("a story"), mine.encoder.encode(["a story"], "query")[0])


def test_it_learns_from_examples(embedding) -> None:
    """Whatever is asked, the words of asking are louder than what is asked about; that can be learnt."""
    width, count = 16, 80
    topics = np.random.default_rng(0).normal(size=(count, width))

    class Asking(type(embedding)):  # type: ignore[misc]
        def _get_text_embedding(self, text: str) -> list[float]:
            found: list[float] = topics[int(text.split()[1])].tolist()
            return found

        def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
            return [self._get_text_embedding(text) for text in texts]

        def _get_query_embedding(self, query: str) -> list[float]:
            _, topic, seed = query.split()
            noise = 0.3 * np.random.default_rng(int(seed)).normal(size=width)
            found: list[float] = (topics[int(topic)] + 1.5 + noise).tolist()
            return found

    nodes = [TextNode(id_=f"d{n}", text=f"tell {n}") for n in range(count)]
    index = VectorStoreIndex(nodes, embed_model=Asking(model_name="asking"))
    before = copy.deepcopy(index.vector_store.to_dict())
    mine = borrow(index)
    fit = mine.fit([(f"ask {n} {seed}", f"d{n}") for n in range(count) for seed in (2 * n, 2 * n + 1)])
    assert fit.kept
    new = [(f"ask {n} {1000 + n}", f"d{n}") for n in range(count)]
    right, untaught = (sum(found.search(query, 1)[0].id == id for query, id in new) for found in (mine, borrow(index)))
    assert right > untaught + count / 3
    assert index.vector_store.to_dict() == before

"""The retriever in LlamaIndex's engines, fusions, routers and evaluators, and among many threads."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("llama_index.core")

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload, LlamaDebugHandler
from llama_index.core.evaluation import RetrieverEvaluator
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import QueryFusionRetriever, RouterRetriever
from llama_index.core.schema import QueryBundle
from llama_index.core.selectors import LLMMultiSelector
from llama_index.core.tools import QueryEngineTool, RetrieverTool
from llama_index.core.vector_stores.types import FilterOperator, MetadataFilter, MetadataFilters

from ragistry import Collection, Document, Hit
from ragistry.encoders.projected import Projection
from ragistry.errors import InvalidInput, StorageError
from ragistry.retrievers.adapted import Adapted
from ragistry.retrievers.retrained import Retrained
from ragistry_llama_index import RagistryEmbedding, RagistryRetriever, borrow

OLD = MetadataFilters(filters=[MetadataFilter(key="year", value=1700, operator=FilterOperator.LT)])


def ids(nodes: list[Any]) -> list[str]:
    return [node.node_id for node in nodes]


def answers(nodes: list[Any]) -> list[tuple[str, float]]:
    return [(node.node_id, node.score) for node in nodes]


class Canned:
    """Always finds the same, from memory that must stay as it is."""

    def __init__(self, *hits: Hit) -> None:
        self.hits, self.asked = list(hits), list[Any]()

    def search_many(self, queries: Any, k: int = 10, *, where: Any = None) -> list[list[Hit]]:
        self.asked.append((list(queries), k, where))
        return [self.hits[:k] for _ in queries]


def test_it_retrieves_what_the_collection_finds(docs) -> None:
    retriever = RagistryRetriever(docs, similarity_top_k=2)
    assert isinstance(retriever, BaseRetriever)
    found, hits = retriever.retrieve("fourteen lines"), docs.search("fourteen lines", 2)
    assert answers(found) == [(hit.id, hit.score) for hit in hits]
    assert [node.text for node in found] == [hit.text for hit in hits]
    assert found[0].score > found[1].score > 0
    assert {node.node_id: node.metadata for node in found} == {
        "sonnet": {"year": 1609, "tags": ["verse", "love"], "title": "Sonnet"},
        "haiku": {"year": 1680, "tags": ["verse"]},
    }


async def test_async_finds_the_same(docs, dense) -> None:
    for collection in (docs, dense):
        retriever = RagistryRetriever(collection)
        for query in ("lines", "prose", QueryBundle("x", custom_embedding_strs=["prose", "lines"])):
            assert answers(await retriever.aretrieve(query)) == answers(retriever.retrieve(query))


def test_a_path_is_opened(docs) -> None:
    retriever = RagistryRetriever(str(docs.path))
    assert isinstance(retriever.collection, Collection)
    assert ids(retriever.retrieve("prose")) == ids(RagistryRetriever(docs).retrieve("prose"))
    retriever.collection.close()
    with pytest.raises(StorageError):
        RagistryRetriever(docs.path / "nothing")


@pytest.mark.parametrize("filters", [OLD, {"year": {"lt": 1700}}])
async def test_filters_are_applied_before_ranking(docs, dense, filters) -> None:
    for collection in (docs, dense):
        retriever = RagistryRetriever(collection, filters=filters, similarity_top_k=3)
        for query in (
            "ballad verse lines prose novel haiku",
            QueryBundle("lines prose", custom_embedding_strs=["a ballad"]),
        ):
            found = retriever.retrieve(query)
            assert len(found) == 3  # not fewer for those that are left out
            assert all(node.score != 0 and node.metadata["year"] < 1700 for node in found)
            assert answers(await retriever.aretrieve(query)) == answers(found)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"collection": object()}, "object has no method `search_many`"),
        ({"similarity_top_k": 0}, "similarity_top_k=0; give a whole number of 1 or more"),
        ({"similarity_top_k": "3"}, "similarity_top_k='3'"),
        (
            {
                "filters": MetadataFilters(
                    filters=[MetadataFilter(key="x", value="a", operator="text_match_insensitive")]
                )
            },
            "'text_match_insensitive' for the field 'x'",
        ),
        ({"filters": [("year", 1)]}, "is list; MetadataFilters or a mapping is needed"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_cannot_be_used_is_refused_at_once(docs, arguments, message) -> None:
    with pytest.raises(InvalidInput, match=message):
        RagistryRetriever(**{"collection": docs, **arguments})


@pytest.mark.parametrize(("foreign", "where"), [(False, {"year": {"lt": 1700}}), (True, OLD)])
def test_only_a_borrowed_store_gets_filters_as_they_are(foreign, where) -> None:
    canned = Canned(Hit("1", 1.0, "x"))
    canned.foreign_filters = foreign
    RagistryRetriever(canned, filters=OLD, similarity_top_k=3).retrieve("q")
    assert canned.asked == [(["q"], 3, where)]


def test_many_more_than_there_are_can_be_asked_for(docs) -> None:
    assert len(RagistryRetriever(docs, similarity_top_k=1000).retrieve("lines verse prose story idea")) <= 5


# Vectors that come with a query.


def test_a_given_vector_is_searched_with(dense) -> None:
    retriever = RagistryRetriever(dense)
    vector = RagistryEmbedding.of(dense).get_query_embedding("a season of three lines")
    by_vector = retriever.retrieve(QueryBundle("of no importance", embedding=vector))
    by_text = retriever.retrieve("a season of three lines")
    assert ids(by_vector) == ids(by_text)
    assert [node.score for node in by_vector] == pytest.approx([node.score for node in by_text], abs=1e-6)


def test_texts_to_embed_are_searched_with_by_their_mean(dense) -> None:
    """As LlamaIndex's own vector retriever does; so does an imagined answer (HyDE)."""
    retriever, texts = RagistryRetriever(dense), ["a season", "three lines"]
    mean = RagistryEmbedding.of(dense).get_agg_embedding_from_queries(texts)
    expected = retriever.retrieve(QueryBundle("other", embedding=mean))
    found = retriever.retrieve(QueryBundle("other", custom_embedding_strs=texts))
    assert answers(found) == [(id, pytest.approx(score, abs=1e-6)) for id, score in answers(expected)]
    assert ids(found) != ids(retriever.retrieve("other"))


def test_a_vector_of_another_width_is_refused(dense) -> None:
    with pytest.raises(InvalidInput, match="dimension"):
        RagistryRetriever(dense).retrieve(QueryBundle("x", embedding=[1.0, 2.0]))


def answered_by(retriever, collection, monkeypatch) -> None:
    """Have a collection answer by another retriever over the same documents."""
    view = replace(collection._store.current(), retriever=retriever)
    monkeypatch.setattr(collection._store, "current", lambda: view)
    monkeypatch.setattr(collection._store, "read", lambda ask: ask(view))


def test_a_given_vector_is_turned_as_the_collection_was_taught(dense, monkeypatch) -> None:
    plain = dense.retriever()
    taught = Adapted(plain.encoder, lambda: plain.index.fork(), lambda: plain.index.fork())
    taught.index = plain.index.fork()
    weight = np.roll(np.eye(27, dtype=np.float32), 1, axis=0)
    taught.projection = Projection("linear", {"query": {"weight": weight}})
    answered_by(taught, dense, monkeypatch)

    untaught = RagistryEmbedding(plain.encoder).get_query_embedding("haiku")
    found = RagistryRetriever(dense).retrieve(QueryBundle("x", embedding=untaught))
    expected = list(taught.search(["haiku"], 10)[0])
    assert answers(found) == [(id, pytest.approx(score, abs=1e-6)) for id, score in expected]
    assert answers(RagistryRetriever(dense).retrieve(QueryBundle("x", custom_embedding_strs=["haiku"]))) == [
        (id, pytest.approx(score, abs=1e-6)) for id, score in expected
    ]
    assert expected != list(plain.search(["haiku"], 10)[0])
    # and the embedding model that was taught makes turned vectors itself
    turned = np.array(RagistryEmbedding.of(dense).get_query_embedding("haiku"), np.float32)
    assert np.allclose(turned, taught.turned(np.array([untaught], np.float32))[0], atol=1e-6)


def test_a_vector_of_a_model_that_was_retrained_is_not_taken_for_one_of_the_new_model(dense, monkeypatch) -> None:
    plain = dense.retriever()
    retrained = Retrained(plain.encoder, plain.index.fork)
    retrained.weights = {"some": np.ones(1, np.float32)}
    answered_by(retrained, dense, monkeypatch)
    retriever, expected = RagistryRetriever(dense), answers(RagistryRetriever(dense).retrieve("haiku"))
    vector = RagistryEmbedding(plain.encoder).get_query_embedding("prose")
    assert answers(retriever.retrieve(QueryBundle("haiku", embedding=vector))) == expected
    assert answers(retriever.retrieve(QueryBundle("haiku", custom_embedding_strs=["other"]))) == expected


def test_words_are_searched_for_where_vectors_have_no_use(docs) -> None:
    retriever = RagistryRetriever(docs)
    expected = answers(retriever.retrieve("prose"))
    assert answers(retriever.retrieve(QueryBundle("prose", embedding=[1.0]))) == expected
    assert answers(retriever.retrieve(QueryBundle("prose", custom_embedding_strs=["lines"]))) == expected


# What LlamaIndex does with the nodes.


def test_nodes_are_made_anew_for_each_call() -> None:
    canned = Canned(Hit("1", 0.9, "x", metadata={"tags": ["a"]}))
    retriever = RagistryRetriever(canned)
    first = retriever.retrieve("q")[0]
    first.score = 7.0
    first.node.metadata["tags"].append("b")
    again = retriever.retrieve("q")[0]
    assert (again.score, again.metadata) == (0.9, {"tags": ["a"]})
    assert canned.hits == [Hit("1", 0.9, "x", metadata={"tags": ["a"]})]


def test_scores_are_not_among_the_metadata(docs, dense) -> None:
    """LlamaIndex tells duplicates by a hash of text and metadata."""
    words, vectors = (RagistryRetriever(found).retrieve("lines of verse") for found in (docs, dense))
    hashes = {node.node_id: node.node.hash for node in vectors}
    assert words
    assert all(hashes[node.node_id] == node.node.hash for node in words)


@pytest.mark.parametrize("mode", ["reciprocal_rerank", "relative_score", "dist_based_score", "simple"])
@pytest.mark.parametrize("use_async", [False, True])
def test_fusion_knows_documents_that_both_find(docs, dense, mode, use_async) -> None:
    ours = [RagistryRetriever(found) for found in (docs, dense)]
    before = [answers(retriever.retrieve("three lines")) for retriever in ours]
    fusion = QueryFusionRetriever(
        ours, llm=MockLLM(), num_queries=1, mode=mode, use_async=use_async, similarity_top_k=10
    )
    found = fusion.retrieve("three lines")
    assert sorted(ids(found)) == ["ballad", "essay", "haiku", "novel", "sonnet"]  # each once
    assert found[0].node_id == "haiku"
    assert [answers(retriever.retrieve("three lines")) for retriever in ours] == before


async def test_fusion_runs_asynchronously(docs, dense) -> None:
    ours = [RagistryRetriever(found) for found in (docs, dense)]
    fusion = QueryFusionRetriever(ours, llm=MockLLM(), num_queries=1, mode="reciprocal_rerank", similarity_top_k=10)
    assert len(ids(await fusion.aretrieve("three lines"))) == 5


async def test_a_query_engine_reads_the_texts(docs) -> None:
    engine = RetrieverQueryEngine.from_args(RagistryRetriever(docs, similarity_top_k=1), llm=MockLLM())
    for answer in (engine.query("how many lines has a sonnet?"), await engine.aquery("how many lines has a sonnet?")):
        assert "title: Sonnet" in str(answer)  # MockLLM repeats its prompt
        assert "The sonnet has fourteen lines." in str(answer)
        assert ids(answer.source_nodes) == ["sonnet"]
        assert answer.source_nodes[0].score > 0


async def test_a_query_engine_is_a_tool(docs) -> None:
    engine = RetrieverQueryEngine.from_args(RagistryRetriever(docs, similarity_top_k=1), llm=MockLLM())
    tool = QueryEngineTool.from_defaults(engine, name="poetry", description="About poetry.")
    assert "three lines" in (await tool.acall(input="haiku")).content


class Chooses(LLMMultiSelector):
    """Routes every query to the second retriever."""

    def __init__(self) -> None:
        self._llm = MockLLM()

    def _select(self, choices: Any, query: Any) -> Any:
        return SimpleNamespace(inds=[1], ind=1, selections=[], reasons=["verse"], reason="verse")


def test_a_router_asks_it(docs, dense) -> None:
    tools = [RetrieverTool.from_defaults(RagistryRetriever(found), description="d") for found in (dense, docs)]
    router = RouterRetriever(Chooses(), tools, llm=MockLLM())
    assert ids(router.retrieve("prose")) == ids(RagistryRetriever(docs).retrieve("prose"))


async def test_evaluators_know_the_ids(docs) -> None:
    evaluator = RetrieverEvaluator.from_metric_names(["hit_rate", "mrr", "ndcg"], retriever=RagistryRetriever(docs))
    right = evaluator.evaluate("fourteen lines", ["sonnet"]).metric_vals_dict
    assert right == {"hit_rate": 1.0, "mrr": 1.0, "ndcg": 1.0}
    second = (await evaluator.aevaluate("fourteen lines", ["haiku"])).metric_vals_dict
    assert (second["hit_rate"], second["mrr"]) == (1.0, 0.5)
    assert evaluator.evaluate("fourteen lines", ["missing"]).metric_vals_dict["hit_rate"] == 0.0


def test_callbacks_hear_of_it(docs) -> None:
    handler = LlamaDebugHandler(print_trace_on_end=False)
    RagistryRetriever(docs, callback_manager=CallbackManager([handler])).retrieve("prose")
    ((_, end),) = handler.get_event_pairs(CBEventType.RETRIEVE)
    assert ids(end.payload[EventPayload.NODES]) == ids(RagistryRetriever(docs).retrieve("prose"))


# Threads and the event loop.


class Meeting:
    """Each search waits for three others: they must be under way at once."""

    def __init__(self, parties: int) -> None:
        self.barrier = threading.Barrier(parties)

    def search_many(self, queries: Any, k: int = 10, *, where: Any = None) -> list[list[Hit]]:
        self.barrier.wait(timeout=20)
        return [[Hit(query, 1.0, query)] for query in queries]


async def test_searches_overlap() -> None:
    retriever = RagistryRetriever(Meeting(4))
    found = await asyncio.gather(*(retriever.aretrieve(str(number)) for number in range(4)))
    assert [ids(nodes) for nodes in found] == [["0"], ["1"], ["2"], ["3"]]


async def test_the_loop_runs_on_during_a_search() -> None:
    class Waiting:
        def search_many(self, queries: Any, k: int = 10, *, where: Any = None) -> list[list[Hit]]:
            assert told.wait(timeout=20), "the loop did not run while this searched"
            return [[Hit("1", 1.0, "x")]]

    async def tell() -> None:
        await asyncio.sleep(0)
        told.set()

    told = threading.Event()
    found, _ = await asyncio.gather(RagistryRetriever(Waiting()).aretrieve("q"), tell())
    assert ids(found) == ["1"]


async def test_the_loop_runs_on_while_a_query_is_embedded(embedding) -> None:
    """Also where a query comes with texts, which an encoder of someone's own reads."""

    class Slow(type(embedding)):  # type: ignore[misc]
        def _get_query_embedding(self, query: str) -> list[float]:
            assert told.wait(timeout=20), "the loop did not run while this encoded"
            return [1.0, 0.0]

        def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
            return [[1.0, 0.0] for _ in texts]

    from llama_index.core import VectorStoreIndex
    from llama_index.core.schema import TextNode

    async def tell() -> None:
        await asyncio.sleep(0)
        told.set()

    told = threading.Event()
    told.set()
    mine = borrow(VectorStoreIndex([TextNode(id_="1", text="x")], embed_model=Slow(model_name="slow")))
    for query in ("q", QueryBundle("q", custom_embedding_strs=["x"])):
        told.clear()
        found, _ = await asyncio.gather(RagistryRetriever(mine).aretrieve(query), tell())
        assert ids(found) == ["1"]


def in_threads(docs: Collection, each: int) -> None:
    asked = [
        (RagistryRetriever(docs, similarity_top_k=k, filters=filters), query)
        for k in (1, 2, 5)
        for filters in (None, OLD, {"tags": {"contains": "verse"}}, {"year": {"gte": 1600}})
        for query in ("lines of verse", "prose", "a story in stanzas", "how many lines has a sonnet?", "")
    ]
    expected = [answers(retriever.retrieve(query)) for retriever, query in asked]
    assert len({str(found) for found in expected}) >= 8

    def work(thread: int) -> list[int]:
        order = np.random.default_rng(thread).integers(len(asked), size=each).tolist()
        return [i for i in order if answers(asked[i][0].retrieve(asked[i][1])) != expected[i]]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [[]] * 8


def test_threads_do_not_disturb_each_other(docs) -> None:
    in_threads(docs, 25)


@pytest.mark.slow
def test_two_thousand_queries_in_threads(docs) -> None:
    in_threads(docs, 250)


def test_what_is_added_is_found(docs) -> None:
    retriever = RagistryRetriever(docs)
    docs.add(Document("limerick", "A limerick has five lines."))
    assert ids(retriever.retrieve("limerick")) == ["limerick"]
    docs.remove("limerick")
    assert ids(retriever.retrieve("limerick")) == []

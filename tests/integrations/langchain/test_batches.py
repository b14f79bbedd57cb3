"""`RagistryRetriever`: many queries at once, traced one by one, from threads and from an event loop."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

pytest.importorskip("langchain_core")

from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda

import ragistry
from ragistry import Collection, Hit, create
from ragistry.encoders.functions import register_encoder
from ragistry.errors import InvalidInput
from ragistry_langchain import RagistryRetriever

EN = {"lang": "en"}


def ids(found: Sequence[Document]) -> list[str | None]:
    return [document.id for document in found]


class Watched:
    """A collection that remembers what it was asked, and may wait until it is let go."""

    def __init__(self, docs: Collection, gate: threading.Event | None = None) -> None:
        self.docs, self.gate = docs, gate
        self.asked: list[tuple[list[str], int, Any]] = []

    def search_many(self, queries: Sequence[str], k: int = 10, *, where: Any = None) -> list[list[Hit]]:
        assert self.gate is None or self.gate.wait(20), "the event loop stood still"
        self.asked.append((list(queries), k, where))
        return self.docs.search_many(queries, k, where=where)


class Trace(BaseCallbackHandler):
    """Every event of a retriever, by run."""

    def __init__(self) -> None:
        self.started: dict[UUID, tuple[str, dict[str, Any]]] = {}
        self.ended: dict[UUID, list[str | None]] = {}
        self.failed: dict[UUID, BaseException] = {}

    def on_retriever_start(self, serialized: Any, query: str, *, run_id: UUID, **about: Any) -> None:
        self.started[run_id] = query, about

    def on_retriever_end(self, documents: Sequence[Document], *, run_id: UUID, **about: Any) -> None:
        self.ended[run_id] = ids(documents)

    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **about: Any) -> None:
        self.failed[run_id] = error


class AsyncTrace(AsyncCallbackHandler):
    """The same, awaited."""

    def __init__(self) -> None:
        self.trace = Trace()

    async def on_retriever_start(self, *given: Any, **about: Any) -> None:
        self.trace.on_retriever_start(*given, **about)

    async def on_retriever_end(self, *given: Any, **about: Any) -> None:
        self.trace.on_retriever_end(*given, **about)

    async def on_retriever_error(self, *given: Any, **about: Any) -> None:
        self.trace.on_retriever_error(*given, **about)


async def test_a_batch_is_one_search(docs: Collection) -> None:
    watched = Watched(docs)
    retriever = RagistryRetriever(collection=watched, k=2)
    queries = ["sonnet", "haiku", "rhyme"]
    expected = [[hit.id for hit in hits] for hits in docs.search_many(queries, 2)]
    assert [ids(found) for found in retriever.batch(queries)] == expected
    assert [ids(found) for found in await retriever.abatch(queries)] == expected
    assert watched.asked == [(queries, 2, None)] * 2
    assert retriever.batch([]) == await retriever.abatch([]) == []


def test_a_batch_is_one_encoding(tmp_path: Path) -> None:
    calls: list[list[str]] = []

    def lengths(texts: list[str]) -> list[list[float]]:
        calls.append(texts)
        return [[len(text), 1.0] for text in texts]

    name = f"lengths-{uuid4()}"
    register_encoder(name, lengths)
    with Collection.create(tmp_path / "dense", create("dense", model=name)) as dense:
        dense.add([ragistry.Document("1", "four"), ragistry.Document("2", "fourteen lines")])
        calls.clear()
        found = RagistryRetriever(collection=dense, k=1).batch(["fore", "fifteen liners", "five"])
    assert calls == [["fore", "fifteen liners", "five"]]
    assert [ids(one) for one in found] == [["1"], ["2"], ["1"]]


async def test_each_query_of_a_batch_is_traced(docs: Collection) -> None:
    retriever = RagistryRetriever(collection=docs, k=1, tags=["mine"], metadata={"team": "poetry"})
    queries, first = ["sonnet", "haiku"], uuid4()
    for asynchronous in (False, True):
        handler = AsyncTrace() if asynchronous else Trace()
        trace = handler.trace if isinstance(handler, AsyncTrace) else handler
        configs: Any = [
            {"callbacks": [handler], "run_name": "one", "run_id": first, "metadata": {"turn": 1}},
            {"callbacks": [handler], "tags": ["second"]},
        ]
        await retriever.abatch(queries, configs) if asynchronous else retriever.batch(queries, configs)
        (one, about), (two, more) = trace.started.values()
        assert (one, two) == ("sonnet", "haiku")
        assert next(iter(trace.started)) == first
        assert about["name"] == "one" and more["name"] == "RagistryRetriever"
        assert about["tags"] == ["mine"] and set(more["tags"]) == {"second", "mine"}
        assert about["metadata"]["turn"] == 1 and about["metadata"]["team"] == "poetry"
        assert about["metadata"]["ls_retriever_name"] == "bm25"
        assert about["metadata"]["ls_vector_store_provider"] == "ragistry"
        assert list(trace.ended.values()) == [["sonnet"], ["haiku"]]
        assert not trace.failed


def test_an_invoke_and_a_batch_trace_the_same(docs: Collection) -> None:
    seen = []
    for call in (lambda r, c: r.invoke("sonnet", c), lambda r, c: r.batch(["sonnet"], c)):
        trace = Trace()
        call(
            RagistryRetriever(collection=docs, tags=["mine"], metadata={"a": 1}), {"callbacks": [trace], "tags": ["t"]}
        )
        ((query, about),) = trace.started.values()
        seen.append((query, about["name"], sorted(about["tags"]), about["metadata"], list(trace.ended.values())))
    assert seen[0] == seen[1]


def test_a_batch_within_a_chain_is_traced_as_part_of_it(docs: Collection) -> None:
    trace = Trace()
    chain = RunnableLambda(str.lower) | RagistryRetriever(collection=docs, k=1)
    chain.batch(["SONNET", "HAIKU"], {"callbacks": [trace]})
    parents = [about["parent_run_id"] for _, about in trace.started.values()]
    assert None not in parents and len(set(parents)) == 2


def test_the_model_is_named_to_traces(tmp_path: Path) -> None:
    name = f"lengths-{uuid4()}"
    register_encoder(name, lambda texts: [[len(text), 1] for text in texts])
    with Collection.create(tmp_path / "dense", create("dense", model=name)) as dense:
        params = RagistryRetriever(collection=dense)._get_ls_params()
    assert params["ls_retriever_name"] == "dense" and params["ls_embedding_model"] == name


async def test_exceptions_are_raised_or_returned_as_asked(docs: Collection) -> None:
    retriever = RagistryRetriever(collection=docs, k=1)
    queries: Any = ["sonnet", 3, "haiku"]
    for asynchronous in (False, True):
        trace = Trace()
        config: Any = {"callbacks": [trace]}
        with pytest.raises(InvalidInput):
            await retriever.abatch(queries, config) if asynchronous else retriever.batch(queries, config)
        assert len(trace.started) == len(trace.failed) == 3  # no run is left open

        trace = Trace()
        config = {"callbacks": [trace]}
        if asynchronous:
            found: list[Any] = await retriever.abatch(queries, config, return_exceptions=True)
        else:
            found = retriever.batch(queries, config, return_exceptions=True)
        assert [ids(found[0]), ids(found[2])] == [["sonnet"], ["haiku"]]
        assert isinstance(found[1], InvalidInput)
        assert len(trace.ended) == 2 and list(trace.failed.values()) == [found[1]]


def test_as_many_configs_as_queries_are_needed(docs: Collection) -> None:
    with pytest.raises(ValueError, match="2 configs for 3 inputs"):
        RagistryRetriever(collection=docs).batch(["a", "b", "c"], [{}, {}])


async def test_the_event_loop_runs_on(docs: Collection) -> None:
    for call in (lambda r: r.ainvoke("sonnet"), lambda r: r.abatch(["sonnet", "haiku"])):
        gate = threading.Event()
        retriever = RagistryRetriever(collection=Watched(docs, gate), k=1)
        task = asyncio.ensure_future(call(retriever))
        await asyncio.sleep(0.05)
        assert not task.done()
        gate.set()  # reached only because the search does not hold the loop
        assert await task


@pytest.mark.parametrize("each", [25, pytest.param(250, marks=pytest.mark.slow)])
def test_threads_get_what_one_would(docs: Collection, each: int) -> None:
    retriever = RagistryRetriever(collection=docs)
    words, filters = (
        ["sonnet", "haiku", "lines that rhyme", "refrain", "two couplets"],
        [None, EN, {"lines": {"lt": 6}}],
    )
    draw = random.Random(0)
    work = [
        (draw.choices(words, k=draw.choice([1, 1, 3])), draw.randint(1, 5), draw.choice(filters))
        for _ in range(8 * each)
    ]

    def ask(one: tuple[list[str], int, Any]) -> list[list[Document]]:
        queries, k, where = one
        if len(queries) == 1:
            return [retriever.invoke(queries[0], k=k, filter=where)]
        return retriever.batch(queries, k=k, filter=where)

    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(ask, work))
    assert together == [ask(one) for one in work]

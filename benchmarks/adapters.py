"""What an adapter costs on top of the collection: against the emptiest retriever that its framework allows.

    python benchmarks/adapters.py [--calls 300] [--rounds 7]

Our adapters search a collection that answers at once with ten hits, so that all that is measured is the framework and the
adapter. Beside them stand retrievers written as short as can be: one that finds nothing, and one that makes ten documents of
the same texts, ids and metadata (five for the tool, which asks for five); tools declare what they return, and are plain
functions, which mcp runs in a thread. A batch is 16 queries, and is counted by query.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dspy
import haystack
from common import interleaved, median_ratio, report
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from llama_index.core.base.base_retriever import BaseRetriever as LlamaRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from mcp import Client
from mcp.server import MCPServer

from haystack_integrations.components.retrievers.ragistry import RagistryRetriever as HaystackRetriever
from ragistry import Hit
from ragistry.tools import Found, SearchResult
from ragistry_dspy import RagistryRetriever as DSPyRetriever
from ragistry_langchain import RagistryRetriever as LangChainRetriever
from ragistry_llama_index import RagistryRetriever as LlamaIndexRetriever
from ragistry_mcp import server

HITS = [Hit(f"guide.md#{i}", 1 / (i + 1), "A passage of some length. " * 20, metadata={"page": i}) for i in range(10)]
BATCH = [f"query {i}" for i in range(16)]


class Instant:
    """A collection that answers at once."""

    def search_many(
        self, queries: Sequence[str], k: int = 10, *, where: Mapping[str, Any] | None = None
    ) -> list[list[Hit]]:
        return [HITS[:k] for _ in queries]


class NoLangChain(BaseRetriever):
    """Finds nothing, or as much as is to be made anew."""

    many: int = 0

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return [Document(hit.text, id=hit.id, metadata=dict(hit.metadata)) for hit in HITS[: self.many]]


class NoLlamaIndex(LlamaRetriever):
    """Finds nothing, or as much as is to be made anew."""

    def __init__(self, many: int) -> None:
        super().__init__()
        self.many = many

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [
            NodeWithScore(node=TextNode(id_=hit.id, text=hit.text, metadata=dict(hit.metadata)), score=hit.score)
            for hit in HITS[: self.many]
        ]


@haystack.component
class NoHaystack:
    """Finds nothing, or as much as is to be made anew."""

    def __init__(self, many: int) -> None:
        self.many = many

    @haystack.component.output_types(documents=list[haystack.Document])
    def run(self, query: str) -> dict[str, list[haystack.Document]]:
        return {
            "documents": [
                haystack.Document(id=hit.id, content=hit.text, meta=dict(hit.metadata), score=hit.score)
                for hit in HITS[: self.many]
            ]
        }


class NoDSPy(dspy.Module):  # type: ignore[misc]
    """Finds nothing, or as much as is to be made anew."""

    def __init__(self, many: int) -> None:
        super().__init__()
        self.many = many

    def forward(self, query: str) -> Any:
        some = HITS[: self.many]
        return dspy.Prediction(passages=[hit.text for hit in some], ids=[hit.id for hit in some])


def no_server(many: int) -> MCPServer[Any]:
    """A server whose one tool finds nothing, or as much as is to be made anew."""
    made = MCPServer[Any]("none")

    @made.tool(name="search", structured_output=True)
    def search(query: str) -> SearchResult:
        hits = [Found(id=hit.id, score=hit.score, text=hit.text, metadata=dict(hit.metadata)) for hit in HITS[:many]]
        return SearchResult(query=query, hits=hits)

    return made


def main() -> None:
    """Measure, print and write results/adapters.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    instant = Instant()
    chains = [NoLangChain(), NoLangChain(many=10), LangChainRetriever(collection=instant)]
    nodes = [NoLlamaIndex(0), NoLlamaIndex(10), LlamaIndexRetriever(instant)]
    modules = [NoDSPy(0), NoDSPy(10), DSPyRetriever(instant, k=10)]
    parts: list[Any] = [NoHaystack(0), NoHaystack(10), HaystackRetriever(instant)]
    calls = options.calls
    rows = [
        row("LangChain, invoke", [repeat(one.invoke, calls) for one in chains], calls, options.rounds),
        row(
            "LangChain, batch of 16", [each(one.batch, calls // 16) for one in chains], calls // 16 * 16, options.rounds
        ),
        row("LangChain, ainvoke", [gathered(one.ainvoke, calls) for one in chains], calls, options.rounds),
        row("LlamaIndex, retrieve", [repeat(one.retrieve, calls) for one in nodes], calls, options.rounds),
        row("DSPy, call", [repeat(one, calls) for one in modules], calls, options.rounds),
        row("Haystack, run", [repeat(lambda q, o=one: o.run(query=q), calls) for one in parts], calls, options.rounds),
        asyncio.run(tools([no_server(0), no_server(5), server(instant)], calls // 3, options.rounds)),
    ]
    notes = f"microseconds a call, medians of {options.rounds} interleaved rounds; ratios are medians over rounds"
    report("adapters", rows, title="What adapters cost", notes=notes)


def repeat(call: Callable[[str], object], times: int) -> Callable[[], None]:
    """Many calls, one after the other."""

    def run() -> None:
        for i in range(times):
            call(f"query {i}")

    return run


def each(call: Callable[[list[str]], object], times: int) -> Callable[[], None]:
    """Many batches, one after the other."""

    def run() -> None:
        for _ in range(times):
            call(BATCH)

    return run


def gathered(call: Callable[[str], Any], times: int) -> Callable[[], None]:
    """Many calls, one after the other, in an event loop."""

    async def inside() -> None:
        for i in range(times):
            await call(f"query {i}")

    return lambda: asyncio.run(inside())


async def tools(servers: Sequence[MCPServer[Any]], times: int, rounds: int) -> dict[str, object]:
    """A row for tool calls by a client in this process."""
    async with Client(servers[0]) as nothing, Client(servers[1]) as short, Client(servers[2]) as ours:
        clients = {"nothing": nothing, "ten": short, "ours": ours}
        seconds: dict[str, list[float]] = {name: [] for name in clients}
        loop = asyncio.get_running_loop()
        for _ in range(rounds + 1):
            for name, client in clients.items():
                began = loop.time()
                for i in range(times):
                    await client.call_tool("search", {"query": f"query {i}"})
                seconds[name].append(loop.time() - began)
    return shown("MCP, call_tool", {name: some[1:] for name, some in seconds.items()}, times)


def row(name: str, runs: Sequence[Callable[[], None]], calls: int, rounds: int) -> dict[str, object]:
    """A row of the table."""
    functions = dict(zip(("nothing", "ten", "ours"), runs, strict=True))
    interleaved(functions, 1)
    return shown(name, interleaved(functions, rounds), calls)


def shown(name: str, seconds: Mapping[str, Sequence[float]], calls: int) -> dict[str, object]:
    """Times as a row."""
    micro = {key: statistics.median(some) / calls * 1e6 for key, some in seconds.items()}
    return {
        "call": name,
        "finds nothing": f"{micro['nothing']:.0f}",
        "makes 10 documents": f"{micro['ten']:.0f}",
        "Ragistry, 10 hits": f"{micro['ours']:.0f}",
        "to nothing": f"{1 / median_ratio(seconds, 'nothing', 'ours'):.2f}x",
        "to 10 documents": f"{1 / median_ratio(seconds, 'ten', 'ours'):.2f}x",
    }


if __name__ == "__main__":
    main()

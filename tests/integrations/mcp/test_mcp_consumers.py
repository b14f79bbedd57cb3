"""The server as agents of other frameworks use it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp")

from mcp import Client

from ragistry import Collection, Document, create
from ragistry_mcp import server


@pytest.fixture
def docs(tmp_path: Path) -> Collection:
    docs = Collection.create(tmp_path / "docs", create("bm25"))
    docs.add(
        [Document("a/b", "The sonnet has fourteen lines.", "Sonnet", {"year": 1609}), Document("2", "Three lines.")]
    )
    return docs


async def test_langchain(docs: Collection) -> None:
    pytest.importorskip("fastmcp")
    beta = pytest.importorskip("langchain_core._api")
    with beta.suppress_langchain_beta_warning():
        adapters = pytest.importorskip("langchain.mcp")
    async with adapters.MCPAdapter(server(docs)) as adapter:
        tools = {tool.name: tool for tool in await adapter.list_tools()}
        assert set(tools) == {"search", "fetch", "list_collections"}
        condition = {"field": "year", "op": "lt", "value": 1700}
        asked = {"query": "lines", "k": 3, "filters": [condition]}
        found = await tools["search"].ainvoke({"type": "tool_call", "id": "1", "name": "search", "args": asked})
        assert found.artifact["structured_content"]["hits"][0]["id"] == "a/b"
        assert "[1] id: a/b | title: Sonnet" in str(found.content)
        found = await tools["fetch"].ainvoke({"id": "a/b", "limit": 10})
        assert "The sonnet" in str(found)


async def test_llama_index(docs: Collection) -> None:
    spec: Any = pytest.importorskip("llama_index.tools.mcp")
    async with Client(server(docs)) as client:
        tools = {tool.metadata.name: tool for tool in await spec.McpToolSpec(client).to_tool_list_async()}
        assert set(tools) == {"search", "fetch", "list_collections"}
        found = await tools["search"].acall(query="sonnet", k=1)
        assert "[1] id: a/b | title: Sonnet" in str(found.raw_output)
        found = await tools["search"].acall(query="lines", filters=[{"field": "year", "op": "eq", "value": 1609}])
        assert "Three" not in str(found.raw_output) and "fourteen" in str(found.raw_output)
        found = await tools["list_collections"].acall()
        assert "docs" in str(found.raw_output)


async def test_fastmcp(docs: Collection) -> None:
    fastmcp: Any = pytest.importorskip("fastmcp")
    async with fastmcp.Client(server(docs)) as client:
        found = await client.call_tool("search", {"query": "sonnet"})
        assert found.structured_content["hits"][0]["id"] == "a/b"
        for uri in ("doc://docs/a%2Fb", "doc://a%2Fb"):
            (contents,) = await client.read_resource(uri)
            assert contents.text == "The sonnet has fourteen lines."

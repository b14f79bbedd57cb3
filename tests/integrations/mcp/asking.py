"""What the tests of the MCP server share: how they ask, and what is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

pytest.importorskip("mcp")

import jsonschema
from mcp import Client

from ragistry import Hit


class Plain:
    """Nothing but a search: what a store of someone else's offers at least."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def search_many(
        self, queries: Sequence[str], k: int = 10, *, where: Mapping[str, Any] | None = None
    ) -> list[list[Hit]]:
        self.asked.append(where)
        return [[Hit("1", 1.0, f"about {query}")] for query in queries]


async def call(client: Client, tool: str, **arguments: Any) -> Any:
    """What a tool answers, its fields checked against the schema that it announces."""
    found = await client.call_tool(tool, arguments)
    assert not found.is_error, found.content
    schemas = {one.name: one.output_schema for one in (await client.list_tools()).tools}
    jsonschema.validate(found.structured_content, schemas[tool])
    return found


async def refused(client: Client, tool: str, **arguments: Any) -> str:
    found = await client.call_tool(tool, arguments)
    assert found.is_error and len(found.content) == 1
    text: str = found.content[0].text
    assert "Traceback" not in text and len(text) < 2000
    return text


def text_of(found: Any) -> str:
    assert [block.type for block in found.content] == ["text"]
    text: str = found.content[0].text
    return text

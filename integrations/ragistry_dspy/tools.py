"""A collection as a tool for agents, such as `dspy.ReAct`."""

from __future__ import annotations

from typing import Any

import dspy
from dspy.adapters.types.tool import convert_input_schema_to_tool_args
from pydantic import PrivateAttr

from ragistry.tools import SearchTool


def as_dspy_tool(tool: SearchTool) -> dspy.Tool:
    """A tool of DSPy that searches; awaited, it lets the event loop run on.

    The model says `query`, and may say `k` and `filters`; it is given numbered passages with their ids. What it says wrong
    comes back to it as an error that names what is needed.

    Args:
        tool: With the name, the description and the limits that the model is to know, and a filter that it is not.

    Example:
        >>> import tempfile
        >>> import ragistry
        >>> docs = ragistry.Collection.create(tempfile.mkdtemp() + "/docs", ragistry.create("bm25"))
        >>> docs.add(ragistry.Document("1", "It has fourteen lines.", title="Sonnet")).added
        1
        >>> search = as_dspy_tool(SearchTool(docs, name="poetry", description="Search the handbook of poetry."))
        >>> print(search(query="how many lines has a sonnet?"))
        [1] id: 1 | title: Sonnet
        It has fourteen lines.
    """
    args = convert_input_schema_to_tool_args(tool.schema("anthropic")["input_schema"])[0]  # JSON schema, no references

    def search(**arguments: Any) -> str:
        return tool(arguments).cited()

    async def asearch(**arguments: Any) -> str:
        return (await tool.acall(arguments)).cited()

    made = _Search(search, tool.name, tool.description, args, {})
    made._awaited = dspy.Tool(asearch, tool.name, tool.description, args, {})
    return made


class _Search(dspy.Tool):  # type: ignore[misc]  # dspy has no types
    """Called and awaited alike: a tool of one function, when awaited, would either block or could not be called."""

    _awaited: dspy.Tool = PrivateAttr()

    async def acall(self, **arguments: Any) -> Any:
        """Search, the event loop running on meanwhile."""
        return await self._awaited.acall(**arguments)

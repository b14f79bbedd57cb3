"""The tool as agents call it: what the model says, what it reads, and what it is told of its mistakes."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("llama_index.core")

from llama_index.core.agent.workflow import FunctionAgent, ToolCallResult
from llama_index.core.tools import FunctionTool, RetrieverTool, ToolSelection
from llama_index.core.tools.calling import acall_tool_with_selection, call_tool_with_selection
from llama_index.core.vector_stores.types import FilterOperator, MetadataFilter, MetadataFilters
from llama_index.core.workflow import JsonSerializer

from ragistry.errors import InvalidInput
from ragistry.tools import Condition, SearchResult
from ragistry_llama_index import RagistryRetriever, search_tool


async def test_the_model_reads_cited_text_and_code_gets_the_hits(docs) -> None:
    tool = search_tool(docs, name="poetry", description="About poetry.", k=1)
    assert isinstance(tool, FunctionTool)
    for output in (tool.call(query="sonnet"), await tool.acall(query="sonnet"), tool(query="sonnet")):
        assert output.content == "[1] id: sonnet | title: Sonnet\nThe sonnet has fourteen lines."
        assert isinstance(output.raw_output, SearchResult)
        assert [hit.id for hit in output.raw_output.hits] == ["sonnet"]
        assert output.raw_input == {"args": (), "kwargs": {"query": "sonnet"}}
        assert (output.tool_name, output.is_error) == ("poetry", False)


def test_the_schema_is_that_of_the_arguments(docs) -> None:
    about = search_tool(docs, name="poetry", description="About poetry.", fields={"year": "of print"}).metadata
    function = about.to_openai_tool()["function"]
    assert (function["name"], function["description"]) == ("poetry", "About poetry.")
    assert set(function["parameters"]["properties"]) == {"query", "k", "filters"}
    assert function["parameters"]["required"] == ["query"]
    assert "year: of print" in json.dumps(function["parameters"])


async def test_the_query_is_what_the_model_wrote(docs) -> None:
    """LlamaIndex's own tool writes `input is` before it, which bm25 would search for."""
    theirs = RetrieverTool.from_defaults(RagistryRetriever(docs), description="d")
    assert "input is" in str((await theirs.acall(input="hello")).raw_input)
    assert (await search_tool(docs).acall(query="hello")).raw_output.query == "hello"


@pytest.mark.parametrize(
    "filters",
    [
        [{"field": "year", "op": "lt", "value": 1600}],
        [Condition(field="year", op="lt", value=1600)],
    ],
    ids=["dicts", "models"],
)
async def test_arguments_are_taken_as_the_model_wrote_them(docs, filters) -> None:
    tool = search_tool(docs)
    for output in (tool.call(query="prose", k=None, filters=filters), await tool.acall(query="prose", filters=filters)):
        assert [hit.id for hit in output.raw_output.hits] == ["essay"]


OLD = MetadataFilters(filters=[MetadataFilter(key="year", value=1600, operator=FilterOperator.LT)])


@pytest.mark.parametrize("where", [{"year": {"lt": 1600}}, OLD], ids=["ours", "theirs"])
def test_a_filter_of_ones_own_is_kept_from_the_model(docs, where) -> None:
    tool = search_tool(docs, where=where)
    assert [hit.id for hit in tool.call(query="prose").raw_output.hits] == ["essay"]
    wider = [{"field": "year", "op": "exists", "value": True}]
    assert [hit.id for hit in tool.call(query="prose", filters=wider).raw_output.hits] == ["essay"]
    assert "1600" not in tool.metadata.fn_schema_str


BAD: list[tuple[dict[str, Any], str]] = [
    ({"query": " "}, "the query is blank"),
    ({}, "query: Field required"),
    ({"query": "x", "k": 0}, "k: Input should be greater than or equal to 1"),
    ({"query": "x", "top_k": 3}, "top_k: Extra inputs are not permitted"),
    ({"input": "x"}, "query: Field required"),
    ({"query": "x", "filters": [{"field": "colour", "value": "red"}]}, "'colour' is not known; known fields: year"),
    ({"query": "x", "filters": "year < 1600"}, "filters: Input should be a valid list"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=str)
async def test_mistakes_are_told_to_the_model(docs, arguments, message) -> None:
    tool = search_tool(docs, fields={"year": "of print"})
    call = ToolSelection(tool_id="1", tool_name="search", tool_kwargs=arguments)
    for output in (call_tool_with_selection(call, [tool]), await acall_tool_with_selection(call, [tool])):
        assert message in output.content
        assert output.is_error
        assert isinstance(output.exception, InvalidInput)
    with pytest.raises(InvalidInput):
        tool.call(**arguments)


def test_settings_out_of_range_are_refused(docs) -> None:
    for settings in ({"name": "two words"}, {"description": ""}, {"k": 0}, {"characters": 0}):
        with pytest.raises(InvalidInput):
            search_tool(docs, **settings)
    with pytest.raises(InvalidInput, match="search_many"):
        search_tool(object())


async def test_an_agent_searches_mends_its_mistake_and_answers(docs, scripted) -> None:
    llm = scripted(script=[{"query": "haiku", "k": 500}, {"query": "haiku", "k": 1}])
    agent = FunctionAgent(tools=[search_tool(docs)], llm=llm, streaming=False)
    handler = agent.run("How many lines has a haiku?")
    results = [event.tool_output async for event in handler.stream_events() if isinstance(event, ToolCallResult)]
    answer = str(await handler)

    assert [output.is_error for output in results] == [True, False]
    assert "k: Input should be less than or equal to 50; given 500" in llm.seen[1][-1].content
    assert [hit.id for hit in results[1].raw_output.hits] == ["haiku"]
    assert answer == "I read: [1] id: haiku\nThe haiku has three lines and a season."


async def test_what_an_agent_got_can_be_saved(docs, scripted) -> None:
    """Workflows keep events as JSON between runs, and send them to other processes."""
    agent = FunctionAgent(tools=[search_tool(docs)], llm=scripted(script=[{"query": "haiku"}]), streaming=False)
    handler = agent.run("Haiku?")
    (result,) = [event async for event in handler.stream_events() if isinstance(event, ToolCallResult)]
    await handler
    again = JsonSerializer().deserialize(JsonSerializer().serialize(result))
    assert again.tool_output.content == result.tool_output.content
    hits = again.tool_output.raw_output["hits"]
    assert [hit["id"] for hit in hits] == ["haiku"]

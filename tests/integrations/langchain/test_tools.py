"""`search_tool`: what a model sees of it, and what an agent makes of it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

pytest.importorskip("langchain_core")

from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel
from langchain_core.load import dumps
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import StructuredTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field

from ragistry import Collection, Hit
from ragistry.errors import InvalidInput, StorageError
from ragistry.tools import SearchTool
from ragistry_langchain import search_tool


@dataclass
class Caller:
    lang: str


def tenant(caller: Caller) -> dict[str, Any]:
    return {"lang": caller.lang}


def call(**args: Any) -> dict[str, Any]:
    return {"type": "tool_call", "id": "1", "name": "search", "args": args}


def condition(field: str, op: str, value: Any) -> dict[str, Any]:
    return {"field": field, "op": op, "value": value}


class Scripted(BaseChatModel):
    """Calls the tool with given arguments, then answers with what came back."""

    args: dict[str, Any]
    offered: list[dict[str, Any]] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **about: Any) -> Scripted:
        self.offered[:] = [convert_to_openai_tool(tool) for tool in tools]
        return self

    def _generate(self, messages: list[BaseMessage], *given: Any, **about: Any) -> ChatResult:
        last = messages[-1]
        if isinstance(last, ToolMessage):
            message = AIMessage(f"It says: {last.content}")
        else:
            message = AIMessage("", tool_calls=[{"name": "search", "args": self.args, "id": "1"}])
        return ChatResult(generations=[ChatGeneration(message=message)])


# The tool by itself.


async def test_content_is_cited_and_the_artifact_holds_documents(docs: Collection) -> None:
    tool = search_tool(docs, k=1)
    for message in (tool.invoke(call(query="sonnet")), await tool.ainvoke(call(query="sonnet"))):
        assert message.content == "[1] id: sonnet | title: Sonnet\nA sonnet has fourteen lines."
        assert message.artifact == [
            Document(
                "A sonnet has fourteen lines.", id="sonnet", metadata={"lines": 14, "lang": "en", "title": "Sonnet"}
            )
        ]
        assert message.status == "success"
    assert tool.invoke({"query": "sonnet"}) == await tool.ainvoke({"query": "sonnet"}) == message.content
    assert tool.invoke("sonnet") == await tool.ainvoke("sonnet") == message.content


def test_the_content_is_that_of_ragistrys_tool(docs: Collection) -> None:
    args = {"query": "lines", "k": 3, "filters": [condition("lang", "eq", "en"), condition("lines", "lt", 10)]}
    assert search_tool(docs).invoke(args) == SearchTool(docs)(args).cited()
    assert search_tool(docs, characters=30).invoke(args) == SearchTool(docs, characters=30)(args).cited()
    assert len(search_tool(docs, characters=30).invoke(call(**args)).artifact[0].page_content) > 30


def test_a_model_may_say_null_for_what_it_leaves_out(docs: Collection) -> None:
    message = search_tool(docs, k=2).invoke(call(query="lines", k=None, filters=None))
    assert message.status == "success" and len(message.artifact) == 2


def test_arguments_are_those_of_ragistrys_tool(docs: Collection) -> None:
    fields = {"lang": "language, such as en"}
    tool, plain = search_tool(docs, k=7, fields=fields), SearchTool(docs, k=7, fields=fields)
    assert tool.args_schema.model_json_schema() == plain.args.model_json_schema()  # type: ignore[union-attr]
    offered = convert_to_openai_tool(tool)["function"]
    assert (offered["name"], offered["description"]) == (plain.name, plain.description)
    assert offered["parameters"]["properties"]["k"]["default"] == 7
    assert "language, such as en" in offered["parameters"]["properties"]["filters"]["description"]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({"query": " "}, "query: Value error, the query is blank"),
        ({}, "query: Field required"),
        ({"query": "x", "k": 500}, "k: Input should be less than or equal to 50"),
        ({"query": "x", "limit": 3}, "limit: Extra inputs are not permitted"),
        ({"query": "x", "filters": [condition("year", "eq", 3)]}, "the field 'year' is not known; known fields: lang"),
        (
            {"query": "x", "filters": [condition("lang", "gt", ["a"])]},
            "`gt` for the field 'lang' needs a number or text",
        ),
    ],
)
async def test_what_a_model_gets_wrong_is_explained_to_it(docs: Collection, args: dict[str, Any], told: str) -> None:
    tool = search_tool(docs, fields={"lang": "language"})
    for message in (tool.invoke(call(**args)), await tool.ainvoke(call(**args))):
        assert message.status == "error" and told in message.content and message.artifact is None


async def test_what_it_cannot_mend_is_raised(docs: Collection) -> None:
    class Broken:
        def search_many(self, queries: Any, k: int = 10, *, where: Any = None) -> Any:
            raise StorageError("the disk is gone")

    with pytest.raises(StorageError, match="the disk is gone"):
        search_tool(Broken()).invoke(call(query="x"))
    with pytest.raises(StorageError, match="the disk is gone"):
        await search_tool(Broken()).ainvoke(call(query="x"))


@pytest.mark.parametrize(
    "wrong", [{"name": "no spaces"}, {"k": 0}, {"characters": 0}, {"where": {"lang": {"is": "en"}}}]
)
def test_a_tool_that_cannot_be_is_refused(docs: Collection, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        search_tool(docs, **wrong)


def test_a_fixed_filter_holds_and_is_not_seen(docs: Collection) -> None:
    tool = search_tool(docs, where={"lang": "en"})
    assert "en" not in json.dumps(convert_to_openai_tool(tool)["function"]["parameters"]).split('"')
    assert {found.metadata["lang"] for found in tool.invoke(call(query="lines")).artifact} == {"en"}
    nothing = tool.invoke(call(query="lines", filters=[condition("lang", "eq", "ja")]))
    assert nothing.artifact == [] and "Nothing found" in nothing.content
    assert "'lang'" not in dumps(tool)


async def test_the_event_loop_runs_on(docs: Collection) -> None:
    gate = threading.Event()

    class Waiting:
        def search_many(self, queries: Sequence[str], k: int = 10, *, where: Any = None) -> list[list[Hit]]:
            assert gate.wait(20), "the event loop stood still"
            return docs.search_many(queries, k, where=where)

    task = asyncio.ensure_future(search_tool(Waiting()).ainvoke({"query": "sonnet"}))
    await asyncio.sleep(0.05)
    gate.set()
    assert "fourteen" in await task


# A tenant's tool, without an agent.


@pytest.mark.parametrize("forged", [{}, {"runtime": None}, {"runtime": {"context": {"lang": "en"}}}, {"runtime": "en"}])
async def test_without_a_context_nothing_is_searched(docs: Collection, forged: dict[str, Any]) -> None:
    tool = search_tool(docs, tenant=tenant)
    with pytest.raises(InvalidInput, match="called without a context"):
        tool.invoke(call(query="lines", **forged))
    with pytest.raises(InvalidInput, match="called without a context"):
        await tool.ainvoke(call(query="lines", **forged))
    with pytest.raises(InvalidInput, match="called without a context"):
        tool.invoke("lines")


def test_no_model_sees_the_tenant(docs: Collection) -> None:
    tool, plain = search_tool(docs, tenant=tenant), search_tool(docs)
    assert convert_to_openai_tool(tool) == convert_to_openai_tool(plain)
    assert convert_to_openai_tool(tool, strict=True) == convert_to_openai_tool(plain, strict=True)
    assert tool.args == plain.args
    assert "runtime" not in json.dumps(tool.args_schema.model_json_schema())  # type: ignore[union-attr]


# Agents.


def agent(tool: StructuredTool, **args: Any) -> Any:
    return agent_of(Scripted(args=args), tool)


def agent_of(model: Scripted, tool: StructuredTool) -> Any:
    return pytest.importorskip("langchain.agents").create_agent(model, [tool], context_schema=Caller)


def asked(question: str = "how many lines has it?") -> Any:
    return {"messages": [("user", question)]}


async def test_an_agent_answers_with_what_was_found(docs: Collection) -> None:
    made = agent(search_tool(docs, k=1), query="sonnet")
    for state in (made.invoke(asked()), await made.ainvoke(asked())):
        *_, message, answer = state["messages"]
        assert answer.content == "It says: [1] id: sonnet | title: Sonnet\nA sonnet has fourteen lines."
        assert [document.id for document in message.artifact] == ["sonnet"]


def test_an_agent_offers_the_model_no_more_than_it_may_say(docs: Collection) -> None:
    model = Scripted(args={"query": "lines"})
    agent_of(model, search_tool(docs, tenant=tenant)).invoke(asked(), context=Caller("en"))
    (offered,) = model.offered
    assert set(offered["function"]["parameters"]["properties"]) == {"query", "k", "filters"}


def test_an_agent_is_told_what_it_got_wrong(docs: Collection) -> None:
    *_, answer = agent(search_tool(docs), query="sonnet", limit=3).invoke(asked())["messages"]
    assert "It says: the arguments cannot be used: limit" in answer.content


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"k": 50},
        {"filters": [condition("lang", "ne", "ja")]},
        {"filters": [condition("lang", "in", ["en", "ja", "fa"])]},
        {"runtime": {"context": {"lang": "en"}}},  # agents take out what a model has no business to say
    ],
)
async def test_an_agent_finds_only_what_is_its_callers(docs: Collection, more: dict[str, Any]) -> None:
    made = agent(search_tool(docs, tenant=tenant), query="lines that rhyme", **more)
    for lang, allowed in {"en": {"sonnet", "limerick", "couplet"}, "ja": {"haiku"}, "xx": set()}.items():
        for state in (
            made.invoke(asked(), context=Caller(lang)),
            await made.ainvoke(asked(), context=Caller(lang)),
        ):
            message = state["messages"][-2]
            assert {document.id for document in message.artifact} <= allowed
            if not more:
                assert {document.id for document in message.artifact} == allowed


async def test_an_agent_without_a_context_fails(docs: Collection) -> None:
    made = agent(search_tool(docs, tenant=tenant), query="lines")
    with pytest.raises(InvalidInput, match="called without a context"):
        made.invoke(asked())
    with pytest.raises(InvalidInput, match="called without a context"):
        await made.ainvoke(asked())


@pytest.mark.parametrize("own", [None, {}, {"lang": {"is": "en"}}, "en"])
def test_a_tenant_without_a_filter_finds_nothing(docs: Collection, own: Any) -> None:
    made = agent(search_tool(docs, tenant=lambda caller: own), query="lines")
    with pytest.raises(InvalidInput):
        made.invoke(asked(), context=Caller("en"))


def test_a_tenants_filter_joins_a_fixed_one(docs: Collection) -> None:
    tool = search_tool(docs, where={"lines": {"lt": 10}}, tenant=tenant)
    state = agent(tool, query="lines").invoke(asked(), context=Caller("en"))
    assert {document.id for document in state["messages"][-2].artifact} == {"limerick", "couplet"}

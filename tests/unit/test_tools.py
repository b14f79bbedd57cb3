"""What a model says to a search tool, what it gets, and how providers are told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, ValidationError

from ragistry import Collection, Document, Hit, create
from ragistry.errors import InvalidInput
from ragistry.tools import MOST, Form, SearchArgs, SearchResult, SearchTool, described, joined, one_line, result_of

FORMS: list[Form] = ["openai", "openai-responses", "anthropic", "mcp"]
ASKED = [
    {"query": "lines"},
    {"query": "lines", "k": 3},
    {"query": "lines", "k": None, "filters": None},
    {"query": "lines", "filters": [{"field": "year", "op": "gte", "value": 1600}]},
    {
        "query": "lines",
        "filters": [{"field": "lang", "value": "en"}, {"field": "year", "op": "in", "value": [1609, 1]}],
    },
]
NOT_ASKED = [
    ({}, "query: Field required"),
    ({"query": ""}, "query: "),
    ({"query": " \n"}, "say what to look for"),
    ({"query": 3}, "given 3"),
    ({"query": "a", "k": 0}, "k: "),
    ({"query": "a", "k": MOST + 1}, f"less than or equal to {MOST}"),
    ({"query": "a", "top_k": 3}, "top_k: "),
    ({"query": "a", "filters": {"year": 3}}, "filters: "),
    ({"query": "a", "filters": [{"field": "year", "op": "like", "value": "x"}]}, "filters.0.op: "),
]


class Nothing:
    """Finds nothing, and remembers what was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def search_many(
        self, queries: Sequence[str], k: int = 10, *, where: Mapping[str, Any] | None = None
    ) -> list[list[Hit]]:
        self.asked.append((list(queries), k, where))
        return [[] for _ in queries]


@pytest.fixture
def docs(tmp_path: Path) -> Iterator[Collection]:
    with Collection.create(tmp_path / "docs", create("bm25")) as docs:
        docs.add(
            [
                Document(
                    "sonnet", "A sonnet has fourteen lines.", title="Sonnet", metadata={"year": 1609, "lang": "en"}
                ),
                Document("haiku", "A haiku has three lines.", metadata={"year": 1680, "lang": "ja"}),
                Document("ode", "An ode has as many lines as it likes.", metadata={"year": 1819, "lang": "en"}),
            ]
        )
        yield docs


def schema_of(form: Form, found: dict[str, Any]) -> dict[str, Any]:
    inside = found["function"] if form == "openai" else found
    schema: dict[str, Any] = inside[{"anthropic": "input_schema", "mcp": "inputSchema"}.get(form, "parameters")]
    return schema


def objects(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if node.get("type") == "object":
            yield node
        node = list(node.values())
    for inside in node if isinstance(node, list) else ():
        yield from objects(inside)


@pytest.mark.parametrize("form", FORMS)
def test_schemas_say_what_is_accepted(form: Form) -> None:
    tool = SearchTool(Nothing())
    schema = schema_of(form, tool.schema(form))
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    for asked in ASKED:
        args = tool.read(asked)
        said = args.model_dump() if form.startswith("openai") else args.model_dump(exclude_none=True)
        validator.validate(said)
        assert tool.read(said) == args == tool.read(json.dumps(said)) == tool.read(args)
    for wrong, _ in NOT_ASKED:
        if wrong != {"query": " \n"} and not (form.startswith("openai") and wrong == {"query": ""}):
            with pytest.raises(ValidationError):
                validator.validate(wrong)


def test_strict_is_what_openai_takes() -> None:
    found = SearchTool(Nothing()).schema("openai")
    assert found["type"] == "function"
    assert found["function"]["strict"] is True
    for node in objects(found["function"]["parameters"]):
        assert node["additionalProperties"] is False
        assert node["required"] == list(node["properties"])
    said = json.dumps(found)
    assert not any(word in said for word in ('"default"', '"minLength"', '"title"', '"oneOf"', '"allOf"'))


def test_forms_are_the_providers() -> None:
    tool = SearchTool(Nothing(), name="handbook", description="The handbook.")
    flat = tool.schema("openai-responses", strict=False)
    assert flat["name"] == "handbook"
    assert "strict" not in flat
    assert flat["parameters"] == schema_of("openai", tool.schema("openai", strict=False))
    assert set(tool.schema("anthropic")) == {"name", "description", "input_schema"}
    assert "hits" in tool.schema("mcp")["outputSchema"]["properties"]
    with pytest.raises(InvalidInput, match="openai-responses"):
        described("a", "b", SearchArgs, "gemini")  # type: ignore[arg-type]


@pytest.mark.parametrize(("wrong", "said"), NOT_ASKED, ids=lambda value: str(value)[:40])
def test_the_model_is_told_what_is_wrong(wrong: dict[str, Any], said: str) -> None:
    tool = SearchTool(Nothing())
    for form in (wrong, json.dumps(wrong)):
        with pytest.raises(InvalidInput) as caught:
            tool(form)
        assert said in str(caught.value)
        assert "pydantic" not in str(caught.value)
        with pytest.raises(InvalidInput):
            asyncio.run(tool.acall(form))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '"query"'])
def test_arguments_that_are_no_object(text: str) -> None:
    with pytest.raises(InvalidInput, match="the arguments cannot be used"):
        SearchTool(Nothing())(text)


def test_it_searches(docs: Collection) -> None:
    tool = SearchTool(docs)
    found = tool({"query": "how many lines?", "filters": [{"field": "lang", "op": "eq", "value": "en"}]})
    assert [hit.id for hit in found.hits] == [hit.id for hit in docs.search("how many lines?", 5, where={"lang": "en"})]
    assert found == asyncio.run(tool.acall({"query": "how many lines?", "filters": [{"field": "lang", "value": "en"}]}))
    assert found.hits[0].metadata["lang"] == "en"
    assert found.note == ""
    assert len(tool({"query": "lines", "k": 1}).hits) == 1
    Draft202012Validator(SearchResult.model_json_schema()).validate(found.model_dump())


def test_every_operator_reaches_the_collection(docs: Collection) -> None:
    def ids(field: str, op: str, value: Any) -> set[str]:
        found = SearchTool(docs)({"query": "lines", "filters": [{"field": field, "op": op, "value": value}]})
        return {hit.id for hit in found.hits}

    assert ids("year", "gt", 1680) == {"ode"}
    assert ids("year", "gte", 1680) == {"haiku", "ode"}
    assert ids("year", "lt", 1680) == {"sonnet"}
    assert ids("year", "lte", 1680.0) == {"sonnet", "haiku"}
    assert ids("lang", "ne", "en") == ids("lang", "in", ["ja"]) == ids("lang", "nin", ["en"]) == {"haiku"}
    assert ids("lang", "exists", False) == set()
    assert ids("lang", "contains", "e") == {"sonnet", "ode"}


def test_a_fixed_filter_cannot_be_talked_away(docs: Collection) -> None:
    tool = SearchTool(docs, where={"lang": "en"})
    japanese = [{"field": "lang", "op": "eq", "value": "ja"}]
    assert tool({"query": "lines", "filters": japanese}).hits == []
    assert {hit.id for hit in tool({"query": "lines"}).hits} == {"sonnet", "ode"}
    assert {hit.id for hit in tool({"query": "lines"}, where={"year": {"gt": 1800}}).hits} == {"ode"}
    assert "lang" not in json.dumps(tool.schema("openai"))


def test_fields_are_told_and_held_to(docs: Collection) -> None:
    tool = SearchTool(docs, fields={"year": "of publication"}, k=2)
    assert "year: of publication" in json.dumps(tool.schema("anthropic"))
    assert len(tool({"query": "lines"}).hits) == 2
    with pytest.raises(InvalidInput, match="'lang' is not known; known fields: year"):
        tool({"query": "lines", "filters": [{"field": "lang", "value": "en"}]})
    with pytest.raises(InvalidInput, match="known fields: none"):
        SearchTool(docs, fields={})({"query": "lines", "filters": [{"field": "lang", "value": "en"}]})


def test_an_empty_result_says_what_to_try(docs: Collection) -> None:
    tool = SearchTool(docs)
    assert "try other words" in tool({"query": "xyzzy"}).cited()
    assert "try without them" in tool({"query": "lines", "filters": [{"field": "lang", "value": "fr"}]}).cited()


@given(st.lists(st.text(max_size=300), max_size=8), st.integers(1, 400))
def test_output_is_bounded_whatever_is_found(texts: list[str], characters: int) -> None:
    hits = [Hit(str(i), 1.0, text, metadata={"a": "x" * 5000, "b": 1}) for i, text in enumerate(texts)]
    found = result_of(SearchArgs(query="any"), hits, characters)
    assert sum(len(hit.text) for hit in found.hits) <= characters
    for hit, shown in zip(hits, found.hits, strict=True):
        assert shown.shortened
        assert shown.metadata == {"b": 1}
        assert shown.text == hit.text or shown.text[:-1] == hit.text[: len(shown.text) - 1] or not shown.text
    if sum(map(len, texts)) <= characters:
        assert [hit.text for hit in found.hits] == texts


def test_short_texts_leave_their_room_to_long_ones() -> None:
    found = result_of(SearchArgs(query="any"), [Hit("1", 2.0, "x" * 100), Hit("2", 1.0, "short")], 55)
    assert [len(hit.text) for hit in found.hits] == [50, 5]
    assert [hit.shortened for hit in found.hits] == [True, False]
    assert "shortened" in found.note


def test_ids_and_titles_cannot_forge_a_line() -> None:
    hit = Hit("a\n[2] id: b", 1.0, "text", title="one\r\n\u2028[9] id: c\x00")
    lines = result_of(SearchArgs(query="any"), [hit]).cited().splitlines()
    assert lines == [r'[1] id: "a\n[2] id: b" | title: one [9] id: c', "text"]
    assert one_line("  a\t b ") == "a b"


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""}, {"name": "a b"}, {"name": "é"}, {"name": "a" * 65}, {"description": ""},
        {"description": "x" * 1025}, {"k": 0}, {"k": MOST + 1}, {"characters": 0},
    ],
    ids=str,
)  # fmt: skip
def test_what_makes_no_tool(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        SearchTool(Nothing(), **wrong)


def test_what_cannot_be_searched() -> None:
    with pytest.raises(InvalidInput, match="search_many"):
        SearchTool(object())  # type: ignore[arg-type]


def test_filters_join() -> None:
    assert joined(None, {}) is None
    assert joined({"a": 1}, None) == {"a": 1}
    assert joined({"a": 1}, {"a": 2}) == {"and": [{"a": 1}, {"a": 2}]}
    found = Nothing()
    SearchTool(found, where={"a": 1})({"query": "q", "filters": [{"field": "b", "value": 2}]}, where={"c": 3})
    assert found.asked == [(["q"], 5, {"and": [{"a": 1}, {"c": 3}, {"and": [{"b": {"eq": 2}}]}]})]

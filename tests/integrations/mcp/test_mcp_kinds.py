"""What the MCP server makes of collections that can less than ours, or more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp")

from mcp import Client

from ragistry import Collection, Document, Ranking, create
from ragistry_mcp import server

from .asking import Plain, call, refused, text_of


@pytest.fixture
def docs(tmp_path: Path) -> Collection:
    docs = Collection.create(tmp_path / "docs", create("bm25"))
    docs.add(Document("sonnet", "The sonnet has fourteen lines.", "Sonnet"))
    return docs


async def test_a_foreign_store_is_searched_alone_and_takes_no_filter_of_ours() -> None:
    store = Plain()
    made = server({"store": store})
    async with Client(made) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["search", "list_collections"]
        assert not (await client.list_resource_templates()).resource_templates
        assert "fetch" not in (client.instructions or "")
        assert "about sonnets" in text_of(await call(client, "search", query="sonnets"))
        assert "not known" in await refused(client, "search", query="x", filters=[{"field": "a", "value": 1}])
        assert store.asked == [None]


async def test_documents_of_a_borrowed_store_are_read_from_it() -> None:
    class Source:
        def get(self, ids: Sequence[str]) -> list[Document]:
            return [Document(id, "in full") for id in ids if id == "1"]

    store = Plain()
    store.source = Source()  # type: ignore[attr-defined]
    async with Client(server(store)) as client:
        assert (await call(client, "fetch", id="1")).structured_content["text"] == "in full"
        assert "search first" in await refused(client, "fetch", id="2")


class Named(Plain):
    """Answers with names, the query's own words for ids."""

    class _Retriever:
        namer = object()

        def search(self, queries: Sequence[str], k: int = 10, *, among: Any = None) -> list[Ranking]:
            return [Ranking(("paris-tx", "paris-fr", "untitled")[:k], [-0.5, -1.5, -3.0][:k]) for _ in queries]

    def retriever(self) -> Any:
        return self._Retriever()

    def get(self, ids: Sequence[str]) -> list[Document]:
        known = {"paris-tx": "Paris, Texas", "paris-fr": "Paris", "untitled": ""}
        return [Document(id, "text of it", known[id]) for id in ids]


async def test_find_entity_is_there_where_a_model_writes_names(docs: Collection) -> None:
    async with Client(server({"places": Named(), "docs": docs})) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert tools["find_entity"].input_schema["properties"]["collection"]["const"] == "places"
        found = await call(client, "find_entity", mention="Paris", text="He left Paris for Dallas.", k=2)
        assert text_of(found).splitlines() == [
            "[1] id: paris-tx | name: Paris, Texas | -0.500",
            "[2] id: paris-fr | name: Paris | -1.500",
        ]
        assert [one["log_probability"] for one in found.structured_content["entities"]] == [-0.5, -1.5]
        assert "text of it" in text_of(await call(client, "find_entity", mention="Paris"))
        assert "not in the text" in await refused(client, "find_entity", mention="Rome", text="In Paris.")
        assert "blank" in await refused(client, "find_entity", mention=" ")


async def test_find_entity_asks_the_model(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from ...tiny import tiny_language_model

    model = str(tiny_language_model(tmp_path, "bart"))
    animals = Collection.create(tmp_path / "animals", create("genre", model=model, query_tokens=40, name_tokens=20))
    animals.add([Document("1", "It purrs.", "the cat"), Document("2", "It barks.", "dog"), Document("3", "a mat")])
    async with Client(server(animals)) as client:
        found = await call(client, "find_entity", mention="cat", text="the cat sat on the mat")
        ranking = animals.retriever().search(["the [START_ENT] cat [END_ENT] sat on the mat"], 5)[0]
        entities = found.structured_content["entities"]
        assert [(one["id"], one["log_probability"]) for one in entities] == list(ranking)
        assert {one["name"] for one in entities} == {"the cat", "dog", "a mat"}

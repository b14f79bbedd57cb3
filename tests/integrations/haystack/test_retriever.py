"""The retriever alone, in pipelines, behind Haystack's own retrievers, and as a tool."""

from __future__ import annotations

import asyncio
import copy
import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

haystack = pytest.importorskip("haystack")

from haystack import Document, Pipeline  # noqa: E402
from haystack.components.joiners import DocumentJoiner  # noqa: E402
from haystack.components.retrievers import MultiQueryTextRetriever, MultiRetriever  # noqa: E402
from haystack.core.errors import DeserializationError, SerializationError  # noqa: E402
from haystack.document_stores.types import FilterPolicy  # noqa: E402
from haystack.errors import FilterError  # noqa: E402
from haystack.tools import ComponentTool  # noqa: E402

from haystack_integrations.components.retrievers.ragistry import RagistryRetriever  # noqa: E402
from ragistry import Collection, Hit, create  # noqa: E402
from ragistry.errors import InvalidInput, StorageError  # noqa: E402

ENGLISH = {"field": "meta.lang", "operator": "==", "value": "en"}
OLD = {"field": "meta.year", "operator": "<", "value": 1700}


def ids(result: Mapping[str, Any]) -> list[str]:
    return [document.id for document in result["documents"]]


class Foreign:
    """A store of someone else's, with filters in its own language."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def search_many(
        self, queries: Sequence[str], k: int = 10, *, where: Mapping[str, Any] | None = None
    ) -> list[list[Hit]]:
        self.asked.append((list(queries), k, where))
        return [[Hit("1", 0.5, "text")] for _ in queries]


def test_documents_are_what_was_found(docs: Collection) -> None:
    found = RagistryRetriever(str(docs.path)).run("fourteen")["documents"]
    hit = docs.search("fourteen")[0]
    assert found[0] == Document(
        id="sonnet", content=hit.text, meta={"title": "Sonnet", "year": 1609, "lang": "en"}, score=hit.score
    )


def test_a_title_in_the_metadata_stays(tmp_path: Path) -> None:
    import ragistry

    with Collection.create(tmp_path / "c", create("bm25")) as made:
        made.add(ragistry.Document("1", "verse", title="Sonnet", metadata={"title": "as it was"}))
        assert RagistryRetriever(made).run("verse")["documents"][0].meta == {"title": "as it was"}


def test_changing_a_found_document_changes_no_other(docs: Collection) -> None:
    retriever = RagistryRetriever(docs, top_k=1)
    found = retriever.run("fourteen")["documents"][0]
    found.meta["year"] = 0
    assert retriever.run("fourteen")["documents"][0].meta["year"] == 1609


async def test_async_is_the_same(docs: Collection) -> None:
    retriever = RagistryRetriever(str(docs.path), top_k=3)
    await retriever.warm_up_async()
    for asked in ({}, {"filters": ENGLISH}, {"top_k": 1}):
        assert await retriever.run_async("lines of verse", **asked) == retriever.run("lines of verse", **asked)


async def test_async_does_not_block_the_loop() -> None:
    free = threading.Event()

    class Waiting(Foreign):
        def search_many(self, *given: Any, **more: Any) -> list[list[Hit]]:
            assert free.wait(20), "the event loop stood still"
            return super().search_many(*given, **more)

    async def release() -> None:
        free.set()

    found, _ = await asyncio.gather(RagistryRetriever(Waiting()).run_async("verse"), release())
    assert ids(found) == ["1"]


def test_top_k(docs: Collection) -> None:
    retriever = RagistryRetriever(docs, top_k=2)
    assert len(ids(retriever.run("lines of verse"))) == 2
    assert len(ids(retriever.run("lines of verse", top_k=3))) == 3
    assert ids(retriever.run("lines of verse", top_k=0)) == []
    for bad in (-1, 1.5, True, "3"):
        with pytest.raises(InvalidInput, match="top_k="):
            retriever.run("lines", top_k=bad)  # type: ignore[arg-type]
    for bad in (0, -1, None):
        with pytest.raises(InvalidInput, match="top_k="):
            RagistryRetriever(docs, top_k=bad)  # type: ignore[arg-type]


def test_filters_replace(docs: Collection) -> None:
    retriever = RagistryRetriever(docs, filters=ENGLISH)
    assert set(ids(retriever.run("lines of verse"))) == {"sonnet", "limerick"}
    assert set(ids(retriever.run("lines of verse", filters={}))) == {"sonnet", "limerick"}
    assert set(ids(retriever.run("lines of verse", filters=OLD))) == {"sonnet", "haiku"}


@pytest.mark.parametrize(
    "asked",
    [
        OLD,
        {"operator": "OR", "conditions": [OLD]},
        {"operator": "NOT", "conditions": [{"field": "meta.year", "operator": ">=", "value": 1700}]},
        {"operator": "OR", "conditions": [OLD, {"field": "meta.lang", "operator": "==", "value": "ja"}]},
    ],
)
def test_no_run_gets_around_merged_filters(docs: Collection, asked: dict[str, Any]) -> None:
    retriever = RagistryRetriever(docs, filters=ENGLISH, filter_policy=FilterPolicy.MERGE)
    assert set(ids(retriever.run("lines of verse"))) == {"sonnet", "limerick"}
    assert "haiku" not in ids(retriever.run("lines of verse", filters=asked))
    assert "sonnet" in ids(retriever.run("lines of verse", filters=asked))
    japanese = {"field": "meta.lang", "operator": "==", "value": "ja"}
    assert ids(retriever.run("lines of verse", filters=japanese)) == []


def test_what_cannot_be_used_is_refused_at_once(docs: Collection, tmp_path: Path) -> None:
    with pytest.raises(FilterError, match="'lang'"):
        RagistryRetriever(docs, filters={"field": "meta.lang", "operator": "like", "value": "e%"})
    with pytest.raises(InvalidInput, match=r"FilterPolicy\.MERGE"):
        RagistryRetriever(docs, filter_policy="merge")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="int; give a collection"):
        RagistryRetriever(7)  # type: ignore[arg-type]
    absent = RagistryRetriever(str(tmp_path / "absent"))  # opening waits for warm_up
    with pytest.raises(StorageError, match="absent"):
        absent.warm_up()
    with pytest.raises(InvalidInput, match="quer"):
        RagistryRetriever(docs).run(7)  # type: ignore[arg-type]


def test_closing(docs: Collection) -> None:
    own = RagistryRetriever(str(docs.path))
    own.warm_up()
    own.close()
    assert ids(own.run("fourteen")) == ["sonnet"]
    own.close()
    given = RagistryRetriever(docs)
    given.close()
    assert ids(given.run("fourteen")) == ["sonnet"]


def test_a_store_of_someone_elses(docs: Collection) -> None:
    store = Foreign()
    retriever = RagistryRetriever(store, filters={"theirs": 1}, top_k=4)
    assert ids(retriever.run("verse")) == ["1"]
    retriever.run("verse", filters={"must": []} | {"theirs": 2})
    assert store.asked == [(["verse"], 4, {"theirs": 1}), (["verse"], 4, {"must": [], "theirs": 2})]
    with pytest.raises(InvalidInput, match="REPLACE"):
        RagistryRetriever(store, filter_policy=FilterPolicy.MERGE)
    with pytest.raises(SerializationError, match="Foreign"):
        retriever.to_dict()


@pytest.mark.parametrize("is_open", [True, False])
def test_serialised(docs: Collection, is_open: bool) -> None:
    retriever = RagistryRetriever(
        docs if is_open else docs.path, filters=ENGLISH, top_k=3, filter_policy=FilterPolicy.MERGE
    )
    kept = json.loads(json.dumps(retriever.to_dict()))
    again = RagistryRetriever.from_dict(kept)
    assert kept == retriever.to_dict() == again.to_dict()
    assert kept["init_parameters"] == {
        "collection": str(docs.path),
        "filters": ENGLISH,
        "top_k": 3,
        "filter_policy": "merge",
    }
    assert again.run("lines", filters=OLD) == retriever.run("lines", filters=OLD)
    with pytest.raises(DeserializationError):
        RagistryRetriever.from_dict({**kept, "type": "os.system"})


async def test_in_a_pipeline_there_and_back(docs: Collection) -> None:
    made = Pipeline()
    made.add_component("retriever", RagistryRetriever(docs, top_k=2))
    made.add_component("joiner", DocumentJoiner())
    made.connect("retriever.documents", "joiner.documents")
    pipeline = Pipeline.loads(made.dumps())  # within the allow-list that Haystack has by itself
    asked = {"retriever": {"query": "lines of verse", "filters": ENGLISH}}
    found = pipeline.run(asked)["joiner"]
    assert set(ids(found)) == {"sonnet", "limerick"}
    assert found == made.run(asked)["joiner"] == (await pipeline.run_async(asked))["joiner"]
    pipeline.close()


async def test_behind_haystacks_own_retrievers(docs: Collection) -> None:
    path = str(docs.path)
    several = MultiRetriever(retrievers={"all": RagistryRetriever(path), "old": RagistryRetriever(path, filters=OLD)})
    assert ids(several.run("fourteen lines"))[0] == "sonnet"
    assert ids(await several.run_async("fourteen lines", top_k=2)) == ids(several.run("fourteen lines", top_k=2))
    queries = MultiQueryTextRetriever(retriever=RagistryRetriever(path, top_k=1))
    assert set(ids(queries.run(["fourteen", "joke"]))) == {"sonnet", "limerick"}
    assert set(ids(queries.run(["fourteen", "three"], retriever_kwargs={"filters": ENGLISH}))) == {"sonnet"}
    assert set(ids(await queries.run_async(["fourteen", "joke"]))) == {"sonnet", "limerick"}
    again = MultiQueryTextRetriever.from_dict(queries.to_dict())
    assert again.run(["fourteen", "joke"]) == queries.run(["fourteen", "joke"])


async def test_as_a_tool(docs: Collection) -> None:
    tool = ComponentTool(component=RagistryRetriever(docs, top_k=1), name="search", description="Poetry.")
    assert tool.parameters["required"] == ["query"]
    assert set(tool.parameters["properties"]) == {"query", "filters", "top_k"}
    assert ids(tool.invoke(query="fourteen")) == ["sonnet"]
    assert ids(await tool.invoke_async(query="fourteen", top_k=1)) == ["sonnet"]
    again = ComponentTool.from_dict(json.loads(json.dumps(tool.to_dict())))
    assert ids(again.invoke(query="joke")) == ["limerick"]


def test_copies_open_it_for_themselves(docs: Collection) -> None:
    retriever = RagistryRetriever(str(docs.path))
    copied = copy.deepcopy(retriever)
    assert ids(copied.run("fourteen")) == ids(retriever.run("fourteen"))
    copied.close()
    assert ids(retriever.run("fourteen"))[0] == "sonnet"


def test_threads_open_it_once(docs: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    real = Collection.open

    def opening(path: str) -> Collection:
        opened.append(path)
        return real(path)

    monkeypatch.setattr(Collection, "open", opening)
    retriever = RagistryRetriever(str(docs.path), top_k=1)
    found: list[list[str]] = []
    threads = [threading.Thread(target=lambda: found.append(ids(retriever.run("fourteen")))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [["sonnet"]] * 8
    assert len(opened) == 1

"""`RagistryRetriever`: LangChain's ways of calling it, and the traps that lie there."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain_core")

from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from langchain_core.load import dumpd, dumps
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField, RunnableLambda, RunnablePassthrough
from langchain_core.tools import create_retriever_tool
from pydantic import ValidationError

from ragistry import Collection
from ragistry.errors import InvalidInput, StorageError
from ragistry_langchain import RagistryRetriever

EN = {"lang": "en"}


def ids(found: Sequence[Document]) -> list[str | None]:
    return [document.id for document in found]


# What comes back.


def test_documents_are_those_of_the_collection(docs: Collection) -> None:
    found = RagistryRetriever(collection=docs, k=2).invoke("a sonnet or a haiku")
    assert sorted(found, key=lambda document: document.id or "") == [
        Document("A haiku has three lines.", id="haiku", metadata={"lines": 3, "lang": "ja", "title": "On haiku"}),
        Document("A sonnet has fourteen lines.", id="sonnet", metadata={"lines": 14, "lang": "en", "title": "Sonnet"}),
    ]
    assert "title" not in RagistryRetriever(collection=docs).invoke("limerick")[0].metadata  # it has none


def test_the_order_is_the_collections(docs: Collection) -> None:
    found = RagistryRetriever(collection=docs, k=5).invoke("lines that rhyme")
    assert ids(found) == [hit.id for hit in docs.search("lines that rhyme", 5)]


def test_scores_are_given_where_they_are_asked_for(docs: Collection) -> None:
    hits = docs.search("lines that rhyme", 3)
    plain = RagistryRetriever(collection=docs, k=3)
    scored = RagistryRetriever(collection=docs, k=3, score_key="score")
    assert [document.metadata["score"] for document in scored.invoke("lines that rhyme")] == [h.score for h in hits]
    assert all(isinstance(document.metadata["score"], float) for document in scored.invoke("lines that rhyme"))
    assert not any("score" in document.metadata for document in plain.invoke("lines that rhyme"))


def test_without_scores_one_document_stays_one_for_whoever_merges(docs: Collection) -> None:
    def merged(retriever: RagistryRetriever) -> list[Document]:
        unique: list[Document] = []
        for document in (*retriever.invoke("sonnet"), *retriever.invoke("sonnet lines")):
            unique += [document] if document not in unique else []
        return unique

    plain = merged(RagistryRetriever(collection=docs))
    assert len(plain) == len(set(ids(plain)))
    scored = merged(RagistryRetriever(collection=docs, score_key="score"))
    assert len(scored) > len(set(ids(scored)))  # what the opt-in costs


def test_documents_changed_downstream_do_not_leak_back(docs: Collection) -> None:
    retriever = RagistryRetriever(collection=docs, k=1)
    first, twin = retriever.batch(["couplet two", "couplet two"])
    first[0].metadata["of"].append("mine")
    first[0].metadata["relevance_score"] = 1.0
    assert twin[0].metadata["of"] == ["a", "b"]
    assert retriever.invoke("couplet two")[0].metadata == {"lines": 2, "lang": "en", "of": ["a", "b"]}


# What goes in.


@pytest.mark.parametrize("wrong", [{"kk": 3}, {"k": 0}, {"k": "many"}, {"score_key": 3}])
def test_constructor_refuses_what_does_not_fit(docs: Collection, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        RagistryRetriever(collection=docs, **wrong)


def test_constructor_says_what_a_collection_is(tmp_path: Path) -> None:
    for wrong in (3, None, Collection):
        with pytest.raises(ValidationError, match="cannot be searched; give a Collection or the path of one"):
            RagistryRetriever(collection=wrong)
    with pytest.raises(StorageError):
        RagistryRetriever(collection=tmp_path / "nowhere")


async def test_a_typing_error_in_a_call_is_refused(docs: Collection) -> None:
    retriever = RagistryRetriever(collection=docs)
    with pytest.raises(TypeError, match="topk"):
        retriever.invoke("lines", topk=3)
    with pytest.raises(TypeError, match="topk"):
        retriever.batch(["lines"], topk=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="topk"):
        await retriever.ainvoke("lines", topk=3)
    with pytest.raises(TypeError, match="topk"):
        await retriever.abatch(["lines"], topk=3)  # type: ignore[call-arg]


@pytest.mark.parametrize("wrong", [{"k": 0}, {"k": "3"}, {"filter": {"lines": {"above": 3}}}, {"filter": "lang == en"}])
def test_a_call_refuses_what_it_cannot_use(docs: Collection, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        RagistryRetriever(collection=docs).invoke("lines", **wrong)


async def test_k_and_filter_may_be_given_with_a_call(docs: Collection) -> None:
    retriever = RagistryRetriever(collection=docs, k=4)
    expected = [hit.id for hit in docs.search("lines", 2, where=EN)]
    assert ids(retriever.invoke("lines", k=2, filter=EN)) == expected
    assert ids(await retriever.ainvoke("lines", k=2, filter=EN)) == expected
    assert ids(retriever.batch(["lines"], k=2, filter=EN)[0]) == expected
    assert ids((await retriever.abatch(["lines"], k=2, filter=EN))[0]) == expected
    assert ids(retriever.bind(k=2, filter=EN).invoke("lines")) == expected
    assert ids(retriever.bind(k=2, filter=EN).batch(["lines", "x"])[0]) == expected


def test_a_filter_of_a_call_narrows_down_and_never_widens(docs: Collection) -> None:
    retriever = RagistryRetriever(collection=docs, filter=EN)
    assert set(ids(retriever.invoke("lines"))) == {"sonnet", "limerick", "couplet"}
    assert set(ids(retriever.invoke("lines", filter={"lines": {"lt": 4}}))) == {"couplet"}
    assert retriever.invoke("lines", filter={"lang": "ja"}) == []
    assert set(ids(retriever.invoke("lines", filter={}))) == {"sonnet", "limerick", "couplet"}


# Configured at run time.


def test_configurable_fields_reach_the_search_and_open_nothing_again(
    docs: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    retriever = RagistryRetriever(collection=docs.path, k=4)
    opened = retriever.collection
    monkeypatch.setattr(Collection, "open", lambda path: pytest.fail("opened again"))
    configurable = retriever.configurable_fields(k=ConfigurableField("k"), filter=ConfigurableField("filter"))
    assert len(configurable.invoke("lines")) == 4
    assert len(configurable.invoke("lines", {"configurable": {"k": 1}})) == 1
    japanese = configurable.with_config(configurable={"filter": {"lang": "ja"}})
    assert ids(japanese.invoke("lines")) == ["haiku"]
    assert [ids(found) for found in japanese.batch(["lines", "three"])] == [["haiku"], ["haiku"]]
    made, _ = configurable._prepare({"configurable": {"k": 1}})
    assert made.collection is opened


def test_configurable_fields_work_through_a_tool(docs: Collection) -> None:
    configurable = RagistryRetriever(collection=docs, k=3).configurable_fields(k=ConfigurableField("k"))
    tool = create_retriever_tool(configurable, "poems", "Search poems.", response_format="content_and_artifact")
    call = {"type": "tool_call", "id": "1", "name": "poems", "args": {"query": "lines"}}
    assert len(tool.invoke(call).artifact) == 3
    assert len(tool.invoke(call, {"configurable": {"k": 1}}).artifact) == 1


def test_configurable_alternatives(docs: Collection) -> None:
    english = RagistryRetriever(collection=docs, k=1, filter=EN)
    either = english.configurable_alternatives(
        ConfigurableField(id="language"),
        default_key="en",
        ja=RagistryRetriever(collection=docs, k=1, filter={"lang": "ja"}),
    )
    assert ids(either.invoke("three lines")) != ["haiku"]
    assert ids(either.with_config(configurable={"language": "ja"}).invoke("fourteen lines")) == ["haiku"]


# Within LangChain.


async def test_in_a_chain(docs: Collection) -> None:
    def numbered(found: list[Document]) -> str:
        return "\n".join(f"[{document.id}] {document.page_content}" for document in found)

    seen: list[str] = []
    prompt = ChatPromptTemplate.from_template("Answer from:\n{context}\n\nQuestion: {question}")
    chain = (
        {"context": RagistryRetriever(collection=docs, k=1) | numbered, "question": RunnablePassthrough()}
        | prompt
        | RunnableLambda(lambda messages: seen.append(messages.to_string()) or messages)
        | FakeListChatModel(responses=["fourteen"])
        | StrOutputParser()
    )
    assert chain.invoke("lines of a sonnet?") == "fourteen"
    assert await chain.ainvoke("lines of a sonnet?") == "fourteen"
    assert chain.batch(["lines of a sonnet?"] * 2) == ["fourteen"] * 2
    assert all("[sonnet] A sonnet has fourteen lines." in text for text in seen) and len(seen) == 4


def test_as_langchains_own_tool(docs: Collection) -> None:
    tool = create_retriever_tool(RagistryRetriever(collection=docs, k=1), "poems", "Search poems.")
    assert tool.invoke({"query": "sonnet"}) == "A sonnet has fourteen lines."


def test_retries_and_fallbacks_wrap_it(docs: Collection) -> None:
    retriever = RagistryRetriever(collection=docs, k=1)
    assert [ids(found) for found in retriever.with_retry().batch(["sonnet", "haiku"])] == [["sonnet"], ["haiku"]]
    fallback = RagistryRetriever(collection=docs, filter="none").with_fallbacks([retriever])
    assert ids(fallback.invoke("sonnet")) == ["sonnet"]


def test_serialisation_neither_fails_nor_tells(docs: Collection) -> None:
    retriever = RagistryRetriever(collection=docs)
    retriever.invoke("sonnet")
    told = dumps(retriever | RunnableLambda(len)) + dumps(dumpd(retriever)) + repr(retriever)
    told += str(retriever.model_dump()) + retriever.model_dump_json()
    assert "not_implemented" in told
    assert str(docs.path) not in told and "fourteen" not in told and "Collection" not in told


def test_a_retriever_travels_to_other_processes_by_its_path(docs: Collection) -> None:
    retriever = RagistryRetriever(collection=docs, k=2, filter=EN, score_key="score", tags=["mine"])
    expected = retriever.invoke("lines")
    packed = pickle.dumps(retriever)
    assert b"fourteen" not in packed
    there = pickle.loads(packed)  # noqa: S301
    assert there.invoke("lines") == expected and there.tags == ["mine"]
    assert there.collection is not docs


def test_a_retriever_that_is_made_reads_no_model(docs: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Collection, "search_many", lambda *_, **__: pytest.fail("searched"))
    RagistryRetriever(collection=docs.path).with_config(tags=["mine"]).bind(k=3)


def test_importing_it_brings_in_no_model_and_no_more_of_langchain_than_its_core() -> None:
    heavy = "torch transformers faiss langchain langgraph llama_index mcp"
    code = f"import sys, ragistry_langchain; print(*set('{heavy}'.split()) & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"

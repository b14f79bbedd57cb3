"""Retrieval in DSPy's two styles, in programs, and as a tool of an agent."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

dspy = pytest.importorskip("dspy")

from dspy.utils import DummyLM  # noqa: E402

from ragistry import Collection, Document, Hit, create  # noqa: E402
from ragistry.errors import InvalidInput  # noqa: E402
from ragistry.tools import SearchTool  # noqa: E402
from ragistry_dspy import RagistryRetriever, as_dspy_rm, as_dspy_tool  # noqa: E402


@pytest.fixture(autouse=True)
def no_disk_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if something imported dspy before the environment said where its cache belongs."""
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)


@pytest.fixture
def docs(tmp_path: Path) -> Iterator[Collection]:
    with Collection.create(tmp_path / "docs", create("bm25")) as made:
        made.add(
            [
                Document("sonnet", "Fourteen lines of verse.", title="Sonnet", metadata={"lang": "en"}),
                Document("haiku", "Three lines of verse.", metadata={"lang": "ja"}),
                Document("limerick", "Five lines of verse, and a joke.", metadata={"lang": "en", "fun": True}),
            ]
        )
        yield made


class Waiting:
    """Searches once it is let, which an event loop that stands still never does."""

    def __init__(self) -> None:
        self.free = threading.Event()

    def search_many(
        self, queries: Sequence[str], k: int = 10, *, where: Mapping[str, Any] | None = None
    ) -> list[list[Hit]]:
        assert self.free.wait(20), "the event loop stood still"
        return [[Hit("1", 0.5, "text")] for _ in queries]

    async def release(self) -> None:
        self.free.set()


def test_a_module_predicts_passages(docs: Collection) -> None:
    found = RagistryRetriever(docs, k=2)("fourteen lines")
    hits = docs.search("fourteen lines", 2)
    assert isinstance(found, dspy.Prediction)
    assert found.passages[0] == "Sonnet | Fourteen lines of verse."
    assert found.passages[1] == hits[1].text
    assert found.ids == [hit.id for hit in hits]
    assert found.scores == [hit.score for hit in hits]
    assert RagistryRetriever(docs)(query="nothing of the kind").passages == []


def test_k_and_filters(docs: Collection) -> None:
    search = RagistryRetriever(docs, where={"lang": "en"})
    assert set(search("lines of verse").ids) == {"sonnet", "limerick"}
    assert search("lines of verse", where={"fun": True}).ids == ["limerick"]
    assert search("lines of verse", where={"lang": "ja"}).ids == []  # nobody gets around the module's own
    assert len(search("lines of verse", k=1).ids) == 1
    assert search("lines of verse", k=0).ids == []
    assert RagistryRetriever(docs)("lines of verse", where={"lang": "ja"}).ids == ["haiku"]


async def test_awaited_it_is_the_same_and_does_not_block(docs: Collection) -> None:
    search = RagistryRetriever(docs, k=2, where={"lang": "en"})
    found = await search.acall("fourteen lines")
    assert found.toDict() == search("fourteen lines").toDict()
    assert (await search.acall("fourteen lines", k=1, where={"fun": True})).ids == ["limerick"]
    waiting = Waiting()
    found, _ = await asyncio.gather(RagistryRetriever(waiting).acall("verse"), waiting.release())
    assert found.ids == ["1"]


class Answering(dspy.Module):  # type: ignore[misc]
    def __init__(self, docs: Collection) -> None:
        super().__init__()
        self.search = RagistryRetriever(docs, k=1)
        self.answer = dspy.Predict("context, question -> answer")

    def forward(self, question: str) -> Any:
        context = self.search(question).passages
        return dspy.Prediction(context=context, answer=self.answer(context=context, question=question).answer)


def test_in_a_program(docs: Collection, tmp_path: Path) -> None:
    program = Answering(docs)
    copied = program.deepcopy()  # as optimisers do
    assert copied.search is not program.search
    copied.search.k = 2
    program.save(tmp_path / "program.json")
    again = Answering(docs)
    again.load(tmp_path / "program.json")
    for found, count in ((program, 1), (copied, 2), (again, 1)):
        with dspy.context(lm=DummyLM([{"answer": "fourteen"}])):
            said = found(question="fourteen lines")
        assert said.answer == "fourteen"
        assert said.context[0] == "Sonnet | Fourteen lines of verse."
        assert len(said.context) == count


def test_as_a_retrieval_model(docs: Collection) -> None:
    with dspy.context(rm=as_dspy_rm(docs)):
        assert dspy.Retrieve(k=1)("fourteen").passages == ["Sonnet | Fourteen lines of verse."]
        assert len(dspy.Retrieve()("lines of verse").passages) == 3
        assert len(dspy.Retrieve(k=3)("lines of verse", k=2).passages) == 2
        assert dspy.Retrieve()("nothing of the kind").passages == []
    with dspy.context(rm=as_dspy_rm(docs, where={"lang": "ja"})):
        assert dspy.Retrieve()("fourteen lines").passages == ["Three lines of verse."]
    found = as_dspy_rm(docs)("fourteen")[0]
    assert (found["long_text"], found.id) == ("Sonnet | Fourteen lines of verse.", "sonnet")
    assert found.score == docs.search("fourteen")[0].score


def script(*arguments: dict[str, Any]) -> Any:
    """A model that searches with these arguments, one after another, and answers."""
    steps = [{"next_thought": "I search.", "next_tool_name": "poetry", "next_tool_args": given} for given in arguments]
    done = {"next_thought": "I know.", "next_tool_name": "finish", "next_tool_args": {}}
    return DummyLM([*steps, done, {"reasoning": "It says so [1].", "answer": "fourteen"}])


FIRST = "[1] id: sonnet | title: Sonnet\nFourteen lines of verse."


def test_as_a_tool_of_an_agent(docs: Collection) -> None:
    search = SearchTool(docs, name="poetry", description="Search the handbook of poetry.", k=1)
    agent = dspy.ReAct("question -> answer", tools=[as_dspy_tool(search)], max_iters=4)
    asked = {"query": "lines", "k": 3, "filters": [{"field": "fun", "op": "eq", "value": True}]}
    with dspy.context(lm=script({"query": "fourteen"}, asked)):
        said = agent(question="How many lines has a sonnet?")
    assert said.answer == "fourteen"
    assert said.trajectory["observation_0"] == FIRST
    assert said.trajectory["observation_1"].startswith("[1] id: limerick\n")
    copied = agent.deepcopy()
    with dspy.context(lm=script({"query": "fourteen"})):
        assert copied(question="How many?").trajectory["observation_0"] == FIRST


async def test_as_a_tool_of_an_awaited_agent(docs: Collection) -> None:
    search = SearchTool(docs, name="poetry", description="Search the handbook of poetry.", k=1)
    agent = dspy.ReAct("question -> answer", tools=[as_dspy_tool(search)], max_iters=4)
    with dspy.context(lm=script({"query": "fourteen"})):
        said = await agent.acall(question="How many lines has a sonnet?")
    assert (said.answer, said.trajectory["observation_0"]) == ("fourteen", FIRST)


async def test_an_awaited_tool_does_not_block() -> None:
    waiting = Waiting()
    found, _ = await asyncio.gather(as_dspy_tool(SearchTool(waiting)).acall(query="verse"), waiting.release())
    assert found == "[1] id: 1\ntext"


def test_what_the_model_is_told(docs: Collection) -> None:
    search = SearchTool(docs, name="poetry", description="Poetry.", fields={"lang": "two letters"})
    described = as_dspy_tool(search).format_as_litellm_function_call()["function"]
    assert (described["name"], described["description"]) == ("poetry", "Poetry.")
    assert described["parameters"]["required"] == ["query"]
    assert list(described["parameters"]["properties"]) == ["query", "k", "filters"]
    assert "lang: two letters" in str(described)
    assert "$ref" not in str(described)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"query": " "}, "blank"),
        ({"question": "fourteen"}, "query: Field required"),
        ({"query": "fourteen", "k": 1000}, "k"),
        ({"query": "fourteen", "filters": [{"field": "year", "value": 1}]}, "known fields: lang"),
    ],
)
async def test_a_model_is_told_what_was_wrong(docs: Collection, given: dict[str, Any], said: str) -> None:
    search = SearchTool(docs, name="poetry", fields={"lang": "two letters"})
    agent = dspy.ReAct("question -> answer", tools=[as_dspy_tool(search)], max_iters=4)
    with dspy.context(lm=script(given, {"query": "fourteen"})):
        calling = agent(question="How many?")
    with dspy.context(lm=script(given, {"query": "fourteen"})):
        awaiting = await agent.acall(question="How many?")
    for found in (calling, awaiting):
        assert said in found.trajectory["observation_0"]
        assert found.trajectory["observation_1"].startswith(FIRST)


def test_what_cannot_be_searched_is_refused(docs: Collection) -> None:
    for make in (RagistryRetriever, as_dspy_rm):
        with pytest.raises(InvalidInput, match="int has no method `search_many`"):
            make(7)
    with pytest.raises(InvalidInput, match="quer"):
        RagistryRetriever(docs)(7)
    with pytest.raises(InvalidInput, match="k="):
        RagistryRetriever(docs)("verse", k="3")


def test_importing_it_touches_no_network_and_no_home(tmp_path: Path) -> None:
    program = (
        "import socket\n"
        "def refuse(*given, **more): raise AssertionError('the network was asked')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "import ragistry_dspy\n"
        "print(sorted(ragistry_dspy.__all__))"
    )
    environment = {"HOME": str(tmp_path), "PATH": "", "PYTHONPATH": ":".join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['RagistryRetriever', 'as_dspy_rm', 'as_dspy_tool']"
    assert not (tmp_path / ".dspy_cache").exists()

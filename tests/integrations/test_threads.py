"""Eight threads that ask 2,000 mixed questions through an adapter get what one thread gets."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ragistry import Collection, Document, create

WORDS = "sonnet haiku ballad ode elegy epic line rhyme verse three fourteen many season love war sea night".split()
Answer = list[tuple[str, float]]


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collection]:
    chance = random.Random(0)
    with Collection.create(tmp_path_factory.mktemp("threads") / "docs", create("bm25")) as docs:
        docs.add(
            Document(f"d{i}", " ".join(chance.choices(WORDS, k=12)), metadata={"part": i % 3, "more": {"number": i}})
            for i in range(300)
        )
        yield docs


def langchain(docs: Collection) -> Callable[[str, int, Any], Answer]:
    pytest.importorskip("langchain_core")
    from ragistry_langchain import RagistryRetriever

    retriever = RagistryRetriever(collection=docs, score_key="score")
    return lambda query, k, where: [
        (str(one.id), one.metadata["score"]) for one in retriever.invoke(query, k=k, filter=where)
    ]


def llama_index(docs: Collection) -> Callable[[str, int, Any], Answer]:
    pytest.importorskip("llama_index.core")
    from ragistry_llama_index import RagistryRetriever

    made = {
        (k, part): RagistryRetriever(docs, similarity_top_k=k, filters=None if part is None else {"part": part})
        for k in range(1, 9)
        for part in (None, 0, 1, 2)
    }

    def ask(query: str, k: int, where: Any) -> Answer:
        retriever = made[k, None if where is None else where["part"]]
        return [(one.node_id, float(one.score or 0)) for one in retriever.retrieve(query)]

    return ask


def haystack(docs: Collection) -> Callable[[str, int, Any], Answer]:
    pytest.importorskip("haystack")
    from haystack_integrations.components.retrievers.ragistry import RagistryRetriever

    retriever = RagistryRetriever(docs)

    def ask(query: str, k: int, where: Any) -> Answer:
        filters = where and {"field": "meta.part", "operator": "==", "value": where["part"]}
        return [(one.id, float(one.score or 0)) for one in retriever.run(query, filters, k)["documents"]]

    return ask


def dspy(docs: Collection) -> Callable[[str, int, Any], Answer]:
    pytest.importorskip("dspy")
    from ragistry_dspy import RagistryRetriever

    retriever = RagistryRetriever(docs)

    def ask(query: str, k: int, where: Any) -> Answer:
        found = retriever(query, k=k, where=where)
        return list(zip(found.ids, found.scores, strict=True))

    return ask


@pytest.mark.parametrize("adapter", [langchain, llama_index, haystack, dspy], ids=lambda made: made.__name__)
def test_threads_get_what_one_does(docs: Collection, adapter: Callable[[Collection], Any]) -> None:
    chance = random.Random(1)
    asked = [
        (
            " ".join(chance.choices(WORDS, k=3)),
            chance.randint(1, 8),
            chance.choice([None, {"part": chance.randrange(3)}]),
        )
        for _ in range(2000)
    ]
    expected = [[(hit.id, hit.score) for hit in docs.search(query, k, where=where)] for query, k, where in asked]
    ask = adapter(docs)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda one: ask(*one), asked))
    assert found == expected
    assert sum(map(len, expected)) > 2000

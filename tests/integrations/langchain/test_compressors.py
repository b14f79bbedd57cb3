"""`RagistryReranker`: a scorer behind LangChain's compressors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("langchain_core")

from langchain_core.documents import Document
from langchain_core.runnables import RunnableLambda
from pydantic import ValidationError

import ragistry
from ragistry import Collection
from ragistry.errors import InvalidInput
from ragistry_langchain import RagistryReranker, RagistryRetriever


class Shared:
    """How many of the query's words a document has."""

    def __init__(self) -> None:
        self.seen: list[ragistry.Document] = []

    def score(self, query: str, documents: Sequence[ragistry.Document]) -> np.ndarray:
        self.seen = list(documents)
        return np.array([len(set(query.split()) & set(d.full_text.split())) for d in documents], np.float32)


FOUND = [
    Document("three lines", id="haiku", metadata={"tags": ["short"]}),
    Document("fourteen lines of verse"),
    Document("no verse", id="prose", metadata={"title": "fourteen"}),
]


async def test_best_first_and_equal_ones_as_they_came() -> None:
    reranker = RagistryReranker(scorer=Shared())
    assert [d.page_content for d in reranker.compress_documents(FOUND, "fourteen lines")] == [
        "fourteen lines of verse",
        "three lines",
        "no verse",
    ]
    assert reranker.compress_documents(FOUND, "none of it") == [FOUND[1], FOUND[0], FOUND[2]]
    assert reranker.compress_documents(FOUND, "unheard") == FOUND
    assert await reranker.acompress_documents(FOUND, "verse") == reranker.compress_documents(FOUND, "verse")
    assert reranker.compress_documents([], "verse") == await reranker.acompress_documents([], "verse") == []


def test_top_n_and_scores_as_asked() -> None:
    reranker = RagistryReranker(scorer=Shared(), top_n=2, score_key="relevance_score")
    found = reranker.compress_documents(FOUND, "fourteen lines")
    assert [d.metadata["relevance_score"] for d in found] == [2.0, 1.0]
    assert all(type(d.metadata["relevance_score"]) is float for d in found)
    assert "relevance_score" not in RagistryReranker(scorer=Shared()).compress_documents(FOUND, "x")[0].metadata


def test_documents_are_copies() -> None:
    before = [document.model_copy(deep=True) for document in FOUND]
    found = RagistryReranker(scorer=Shared(), score_key="s").compress_documents(FOUND, "three")
    found[0].metadata["tags"].append("mine")
    assert before == FOUND and [d.id for d in found] == ["haiku", None, "prose"]


def test_a_scorer_sees_ids_or_positions_and_the_content() -> None:
    scorer = Shared()
    RagistryReranker(scorer=scorer).compress_documents(FOUND, "x")
    assert [(d.id, d.full_text) for d in scorer.seen] == [
        ("haiku", "three lines"),
        ("1", "fourteen lines of verse"),
        ("prose", "no verse"),
    ]


@pytest.mark.parametrize("wrong", [{"scorer": Shared}, {"scorer": 3}, {"top_n": 0}, {"top_k": 3}])
def test_constructor_refuses_what_does_not_fit(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RagistryReranker(**{"scorer": Shared(), **wrong})


@pytest.mark.parametrize("scores", [[1.0], [1.0, float("nan"), 2.0], "many"])
async def test_a_scorer_that_gives_what_cannot_be_used_is_named(scores: Any) -> None:
    class Odd:
        def score(self, query: str, documents: Any) -> Any:
            return scores

    with pytest.raises(InvalidInput, match="Odd"):
        RagistryReranker(scorer=Odd()).compress_documents(FOUND, "x")
    with pytest.raises(InvalidInput, match="Odd"):
        await RagistryReranker(scorer=Odd()).acompress_documents(FOUND, "x")


def test_after_a_retriever(docs: Collection) -> None:
    reranker = RagistryReranker(scorer=Shared(), top_n=1)
    chain = RunnableLambda(
        lambda query: reranker.compress_documents(RagistryRetriever(collection=docs).invoke(query), query)
    )
    assert [d.id for d in chain.invoke("rhyme. five")] == ["limerick"]

"""A scorer as a postprocessor."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

pytest.importorskip("llama_index.core")

from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from ragistry.errors import InvalidInput
from ragistry.retrievers.rerank import Rerank
from ragistry_llama_index import RagistryRerank, RagistryRetriever


class Brevity:
    """The shorter the better; what it is given is noted."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[str]]] = []

    def score(self, query: str, documents: Any) -> Any:
        self.asked.append((query, [document.full_text for document in documents]))
        return np.array([-len(document.text) for document in documents], np.float32)


def nodes(*texts: str) -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(id_=text, text=text), score=0.5) for text in texts]


def found(given: list[NodeWithScore]) -> list[tuple[str, float | None]]:
    return [(node.node_id, node.score) for node in given]


async def test_it_orders_by_the_scorer_and_keeps_the_best() -> None:
    given = nodes("ccc", "a", "bb", "x")
    rerank = RagistryRerank(Brevity(), top_n=3)
    expected = [("a", -1.0), ("x", -1.0), ("bb", -2.0)]  # equal ones in the order of before
    assert found(rerank.postprocess_nodes(given, query_str="q")) == expected
    assert found(await rerank.apostprocess_nodes(given, QueryBundle("q"))) == expected


def test_what_it_was_given_stays() -> None:
    given = nodes("bb", "a")
    hashes = [node.node.hash for node in given]
    best = RagistryRerank(Brevity()).postprocess_nodes(given, query_str="q")
    best[0].score = 9.0
    assert found(given) == [("bb", 0.5), ("a", 0.5)]
    assert [node.node.hash for node in given] == hashes
    assert all(type(node.score) is float for node in best)


def test_titles_are_read_as_ragistry_reads_them(docs) -> None:
    scorer = Brevity()
    RagistryRerank(scorer).postprocess_nodes(RagistryRetriever(docs).retrieve("sonnet"), query_str="sonnet")
    assert scorer.asked == [("sonnet", ["Sonnet\nThe sonnet has fourteen lines."])]


def test_it_agrees_with_ragistrys_own(docs) -> None:
    reranked = Rerank(docs.retriever(), Brevity(), weight=1.0, normalise="none")
    reranked.read_from(docs.get)
    ours = reranked.search(["lines prose"], 10)[0]
    theirs = RagistryRerank(Brevity(), top_n=10).postprocess_nodes(
        RagistryRetriever(docs).retrieve("lines prose"), query_str="lines prose"
    )
    assert found(theirs) == list(ours)


async def test_in_a_query_engine(docs) -> None:
    engine = RetrieverQueryEngine.from_args(
        RagistryRetriever(docs), llm=MockLLM(), node_postprocessors=[RagistryRerank(Brevity(), top_n=1)]
    )
    for answer in (engine.query("lines prose"), await engine.aquery("lines prose")):
        assert [node.node_id for node in answer.source_nodes] == ["sonnet"]
        assert answer.source_nodes[0].score == -len("The sonnet has fourteen lines.")


def test_nothing_to_score_needs_no_scorer() -> None:
    scorer = Brevity()
    assert RagistryRerank(scorer).postprocess_nodes([], query_str="q") == []
    assert scorer.asked == []


def test_what_cannot_be_used_is_refused() -> None:
    class Broken:
        def score(self, query: str, documents: Any) -> Any:
            return np.full(len(documents), np.nan, np.float32)

    with pytest.raises(InvalidInput, match="no query was given"):
        RagistryRerank(Brevity()).postprocess_nodes(nodes("a"))
    with pytest.raises(InvalidInput, match="Broken gave the document 'a' the score nan"):
        RagistryRerank(Broken()).postprocess_nodes(nodes("a"), query_str="q")
    with pytest.raises(InvalidInput, match="object has no method `score`"):
        RagistryRerank(object())
    with pytest.raises(InvalidInput, match="top_n=0"):
        RagistryRerank(Brevity(), top_n=0)


def test_serialised_it_is_without_the_scorer_and_pickled_with_it() -> None:
    rerank = RagistryRerank(Brevity(), top_n=2)
    assert rerank.to_dict() == {"top_n": 2, "class_name": "RagistryRerank"}
    again = pickle.loads(pickle.dumps(rerank))  # noqa: S301 (made here)
    assert found(again.postprocess_nodes(nodes("bb", "a"), query_str="q")) == [("a", -1.0), ("bb", -2.0)]

"""Nodes go into a collection and come out the same."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

pytest.importorskip("llama_index.core")

from llama_index.core import Document as Source
from llama_index.core import MockEmbedding, SimpleDirectoryReader, VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import ImageNode, NodeWithScore, TextNode

from ragistry import Collection, Document, Hit, create
from ragistry.errors import InvalidInput
from ragistry_llama_index import RagistryRetriever, documents_of, from_nodes
from ragistry_llama_index.documents import node_of


def test_documents_and_nodes_keep_id_text_and_metadata() -> None:
    nodes = [
        Source(doc_id="a", text="Fourteen lines.", metadata={"year": 1609}),
        TextNode(id_="b", text="Three lines.", metadata={"title": "Haiku", "n": [1, {"x": None}]}),
        NodeWithScore(node=TextNode(id_="c", text="Prose."), score=0.5),
        ImageNode(id_="d", image_path="a.png"),
    ]
    assert list(documents_of(iter(nodes))) == [
        Document("a", "Fourteen lines.", metadata={"year": 1609}),
        Document("b", "Three lines.", title="Haiku", metadata={"title": "Haiku", "n": [1, {"x": None}]}),
        Document("c", "Prose."),
        Document("d", ""),
    ]


def test_a_title_that_is_no_text_stays_metadata() -> None:
    assert next(documents_of([TextNode(text="x", metadata={"title": 7})])).title == ""


def test_conversion_streams() -> None:
    def nodes():
        yield TextNode(id_="1", text="x")
        raise RuntimeError("read too far")

    assert next(documents_of(nodes())).id == "1"


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (TextNode(text="x"), "one TextNode was given; a list of nodes"),
        (["text"], "'text' is str; a node or document of LlamaIndex is needed"),
        ([Document("1", "ours")], "is Document; a node or document of LlamaIndex is needed"),
        ([TextNode(id_="", text="x")], "empty id"),
        ([TextNode(id_="1", text="\ud800")], "lone surrogate"),
    ],
)
def test_what_is_no_node_is_refused(nodes, message) -> None:
    with pytest.raises(InvalidInput, match=message):
        list(documents_of(nodes))


def test_metadata_that_json_cannot_hold_is_refused_by_name(tmp_path) -> None:
    when = TextNode(id_="dated", text="x", metadata={"when": datetime.date(2024, 1, 1)})
    with pytest.raises(InvalidInput, match=r"dated.*date, which JSON cannot hold"):
        from_nodes(tmp_path / "docs", [when], "bm25")
    with Collection.open(tmp_path / "docs") as left:  # and nothing is locked
        assert left.add(documents_of([TextNode(id_="dated", text="x", metadata={"when": "2024-01-01"})])).added == 1


def test_nodes_come_out_with_the_hash_they_went_in_with(tmp_path) -> None:
    nodes = [
        TextNode(id_="1", text="Fourteen lines.", metadata={"z": 1, "title": "Sonnet", "a": "x"}),
        TextNode(id_="2", text="Three lines.", metadata={"tags": ["a", "b"]}),
    ]
    with from_nodes(tmp_path / "docs", nodes, "bm25") as collection:
        found = {node.node_id: node.node for node in RagistryRetriever(collection).retrieve("lines")}
    assert {id: node.hash for id, node in found.items()} == {node.node_id: node.hash for node in nodes}


def test_a_title_of_ours_is_shown_and_read() -> None:
    node = node_of(Hit("1", 1.0, "Fourteen lines.", title="Sonnet", metadata={"year": 1609}), excluded=["year"])
    assert node.get_content("llm") == node.get_content("embed") == "title: Sonnet\n\nFourteen lines."
    assert node.get_content("none") == "Fourteen lines."
    assert node.metadata == {"year": 1609, "title": "Sonnet"}
    own = node_of(Hit("1", 1.0, "x", title="Ours", metadata={"title": "theirs"}))
    assert own.metadata == {"title": "theirs"}


def test_a_node_shares_nothing_with_its_hit() -> None:
    hit = Hit("1", 1.0, "x", metadata={"tags": ["a"]})
    node = node_of(hit)
    node.metadata["tags"].append("b")
    node.metadata["score"] = 1
    assert hit.metadata == {"tags": ["a"]}


def test_a_retriever_of_ones_own_can_be_given(tmp_path) -> None:
    with from_nodes(tmp_path / "docs", [TextNode(id_="1", text="lines")], create("bm25", k1=2.0)) as collection:
        assert len(collection) == 1
        assert collection.recipe["k1"] == 2.0


def test_from_a_folder_to_an_answer(tmp_path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "sonnet.txt").write_text("The sonnet has fourteen lines. " * 20)
    (folder / "haiku.txt").write_text("The haiku has three lines. " * 20)
    nodes = SentenceSplitter(chunk_size=64, chunk_overlap=0).get_nodes_from_documents(
        SimpleDirectoryReader(str(folder)).load_data()
    )
    assert len(nodes) > 4
    with from_nodes(tmp_path / "docs", nodes, "bm25") as collection:
        assert len(collection) == len(nodes)
        noise = nodes[0].excluded_llm_metadata_keys
        retriever = RagistryRetriever(collection, similarity_top_k=2, excluded_metadata_keys=noise)
        answer = RetrieverQueryEngine.from_args(retriever, llm=MockLLM()).query("How many lines has a haiku?")
    assert "The haiku has three lines." in str(answer)
    assert "file_path" in str(answer)  # which the reader lets prompts show
    assert "file_size" not in str(answer)  # which it does not
    assert {Path(found.metadata["file_path"]).name for found in answer.source_nodes} == {"haiku.txt"}
    by_id = {node.node_id: node for node in nodes}
    assert all(found.node.hash == by_id[found.node_id].hash for found in answer.source_nodes)


def test_what_was_retrieved_can_be_indexed_elsewhere(docs) -> None:
    found = RagistryRetriever(docs).retrieve("lines")
    index = VectorStoreIndex([node.node for node in found], embed_model=MockEmbedding(4))
    assert set(index.index_struct.nodes_dict) == {node.node_id for node in found}

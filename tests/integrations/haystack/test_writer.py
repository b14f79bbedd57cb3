"""Documents of Haystack go into a collection, and come back as they were."""

from __future__ import annotations

from pathlib import Path

import pytest

haystack = pytest.importorskip("haystack")

from haystack import Document, Pipeline  # noqa: E402
from haystack.components.preprocessors import DocumentCleaner  # noqa: E402
from haystack.dataclasses import ByteStream  # noqa: E402

from haystack_integrations.components.retrievers.ragistry import RagistryRetriever, RagistryWriter  # noqa: E402
from ragistry import Collection, create  # noqa: E402
from ragistry.errors import InvalidInput, StorageError  # noqa: E402


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Collection.create(tmp_path / "new", create("bm25")).close()
    return tmp_path / "new"


def test_documents_come_back(path: Path) -> None:
    given = [
        Document(content="Fourteen lines.", meta={"title": "Sonnet", "page": {"from": 1}}),
        Document(content="Three.", id="🌸 b/c"),
    ]
    writer = RagistryWriter(path)
    assert writer.run(given) == {"documents_written": 2}
    retriever = RagistryRetriever(path)
    for document in given:
        found = retriever.run(document.content or "")["documents"][0]
        assert (found.id, found.content, found.meta) == (document.id, document.content, document.meta)
    titled = {"field": "meta.title", "operator": "==", "value": "Sonnet"}
    assert [found.id for found in retriever.run("sonnet", filters=titled)["documents"]] == [given[0].id]


async def test_what_is_there_already_is_not_written_again(path: Path) -> None:
    writer = RagistryWriter(path)
    one = Document(id="1", content="Fourteen lines.")
    assert writer.run([one]) == {"documents_written": 1}
    assert await writer.run_async([one, Document(id="2", content="Three.")]) == {"documents_written": 1}
    assert writer.run([Document(id="1", content="Fifteen lines.")]) == {"documents_written": 1}
    assert writer.run([]) == {"documents_written": 0}
    with Collection.open(path) as docs:
        assert [hit.text for hit in docs.search("lines")] == ["Fifteen lines."]


def test_a_retriever_that_is_open_finds_what_is_written(path: Path) -> None:
    retriever, writer = RagistryRetriever(path), RagistryWriter(path)
    assert retriever.run("fourteen lines") == {"documents": []}
    for id in ("1", "2"):
        writer.run([Document(id=id, content="Fourteen lines.")])
        assert id in [found.id for found in retriever.run("fourteen lines")["documents"]]


def test_indexing_pipeline_there_and_back(path: Path) -> None:
    made = Pipeline()
    made.add_component("cleaner", DocumentCleaner())
    made.add_component("writer", RagistryWriter(path))
    made.connect("cleaner.documents", "writer.documents")
    pipeline = Pipeline.loads(made.dumps())
    done = pipeline.run({"cleaner": {"documents": [Document(content="Fourteen   lines.")]}})
    assert done == {"writer": {"documents_written": 1}}
    pipeline.close()
    assert RagistryWriter.from_dict(RagistryWriter(path).to_dict()).to_dict() == RagistryWriter(path).to_dict()


def test_what_cannot_be_kept_is_refused(path: Path, tmp_path: Path) -> None:
    writer = RagistryWriter(path)
    with pytest.raises(InvalidInput, match="'img' has no text"):
        writer.run([Document(id="img", blob=ByteStream(b"png"))])
    with pytest.raises(InvalidInput, match="twice"):
        writer.run([Document(id="1", content="a"), Document(id="1", content="b")])
    with pytest.raises(InvalidInput, match="metadata"):
        writer.run([Document(id="1", content="a", meta={"seen": {1, 2}})])
    assert len(Collection.open(path)) == 0
    with pytest.raises(StorageError):
        RagistryWriter(str(tmp_path / "absent")).warm_up()
    with pytest.raises(InvalidInput, match="give a collection"):
        RagistryWriter(object())  # type: ignore[arg-type]

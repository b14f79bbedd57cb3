"""Data sets of the package ir_datasets, the real one and one of odd shapes."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import pytest

from ragistry.errors import InvalidInput, MissingExtra, RagistryError, StorageError, UnknownName
from ragistry.evaluation import load
from ragistry.types import Document

from ..laid import lay


class Rich(NamedTuple):
    doc_id: str
    title: str | None
    text: str
    abstract: str
    year: int
    tags: list[str]
    parts: tuple[Any, ...]
    raw: bytes
    metadata: dict[str, Any]

    def default_text(self) -> str:
        return f"{self.title} {self.text}"


class Bare(NamedTuple):
    query_id: str
    query: str


class Judged(NamedTuple):
    query_id: str
    doc_id: str
    relevance: Any


def rich(id: str, title: str | None, text: str, abstract: str = "") -> Rich:
    return Rich(id, title, text, abstract, 1609, ["a", "b"], ({},), b"\0", {"lang": "en", "none": None})


class Parts:
    """What ir_datasets calls a data set, from lists; an exception in a list is raised when it is reached."""

    def __init__(self, docs: Sequence[Any] = (), queries: Sequence[Any] = (), qrels: Sequence[Any] = ()) -> None:
        for part, rows in {"docs": docs, "queries": queries, "qrels": qrels}.items():
            setattr(self, f"has_{part}", lambda rows=rows: bool(rows))
            setattr(self, f"{part}_iter", lambda rows=rows: self._rows(rows))

    @staticmethod
    def _rows(rows: Sequence[Any]) -> Iterator[Any]:
        for row in rows:
            if isinstance(row, BaseException):
                raise row
            yield row


def fake(monkeypatch: pytest.MonkeyPatch, **datasets: Parts) -> None:
    package: Any = ModuleType("ir_datasets")
    package.registry = datasets
    package.load = datasets.__getitem__
    monkeypatch.setitem(sys.modules, "ir_datasets", package)


DOCS = [rich("d1", "Sonnet", "fourteen lines")]
QUERIES = [Bare("q1", " how long? ")]
JUDGED = [Judged("q1", "d1", 1)]


def test_odd_records_of_ir_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    docs = [
        rich("d1", "Sonnet", "fourteen lines", "short"),
        rich("d1", "Sonnet", "fourteen lines", "short"),
        rich("d2", None, "no title"),
        rich("d3", "The", ""),
        SimpleNamespace(doc_id=4, title="The", text="The end", default_text=lambda: "The end"),
        SimpleNamespace(doc_id="5", title="The", other="x", default_text=lambda: "Theory of all"),
        SimpleNamespace(doc_id="6", headline="H", body="b\ud800", url="u", score=float("nan"), seen=True),
        {"doc_id": "7", "text": None},
        {"doc_id": "8", "summary": "s", "body": "b", "html": "<p>b"},
    ]
    queries = [*QUERIES, *QUERIES, SimpleNamespace(query_id=2, default_text=lambda: None), Bare("q3", "why?")]
    qrels = [*JUDGED, *JUDGED, Judged("q1", "d2", "0"), Judged(2, "d1", 1.0), Judged("q9", "d1", -1)]
    fake(monkeypatch, odd=Parts(docs, queries, qrels))
    dataset = load("ir_datasets:odd")
    metadata = {"year": 1609, "tags": ["a", "b"], "lang": "en"}
    assert dataset.documents == [
        Document("d1", "fourteen lines", "Sonnet", {"abstract": "short", **metadata}),
        Document("d2", "no title", "", metadata),
        Document("d3", "", "The", metadata),
        Document("4", "The end", "The"),
        Document("5", "Theory of all", "The", {"other": "x"}),
        Document("6", "b\ufffd", "H", {"url": "u", "seen": True}),
        Document("7", ""),
        Document("8", "b\ns"),
    ]
    split = dataset.split("test")
    assert (split.queries, split.qrels) == ({"q1": "how long?"}, {"q1": {"d1": 1, "d2": 0}})
    assert split.notes == (
        "2 judged queries have no text and were left out: '2', 'q9'",
        "1 query has no judgements and was left out: 'q3'",
    )


@pytest.mark.parametrize(
    ("parts", "error", "told"),
    [
        (
            Parts([*DOCS, OSError("refused")], QUERIES, JUDGED),
            StorageError,
            "could not give the documents of 'x': OSError",
        ),
        (
            Parts([*DOCS, rich("d1", "", "x")], QUERIES, JUDGED),
            InvalidInput,
            "'d1' comes a second time, with other content",
        ),
        (
            Parts([Bare("1", "a")], QUERIES, JUDGED),
            InvalidInput,
            "'ir_datasets:x': a record has no `doc_id`, only query_id",
        ),
        (Parts([object()], QUERIES, JUDGED), InvalidInput, "a record has no `doc_id`, only nothing"),
        (
            Parts(DOCS, [Bare("q1", "a"), Bare("q1", "b")], JUDGED),
            InvalidInput,
            "'q1' comes a second time, with another",
        ),
        (Parts(DOCS, [ValueError("")], JUDGED), StorageError, "could not give the queries of 'x': ValueError"),
        (
            Parts(DOCS, QUERIES, [Judged("q1", "d1", 0.5)]),
            InvalidInput,
            "for query 'q1' is 0.5; a whole number is needed",
        ),
        (Parts(DOCS, QUERIES, [Judged("q1", "d1", "x")]), InvalidInput, "is 'x'; a whole number"),
        (Parts(DOCS, QUERIES, [Judged("q1", "d1", True)]), InvalidInput, "is True; a whole number"),
        (
            Parts(DOCS, QUERIES, [*JUDGED, Judged("q1", "d1", 0)]),
            InvalidInput,
            "has relevance 0 for query 'q1', before 1",
        ),
        (Parts(DOCS, QUERIES, [Judged("q9", "d1", 1)]), InvalidInput, "none of 1 judged queries has text"),
    ],
)
def test_mistakes_and_failures_of_ir_datasets(
    monkeypatch: pytest.MonkeyPatch, parts: Parts, error: type[RagistryError], told: str
) -> None:
    fake(monkeypatch, x=parts)
    dataset = load("ir_datasets:x")
    with pytest.raises(error, match=told):
        _ = (dataset.documents, dataset.split())


def test_ir_datasets_that_are_unknown_or_not_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(
        monkeypatch,
        **{"news": Parts(DOCS), "news/dev": Parts(DOCS, QUERIES, JUDGED), "news/queries": Parts(DOCS, QUERIES)},
    )
    with pytest.raises(UnknownName, match=r"ir_datasets has no data set 'new/dev'; did you mean 'news/dev'"):
        load("ir_datasets:new/dev")
    with pytest.raises(
        InvalidInput, match=r"'ir_datasets:news' has no queries and no judgements; .*; use one of news/dev$"
    ):
        load("ir_datasets:news")
    with pytest.raises(InvalidInput, match=r"'ir_datasets:news/queries' has no judgements; documents"):
        load("ir_datasets:news/queries")


def test_ir_datasets_that_is_missing_or_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ir_datasets", None)
    with pytest.raises(MissingExtra, match=r"needs the package 'ir_datasets'.*pip install 'ragistry\[ir-datasets\]'"):
        load("ir_datasets:cranfield")
    broken: Any = ModuleType("ir_datasets")
    monkeypatch.setitem(sys.modules, "ir_datasets", broken)
    with pytest.raises(StorageError, match=r"ir_datasets could not give 'cranfield': AttributeError"):
        load("ir_datasets:cranfield")


def test_the_real_package_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IR_DATASETS_HOME", str(tmp_path / "home"))
    package = pytest.importorskip("ir_datasets")
    formats, local = package.formats, package.util.LocalDownload
    lay(
        tmp_path,
        {
            "docs.tsv": "d1\tfourteen lines\nd2\t\n",
            "docs.sgml": "<DOC>\n<DOCNO>d1</DOCNO>\n<TITLE>Sonnet</TITLE>\n<TEXT>\nfourteen lines\n</TEXT>\n</DOC>\n",
            "queries.tsv": "q1\thow long?\nq2\twho?\n",
            "topics.txt": "<top>\n<num> Number: 301\n<title> crime\n<desc> d\n<narr> n\n</top>\n",
            "qrels.txt": "q1 0 d1 1\nq1 0 d1 1\nq9 0 d1 2\n",
            "qrels.trec.txt": "301 0 d1 1\n",
        },
    )

    registered = package.util.Registry()
    monkeypatch.setattr(package, "registry", registered)

    def name(*handlers: Any) -> str:
        new = f"test/{len([*registered])}"
        registered.register(new, package.Dataset(*handlers))
        return f"ir_datasets:{new}"

    docs, queries = formats.TsvDocs(local(tmp_path / "docs.tsv")), formats.TsvQueries(local(tmp_path / "queries.tsv"))
    qrels = formats.TrecQrels(local(tmp_path / "qrels.txt"), {})
    dataset = load(name(docs, queries, qrels))
    assert dataset.documents == [Document("d1", "fourteen lines"), Document("d2", "")]
    split = dataset.split()
    assert (split.queries, split.qrels) == ({"q1": "how long?"}, {"q1": {"d1": 1}})
    assert len(split.notes) == 2

    docs = formats.TrecDocs(local(tmp_path / "docs.sgml"), parser="tut", docstore_path=str(tmp_path / "store"))
    topics = formats.TrecQueries(local(tmp_path / "topics.txt"))
    qrels = formats.TrecQrels(local(tmp_path / "qrels.trec.txt"), {})
    dataset = load(name(docs, topics, qrels))
    assert dataset.documents == [Document("d1", "fourteen lines", "Sonnet")]
    assert dataset.split().queries == {"301": "crime"}

    dataset = load(name(formats.TsvDocs(local(tmp_path / "none")), queries, qrels))
    with pytest.raises(StorageError, match=r"could not give the documents of 'test/2': FileNotFoundError"):
        _ = dataset.documents
    with pytest.raises(InvalidInput, match=r"'ir_datasets:test/3' has no queries and no judgements"):
        load(name(docs))


def test_the_real_package_knows_its_names() -> None:
    pytest.importorskip("ir_datasets")
    with pytest.raises(UnknownName, match=r"has no data set 'cranfeld'; did you mean .*'cranfield'"):
        load("ir_datasets:cranfeld")
    with pytest.raises(
        InvalidInput, match=r"'ir_datasets:msmarco-passage' has no queries .*; use one of msmarco-passage/"
    ):
        load("ir_datasets:msmarco-passage")
    assert load("ir_datasets:beir/scifact/test").splits == ("test",)  # nothing is downloaded

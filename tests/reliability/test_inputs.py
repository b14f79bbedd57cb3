"""Questions that nobody should ask are refused with advice or mean what they say; no other library's error gets out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

from ragistry import Collection, Document, create, read
from ragistry.errors import InvalidInput, RagistryError, StorageError
from ragistry.indexes.faiss import Faiss
from ragistry.indexes.inverted import Inverted
from ragistry.indexes.weighting import BM25, Impact

from .harness import EVERYWHERE, document

# Queries


@pytest.mark.parametrize(
    "query", ["", " ", "\t\n\r\v\f\u3000", "\0", "!?.,;", "👩‍🚀", "the of and", "a" * 10**5, "\ufeff"]
)
def test_queries_that_ask_for_nothing(docs: Collection, query: str) -> None:
    assert docs.search(query) == []
    assert docs.search(query, where={"number": 1}) == []
    assert docs.search_many([query, EVERYWHERE], k=5)[0] == []
    assert len(docs.search_many([query, EVERYWHERE], k=5)[1]) == 3


def test_a_query_of_a_megabyte(docs: Collection) -> None:
    started = time.monotonic()
    for query in ("no such term " * 80_000 + EVERYWHERE, f"{EVERYWHERE} " * 80_000, "word" * 250_000):
        assert len(docs.search(query, k=5)) == (3 if EVERYWHERE in query else 0)
    distinct = " ".join(f"term{number}" for number in range(100_000))
    assert docs.search(distinct) == [] and len(docs.search(f"{distinct} {EVERYWHERE}")) == 3
    assert time.monotonic() - started < 60, "a long query takes long, but not for ever"


@pytest.mark.parametrize(
    "query", [None, 5, b"bytes", ["list"], {"a": 1}, Document("1", "text"), 1.5, object()], ids=repr
)
def test_queries_of_another_type(docs: Collection, query: Any) -> None:
    for search in (docs.search, lambda query: docs.search_many(["text", query])):
        with pytest.raises(InvalidInput, match=f"{type(query).__name__}.*str|text"):
            search(query)


def test_queries_with_lone_surrogates(docs: Collection) -> None:
    for query in ("\ud800", "before \udfff after"):
        with pytest.raises(InvalidInput, match="lone surrogate"):
            docs.search(query)


@pytest.mark.parametrize("queries", ["text", b"text", None, 5, {"text"}, {"text": 1}, iter(["text"])], ids=repr)
def test_many_queries_that_are_not_a_list(docs: Collection, queries: Any) -> None:
    with pytest.raises(InvalidInput, match="give a list"):
        docs.search_many(queries)


def test_no_queries(docs: Collection) -> None:
    assert docs.search_many([]) == [] and docs.search_many((), where={"number": 1}) == []


@pytest.mark.parametrize(("k", "expected"), [(0, 0), (-1, 0), (-(10**30), 0), (1, 1), (3, 3), (4, 3), (10**30, 3)])
def test_how_many(docs: Collection, k: int, expected: int) -> None:
    assert len(docs.search(EVERYWHERE, k)) == expected
    assert len(docs.search(EVERYWHERE, k, where={"number": {"gte": 0}})) == expected
    assert len(docs.search(EVERYWHERE, np.int64(np.clip(k, -5, 5)))) == expected


@pytest.mark.parametrize("k", [None, "5", 1.0, float("nan"), [1]], ids=repr)
def test_how_many_of_another_type(docs: Collection, k: Any) -> None:
    with pytest.raises(InvalidInput, match="whole number"):
        docs.search(EVERYWHERE, k)


# Filters

WRONG_FILTERS: list[Any] = [
    {"year": {"above": 3}},
    {"year": {"$gt": 3}},
    {"year": {}},
    {"year": {"in": 3}},
    {"year": {"gt": None}},
    {"year": {"gt": [1]}},
    {"year": {"exists": 1}},
    {"and": {"a": 1}},
    {"or": [1]},
    {"not": [{}]},
    {"year": float("nan")},
    {"year": float("inf")},
    {"year": {1, 2}},
    {"year": object()},
    {"year": b"x"},
    {1: 2},
    {"\ud800": 1},
    {"year": "\ud800"},
    {"year": 10**2000},
    "year",
    7,
    ["year"],
    [("year", 1)],
]


@pytest.mark.parametrize("where", WRONG_FILTERS, ids=lambda where: repr(where)[:40])
def test_filters_that_are_none(docs: Collection, where: Any) -> None:
    for ask in (
        lambda: docs.search(EVERYWHERE, where=where),
        lambda: docs.search_many([EVERYWHERE], where=where),
        lambda: list(docs.documents(where)),
    ):
        with pytest.raises(InvalidInput) as caught:
            ask()
        assert len(str(caught.value)) > 30


@pytest.mark.parametrize("where", [None, {}], ids=repr)
def test_filters_that_let_all_pass(docs: Collection, where: Any) -> None:
    assert len(docs.search(EVERYWHERE, where=where)) == len(list(docs.documents(where))) == 3


def nested(depth: int) -> dict[str, Any]:
    return {"not": nested(depth - 1)} if depth else {"number": 1}


@pytest.mark.parametrize("where", [nested(100), {"or": [{"number": n} for n in range(1000)]}, {"a": nested(200)}])
def test_filters_that_are_too_much(docs: Collection, where: Any) -> None:
    with pytest.raises(InvalidInput):
        docs.search(EVERYWHERE, where=where)


class Changing(Mapping[str, Any]):
    """A filter that looks the same whatever it says."""

    def __init__(self) -> None:
        self.number = 1

    def __getitem__(self, key: str) -> Any:
        return {"number": self.number}[key]

    def __iter__(self) -> Iterator[str]:
        return iter(["number"])

    def __len__(self) -> int:
        return 1


def test_filters_are_remembered_by_what_they_say(docs: Collection) -> None:
    where = Changing()
    for number in (1, 2, 3, 1):
        where.number = number
        assert [hit.id for hit in docs.search(EVERYWHERE, where=where)] == [str(number)]


# Creating


@pytest.mark.parametrize("retriever", [None, "bm25", {"name": "bm25"}, object(), Document("1", "x")], ids=repr)
def test_collections_of_what_is_no_retriever(quick: Path, retriever: Any) -> None:
    with pytest.raises(InvalidInput, match="create"):
        Collection.create(quick / "docs", retriever)
    assert not (quick / "docs").exists()


def test_a_closed_collection(docs: Collection) -> None:
    docs.close()
    docs.close()
    for ask in (
        lambda: docs.search(EVERYWHERE),
        lambda: list(docs.documents()),
        lambda: docs.get(["1"]),
        lambda: docs.add(document(9, 0)),
        lambda: docs.remove("1"),
        docs.check,
    ):
        with pytest.raises(StorageError, match="open it again"):
            ask()


# Vectors


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf], ids=str)
def test_vectors_that_hold_no_numbers(wrong: float) -> None:
    dense = Faiss("Flat")
    dense.add(["1", "2"], np.eye(2, dtype=np.float32))
    spoilt = np.array([[1, 0], [wrong, 1]], np.float32)
    for ask in (lambda: dense.add(["3", "4"], spoilt), lambda: dense.search(spoilt, k=2)):
        with pytest.raises(InvalidInput, match=r"NaN|finite"):
            ask()
    assert [ranking.ids[0] for ranking in dense.search(np.eye(2, dtype=np.float32), k=2)] == ["1", "2"]
    for weighting in (Impact(), BM25()):
        sparse = Inverted(weighting)
        sparse.add(["1", "2"], csr_array(np.eye(2, dtype=np.float32)))
        for ask in (
            lambda s=sparse: s.add(["3", "4"], csr_array(spoilt)),
            lambda s=sparse: s.search(csr_array(spoilt), 2),
        ):
            with pytest.raises(InvalidInput, match="NaN"):
                ask()
        assert len(sparse) == 2
        assert [ranking.ids for ranking in sparse.search(csr_array(np.eye(2, dtype=np.float32)), k=2)] == [
            ("1",),
            ("2",),
        ]


# Files


def test_files_that_are_not_text(quick: Path) -> None:
    """What cannot be decoded is reported or replaced; a collection takes what was read."""
    folder = quick / "files"
    folder.mkdir()
    contents: dict[str, bytes] = {
        "latin.txt": "caf\xe9 everywhere".encode("latin-1"),
        "cut.txt": "everywhere caf\u00e9".encode()[:-1],
        "surrogate.txt": b"everywhere \xed\xa0\x80 x",
        "utf16.txt": "everywhere sixteen".encode("utf-16"),
        "null.txt": b"everywhere \0 null",
        "empty.txt": b"",
        "noise.md": bytes(range(256)) * 4,
        "noise.html": b"<p>everywhere \xff\xfe</p><p",
        "cut.html": b"<table><tr><td>everywhere",
        "good.txt": b"everywhere good",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    reports: list[str] = []
    with Collection.create(quick / "docs", create("bm25")) as docs:
        docs.add(read(folder, report=reports.append))
        found = {hit.metadata["source"] for hit in docs.search(EVERYWHERE, k=50)}
        assert "good.txt" in found
        named = found | {name for name in contents if any(name in report for report in reports)}
        assert named >= contents.keys() - {"empty.txt", "noise.md"}, "no file is passed over in silence"
        docs.check()


def test_records_that_are_none(quick: Path) -> None:
    path = quick / "records.jsonl"
    for wrong in (
        b'{"id": "1", "text": "\\ud800"}',
        b'{"id": "1", "te',
        b"[1, 2]",
        b'{"id": "", "text": "x"}',
        b"\xff\xfe\xfd",
    ):
        path.write_bytes(b'{"id": "0", "text": "everywhere"}\n' + wrong + b"\n")
        with Collection.create(quick / f"docs{hash(wrong)}", create("bm25")) as docs:
            try:
                docs.add(read(path, report=lambda line: None), batch=1)
            except RagistryError as error:
                assert "records.jsonl" in str(error), "the file is named"
            docs.check()
            assert len(docs) <= 2

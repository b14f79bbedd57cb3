"""Input that nobody should give is refused with advice or means what it says; it never ends in somebody else's error."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from ragistry import Collection, Document, create, read
from ragistry.errors import InvalidInput, RagistryError, StorageError, UnknownName
from ragistry.indexes.faiss import Faiss
from ragistry.indexes.inverted import Inverted
from ragistry.indexes.weighting import BM25, Impact

from .harness import EVERYWHERE, WRITES, at_step, copied, document, documents, leftovers, make, one_of, state_of

ODD_IDS = {
    "spaces": " a  b ",
    "a space": " ",
    "a slash": "/etc/passwd",
    "dots": "../../x",
    "emoji": "👩‍🚀🏳️‍🌈",
    "newlines": "a\nb\r\nc",
    "null": "a\0b",
    "only null": "\0",
    "controls": "\x01\x7f\x9b[31m",
    "quotes": "\"'`\\%s{}",
    "SQL": "'; DROP TABLE documents; --",
    "long": "x" * 1_000_000,
    "wide": "𝕏" * 1000,
    "combining": "e\u0301",
    "composed": "\u00e9",
    "right to left": "\u202eabc",
    "noncharacter": "\uffff\U0010ffff",
    "number": "1",
    "padded number": "01",
    "JSON": '{"id": 1}',
    "like a file": "0" * 64 + ".npy",
}


@pytest.fixture
def docs(quick: Path) -> Iterator[Collection]:
    with Collection.open(make(quick / "docs", {"1": 0, "2": 0, "3": 0})) as docs:
        yield docs


def unchanged(docs: Collection) -> None:
    assert state_of(docs) == {"1": 0, "2": 0, "3": 0}
    docs.check()


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


# Documents


def test_odd_ids(quick: Path) -> None:
    given = [Document(id, f"{EVERYWHERE} number{i}", id[:100]) for i, id in enumerate(ODD_IDS.values())]
    with Collection.create(quick / "docs", create("bm25")) as docs:
        assert docs.add(given).added == len(given)
        assert docs.add(given).unchanged == len(given)
    with Collection.open(quick / "docs") as docs:
        assert list(docs.documents()) == given == docs.get(list(ODD_IDS.values()))
        assert {hit.id for hit in docs.search(EVERYWHERE, k=100)} == set(ODD_IDS.values())
        for i, id in enumerate(ODD_IDS.values()):
            assert [hit.id for hit in docs.search(f"number{i}")] == [id]
        docs.check()
        docs.save(quick / "copy")
        for count, id in enumerate(ODD_IDS.values(), start=1):
            assert docs.remove(id) == 1
            assert len(docs) == len(given) - count
        docs.check()
    assert sorted(part.name for part in quick.iterdir()) == ["copy", "docs"], "ids are no paths"
    with Collection.open(quick / "copy") as docs:
        assert list(docs.documents()) == given


@pytest.mark.parametrize(
    ("id", "text", "title"),
    [
        ("", "text", ""),
        ("\ud800", "text", ""),
        ("1", "a \udc80 b", ""),
        ("1", "text", "\udfff"),
        (1, "text", ""),
        (None, "text", ""),
        (b"1", "text", ""),
        ("1", None, ""),
        ("1", b"text", ""),
        ("1", ["text"], ""),
        ("1", "text", None),
    ],
)
def test_documents_that_are_none(id: Any, text: Any, title: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        Document(id, text, title)
    assert "\\udc80" not in str(caught.value) and len(str(caught.value)) > 30


@pytest.mark.parametrize(
    "metadata",
    [
        {"date": time.gmtime},
        {"set": {1}},
        {"bytes": b"x"},
        {"nan": float("nan")},
        {"deep": {"inf": [float("inf")]}},
        {1: "number as key"},
        {"\ud800": 1},
        {"text": "\udfff"},
        {"array": np.arange(3)},
        {"huge": 10**5000},
        {"path": Path("x")},
        {"none": {None: 1}},
    ],
    ids=lambda metadata: next(iter(map(str, metadata))).encode("ascii", "replace").decode(),
)
def test_metadata_that_is_not_json(docs: Collection, metadata: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        docs.add([document(8, 0), Document("9", "text", metadata=metadata)])
    assert "'9'" in str(caught.value), "the document is named"
    unchanged(docs)


def test_metadata_that_holds_itself(docs: Collection) -> None:
    metadata: dict[str, Any] = {}
    metadata["self"] = metadata
    with pytest.raises(InvalidInput, match="holds itself"):
        docs.add(Document("9", "text", metadata=metadata))
    for wrong in (None, [], "text", 5):
        with pytest.raises(InvalidInput, match="mapping"):
            Document("9", "text", metadata=wrong)  # type: ignore[arg-type]
    unchanged(docs)


WRONG_DOCUMENTS: list[Any] = [
    None,
    5,
    "text",
    b"text",
    ["text"],
    [None],
    [("1", "text")],
    [{"id": "1", "text": "text"}],
    {"id": "1", "text": "text"},
    [document(8, 0), "text"],
    [[document(8, 0)]],
    object(),
    Document,
    [Document],
]


@pytest.mark.parametrize("given", WRONG_DOCUMENTS, ids=lambda given: repr(given)[:30])
def test_adding_what_are_no_documents(docs: Collection, given: Any) -> None:
    with pytest.raises(InvalidInput, match="Document"):
        docs.add(given)
    unchanged(docs)


def test_adding_nothing(docs: Collection) -> None:
    generation = docs.info()["generation"]
    for nothing in ([], (), iter([]), {}, set()):
        assert tuple(docs.add(nothing)) == (0, 0, 0, 0)
    assert docs.info()["generation"] == generation
    unchanged(docs)


def test_the_same_id_twice_in_a_call(docs: Collection) -> None:
    with pytest.raises(InvalidInput, match="'8' is given twice"):
        docs.add([document(7, 0), document(8, 0), document(8, 1)])
    with pytest.raises(InvalidInput, match="'1' is given twice"):
        docs.add([document(1, 0), document(1, 0)])
    unchanged(docs)
    assert docs.add([document(8, 0), document(8, 1)], batch=1) == (1, 1, 0, 0), "in batches of their own, it replaces"


@pytest.mark.parametrize("batch", [0, -1, None, "3", 2.5], ids=repr)
def test_batches_that_are_none(docs: Collection, batch: Any) -> None:
    if batch is None:
        assert docs.add([document(1, 0)], batch=batch).unchanged == 1, "the default"
    else:
        with pytest.raises(InvalidInput, match="batch="):
            docs.add([document(8, 0)], batch=batch)
    unchanged(docs)


def test_empty_texts(quick: Path) -> None:
    given = [Document("1", ""), Document("2", "", "title"), Document("3", " \n"), Document("4", "", "", {"kind": 1})]
    with Collection.create(quick / "docs", create("bm25")) as docs:
        assert docs.search("anything") == [] and docs.search("") == [] and list(docs.documents()) == []
        docs.check()
        assert docs.add(given) == (4, 0, 0, 1)
        assert [hit.id for hit in docs.search("title")] == ["2"]
        assert docs.search("anything", where={"kind": 1}) == []
        docs.check()
        assert docs.add(Document("1", "anything at last")).replaced == 1
    with Collection.open(quick / "docs") as docs:
        assert [hit.id for hit in docs.search("anything")] == ["1"]
        assert docs.remove(["1", "2", "3", "4"]) == 4 and docs.search("title") == [] and len(docs) == 0
        assert docs.duplicates() == [] and docs.search_many(["a", ""], where={"kind": 1}) == [[], []]
        docs.check()


# Removing and getting


@pytest.mark.parametrize("ids", [[], ["unknown"], "unknown", "", ["", " "], iter(["unknown"]), {"unknown"}], ids=repr)
def test_removing_what_is_not_there(docs: Collection, ids: Any) -> None:
    generation = docs.info()["generation"]
    assert docs.remove(ids) == 0
    assert docs.info()["generation"] == generation
    unchanged(docs)


@pytest.mark.parametrize("ids", [None, 1, [1], [None], [["1"]], b"1", [b"1"], Document("1", "x"), ["\ud800"]], ids=repr)
def test_ids_that_are_none(docs: Collection, ids: Any) -> None:
    for ask in (docs.remove, docs.get):
        with pytest.raises(InvalidInput, match="id"):
            ask(ids)
    unchanged(docs)


def test_removing_twice_in_a_call(docs: Collection) -> None:
    assert docs.remove(["1", "1", "unknown", "2", "1"]) == 2
    assert state_of(docs) == {"3": 0}


def test_getting_what_is_not_there(docs: Collection) -> None:
    with pytest.raises(UnknownName, match="nowhere"):
        docs.get(["1", "nowhere"])
    assert docs.get([]) == []


# Interruptions


class Mine(Exception):
    """An error of the caller's own."""


@pytest.mark.parametrize("error", [Mine("x"), KeyboardInterrupt(), OSError(5, "the source failed"), GeneratorExit()])
def test_a_stream_that_breaks_off(docs: Collection, error: BaseException) -> None:
    def stream() -> Iterator[Document]:
        for number in range(10, 15):
            yield document(number, 0)
        raise error

    committed: list[int] = []
    with pytest.raises(type(error)) as caught:
        docs.add(stream(), batch=2, progress=committed.append)
    assert caught.value is error, "the caller's error passes as it is"
    assert committed == [2, 2]
    kept = {"1": 0, "2": 0, "3": 0, **{str(number): 0 for number in range(10, 14)}}
    assert state_of(docs) == kept
    assert docs.add(documents({"14": 0, "15": 0})).added == 2, "and adding goes on"
    assert state_of(docs) == {**kept, "14": 0, "15": 0}
    assert not leftovers(docs.path)


def test_a_progress_bar_that_breaks_off(docs: Collection) -> None:
    def progress(count: int) -> None:
        raise Mine

    with pytest.raises(Mine):
        docs.add([document(number, 0) for number in range(10, 15)], batch=2, progress=progress)
    assert state_of(docs) == {"1": 0, "2": 0, "3": 0, "10": 0, "11": 0}


CHANGES: dict[str, Callable[[Collection], object]] = {
    "add": lambda docs: docs.add(documents({"3": 2, "50": 0})),
    "remove": lambda docs: docs.remove(["1", "30"]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_interrupted_at_every_step(filled: Path, quick: Path, name: str) -> None:
    """By Ctrl-C, after which the same object must go on working."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    with Collection.open(copied(filled, quick / "docs")) as docs:
        before = state_of(docs)
        CHANGES[name](docs)
        after = state_of(docs)
    seen = []
    for step in range(10_000):
        with Collection.open(copied(filled, quick / "docs")) as docs:
            state_of(docs)
            with at_step(step, WRITES | {"acquire", "flock", "fetchall", "dumps", "stat"}, interrupt) as met:
                try:
                    CHANGES[name](docs)
                except KeyboardInterrupt:
                    assert met
            seen.append(state_of(docs))
            assert one_of(seen[-1], [before, after]), f"interrupted at step {step}, {met}"
            docs.add(document(70, 0))
            assert state_of(docs) == {**seen[-1], "70": 0}
            docs.check()
            assert not leftovers(docs.path)
        if not met:
            break
    assert len(seen) > 40 and seen[0] == before and seen[-1] == after


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


# Anything


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
METADATA = st.dictionaries(
    TEXTS,
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    max_size=3,
)
GIVEN = st.lists(
    st.builds(Document, TEXTS.filter(bool), TEXTS, TEXTS, METADATA), max_size=8, unique_by=lambda document: document.id
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=GIVEN, second=GIVEN, query=TEXTS, chance=st.integers(0, 10**9))
def test_any_text_is_kept(
    quick: Path, first: Sequence[Document], second: Sequence[Document], query: str, chance: int
) -> None:
    path = quick / f"docs{time.monotonic_ns()}"
    with Collection.create(path, create("bm25")) as docs:
        docs.add(first)
        docs.add(second)
    with Collection.open(path) as docs:
        expected = {document.id: document for document in [*first, *second]}
        held = {document.id: document for document in docs.documents()}
        assert held == expected
        assert [json.dumps(held[id].metadata) for id in held] == [json.dumps(expected[id].metadata) for id in held]
        docs.check()
        for hit in docs.search(query, k=20):
            assert (hit.text, hit.title, hit.metadata) == (
                expected[hit.id].text,
                expected[hit.id].title,
                expected[hit.id].metadata,
            )
        docs.remove([document.id for document in first])
        assert sorted(document.id for document in docs.documents()) == sorted(
            {document.id for document in second} - {document.id for document in first}
        )

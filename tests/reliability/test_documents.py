"""Documents and ids that nobody should give are refused with advice, or are kept as they are."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragistry import Collection, Document, create
from ragistry.errors import InvalidInput, UnknownName

from .harness import EVERYWHERE, document, state_of, unchanged

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
    wrong: Any
    for wrong in (None, [], "text", 5):
        with pytest.raises(InvalidInput, match="mapping"):
            Document("9", "text", metadata=wrong)
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
@given(first=GIVEN, second=GIVEN, query=TEXTS)
def test_any_text_is_kept(quick: Path, first: Sequence[Document], second: Sequence[Document], query: str) -> None:
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

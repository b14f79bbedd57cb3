"""The corpus by example: what is read and written."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from ragistry.corpus import Change, Corpus, digest
from ragistry.errors import InvalidInput, StorageError, UnknownName
from ragistry.types import Document

A, B, C = Document("a", "one"), Document("b", "two", "T", {"year": 2020}), Document("c", "three", "", {"year": 2024})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "odd ?#%41 é" / "corpus.sqlite"


@pytest.fixture
def corpus(path: Path) -> Iterator[Corpus]:
    with Corpus(path) as opened:
        yield opened


# Documents


def test_ids_may_be_any_text(corpus: Corpus) -> None:
    documents = [
        Document(id, id) for id in ["x y", "'; DROP TABLE documents; --", "\0", "a\0b", "a", "🎈", "%", '"'] * 1
    ]
    corpus.add(documents)
    assert corpus.get([d.id for d in documents]) == documents
    assert corpus.remove(["a\0b", "nowhere"]) == 1
    assert "a" in corpus.ids() and "a\0b" not in corpus.ids()


def test_metadata_becomes_what_json_holds(corpus: Corpus) -> None:
    corpus.add(
        [
            Document(
                "1", "", metadata=MappingProxyType({"size": (1, (2.5, None)), "in": MappingProxyType({"é": 2**100})})
            )
        ]
    )
    assert corpus.get(["1"])[0].metadata == {"size": [1, [2.5, None]], "in": {"é": 2**100}}


def loop() -> list[Any]:
    held: list[Any] = []
    held.append(held)
    return held


@pytest.mark.parametrize(
    "value",
    [math.nan, -math.inf, {1, 2}, date(2024, 1, 1), b"x", object(), "\ud800", {3: 4}, [{"x": [1j]}], 1 << 5000, loop()],
)
def test_metadata_that_json_cannot_hold_is_refused(corpus: Corpus, value: Any) -> None:
    with pytest.raises(InvalidInput, match=r"(?s)document 'bad'.*\['when'\]"):
        corpus.add([A, Document("bad", "", metadata={"when": value})])
    assert corpus.ids() == [] and corpus.generation == 0


def test_get_keeps_the_order_asked(corpus: Corpus) -> None:
    corpus.add([A, B, C])
    assert corpus.get(["c", "a", "c"]) == [C, A, C]
    assert corpus.find(["b", "nowhere"]) == {"b": B}
    with pytest.raises(UnknownName, match=r"'nowhere'.*1 more"):
        corpus.get(["a", "nowhere", "neither"])


@pytest.mark.parametrize("ids", ["abc", [1], [None]])
def test_ids_that_are_not_a_list_of_text_are_refused(corpus: Corpus, ids: Any) -> None:
    for method in (corpus.get, corpus.digests, corpus.remove):
        with pytest.raises(InvalidInput, match="id"):
            method(ids)


def test_many_ids_at_once(corpus: Corpus) -> None:
    corpus.add(Document(str(i), f"text {i}") for i in range(40_000))
    ids = [str(i) for i in range(39_999, -1, -1)]
    assert list(corpus.digests(ids)) == ids
    assert corpus.remove(ids[:35_000]) == 35_000 and corpus.count() == 5_000


def test_look_ups_use_an_index(corpus: Corpus) -> None:
    statements: list[str] = []
    connection = corpus._database.connection()
    connection.set_trace_callback(statements.append)
    corpus.get([])
    corpus.find(["a"])
    corpus.holders([b"x"])
    corpus.write(1, [A], ["b"])
    connection.set_trace_callback(None)
    plans = [
        row[3]
        for statement in statements
        if "documents" in statement and "INSERT" not in statement
        for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}")
    ]
    assert len(plans) == 4 and all("USING" in plan and "INDEX documents_by_" in plan for plan in plans)


def test_digests_tell_content_from_metadata(corpus: Corpus) -> None:
    renamed = Document("b", B.text, B.title, {"year": 2021})
    corpus.add([B])
    assert corpus.digests(["b", "x"]) == {"b": digest(B)} != {"b": digest(renamed)}
    assert corpus.digests(["b"], content=True) == {"b": digest(renamed, content=True)}
    assert corpus.holders({digest(renamed, content=True), b"other"}) == {digest(B, content=True): renamed.id}
    assert digest(Document("1", "bc", "a"), content=True) != digest(Document("1", "c", "ab"), content=True)


# Writing


def test_add_counts_what_it_did(corpus: Corpus) -> None:
    assert corpus.add([A, B]) == Change(2, 0, 0, 0)
    assert corpus.add([A, Document("b", "one"), Document("d", "one")]) == Change(1, 1, 1, 2)
    assert corpus.add([A]) == Change(0, 0, 1, 0) and corpus.generation == 2
    assert corpus.duplicates() == [("a", "b", "d")] and corpus.duplicates(1) == []


@pytest.mark.parametrize(
    "error", [RuntimeError("mine"), PermissionError("mine"), sqlite3.OperationalError("mine"), KeyboardInterrupt()]
)
def test_an_iterable_that_fails_leaves_nothing_and_its_error_as_it_is(corpus: Corpus, error: BaseException) -> None:
    def failing() -> Iterator[Document]:
        yield A
        raise error

    with pytest.raises(type(error)) as caught:
        corpus.add(failing())
    assert caught.value is error and corpus.ids() == [] and corpus.add([A]).added == 1


@pytest.mark.parametrize("twice", [[B, A, Document("b", "new")], [A, Document("a", "changed")]])
def test_an_id_given_twice_is_named(corpus: Corpus, twice: list[Document]) -> None:
    corpus.add([A])
    for refused in (lambda: corpus.add(twice), lambda: corpus.write(9, twice)):
        with pytest.raises(InvalidInput, match=f"{twice[-1].id!r} is given twice"):
            refused()
    assert corpus.get(corpus.ids()) == [A] and corpus.generation == 1


def test_what_is_not_a_document_is_refused(corpus: Corpus) -> None:
    with pytest.raises(InvalidInput, match="dict"):
        corpus.add([{"id": "1"}])  # type: ignore[list-item]  # what a caller without mypy does
    with pytest.raises(InvalidInput, match="list"):
        corpus.add(A)  # type: ignore[arg-type]  # likewise


def test_a_corpus_can_be_rewritten_from_itself(corpus: Corpus) -> None:
    corpus.add([A, B, C])
    assert corpus.add(Document(d.id, d.text.upper()) for d in corpus.documents(batch=1)).replaced == 3
    assert [d.text for d in corpus.documents()] == ["ONE", "TWO", "THREE"]


def test_writing_within_writing_is_refused(corpus: Corpus) -> None:
    def nested() -> Iterator[Document]:
        yield A
        corpus.remove(["b"])

    with pytest.raises(InvalidInput, match="finish first"):
        corpus.add(nested())
    assert corpus.count() == 0


def test_readers_keep_their_generation(corpus: Corpus) -> None:
    corpus.write(1, [A, B])
    reading = corpus.documents(batch=1)
    assert next(reading) == A
    corpus.write(2, [Document("b", "new")], ["a"])
    assert list(reading) == [B]
    assert corpus.get(["a", "b"], at=1) == [A, B] and corpus.ids() == ["b"] and corpus.ids(at=1) == ["a", "b"]
    assert corpus.rollback(1) == 3 and list(corpus.documents()) == [A, B]


def test_generations_run_forwards(corpus: Corpus) -> None:
    corpus.write(5, [A])
    with pytest.raises(InvalidInput, match="generation 4 is over"):
        corpus.write(4, [B])
    for wrong in (-1, True, 1.5, "1"):
        with pytest.raises(InvalidInput, match="whole number"):
            corpus.ids(at=wrong)  # type: ignore[arg-type]  # what a caller without mypy does
    corpus.write(6, [], ["a"])
    assert corpus.purge(6) == 1
    for refused in (lambda: corpus.get([], at=5), lambda: corpus.rollback(5), lambda: list(corpus.documents(5))):
        with pytest.raises(StorageError, match="purged"):
            refused()


def test_batch_must_be_positive(corpus: Corpus) -> None:
    with pytest.raises(InvalidInput, match="batch"):
        list(corpus.documents(batch=0))

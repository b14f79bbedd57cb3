"""The corpus as a file: copies, damage, places that cannot be written, threads and processes."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from ragistry import database as database_module
from ragistry.corpus import Corpus
from ragistry.errors import Corrupt, Locked, StorageError
from ragistry.types import Document

A, B, C = Document("a", "one"), Document("b", "two", "T", {"year": 2020}), Document("c", "three", "", {"year": 2024})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "odd ?#%41 é" / "corpus.sqlite"


@pytest.fixture
def corpus(path: Path) -> Iterator[Corpus]:
    with Corpus(path) as opened:
        yield opened


def connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None)


def spoil(path: Path, *statements: str) -> None:
    connection = connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.close()


# The file


def test_copy_holds_one_generation(corpus: Corpus, path: Path) -> None:
    corpus.write(1, [A, B])
    corpus.write(2, [C], ["a"])
    with Corpus(path, readonly=True) as reader:
        reader.copy_to(path.parent / "old" / "c ?.db", at=1)
    corpus.copy_to(path.parent / "new.db")
    with Corpus(path.parent / "old" / "c ?.db") as old, Corpus(path.parent / "new.db") as new:
        assert list(old.documents()) == [A, B] and list(new.documents()) == [B, C]
        old.check()
    with pytest.raises(StorageError, match="something is there"):
        corpus.copy_to(path.parent / "new.db")
    assert sorted(p.name for p in path.parent.iterdir() if p.suffix == ".part") == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE documents SET text = 'twp' WHERE id = 'b'",
        "UPDATE documents SET metadata = '{\"year\": 2021}' WHERE id = 'b'",
        "UPDATE documents SET digest = x'00' WHERE id = 'b'",
        "UPDATE documents SET text = CAST(x'ff' AS TEXT) WHERE id = 'b'",
    ],
)
def test_a_changed_row_is_found_on_reading(corpus: Corpus, path: Path, statement: str) -> None:
    corpus.add([A, B])
    spoil(path, statement)
    assert corpus.get(["a"]) == [A]
    for read in (lambda: corpus.get(["b"]), lambda: list(corpus.documents()), corpus.check):
        with pytest.raises(Corrupt, match="damaged"):
            read()


@pytest.mark.parametrize("statement", ["UPDATE documents SET content = x'00'", "UPDATE documents SET plain = 0"])
def test_check_finds_what_reading_does_not(corpus: Corpus, path: Path, statement: str) -> None:
    corpus.add([A])
    corpus.check()
    spoil(path, statement)
    with pytest.raises(Corrupt, match="damaged"):
        corpus.check()


def test_check_finds_a_damaged_page(path: Path) -> None:
    with Corpus(path) as corpus:
        corpus.add(Document(str(i), "lorem ipsum " * 20) for i in range(200))
    content = bytearray(path.read_bytes())
    content[8192:12288] = bytes(4096)
    path.write_bytes(content)
    with Corpus(path) as corpus, pytest.raises(Corrupt, match="restore"):
        corpus.check()


@pytest.mark.parametrize(
    ("spoiled", "message"),
    [
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.write_bytes(b"no database at all " * 99), "damaged.*restore"),
        (lambda path: spoil(path, "PRAGMA application_id = 7"), "not a corpus"),
        (lambda path: spoil(path, "PRAGMA user_version = 99"), "format 99.*reads format 1"),
    ],
)
@pytest.mark.parametrize("readonly", [False, True])
def test_a_file_that_is_not_a_corpus_is_refused(path: Path, spoiled: Any, message: str, readonly: bool) -> None:
    Corpus(path).close()
    spoiled(path)
    before = path.read_bytes()
    with pytest.raises(Corrupt, match=message):
        Corpus(path, readonly=readonly)
    assert path.read_bytes() == before


def test_a_file_without_its_tables_is_damaged(path: Path) -> None:
    Corpus(path).close()
    spoil(path, "DROP TABLE documents")
    with Corpus(path) as corpus, pytest.raises(Corrupt, match="no such table"):
        corpus.count()


def test_paths_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for wrong in (tmp_path, tmp_path / "file" / "c.db"):
        with pytest.raises(StorageError):
            Corpus(wrong)
    with pytest.raises(StorageError, match="does not exist"):
        Corpus(tmp_path / "none.db", readonly=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


def test_readonly_changes_nothing(corpus: Corpus, path: Path) -> None:
    corpus.add([A])
    with Corpus(path, readonly=True) as reader:
        assert reader.get(["a"]) == [A] and reader.ids({"year": 1}) == []
        changes = (
            lambda: reader.add([B]),
            lambda: reader.remove(["a"]),
            lambda: reader.write(9),
            lambda: reader.purge(1),
        )
        for change in changes:
            with pytest.raises(StorageError, match="read-only"):
                change()


class Unwritable(sqlite3.Connection):
    """What SQLite does with a file in WAL mode where it can make no file beside it."""

    immutable = False

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if not self.immutable:
            failure = sqlite3.OperationalError("unable to open database file")
            failure.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
            raise failure
        return super().execute(sql, *parameters)


def test_media_that_cannot_be_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Corpus(path) as corpus:
        corpus.add([A])
        shutil.copytree(path.parent, path.parent.with_name("unmerged"))

    def connect_unwritable(name: str, **options: Any) -> sqlite3.Connection:
        connection = plain_connect(name, factory=Unwritable, **options)
        connection.immutable = "immutable=1" in name
        return connection

    plain_connect = sqlite3.connect
    monkeypatch.setattr(database_module.sqlite3, "connect", connect_unwritable)
    with Corpus(path, readonly=True) as reader:
        assert reader.get(["a"]) == [A]
    with pytest.raises(StorageError, match="not merged yet"):  # reading on would silently miss the last documents
        Corpus(path.parent.with_name("unmerged") / path.name, readonly=True)
    with pytest.raises(StorageError, match="cannot open"):
        Corpus(path)


def test_another_writer_is_reported(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "PATIENCE", 0.0)
    with Corpus(path) as corpus:
        corpus.add([A])
        other = connect(path)
        other.execute("BEGIN IMMEDIATE")
        assert corpus.get(["a"]) == [A]
        with pytest.raises(Locked, match="another process"):
            corpus.add([B])
        other.execute("ROLLBACK")
        other.close()
        assert corpus.add([B]).added == 1


def test_a_full_disk_loses_nothing_committed(corpus: Corpus) -> None:
    corpus.add([A])
    corpus._database.connection().execute("PRAGMA max_page_count = 20")
    with pytest.raises(StorageError, match=r"full.*nothing committed was lost"):
        corpus.add(Document(str(i), "lorem " * 1000) for i in range(100))
    assert list(corpus.documents()) == [A]
    corpus.check()


# Threads and processes


def test_threads_read_whole_generations_while_one_writes(corpus: Corpus) -> None:
    size, rounds = 50, 20
    corpus.add(Document(str(i), "0") for i in range(size))
    done = threading.Event()

    def read() -> set[int]:
        seen = set()
        while not done.is_set():
            seen.add(len({d.text for d in corpus.documents(batch=7)}))
            seen.add(len({d.text for d in corpus.get([str(i) for i in range(size)])}))
        return seen

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        for i in range(1, rounds):
            corpus.add(Document(str(j), str(i)) for j in range(size))
        done.set()
        assert all(reader.result() <= {1} for reader in readers)


def test_writers_in_threads_take_turns(corpus: Corpus) -> None:
    with ThreadPoolExecutor(4) as pool:
        changes = list(pool.map(lambda i: corpus.add([Document(str(i), "x")]), range(40)))
    assert sum(change.added for change in changes) == 40 == corpus.count() == corpus.generation


def test_connections_of_ended_threads_are_closed(corpus: Corpus) -> None:
    connections = corpus._database._connections
    left = sqlite3.connect(":memory:", check_same_thread=False)
    connections[os.getpid(), -1] = left  # as of a thread that has ended
    with ThreadPoolExecutor(1) as pool:
        pool.submit(corpus.count).result()
    assert (os.getpid(), -1) not in connections and (os.getpid(), threading.get_ident()) in connections
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        left.execute("SELECT 1")


def test_a_closed_corpus_is_refused(path: Path) -> None:
    corpus = Corpus(path)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(corpus.count).result()
        corpus.close()
        corpus.close()
        for read in (corpus.count, lambda: pool.submit(corpus.count).result(), lambda: corpus.add([A])):
            with pytest.raises(StorageError, match="closed"):
                read()
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # the log is merged


def in_child(corpus: Corpus) -> None:
    parents = dict(corpus._database._connections)
    assert corpus.get(["a"]) == [A]
    corpus.add([B])
    corpus.close()
    assert corpus._database._connections == parents  # closing them here would be the child's second use of them


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_has_connections_of_its_own(corpus: Corpus) -> None:
    corpus.add([A])
    child = get_context("fork").Process(target=in_child, args=[corpus])
    child.start()
    child.join()
    assert child.exitcode == 0 and list(corpus.documents()) == [A, B]
    assert corpus.add([C]).added == 1
    corpus.check()

"""Processes that search while another writes see one committed state at a time; two that write are kept apart."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ragistry import Collection, Document, create
from ragistry.errors import Locked, StorageError

from .commits import look, write
from .harness import document, documents, ended, forked, killed, leftovers, make, state_of

COMMITS = 60
PATIENT = 5.0  # seconds in which somebody who is to be told at once, or after one second, has surely been told

pytestmark = pytest.mark.usefixtures("filled")  # imports and compiles everything before anything is forked


@contextmanager
def in_the_middle(path: Path) -> Iterator[int]:
    """Another process that has added a document and is waiting for the next one to add."""
    reading, telling = os.pipe()

    def stream() -> Iterator[Document]:
        yield document(0, 0)
        os.write(telling, b"!")
        time.sleep(600)

    process = forked(lambda: Collection.open(path).add(stream(), batch=1))
    assert os.read(reading, 1) == b"!"
    try:
        yield process
    finally:
        killed(process)


def test_readers_follow_a_writer(quick: Path) -> None:
    path, over = quick / "docs", quick / "over"
    with Collection.create(path, create("bm25")) as docs:
        write(docs, 0)

    def reader(first: int) -> None:
        with Collection.open(path) as docs:
            last, turn, changes = 0, first, 0
            while not over.exists():
                found = look(docs, turn, since=last)
                last, turn, changes = found, turn + 1, changes + (found > last)
                if turn % 50 == 0:
                    docs.check()
                    assert docs.info()["documents"] >= 1
            assert look(docs, 0, since=last) == COMMITS
            assert changes > 3, "the reader saw the state change"

    def opener(first: int) -> None:
        """Opens anew for each look, as command lines do."""
        last, turn = 0, first
        while not over.exists():
            with Collection.open(path) as docs:
                assert not docs.recovered, "nothing of a living writer is cleared away"
                last, turn = look(docs, turn, since=last), turn + 1

    def writer() -> None:
        with Collection.open(path) as docs:
            for commit in range(1, COMMITS + 1):
                write(docs, commit)
        over.touch()

    readers = [forked(lambda first=first: reader(first)) for first in range(3)]
    readers += [forked(lambda first=first: opener(first)) for first in range(3)]
    assert ended(forked(writer)) == 0
    assert [ended(process) for process in readers] == [0] * 6
    with Collection.open(path) as docs:
        docs.check()


def test_a_second_writer_is_told_in_about_a_second(quick: Path) -> None:
    path = make(quick / "docs", {"1": 0, "2": 0})
    with in_the_middle(path), Collection.open(path) as docs:
        for attempt in (
            lambda: docs.add(document(3, 0)),
            lambda: docs.remove("1"),
            lambda: docs.save(quick / "copy"),
            lambda: docs.fit([("everywhere", "1")]),
        ):
            started = time.monotonic()
            with pytest.raises(
                Locked, match=r"another writer is at work on '.*'; wait until it has finished and repeat"
            ):
                attempt()
            assert time.monotonic() - started < PATIENT
        assert not (quick / "copy" / "manifest.json").exists()
        assert state_of(docs) == {"0": 0, "1": 0, "2": 0}, "searching is possible meanwhile"
    with Collection.open(path) as docs:
        docs.add(document(3, 0))
        assert state_of(docs) == {"0": 0, "1": 0, "2": 0, "3": 0}


def test_a_second_writer_started_from_scratch_is_told(quick: Path) -> None:
    path = make(quick / "docs", {"1": 0})
    program = "import sys; from ragistry import *; Collection.open(sys.argv[1]).add(Document('3', 'three'))"
    with in_the_middle(path):
        ran = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1].startswith("ragistry.errors.Locked: another writer is at work on")


def test_opening_spares_what_a_living_writer_has_not_committed(quick: Path) -> None:
    """The writer stops between its documents and its manifest, where what it did looks like leftovers."""
    path = make(quick / "docs", {"1": 0, "2": 0})
    reading, telling = os.pipe()

    def stop() -> None:
        from ragistry import store

        commit = store.write_manifest

        def stopping(*arguments: object) -> None:
            os.write(telling, b"!")
            os.kill(os.getpid(), signal.SIGSTOP)
            commit(*arguments)

        store.write_manifest = stopping
        Collection.open(path).add(documents({"2": 1, "3": 0}))

    process = forked(stop)
    assert os.read(reading, 1) == b"!"
    os.waitpid(process, os.WUNTRACED)
    left = leftovers(path)
    assert left["rows"] == 3 and left["files"] > 3
    with Collection.open(path) as docs:
        assert not docs.recovered
        docs.check()
        assert state_of(docs) == {"1": 0, "2": 0}
        assert leftovers(path) == left
        os.kill(process, signal.SIGCONT)
        assert ended(process) == 0
        assert state_of(docs) == {"1": 0, "2": 1, "3": 0}
        docs.check()


def test_what_a_dead_writer_left_is_not_taken_over_by_the_next(quick: Path) -> None:
    """The next writer had the collection open all along, so it finds out when it writes."""
    path = make(quick / "docs", {"1": 0, "2": 0})

    def die() -> None:
        from ragistry import store

        store.write_manifest = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        Collection.open(path).add(documents({"2": 1, "3": 0}))

    with Collection.open(path) as docs:
        assert ended(forked(die)) == -signal.SIGKILL
        assert leftovers(path)
        assert state_of(docs) == {"1": 0, "2": 0}
        docs.add(document(4, 0))
        assert "interrupted" in docs.recovered
        assert state_of(docs) == {"1": 0, "2": 0, "4": 0}
        docs.check()
        assert not leftovers(path)


def test_a_forked_child_uses_what_its_parent_had_open(quick: Path) -> None:
    path = make(quick / "docs", {"1": 0, "2": 0})
    with Collection.open(path) as docs:
        docs.add(document(3, 0))
        assert ended(forked(lambda: docs.add(document(4, 0)))) == 0
        assert ended(forked(lambda: state_of(docs))) == 0
        assert state_of(docs) == {"1": 0, "2": 0, "3": 0, "4": 0}

        def stream() -> Iterator[Document]:
            """While the parent writes, and holds every lock there is, a child searches but may not write."""
            yield document(5, 0)
            assert ended(forked(lambda: state_of(docs))) == 0

            def write() -> None:
                with pytest.raises(Locked):
                    docs.add(document(6, 0))

            assert ended(forked(write)) == 0

        other = threading.Thread(target=lambda: docs.add(stream(), batch=1))
        other.start()
        other.join()
        assert state_of(docs) == {"1": 0, "2": 0, "3": 0, "4": 0, "5": 0}


def test_one_of_many_makes_the_directory(quick: Path) -> None:
    for number in range(5):
        path, processes = quick / f"docs{number}", []
        for id in range(6):

            def attempt(id: int = id, path: Path = path) -> None:
                try:
                    docs = Collection.create(path, create("bm25", k1=1 + id / 10))
                except StorageError as error:
                    assert "already holds" in str(error) or isinstance(error, Locked)
                    sys.exit(2)
                docs.add(document(id, 0))

            processes.append(forked(attempt))
        assert sorted(ended(process) for process in processes) == [0, 2, 2, 2, 2, 2]
        with Collection.open(path) as docs:
            ((made, _),) = state_of(docs).items()
            assert docs.recipe["k1"] == 1 + int(made) / 10, "whoever made it filled it"


def test_a_directory_that_is_replaced_is_noticed(quick: Path) -> None:
    """By renaming, as deployments do: what was open is not mixed with what is there now."""
    path = make(quick / "docs", {"7": 0, "8": 0})
    make(quick / "new", {"7": 3, "9": 0})
    with Collection.open(path) as docs:
        assert state_of(docs) == {"7": 0, "8": 0}
        path.rename(quick / "old")
        with pytest.raises(StorageError, match="not a collection"):
            docs.search("everywhere")
        (quick / "new").rename(path)
        for attempt in (lambda: docs.search("everywhere"), lambda: docs.get(["7"]), lambda: docs.add(document(1, 0))):
            with pytest.raises(StorageError, match="open it again"):
                attempt()
    with Collection.open(path) as docs:
        assert state_of(docs) == {"7": 3, "9": 0}

"""Threads that search while others write see one committed state at a time, and never an error."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from mmap import mmap
from pathlib import Path

import pytest

from ragistry import Collection, Document, create
from ragistry.errors import Locked
from ragistry.storage import read_manifest, write_manifest

from .commits import look, members, seen, write
from .harness import EVERYWHERE, document, state_of

COMMITS = 60


@pytest.fixture
def docs(quick: Path) -> Iterator[Collection]:
    with Collection.create(quick / "docs", create("bm25")) as docs:
        write(docs, 0)
        yield docs


def in_threads(*tasks: Callable[[], object]) -> None:
    """Run tasks at once; the first error of any is raised."""
    with ThreadPoolExecutor(len(tasks)) as pool:
        for future in [pool.submit(task) for task in tasks]:
            future.result()


def watcher(docs: Collection, first: int, done: threading.Event) -> int:
    """Look, in every way in turn, until the writer is done; how many different commits were seen."""
    found, turn = [0], first
    while not done.is_set():
        found.append(look(docs, turn, since=found[-1]))
        turn += 1
    for turn in (0, 1, 3, 4, 5):
        assert look(docs, turn, since=found[-1]) == COMMITS, "what is committed last is seen"
    return len(set(found))


@pytest.mark.parametrize("how", ["through the same object", "through another object"])
def test_sixteen_search_while_one_writes(docs: Collection, how: str) -> None:
    done = threading.Event()
    counts: list[int] = []

    def writer() -> None:
        try:
            for commit in range(1, COMMITS + 1):
                write(docs, commit)
        finally:
            done.set()

    with Collection.open(docs.path) as other:
        watched = docs if how == "through the same object" else other
        watchers = [lambda first=first: counts.append(watcher(watched, first, done)) for first in range(16)]
        in_threads(writer, *watchers)
    assert len(counts) == 16 and max(counts) > 3, "readers saw the state change"
    docs.check()


def test_two_writers_take_turns(docs: Collection) -> None:
    docs.remove(members(0))
    start = threading.Barrier(4)

    def writer(first: int) -> None:
        start.wait()
        for number in range(first, first + 20):
            docs.add(document(number, 0))
            if number % 4 == 0:
                docs.remove(str(number))

    in_threads(*(lambda first=first: writer(first) for first in (0, 100, 200, 300)))
    kept = {str(first + number) for first in (0, 100, 200, 300) for number in range(20) if number % 4}
    assert state_of(docs).keys() == kept
    docs.check()


def test_a_writer_may_write_in_the_middle_of_its_own_stream(docs: Collection) -> None:
    docs.remove(members(0))

    def stream() -> Iterator[Document]:
        yield document(1, 0)
        docs.add([document(2, 0), document(3, 0)])
        docs.remove("3")
        yield document(4, 0)

    docs.add(stream(), batch=1)
    assert state_of(docs) == {"1": 0, "2": 0, "4": 0}


def test_a_second_object_is_told_to_wait(docs: Collection) -> None:
    def stream() -> Iterator[Document]:
        yield document(1, 0)
        with Collection.open(docs.path) as other, pytest.raises(Locked, match="wait until it has finished"):
            other.add(document(2, 0))

    docs.add(stream(), batch=1)
    with Collection.open(docs.path) as other:
        other.add(document(2, 0))
        assert len(other.search(EVERYWHERE)) == 2


def test_documents_are_listed_as_they_were_at_the_first(docs: Collection) -> None:
    """Whatever is written meanwhile, and even by the loop itself."""
    for _ in docs.documents():
        for commit in range(1, 4):
            write(docs, commit)
        break
    listing = docs.documents()
    found = [next(listing)]
    for commit in range(4, 9):
        write(docs, commit)
    found += listing
    assert seen(found) == 3
    for one in docs.documents():
        docs.remove(one.id)
    assert len(docs) == 0 and not list(docs.documents())


def test_followers_do_not_pile_up_what_is_gone(docs: Collection) -> None:
    """A process that only reads lets go of the arrays of earlier states."""
    with Collection.open(docs.path) as other:
        counts = []
        for commit in range(1, 21):
            write(docs, commit)
            assert seen(other.search("shared", k=100)) == commit
            gc.collect()
            counts.append(sum(isinstance(found, mmap) for found in gc.get_objects()))
    assert max(counts[10:]) <= max(counts[:10]) + 8, counts


def test_first_searches_at_once_do_not_mistake_each_other(docs: Collection) -> None:
    """The first search compares the encoder with what was saved, whatever another first search has found by then."""
    with Collection.open(docs.path) as other:
        searcher = other.retriever()
        both, order = threading.Barrier(2), iter((0.0, 0.2))
        own = searcher.encoder.fingerprint

        def slow() -> str:
            both.wait(timeout=30)
            time.sleep(next(order))
            return own()

        searcher.encoder.fingerprint = slow
        in_threads(*[lambda: seen(other.search("shared", k=100))] * 2)


def test_states_are_told_apart_however_soon_they_follow(docs: Collection) -> None:
    """The kernel's clock for files stands still for some milliseconds, and a deleted file's number is used again."""
    manifest = read_manifest(docs.path)
    stamps = set()
    for _ in range(50):
        write_manifest(docs.path, manifest)
        stamps.add((docs.path / "manifest.json").stat().st_mtime_ns)
    assert len(stamps) == 50

"""What the reliability tests share: documents that can be told apart, child processes, and what collections promise."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import sys
import traceback
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from ragistry import Collection, Document, create

ALPHABET = "bcdfghjklmnpqrst"
EVERYWHERE = "everywhere"
State = Mapping[str, int]
"""The version of each document by its id."""

THREE = {"1": 0, "2": 0, "3": 0}


def word(number: int, version: int) -> str:
    """A term that only one version of one document holds: letters that no analyzer splits."""
    return "z" + "".join(ALPHABET[int(digit, 16)] for digit in f"{number:x}") + "y" + "x" * version


def document(number: int, version: int) -> Document:
    text = f"{EVERYWHERE} {word(number, version)}"
    return Document(str(number), text, f"number {number}", {"number": number, "version": version})


def documents(state: State) -> list[Document]:
    return [document(int(id), version) for id, version in state.items()]


def make(path: Path, state: State | None = None) -> Path:
    """A collection that holds a state, in some commits, closed."""
    with Collection.create(path, create("bm25", stemmer=None, stop_words=None)) as docs:
        docs.add(documents(state or {}), batch=7)
    return path


def state_of(docs: Collection) -> dict[str, int]:
    """What a collection says it holds, after its documents, its index and its filters have been found to agree."""
    held = {document.id: document for document in docs.documents()}
    state = {id: int(document.metadata["version"]) for id, document in held.items()}
    assert held == {document.id: document for document in documents(state)}, "documents are as they were added"
    assert len(docs) == len(state)
    everywhere = [hit.id for hit in docs.search(EVERYWHERE, k=len(state) + 5)]
    assert sorted(everywhere) == sorted(state), "the index holds the same documents as the corpus"
    own = docs.search_many([word(int(id), version) for id, version in state.items()], k=3)
    assert [[hit.id for hit in hits] for hits in own] == [[id] for id in state], "each is found by its own term"
    others = docs.search_many([word(int(id), version) for id in state for version in range(5) if version != state[id]])
    assert not any(others), "no other version is found"
    for chosen in {*list(state.values())[:2]}:
        expected = sorted(id for id, version in state.items() if version == chosen)
        found = docs.search(EVERYWHERE, k=len(state) + 5, where={"version": chosen})
        assert sorted(hit.id for hit in found) == expected, "filters see the same documents"
    return state


def unchanged(docs: Collection) -> None:
    """What tests are given as `docs` is as they were given it."""
    assert state_of(docs) == THREE
    docs.check()


def leftovers(path: Path) -> dict[str, int]:
    """How many files and rows lie in a directory that its manifest does not account for; nothing where there are none."""
    manifest = json.loads((path / "manifest.json").read_bytes())
    files = [*path.glob(".*.part"), *(file for file in path.glob("files/*") if file.name not in manifest["files"])]
    with closing(sqlite3.connect(path / "corpus.sqlite")) as connection:
        select = "SELECT count(*) FROM documents WHERE max(born, ifnull(died, 0)) > ?"
        ((rows,),) = connection.execute(select, [manifest["generation"]])
    return {what: count for what, count in (("files", len(files)), ("rows", rows)) if count}


def forked(task: Callable[[], object]) -> int:
    """Start a task in a process of its own, which begins with everything imported; returns the process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        task()
        status = 0
    except SystemExit as wanted:
        status = int(wanted.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def ended(process: int) -> int:
    """Wait for a process; its exit status, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def killed(process: int) -> None:
    os.kill(process, signal.SIGKILL)
    assert ended(process) in {-signal.SIGKILL, 0}


WRITES = frozenset("fsync rename replace unlink remove link write flush truncate execute executemany".split())
"""Names of the built-in functions that may change a file."""


@contextmanager
def at_step(step: int, functions: Container[str], action: Callable[[], object]) -> Iterator[list[str]]:
    """Take an action just before the `step`-th call of some built-in functions; yields the name of the one it met."""
    left, met = step, list[str]()

    def count(frame: Any, event: str, function: Any) -> None:
        nonlocal left
        if event == "c_call" and function.__name__ in functions and not isinstance(function.__self__, BytesIO):
            left -= 1
            if left < 0:
                sys.setprofile(None)
                met.append(function.__name__)
                action()

    sys.setprofile(count)
    try:
        yield met
    finally:
        sys.setprofile(None)


def killed_at(step: int, task: Callable[[], object]) -> bool:
    """Do a task in a child that kills itself at its `step`-th call that may change a file; False if none was left."""

    def suicide() -> None:
        with at_step(step, WRITES, lambda: os.kill(os.getpid(), signal.SIGKILL)):
            task()

    status = ended(forked(suicide))
    assert status in {0, -signal.SIGKILL}
    return status != 0


def copied(source: Path, target: Path) -> Path:
    """A fresh copy of a directory that nobody has open."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    return target


def one_of(state: State, possible: Sequence[State]) -> bool:
    return any(dict(state) == dict(allowed) for allowed in possible)

"""Damaged directories are refused with advice, or answer right: never wrong, and never with somebody else's error."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ragistry
from ragistry import Collection, create
from ragistry.errors import Corrupt, RagistryError, StorageError, UnknownName

from .harness import EVERYWHERE, copied, document, documents, ended, forked, make, state_of, word

ADVICE = ("restore", "index again", "index the documents again", "make it again", "create one with", "open ")

QUESTIONS: dict[str, Callable[[Collection], Any]] = {
    "length": len,
    "recipe": lambda docs: docs.recipe,
    "listing": lambda docs: list(docs.documents()),
    "search": lambda docs: docs.search(EVERYWHERE, k=100),
    "own terms": lambda docs: docs.search_many([word(number, 0) for number in range(45)]),
    "filtered search": lambda docs: docs.search(EVERYWHERE, k=100, where={"version": 1}),
    "filtered listing": lambda docs: list(docs.documents(where={"number": {"gte": 20}})),
    "get": lambda docs: docs.get(["4", "5", "20", "40"]),
}
BY_CHECK_ONLY = {"filtered search", "filtered listing", "get"}
"""What is missing from these because of a damaged page of the corpus is found by `check`; what is there is right."""


def advised(error: BaseException) -> None:
    assert any(advice in str(error) for advice in ADVICE), f"what shall be done about: {error}"
    assert "\n" not in str(error)


def answers(path: Path) -> dict[str, Any]:
    with Collection.open(path) as docs:
        return {name: ask(docs) for name, ask in QUESTIONS.items()}


def judge(path: Path, right: dict[str, Any], lenient: bool = False) -> bool:
    """Whether damage is noticed; it need not be where every answer is right."""
    wrong, noticed = set(), False
    try:
        docs = Collection.open(path)
    except StorageError as error:
        advised(error)
        return True
    with docs:
        for name, ask in QUESTIONS.items():
            try:
                answer = ask(docs)
            except StorageError as error:
                advised(error)
                noticed = True
            except UnknownName:
                wrong.add(name)
            else:
                if answer != right[name]:
                    wrong.add(name)
                    assert isinstance(answer, list) and all(one in right["search"] + right["listing"] for one in answer)
        try:
            docs.check()
        except StorageError as error:
            advised(error)
            noticed = True
    assert not wrong or noticed, f"wrong and not noticed: {wrong}"
    assert wrong <= (BY_CHECK_ONLY if lenient else set()), f"wrong: {wrong}"
    return noticed


def spoilt(content: bytes, chance: random.Random, flips: int) -> Iterator[bytes | None]:
    """A file cut short, emptied, prolonged, filled with noise, gone, or with one bit turned over."""
    size = len(content)
    yield None
    yield b""
    yield chance.randbytes(size)
    yield content + chance.randbytes(100)
    for length in {1, size // 2, size - 1, *(chance.randrange(size) for _ in range(3))}:
        yield content[:length]
    for place in [0, size - 1, *(chance.randrange(size) for _ in range(flips))]:
        flipped = bytearray(content)
        flipped[place] ^= 1 << chance.randrange(8)
        yield bytes(flipped)


def put(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


@pytest.fixture(scope="session")
def unmerged(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection whose last writer was killed, so that committed documents lie in a second file beside the corpus."""
    path = copied(filled, tmp_path_factory.mktemp("unmerged") / "docs")

    def change() -> None:
        docs = Collection.open(path)
        docs.add(documents({"4": 1, "20": 1, "60": 0}))
        os.kill(os.getpid(), signal.SIGKILL)

    assert ended(forked(change)) == -signal.SIGKILL
    assert (path / "corpus.sqlite-wal").stat().st_size > 10_000
    return path


def damage(source: Path, quick: Path, names: list[str], flips: int, seed: int = 0) -> list[bool]:
    chance = random.Random(seed)
    right = answers(copied(source, quick / "docs"))
    noticed = []
    for name in names:
        for content in spoilt((source / name).read_bytes(), chance, flips):
            path = copied(source, quick / "docs")
            put(path / name, content)
            noticed.append(judge(path, right, lenient=name.startswith("corpus.sqlite")))
    return noticed


def arrays(path: Path) -> list[str]:
    return sorted(f"files/{file.name}" for file in (path / "files").iterdir())


def test_damaged_arrays(filled: Path, quick: Path) -> None:
    names = arrays(filled)
    assert len(names) > 8
    assert all(damage(filled, quick, names, flips=3))


def test_damaged_manifest(filled: Path, quick: Path) -> None:
    noticed = damage(filled, quick, ["manifest.json"], flips=150)
    assert sum(noticed) > 0.9 * len(noticed), "only its white space does not matter"


def test_damaged_corpus(filled: Path, quick: Path) -> None:
    noticed = damage(filled, quick, ["corpus.sqlite"], flips=500)
    assert 30 < sum(noticed) < len(noticed), "some bytes are used, some are not"


def test_damaged_unmerged_changes(unmerged: Path, quick: Path) -> None:
    names = ["corpus.sqlite-wal", "corpus.sqlite", "corpus.sqlite-shm"]
    assert sum(damage(unmerged, quick, names, flips=60)) > 30


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_damaged_more_often(filled: Path, unmerged: Path, quick: Path, seed: int) -> None:
    names = ["corpus.sqlite", "manifest.json", *arrays(filled)]
    assert any(damage(filled, quick, names, flips=2000, seed=seed))
    assert any(damage(unmerged, quick, ["corpus.sqlite-wal", "corpus.sqlite"], flips=2000, seed=seed))


def test_damage_while_it_is_open(filled: Path, quick: Path) -> None:
    """What is in memory goes on answering right; `check` reads the disk."""
    right = answers(filled)
    for name in ("manifest.json", *arrays(filled)[:4]):
        for missing in (True, False):
            path = copied(filled, quick / "docs")
            with Collection.open(path) as docs:
                content = (path / name).read_bytes()
                (path / name).unlink()
                if not missing:
                    (path / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
                with pytest.raises(StorageError) as caught:
                    docs.check()
                advised(caught.value)
                if name != "manifest.json":
                    assert {question: ask(docs) for question, ask in QUESTIONS.items()} == right


def signed(content: dict[str, Any]) -> bytes:
    """A manifest as somebody would write it who knows how."""
    content.pop("checksum", None)
    checksum = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return json.dumps({**content, "checksum": checksum}).encode()


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"format": 0},
        {"format": "1"},
        {"format": None},
        {"format": 1.5},
        {"generation": "three"},
        {"generation": -1},
        {"generation": 10**30},
        {"generation": 999},
        {"documents": 3},
        {"recipe": []},
        {"recipe": {}},
        {"recipe": {"name": "no such retriever"}},
        {"recipe": {"name": "bm25", "k1": "much"}},
        {"recipe": {"name": "bm25", "unknown": 1}},
        {"recipe": {"name": 7}},
        {"state": []},
        {"state": {}},
        {"state": {"index": {"segments": [{}]}, "fingerprint": ""}},
        {"state": {"index": {"segments": 5}, "fingerprint": ""}},
        {"state": {"index": {"segments": [{"ids": ["../../x"], "alive": "", "content": {}}]}, "fingerprint": "x"}},
        {"files": {"../../../etc/passwd": 3}},
        {"files": []},
        {"unknown": 1},
    ],
    ids=str,
)
def test_wrong_values_in_the_manifest(filled: Path, quick: Path, change: dict[str, Any]) -> None:
    path = copied(filled, quick / "docs")
    content = {**json.loads((path / "manifest.json").read_bytes()), **change}
    (path / "manifest.json").write_bytes(signed(content))
    with pytest.raises(RagistryError) as caught, Collection.open(path) as docs:
        docs.check()
        docs.search(EVERYWHERE)
    assert len(str(caught.value)) > 30


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b"{}",
        b"null",
        b"7",
        b'"text"',
        b"\xef\xbb\xbf{}",
        b"\xff\xfe{\0}\0",
        b"{" * 10**6,
        b"[" * 10**6,
        b'{"format": 1}',
        b'{"format": NaN}',
        b'{"format": ' + b"9" * 10**5 + b"}",
        b'{"format": 1, "recipe": "\\ud800"}',
        b"format: 1",
        b"\0" * 5000,
    ],
    ids=lambda content: repr(content[:20]),
)
def test_manifests_of_another_kind(filled: Path, quick: Path, content: bytes) -> None:
    path = copied(filled, quick / "docs")
    (path / "manifest.json").write_bytes(content)
    with pytest.raises(Corrupt) as caught:
        Collection.open(path)
    advised(caught.value)
    assert "manifest.json" in str(caught.value)


def other_database(path: Path) -> None:
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE documents (id, text)")
    connection.commit()
    connection.close()


def directory_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "spoil",
    [
        other_database,
        directory_instead,
        lambda path: path.write_bytes(b"SQLite format 3\0" + bytes(84)),
        lambda path: path.write_text("id,text\n1,hello\n" * 100),
        lambda path: shutil.copyfile(path.parent / "manifest.json", path),
        lambda path: path.write_bytes(path.read_bytes()[:4096] + bytes(path.stat().st_size - 4096)),
    ],
)
def test_something_else_in_place_of_the_corpus(filled: Path, quick: Path, spoil: Callable[[Path], object]) -> None:
    path = copied(filled, quick / "docs")
    spoil(path / "corpus.sqlite")
    with pytest.raises(StorageError) as caught, Collection.open(path) as docs:
        list(docs.documents())
    advised(caught.value)


def test_a_directory_in_place_of_a_file(filled: Path, quick: Path) -> None:
    for name in ("manifest.json", arrays(filled)[0]):
        path = copied(filled, quick / "docs")
        directory_instead(path / name)
        with pytest.raises(StorageError):
            Collection.open(path)


def test_parts_of_different_times_do_not_go_together(filled: Path, quick: Path) -> None:
    """As a backup made file by file while somebody writes, or half of it restored, would mix them."""
    times = [copied(filled, quick / "0")]
    for number in range(1, 4):
        times.append(copied(times[-1], quick / str(number)))
        with Collection.open(times[-1]) as docs:
            docs.add(documents({"4": number, str(100 + number): 0}))
    right = [answers(path) for path in times]
    for i, manifest in enumerate(times):
        for j, corpus in enumerate(times):
            path = copied(corpus, quick / "mixed")
            shutil.copyfile(manifest / "manifest.json", path / "manifest.json")
            for file in (manifest / "files").iterdir():
                shutil.copyfile(file, path / "files" / file.name)
            # A corpus that is one commit ahead is what a killed writer leaves.
            assert judge(path, right[i]) == (j not in {i, i + 1}), f"manifest {i} with corpus {j}"


def test_documents_of_another_collection(filled: Path, quick: Path) -> None:
    path = copied(filled, quick / "docs")
    other = make(quick / "other", {"1": 3, "70": 0})
    shutil.copyfile(other / "corpus.sqlite", path / "corpus.sqlite")
    with pytest.raises(Corrupt) as caught, Collection.open(path) as docs:
        docs.search(EVERYWHERE)
    advised(caught.value)


def test_no_collection(quick: Path) -> None:
    (quick / "empty").mkdir()
    (quick / "photos").mkdir()
    (quick / "photos" / "cat.jpg").write_bytes(b"\xff\xd8")
    (quick / "file").write_text("text")
    retriever = create("bm25")
    retriever.add([document(1, 0)])
    ragistry.save(retriever, quick / "retriever")
    for name in ("empty", "photos", "file", "file/below", "missing", "missing/below", "retriever", "x" * 5000):
        before = sorted(quick.rglob("*"))
        with pytest.raises(StorageError) as caught:
            Collection.open(quick / name)
        if len(name) < 256:
            advised(caught.value)
        assert sorted(quick.rglob("*")) == before, "looking changes nothing"
    for name in ("photos", "file", "retriever", "file/below"):
        with pytest.raises(StorageError):
            Collection.create(quick / name, create("bm25"))
    with Collection.create(quick / "empty", create("bm25")) as docs:
        docs.add(document(1, 0))
        assert state_of(docs) == {"1": 0}
        with pytest.raises(StorageError, match="already holds a collection"):
            Collection.create(quick / "empty", create("bm25"))
        with pytest.raises(StorageError, match="already holds"):
            docs.save(quick / "photos")
        assert state_of(docs) == {"1": 0}


def test_a_damaged_retriever_saved_alone(quick: Path) -> None:
    retriever = create("bm25")
    retriever.add([document(number, 0) for number in range(20)])
    source = quick / "source"
    ragistry.save(retriever, source)
    right = retriever.search([EVERYWHERE], k=30)
    assert ragistry.load(source).search([EVERYWHERE], k=30) == right
    chance = random.Random(0)
    for name in ("manifest.json", *arrays(source)):
        for content in spoilt((source / name).read_bytes(), chance, flips=10):
            path = copied(source, quick / "retriever")
            put(path / name, content)
            try:
                found = ragistry.load(path).search([EVERYWHERE], k=30)
            except StorageError as error:
                advised(error)
            else:
                assert found == right and name == "manifest.json", "only its white space does not matter"

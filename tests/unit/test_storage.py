"""Saving and loading: round trips, damage, and disks that fail."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

import ragistry
from ragistry import Document, create
from ragistry.errors import Corrupt, InvalidInput, StorageError
from ragistry.protocols import Updatable
from ragistry.storage import MANIFEST, ArrayFiles, file_names, load, read_manifest, save

DOCUMENTS = [Document(f"id {i}", f"line {'poem ' * (i % 3)} number {i}") for i in range(30)]


@pytest.fixture
def retriever() -> Updatable:
    made = cast(Updatable, create("bm25", k1=0.7))
    made.add(DOCUMENTS)
    made.remove(["id 3"])
    return made


def contents(directory: Path) -> dict[str, bytes]:
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_round_trip(retriever: Updatable, tmp_path: Path) -> None:
    save(retriever, tmp_path / "deep" / "saved")
    loaded = load(tmp_path / "deep" / "saved")
    assert loaded.recipe == retriever.recipe
    assert loaded.recipe.k1 == 0.7
    for query in ("poem", "line number 7"):
        assert loaded.search([query], 50) == retriever.search([query], 50)
    assert ragistry.save is save
    assert ragistry.load is load


def test_hybrids_round_trip(tmp_path: Path) -> None:
    members = {
        "a": "bm25",
        "b": {"name": "hybrid", "members": {"c": "query-likelihood", "d": {"name": "bm25", "b": 0.1}}},
    }
    retriever = cast(Updatable, create("hybrid", members=members))
    retriever.add(DOCUMENTS)
    save(retriever, tmp_path)
    assert load(tmp_path).recipe == retriever.recipe
    assert load(tmp_path).search(["poem line"], 50) == retriever.search(["poem line"], 50)


def test_saving_twice_gives_identical_bytes(retriever: Updatable, tmp_path: Path) -> None:
    save(retriever, tmp_path / "a")
    save(retriever, tmp_path / "b")
    save(load(tmp_path / "a"), tmp_path / "c")
    assert contents(tmp_path / "a") == contents(tmp_path / "b") == contents(tmp_path / "c")
    before = contents(tmp_path / "a")
    save(retriever, tmp_path / "a")
    assert contents(tmp_path / "a") == before


def test_saving_over_another_leaves_nothing_of_it(retriever: Updatable, tmp_path: Path) -> None:
    save(retriever, tmp_path)
    other = cast(Updatable, create("query-likelihood"))
    other.add(DOCUMENTS[:2])
    save(other, tmp_path)
    assert {path.name for path in (tmp_path / "files").iterdir()} == set(read_manifest(tmp_path).files)
    assert load(tmp_path).search(["line"], 9) == other.search(["line"], 9)


def test_files_of_others_are_left_alone(retriever: Updatable, tmp_path: Path) -> None:
    mine = tmp_path / "files" / "thesis.npy"
    mine.parent.mkdir()
    mine.write_bytes(b"years of work")
    save(retriever, tmp_path)
    save(retriever, tmp_path)
    assert mine.read_bytes() == b"years of work"


def test_a_collection_is_not_saved_over(retriever: Updatable, tmp_path: Path) -> None:
    with ragistry.Collection.create(tmp_path / "docs", create("bm25")) as docs:
        docs.add(DOCUMENTS)
    with pytest.raises(StorageError, match="another directory"):
        save(retriever, tmp_path / "docs")
    with ragistry.Collection.open(tmp_path / "docs") as docs:
        assert len(docs) == len(DOCUMENTS)


def test_only_registered_retrievers_are_saved(tmp_path: Path) -> None:
    for thing in (create("bm25").index, object()):  # type: ignore[attr-defined]
        with pytest.raises(InvalidInput, match="create"):
            save(thing, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_every_flipped_bit_and_cut_is_noticed(retriever: Updatable, tmp_path: Path) -> None:
    save(retriever, tmp_path)
    random = np.random.default_rng(0)
    for path in [tmp_path / MANIFEST, *sorted((tmp_path / "files").iterdir())]:
        whole = path.read_bytes()
        for place in {0, len(whole) - 1, *random.integers(0, len(whole), 25).tolist()}:
            flipped = bytearray(whole)
            flipped[place] ^= 1 << random.integers(8)
            if path.name == MANIFEST and json_equal(bytes(flipped), whole):
                continue  # white space became other white space
            path.write_bytes(flipped)
            with pytest.raises(Corrupt, match="restore"):
                load(tmp_path)
        for size in {0, 1, len(whole) // 2, len(whole) - 2}:
            path.write_bytes(whole[:size])
            with pytest.raises(Corrupt, match="restore"):
                load(tmp_path)
        path.write_bytes(whole)
    assert load(tmp_path).search(["poem"], 5) == retriever.search(["poem"], 5)


def json_equal(one: bytes, other: bytes) -> bool:
    try:
        return bool(json.loads(one) == json.loads(other))
    except ValueError:
        return False


def test_saving_again_mends_damaged_files(retriever: Updatable, tmp_path: Path) -> None:
    save(retriever, tmp_path)
    victim = max((tmp_path / "files").iterdir(), key=lambda path: path.stat().st_size)
    damaged = bytearray(victim.read_bytes())
    damaged[-1] ^= 255
    victim.write_bytes(damaged)
    save(retriever.fork(), tmp_path)
    assert load(tmp_path).search(["poem"], 5) == retriever.search(["poem"], 5)


def test_missing_parts_are_named(retriever: Updatable, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=MANIFEST):
        load(tmp_path / "nowhere")
    (tmp_path / "file").write_text("text")
    with pytest.raises(StorageError, match="is a file"):
        load(tmp_path / "file")
    save(retriever, tmp_path / "a")
    victim = next((tmp_path / "a" / "files").iterdir())
    victim.unlink()
    with pytest.raises(Corrupt, match=f"{victim.name}.*missing"):
        load(tmp_path / "a")


def test_other_formats_are_refused(retriever: Updatable, tmp_path: Path) -> None:
    save(retriever, tmp_path)
    for wrong in (2, 0, "1", None, [1]):
        rewrite(tmp_path / MANIFEST, lambda content, wrong=wrong: content.update(format=wrong))
        with pytest.raises(Corrupt, match="format"):
            load(tmp_path)
    for text in ("[]", "3", "null", "", "[" * 100_000, '{"format": 1}'):
        (tmp_path / MANIFEST).write_text(text)
        with pytest.raises(Corrupt):
            load(tmp_path)


def test_a_manifest_changed_by_hand_is_refused(retriever: Updatable, tmp_path: Path) -> None:
    save(retriever, tmp_path)
    rewrite(tmp_path / MANIFEST, lambda content: content["recipe"].update(k1=2.0))
    with pytest.raises(Corrupt, match="checksum"):
        load(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_failing_disks_lose_nothing(
    retriever: Updatable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    save(retriever, tmp_path)
    before = contents(tmp_path)
    flush = os.fsync
    for failing in range(4):
        calls = 0

        def fail(descriptor: int, failing: int = failing) -> None:
            nonlocal calls
            calls += 1
            if calls > failing:
                raise OSError(number, os.strerror(number))
            flush(descriptor)

        changed = retriever.fork()
        changed.add([Document("new", f"poem number {failing}")])
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            with pytest.raises(StorageError, match="cannot write") as caught:
                save(changed, tmp_path)
            assert isinstance(caught.value.__cause__, OSError)
        after = contents(tmp_path)
        assert {name: after[name] for name in before} == before
        assert not any(name.endswith(".part") for name in after)
        assert load(tmp_path).search(["poem"], 5) == retriever.search(["poem"], 5)
    save(changed, tmp_path)
    assert load(tmp_path).search(["poem"], 50) == changed.search(["poem"], 50)


def test_directories_that_cannot_be_made(retriever: Updatable, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot create"):
        save(retriever, tmp_path / "file" / "inside")


class TestArrayFiles:
    @pytest.mark.parametrize(
        "array",
        [
            np.arange(7, dtype=np.int64), np.zeros((0, 3), np.float32), np.array(3.5), np.ones((2, 3))[:, ::2],
            np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.array([True, False]), np.array(["é", "🦜"]),
        ],
        ids=repr,
    )  # fmt: skip
    def test_arrays_come_back(self, tmp_path: Path, array: Any) -> None:
        name = ArrayFiles(tmp_path).put(array)
        found = ArrayFiles(tmp_path).get(name)
        assert found.dtype == array.dtype
        assert np.array_equal(found, array)
        assert not found.flags.writeable

    def test_equal_arrays_are_one_file(self, tmp_path: Path) -> None:
        files = ArrayFiles(tmp_path)
        names = {files.put(np.arange(5)), files.put(np.arange(5)), ArrayFiles(tmp_path).put(np.arange(5))}
        assert [path.name for path in tmp_path.iterdir()] == list(names)
        assert files.sizes(names) == {name: (tmp_path / name).stat().st_size for name in names}

    def test_objects_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInput, match="numeric"):
            ArrayFiles(tmp_path).put(np.array([{}, []], dtype=object))
        assert not list(tmp_path.iterdir())

    def test_what_is_not_an_array_is_refused(self, tmp_path: Path) -> None:
        import hashlib

        content = b"no array at all"
        name = f"{hashlib.sha256(content).hexdigest()}.npy"
        (tmp_path / name).write_bytes(content)
        with pytest.raises(Corrupt, match="not an array"):
            ArrayFiles(tmp_path).get(name)

    def test_sweeping(self, tmp_path: Path) -> None:
        files = ArrayFiles(tmp_path)
        kept, gone = np.arange(5), np.arange(6)
        names = files.put(kept), files.put(gone)
        part = f".{'0' * 64}.npy.77.part"
        (tmp_path / part).write_text("unfinished")
        (tmp_path / "notes.txt").write_text("of someone else")
        assert set(files.sweep([names[0]])) == {names[1], part}
        assert {path.name for path in tmp_path.iterdir()} == {names[0], "notes.txt"}
        assert files.put(gone) == names[1]  # written again, for its file is gone
        assert np.array_equal(ArrayFiles(tmp_path).get(names[1]), gone)

    def test_names_in_a_state(self) -> None:
        name = "a" * 64 + ".npy"
        assert file_names({"x": [name, 3, None, "text"], "y": {"z": name[::-1]}}) == {name}

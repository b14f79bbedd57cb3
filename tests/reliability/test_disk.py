"""Disks that are full, limited, read-only or failing: searching works, changes are refused with advice, nothing is lost."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import stat
from pathlib import Path

import pytest

from ragistry import Collection, create
from ragistry.errors import Corrupt, StorageError

from .harness import at_step, copied, document, documents, killed_at, leftovers, one_of, state_of
from .places import become_nobody, can_mount, enter_namespace, in_place, mount_read_only, mount_small

MOUNTS = can_mount()
CHANGE = {"3": 2, "20": 1, "50": 0}
OS_CALLS = frozenset("fsync replace write flush utime mkdir".split())


def refused(docs: Collection, how: str, path: Path) -> None:
    """Every kind of change is refused with an error that says why and what to do, and changes nothing."""
    before = state_of(docs)
    for change in (
        lambda: docs.add(documents(CHANGE)),
        lambda: docs.remove(list(before)),
        lambda: docs.add(document(number, 4) for number in range(60)),
    ):
        with pytest.raises(StorageError, match=how) as caught:
            change()
        assert not isinstance(caught.value, Corrupt), "nothing is damaged"
        assert str(path) in str(caught.value)
        assert state_of(docs) == before


def works(docs: Collection, before: dict[str, int]) -> None:
    docs.add(documents(CHANGE))
    assert state_of(docs) == {**before, **CHANGE}
    docs.remove("3")
    docs.check()


def test_a_limit_on_the_size_of_files(filled: Path, quick: Path) -> None:
    """Wherever the limit strikes: in the arrays, the documents, the manifest."""
    sizes = {file.stat().st_size for file in filled.rglob("*") if file.is_file()}
    limits = sorted({1, 1000, *(size - 1 for size in sizes), *(size + 1 for size in sizes)})
    for limit in limits:
        path = copied(filled, quick / "docs")

        def task(path: Path = path, limit: int = limit) -> None:
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            with Collection.open(path) as docs:
                before = state_of(docs)
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
                try:
                    docs.add(documents(CHANGE))
                    allowed = {**before, **CHANGE}
                except StorageError as error:
                    assert not isinstance(error, Corrupt) and "\n" not in str(error)
                    allowed = before
                assert state_of(docs) == allowed
                resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
                works(docs, allowed)
            assert not leftovers(path)

        in_place(task)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EDQUOT], ids=errno.errorcode.get)
def test_a_disk_that_fails_once_at_any_step(filled: Path, quick: Path, error: int) -> None:
    def fail() -> None:
        raise OSError(error, os.strerror(error))

    for step in range(10_000):
        path = copied(filled, quick / "docs")
        with Collection.open(path) as docs:
            before = state_of(docs)
            with at_step(step, OS_CALLS, fail) as met:
                try:
                    docs.add(documents(CHANGE))
                except StorageError as raised:
                    assert met and not isinstance(raised, Corrupt)
                    assert str(path) in str(raised)
                    assert ("full" in str(raised)) == (error == errno.ENOSPC)
            after = state_of(docs)
            assert one_of(after, [before, {**before, **CHANGE}]), f"failed at step {step}, {met}"
            works(docs, after)
        assert not leftovers(path)
        if not met:
            break
    assert step > 20 and after != before


def test_a_disk_that_goes_on_failing_loses_nothing(filled: Path, quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even undoing works: documents that were not committed stay behind, and must not be taken over later."""
    path = copied(filled, quick / "docs")

    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with Collection.open(path) as docs:
        before = state_of(docs)
        with monkeypatch.context() as broken:
            broken.setattr("ragistry.store.write_manifest", fail_as_storage)
            broken.setattr("ragistry.corpus.Corpus.rollback", fail_as_storage)
            with pytest.raises(StorageError, match="disk is full"):
                docs.add(documents({"70": 0, "3": 4}))
            assert leftovers(path)
            assert state_of(docs) == before
        docs.add(documents({"71": 0}))
        assert state_of(docs) == {**before, "71": 0}
        docs.check()
    assert not leftovers(path)


def fail_as_storage(*arguments: object) -> None:
    raise StorageError("the disk is full")


def test_a_failed_copy_leaves_its_place_free(filled: Path, quick: Path) -> None:
    target = quick / "copy"

    def fail() -> None:
        raise OSError(errno.ENOSPC, "no space")

    with Collection.open(copied(filled, quick / "docs")) as docs:
        before = state_of(docs)
        for step in range(10_000):
            with at_step(step, OS_CALLS, fail) as met:
                try:
                    docs.save(target)
                except StorageError as raised:
                    assert "disk is full" in str(raised)
                    assert not (target / "manifest.json").exists()
                else:
                    if not met:
                        break
                    shutil.rmtree(target)  # what failed did not matter
        assert step > 10
        with Collection.open(target) as copy:
            assert state_of(copy) == before


def test_a_failed_beginning_leaves_its_place_free(quick: Path) -> None:
    def fail() -> None:
        raise OSError(errno.ENOSPC, "no space")

    for step in range(10_000):
        with at_step(step, OS_CALLS, fail) as met:
            try:
                docs = Collection.create(quick / "docs", create("bm25"))
            except StorageError as raised:
                assert "disk is full" in str(raised)
            else:
                if not met:
                    break
                shutil.rmtree(quick / "docs")  # what failed did not matter
    assert step > 3
    with docs:
        docs.add(document(1, 0))
        assert state_of(docs) == {"1": 0}


def test_everything_is_flushed_before_it_counts(quick: Path, filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against power failures: when a manifest is put in its place, all that it names is on the disk, names included."""
    flushed: set[int] = set()
    fsync, replace = os.fsync, Path.replace
    moments: list[Path] = []

    def recorded(descriptor: int) -> None:
        fsync(descriptor)
        flushed.add(os.fstat(descriptor).st_ino)

    def replaced(beside: Path, path: Path) -> Path:
        assert beside.stat().st_ino in flushed, f"{path} is flushed before it gets its name"
        if path.name == "manifest.json":
            moments.append(path)
            files = path.parent / "files"
            for file in files.iterdir():
                assert file.stat().st_ino in flushed | known, f"{file} is on the disk before the manifest names it"
            assert files.stat().st_ino in flushed, "so is its name"
            flushed.clear()
        return replace(beside, path)

    path = copied(filled, quick / "docs")
    known = {file.stat().st_ino for file in (path / "files").iterdir()}
    with Collection.open(path) as docs:
        monkeypatch.setattr(os, "fsync", recorded)
        monkeypatch.setattr(Path, "replace", replaced)
        docs.add(documents(CHANGE))
        assert path.stat().st_ino in flushed, "the manifest's own name is flushed at last"
        known = set()
        docs.save(quick / "copy")
        assert (quick / "copy").stat().st_ino in flushed
    assert moments == [path / "manifest.json", quick / "copy" / "manifest.json"]


def test_nobody_may_write(filled: Path, quick: Path) -> None:
    """Permissions alone: searching, listing, checking and copying elsewhere work."""
    path, target = copied(filled, quick / "docs"), quick / "elsewhere"
    target.mkdir()
    target.chmod(0o777)
    for part in (path, *path.rglob("*")):
        part.chmod(stat.S_IMODE(part.stat().st_mode) & 0o555 | 0o444)

    def task() -> None:
        become_nobody()
        only_searched(path, target / "copy", "permission is denied|read-only")

    try:
        in_place(task)
    finally:
        for part in (path, path / "files"):
            part.chmod(0o755)


def only_searched(path: Path, target: Path, how: str) -> None:
    before = sorted(part.name for part in path.rglob("*"))
    with Collection.open(path) as docs:
        state = state_of(docs)
        docs.check()
        assert docs.info()["documents"] == len(state)
        refused(docs, how, path)
        docs.save(target)
    assert sorted(part.name for part in path.rglob("*")) == before
    with Collection.open(target) as copy:
        works(copy, state)


if MOUNTS:  # elsewhere, the tests above say the same with other means

    def test_a_read_only_file_system(filled: Path, quick: Path) -> None:
        path, target = copied(filled, quick / "docs"), quick / "elsewhere"

        def task() -> None:
            enter_namespace()
            mount_read_only(path)
            only_searched(path, target, "read-only")

        in_place(task)

    @pytest.mark.parametrize("when", ["after opening", "before opening"])
    def test_a_full_disk(filled: Path, quick: Path, when: str) -> None:
        """However little is left, and whatever it is too little for."""

        def task() -> None:
            enter_namespace()
            disk = quick / "disk"
            mount_small(disk, "1m")
            for spare in (0, 1, 2, 4, 6, 8, 10, 14, 18, 22, 26, 30, 34, 40, 50, 60):
                full(copied(filled, disk / "docs"), disk / "filler", spare * 4096, when)

        in_place(task)


def full(path: Path, filler: Path, spare: int, when: str) -> None:
    if when == "before opening":
        with Collection.open(path) as docs:
            before = state_of(docs)
        fill(filler, spare)
        try:
            docs = Collection.open(path)
        except StorageError as error:  # SQLite needs room for the file through which processes share the corpus
            assert spare <= 9 * 4096 and "disk is full" in str(error)
            filler.unlink()
            with Collection.open(path) as docs:
                works(docs, before)
            return
    else:
        docs = Collection.open(path)
        docs.search("everywhere")
        fill(filler, spare)
    with docs:
        before = state_of(docs)
        number = 200
        failed = None
        while failed is None:  # until it is really full
            try:
                docs.add([document(number + i, 0) for i in range(20)])
                before |= {str(number + i): 0 for i in range(20)}
                number += 20
            except StorageError as error:
                failed = error
        assert "disk is full" in str(failed) and not isinstance(failed, Corrupt), failed
        assert state_of(docs) == before
        filler.unlink()
        works(docs, before)
    assert not leftovers(path)


def fill(filler: Path, spare: int) -> None:
    """Leave some bytes of a disk free."""
    with open(filler, "wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)) == 4096:
                pass
        except OSError as error:
            assert error.errno == errno.ENOSPC
        file.truncate(max(file.tell() - spare, 0))


def test_a_read_only_directory_with_an_interrupted_change(filled: Path, quick: Path) -> None:
    """What a dead writer left behind stays there, and is seen by nobody."""
    for step in range(0, 60, 6):
        path = copied(filled, quick / "docs")
        with Collection.open(path) as docs:
            before = state_of(docs)
        assert killed_at(step + 8, lambda path=path: Collection.open(path).add(documents(CHANGE)))

        def task(path: Path = path, before: dict[str, int] = before) -> None:
            become_nobody()
            try:
                with Collection.open(path) as docs:
                    assert one_of(state_of(docs), [before, {**before, **CHANGE}])
            except StorageError as error:
                assert "not merged yet" in str(error) and "copy both" in str(error)

        for part in (path, *path.rglob("*")):
            part.chmod(stat.S_IMODE(part.stat().st_mode) & 0o555 | 0o444)
        try:
            in_place(task)
        finally:
            for part in (path, path / "files"):
                part.chmod(0o755)
        with Collection.open(path) as docs:
            assert one_of(state_of(docs), [before, {**before, **CHANGE}])
            docs.check()

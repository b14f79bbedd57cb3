"""The directory of a collection, and how it changes: one commit at a time, whole or not at all.

    DIR/manifest.json   what is committed: recipe, counts, checksums, and a generation number
    DIR/corpus.sqlite   the documents, each row stamped with the generations it was born and died in
    DIR/files/          the retriever's arrays, written once, named by their content
    DIR/.lock           held by the process that is writing

A change prepares generation g + 1 beside g - new arrays, new rows - and commits by renaming one manifest into place. Until
that moment every reader, in this process or another, sees g; whatever is left of an unfinished change is undone when the
directory is next opened for writing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from filelock import FileLock, Timeout

from .corpus import Corpus
from .errors import Corrupt, Locked, StorageError
from .protocols import Reading, Retriever, Updatable
from .states import States, View
from .storage import (
    MANIFEST,
    ArrayFiles,
    Manifest,
    describe,
    explained,
    file_names,
    read_manifest,
    recipe_of,
    write_file,
    write_manifest,
)
from .types import Document

CORPUS = "corpus.sqlite"
LOCK = ".lock"
PATIENCE = 1.0  # seconds to wait for another writer

_log = logging.getLogger("ragistry")


@dataclass
class _Locks:
    """Of one process: a lock held while another thread forks would stay locked in the child for ever."""

    file: FileLock
    writing: threading.RLock = field(default_factory=threading.RLock)
    reading: threading.Lock = field(default_factory=threading.Lock)


class Store(States):
    """A corpus, a retriever's arrays and the manifest that says which of them count.

    Args:
        path: A directory made by `make`.

    Raises:
        StorageError: If the directory is not a collection or cannot be read.
        Corrupt: If something in it is damaged, or its format is of another version.
    """

    corpus: Corpus

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.location = path, str(path)
        self.files = ArrayFiles(path / "files")
        self.writable = os.access(path, os.W_OK)
        self._locks: dict[int, _Locks] = {}
        self._view = self._read()
        if not (path / CORPUS).exists():
            raise Corrupt(
                f"{str(path)!r} has no {CORPUS}: it is a retriever saved alone, or damaged; open a collection, or restore "
                "this one from a copy"
            )
        self.corpus = Corpus(path / CORPUS, readonly=not self.writable)
        self._inode = (path / CORPUS).stat().st_ino
        if self.corpus.generation < self._view.manifest.generation:
            raise Corrupt(
                f"{str(path / CORPUS)!r} is older than {MANIFEST}, or the file {CORPUS}-wal is damaged or missing; restore "
                "the whole directory from a copy"
            )
        self._tidy()

    @staticmethod
    def make(path: Path, retriever: Retriever) -> None:
        """Write generation 0 to a directory that does not exist or is empty."""
        recipe = recipe_of(retriever)  # refuses one that takes no documents
        with _filling(path):
            files = ArrayFiles(path / "files")
            Corpus(path / CORPUS).close()
            write_manifest(
                path, describe(recipe, cast(Updatable, retriever).save(files), files, generation=0, documents=0)
            )

    def copy(self, target: Path) -> None:
        """Write the latest state to a directory that does not exist or is empty."""
        with self.writer() if self.writable else contextlib.nullcontext(), _filling(target):
            manifest = self.current().manifest
            (target / "files").mkdir()
            for name in manifest.files:
                self.files.get(name)
                write_file(target / "files" / name, (self.path / "files" / name).read_bytes())
            self.corpus.copy_to(target / CORPUS, at=manifest.generation)
            write_manifest(target, manifest)

    def check(self) -> None:
        """Read everything and compare it with its checksums."""
        read_manifest(self.path)
        fresh = ArrayFiles(self.path / "files")

        def count(view: View) -> tuple[int, int]:
            for name in view.manifest.files:
                fresh.get(name)
            return view.manifest.documents, self.corpus.count(at=view.manifest.generation)

        expected, found = self.read(count)
        self.corpus.check()
        if expected != found:
            raise Corrupt(f"{str(self.path)!r} should hold {expected} documents, {found} are there; restore it")

    def commit(
        self, view: View, retriever: Updatable, add: Sequence[Document], remove: Sequence[str], documents: int
    ) -> None:
        """Make the next generation: a retriever, documents to add and remove, and how many there are then."""
        generation = view.manifest.generation + 1
        if self.corpus.generation >= generation:
            self._recover(view.manifest)
        if isinstance(retriever, Reading):
            retriever = retriever.fork()  # what it shares with the view before goes on reading that one's texts
            self._bind(retriever, generation)
        try:
            state = retriever.save(self.files)
            manifest = describe(recipe_of(retriever), state, self.files, generation=generation, documents=documents)
            self.corpus.write(generation, add, remove)
            write_manifest(self.path, manifest)
        except BaseException:
            # Ctrl-C and full disks included. If even this fails, the next commit or opening does it.
            with contextlib.suppress(StorageError):
                if read_manifest(self.path).generation < generation:
                    self._undo(view.manifest)
            raise
        with self._of_process().reading:
            self._view = View(self._stamp(), manifest, retriever)
        self._clear(manifest)

    def _clear(self, manifest: Manifest) -> None:
        """Delete what only earlier generations used; what cannot be deleted now will be later."""
        with contextlib.suppress(StorageError):
            self.files.sweep(file_names(manifest.state))
            self.corpus.purge(manifest.generation - 1)

    def _undo(self, manifest: Manifest) -> str:
        rows = self.corpus.rollback(manifest.generation) if self.corpus.generation > manifest.generation else 0
        swept = [*self.files.sweep(file_names(manifest.state)), *self.path.glob(".*.part")]
        for part in self.path.glob(".*.part"):
            part.unlink(missing_ok=True)
        left = [f"{rows} document rows"] * bool(rows) + [f"{len(swept)} files"] * bool(swept)
        return " and ".join(left)

    def _recover(self, manifest: Manifest) -> None:
        """Undo what a writer that died left behind."""
        if left := self._undo(manifest):
            self.recovered = (
                f"an earlier writer was interrupted: {left} were cleared away; generation {manifest.generation} stands"
            )
            _log.warning("%s: %s", self.path, self.recovered)

    def _tidy(self) -> None:
        """Recover unless a living writer is at work. Where nothing can be written, searching is possible all the same."""
        if self.writable:
            try:
                with self.writer(wait=False):
                    self._recover(self.current().manifest)
            except Corrupt:
                raise
            except StorageError as error:
                _log.info("%s: nothing was tidied up: %s", self.path, error)

    @contextlib.contextmanager
    def writer(self, wait: bool = True) -> Iterator[None]:
        """Other threads wait; other processes are told."""
        locks = self._of_process()
        with locks.writing:
            if locks.file.is_locked:  # this thread already writes
                yield
            else:
                with _locked(locks.file, self.path, PATIENCE if wait else 0):
                    yield

    def _of_process(self) -> _Locks:
        return self._locks.get(os.getpid()) or self._locks.setdefault(os.getpid(), _Locks(_lock(self.path)))

    def _stamp(self) -> tuple[int, int]:
        with explained("open", self.path):
            try:
                found = (self.path / MANIFEST).stat()
            except (FileNotFoundError, NotADirectoryError):
                raise StorageError(
                    f"{str(self.path)!r} is not a collection (any more): it has no {MANIFEST}; create one with "
                    "Collection.create or `ragistry index`"
                ) from None
        return found.st_mtime_ns, found.st_ino

    def current(self) -> View:
        """The latest committed state, read again if another process has committed since."""
        if self._stamp() != self._view.stamp:
            with self._of_process().reading:
                if self._stamp() != self._view.stamp:
                    self._check_same()
                    self._view = self._read(self._view)
        return self._view

    def _check_same(self) -> None:
        """Refuse to read the manifest of one collection with the documents of another."""
        with explained("open", self.path / CORPUS):
            if (self.path / CORPUS).stat().st_ino != self._inode:
                raise StorageError(f"{str(self.path)!r} was replaced by another directory; open it again")

    def _read(self, before: View | None = None) -> View:
        while True:
            stamp = self._stamp()
            manifest = read_manifest(self.path)
            retriever = self.unloaded(manifest.recipe, before)
            try:
                retriever.load(manifest.state, self.files)
            except Corrupt:
                if self._stamp() == stamp:
                    raise
                continue  # a writer elsewhere committed and cleared away in between
            except (KeyError, TypeError, ValueError) as error:
                raise Corrupt(
                    f"{str(self.path / MANIFEST)!r} is damaged ({error!r}); restore it or index again"
                ) from None
            self.files.forget(file_names(manifest.state))
            return View(stamp, manifest, self._bind(retriever, manifest.generation))

    def sizes(self) -> dict[str, int]:
        """Bytes taken by the index and by the documents."""
        documents = sum(p.stat().st_size for p in self.path.glob(f"{CORPUS}*"))
        return {"index_bytes": sum(self.current().manifest.files.values()), "corpus_bytes": documents}

    def close(self) -> None:
        """Close the corpus."""
        self.corpus.close()


def _lock(path: Path) -> FileLock:
    return FileLock(path / LOCK, thread_local=False)


@contextlib.contextmanager
def _locked(lock: FileLock, path: Path, patience: float) -> Iterator[None]:
    try:
        with explained("write", path):
            try:
                lock.acquire(timeout=patience)
            except Timeout:
                raise Locked(
                    f"another writer is at work on {str(path)!r}; wait until it has finished and repeat "
                    "(searching is possible meanwhile)"
                ) from None
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _filling(path: Path) -> Iterator[None]:
    """Fill a directory that does not exist or is empty; if that fails, empty it again."""
    with explained("create", path):
        _check_vacant(path)
        path.mkdir(parents=True, exist_ok=True)
        with _locked(_lock(path), path, PATIENCE):
            _check_vacant(path)
            try:
                yield
            except BaseException:
                for part in path.iterdir():
                    if part.is_dir():
                        shutil.rmtree(part, ignore_errors=True)
                    elif part.name != LOCK:
                        part.unlink(missing_ok=True)
                raise


def _check_vacant(path: Path) -> None:
    if path.exists() and not (path.is_dir() and all(part.name == LOCK for part in path.iterdir())):
        what = "a collection" if (path / MANIFEST).exists() else "something else"
        raise StorageError(
            f"{str(path)!r} already holds {what}; open it with Collection.open, or choose another directory"
        )

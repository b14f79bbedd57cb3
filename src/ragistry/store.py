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
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from .corpus import Corpus
from .errors import Corrupt, InvalidInput, Locked, StorageError
from .protocols import Retriever, Updatable
from .registry import create
from .storage import (
    MANIFEST,
    ArrayFiles,
    Manifest,
    describe,
    explained,
    file_names,
    read_manifest,
    recipe_of,
    write_manifest,
)
from .types import Document

_log = logging.getLogger("ragistry")


@dataclass(frozen=True, slots=True)
class View:
    """One committed state: everything a search needs, never changed."""

    stamp: tuple[int, int]
    manifest: Manifest
    retriever: Updatable


class Store:
    """A corpus, a retriever's arrays and the manifest that says which of them count.

    Args:
        path: A directory made by `make`.

    Raises:
        StorageError: If the directory is not a collection or cannot be read.
        Corrupt: If something in it is damaged, or its format is of another version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recovered = ""
        self.files = ArrayFiles(path / "files")
        self._writing = threading.RLock()
        self._reading = threading.Lock()
        self._lock = FileLock(path / ".lock", thread_local=False)
        self._view = self._read()
        self.corpus = Corpus(path / "corpus.sqlite", readonly=not os.access(path, os.W_OK))
        self._recover()

    @staticmethod
    def make(path: Path, retriever: Retriever) -> None:
        """Write generation 0 to a directory that does not exist or is empty."""
        recipe = recipe_of(retriever)
        if not isinstance(retriever, Updatable):
            raise InvalidInput(f"{type(retriever).__name__} takes no documents, so a collection cannot keep it")
        with explained("create", path):
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                what = "a collection" if (path / MANIFEST).exists() else "something else"
                raise StorageError(
                    f"{str(path)!r} already holds {what}; open it with Collection.open, or choose another directory"
                )
            path.mkdir(parents=True, exist_ok=True)
        files = ArrayFiles(path / "files")
        Corpus(path / "corpus.sqlite").close()
        write_manifest(path, describe(recipe, retriever.save(files), files, generation=0, documents=0))

    def commit(
        self, view: View, retriever: Updatable, add: Sequence[Document], remove: Sequence[str], documents: int
    ) -> None:
        """Make the next generation: a retriever, documents to add and remove, and how many there are then."""
        generation = view.manifest.generation + 1
        try:
            state = retriever.save(self.files)
            manifest = describe(recipe_of(retriever), state, self.files, generation=generation, documents=documents)
            self.corpus.write(generation, add, remove)
            write_manifest(self.path, manifest)
        except BaseException:
            # Ctrl-C and full disks included. If even this fails, the next opening does it.
            with contextlib.suppress(StorageError):
                if read_manifest(self.path).generation < generation:
                    self._undo(view.manifest)
            raise
        with self._reading:
            self._view = View(self._stamp(), manifest, retriever)
        self._clear(manifest)

    def _clear(self, manifest: Manifest) -> None:
        """Delete what only earlier generations used; what cannot be deleted now will be later."""
        with contextlib.suppress(StorageError):
            self.files.sweep(file_names(manifest.state))
            self.corpus.purge(manifest.generation - 1)

    def _undo(self, manifest: Manifest) -> str:
        rows = self.corpus.rollback(manifest.generation)
        swept = self.files.sweep(file_names(manifest.state))
        for part in self.path.glob(".*.part"):
            part.unlink(missing_ok=True)
        left = [f"{rows} document rows"] * bool(rows) + [f"{len(swept)} files"] * bool(swept)
        return " and ".join(left)

    def _recover(self) -> None:
        """Undo what a writer that died left behind, unless a living one is at work or the directory is read-only."""
        if not os.access(self.path, os.W_OK):
            return
        try:
            with self.writer(wait=False):
                left = self._undo(self.current().manifest)
        except StorageError:
            return
        if left:
            self.recovered = f"an earlier writer was interrupted: {left} were undone; generation {self._view.manifest.generation} stands"
            _log.warning("%s: %s", self.path, self.recovered)

    @contextlib.contextmanager
    def writer(self, wait: bool = True) -> Iterator[None]:
        """Other threads wait; other processes are told."""
        with self._writing:
            if self._lock.is_locked:  # this thread already writes
                yield
                return
            with explained("write", self.path):
                try:
                    self._lock.acquire(timeout=1.0 if wait else 0)
                except Timeout:
                    raise Locked(
                        f"another writer is at work on {str(self.path)!r}; wait until it has finished and repeat "
                        "(searching is possible meanwhile)"
                    ) from None
            try:
                yield
            finally:
                self._lock.release()

    def _stamp(self) -> tuple[int, int]:
        try:
            found = (self.path / MANIFEST).stat()
        except FileNotFoundError:
            raise StorageError(f"{str(self.path)!r} is not a collection (any more): it has no {MANIFEST}") from None
        return found.st_mtime_ns, found.st_ino

    def current(self) -> View:
        """The latest committed state, read again if another process has committed since."""
        if self._stamp() != self._view.stamp:
            with self._reading:
                if self._stamp() != self._view.stamp:
                    self._view = self._read(self._view)
        return self._view

    def _read(self, before: View | None = None) -> View:
        while True:
            stamp = self._stamp()
            manifest = read_manifest(self.path)
            if before is not None and before.manifest.recipe == manifest.recipe:
                retriever: Retriever = before.retriever.fork()  # keeps a loaded model
            else:
                retriever = create(manifest.recipe)
            if not isinstance(retriever, Updatable):
                raise Corrupt(f"{str(self.path)!r} names a retriever that a collection cannot keep")
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
            return View(stamp, manifest, retriever)

    def close(self) -> None:
        """Close the corpus."""
        self.corpus.close()

"""A corpus and a retriever kept together in one directory: what applications hold.

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
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .corpus import Change, Corpus
from .errors import Corrupt, InvalidInput, Locked, StorageError
from .protocols import Retriever, Updatable
from .registry import Recipe, create
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
from .types import Document, Hit, Query

BATCH = 4096
"""Documents per commit when many are added."""

_FILTERS_KEPT = 32
_log = logging.getLogger("ragistry")


@dataclass(frozen=True, slots=True)
class View:
    """One committed state: everything a search needs, never changed."""

    stamp: tuple[int, int]
    manifest: Manifest
    retriever: Updatable


class Collection:
    """Documents and a retriever over them, on disk. Make one with `create`, open one with `open`.

    Any number of threads and processes may search while one writes; each answer belongs to one committed state. A second
    writer in the same process waits, one in another process gets `Locked`.

    Attributes:
        path: The directory.
        recovered: What was undone when the directory was opened, "" if nothing was left over.
    """

    path: Path
    recovered: str

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.recovered = ""
        self._files = ArrayFiles(self.path / "files")
        self._filters: OrderedDict[tuple[int, str], frozenset[str]] = OrderedDict()
        self._writing = threading.RLock()
        self._reading = threading.Lock()
        self._lock = FileLock(self.path / ".lock", thread_local=False)
        self._view = self._read()
        self._corpus = Corpus(self.path / "corpus.sqlite", readonly=not os.access(self.path, os.W_OK))
        self._recover()

    @classmethod
    def create(cls, path: str | os.PathLike[str], retriever: Retriever) -> Collection:
        """Make a directory for documents and a retriever.

        Args:
            path: A directory that does not exist yet, or is empty.
            retriever: Made by `ragistry.create`; not shared with another collection.

        Raises:
            StorageError: If there is something there already, or the directory cannot be written.
            InvalidInput: If the retriever cannot be kept: not made by `create`, or takes no documents.

        Example:
            >>> import tempfile
            >>> from ragistry import create
            >>> docs = Collection.create(tempfile.mkdtemp() + "/docs", create("bm25"))
            >>> docs.add([Document("1", "Fourteen lines.", metadata={"year": 1609})]).added
            1
            >>> [(hit.id, hit.text) for hit in docs.search("lines", where={"year": {"lt": 1700}})]
            [('1', 'Fourteen lines.')]
        """
        directory = Path(path)
        recipe = recipe_of(retriever)
        if not isinstance(retriever, Updatable):
            raise InvalidInput(f"{type(retriever).__name__} takes no documents, so a collection cannot keep it")
        with explained("create", directory):
            if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
                what = "a collection" if (directory / MANIFEST).exists() else "something else"
                raise StorageError(
                    f"{str(directory)!r} already holds {what}; open it with Collection.open, or choose another directory"
                )
            directory.mkdir(parents=True, exist_ok=True)
        files = ArrayFiles(directory / "files")
        Corpus(directory / "corpus.sqlite").close()
        write_manifest(directory, describe(recipe, retriever.save(files), files, generation=0, documents=0))
        return cls(directory)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Collection:
        """Open a collection, undoing what an interrupted writer left behind (see `recovered`).

        Raises:
            StorageError: If the directory is not a collection or cannot be read.
            Corrupt: If something in it is damaged, or its format is of another version.
        """
        return cls(path)

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe of the collection's retriever."""
        return dict(self._view.manifest.recipe)

    def __len__(self) -> int:
        return self._current().manifest.documents

    def __enter__(self) -> Collection:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files. Everything committed is already on disk."""
        self._corpus.close()

    def add(
        self,
        documents: Document | Iterable[Document],
        *,
        batch: int = BATCH,
        progress: Callable[[int], None] | None = None,
    ) -> Change:
        """Insert documents; one whose id is already there is replaced, one that has not changed is passed over.

        Any iterable is streamed in bounded memory. Every `batch` documents are committed together: an error, an
        interruption or a crash loses at most the batch it happened in.

        Args:
            documents: One document or many.
            batch: Documents per commit.
            progress: Called after each commit with the number of documents it dealt with.

        Returns:
            How many were added, replaced and unchanged, and how many of the added have the text of another document.

        Raises:
            InvalidInput: If an id is given twice within a batch, or a document cannot be stored; its batch is not added.
            Locked: If another process is writing.
            StorageError: If the disk is full or cannot be written.
        """
        if isinstance(documents, Document):
            documents = [documents]
        if batch < 1:
            raise InvalidInput(f"batch={batch}: at least 1 document per commit is needed")
        total = Change()
        source = iter(documents)
        with self._writer():
            while some := list(islice(source, batch)):
                total += self._add(some)
                if progress is not None:
                    progress(len(some))
        return total

    def remove(self, ids: str | Iterable[str]) -> int:
        """Take documents out and return how many there were; ids that are not there are passed over.

        Raises:
            Locked: If another process is writing.
            StorageError: If the disk is full or cannot be written.
        """
        wanted = [ids] if isinstance(ids, str) else list(dict.fromkeys(ids))
        with self._writer():
            view = self._current()
            gone = list(self._corpus.digests(wanted, at=view.manifest.generation))
            if gone:
                retriever = view.retriever.fork()
                retriever.remove(gone)
                self._commit(view, retriever, [], gone, view.manifest.documents - len(gone))
        return len(gone)

    def search(self, query: Query, k: int = 10, *, where: Mapping[str, Any] | None = None) -> list[Hit]:
        """The best `k` documents for a query, among those whose metadata passes the filter.

        Args:
            query: What is asked.
            k: How many hits at most.
            where: A filter on metadata (see `ragistry.corpus`), applied before ranking.

        Raises:
            InvalidInput: If the query is not text or the filter is not one.
            Corrupt: If a stored document or array fails its checksum.

        Example:
            See `create`.
        """
        return self.search_many([query], k, where=where)[0]

    def search_many(
        self, queries: Sequence[Query], k: int = 10, *, where: Mapping[str, Any] | None = None
    ) -> list[list[Hit]]:
        """`search` for several queries at once, which is faster than one by one."""
        for query in queries:
            if not isinstance(query, str):
                raise InvalidInput(f"a query is {type(query).__name__}, a str is needed")
        while True:
            view = self._current()
            generation = view.manifest.generation
            among = None if not where else self._among(where, generation)
            rankings = view.retriever.search(queries, max(k, 0), among=among)
            found = self._corpus.find([value for ranking in rankings for value in ranking.ids], at=generation)
            # Rows of one generation back are kept; if writers are further ahead, some may have been cleared away: look again.
            if self._current().manifest.generation > generation + 1:
                continue
            try:
                return [
                    [Hit(i, score, found[i].text, found[i].title, found[i].metadata) for i, score in ranking]
                    for ranking in rankings
                ]
            except KeyError as missing:
                raise Corrupt(
                    f"{str(self.path)!r}: the index names the document {missing} that the corpus does not hold; restore the "
                    "collection from a copy, or index again"
                ) from None

    def documents(self, where: Mapping[str, Any] | None = None) -> Iterator[Document]:
        """The documents, in the order they were added."""
        return self._corpus.documents(at=self._current().manifest.generation, where=where)

    def get(self, ids: Sequence[str]) -> list[Document]:
        """Documents by id, in the order asked.

        Raises:
            UnknownName: If an id is not there.
        """
        return self._corpus.get(ids, at=self._current().manifest.generation)

    def duplicates(self) -> list[tuple[str, ...]]:
        """Groups of ids whose documents have exactly the same title and text."""
        return self._corpus.duplicates(at=self._current().manifest.generation)

    def retriever(self) -> Retriever:
        """The retriever of the latest committed state, for searching without fetching documents."""
        return self._current().retriever

    def info(self) -> dict[str, Any]:
        """What the collection holds: counts, sizes in bytes, recipe, versions."""
        view = self._current()
        manifest = view.manifest
        corpus = sum(p.stat().st_size for p in self.path.glob("corpus.sqlite*"))
        return {
            "path": str(self.path),
            "documents": manifest.documents,
            "retriever": manifest.recipe["name"],
            "recipe": manifest.recipe,
            "index_bytes": sum(manifest.files.values()),
            "corpus_bytes": corpus,
            "generation": manifest.generation,
            "format": manifest.format,
            "version": manifest.version,
            "fingerprint": manifest.fingerprint,
            "duplicates": len(self.duplicates()),
            "recovered": self.recovered,
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Copy the latest committed state to another directory, which must not exist or be empty.

        Raises:
            StorageError: If there is something there already, or it cannot be written.
        """
        target = Path(path)
        with self._writer(), explained("create", target):
            view = self._current()
            if target.exists() and (not target.is_dir() or any(target.iterdir())):
                raise StorageError(f"{str(target)!r} already holds something; choose another directory")
            (target / "files").mkdir(parents=True)
            for name in view.manifest.files:
                shutil.copyfile(self.path / "files" / name, target / "files" / name)
            self._corpus.copy_to(target / "corpus.sqlite", at=view.manifest.generation)
            write_manifest(target, view.manifest)

    def check(self) -> None:
        """Read everything and compare it with its checksums.

        Raises:
            Corrupt: If something is damaged; the message names it.
        """
        manifest = read_manifest(self.path)
        fresh = ArrayFiles(self.path / "files")
        for name in manifest.files:
            fresh.get(name)
        self._corpus.check()
        counted = self._corpus.count(at=manifest.generation)
        if counted != manifest.documents:
            raise Corrupt(f"{str(self.path)!r} should hold {manifest.documents} documents, {counted} are there; restore it")

    def evaluate(
        self,
        queries: Any,
        qrels: Any,
        measures: Sequence[str] = ("nDCG@10", "R@100"),
        *,
        progress: Callable[[int], None] | None = None,
    ) -> Any:
        """Measure the collection on queries with known answers.

        Args:
            queries: A file (BEIR, TREC, CSV) or query texts by id.
            qrels: A file or, by query id, relevance by document id.
            measures: Names as in ir_measures.
            progress: Called with the number of queries answered since the last call.

        Returns:
            A `ragistry.evaluation.Evaluation`: means, a table per query, and the rankings.
        """
        from .evaluation.evaluate import evaluate
        from .evaluation.files import read_qrels, read_queries

        asked = queries if isinstance(queries, Mapping) else read_queries(queries)
        judged = qrels if isinstance(qrels, Mapping) else read_qrels(qrels)
        name = str(self._view.manifest.recipe["name"])
        return evaluate(self.retriever(), asked, judged, measures, name=name, progress=progress)

    def fit(self, pairs: Any, *, measure: str = "nDCG@10", progress: Callable[[int], None] | None = None) -> Any:
        """Learn from pairs of query text and document id; what does not help is not kept.

        Args:
            pairs: A file (JSONL, TSV, CSV) or an iterable of (query, document id).
            measure: What to improve.
            progress: Called after each candidate with how many were measured.

        Returns:
            A `ragistry.evaluation.selection.Fit`: base, fitted and headroom side by side, and whether it was kept.

        Raises:
            InvalidInput: If the pairs name no document of the collection, or are too few.
        """
        from .evaluation.files import pairs_of
        from .evaluation.selection import select

        with self._writer():
            view = self._current()
            given = pairs_of(pairs)
            known = set(self._corpus.digests(list({p.document_id for p in given}), at=view.manifest.generation))
            recipe: Recipe = view.retriever.recipe
            result = select(given, known, recipe, view.retriever, measure=measure, progress=progress)
            if result.kept:
                retriever = create(result.recipe)
                if not isinstance(retriever, Updatable):
                    raise InvalidInput(f"the recipe {result.recipe.name!r} builds a retriever that takes no documents")
                retriever.load(view.manifest.state, self._files)
                self._commit(view, retriever, [], [], view.manifest.documents)
        return result

    def _add(self, documents: Sequence[Document]) -> Change:
        view = self._current()
        generation = view.manifest.generation
        change, changed, retrieved = self._corpus.compare(documents, at=generation)
        if changed:
            retriever = view.retriever.fork()
            retriever.add(retrieved)
            self._commit(view, retriever, changed, [], view.manifest.documents + change.added)
        return change

    def _commit(
        self, view: View, retriever: Updatable, add: Sequence[Document], remove: Sequence[str], documents: int
    ) -> None:
        generation = view.manifest.generation + 1
        try:
            state = retriever.save(self._files)
            manifest = describe(
                recipe_of(retriever), state, self._files, generation=generation, documents=documents
            )
            self._corpus.write(generation, add, remove)
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
            self._files.sweep(file_names(manifest.state))
            self._corpus.purge(manifest.generation - 1)

    def _undo(self, manifest: Manifest) -> str:
        rows = self._corpus.rollback(manifest.generation)
        swept = self._files.sweep(file_names(manifest.state))
        for part in self.path.glob(".*.part"):
            part.unlink(missing_ok=True)
        left = [f"{rows} document rows"] * bool(rows) + [f"{len(swept)} files"] * bool(swept)
        return " and ".join(left)

    def _recover(self) -> None:
        """Undo what a writer that died left behind, unless a living one is at work or the directory is read-only."""
        if not os.access(self.path, os.W_OK):
            return
        try:
            with self._writer(wait=False):
                left = self._undo(self._current().manifest)
        except StorageError:
            return
        if left:
            self.recovered = (
                f"an earlier writer was interrupted: {left} were undone; generation {self._view.manifest.generation} stands"
            )
            _log.warning("%s: %s", self.path, self.recovered)

    @contextlib.contextmanager
    def _writer(self, wait: bool = True) -> Iterator[None]:
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
                        f"another writer is at work on {str(self.path)!r}; wait until it has finished and repeat (searching is "
                        "possible meanwhile)"
                    ) from None
            try:
                yield
            finally:
                self._lock.release()

    def _stamp(self) -> tuple[int, int]:
        try:
            found = os.stat(self.path / MANIFEST)
        except FileNotFoundError:
            raise StorageError(f"{str(self.path)!r} is not a collection (any more): it has no {MANIFEST}") from None
        return found.st_mtime_ns, found.st_ino

    def _current(self) -> View:
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
                retriever.load(manifest.state, self._files)
            except Corrupt:
                if self._stamp() == stamp:
                    raise
                continue  # a writer elsewhere committed and cleared away in between
            except (KeyError, TypeError, ValueError) as error:
                raise Corrupt(f"{str(self.path / MANIFEST)!r} is damaged ({error!r}); restore it or index again") from None
            return View(stamp, manifest, retriever)

    def _among(self, where: Mapping[str, Any], generation: int) -> frozenset[str]:
        key = generation, repr(where)
        known = self._filters.get(key)
        if known is None:
            known = frozenset(self._corpus.ids(where, at=generation))
            with self._reading:
                self._filters[key] = known
                while len(self._filters) > _FILTERS_KEPT:
                    self._filters.popitem(last=False)
        return known

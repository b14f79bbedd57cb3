"""A corpus and a retriever kept together in one directory: what applications hold."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from .corpus import Change, digest
from .engines import copied, make_at, store_at
from .errors import Corrupt, InvalidInput
from .indexes.recall import measured
from .protocols import Retriever
from .registry import Lesson
from .retrievers.asking import check_search, whole
from .rows import checked_ids
from .states import View
from .store import Store
from .types import Among, Document, Hit, Query, Ranking, check_text


class Collection:
    """Documents and a retriever over them, on disk. Make one with `create`, open one with `open`.

    Any number of threads and processes may search while one writes; each answer belongs to one committed state. A second
    thread that writes waits its turn; a second `Collection` of the same directory, in any process, gets `Locked`.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._given = path
        self._store = store_at(path)
        self._corpus = self._store.corpus

    @property
    def location(self) -> str:
        """The directory, or the address without its password."""
        return self._store.location

    @property
    def path(self) -> Path:
        """The directory; a collection that a database keeps has none, which is an `InvalidInput`."""
        if not isinstance(self._store, Store):
            raise InvalidInput(f"{self.location!r} is kept by a database and has no directory; use `location`")
        return self._store.path

    @property
    def recovered(self) -> str:
        """What an interrupted writer had left behind and was undone, at opening or since; "" for nothing."""
        return self._store.recovered

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
        make_at(path, retriever)
        return cls(path)

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
        return dict(self._store.current().manifest.recipe)

    def __len__(self) -> int:
        return self._store.current().manifest.documents

    def __enter__(self) -> Collection:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files. Everything committed is already on disk."""
        self._store.close()

    def add(
        self,
        documents: Document | Iterable[Document],
        *,
        batch: int | None = None,
        workers: int | str = 1,
        progress: Callable[[int], None] | None = None,
    ) -> Change:
        """Insert documents; one whose id is already there is replaced, one that has not changed is passed over.

        Any iterable is streamed in bounded memory. Every `batch` documents are committed together: an error, an
        interruption or a crash loses at most the batch it happened in.

        Args:
            documents: One document or many.
            batch: Documents per commit, and per worker if there are several; by default what suits the retriever.
            workers: How many processes encode the documents; or "ray", for a cluster that is found or begun, or the address
                of one, "ray://host:port". See `ragistry.spreading`.
            progress: Called after each commit with the number of documents it dealt with.

        Returns:
            How many were added, replaced and unchanged, and how many of the added have the text of another document.

        Raises:
            InvalidInput: If an id is given twice within a batch, or a document cannot be stored; its batch is not added.
            RagistryError: If a worker dies; its batch is not added.
            Locked: If another process is writing.
            StorageError: If the disk is full or cannot be written.
        """
        from .spreading import spread

        documents = [documents] if isinstance(documents, Document) else documents
        if not isinstance(documents, Iterable):
            raise InvalidInput(f"{documents!r:.100} is {type(documents).__name__}; give Documents or an iterable")
        recipe = self._store.current().retriever.recipe
        batch = recipe.batch if batch is None else batch
        if whole("batch", batch) < 1:
            raise InvalidInput(f"batch={batch}: at least 1 document per commit is needed")
        total = Change(0, 0, 0, 0)
        source = iter(documents)
        with self._store.writer(), spread(workers, batch, self.recipe, self._given) as several:
            while some := list(islice(source, batch * several)):
                total = Change(*(a + b for a, b in zip(total, self._add(some), strict=True)))
                if progress is not None:
                    progress(len(some))
        return total

    def remove(self, ids: str | Iterable[str]) -> int:
        """Take documents out and return how many there were; ids that are not there are passed over.

        Raises:
            Locked: If another process is writing.
            StorageError: If the disk is full or cannot be written.
        """
        wanted = list(dict.fromkeys(checked_ids([ids] if isinstance(ids, str) else ids)))
        with self._store.writer():
            view = self._store.current()
            gone = list(self._corpus.digests(wanted, at=view.manifest.generation))
            if gone:
                retriever = view.retriever.fork()
                retriever.remove(gone)
                self._store.commit(view, retriever, [], gone, view.manifest.documents - len(gone))
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
        """
        return self.search_many([query], k, where=where)[0]

    def search_many(
        self, queries: Sequence[Query], k: int = 10, *, where: Mapping[str, Any] | None = None
    ) -> list[list[Hit]]:
        """`search` for several queries at once, which is faster than one by one."""
        check_search(queries, k, None)
        for query in queries:
            check_text(query, "the query")
        return self._asked(lambda view, among: view.retriever.search(queries, max(k, 0), among=among), where)

    def search_vectors(self, vectors: Any, k: int = 10, *, where: Mapping[str, Any] | None = None) -> list[list[Hit]]:
        """The best `k` documents for vectors of queries, array [n, d], as the collection's encoder made them, untaught.

        Raises:
            InvalidInput: If the retriever needs queries' texts (see `Searcher.takes_vectors`), or these are no such vectors.
        """

        def ask(view: View, among: Among) -> list[Ranking]:
            if not getattr(view.retriever, "takes_vectors", False):
                name = view.manifest.recipe["name"]
                raise InvalidInput(f"the retriever {name!r} reads the texts of queries, vectors do not do; give texts")
            return view.retriever.search_vectors(vectors, k, among=among)  # type: ignore[no-any-return,attr-defined]

        return self._asked(ask, where)

    def documents(self, where: Mapping[str, Any] | None = None) -> Iterator[Document]:
        """The documents, in the order they were added: all of one state, the latest when the first one is taken.

        Raises:
            Corrupt: If a stored document fails its checksum or, without a filter, if one is missing.
        """

        def begin(view: View) -> tuple[int, Iterator[Document]]:
            found = self._corpus.documents(at=view.manifest.generation, where=where)
            return view.manifest.documents, chain(list(islice(found, 1)), found)

        expected, found = self._store.read(begin)
        count = 0
        for document in found:
            yield document
            count += 1
        if not where and count != expected:
            raise Corrupt(
                f"{self.location!r} should hold {expected} documents, {count} are there; restore it from a copy, or index "
                "again"
            )

    def get(self, ids: Sequence[str]) -> list[Document]:
        """Documents by id, in the order asked.

        Raises:
            UnknownName: If an id is not there.
        """
        return self._store.read(lambda view: self._corpus.get(ids, at=view.manifest.generation))

    def duplicates(self) -> list[tuple[str, ...]]:
        """Groups of ids whose documents have exactly the same title and text."""
        return self._store.read(lambda view: self._corpus.duplicates(at=view.manifest.generation))

    def retriever(self) -> Retriever:
        """The retriever of the latest committed state. One that reads texts can do so until two more are committed."""
        return self._store.current().retriever

    def info(self) -> dict[str, Any]:
        """What the collection holds: counts, sizes in bytes, recipe, versions."""
        manifest = self._store.current().manifest
        return {
            "path": self.location,
            "documents": manifest.documents,
            "retriever": manifest.recipe["name"],
            "recipe": manifest.recipe,
            **self._store.sizes(),
            "generation": manifest.generation,
            "format": manifest.format,
            "version": manifest.version,
            "fingerprint": manifest.fingerprint,
            "recall": measured(manifest.state),
            "duplicates": len(self.duplicates()),
            "recovered": self.recovered,
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Copy the latest committed state to another directory, which must not exist or be empty, or a database.

        Raises:
            StorageError: If there is something there already, or it cannot be written; what was copied is removed.
            Locked: If another process is writing.
        """
        copied(self._store, path)

    def check(self) -> None:
        """Read everything and compare it with its checksums.

        Raises:
            Corrupt: If something is damaged; the message names it.
        """
        self._store.check()

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
            progress: Called after each batch with the number of queries answered so far.

        Returns:
            A `ragistry.evaluation.Evaluation`: means, a table per query, and the rankings.

        Raises:
            InvalidInput: If no judged document is in the collection, or something cannot be read.
        """
        from .evaluation.evaluate import evaluate
        from .evaluation.files import read_qrels, read_queries

        asked = queries if isinstance(queries, Mapping) else read_queries(queries)
        judged = qrels if isinstance(qrels, Mapping) else read_qrels(qrels)
        ids = set().union(*judged.values())

        def ask(view: View) -> Any:
            if ids and not self._corpus.digests(ids, at=view.manifest.generation):
                raise InvalidInput(
                    f"none of the {len(ids)} judged documents is in the collection, such as {min(ids)!r}; judge its own ids"
                )
            name = str(view.manifest.recipe["name"])
            return evaluate(view.retriever, asked, judged, measures, name=name, progress=progress)

        return self._store.read(ask)

    def fit(
        self,
        pairs: Any,
        *,
        measure: str = "nDCG@10",
        goal: str = "balanced",
        progress: Callable[[int], None] | None = None,
    ) -> Any:
        """Learn from queries with documents that answer them; what does not help is not kept. Every fit starts anew.

        Args:
            pairs: A file (JSONL, TSV, CSV), a directory in BEIR's layout, (query, document id) or (query, document id,
                relevance) in any iterable, or a mapping from query to ids.
            measure: What to improve.
            goal: For retrievers that learn from pairs: whether new queries to documents with examples are to gain (`seen`),
                those to documents without (`unseen`), or both, and the latter must not lose (`balanced`).
            progress: Called with 1 after each thing tried.

        Returns:
            A `ragistry.evaluation.selection.Fit`: base, fitted and headroom side by side, and whether it was kept.

        Raises:
            InvalidInput: If the pairs name no document of the collection, are too few, or contradict each other.
        """
        from .training.examples import examples_of, judgements
        from .training.fitting import fitted

        judged = judgements(examples_of(pairs))
        with self._store.writer():
            view = self._store.current()
            at = view.manifest.generation
            known = self._corpus.digests(set().union(*judged.values()), at=at)

            lesson = Lesson(measure, goal, progress=progress, documents=lambda ids: self._corpus.get(ids, at))
            ids = self._corpus.ids(at=at)
            retriever, result = fitted(view.retriever, judged, known, ids, lesson)
            if result.kept:
                retriever = retriever or self._store.rebuilt(view, result.recipe)
                self._store.commit(view, retriever, [], [], view.manifest.documents)
        return result

    def _add(self, documents: Sequence[Document]) -> Change:
        view = self._store.current()
        at = view.manifest.generation
        digests = [digest(document) for document in documents]  # refuses what is no document
        ids = [document.id for document in documents]
        if len(set(ids)) != len(ids):
            twice = Counter(ids).most_common(1)[0][0]
            raise InvalidInput(f"the id {twice!r} is given twice; ids must be unique, so keep one of its documents")
        stored = self._corpus.digests(ids, at=at)
        changed = [d for d, found in zip(documents, digests, strict=True) if stored.get(d.id) != found]
        if not changed:
            return Change(0, 0, len(documents), 0)
        before = self._corpus.digests([d.id for d in changed if d.id in stored], at=at, content=True)
        contents = {document.id: digest(document, content=True) for document in changed}
        # Where only metadata changed, most retrievers have nothing to learn.
        news = [document for document in changed if before.get(document.id) != contents[document.id]]
        told = changed if getattr(view.retriever, "reads_metadata", False) else news
        holders = self._corpus.holders({contents[document.id] for document in told}, at=at)
        same = {d.id: holders[contents[d.id]] for d in told if contents[d.id] in holders}
        retriever = view.retriever.fork()
        retriever.add(told, same=same)
        added = len(changed) - len(before)
        self._store.commit(view, retriever, changed, [], view.manifest.documents + added)
        repeated = len(news) - len({contents[d.id] for d in news} - set(holders))
        return Change(added, len(before), len(documents) - len(changed), repeated)

    def _asked(self, ask: Callable[[View, Among], list[Ranking]], where: Mapping[str, Any] | None) -> list[list[Hit]]:
        def found(view: View) -> list[list[Hit]]:
            at = view.manifest.generation
            rankings = ask(view, None if not where else self._store.among(where, at))
            named = self._store.named({id for ranking in rankings for id in ranking.ids}, at)
            return [
                [Hit(i, score, named[i].text, named[i].title, named[i].metadata) for i, score in ranking]
                for ranking in rankings
            ]

        return self._store.read(found)

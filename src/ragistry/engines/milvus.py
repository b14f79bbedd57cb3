"""A collection kept by Milvus: documents, dense vectors and what was learnt, in a few collections of a server.

    objects    one row for each of the last generations, the writer's mark, arrays and manifests in pieces (`milvus_files`)
    documents  the documents (`milvus_documents`)
    place_p    the vectors of an index (`milvus_places`)

Milvus has no transactions. A commit appends rows that no reader looks at yet, and then the one row that makes them count; so
a document and its vectors appear together or not at all, and what is committed is what the server has acknowledged. What a
writer that died had begun is deleted by the next one. See `milvus_lease` for how writers are kept apart.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from pydantic import ValidationError

from ..errors import Corrupt, InvalidInput, StorageError
from ..protocols import Index, Retriever, State, Updatable
from ..rows import checked_generation
from ..states import States, View
from ..storage import ArrayFiles, Manifest, describe, file_names, recipe_of
from ..types import Document
from .arrays import places_in
from .milvus_documents import NAME as DOCUMENTS
from .milvus_documents import Table, changed, check_ids
from .milvus_files import NAME as OBJECTS
from .milvus_files import Arrays, Latest, Objects, state_name
from .milvus_lease import Lease
from .milvus_log import Log
from .milvus_places import PREFIX, Dense, Places
from .milvus_server import Server
from .placed import Placed, housed, indexes, is_dense

RECOVERY = 10.0
"""Seconds for which a collection that seems to be empty is asked again."""
_KEPT = 64  # generations of which is known what they hold


class _Contents(NamedTuple):
    """What a generation's file says: besides the manifest, the rows of its documents and their bytes, files that only the
    generation before uses, with their sizes, and when indexes fell out of use.
    """

    manifest: Manifest
    documents: State
    size: int
    unused: dict[str, int]
    left: dict[str, float]

    def encoded(self) -> bytes:
        content = self._asdict() | {"manifest": self.manifest.model_dump()}
        return json.dumps(content, ensure_ascii=True, sort_keys=True).encode()

    @classmethod
    def decoded(cls, content: bytes) -> _Contents:
        held = json.loads(content)
        return cls(**held | {"manifest": Manifest.model_validate(held["manifest"])})


@dataclass
class _Locks:
    """Of one process: a lock held while another thread forks would stay locked in the child for ever."""

    writing: threading.RLock = field(default_factory=threading.RLock)
    reading: threading.Lock = field(default_factory=threading.Lock)
    lease: Lease | None = None
    clean: bool = False  # nothing uncommitted is left in the database


class Milvus(States):
    """Committed states in a Milvus server or a file of Milvus Lite.

    Args:
        address: See `Server`.

    Raises:
        StorageError: If the server cannot be reached, or holds no such collection.
        Corrupt: If what it holds is damaged, or of another version.
    """

    corpus: Table
    files: Arrays

    def __init__(self, address: str) -> None:
        super().__init__()
        self.server = Server(address)
        self.location = self.server.location
        self._objects = Objects(self.server)
        self.places = Places(self.server, self._objects)
        self.corpus, self.files = Table(self.server, self._log), Arrays(self._objects)
        self._locks: dict[int, _Locks] = {}
        self._logs: dict[int, Log] = {}
        try:
            if not _there(self.server):
                raise StorageError(
                    f"{self.location!r} is not a collection; create one with Collection.create or `ragistry index`"
                )
            self._latest, self._contents, self._view = self._read(None)
        except BaseException:
            self.server.close()
            raise

    @classmethod
    def make(cls, address: str, retriever: Retriever) -> None:
        """Write generation 0 where there is no collection of this name."""
        recipe = recipe_of(retriever)  # refuses one that takes no documents
        with contextlib.closing(Server(address)) as server:
            objects = Objects(server)
            if _there(server):
                raise StorageError(
                    f"{server.location!r} already holds a collection; open it with Collection.open, or choose another name"
                )
            objects.make()
            log = Table.make(server)
            empty, files = cast(Updatable, retriever).fork(), Arrays(objects).at(0, 0, ())
            housed(empty, house(Places(server, objects)))
            manifest = describe(recipe, empty.save(files), files, generation=0, documents=0)
            name, stamp = _written(objects, _Contents(manifest, log.state(), 0, {}, {}))
            objects.commit(Latest(0, name, max(stamp, files.stamp), 0))

    @classmethod
    def exists(cls, address: str) -> bool:
        """Whether there is a collection of this name."""
        with contextlib.closing(Server(address)) as server:
            return _there(server)

    def made(self, recipe: Mapping[str, Any]) -> Updatable:
        """An empty retriever whose indexes are in the database."""
        retriever = super().made(recipe)
        housed(retriever, house(self.places))
        return retriever

    def current(self) -> View:
        """The latest committed state, read again if another writer has committed since."""
        locks = self._of_process()
        if locks.lease is not None and locks.clean:
            return self._view  # nobody else commits
        if self._objects.latest().generation > self._latest.generation:
            with locks.reading:
                if self._objects.latest().generation > self._latest.generation:
                    self._latest, self._contents, self._view = self._read(self._view)
        return self._view

    def commit(
        self, view: View, retriever: Updatable, add: Sequence[Document], remove: Sequence[str], documents: int
    ) -> None:
        """Make the next generation: rows that nobody looks at yet, then the one row that says that they count."""
        locks = self._of_process()
        if locks.lease is None:
            raise InvalidInput("only a writer commits: enter `writer()` first")
        check_ids(add)
        if not locks.clean:
            self._tidy()
        latest, before, generation = self._latest, self._contents, view.manifest.generation + 1
        if latest.generation != view.manifest.generation:
            raise StorageError(f"{self.location!r} has changed since it was read; open it again and repeat")
        locks.clean = False
        files = self.files.at(generation, latest.stamp, before.manifest.files)
        log = self._logs[latest.generation].cleared(files.oldest)
        state = retriever.save(files)
        manifest = describe(recipe_of(retriever), state, files, generation=generation, documents=documents)
        log, size = changed(log, generation, files.now, add, remove)
        left = before.left | {str(place): files.now for place in places_in(before.manifest.state) - places_in(state)}
        for place in [place for place, since in left.items() if since < files.oldest]:
            self.server.drop(f"{PREFIX}{place}")
            del left[place]
        unused = {name: size for name, size in before.manifest.files.items() if name not in manifest.files}
        contents = _Contents(
            manifest, log.state(), before.size + size, unused | {latest.manifest: len(before.encoded())}, left
        )
        name, stamp = _written(self._objects, contents)
        died = generation in _deaths([state, log.state()]) or left.keys() != before.left.keys()
        now = Latest(generation, name, max(stamp, files.stamp, log.stamp), generation if died else latest.deaths)
        locks.lease.check()
        self._objects.commit(now)
        committed = retriever.fork()
        committed.load(manifest.state, self.files.at(generation, now.stamp))
        with locks.reading:
            self._remember(generation, contents, now.stamp)
            self._latest, self._contents = now, contents
            self._view = View((generation, 0), manifest, self._bind(committed, generation))
        locks.clean = True
        with contextlib.suppress(StorageError):  # what cannot be deleted now is deleted by the next writer
            self._objects.drop_files({name: size for name, size in before.unused.items() if name not in manifest.files})
            self._objects.drop([state_name(generation - 2)])
        self.files.sweep(file_names(manifest.state))

    @contextlib.contextmanager
    def writer(self) -> Iterator[None]:
        """Other threads wait; other writers are told."""
        locks = self._of_process()
        with locks.writing:
            if locks.lease is not None:  # this thread already writes
                yield
                return
            with Lease(self._objects).held() as lease:
                locks.lease, locks.clean = lease, False
                try:
                    yield
                finally:
                    locks.lease = None

    def check(self) -> None:
        """Read everything and compare it with its checksums."""

        def count(view: View) -> int:
            fresh = Arrays(self._objects).at(view.manifest.generation, self._latest.stamp)
            for name in view.manifest.files:
                fresh.get(name)
            for index in indexes(view.retriever):
                if isinstance(index, Placed) and len(index.ids()) != len(index):
                    raise Corrupt(
                        f"an index of {self.location!r} does not hold what it should; restore it, or index again"
                    )
            return view.manifest.documents - self.corpus.check(view.manifest.generation)

        if lost := self.read(count):
            raise Corrupt(f"{self.location!r} should hold {lost} documents more than are there; restore it")

    def sizes(self) -> dict[str, int]:
        """Bytes taken by vectors and files, and by the documents' texts, before what Milvus adds or compresses."""
        manifest = self.current().manifest
        places = (index.place for index in indexes(self._view.retriever) if isinstance(index, Placed))
        vectors = sum(4 * place.width * place.count for place in places if place is not None)
        return {"index_bytes": vectors + sum(manifest.files.values()), "corpus_bytes": self._contents.size}

    def close(self) -> None:
        """Close the connections."""
        self.server.close()

    def arrays(self, generation: int) -> ArrayFiles:
        return self.files.at(generation, self._latest.stamp)

    def _log(self, at: int | None) -> Log:
        generation = self.current().manifest.generation if at is None else checked_generation(at)
        self._objects.check_readable(generation)
        if generation not in self._logs:
            raise StorageError(f"generation {generation} of the collection has been cleared away; open the latest")
        return self._logs[generation]

    def _read(self, before: View | None) -> tuple[Latest, _Contents, View]:
        while True:
            latest = self._objects.latest()
            try:
                contents = _Contents.decoded(self._objects.read(latest.manifest, latest.stamp))
                manifest = contents.manifest
                retriever = self.unloaded(manifest.recipe, before)
                retriever.load(manifest.state, self.files.at(manifest.generation, latest.stamp))
            except Corrupt:
                if self._objects.latest(surely=True).generation == latest.generation:
                    raise
                continue  # another writer committed and cleared away in between
            except (KeyError, TypeError, ValueError, ValidationError) as error:
                raise Corrupt(f"the manifest of {self.location!r} is damaged ({error!r}); index again") from None
            self._remember(latest.generation, contents, latest.stamp)
            return latest, contents, View((latest.generation, 0), manifest, self._bind(retriever, latest.generation))

    def _remember(self, generation: int, contents: _Contents, stamp: int) -> None:
        known = {**self._logs, generation: Log.of(self.server, DOCUMENTS, contents.documents, stamp)}
        self._logs = {g: known[g] for g in sorted(known)[-_KEPT:]}

    def _tidy(self) -> None:
        """Delete what a writer that died, or failed, had begun."""
        latest, contents = self._objects.latest(surely=True), self._contents
        if latest.generation != self._latest.generation:
            raise StorageError(f"{self.location!r} has changed since it was read; open it again and repeat")
        rows = self._logs[latest.generation].tidied()
        places = [one.place for one in indexes(self._view.retriever) if isinstance(one, Placed)]
        rows += sum(place.log.tidied() for place in places if isinstance(place, Dense))
        known = {f"{PREFIX}{place}" for place in (*places_in(contents.manifest.state), *contents.left)}
        for name in self.server.names():
            if name.startswith(PREFIX) and name not in known:
                self.server.drop(name)
        files = self._objects.keep({*contents.manifest.files, *contents.unused, latest.manifest})
        old = [name for name in self._objects.beginning("state-") if name < state_name(latest.generation - 1)]
        self._objects.drop(old)
        if rows or files:
            self.recovered = (
                f"an earlier writer was interrupted: {rows} rows and {len(files)} pieces of files were cleared away; "
                f"generation {latest.generation} stands"
            )

    def _of_process(self) -> _Locks:
        return self._locks.get(os.getpid()) or self._locks.setdefault(os.getpid(), _Locks())


def _there(server: Server) -> bool:
    if server.file is not None and not server.file.exists():
        return False  # opening would make it
    if OBJECTS not in server.names():
        return False
    until = time.monotonic() + (RECOVERY if server.file is None else 0.0)
    while not (found := Objects(server).beginning("state-")) and time.monotonic() < until:
        time.sleep(0.2)  # a server that has just restarted may answer before it has read its log
    return bool(found)


def house(places: Places) -> Any:
    """What puts indexes of dense vectors in Milvus. Others are saved as arrays, and read into memory."""

    def put(index: Index) -> Index:
        return Placed(places, index) if is_dense(index) else index

    return put


def _written(objects: Objects, contents: _Contents) -> tuple[str, int]:
    content = contents.encoded()
    name = f"{hashlib.sha256(content).hexdigest()}.json"
    return name, objects.write(name, content)


def _deaths(state: Any) -> set[int]:
    """The generations in which something died, of what a state tells."""
    if isinstance(state, dict):
        own = {int(grave[0]) for grave in state.get("graves", ())}
        return own.union(*map(_deaths, state.values()))
    return set().union(*map(_deaths, state)) if isinstance(state, list) else set()

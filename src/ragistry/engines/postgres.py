"""A collection kept by PostgreSQL: documents, indexes and what was learnt, in one schema of a database.

    state      one row: the latest generation, the oldest that can still be read, and the manifest
    documents  the documents, each row stamped with the generations it was born and died in
    places     the indexes, each with tables of its own (see `places`)
    arrays     what retrievers keep besides: taught maps, tries, indexes of other kinds
    shards     the foreign servers that hold what is large of the places, if there are any (see `shards`)

A commit is one transaction, so a document and its vectors appear together or not at all; what is committed is what the
server has acknowledged. Writers hold an advisory lock of the server, which ends with their connection.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from psycopg import errors
from pydantic import ValidationError

from ..errors import Corrupt, InvalidInput, Locked, StorageError
from ..protocols import Retriever, Updatable
from ..states import States, View
from ..storage import FORMAT, ArrayFiles, Manifest, describe, file_names, recipe_of
from ..types import Among, Document
from . import arrays, documents, shards
from .arrays import Arrays, places_in
from .documents import Passing, Table
from .placed import Placed, house, housed, indexes
from .places import DATA, clear, drop
from .server import Connection, Server

PATIENCE = 1.0  # seconds to wait for another writer
_LOCK = 0x52414749  # "RAGI"
_TABLES = f"""
    CREATE TABLE state (generation bigint NOT NULL, oldest bigint NOT NULL, format integer NOT NULL, manifest text NOT NULL);
    CREATE TABLE places (
        place integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, kind text NOT NULL, died bigint
    );
    {documents.TABLE} {arrays.TABLE}; {shards.TABLE};
"""


class Postgres(States):
    """Committed states in a schema of a PostgreSQL database.

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
        self.corpus, self.files = Table(self.server), Arrays(self.server)
        self._locks: dict[int, _Locks] = {}
        with contextlib.closing(self.server.connect()) as connection, self.server.explained("read"):
            self.server.shards = shards.stored(connection, self.server)
        try:
            self._view = self._read(None)
            shards.check_same(self.server)
        except BaseException:
            self.server.close()
            raise

    @classmethod
    def make(cls, address: str, retriever: Retriever) -> None:
        """Write generation 0 to a database that has no collection of this name."""
        recipe = recipe_of(retriever)  # refuses one that takes no documents
        server = Server(address)
        with contextlib.closing(server.connect()) as connection, server.explained("create"):
            shards.extend(connection, "vector", server.location)
            if connection.execute("SELECT to_regnamespace(%s)", [server.schema]).fetchone() != (None,):
                raise StorageError(
                    f"{server.location!r} already holds a collection; open it with Collection.open, or choose another name"
                )
            shards.check_ready(connection, server)
            with connection.transaction():
                connection.execute(f"CREATE SCHEMA {server.schema}")
                connection.execute(_TABLES)
                server.shards = shards.made(connection, server)
                files = Arrays(server).at(0, connection)
                empty = cast(Updatable, retriever).fork()
                housed(empty, house(server))
                manifest = describe(recipe, empty.save(files), files, generation=0, documents=0)
                values = [0, 0, FORMAT, _dumps(manifest)]
                connection.execute("INSERT INTO state VALUES (%s, %s, %s, %s)", values)

    @classmethod
    def exists(cls, address: str) -> bool:
        """Whether there is a collection of this name."""
        server = Server(address)
        with contextlib.closing(server.connect()) as connection, server.explained("read"):
            found = connection.execute("SELECT to_regclass(%s)", [f"{server.schema}.state"]).fetchone()
            return found != (None,)

    def made(self, recipe: Mapping[str, Any]) -> Updatable:
        """An empty retriever whose indexes are in the database."""
        retriever = super().made(recipe)
        housed(retriever, house(self.server))
        return retriever

    def current(self) -> View:
        """The latest committed state, read again if another writer has committed since."""
        if self._generation() != self._view.manifest.generation:
            with self._of_process().reading:
                if self._generation() != self._view.manifest.generation:
                    self._view = self._read(self._view)
        return self._view

    def commit(
        self, view: View, retriever: Updatable, add: Sequence[Document], remove: Sequence[str], documents: int
    ) -> None:
        """Make the next generation in one transaction."""
        connection = self._of_process().connection
        before, generation = view.manifest, view.manifest.generation + 1
        if connection is None:
            raise InvalidInput("only a writer commits: enter `writer()` first")
        files = self.files.at(generation, connection)
        with self.server.explained("write to"), connection.transaction():
            state = retriever.save(files)
            manifest = describe(recipe_of(retriever), state, files, generation=generation, documents=documents)
            self.corpus.write(connection, generation, add, remove)
            values = [generation, before.generation, _dumps(manifest), before.generation]
            made = connection.execute(
                "UPDATE state SET generation = %s, oldest = %s, manifest = %s WHERE generation = %s", values
            )
            if made.rowcount != 1:
                raise StorageError(f"{self.location!r} has changed since it was read; open it again and repeat")
            self._clear(connection, before, manifest)
        committed = retriever.fork()
        committed.load(manifest.state, self.files.at(generation))
        with self._of_process().reading:
            self._view = View((generation, 0), manifest, self._bind(committed, generation))
        self.files.sweep(file_names(manifest.state))

    def _clear(self, connection: Connection, before: Manifest, after: Manifest) -> None:
        """Delete what no state uses any more but those before the last."""
        last = before.generation
        # Shards commit first: what is deleted there may not be needed even if this commit fails.
        gone = last - 1 if self.server.shards else last
        connection.execute("DELETE FROM documents WHERE died <= %s", [last])
        self.files.keep(connection, file_names(before.state) | file_names(after.state))
        for number, kind, died in connection.execute("SELECT place, kind, died FROM places").fetchall():
            if died is not None and died <= gone:
                drop(connection, self.server.shards, number, kind)
                connection.execute("DELETE FROM places WHERE place = %s", [number])
                continue
            clear(connection, number, kind, gone)
            if died is None and number not in places_in(after.state):
                connection.execute("UPDATE places SET died = %s WHERE place = %s", [after.generation, number])

    @contextlib.contextmanager
    def writer(self) -> Iterator[None]:
        """Other threads wait; other writers are told. Indexes are made fast to search at the end."""
        locks = self._of_process()
        with locks.writing:
            if locks.connection is not None:  # this thread already writes
                yield
                return
            with contextlib.closing(self.server.connect()) as connection:
                self._lock(connection)
                self._mend(connection)
                locks.connection = connection
                try:
                    yield
                    self._settle(connection)
                finally:
                    locks.connection = None

    def check(self) -> None:
        """Read everything and compare it with its checksums."""

        def count(view: View) -> tuple[int, int]:
            fresh = Arrays(self.server)
            for name in view.manifest.files:
                fresh.get(name)
            for index in indexes(view.retriever):
                if isinstance(index, Placed) and index.place and cast(Any, index.place).held() != len(index):
                    raise Corrupt(
                        f"an index of {self.location!r} does not hold what it should; restore it, or index again"
                    )
            return view.manifest.documents, self.corpus.count(view.manifest.generation)

        expected, found = self.read(count)
        self.corpus.check()
        if expected != found:
            raise Corrupt(f"{self.location!r} should hold {expected} documents, {found} are there; restore it")

    def sizes(self) -> dict[str, int]:
        """Bytes taken by the tables of indexes, and by those of documents."""
        select = (
            "SELECT relname, pg_total_relation_size(oid) FROM pg_class "
            "WHERE relnamespace = %s::regnamespace AND relkind = 'r'"
        )
        found = self.server.ask(lambda connection: connection.execute(select, [self.server.schema]).fetchall())
        size = dict(found) | {"shards": self.server.ask(self.server.shards.size)}
        held = size.pop("documents", 0)
        return {"index_bytes": sum(size.values()), "corpus_bytes": held}

    def close(self) -> None:
        """Close the connections."""
        self.server.close()

    def _passing(self, where: Mapping[str, Any], generation: int) -> Among:
        passing = Passing(self.corpus, where, generation)
        _ = passing.sql  # refuses what is no filter
        return passing

    def arrays(self, generation: int) -> ArrayFiles:
        return self.files.at(generation)

    def _generation(self) -> int:
        def latest(connection: Connection) -> int:
            found = connection.execute("SELECT generation FROM state").fetchone()
            return -1 if found is None else int(found[0])

        return self.server.ask(latest)

    def _read(self, before: View | None) -> View:
        while True:
            manifest = self._manifest()
            retriever = self.unloaded(manifest.recipe, before)
            try:
                retriever.load(manifest.state, self.files.at(manifest.generation))
            except Corrupt:
                if self._generation() == manifest.generation:
                    raise
                continue  # another writer committed and cleared away in between
            except (KeyError, TypeError, ValueError) as error:
                raise Corrupt(f"the manifest of {self.location!r} is damaged ({error!r}); index again") from None
            return View((manifest.generation, 0), manifest, self._bind(retriever, manifest.generation))

    def _manifest(self) -> Manifest:
        def stored(connection: Connection) -> Any:
            try:
                return connection.execute(f"SELECT format, manifest FROM {self.server.schema}.state").fetchone()
            except errors.UndefinedTable:
                raise StorageError(
                    f"{self.location!r} is not a collection; create one with Collection.create or `ragistry index`"
                ) from None

        found = self.server.ask(stored)
        if found is None or found[0] != FORMAT:
            given = None if found is None else found[0]
            raise Corrupt(
                f"{self.location!r} has format {given!r}, this version of Ragistry reads format {FORMAT}; index again, or "
                "use the version that wrote it"
            )
        try:
            return Manifest.model_validate(json.loads(found[1]))
        except (ValueError, ValidationError) as error:
            raise Corrupt(
                f"the manifest of {self.location!r} is damaged ({type(error).__name__}); restore it"
            ) from None

    def _lock(self, connection: Connection) -> None:
        until, key = time.monotonic() + PATIENCE, zlib.crc32(self.server.schema.encode()) - 2**31
        with self.server.explained("write to"):
            while connection.execute("SELECT pg_try_advisory_lock(%s, %s)", [_LOCK, key]).fetchone() != (True,):
                if time.monotonic() > until:
                    raise Locked(
                        f"another writer is at work on {self.location!r}; wait until it has finished and repeat "
                        "(searching is possible meanwhile)"
                    )
                time.sleep(0.05)

    def _mend(self, connection: Connection) -> None:
        """Delete what a writer that was cut short has left on shards."""
        if self.server.shards:
            with self.server.explained("write to"):
                # Nothing is added to places out of use, whose tables may be gone on shards already.
                used = "SELECT place, kind FROM places WHERE died IS NULL"
                for number, kind in connection.execute(used).fetchall():
                    self.server.shards.clear(connection, f"entries_{number}", f"{DATA[kind]}_{number}")

    def _settle(self, connection: Connection) -> None:
        with self.server.explained("write to"):
            for index in indexes(self._view.retriever):
                if isinstance(index, Placed):
                    index.settle(connection)

    def _of_process(self) -> _Locks:
        return self._locks.get(os.getpid()) or self._locks.setdefault(os.getpid(), _Locks())


class _Locks:
    """Of one process: a lock held while another thread forks would stay locked in the child for ever."""

    def __init__(self) -> None:
        self.writing, self.reading = threading.RLock(), threading.Lock()
        self.connection: Connection | None = None


def _dumps(manifest: Manifest) -> str:
    return json.dumps(manifest.model_dump(), ensure_ascii=True, sort_keys=True)

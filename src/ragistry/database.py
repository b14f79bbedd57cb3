"""One SQLite file shared by threads and processes: connections, transactions and errors that say what to do."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
import threading
import weakref
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from .errors import Corrupt, InvalidInput, Locked, RagistryError, StorageError
from .storage import explained, sync_directory

PATIENCE = 10.0  # seconds to wait for another process's transaction

_Connections = dict[tuple[int, int], sqlite3.Connection]


@dataclass(frozen=True)
class Format:
    """What makes a file ours: the script that creates it, and the numbers in its header."""

    name: str
    application: int
    version: int
    script: str


@dataclass
class _Locks:
    connections: threading.Lock = field(default_factory=threading.Lock)
    writing: threading.RLock = field(default_factory=threading.RLock)


class Database:
    """An SQLite file in WAL mode, with one connection for each thread of each process.

    A forked child opens connections of its own and leaves its parent's alone, which SQLite requires.

    Args:
        path: The file. It is created, complete or not at all, unless `readonly`.
        format: What the file must be.
        readonly: Refuse to change anything. Works where nothing can be written, too.
        prepare: Called with each new connection.

    Raises:
        StorageError: If the file is missing and `readonly`, or cannot be read.
        Corrupt: If it is damaged, of another program, or of a format this version does not read.
    """

    def __init__(
        self, path: Path, format: Format, *, readonly: bool, prepare: Callable[[sqlite3.Connection], None]
    ) -> None:
        self.path = path.absolute()
        self.readonly = readonly
        self._format = format
        self._prepare = prepare
        self._closed = False
        self._connections: _Connections = {}
        self._locks: dict[int, _Locks] = {}
        weakref.finalize(self, _close, self._connections)
        with explained("open" if readonly or self.path.exists() else "create", self.path), self.explained("open"):
            if not readonly and not self.path.exists():
                _create(self.path, format)
            if self.path.is_dir():
                raise StorageError(
                    f"{str(self.path)!r} is a directory, a {format.name} is a file; use another path, or restore it from a "
                    "copy"
                )
            if self.path.stat().st_size == 0:
                raise Corrupt(f"{str(self.path)!r} is empty; restore it from a copy, or delete it to start anew")
            self.connection()

    def close(self) -> None:
        """Close this process's connections; anything asked afterwards is refused."""
        self._closed = True
        with self._of_process().connections, self.explained("close"):
            _close(self._connections)

    def connection(self) -> sqlite3.Connection:
        """This thread's connection."""
        process, thread = os.getpid(), threading.get_ident()
        with self._of_process().connections:
            if self._closed:
                raise StorageError(f"{str(self.path)!r} is closed; open it again")
            connection = self._connections.get((process, thread))
            if connection is None:
                _close(self._connections, keep=sys._current_frames())  # those of threads that have ended
                with self.explained("open"):
                    connection = self._connections[process, thread] = self._open()
            return connection

    @contextlib.contextmanager
    def reading(self, action: str = "read") -> Iterator[sqlite3.Connection]:
        """A transaction in which every read sees the same state."""
        with self.explained(action):
            connection = self.connection()
            if connection.in_transaction:  # this thread is writing; it reads what it wrote
                yield connection
                return
            with self._transaction(connection, "BEGIN", action):
                yield connection

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own that goes on seeing one state, whatever is asked and written by others meanwhile."""
        self.connection()  # refuses if closed
        with self.explained("read"), contextlib.closing(self._open()) as connection:
            connection.execute("BEGIN")
            yield connection

    @contextlib.contextmanager
    def writing(self, action: str) -> Iterator[sqlite3.Connection]:
        """A transaction that is committed as a whole, or not at all if the block raises; what it raises passes as it is."""
        if self.readonly:
            raise StorageError(
                f"cannot {action} {str(self.path)!r}: it was opened read-only; open it without `readonly`"
            )
        with self._of_process().writing:
            connection = self.connection()
            if connection.in_transaction:
                raise InvalidInput(
                    f"cannot {action} {str(self.path)!r} while this thread is adding to it; let that finish first"
                )
            with self._transaction(connection, "BEGIN IMMEDIATE", action):
                yield connection

    @contextlib.contextmanager
    def explained(self, action: str) -> Iterator[None]:
        """Turn an error of SQLite into one that says what to do."""
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:  # a damaged file may spoil even SQLite's own messages
            raise _explain(error, action, self.path) from error

    @contextlib.contextmanager
    def _transaction(self, connection: sqlite3.Connection, begin: str, action: str) -> Iterator[None]:
        with self.explained(action):
            connection.execute(begin)
        try:
            yield
            with self.explained(action):
                connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # SQLite has already undone it, or the connection is closed
                connection.execute("ROLLBACK")
            raise

    def _of_process(self) -> _Locks:
        # A lock held while another thread forks would stay locked in the child for ever.
        return self._locks.get(os.getpid()) or self._locks.setdefault(os.getpid(), _Locks())

    def _open(self) -> sqlite3.Connection:
        if not self.readonly:
            return self._connect("rw")
        try:
            return self._connect("ro")
        except sqlite3.OperationalError as error:
            # A file in WAL mode needs two more beside it. Where none can be made, nobody writes, and it can do without.
            if _code(error) not in {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}:
                raise
            log = self.path.with_name(f"{self.path.name}-wal")
            if log.exists() and log.stat().st_size:
                raise StorageError(
                    f"cannot open {str(self.path)!r}: the changes in {log.name!r} beside it are not merged yet; copy both "
                    "to a directory that can be written and open the copy once without `readonly`"
                ) from error
            return self._connect("ro&immutable=1")

    def _connect(self, mode: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{self.path.as_uri()}?mode={mode}",
            uri=True,
            timeout=PATIENCE,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            connection.execute("PRAGMA trusted_schema = OFF")
            self._check_format(connection)
            if not self.readonly:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_format(self, connection: sqlite3.Connection) -> None:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        wanted = self._format
        if application != wanted.application:
            raise Corrupt(
                f"{str(self.path)!r} is an SQLite file, but not a {wanted.name} of Ragistry; use another path, or restore "
                "it from a copy"
            )
        if version != wanted.version:
            raise Corrupt(
                f"{str(self.path)!r} is a {wanted.name} of format {version}, this version of Ragistry reads format "
                f"{wanted.version}; make it again, or use the version that wrote it"
            )


def _create(path: Path, format: Format) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        with contextlib.closing(sqlite3.connect(beside, isolation_level=None)) as connection:
            connection.executescript(
                f"BEGIN; PRAGMA application_id = {format.application}; PRAGMA user_version = {format.version}; "
                f"{format.script} COMMIT;"
            )
        publish(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def publish(beside: Path, path: Path) -> bool:
    """Move a finished file to its place unless something is there already; False if so."""
    try:
        os.link(beside, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        if path.exists():
            return False
        beside.replace(path)
    sync_directory(path.parent)
    return True


def _close(connections: _Connections, keep: Container[int] = ()) -> None:
    """Close this process's connections, except those of threads to keep."""
    for process, thread in list(connections):
        if process == os.getpid() and thread not in keep:
            connections.pop((process, thread)).close()


def _code(error: Exception) -> int | None:
    code: int | None = getattr(error, "sqlite_errorcode", None)
    if code == sqlite3.SQLITE_IOERR_SHMSIZE:  # no room for the file that processes share; opening needs 32 KiB
        return sqlite3.SQLITE_FULL
    return None if code is None else code & 0xFF  # the rest of an extended code is detail


def _explain(error: Exception, action: str, path: Path) -> RagistryError:
    code = _code(error)
    if isinstance(error, sqlite3.ProgrammingError) and code is None:
        return StorageError(f"cannot {action} {str(path)!r}: it was closed meanwhile ({error}); open it again")
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return Locked(f"cannot {action} {str(path)!r}: another process is writing to it; repeat once it has finished")
    if code in {sqlite3.SQLITE_TOOBIG, None} and isinstance(error, sqlite3.DataError):
        return InvalidInput(f"cannot {action} {str(path)!r}: a document is larger than SQLite can hold; split it")
    advice = {
        sqlite3.SQLITE_FULL: "the disk is full; free some space and repeat, nothing committed was lost",
        sqlite3.SQLITE_READONLY: "it cannot be written; make it and its directory writable, or open it with `readonly`",
        sqlite3.SQLITE_CANTOPEN: "it cannot be opened; look at the permissions of the file and its directory",
        sqlite3.SQLITE_PERM: "permission is denied; make the file and its directory accessible",
        sqlite3.SQLITE_AUTH: "permission is denied; make the file and its directory accessible",
        sqlite3.SQLITE_IOERR: f"the disk failed ({error}); look at the disk and its free space, then repeat",
        sqlite3.SQLITE_NOMEM: "memory ran out; free some and repeat",
    }.get(code or 0)
    if advice:
        return StorageError(f"cannot {action} {str(path)!r}: {advice}")
    cause = " ".join(str(error).split())  # it may quote the damaged schema
    return Corrupt(f"cannot {action} {str(path)!r}: it is damaged ({cause}); restore it from a copy, or make it again")

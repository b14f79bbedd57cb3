"""Connections to a PostgreSQL server: addresses, pools, and errors that say what to do."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeAlias, TypeVar
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

import psycopg
from psycopg import errors
from psycopg_pool import ConnectionPool, PoolTimeout

from ..errors import InvalidInput, RagistryError, StorageError
from . import shown
from .shards import Shards
from .wire import adapt

Connection: TypeAlias = "psycopg.Connection[Any]"
T = TypeVar("T")

CONNECTIONS = 16
"""The most that one process keeps open for reading."""
PATIENCE = 5  # seconds for a connection
_PROMPT = 0.5  # seconds until the server is suspected
_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")
_SEARCH = {"hnsw.iterative_scan": "strict_order", "hnsw.max_scan_tuples": "200000"}

_ADVICE: tuple[tuple[tuple[type[psycopg.Error], ...], str], ...] = (
    ((errors.DiskFull, errors.OutOfMemory), "the server has run out of space or memory; free some and repeat"),
    ((errors.ReadOnlySqlTransaction,), "the server only reads, as a replica does; write to the primary server"),
    ((errors.InsufficientPrivilege,), "permission is denied; grant the user what is needed"),
    ((errors.UndefinedTable, errors.InvalidSchemaName), "there is no collection (any more); create one"),
    ((errors.QueryCanceled, errors.LockNotAvailable), "the server gave up waiting; repeat"),
    (
        (errors.ConnectionException, errors.ConnectionFailure, errors.SqlclientUnableToEstablishSqlconnection),
        "a shard cannot be reached; check that it runs, its foreign server and user mapping; what is committed is safe",
    ),
)


class Server:
    """A PostgreSQL database and the collection in it that an address names.

    Reading takes a connection of a pool, one pool for each process; a connection that turns out to be dead, as after a
    restart of the server, is replaced once.

    Args:
        address: `postgresql://user:password@host:port/database?collection=name`, with any other parameter that libpq knows;
            `shards=a,b` names foreign servers that hold what is large of a new collection.

    Raises:
        InvalidInput: If it is no such address; passwords are never shown.
    """

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        given = parse_qsl(parts.query, keep_blank_values=True)
        names = [value for key, value in given if key == "collection"] or ["docs"]
        secrets = [unquote(parts.password or ""), *(value for key, value in given if "password" in key)]
        self._secrets = [secret for secret in secrets if secret]
        if len(names) > 1 or not _NAME.fullmatch(names[0]):
            raise InvalidInput(
                f"the collection {names[-1]!r:.60} cannot be a name in a database; give `?collection=` a name of a-z, 0-9 "
                "and _ that begins with a letter, at most 48 long"
            )
        self.wanted = tuple(name.strip() for key, value in given if key == "shards" for name in value.split(","))
        if not all(self.wanted) or len(set(self.wanted)) < len(self.wanted):
            raise InvalidInput(
                f"the shards {','.join(self.wanted)!r:.60} are no names of foreign servers; give `&shards=` different ones, "
                "with commas between them"
            )
        self.shards = Shards()  # of the collection that is there, once that is known; `wanted` is what the address says
        rest = [(key, value) for key, value in given if key not in ("collection", "shards")]
        self.name = names[0]
        self.schema = f"ragistry_{self.name}"
        self._conninfo = urlunsplit(parts._replace(query=urlencode(rest)))
        named = urlencode([*rest, ("collection", self.name)], safe="/")
        self.location = shown(urlunsplit(parts._replace(scheme="postgresql", query=named)))
        self._pools: dict[int, ConnectionPool[Connection]] = {}
        self._closed = False

    def connect(self) -> Connection:
        """A connection of one's own."""
        self._check_open()
        with self.explained("reach"):
            connection = psycopg.connect(self._conninfo, connect_timeout=PATIENCE, autocommit=True)
            self._prepare(connection)
            return connection

    def ask(self, question: Callable[[Connection], T]) -> T:
        """What a question finds; it only reads, and is asked again if the connection turns out to be dead."""
        with self.explained("read"):
            with self.connection() as connection:
                try:
                    return question(connection)
                except psycopg.OperationalError:
                    if not connection.closed:
                        raise
            self.connect().close()  # says so if the server is gone
            self._pool().check()  # the other connections will be as dead
            with self.connection() as connection:
                return question(connection)

    @contextlib.contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection of the pool, for a while."""
        pool = self._pool()
        try:
            connection = pool.getconn(timeout=_PROMPT)
        except PoolTimeout:
            self.connect().close()  # says what is wrong, if it is the server
            connection = pool.getconn()
        try:
            yield connection
        except psycopg.Error:
            connection.close()  # after an error within a pipeline, psycopg takes what was passed over for prepared
            raise
        finally:
            pool.putconn(connection)

    def close(self) -> None:
        """Close the connections of this process; anything asked afterwards is refused."""
        self._closed = True
        pool = self._pools.pop(os.getpid(), None)
        if pool is not None:
            pool.close()

    @contextlib.contextmanager
    def explained(self, action: str) -> Iterator[None]:
        """Turn an error of the driver into one that says what to do."""
        try:
            yield
        except RagistryError:
            raise
        except psycopg.Error as error:
            self._explain(action, error)

    def _explain(self, action: str, error: psycopg.Error) -> NoReturn:
        said = str(error).strip() or type(error).__name__
        for secret in self._secrets:
            said = said.replace(secret, "***")
        said = " ".join(said.split())
        advice = next((advice for kinds, advice in _ADVICE if isinstance(error, kinds)), None)
        if isinstance(error, errors.UndefinedTable) and "remote SQL command" in said:
            advice = "a shard has lost tables; restore it, together with all others, to one moment"
        if advice is None and isinstance(error, psycopg.OperationalError):
            advice = "check that the server runs, and the address, user and password; what is committed is safe"
        raise StorageError(f"cannot {action} {self.location!r}: {f'{advice} ({said})' if advice else said}") from None

    def _check_open(self) -> None:
        if self._closed:
            raise StorageError(f"{self.location!r} was closed; open it again")

    def _pool(self) -> ConnectionPool[Connection]:
        self._check_open()
        known = self._pools.get(os.getpid())  # a connection cannot be shared with the process that forked
        if known is None:
            known = ConnectionPool(
                self._conninfo,
                min_size=0,
                max_size=CONNECTIONS,
                timeout=PATIENCE,
                kwargs={"autocommit": True, "connect_timeout": PATIENCE},
                configure=self._prepare,
                open=True,
            )
            known = self._pools.setdefault(os.getpid(), known)
        return known

    def _prepare(self, connection: Connection) -> None:
        """Let statements find the collection's own tables; `vector` and its settings are wherever they were installed."""
        adapt(connection)
        connection.execute(
            "SELECT set_config('search_path', %s || ', ' || current_setting('search_path'), false)", [self.schema]
        )
        if connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'vector'").fetchone():
            for name, value in _SEARCH.items():
                connection.execute("SELECT set_config(%s, %s, false)", [name, value])

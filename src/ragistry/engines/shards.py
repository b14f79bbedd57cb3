"""Other PostgreSQL servers that hold what is large of a collection: partitions of its tables, over postgres_fdw.

An administrator makes the foreign servers; tables on them are made through dblink. Both come with PostgreSQL, and the first
server does all the asking. A transaction over postgres_fdw commits on the shards before it commits on the first server, so
what a crash leaves behind are rows on a shard that no entry of the first server names: nobody reads them, and the next
writer deletes them.
"""

from __future__ import annotations

import contextlib
import itertools
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import errors
from psycopg.sql import SQL, Identifier, Literal

from ..errors import InvalidInput, StorageError

if TYPE_CHECKING:
    from .server import Connection, Server

TABLE = "CREATE TABLE shards (number integer PRIMARY KEY, server text NOT NULL, schema text NOT NULL)"
OPTIONS = {
    "hnsw.ef_search": "400",
    "hnsw.iterative_scan": "strict_order",
    "hnsw.max_scan_tuples": "200000",
    "enable_sort": "off",
}
"""What sessions of the first server on a shard should have set, as others of this package have: see `Server`."""
_TABLE = "batch_size '500', fetch_size '1000', async_capable 'true'"
_OLDEST = 160_000  # the first version that copies rows to a foreign table by batches, and samples it for the planner
_NAME = 54  # characters of a schema, before nine more; PostgreSQL cuts off what is longer than 63
_calls = itertools.count()


@dataclass(frozen=True)
class Shards:
    """The foreign servers of a collection, and the schema that is its own on each of them; none: all is on one server."""

    servers: tuple[str, ...] = ()
    schema: str = ""

    def __len__(self) -> int:
        return len(self.servers)

    def parts(self, table: str) -> list[str]:
        """The partitions of a table, by the names that they have on the first server and on their own; or itself."""
        return [f"{table}_{number}" for number in range(len(self))] or [table]

    def create(self, connection: Connection, table: str, columns: str, keys: str) -> None:
        """Make a table with a column `row`, by which it is divided, and with keys where its rows lie."""
        if not self:
            connection.execute(f"CREATE TABLE {table} ({columns}); {keys.format(table)}")
            return
        self._sweep(connection)
        names = [f"{self.schema}.{part}" for part in self.parts(table)]
        self.everywhere(connection, [f"CREATE TABLE {name} ({columns}); {keys.format(name)}" for name in names])
        connection.execute(f"CREATE TABLE {table} ({columns}) PARTITION BY HASH (row)")
        for number, (server, part) in enumerate(zip(self.servers, self.parts(table), strict=True)):
            made = SQL(
                f"CREATE FOREIGN TABLE {part} PARTITION OF {table} "
                f"FOR VALUES WITH (MODULUS {len(self)}, REMAINDER {number}) SERVER {{}} "
                f"OPTIONS (schema_name {{}}, table_name {{}}, {_TABLE})"
            )
            connection.execute(made.format(Identifier(server), Literal(self.schema), Literal(part)))

    def drop(self, connection: Connection, table: str) -> None:
        """Delete a table where its rows lie; nothing that can still be read may refer to them."""
        if self:
            self.everywhere(connection, [f"DROP TABLE IF EXISTS {self.schema}.{part}" for part in self.parts(table)])

    def clear(self, connection: Connection, entries: str, table: str) -> None:
        """Delete the rows that a crash has left without entries."""
        if self:
            ((last,),) = connection.execute(f"SELECT coalesce(max(row), 0) FROM {entries}").fetchall()
            # A commit of the writer that died may still be under way; the lock waits for it.
            cleared = (
                "SET LOCAL lock_timeout = '10s'; LOCK TABLE {0} IN SHARE ROW EXCLUSIVE MODE; "
                "DELETE FROM {0} WHERE row > {1}"
            )
            self.everywhere(connection, [cleared.format(f"{self.schema}.{part}", last) for part in self.parts(table)])

    def size(self, connection: Connection) -> int:
        """Bytes taken on all of them."""
        select = (
            "SELECT coalesce(sum(pg_total_relation_size(oid)), 0) FROM pg_class "
            f"WHERE relnamespace = '{self.schema}'::regnamespace AND relkind = 'r'"
        )
        found = [_asked(connection, server, select, "bytes bigint")[0][0] for server in self.servers]
        return sum(found)

    def everywhere(self, connection: Connection, statements: Sequence[str]) -> None:
        """Have each shard do its own at the same time as the others; it stays done if what goes on here is undone."""
        with contextlib.ExitStack() as stack:
            names = []
            for server, statement in zip(self.servers, statements, strict=True):
                names.append(name := f"ragistry_{next(_calls)}")
                with _named(server):
                    connection.execute("SELECT dblink_connect(%s, %s)", [name, server])
                    stack.callback(_disconnect, connection, name)
                    connection.execute("SELECT dblink_send_query(%s, %s)", [name, statement])
            for server, name in zip(self.servers, names, strict=True):
                with _named(server):
                    while connection.execute("SELECT * FROM dblink_get_result(%s) AS t (done text)", [name]).fetchall():
                        pass

    def _sweep(self, connection: Connection) -> None:
        """Delete tables of places that were never committed."""
        known = [number for (number,) in connection.execute("SELECT place FROM places").fetchall()]
        statement = (
            "DO $$ DECLARE lost text; BEGIN FOR lost IN SELECT tablename FROM pg_tables "
            f"WHERE schemaname = '{self.schema}' AND split_part(tablename, '_', 2) <> ALL('{{{{{{}}}}}}'::text[]) "
            f"LOOP EXECUTE 'DROP TABLE {self.schema}.' || lost; END LOOP; END $$"
        ).format(",".join(map(str, known)))
        self.everywhere(connection, [statement] * len(self))


def check_ready(connection: Connection, server: Server) -> None:
    """Whether the shards that an address names can hold a new collection.

    Raises:
        StorageError: If there is no such foreign server, or it lacks something; the message says what.
    """
    if server.wanted:
        if connection.info.server_version < _OLDEST:
            given = connection.info.server_version // 10_000
            raise StorageError(f"{server.location!r} runs PostgreSQL {given}; shards need version 16 or newer")
        for extension in ("postgres_fdw", "dblink"):
            extend(connection, extension, server.location)
        _check_declared(connection, server, server.wanted)
        for name in server.wanted:
            with _about(name, server.location):
                _check_ready(connection, server, name)


def made(connection: Connection, server: Server) -> Shards:
    """Schemas for a new collection on its shards, in the transaction that makes its own."""
    if not server.wanted:
        return Shards()
    shards = Shards(server.wanted, f"{server.schema[:_NAME]}_{secrets.token_hex(4)}")
    for number, name in enumerate(shards.servers):
        with _about(name, server.location):
            connection.execute("SELECT dblink_exec(%s, %s)", [name, f"CREATE SCHEMA {shards.schema}"])
        connection.execute("INSERT INTO shards VALUES (%s, %s, %s)", [number, name, shards.schema])
    return shards


def stored(connection: Connection, server: Server) -> Shards:
    """Those that a collection was made with."""
    table = f"{server.schema}.shards"
    if connection.execute("SELECT to_regclass(%s)", [table]).fetchone() == (None,):
        return Shards()
    rows = connection.execute(f"SELECT server, schema FROM {table} ORDER BY number").fetchall()
    return Shards(tuple(name for name, _ in rows), rows[0][1]) if rows else Shards()


def check_same(server: Server) -> None:
    """Refuse an address that names other shards than those that the collection was made with."""
    wanted, there = server.wanted, server.shards.servers
    if wanted and wanted != there:
        lies = f"lies on the shards {', '.join(there)}" if there else "was made without shards"
        raise InvalidInput(
            f"{server.location!r} {lies}, not on {', '.join(wanted)}; leave `shards=` out of its address, or copy it to a "
            "new collection that has them"
        )


def extend(connection: Connection, name: str, location: str) -> None:
    """Let the database have an extension."""
    try:
        connection.execute(SQL("CREATE EXTENSION IF NOT EXISTS {}").format(Identifier(name)))
    except (errors.FeatureNotSupported, errors.UndefinedFile, errors.InsufficientPrivilege) as error:
        package = "pgvector" if name == "vector" else "PostgreSQL's additional modules (contrib)"
        raise StorageError(
            f"{location!r} has no extension `{name}`, and it cannot be made ({psycopg.Error.__str__(error)}); install "
            f"{package} on the server, and have an administrator run CREATE EXTENSION {name} in the database"
        ) from None


def _check_declared(connection: Connection, server: Server, names: Sequence[str]) -> None:
    """Whether the first server knows the others."""
    extensions = "SELECT option_value FROM pg_options_to_table(s.srvoptions) WHERE option_name = 'extensions'"
    mapped = "SELECT 1 FROM pg_user_mappings m WHERE m.srvid = s.oid AND m.usename IN (current_user, 'public')"
    select = (
        f"SELECT s.srvname, ARRAY({extensions}), has_server_privilege(s.oid, 'USAGE'), EXISTS ({mapped}) "
        "FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw WHERE w.fdwname = 'postgres_fdw' "
        "ORDER BY s.srvname"
    )
    known = {name: rest for name, *rest in connection.execute(select).fetchall()}
    for name in names:
        if name not in known:
            others = f"known are {', '.join(known)}" if known else "there is none"
            wrong = f"there is no foreign server {name!r} ({others})"
            needed = f"CREATE SERVER {name} FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host ..., extensions 'vector')"
        else:
            shippable, usable, known_there = known[name]
            if "vector" not in [extension.strip() for given in shippable for extension in given.split(",")]:
                wrong = f"the foreign server {name!r} does not know the extension `vector`"
                needed = f"ALTER SERVER {name} OPTIONS (ADD extensions 'vector')"
            elif not usable:
                wrong = f"the user may not use the foreign server {name!r}"
                needed = f"GRANT USAGE ON FOREIGN SERVER {name} TO the user"
            elif not known_there:
                wrong = f"the user has no login at the foreign server {name!r}"
                needed = f"CREATE USER MAPPING FOR the user SERVER {name} OPTIONS (user ..., password ...)"
            else:
                continue
        raise StorageError(f"{server.location!r}: {wrong}; have an administrator run {needed}")


def _check_ready(connection: Connection, server: Server, name: str) -> None:
    """Whether a shard can hold vectors, and finds them as this one does."""
    connection.execute("SELECT dblink_exec(%s, 'CREATE EXTENSION IF NOT EXISTS vector')", [name])
    where = "SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'vector'"
    ((here,),) = connection.execute(where).fetchall()
    ((there,),) = _asked(connection, name, where, "schema text")
    if here != there:
        raise StorageError(
            f"{server.location!r}: the extension `vector` is in the schema {here} here, and in {there} on the shard "
            f"{name!r}; have an administrator put it in the same one, by ALTER EXTENSION vector SET SCHEMA"
        )
    shown = ", ".join(f"current_setting('{option}')" for option in OPTIONS)
    kinds = ", ".join(f"o{number} text" for number in range(len(OPTIONS)))
    (found,) = _asked(connection, name, f"SELECT '[1]'::vector IS NOT NULL, {shown}", f"ready bool, {kinds}")
    given = dict(zip(OPTIONS, found[1:], strict=True))
    if given["hnsw.iterative_scan"] == "off" or int(given["hnsw.ef_search"]) < 100 or given["enable_sort"] == "on":
        wanted = " ".join(f"-c {option}={value}" for option, value in OPTIONS.items())
        raise StorageError(
            f"{server.location!r}: on the shard {name!r} graphs would be searched with "
            f"{', '.join(f'{option} = {value}' for option, value in given.items())}, which loses hits; have an "
            f"administrator run ALTER SERVER {name} OPTIONS (ADD options '{wanted}'), or SET where it has some"
        )


@contextlib.contextmanager
def _named(shard: str) -> Iterator[None]:
    """Put the name of a shard before what went wrong there."""
    try:
        yield
    except psycopg.Error as error:
        raise type(error)(f"{shard}: {psycopg.Error.__str__(error)}") from None


@contextlib.contextmanager
def _about(name: str, location: str) -> Iterator[None]:
    """Say which shard an error is about."""
    try:
        yield
    except psycopg.Error as error:
        said = " ".join(str(error).split())
        raise StorageError(
            f"{location!r}: the shard {name!r} is not ready ({said}); check that it runs and has pgvector, and the options "
            "of its foreign server and user mapping"
        ) from None


def _asked(connection: Connection, server: str, select: str, columns: str) -> list[Any]:
    return connection.execute(f"SELECT * FROM dblink(%s, %s) AS t ({columns})", [server, select]).fetchall()


def _disconnect(connection: Connection, name: str) -> None:
    with contextlib.suppress(psycopg.Error):  # after an error it ends with the connection
        connection.execute("SELECT dblink_disconnect(%s)", [name])

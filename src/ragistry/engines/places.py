"""Indexes in PostgreSQL: tables of vectors or postings, searched as they were at one generation.

An index has a *place*, a number p. `entries_p` has a row for each vector ever added: its id, the generations it was born and
died in, and the length of what was counted. `vectors_p` has the vector (pgvector), or `postings_p` the terms. The rows of
these never change, so a graph over them needs no repair when an id is replaced. They mean nothing without their entry, so
they may lie on other servers (see `spread`).
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from psycopg import DataError

from ..protocols import State
from ..types import Among, Floats, Kind, Ranking, Vectors
from .documents import VISIBLE, Passing, check_kept, together
from .server import Connection, Server
from .shards import Shards
from .wire import Vector, bare, copy_rows, copy_vectors, full, vectors_of

EXACT = 10_000
"""So many vectors, of the index or of those allowed, are compared exactly; of more, a graph proposes candidates."""
_ENTRIES = """
    CREATE TABLE entries_{0} (
        row bigint PRIMARY KEY, born bigint NOT NULL, died bigint, id text COLLATE "C" NOT NULL, length real NOT NULL
    );
    CREATE UNIQUE INDEX ON entries_{0} (id, born);
    CREATE INDEX ON entries_{0} (died) WHERE died IS NOT NULL;
"""
VISIBLE_ENTRY = VISIBLE.replace("born", "e.born").replace("died", "e.died")
_PAGE = 1900  # dimensions that fit the row; longer vectors are kept apart from it
_GRAPH = 4000  # dimensions of the longest vectors that a graph takes
_LINKS, _BUILDING, _ASKING = 24, 200, 400  # of a graph: pgvector's own (16, 64, 40) lose many where vectors lie close
MEMORY = "256MB"  # in which a graph is built

DATA = {"dense": "vectors", "sparse": "postings"}
"""The table beside that of entries, by kind."""


@dataclass(frozen=True, kw_only=True)
class Place(ABC):
    """What an index holds at one generation. Immutable, as rows of that generation are.

    `width` is of its vectors, dimensions or columns; `count` and `total` are how many it holds and their lengths together.
    """

    kind: ClassVar[Kind]
    server: Server
    number: int
    generation: int
    width: int
    count: int
    total: float = 0.0

    def state(self) -> State:
        """What a manifest keeps of it."""
        return {"place": self.number, "width": self.width, "count": self.count, "total": self.total}

    def present(self, ids: Collection[str]) -> set[str]:
        """Those of the ids that are held."""
        select = f"SELECT e.id FROM entries_{self.number} e WHERE e.id = ANY(%s) AND {VISIBLE_ENTRY}"
        return {full(id) for (id,) in self._ask([(select, [list(map(bare, ids)), *self._visible])])[0]}

    def ids(self) -> list[str]:
        """All that are held, in order of insertion."""
        select = f"SELECT e.id FROM entries_{self.number} e WHERE {VISIBLE_ENTRY} ORDER BY e.row"
        return [full(id) for (id,) in self._ask([(select, self._visible)])[0]]

    def create(self, connection: Connection) -> None:
        """Make the tables."""
        connection.execute(_ENTRIES.format(self.number))
        name, (columns, keys) = f"{DATA[self.kind]}_{self.number}", self._layout
        self.server.shards.create(connection, name, columns, keys)

    def settle(self, connection: Connection) -> None:
        """Let the planner know of many new rows at once."""
        for table in (f"entries_{self.number}", f"{DATA[self.kind]}_{self.number}"):
            self._analyse(connection, table)

    def _analyse(self, connection: Connection, table: str) -> bool:
        """Whether that was necessary."""
        known = connection.execute("SELECT reltuples FROM pg_class WHERE oid = to_regclass(%s)", [table]).fetchone()
        if known is None or 2 * known[0] >= self.count:
            return False
        connection.execute(f"ANALYZE {table}")
        return True

    @abstractmethod
    def append(self, connection: Connection, first: int, ids: Sequence[str], vectors: Any) -> None:
        """Store vectors under rows from `first` on."""

    @staticmethod
    @abstractmethod
    def lengths(vectors: Any) -> Floats:
        """How many terms each of some vectors holds."""

    @property
    @abstractmethod
    def _layout(self) -> tuple[str, str]:
        """Of the table beside that of entries: its columns, and statements that make its keys, `{0}` being its name."""

    def held(self) -> int:
        """How many of the visible entries have what they stand for."""
        ((count,),) = self._ask([(f"SELECT count(*) {self._whole} AND {VISIBLE_ENTRY}", self._visible)])[0]
        return int(count)

    @property
    def _parts(self) -> list[str]:
        """The tables beside that of entries: one, or one for each shard."""
        return self.server.shards.parts(f"{DATA[self.kind]}_{self.number}")

    @property
    @abstractmethod
    def _whole(self) -> str:
        """Entries, as `e`, that have what they stand for: the end of a statement."""

    @property
    def _visible(self) -> list[int]:
        return [self.generation, self.generation]

    def _allowed(self, among: Among) -> tuple[str, list[Any]]:
        """A condition on entries."""
        if among is None:
            return "true", []
        if isinstance(among, Passing):
            sql, parameters = among.sql
            visible = VISIBLE.replace("born", "documents.born").replace("died", "documents.died")
            held = f"SELECT documents.id FROM documents WHERE {sql} AND {visible}"
            return f"e.id IN ({held})", [*parameters, among.at, among.at]
        return "e.id = ANY(%s)", [[bare(id) for id in among if isinstance(id, str)]]

    def _count(self, among: Among) -> int:
        """How many may be found."""
        if among is None:
            return self.count
        return among.count if isinstance(among, Passing) else len(among)

    def _ask(self, selects: Sequence[tuple[str, Sequence[Any]]], *, binary: bool = False) -> list[list[Any]]:
        """What some statements give, all of this generation."""

        return self.server.ask(lambda connection: together(connection, selects, self.generation, binary=binary))


@dataclass(frozen=True, kw_only=True)
class Dense(Place):
    """Vectors, compared exactly, or through a graph that proposes candidates where there are many.

    `metric` is `ip` or `l2`; `graph` says whether a graph may be used, `links` how many of its nodes each is linked to, and
    `ef` how many are kept in view.
    """

    kind = "dense"
    metric: str = "ip"
    graph: bool = True
    links: int = _LINKS
    ef: int | None = None

    def search(self, queries: Floats, k: int, among: Among) -> list[Ranking]:
        """The nearest `k` of `among` for each query."""
        allowed = self._count(among)
        exact = not self.graph or allowed <= max(k, EXACT) or self.width > _GRAPH
        found: list[list[Any]] = [[] for _ in queries] if exact else self._proposed(queries, k, among)
        least = min(k, allowed)  # where the graph finds fewer, the allowed ones are compared
        short = [number for number, rows in enumerate(found) if len(rows) < least]
        again = self._ask([self._exact(queries[number], k, among) for number in short]) if short else []
        for number, rows in zip(short, again, strict=True):
            found[number] = rows
        return [ranked(rows) for rows in found]

    def vectors(self, ids: Sequence[str]) -> dict[str, Any]:
        """Vectors by id, of those that are held."""
        held = f"SELECT e.row FROM entries_{self.number} e WHERE e.id = ANY(%b) AND {VISIBLE_ENTRY}"
        select = (
            f"SELECT e.id, v.vector FROM entries_{self.number} e JOIN vectors_{self.number} v USING (row) "
            f"WHERE v.row = ANY(ARRAY({held}))"
        )
        (rows,) = self._ask([(select, [list(map(bare, ids)), *self._visible])], binary=True)
        values = vectors_of([value for _, value in rows], self.width)
        return {full(id): value for (id, _), value in zip(rows, values, strict=True)}

    def joined(self, vectors: Sequence[Floats]) -> Vectors:
        """Several of `vectors` as an index gives them, float32 [n, width]."""
        return np.stack(vectors) if vectors else np.empty((0, self.width), np.float32)

    @property
    def _operator(self) -> str:
        return "<#>" if self.metric == "ip" else "<->"

    def _score(self, query: str) -> str:
        distance = f"(v.vector {self._operator} {query})"
        return f"-{distance}" if self.metric == "ip" else f"-({distance} * {distance})"

    def _exact(self, query: Floats, k: int, among: Among) -> tuple[str, list[Any]]:
        allowed, parameters = self._allowed(among)
        sql = (
            f"SELECT e.id, {self._score('q.query')} AS score FROM (SELECT %b::vector AS query OFFSET 0) q, "
            f"entries_{self.number} e JOIN vectors_{self.number} v USING (row) "
            f"WHERE {VISIBLE_ENTRY} AND {allowed} ORDER BY score DESC, e.id LIMIT %s"
        )
        return sql, [Vector.of(query), *self._visible, *parameters, k]

    def _proposed(self, queries: Floats, k: int, among: Among) -> list[list[Any]]:
        allowed, parameters = self._allowed(among)
        form = f"halfvec({self.width})"
        sql = (
            f"WITH near AS MATERIALIZED (SELECT e.id, v.vector FROM vectors_{self.number} v "
            f"JOIN entries_{self.number} e USING (row) WHERE {VISIBLE_ENTRY} AND {allowed} "
            f"ORDER BY v.vector::{form} {self._operator} %b::vector::{form} LIMIT %s) "
            f"SELECT v.id, {self._score('%b::vector')} AS score FROM near v ORDER BY score DESC, v.id LIMIT %s"
        )
        twice = 2 if self.metric == "l2" else 1

        def found(connection: Connection) -> list[list[Any]]:
            rows: list[list[Any]] = []
            with contextlib.suppress(DataError), connection.transaction():  # too large for half precision
                ef = str(min(1000, self.ef or max(_ASKING, 4 * k + 60)))
                # Sorting all of a table, which is never wanted here, seems cheap to the planner where the table is small.
                connection.execute(
                    "SELECT set_config('hnsw.ef_search', %s, true), set_config('enable_sort', 'off', true)", [ef]
                )
                for vector in map(Vector.of, queries):
                    values = [*self._visible, *parameters, vector, 4 * k + 60, *[vector] * twice, k]
                    rows.append(connection.execute(sql, values).fetchall())
            check_kept(connection, self.generation)
            return rows + [[]] * (len(queries) - len(rows))

        return self.server.ask(found)

    def settle(self, connection: Connection) -> None:
        """Build the graph, once there are vectors enough."""
        super().settle(connection)
        if not self._needs_graph:
            return
        name = f"graph_{self.number}"
        if connection.execute("SELECT to_regclass(%s)", [name]).fetchone() == (None,):
            connection.execute(f"SET maintenance_work_mem = '{MEMORY}'")
            with contextlib.suppress(DataError):  # too large for half precision: compared exactly
                connection.execute(self._graph(name, f"vectors_{self.number}"))

    @property
    def _needs_graph(self) -> bool:
        return self.graph and self.count > EXACT and self.width <= _GRAPH

    def _graph(self, name: str, table: str) -> str:
        """The statement that builds one."""
        return (
            f"CREATE INDEX {name} ON {table} USING hnsw ((vector::halfvec({self.width})) halfvec_{self.metric}_ops) "
            f"WITH (m = {min(100, self.links)}, ef_construction = {max(_BUILDING, 2 * self.links)})"
        )

    @property
    def _whole(self) -> str:
        rows = " UNION ALL ".join(f"SELECT row FROM {part}" for part in self._parts)
        return f"FROM entries_{self.number} e WHERE e.row IN ({rows})"

    @property
    def _layout(self) -> tuple[str, str]:
        storage = "PLAIN" if self.width <= _PAGE else "EXTERNAL"
        keys = f"ALTER TABLE {{0}} ADD PRIMARY KEY (row), ALTER COLUMN vector SET STORAGE {storage}"
        return f"row bigint NOT NULL, vector vector({self.width}) NOT NULL", keys

    def append(self, connection: Connection, first: int, ids: Sequence[str], vectors: Any) -> None:
        """Store vectors [n, width] under rows from `first` on."""
        copy_vectors(connection, f"vectors_{self.number}", np.arange(first, first + len(vectors)), vectors)

    @staticmethod
    def lengths(vectors: Any) -> Floats:
        """Of what is not counted: none."""
        return np.zeros(len(vectors), np.float32)


def change(place: Place, connection: Connection, gone: Collection[str], ids: Sequence[str], vectors: Any) -> State:
    """Take vectors out and put others in, as part of a transaction that makes the place's generation; the state after it."""
    table, now = f"entries_{place.number}", place.generation
    end = f"UPDATE {table} SET died = %s WHERE id = ANY(%s) AND died IS NULL RETURNING length"
    lost = connection.execute(end, [now, list(map(bare, gone))]).fetchall() if gone else []
    lengths = place.lengths(vectors) if ids else np.zeros(0, np.float32)
    if ids:
        ((last,),) = connection.execute(f"SELECT coalesce(max(row), 0) FROM {table}").fetchall()
        rows = (
            (last + 1 + i, now, bare(id), length)
            for i, (id, length) in enumerate(zip(ids, lengths.tolist(), strict=True))
        )
        copy_rows(connection, f"{table} (row, born, id, length)", ("int8", "int8", "text", "float4"), rows)
        place.append(connection, last + 1, ids, vectors)
    total = place.total - sum(length for (length,) in lost) + float(lengths.sum(dtype=np.float64))
    return place.state() | {"count": place.count - len(lost) + len(ids), "total": total}


def clear(connection: Connection, number: int, kind: str, generation: int) -> None:
    """Delete the rows that had died by a generation."""
    delete = f"DELETE FROM entries_{number} WHERE died <= %s RETURNING row"
    if dead := connection.execute(delete, [generation]).fetchall():
        connection.execute(f"DELETE FROM {DATA[kind]}_{number} WHERE row = ANY(%s)", [[row for (row,) in dead]])


def drop(connection: Connection, shards: Shards, number: int, kind: str) -> None:
    """Delete a place for good."""
    shards.drop(connection, f"{DATA[kind]}_{number}")
    connection.execute(f"DROP TABLE {DATA[kind]}_{number}, entries_{number}")


def ranked(rows: Sequence[tuple[str, float]]) -> Ranking:
    """Ids and scores as a ranking."""
    return Ranking.of([full(id) for id, _ in rows], np.array([score for _, score in rows], np.float32))

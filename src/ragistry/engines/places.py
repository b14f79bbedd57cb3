"""Indexes in PostgreSQL: tables of vectors or postings, searched as they were at one generation.

An index has a *place*, a number p. `entries_p` has a row for each vector ever added: its id, the generations it was born and
died in, and the length of what was counted. `vectors_p` has the vector (pgvector), or `postings_p` the terms. The rows of
these never change, so a graph over them needs no repair when an id is replaced.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from psycopg import DataError

from ..indexes.weighting import LOGARITHMIC, SATURATING, Statistics, Weighting
from ..protocols import State
from ..types import Among, Floats, Ints, Kind, Ranking, Vectors
from .documents import VISIBLE, Passing, check_kept, together
from .server import Connection, Server
from .wire import Vector, bare, copy_postings, copy_rows, copy_vectors, full, vectors_of

EXACT = 10_000
"""So many vectors, of the index or of those allowed, are compared exactly; of more, a graph proposes candidates."""
_ENTRIES = """
    CREATE TABLE entries_{0} (
        row bigint PRIMARY KEY, born bigint NOT NULL, died bigint, id text COLLATE "C" NOT NULL, length real NOT NULL
    );
    CREATE UNIQUE INDEX ON entries_{0} (id, born);
    CREATE INDEX ON entries_{0} (died) WHERE died IS NOT NULL;
"""
_VISIBLE = VISIBLE.replace("born", "e.born").replace("died", "e.died")
_PAGE = 1900  # dimensions that fit the row; longer vectors are kept apart from it
_GRAPH = 4000  # dimensions of the longest vectors that a graph takes
_LINKS, _BUILDING, _ASKING = 24, 200, 400  # of a graph: pgvector's own (16, 64, 40) lose many where vectors lie close
_REMEMBERED = 1 << 16  # terms
_DATA = {"dense": "vectors", "sparse": "postings"}


@dataclass(frozen=True, kw_only=True)
class Place:
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
        select = f"SELECT e.id FROM entries_{self.number} e WHERE e.id = ANY(%s) AND {_VISIBLE}"
        return {full(id) for (id,) in self._ask([(select, [list(map(bare, ids)), *self._visible])])[0]}

    def ids(self) -> list[str]:
        """All that are held, in order of insertion."""
        select = f"SELECT e.id FROM entries_{self.number} e WHERE {_VISIBLE} ORDER BY e.row"
        return [full(id) for (id,) in self._ask([(select, self._visible)])[0]]

    def settle(self, connection: Connection) -> None:
        """Let the planner know of many new rows at once."""
        for table in (f"entries_{self.number}", f"{_DATA[self.kind]}_{self.number}"):
            known = connection.execute("SELECT reltuples FROM pg_class WHERE oid = to_regclass(%s)", [table]).fetchone()
            if known is not None and 2 * known[0] < self.count:
                connection.execute(f"ANALYZE {table}")

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
        if among is None:
            allowed = self.count
        else:
            allowed = among.count if isinstance(among, Passing) else len(among)
        exact = not self.graph or allowed <= max(k, EXACT) or self.width > _GRAPH
        found: list[list[Any]] = [[] for _ in queries] if exact else self._proposed(queries, k, among)
        least = min(k, allowed)  # where the graph finds fewer, the allowed ones are compared
        short = [number for number, rows in enumerate(found) if len(rows) < least]
        again = self._ask([self._exact(queries[number], k, among) for number in short]) if short else []
        for number, rows in zip(short, again, strict=True):
            found[number] = rows
        return [_ranked(rows) for rows in found]

    def vectors(self, ids: Sequence[str]) -> dict[str, Any]:
        """Vectors by id, of those that are held."""
        select = (
            f"SELECT e.id, v.vector FROM entries_{self.number} e JOIN vectors_{self.number} v USING (row) "
            f"WHERE e.id = ANY(%b) AND {_VISIBLE}"
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
            f"WHERE {_VISIBLE} AND {allowed} ORDER BY score DESC, e.id LIMIT %s"
        )
        return sql, [Vector.of(query), *self._visible, *parameters, k]

    def _proposed(self, queries: Floats, k: int, among: Among) -> list[list[Any]]:
        allowed, parameters = self._allowed(among)
        form = f"halfvec({self.width})"
        sql = (
            f"WITH near AS MATERIALIZED (SELECT e.id, v.vector FROM vectors_{self.number} v "
            f"JOIN entries_{self.number} e USING (row) WHERE {_VISIBLE} AND {allowed} "
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
        if not self.graph or self.count <= EXACT or self.width > _GRAPH:
            return
        name, form = f"graph_{self.number}", f"halfvec({self.width})"
        if connection.execute("SELECT to_regclass(%s)", [name]).fetchone() == (None,):
            operators = f"halfvec_{self.metric}_ops"
            connection.execute("SET maintenance_work_mem = '256MB'")
            with contextlib.suppress(DataError):  # too large for half precision: compared exactly
                connection.execute(
                    f"CREATE INDEX {name} ON vectors_{self.number} USING hnsw ((vector::{form}) {operators}) "
                    f"WITH (m = {min(100, self.links)}, ef_construction = {max(_BUILDING, 2 * self.links)})"
                )

    @staticmethod
    def create(connection: Connection, number: int, width: int) -> None:
        """Make the tables."""
        storage = "PLAIN" if width <= _PAGE else "EXTERNAL"
        connection.execute(
            f"{_ENTRIES.format(number)} "
            f"CREATE TABLE vectors_{number} (row bigint PRIMARY KEY, vector vector({width}) NOT NULL); "
            f"ALTER TABLE vectors_{number} ALTER COLUMN vector SET STORAGE {storage}"
        )

    def append(self, connection: Connection, first: int, vectors: Any) -> None:
        """Store vectors [n, width] under rows from `first` on."""
        copy_vectors(connection, f"vectors_{self.number}", np.arange(first, first + len(vectors)), vectors)

    @staticmethod
    def lengths(vectors: Any) -> Floats:
        """Of what is not counted: none."""
        return np.zeros(len(vectors), np.float32)


@dataclass(frozen=True, kw_only=True)
class Sparse(Place):
    """Counts by term, scored by a weighting from the same statistics as the embedded index has."""

    kind = "sparse"
    weighting: Weighting
    _frequencies: dict[int, tuple[int, float]] = field(default_factory=dict, compare=False, repr=False)

    def search(self, queries: Any, k: int, among: Among) -> list[Ranking]:
        """The best `k` of `among` for each row of a CSR array, or its `Counts`."""
        starts, keys, amounts = queries.indptr.tolist(), queries.indices.tolist(), queries.data.tolist()
        known = self._frequency(keys)
        asked = []
        for a, b in itertools.pairwise(starts):
            mine = [(key, amount) for key, amount in zip(keys[a:b], amounts[a:b], strict=True) if key in known]
            asked.append(self._scored(mine, known, k, among) if mine else None)
        rows = iter(self._ask([one for one in asked if one is not None]))
        return [_ranked(next(rows)) if one is not None else _ranked([]) for one in asked]

    def vectors(self, ids: Sequence[str]) -> dict[str, Any]:
        """Terms, rising, and counts by id, of those that are held."""
        select = (
            f"SELECT e.id, array_agg(p.term ORDER BY p.term), array_agg(p.count ORDER BY p.term) "
            f"FROM entries_{self.number} e LEFT JOIN postings_{self.number} p USING (row) "
            f"WHERE e.id = ANY(%s) AND {_VISIBLE} GROUP BY e.row, e.id"
        )
        (rows,) = self._ask([(select, [list(map(bare, ids)), *self._visible])])
        return {
            full(id): (
                np.array([t for t in terms if t is not None], np.int64),
                np.array(counts, np.float32)[: _n(terms)],
            )
            for id, terms, counts in rows
        }

    def joined(self, vectors: Sequence[tuple[Ints, Floats]]) -> Vectors:
        """Several of `vectors` as an index gives them, CSR float32 [n, width]."""
        from scipy.sparse import csr_array

        rows = csr_array((len(vectors), self.width), dtype=np.float32)
        if vectors:
            rows.indptr = np.cumsum([0, *(len(terms) for terms, _ in vectors)], dtype=np.int64)
            rows.indices = np.concatenate([terms for terms, _ in vectors])
            rows.data = np.concatenate([counts for _, counts in vectors])
        return rows

    def _frequency(self, keys: Sequence[int]) -> Mapping[int, tuple[int, float]]:
        """Of each term that documents hold: in how many, and how often in all."""
        known = {key: held for key in keys if (held := self._frequencies.get(key)) is not None}
        unknown = [key for key in dict.fromkeys(keys) if key not in known]
        if unknown:
            select = (
                f"SELECT p.term, count(*), sum(p.count::float8) FROM postings_{self.number} p "
                f"JOIN entries_{self.number} e USING (row) WHERE p.term = ANY(%s) AND {_VISIBLE} GROUP BY p.term"
            )
            (rows,) = self._ask([(select, [unknown, *self._visible])])
            found = dict.fromkeys(unknown, (0, 0.0)) | {term: (documents, times) for term, documents, times in rows}
            known |= found
            if len(self._frequencies) > _REMEMBERED:
                self._frequencies.clear()
            self._frequencies.update(found)
        return {key: held for key, held in known.items() if held[0]}

    def _scored(
        self, terms: Sequence[tuple[int, float]], known: Mapping[int, tuple[int, float]], k: int, among: Among
    ) -> tuple[str, list[Any]]:
        statistics = Statistics(self.count, self.total)
        c0, c1 = self.weighting.constants(statistics)
        weights = [self.weighting.term(statistics, *known[key]) for key, _ in terms]
        keys, amounts = [key for key, _ in terms], [amount for _, amount in terms]
        form = {
            SATURATING: f"t.a * p.count / (p.count + {c0!r}::float8 + {c1!r}::float8 * e.length)",
            LOGARITHMIC: f"ln(1 + t.a * p.count / e.length::float8 ^ {c0!r}::float8)",
        }.get(self.weighting.form, "t.a * p.count")
        score, values = (
            f"sum(t.amount * {form}) + %s::float8",
            [sum(x * y for x, (_, y) in zip(amounts, weights, strict=True))],
        )
        if prior := self.weighting.prior:
            score += f" + %s::float8 * ln({prior!r}::float8 / ({prior!r}::float8 + e.length))"
            values.append(sum(amounts))
        allowed, parameters = self._allowed(among)
        sql = (
            f"SELECT e.id, {score} AS score FROM unnest(%s::bigint[], %s::float8[], %s::float8[]) AS t (term, amount, a) "
            f"JOIN postings_{self.number} p USING (term) JOIN entries_{self.number} e USING (row) "
            f"WHERE {_VISIBLE} AND {allowed} GROUP BY e.row, e.id, e.length ORDER BY score DESC, e.id LIMIT %s"
        )
        return sql, [*values, keys, amounts, [a for a, _ in weights], *self._visible, *parameters, k]

    @staticmethod
    def create(connection: Connection, number: int, width: int) -> None:
        """Make the tables."""
        connection.execute(
            f"{_ENTRIES.format(number)} CREATE TABLE postings_{number} (term bigint NOT NULL, row bigint NOT NULL, "
            f"count real NOT NULL, PRIMARY KEY (term, row) INCLUDE (count)); CREATE INDEX ON postings_{number} (row)"
        )

    def append(self, connection: Connection, first: int, vectors: Any) -> None:
        """Store counts, CSR [n, width], under rows from `first` on."""
        rows = np.repeat(np.arange(first, first + vectors.shape[0]), np.diff(vectors.indptr))
        copy_postings(connection, f"postings_{self.number}", vectors.indices, rows, vectors.data)

    @staticmethod
    def lengths(vectors: Any) -> Floats:
        """How many terms each holds."""
        return np.asarray(vectors.sum(axis=1), np.float32).reshape(-1)


def change(
    place: Dense | Sparse, connection: Connection, gone: Collection[str], ids: Sequence[str], vectors: Any
) -> State:
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
        place.append(connection, last + 1, vectors)
    total = place.total - sum(length for (length,) in lost) + float(lengths.sum(dtype=np.float64))
    return place.state() | {"count": place.count - len(lost) + len(ids), "total": total}


def clear(connection: Connection, number: int, kind: str, generation: int) -> None:
    """Delete the rows that had died by a generation."""
    delete = f"DELETE FROM entries_{number} WHERE died <= %s RETURNING row"
    if dead := connection.execute(delete, [generation]).fetchall():
        connection.execute(f"DELETE FROM {_DATA[kind]}_{number} WHERE row = ANY(%s)", [[row for (row,) in dead]])


def drop(connection: Connection, number: int, kind: str) -> None:
    """Delete a place for good."""
    connection.execute(f"DROP TABLE {_DATA[kind]}_{number}, entries_{number}")


def _n(terms: Sequence[Any]) -> int:
    return 0 if terms[0] is None else len(terms)


def _ranked(rows: Sequence[tuple[str, float]]) -> Ranking:
    return Ranking.of([full(id) for id, _ in rows], np.array([score for _, score in rows], np.float32))

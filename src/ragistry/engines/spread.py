"""Indexes of which the vectors or postings lie on shards, while entries, which say what counts, stay on the first server.

One statement asks all shards, at the same time, for their best. The planner pushes an order and a limit down to a foreign
table, but not through the partitioned one that it belongs to; so each partition is named, with a limit of its own.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from psycopg import DataError

from ..types import Among, Floats
from .counts import Frequencies, Sparse, Terms
from .documents import together
from .places import MEMORY, VISIBLE_ENTRY, Dense, Place
from .server import Connection
from .wire import Vector, bare, copy_rows

_WIDER = 10
"""So many times as many candidates are asked for, at the most, where a filter lets few pass."""


@dataclass(frozen=True, kw_only=True)
class _Spread(Place):
    """What both kinds have in common."""

    def _rows(self, among: Among) -> tuple[str, str, list[Any]]:
        """What a statement begins with; a condition that shards can judge, over `v`; and the parameters of the first.

        The condition is that the entries of rows are visible, and allowed.
        """
        entries, held = f"entries_{self.number} e", "(SELECT {} FROM held)::bigint{}".format
        if among is None:
            last = f"(SELECT max(e.row) FROM {entries} WHERE e.born <= %s)"
            dead = f"ARRAY(SELECT e.row FROM {entries} WHERE e.died <= %s)"
            condition = f"v.row <= {held('last', '')} AND v.row <> ALL({held('dead', '[]')})"
            return f"WITH held AS MATERIALIZED (SELECT {last} AS last, {dead} AS dead)", condition, self._visible
        allowed, parameters = self._allowed(among)
        rows = f"ARRAY(SELECT e.row FROM {entries} WHERE {VISIBLE_ENTRY} AND {allowed})"
        start = f"WITH held AS MATERIALIZED (SELECT {rows} AS rows)"
        return start, f"v.row = ANY({held('rows', '[]')})", [*self._visible, *parameters]


@dataclass(frozen=True, kw_only=True)
class SpreadDense(_Spread, Dense):
    """Dense vectors on shards."""

    def _exact(self, query: Floats, k: int, among: Among) -> tuple[str, list[Any]]:
        start, rows, parameters = self._rows(among)
        # Columns are used below in this order, and all of them: only then is an arm a plain scan, which waits for no other.
        arms = " UNION ALL ".join(
            f"(SELECT v.vector {self._operator} %b::vector AS distance, v.id, v.row FROM {part} v WHERE {rows} "
            f"ORDER BY distance, v.id LIMIT {k:d})"
            for part in self._parts
        )
        score = "-v.distance" if self.metric == "ip" else "-(v.distance * v.distance)"
        sql = (
            f"{start} SELECT v.id, {score} AS score FROM ({arms}) v JOIN entries_{self.number} e USING (row) "
            f"WHERE {VISIBLE_ENTRY} ORDER BY score DESC, v.id LIMIT {k:d}"
        )
        return sql, [*parameters, *[Vector.of(query)] * len(self._parts), *self._visible]

    def _proposed(self, queries: Floats, k: int, among: Among) -> list[list[Any]]:
        selects = [self._near(query, k, among) for query in queries]
        least = 0 if among is None else 2 * k  # fewer tell little about those that are allowed

        def found(connection: Connection) -> list[list[Any]]:
            try:
                return together(connection, selects, self.generation)
            except DataError:  # too large for half precision
                connection.close()  # see `Server.connection`
                return [[] for _ in queries]

        return [rows[:k] if len(rows) >= least else [] for rows in self.server.ask(found)]

    def _near(self, query: Floats, k: int, among: Among) -> tuple[str, list[Any]]:
        """A statement for what the graphs propose, twice as many as are wanted."""
        allowed, allowing = self._allowed(among)
        start, rows, parameters = self._rows(None)
        form = f"halfvec({self.width})"
        wider = min(_WIDER, self.count / max(1, self._count(among)))
        arms = " UNION ALL ".join(
            f"(SELECT v.vector, v.vector::{form} {self._operator} %b::vector::{form} AS near, v.row FROM {part} v "
            f"WHERE {rows} ORDER BY near LIMIT {int((2 * k + 40) * wider):d})"
            for part in self._parts
        )
        sql = (
            f"{start} SELECT e.id, {self._score('%b::vector')} AS score FROM ({arms}) v "
            f"JOIN entries_{self.number} e USING (row) WHERE {VISIBLE_ENTRY} AND {allowed} "
            f"ORDER BY score DESC, e.id, v.near LIMIT {2 * k:d}"
        )
        vectors = [Vector.of(query)] * (len(self._parts) + (1 if self.metric == "ip" else 2))
        return sql, [*parameters, *vectors, *self._visible, *allowing]

    def settle(self, connection: Connection) -> None:
        """Build the graphs, once there are vectors enough."""
        self._analyse(connection, f"entries_{self.number}")
        if not self._needs_graph:
            return
        shards = self.server.shards
        with contextlib.suppress(DataError):  # too large for half precision: compared exactly
            shards.everywhere(connection, [self._built(f"{shards.schema}.{part}") for part in self._parts])

    def _built(self, table: str) -> str:
        """The statement that has a shard build its graph, if it has none."""
        schema, _, name = table.partition(".")
        graph = name.replace("vectors", "graph")
        return (
            f"DO $$ BEGIN IF to_regclass('{schema}.{graph}') IS NULL THEN SET LOCAL maintenance_work_mem = '{MEMORY}'; "
            f"{self._graph(graph, table)}; ANALYZE {table}; END IF; END $$"
        )

    @property
    def _layout(self) -> tuple[str, str]:
        columns, keys = super()._layout
        return f'{columns}, id text COLLATE "C" NOT NULL', keys  # which breaks ties

    def append(self, connection: Connection, first: int, ids: Sequence[str], vectors: Any) -> None:
        """Store vectors [n, width] under rows from `first` on."""
        rows = ((first + i, bare(id), Vector.of(vectors[i])) for i, id in enumerate(ids))
        copy_rows(connection, f"vectors_{self.number} (row, id, vector)", ("int8", "text", "bytea"), rows)


@dataclass(frozen=True, kw_only=True)
class SpreadSparse(_Spread, Sparse):
    """Counts by term on shards, each with the length of its document, so that scores are summed up where they lie."""

    def _best(self, asked: Sequence[Terms], known: Frequencies, k: int, among: Among) -> list[list[Any]]:
        limit = 2 * k + 20
        found = self._ask([self._arms(terms, known, among, limit=limit) for terms in asked])
        tied = {number: least for number, rows in enumerate(found) if (least := _tied(rows, k, limit)) is not None}
        again = self._ask([self._arms(asked[number], known, among, least=least) for number, least in tied.items()])
        for number, rows in zip(tied, again, strict=True):
            found[number] = rows
        return [sorted(((id, score) for id, score, _ in rows), key=_order)[:k] for rows in found]

    def _arms(
        self, terms: Terms, known: Frequencies, among: Among, *, limit: int | None = None, least: float | None = None
    ) -> tuple[str, list[Any]]:
        """A statement for ids, scores and shards of the best few of each shard, or of all that have a score."""
        weights, keys = self._weights(terms, known), [key for key, _ in terms]

        def of_term(values: Sequence[float]) -> str:
            return f"('{_array(values)}'::float8[])[array_position('{_array(keys)}'::bigint[], v.term)]"

        amount, a = of_term([float(amount) for _, amount in terms]), of_term([float(a) for a, _ in weights])
        score, values = self._formula(terms, weights, amount, a, "v.count", "v.length")
        start, rows, parameters = self._rows(among)
        best, ending = f"ORDER BY score DESC LIMIT {limit}", []
        if least is not None:
            best, ending = f"HAVING {score} >= %s::float8", [*values, least]
        arms = " UNION ALL ".join(
            f"(SELECT {score} AS score, {number} AS part, v.row FROM {part} v WHERE v.term = ANY(%s) AND {rows} "
            f"GROUP BY v.row {best})"
            for number, part in enumerate(self._parts)
        )
        named = f"JOIN entries_{self.number} e USING (row) WHERE {VISIBLE_ENTRY}"
        sql = f"{start} SELECT e.id, v.score, v.part FROM ({arms}) v {named}"
        return sql, [*parameters, *[*values, keys, *ending] * len(self._parts), *self._visible]

    def _counted(self, terms: Sequence[int]) -> tuple[str, list[Any]]:
        start, rows, parameters = self._rows(None)
        arms = " UNION ALL ".join(
            f"(SELECT v.term, count(*) AS documents, sum(v.count::float8) AS times FROM {part} v "
            f"WHERE v.term = ANY(%s) AND {rows} GROUP BY v.term)"
            for part in self._parts
        )
        sql = f"{start} SELECT v.term, sum(v.documents)::bigint, sum(v.times) FROM ({arms}) v GROUP BY v.term"
        return sql, [*parameters, *[terms] * len(self._parts)]

    def settle(self, connection: Connection) -> None:
        """Let the planners know of many new rows at once."""
        if self._analyse(connection, f"entries_{self.number}"):
            shards = self.server.shards
            shards.everywhere(connection, [f"ANALYZE {shards.schema}.{part}" for part in self._parts])
            for part in self._parts:
                connection.execute(f"ANALYZE {part}")

    @property
    def _layout(self) -> tuple[str, str]:
        columns, keys = super()._layout
        return f"{columns}, length real NOT NULL", keys.replace("(count)", "(count, length)")

    def append(self, connection: Connection, first: int, ids: Sequence[str], vectors: Any) -> None:
        """Store counts, CSR [n, width], under rows from `first` on."""
        lengths, held = self.lengths(vectors), np.diff(vectors.indptr)
        numbers = np.repeat(np.arange(len(held)), held)
        columns = (vectors.indices, first + numbers, vectors.data, lengths[numbers])
        rows = zip(*(column.tolist() for column in columns), strict=True)
        types = ("int8", "int8", "float4", "float4")
        copy_rows(connection, f"postings_{self.number} (term, row, count, length)", types, rows)


def _tied(rows: Sequence[Any], k: int, limit: int) -> float | None:
    """The score of the last of the best `k`, or a little less, if a shard may have more of that score than it gave."""
    last = sorted((np.float32(score) for _, score, _ in rows), reverse=True)[k - 1 : k]
    given = Counter(part for _, score, part in rows if np.float32(score) >= last[0]) if last else Counter()
    return float(last[0]) - 1e-6 * (1 + abs(float(last[0]))) if limit in given.values() else None


def _order(row: tuple[str, float]) -> tuple[float, str]:
    """Best first, as single precision tells scores apart; then by id."""
    return -float(np.float32(row[1])), row[0]


def _array(values: Sequence[float]) -> str:
    return f"{{{','.join(map(repr, values))}}}"

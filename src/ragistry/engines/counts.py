"""Counts by term in PostgreSQL: see `places`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from ..indexes.weighting import LOGARITHMIC, SATURATING, Statistics, Weighting
from ..types import Among, Floats, Ints, Ranking, Vectors
from .places import VISIBLE_ENTRY, Place, ranked
from .server import Connection
from .wire import bare, copy_postings, full

_REMEMBERED = 1 << 16  # terms

Terms: TypeAlias = Sequence[tuple[int, float]]
"""Of a query, with their weights in it."""
Frequencies: TypeAlias = Mapping[int, tuple[int, float]]
"""Of terms: in how many documents they are, and how often in all."""


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
        asked = [
            [(key, amount) for key, amount in zip(keys[a:b], amounts[a:b], strict=True) if key in known]
            for a, b in itertools.pairwise(starts)
        ]
        rows = iter(self._best([terms for terms in asked if terms], known, k, among))
        return [ranked(next(rows) if terms else []) for terms in asked]

    def _best(self, asked: Sequence[Terms], known: Frequencies, k: int, among: Among) -> list[list[Any]]:
        """Ids and scores of the best `k` for the terms of each query."""
        return self._ask([self._scored(terms, known, k, among) for terms in asked])

    def vectors(self, ids: Sequence[str]) -> dict[str, Any]:
        """Terms, rising, and counts by id, of those that are held."""
        held = f"FROM entries_{self.number} e WHERE e.id = ANY(%s) AND {VISIBLE_ENTRY}"
        select = (
            "SELECT e.id, array_agg(p.term ORDER BY p.term), array_agg(p.count ORDER BY p.term) "
            f"FROM (SELECT e.row, e.id {held}) e LEFT JOIN postings_{self.number} p "
            f"ON p.row = e.row AND p.row = ANY(ARRAY(SELECT e.row {held})) GROUP BY e.row, e.id"
        )
        (rows,) = self._ask([(select, [list(map(bare, ids)), *self._visible] * 2)])
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

    def _frequency(self, keys: Sequence[int]) -> Frequencies:
        """Of each term that documents hold: in how many, and how often in all."""
        known = {key: held for key in keys if (held := self._frequencies.get(key)) is not None}
        unknown = [key for key in dict.fromkeys(keys) if key not in known]
        if unknown:
            (rows,) = self._ask([self._counted(unknown)])
            found = dict.fromkeys(unknown, (0, 0.0)) | {term: (documents, times) for term, documents, times in rows}
            known |= found
            if len(self._frequencies) > _REMEMBERED:
                self._frequencies.clear()
            self._frequencies.update(found)
        return {key: held for key, held in known.items() if held[0]}

    def _counted(self, terms: Sequence[int]) -> tuple[str, list[Any]]:
        select = (
            f"SELECT p.term, count(*), sum(p.count::float8) FROM postings_{self.number} p "
            f"JOIN entries_{self.number} e USING (row) WHERE p.term = ANY(%s) AND {VISIBLE_ENTRY} GROUP BY p.term"
        )
        return select, [terms, *self._visible]

    def _scored(self, terms: Terms, known: Frequencies, k: int, among: Among) -> tuple[str, list[Any]]:
        weights = self._weights(terms, known)
        score, values = self._formula(terms, weights, "t.amount", "t.a", "p.count", "e.length")
        keys, amounts = [key for key, _ in terms], [amount for _, amount in terms]
        allowed, parameters = self._allowed(among)
        sql = (
            f"SELECT e.id, {score} AS score FROM unnest(%s::bigint[], %s::float8[], %s::float8[]) AS t (term, amount, a) "
            f"JOIN postings_{self.number} p USING (term) JOIN entries_{self.number} e USING (row) "
            f"WHERE {VISIBLE_ENTRY} AND {allowed} GROUP BY e.row, e.id ORDER BY score DESC, e.id LIMIT %s"
        )
        return sql, [*values, keys, amounts, [a for a, _ in weights], *self._visible, *parameters, k]

    def _weights(self, terms: Terms, known: Frequencies) -> list[tuple[float, float]]:
        """Of each term: what its counts weigh, and what is added without them."""
        statistics = Statistics(self.count, self.total)
        return [self.weighting.term(statistics, *known[key]) for key, _ in terms]

    def _formula(
        self, terms: Terms, weights: Sequence[tuple[float, float]], amount: str, a: str, count: str, length: str
    ) -> tuple[str, list[float]]:
        """A score as SQL over postings with these names, to be grouped by document, and its parameters."""
        c0, c1 = self.weighting.constants(Statistics(self.count, self.total))
        form = {
            SATURATING: f"{a} * {count} / ({count} + {c0!r}::float8 + {c1!r}::float8 * {length})",
            LOGARITHMIC: f"ln(1 + {a} * {count} / {length}::float8 ^ {c0!r}::float8)",
        }.get(self.weighting.form, f"{a} * {count}")
        score = f"sum({amount} * {form}) + %s::float8"
        values = [sum(x * y for (_, x), (_, y) in zip(terms, weights, strict=True))]
        if prior := self.weighting.prior:
            score += f" + %s::float8 * ln({prior!r}::float8 / ({prior!r}::float8 + max({length})))"
            values.append(sum(x for _, x in terms))
        return score, values

    @property
    def _whole(self) -> str:
        rows = " UNION ALL ".join(
            f"SELECT row, sum(count::float8) AS length FROM {part} GROUP BY row" for part in self._parts
        )
        return (
            f"FROM entries_{self.number} e LEFT JOIN ({rows}) p USING (row) "
            "WHERE abs(coalesce(p.length, 0) - e.length) <= 1e-4 * (1 + e.length)"
        )

    @property
    def _layout(self) -> tuple[str, str]:
        keys = "ALTER TABLE {0} ADD PRIMARY KEY (term, row) INCLUDE (count); CREATE INDEX ON {0} (row)"
        return "term bigint NOT NULL, row bigint NOT NULL, count real NOT NULL", keys

    def append(self, connection: Connection, first: int, ids: Sequence[str], vectors: Any) -> None:
        """Store counts, CSR [n, width], under rows from `first` on."""
        rows = np.repeat(np.arange(first, first + vectors.shape[0]), np.diff(vectors.indptr))
        copy_postings(connection, f"postings_{self.number}", vectors.indices, rows, vectors.data)

    @staticmethod
    def lengths(vectors: Any) -> Floats:
        """How many terms each holds."""
        return np.asarray(vectors.sum(axis=1), np.float32).reshape(-1)


def _n(terms: Sequence[Any]) -> int:
    return 0 if terms[0] is None else len(terms)

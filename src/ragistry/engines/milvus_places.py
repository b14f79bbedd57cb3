"""Indexes of dense vectors in Milvus, searched as they were at one generation.

An index has a *place*, a number p: the collection of Milvus `place_p`, a `Log` whose rows have an id and a vector. Up to
`EXACT` vectors are compared exactly; of more, a graph proposes, for which they move to a new place, made for that.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from ..errors import StorageError
from ..protocols import Files, State
from ..types import Among, Floats, Kind, Ranking
from .milvus_files import Arrays, Objects
from .milvus_log import Log, key_of
from .milvus_server import LONGEST, MOST, Row, Server

EXACT = 10_000
"""So many vectors are compared exactly; of more, a graph proposes candidates."""
FEW, MANY = 2000, 10_000
"""So many allowed vectors are fetched and compared here; so many are named in a condition."""
PREFIX = "place_"
_LINKS, _BUILDING, _ASKING = 24, 200, 400  # of a graph
_BYTES = 16 << 20  # of one answer
_QUERIES = 1000  # in one question
_TIES = 20


@dataclass(frozen=True, kw_only=True)
class Dense:
    """Vectors of one index at one generation. Immutable, as rows of that generation are.

    `metric` is `ip` or `l2`; `graph` says whether there is one, and `ef` how many of its nodes are kept in view.
    """

    kind: ClassVar[Kind] = "dense"
    objects: Objects
    log: Log
    number: int
    generation: int
    width: int
    count: int
    metric: str
    graph: bool
    ef: int | None

    def state(self) -> State:
        """What a manifest keeps of it."""
        shape = {"width": self.width, "count": self.count, "graph": self.graph}
        return {"place": self.number, **shape, "log": self.log.state()}

    def search(self, queries: Floats, k: int, among: Among) -> list[Ranking]:
        """The nearest `k` of `among` for each query."""
        self.objects.check_readable(self.generation)
        if among is None:
            return self._streamed(queries, k, None) if k + _TIES > MOST else self._nearest(queries, k, None)
        allowed = {id for id in among if isinstance(id, str)}
        if len(allowed) <= (FEW if self.graph else k):
            return self._compared(queries, k, allowed)
        found = self._nearest(queries, k, allowed) if k + _TIES <= MOST else [_ranked([], [], k)] * len(queries)
        short = [i for i, ranking in enumerate(found) if len(ranking) < min(k, len(allowed))]
        for i, ranking in zip(short, self._streamed(queries[short], k, allowed) if short else [], strict=True):
            found[i] = ranking
        return found

    def vectors(self, ids: Sequence[str]) -> dict[str, Any]:
        """Vectors by id, of those that are held."""
        self.objects.check_readable(self.generation)
        wanted = set(ids)
        rows = self.log.find("key", list(map(key_of, wanted)), ["id", "vector"], self._most)
        return {row["id"]: np.array(row["vector"], np.float32) for row in rows if row["id"] in wanted}

    def joined(self, vectors: Sequence[Floats]) -> Floats:
        """Several of `vectors` as an index gives them, float32 [n, width]."""
        return np.stack(vectors) if vectors else np.empty((0, self.width), np.float32)

    def present(self, ids: Collection[str]) -> set[str]:
        """Those of the ids that are held."""
        return {row["id"] for row in self.rows(ids)}

    def rows(self, ids: Collection[str]) -> list[Row]:
        """The rows of those of the ids that are held."""
        self.objects.check_readable(self.generation)
        wanted = {id for id in ids if isinstance(id, str)}
        return [row for row in self.log.find("key", list(map(key_of, wanted)), ["id"]) if row["id"] in wanted]

    def ids(self) -> list[str]:
        """All that are held, in order of insertion."""
        return [row["id"] for page in self._pages(["id"], 4000) for row in page]

    def settle(self, connection: Any) -> None:
        """Nothing: Milvus builds graphs by itself."""

    @property
    def _most(self) -> int:
        return max(16, min(MOST, _BYTES // (4 * self.width + 100)))

    def _pages(self, fields: Sequence[str], most: int) -> Iterator[list[Row]]:
        for page in self.log.pages(fields, most):
            self.objects.check_readable(self.generation)
            yield page

    def _nearest(self, queries: Floats, k: int, allowed: set[str] | None) -> list[Ranking]:
        """The best that Milvus proposes, by exact scores; where equal ones may have been cut off, more are asked for."""
        condition, limit = self.log.condition, min(k + _TIES, MOST)
        if allowed is not None and len(allowed) <= MANY:
            condition += f" and key in {sorted(map(key_of, allowed))}"
        elif allowed is not None:  # too many to name: enough are looked at for as many as needed to be among them
            limit = min(MOST, (k + _TIES) * max(1, 2 * self.count // len(allowed)))
        effort = max(self.ef or _ASKING, 4 * k + 60) if self.graph else None
        found: list[Ranking] = []
        step = max(1, min(_QUERIES, 100_000 // limit))
        for first in range(0, len(queries), step):
            some = queries[first : first + step]
            for i, hits in enumerate(self.log.server.search(
                self.log.name, some, condition, limit, self.log.stamp, effort
            )):  # fmt: skip
                distances = [hit["distance"] for hit in hits]
                wider = limit
                while len(distances) == wider < MOST and distances[-1] == distances[min(k, len(distances)) - 1]:
                    wider = min(4 * wider, MOST)
                    (hits,) = self.log.server.search(
                        self.log.name, some[i : i + 1], condition, wider, self.log.stamp, effort
                    )
                    distances = [hit["distance"] for hit in hits]
                ids = [hit["entity"]["id"] for hit in hits]
                kept = [n for n, id in enumerate(ids) if allowed is None or id in allowed]
                scores = np.array([distances[n] for n in kept], np.float32)
                found.append(_ranked([ids[n] for n in kept], scores if self.metric == "ip" else -scores, k))
        return found

    def _compared(self, queries: Floats, k: int, allowed: set[str]) -> list[Ranking]:
        """The best of a few, compared here."""
        held = self.vectors(sorted(allowed))
        scores = self._scores(queries, self.joined(list(held.values())))
        return [_ranked(list(held), row, k) for row in scores]

    def _streamed(self, queries: Floats, k: int, allowed: set[str] | None) -> list[Ranking]:
        """The best of all, compared here, some at a time."""
        best: list[tuple[list[str], Any]] = [([], np.empty(0, np.float32)) for _ in queries]
        for page in self._pages(["id", "vector"], self._most):
            rows = [row for row in page if allowed is None or row["id"] in allowed]
            scores = self._scores(queries, self.joined([np.array(row["vector"], np.float32) for row in rows]))
            ids = [row["id"] for row in rows]
            for i, mine in enumerate(scores):
                ranking = _ranked(best[i][0] + ids, np.concatenate([best[i][1], mine]), k)
                best[i] = list(ranking.ids), ranking.scores
        return [_ranked(ids, scores, k) for ids, scores in best]

    def _scores(self, queries: Floats, vectors: Floats) -> Floats:
        if self.metric == "ip":
            return np.asarray(queries @ vectors.T, np.float32)
        return np.stack([-np.square(vectors - query).sum(axis=1, dtype=np.float32) for query in queries])


class Places:
    """Milvus as a keeper of places: see `placed.Home`."""

    def __init__(self, server: Server, objects: Objects) -> None:
        self._server, self._objects = server, objects

    def takes(self, files: Files) -> bool:
        """Whether a generation is being made there."""
        return isinstance(files, Arrays) and files.there is not None and files.objects is self._objects

    def opened(self, empty: Any, state: State, files: Files) -> Dense:
        """The place that a state tells of, compared as by an empty index of the ordinary kind."""
        if not isinstance(files, Arrays):
            raise StorageError("the index is in a database and cannot be read from files; copy the collection instead")
        return Dense(
            objects=self._objects,
            log=Log.of(self._server, f"{PREFIX}{state['place']}", state["log"], files.stamp),
            number=int(state["place"]),
            generation=files.generation,
            width=int(state["width"]),
            count=int(state["count"]),
            graph=bool(state["graph"]),
            metric=empty._factory.metric,
            ef=empty._factory.ef,
        )

    def changed(
        self, empty: Any, place: Any, files: Any, gone: Collection[str], ids: Sequence[str], vectors: Any
    ) -> State:
        """Take vectors out of a place, or a new one, and put others in; the state of what there is then.

        Raises:
            InvalidInput: If an id is too long for Milvus.
        """
        known: Dense | None = place
        many = (known.count if known else 0) - len(gone) + len(ids) > EXACT and empty._factory.approximate
        if known is not None and (known.graph or not many):
            dead = [row["row"] for row in known.rows(gone)] if gone else []
            before = replace(known, log=known.log.cleared(files.oldest), count=known.count - len(dead))
        else:
            before = self._made(empty, int(vectors.shape[1]) if known is None else known.width, many, files)
            dead = []
            if known is not None:
                moved = (row for page in known._pages(["key", "id", "vector"], known._most) for row in page)
                kept = ({**row, "row": 0} for row in moved if row["id"] not in gone)
                log = before.log.appended(kept)
                before = replace(before, log=log, count=log.next)
        rows = (
            {"key": key_of(id), "id": id, "vector": vector}
            for id, vector in zip(ids, np.asarray(vectors, np.float32), strict=True)
        )
        log = before.log.appended(rows).buried(dead, files.generation, files.now)
        files.stamp = max(files.stamp, log.stamp)
        return replace(before, log=log, count=before.count + len(ids)).state()

    def _made(self, empty: Any, width: int, graph: bool, files: Any) -> Dense:
        """A new place."""
        taken = [int(name.removeprefix(PREFIX)) for name in self._server.names() if name.startswith(PREFIX)]
        number = max(taken, default=0) + 1
        found = re.match(r"(?:.*,)?HNSW(\d+)", empty._factory.name)
        links = min(64, max(2, int(found[1]) if found else _LINKS))
        index: dict[str, Any] = {"index_type": "FLAT"}
        if graph:
            index = {"index_type": "HNSW", "params": {"M": links, "efConstruction": max(_BUILDING, 2 * links)}}
        fields: dict[str, dict[str, Any]] = {
            "row": {"type": "INT64"},
            "key": {"type": "INT64"},
            "id": {"type": "VARCHAR", "max_length": LONGEST},
            "vector": {"type": "FLOAT_VECTOR", "dim": width},
        }
        self._server.create(f"{PREFIX}{number}", fields, {**index, "metric_type": empty._factory.metric.upper()})
        nothing: State = {"next": 0, "graves": []}
        state = {"place": number, "width": width, "count": 0, "graph": graph, "log": nothing}
        return self.opened(empty, state, files)


def _ranked(ids: Sequence[str], scores: Any, k: int) -> Ranking:
    return Ranking.of(ids, np.asarray(scores, np.float32), k)

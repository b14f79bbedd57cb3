"""PostgreSQL as a keeper of places: see `placed.Home`."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from ..errors import StorageError
from ..protocols import Files, State
from .arrays import Arrays
from .counts import Sparse
from .places import Dense, change
from .server import Server
from .spread import SpreadDense, SpreadSparse


class Tables:
    """PostgreSQL as a keeper of places."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def takes(self, files: Files) -> bool:
        """Whether a generation is being made there."""
        return isinstance(files, Arrays) and files.connection is not None and files.server is self._server

    def opened(self, empty: Any, state: State, files: Files) -> Dense | Sparse:
        """The place that a state tells of, compared as by an empty index of the ordinary kind."""
        if not isinstance(files, Arrays):
            raise StorageError("the index is in a database and cannot be read from files; copy the collection instead")
        shared: dict[str, Any] = {
            "server": files.server,
            "number": int(state["place"]),
            "generation": files.generation,
            "width": int(state["width"]),
            "count": int(state["count"]),
            "total": float(state["total"]),
        }
        spread = bool(files.server.shards)
        if empty.kind == "sparse":
            return (SpreadSparse if spread else Sparse)(weighting=empty.weighting, **shared)
        factory = empty._factory
        found = re.match(r"(?:.*,)?HNSW(\d+)", factory.name)
        links = int(found[1]) if found else Dense.links
        kind = SpreadDense if spread else Dense
        return kind(metric=factory.metric, graph=factory.approximate, links=links, ef=factory.ef, **shared)

    def changed(
        self, empty: Any, place: Any, files: Any, gone: Collection[str], ids: Sequence[str], vectors: Any
    ) -> State:
        """Take vectors out of a place, or a new one, and put others in; the state of what there is then."""
        connection = files.connection
        if place is None:
            width = int(vectors.shape[1])
            ((number,),) = connection.execute("INSERT INTO places (kind) VALUES (%s) RETURNING place", [empty.kind])
            place = self.opened(empty, {"place": number, "width": width, "count": 0, "total": 0.0}, files)
            place.create(connection)
        return change(replace(place, generation=files.generation), connection, gone, ids, vectors)

"""The arrays of a retriever in PostgreSQL: named by their content, in pieces, and kept in a local folder once read."""

from __future__ import annotations

import copy
from collections.abc import Collection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

import numpy.typing as npt

from ..errors import Corrupt
from ..storage import ArrayFiles, write_file

if TYPE_CHECKING:
    from .server import Connection, Server

TABLE = """
    CREATE TABLE arrays (name text NOT NULL, piece integer NOT NULL, content bytea NOT NULL, PRIMARY KEY (name, piece))
"""
_PIECE = 1 << 24


class Arrays(ArrayFiles):
    """Write-once arrays in the database, of one generation; `connection` is there while that one is being made."""

    def __init__(self, server: Server) -> None:
        self._folder = TemporaryDirectory(prefix="ragistry-", ignore_cleanup_errors=True)
        super().__init__(Path(self._folder.name))
        self.server, self.generation = server, 0
        self.connection: Connection | None = None

    def at(self, generation: int, connection: Connection | None = None) -> Self:
        """The same arrays for a generation: one that is read or, with a connection, one that is made in its transaction."""
        twin = copy.copy(self)
        twin.generation, twin.connection = generation, connection
        return twin

    def put(self, array: npt.NDArray[Any]) -> str:
        """Store an array and return its name; one that is there already is not sent again."""
        name = super().put(array)
        connection = self.connection
        if connection is None:
            return name
        if connection.execute("SELECT 1 FROM arrays WHERE name = %s LIMIT 1", [name]).fetchone() is None:
            content = memoryview((self.directory / name).read_bytes())
            for number, first in enumerate(range(0, len(content), _PIECE)):
                piece = content[first : first + _PIECE]
                connection.execute("INSERT INTO arrays VALUES (%s, %s, %b)", [name, number, piece])
        return name

    def get(self, name: str) -> npt.NDArray[Any]:
        """The array stored under a name, read-only and memory-mapped from the local copy."""
        if not (self.directory / name).exists():
            select = "SELECT content FROM arrays WHERE name = %s ORDER BY piece"
            pieces = self.server.ask(lambda connection: connection.execute(select, [name], binary=True).fetchall())
            if not pieces:
                raise Corrupt(f"{self.server.location!r}: the array {name!r} is missing; restore it, or index again")
            write_file(self.directory / name, b"".join(piece for (piece,) in pieces))
        return super().get(name)

    def keep(self, connection: Connection, names: Collection[str]) -> None:
        """Delete all other arrays, as part of a transaction."""
        connection.execute("DELETE FROM arrays WHERE name <> ALL(%s)", [list(names)])


def places_in(state: Any) -> set[int]:
    """The numbers of the places that a state refers to.

    Example:
        >>> places_in({"index": {"place": 3, "count": 1}, "members": [{"place": 5}]})
        {3, 5}
    """
    parts: list[Any] = list(state.values()) if isinstance(state, dict) else state if isinstance(state, list) else []
    own = {int(state["place"])} if isinstance(state, dict) and isinstance(state.get("place"), int) else set()
    return own.union(*map(places_in, parts))

"""What a collection in Milvus keeps by name: one row for each committed generation, and files in pieces.

state-GENERATION   what is committed, one row: it is there at once or not at all
writer-OWNER-BEAT  somebody writes (see `milvus_lease`)
file-NAME/PIECE    arrays of retrievers and manifests, named by their content
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Self

import numpy.typing as npt

from ..errors import Corrupt, StorageError
from ..storage import FORMAT, ArrayFiles, write_file
from .milvus_server import LONGEST, MOST, Row, Server, batches

NAME = "objects"
GRACE = 60.0
"""Seconds for which what was deleted can still be read by those who had begun to."""
_FIELDS = {
    "name": {"type": "VARCHAR", "max_length": 255},
    "content": {"type": "VARCHAR", "max_length": LONGEST},
    "vector": {"type": "FLOAT_VECTOR", "dim": 2},
}
FLAT = {"index_type": "FLAT", "metric_type": "IP"}
NO_VECTOR = [0.0, 0.0]  # a collection of Milvus cannot be without
_PIECE = 48_000  # bytes, which base64 makes 64,000 characters of
_AT_ONCE = 200


class Latest(NamedTuple):
    """A committed generation: its manifest's name, a stamp (see `Log`), and the last generation in which anything died."""

    generation: int
    manifest: str
    stamp: int
    deaths: int


class Objects:
    """Contents by name, none of them ever changed."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._readable: dict[int, float] = {}

    def make(self) -> None:
        """Make the collection of Milvus."""
        self.server.create(NAME, _FIELDS, FLAT)

    def put(self, name: str, content: str) -> int:
        """Store something and return a stamp."""
        return self.server.insert(NAME, [_row(name, content)])

    def drop(self, names: Sequence[str]) -> None:
        """Delete some; those that are not there are passed over."""
        for first in range(0, len(names), _AT_ONCE):
            self.server.delete(NAME, f"name in {json.dumps(list(names[first : first + _AT_ONCE]))}")

    def beginning(self, prefix: str, stamp: int | None = None) -> list[str]:
        """The names that begin so, in order."""
        rows = self.server.query(NAME, f'name like "{prefix}%"', ["name"], MOST, stamp)
        return sorted(str(row["name"]) for row in rows)

    def latest(self, *, surely: bool = False) -> Latest:
        """The latest committed generation: as new as the address asks for, or `surely` the latest."""
        began, fields, condition = time.monotonic(), ["name", "content"], 'name like "state-%"'
        rows = (
            self.server.query(NAME, condition, fields, MOST) if surely else self.server.latest(NAME, condition, fields)
        )
        if not rows:
            raise StorageError(
                f"{self.server.location!r} is not a collection (any more); create one with Collection.create or "
                "`ragistry index`"
            )
        row = max(rows, key=lambda row: str(row["name"]))
        held = json.loads(row["content"])
        if held.get("format") != FORMAT:
            raise Corrupt(
                f"{self.server.location!r} has format {held.get('format')!r}, this version of Ragistry reads format "
                f"{FORMAT}; index again, or use the version that wrote it"
            )
        found = Latest(int(row["name"].removeprefix("state-")), held["manifest"], held["stamp"], held["deaths"])
        self._readable = {g: at for g, at in self._readable.items() if began - at < GRACE} | {found.generation: began}
        return found

    def check_readable(self, generation: int) -> None:
        """Refuse a generation of which rows may have been deleted: one that was not the latest within the time of grace."""
        known = self._readable.get(generation)
        if known is not None and time.monotonic() - known < GRACE / 2:
            return
        latest = self.latest(surely=True)
        if latest.generation != generation and latest.deaths > generation:
            raise StorageError(f"generation {generation} of the collection has been cleared away; open the latest")
        self._readable[generation] = time.monotonic()

    def commit(self, latest: Latest) -> None:
        """Make a generation the latest."""
        content = {"format": FORMAT, "manifest": latest.manifest, "stamp": latest.stamp, "deaths": latest.deaths}
        self.put(state_name(latest.generation), json.dumps(content))
        self._readable[latest.generation] = time.monotonic()

    def write(self, name: str, content: bytes) -> int:
        """Store a file in pieces and return a stamp."""
        rows = (
            _row(_piece(name, first), base64.b64encode(content[first : first + _PIECE]).decode())
            for first in range(0, len(content), _PIECE)
        )
        return max((self.server.insert(NAME, some) for some in batches(rows)), default=0)

    def read(self, name: str, stamp: int) -> bytes:
        """A file, of which the name begins with its checksum.

        Raises:
            Corrupt: If it is missing or damaged.
        """
        names = self.beginning(f"file-{name}/", stamp)
        parts: dict[str, str] = {}
        for first in range(0, len(names), _AT_ONCE):
            condition = f"name in {json.dumps(names[first : first + _AT_ONCE])}"
            rows = self.server.query(NAME, condition, ["name", "content"], MOST, stamp)
            parts |= {row["name"]: row["content"] for row in rows}
        content = b"".join(base64.b64decode(parts[piece]) for piece in sorted(parts))
        if hashlib.sha256(content).hexdigest() != name.partition(".")[0]:
            what = "damaged" if names else "missing"
            raise Corrupt(f"{self.server.location!r}: the file {name!r} is {what}; restore it, or index again")
        return content

    def drop_files(self, sizes: Mapping[str, int]) -> None:
        """Delete files, given their sizes."""
        firsts = ((name, first) for name, size in sizes.items() for first in range(0, size, _PIECE))
        self.drop([_piece(name, first) for name, first in firsts])

    def keep(self, names: Collection[str]) -> list[str]:
        """Delete all other files; the names of their pieces."""
        held = self.beginning("file-")
        gone = [name for name in held if name.removeprefix("file-").partition("/")[0] not in names]
        self.drop(gone)
        return gone


class Arrays(ArrayFiles):
    """Write-once arrays in Milvus, of one generation, kept in a local folder once read.

    While that one is being made, `there` has the names of those that need not be sent, and `now` is its time; `stamp` says
    when the last was written.
    """

    def __init__(self, objects: Objects) -> None:
        self._folder = TemporaryDirectory(prefix="ragistry-", ignore_cleanup_errors=True)
        super().__init__(Path(self._folder.name))
        self.objects, self.generation, self.stamp = objects, 0, 0
        self.there: set[str] | None = None
        self.now = 0.0

    def at(self, generation: int, stamp: int, there: Collection[str] | None = None) -> Self:
        """The same arrays for a generation: one that is read or, with the names that are there, one that is made."""
        twin = copy.copy(self)
        twin.generation, twin.stamp, twin.there = generation, stamp, None if there is None else set(there)
        twin.now = time.time()
        return twin

    @property
    def oldest(self) -> float:
        """When what is deleted for good must have died."""
        return self.now - GRACE

    def put(self, array: npt.NDArray[Any]) -> str:
        """Store an array and return its name; one that is there already is not sent again."""
        name = super().put(array)
        if self.there is not None and name not in self.there:
            self.stamp = max(self.stamp, self.objects.write(name, (self.directory / name).read_bytes()))
            self.there.add(name)
        return name

    def get(self, name: str) -> npt.NDArray[Any]:
        """The array stored under a name, read-only and memory-mapped from the local copy."""
        if not (self.directory / name).exists():
            write_file(self.directory / name, self.objects.read(name, self.stamp))
        return super().get(name)


def state_name(generation: int) -> str:
    """What the row of a generation is called."""
    return f"state-{generation:020}"


def _piece(name: str, first: int) -> str:
    return f"file-{name}/{first // _PIECE:08}"


def _row(name: str, content: str) -> Row:
    return {"name": name, "content": content, "vector": NO_VECTOR}

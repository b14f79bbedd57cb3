"""Texts and numbers in PostgreSQL's binary formats, which cost no more than copying memory."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from psycopg.adapt import Buffer, Dumper, PyFormat
from psycopg.pq import Format

from ..types import Floats, Ints

if TYPE_CHECKING:
    from .server import Connection

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END = b"\xff\xff"
_ESCAPES = str.maketrans({"\0": "\uffff0", "\uffff": "\uffff1"})
_PIECE = 1 << 22


def bare(text: str) -> str:
    """A text without null characters, which PostgreSQL cannot hold; `full` undoes it.

    Example:
        >>> full(bare("a\\0b\\uffff")) == "a\\0b\\uffff", bare("as it is")
        (True, 'as it is')
    """
    return text.translate(_ESCAPES) if "\0" in text or "\uffff" in text else text


def full(text: str) -> str:
    """What `bare` was given."""
    return text.replace("\uffff0", "\0").replace("\uffff1", "\uffff") if "\uffff" in text else text


class Vector(bytes):
    """A vector as a parameter of a statement, in pgvector's binary format."""

    @classmethod
    def of(cls, values: Floats) -> Vector:
        """Of one vector, float32 [dimensions]."""
        return cls(struct.pack(">HH", len(values), 0) + values.astype(">f4").tobytes())


class _Dumper(Dumper):
    """The server knows the type from the statement."""

    format, oid = Format.BINARY, 0

    def dump(self, obj: Any) -> Buffer:
        return bytes(obj)

    def get_key(self, obj: Any, format: PyFormat) -> type:
        return self.cls


def adapt(connection: Connection) -> None:
    """Let a connection take `Vector` as a parameter."""
    connection.adapters.register_dumper(Vector, _Dumper)


def vectors_of(values: Sequence[bytes], dimensions: int) -> Floats:
    """Vectors as a binary cursor gives them, float32 [n, dimensions]."""
    whole = np.frombuffer(b"".join(values), np.uint8).reshape(len(values), 4 + 4 * dimensions)
    return np.ascontiguousarray(whole[:, 4:]).view(">f4").astype(np.float32)


def copy_vectors(connection: Connection, table: str, rows: Ints, vectors: Floats) -> None:
    """Append vectors float32 [n, dimensions] to a table (row bigint, vector vector)."""
    width = vectors.shape[1]
    form = [("fields", ">i2"), ("a", ">i4"), ("row", ">i8"), ("b", ">i4"), ("width", ">i2"), ("no", ">i2")]
    batch = np.zeros(len(rows), [*form, ("vector", ">f4", (width,))])
    batch["fields"], batch["a"], batch["b"], batch["width"] = 2, 8, 4 + 4 * width, width
    batch["row"], batch["vector"] = rows, vectors
    _copy(connection, f"{table} (row, vector)", batch)


def copy_postings(connection: Connection, table: str, terms: Ints, rows: Ints, counts: Floats) -> None:
    """Append postings to a table (term bigint, row bigint, count real)."""
    form = [("fields", ">i2"), ("a", ">i4"), ("term", ">i8"), ("b", ">i4"), ("row", ">i8"), ("c", ">i4")]
    batch = np.zeros(len(rows), [*form, ("count", ">f4")])
    batch["fields"], batch["a"], batch["b"], batch["c"] = 3, 8, 8, 4
    batch["term"], batch["row"], batch["count"] = terms, rows, counts
    _copy(connection, f"{table} (term, row, count)", batch)


def _copy(connection: Connection, into: str, batch: npt.NDArray[Any]) -> None:
    content = memoryview(batch.tobytes())
    with connection.cursor().copy(f"COPY {into} FROM STDIN (FORMAT BINARY)") as copy:
        copy.write(_HEADER)
        for first in range(0, len(content), _PIECE):
            copy.write(content[first : first + _PIECE])
        copy.write(_END)


def copy_rows(connection: Connection, into: str, types: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Append rows of ordinary values to a table, `into` naming it and its columns."""
    with connection.cursor().copy(f"COPY {into} FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(types)
        for row in rows:
            copy.write_row(row)

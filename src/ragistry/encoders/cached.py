"""Vectors of unchanged texts are computed once: a cache in one SQLite file around a dense encoder."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import threading
import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TypeVar, get_args

import numpy as np

from ..errors import InvalidInput
from ..protocols import Encoder
from ..types import Document, Floats, Item, Kind, Role

CHUNK = 4096
"""Items looked up and encoded at a time, which bounds memory and what a crash can lose."""
LONGEST = 2000
"""Characters of a text that count for what encoding it costs."""
APPLICATION = 0x52474356
"""Marks the SQLite file as a cache of vectors, so that no other database is written into."""
CHECK = 8
"""Bytes of checksum kept with each vector."""
_changing_file = threading.Lock()
DOCUMENTS: tuple[Role, ...] = ("document",)
T = TypeVar("T")


@dataclass
class Tally:
    """What encoders with a cache did in a while, by fingerprint.

    Attributes:
        encoded: Texts that were encoded.
        characters: How long they were, those beyond `LONGEST` of a text not counted, as models read no further.
        seconds: What that took.
        reused: How long the texts were whose vectors came from the cache.
    """

    encoded: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    characters: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    reused: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def clear(self) -> None:
        """Count from nothing again."""
        for counts in (self.encoded, self.characters, self.seconds, self.reused):
            counts.clear()


_tally: ContextVar[Tally | None] = ContextVar("tally", default=None)


@contextlib.contextmanager
def tallied() -> Iterator[Tally]:
    """Count what encoders with a cache do in this thread meanwhile: without it, the second retriever over the same
    embeddings would look faster to build than the first.

    Example:
        >>> with tallied() as tally:
        ...     pass
        >>> sum(tally.encoded.values())
        0
    """
    tally = Tally()
    before = _tally.set(tally)
    try:
        yield tally
    finally:
        _tally.reset(before)


class Cached:
    """An encoder that remembers vectors on disk, by the encoder's fingerprint, the role and the text.

    What it returns is what the encoder returned when it first saw the text, bit for bit. The file may be shared by
    encoders, threads and processes. A row that fails its checksum is computed again; a file that is damaged is moved
    aside with a warning; one that cannot be read or written costs a warning and the time to encode.

    Args:
        encoder: A dense encoder.
        path: The SQLite file; it is made when first needed.
        roles: Whose vectors are kept. Queries seldom come twice, so by default only those of documents.

    Raises:
        InvalidInput: If the encoder is not dense, or a role is not known.

    Example:
        >>> import tempfile
        >>> from ragistry.encoders.backbones import stack
        >>> encoder = Cached(stack("all-MiniLM-L6-v2"), tempfile.mkdtemp() + "/vectors.sqlite")
        >>> encoder.encode(["A sonnet has fourteen lines."], "document").shape
        (1, 384)
    """

    kind: Kind = "dense"

    def __init__(self, encoder: Encoder, path: str | os.PathLike[str], roles: Collection[Role] = DOCUMENTS) -> None:
        if encoder.kind != "dense":
            raise InvalidInput(f"the encoder is of kind {encoder.kind!r}; only dense vectors can be cached")
        if unknown := set(roles) - set(get_args(Role)):
            raise InvalidInput(f"roles holds {sorted(unknown)}; the roles are {', '.join(get_args(Role))}")
        self.encoder = encoder
        self.path = Path(path)
        self.roles = frozenset(roles)

    def encode(self, items: Sequence[Item], role: Role) -> Floats:
        """One vector per item, in order: float32 [len(items), dimensions]. Only texts not seen before are encoded."""
        cachable = not isinstance(items, str | Document) and all(isinstance(item, str | Document) for item in items)
        if role not in self.roles or not cachable or not items:
            return _dense(self.encoder.encode(items, role))
        prefix = f"{self.encoder.fingerprint()}\n{role}\n"
        parts = [self._encode_chunk(items[i : i + CHUNK], role, prefix) for i in range(0, len(items), CHUNK)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def fingerprint(self) -> str:
        """The encoder's own: its vectors are the same with a cache and without."""
        return self.encoder.fingerprint()

    def _encode_chunk(self, items: Sequence[Item], role: Role, prefix: str) -> Floats:
        keys = [_key(prefix, item) for item in items]
        known = self._read(set(keys))
        new = {key: item for key, item in zip(keys, items, strict=True) if key not in known}
        tally, began, made_by = _tally.get() or Tally(), perf_counter(), self.fingerprint()
        tally.reused[made_by] += sum(
            {key: _length(item) for key, item in zip(keys, items, strict=True) if key in known}.values()
        )
        if new:
            vectors = _dense(self.encoder.encode(list(new.values()), role))
            fresh = dict(zip(new, vectors, strict=True))
            tally.encoded[made_by] += len(new)
            tally.characters[made_by] += sum(map(_length, new.values()))
            tally.seconds[made_by] += perf_counter() - began
            self._write(fresh)
            known |= fresh
        return np.stack([known[key] for key in keys])

    def _read(self, keys: set[bytes]) -> dict[bytes, Floats]:
        query = f"SELECT key, content FROM vectors WHERE key IN ({','.join('?' * len(keys))})"
        rows: list[tuple[bytes, object]] = []
        rows = self._attempt(lambda database: database.execute(query, list(keys)).fetchall(), rows)
        return {key: vector for key, content in rows if (vector := _unpack(key, content)) is not None}

    def _write(self, vectors: dict[bytes, Floats]) -> None:
        rows = [(key, _pack(key, vector)) for key, vector in vectors.items()]

        def insert(database: sqlite3.Connection) -> None:
            with database:
                database.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)

        self._attempt(insert, None)

    def _attempt(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """What `work` returns on a connection of its own; if the file cannot be used, a warning and `otherwise`."""
        file = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.closing(sqlite3.connect(self.path, timeout=30)) as database:
                file = _identity(self.path)
                _prepare(database, self.path)
                return work(database)
        except (sqlite3.OperationalError, OSError) as error:
            self._warn(f"cannot be used ({error}): vectors are computed without it")
        except sqlite3.DatabaseError as error:
            self._move_aside(file)
            self._warn(f"is damaged ({error}): it was moved to {self._aside().name!r} and a new one is begun")
        return otherwise

    def _move_aside(self, file: tuple[int, int] | None) -> None:
        """Rename the damaged file, unless another thread did and this one is new."""
        with _changing_file, contextlib.suppress(OSError):
            if file == _identity(self.path):
                self.path.replace(self._aside())
                for suffix in ("-wal", "-shm"):
                    Path(f"{self.path}{suffix}").unlink(missing_ok=True)

    def _aside(self) -> Path:
        return self.path.with_name(f"{self.path.name}.damaged")

    def _warn(self, what: str) -> None:
        warnings.warn(f"the vector cache {str(self.path)!r} {what}", RuntimeWarning, stacklevel=2)


def _prepare(database: sqlite3.Connection, path: Path) -> None:
    """Make the table in a new file, and refuse a file that holds something else."""
    holds_tables = database.execute("SELECT 1 FROM sqlite_master").fetchone()
    (application,) = database.execute("PRAGMA application_id").fetchone()
    if application not in (0, APPLICATION) or (holds_tables and not application):
        raise InvalidInput(f"{str(path)!r} is a database of something else, not a vector cache; give another path")
    if not holds_tables:
        with _changing_file:
            database.execute("PRAGMA journal_mode = WAL")
            # Mark and table appear together, so no one sees a table without the mark.
            with database:
                database.execute("BEGIN IMMEDIATE")
                database.execute(f"PRAGMA application_id = {APPLICATION}")
                database.execute(
                    "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, content BLOB NOT NULL) WITHOUT ROWID"
                )
    database.execute("PRAGMA synchronous = NORMAL")


def _identity(path: Path) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        status = path.stat()
        return status.st_dev, status.st_ino
    return None


def _dense(vectors: object) -> Floats:
    return np.ascontiguousarray(vectors, dtype=np.float32)


def _length(item: Item) -> int:
    return min(len(item.full_text if isinstance(item, Document) else item), LONGEST)


def _key(prefix: str, item: Item) -> bytes:
    text = item.full_text if isinstance(item, Document) else item
    # A text that UTF-8 cannot hold is refused by the encoder; until then it needs a key like any other.
    return hashlib.blake2b((prefix + text).encode(errors="surrogatepass"), digest_size=32).digest()


def _pack(key: bytes, vector: Floats) -> bytes:
    content = vector.astype("<f4", copy=False).tobytes()
    return _checksum(key, content) + content


def _unpack(key: bytes, content: object) -> Floats | None:
    """The vector of a row, or none if the row is not what was written."""
    if not isinstance(content, bytes) or _checksum(key, content[CHECK:]) != content[:CHECK]:
        return None
    return np.frombuffer(content, dtype="<f4", offset=CHECK).astype(np.float32, copy=False)


def _checksum(key: bytes, content: bytes) -> bytes:
    return hashlib.blake2b(content, key=key, digest_size=CHECK).digest()

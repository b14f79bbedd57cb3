"""Documents by id in one SQLite file, with metadata filters and every generation that readers may still hold.

A row is visible at generation g if it was born at g or before and had not died by then. A writer that prepares generation
g + 1 therefore changes nothing for readers at g, and `rollback(g)` forgets what it did. A `Collection` numbers generations
and commits them by its manifest; a corpus used alone numbers its own.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from sqlite3 import Connection, Cursor
from typing import Any, Self
from uuid import uuid4

from . import filters
from .database import Database, publish
from .errors import Corrupt, InvalidInput, StorageError
from .filters import Where
from .metadata import plain
from .rows import (
    END,
    FIELDS,
    FORMAT,
    INSERT,
    VISIBLE,
    Row,
    checked_documents,
    checked_generation,
    checked_ids,
    damaged,
    document_of,
    in_order,
    row_of,
)
from .rows import Change as Change
from .rows import digest as digest
from .storage import explained
from .types import Document


class Corpus:
    """Documents by id, on disk.

    Safe to use from many threads and forked processes at once; one writes at a time. Close it when done, or use `with`.

    Args:
        path: An SQLite file; it and its directory are made if missing, unless `readonly`.
        readonly: Refuse changes. Works on media that cannot be written.

    Raises:
        StorageError: If the file is missing and `readonly`, or cannot be opened.
        Corrupt: If the file is damaged, of another program, or of a format this version does not read.

    Example:
        >>> import tempfile
        >>> corpus = Corpus(tempfile.mkdtemp() + "/documents.db")
        >>> corpus.add([Document("1", "A sonnet has fourteen lines.", metadata={"year": 2024}), Document("2", "A haiku.")])
        Change(added=2, replaced=0, unchanged=0, duplicates=0)
        >>> corpus.ids({"year": {"gte": 2020}})
        ['1']
        >>> corpus.get(["2"])[0].text
        'A haiku.'
        >>> corpus.close()
    """

    def __init__(self, path: str | os.PathLike[str], *, readonly: bool = False) -> None:
        self._database = Database(Path(path), FORMAT, readonly=readonly, prepare=filters.install)

    @property
    def path(self) -> Path:
        """The file."""
        return self._database.path

    @property
    def generation(self) -> int:
        """The last generation written, 0 if none was."""
        with self._database.reading() as connection:
            return self._latest(connection)

    # Reading

    def get(self, ids: Sequence[str], at: int | None = None) -> list[Document]:
        """Documents by id, in the order asked.

        Args:
            ids: Ids, which may repeat.
            at: The generation to read; the latest by default.

        Raises:
            UnknownName: If there is no document with one of the ids; the message names it.
            Corrupt: If a document fails its checksum.
            StorageError: If the generation has been purged, or the file cannot be read.
        """
        return in_order(ids, self.find(ids, at))

    def find(self, ids: Collection[str], at: int | None = None) -> dict[str, Document]:
        """Documents by id, those that are there; otherwise as `get`."""
        return {id: document_of(row, self.path) for id, row in self._rows(FIELDS, ids, at)}

    def digests(self, ids: Collection[str], at: int | None = None, *, content: bool = False) -> dict[str, bytes]:
        """What `digest` says of stored documents, by id, without reading them; ids that are not there are left out.

        Args:
            ids: Ids of documents.
            at: The generation to read; the latest by default.
            content: Digests of title and text only, rather than of whole documents.

        Returns:
            16 bytes for each document.
        """
        return {id: found for id, (found,) in self._rows("content" if content else "digest", ids, at)}

    def holders(self, contents: Collection[bytes], at: int | None = None) -> dict[bytes, str]:
        """For content digests (see `digest`), the id of a document that has it; those that none has are left out."""
        at = checked_generation(at)
        select = f"SELECT content, id FROM documents WHERE content = ? AND {VISIBLE}"
        with self._database.reading() as connection:
            self._check_kept(connection, at)
            rows = (connection.execute(select, (content, at, at)).fetchone() for content in contents)
            return dict(row for row in rows if row is not None)

    def ids(self, where: Where | None = None, at: int | None = None) -> list[str]:
        """Ids of the documents that pass a filter (see `ragistry.filters`), in order of insertion.

        Args:
            where: A filter on metadata; all documents by default.
            at: The generation to read; the latest by default.

        Raises:
            InvalidInput: If the filter is not one.
        """
        return [id for (id,) in self._select("id", where, at, "ORDER BY row")]

    def count(self, where: Where | None = None, at: int | None = None) -> int:
        """How many documents pass a filter; see `ids`."""
        ((found,),) = self._select("count(*)", where, at)
        return int(found)

    def documents(self, at: int | None = None, where: Where | None = None, batch: int = 1000) -> Iterator[Document]:
        """The documents of one generation that pass a filter, in order of insertion; a replaced one counts as new.

        Args:
            at: The generation to read; by default the latest when the first document is taken, whatever is written after.
            where: A filter on metadata; all documents by default.
            batch: How many are read, and held, at once.
        """
        if batch < 1:
            raise InvalidInput(f"`batch` must be at least 1; given {batch}")
        with self._database.snapshot() as connection:
            found, last = self._asked(connection, f"{FIELDS}, row", where, at, "ORDER BY row"), -1
            while page := found.fetchmany(batch):
                for row in page:
                    if not isinstance(row[-1], int) or row[-1] <= last:
                        raise damaged(row[0], self.path)
                    last = row[-1]
                    yield document_of(row, self.path)

    def duplicates(self, at: int | None = None) -> list[tuple[str, ...]]:
        """Groups of ids whose documents have exactly equal title and text, each in order of insertion."""
        at = checked_generation(at)
        repeated = f"SELECT content FROM documents WHERE {VISIBLE} GROUP BY content HAVING count(*) > 1"
        select = (
            f"SELECT title, text, row, id FROM documents WHERE {VISIBLE} AND content IN ({repeated}) "
            "ORDER BY content, title, text, row"
        )
        with self._database.reading() as connection:
            self._check_kept(connection, at)
            same = groupby(connection.execute(select, [at] * 4), key=itemgetter(0, 1))
            groups = [[found[2:] for found in group] for _, group in same]
        return [tuple(id for _, id in group) for group in sorted(groups) if len(group) > 1]

    # Writing, for a Collection: it numbers the generations

    def write(self, generation: int, add: Sequence[Document] = (), remove: Collection[str] = ()) -> None:
        """Take documents out, then put documents in, as part of a generation; all of it or, on an error, nothing.

        Args:
            generation: The generation this belongs to: the latest, to add to it, or a later one.
            add: Documents; one whose id is already there is replaced.
            remove: Ids; those that are not there are passed over.

        Raises:
            InvalidInput: If an id is added twice, metadata is not JSON, or the generation is over.
            Locked: If another process goes on writing.
            StorageError: If the file cannot be written.
        """
        rows = [row_of(document) for document in checked_documents(add)]
        seen: set[str] = set()
        for row in rows:
            if row.id in seen:
                raise InvalidInput(_twice(row.id))
            seen.add(row.id)
        ended = [*checked_ids(remove), *seen]
        with self._database.writing("write to") as connection, self._database.explained("write to"):
            if checked_generation(generation) < self._latest(connection):
                raise InvalidInput(f"generation {generation} is over, a later one has begun; write to that")
            connection.executemany(END, ((generation, id) for id in ended))
            connection.executemany(INSERT, ((generation, *row) for row in rows))
            connection.execute("UPDATE generations SET latest = ?", [generation])

    def rollback(self, generation: int) -> int:
        """Forget everything written after a generation.

        Returns:
            How many rows were taken back: documents written since, and removals.

        Raises:
            StorageError: If a later generation has been purged, so that this one cannot be had back.
        """
        with self._database.writing("roll back") as connection, self._database.explained("roll back"):
            self._check_kept(connection, checked_generation(generation))
            undone = connection.execute("DELETE FROM documents WHERE born > ?", [generation]).rowcount
            undone += connection.execute("UPDATE documents SET died = NULL WHERE died > ?", [generation]).rowcount
            connection.execute("UPDATE generations SET latest = min(latest, ?)", [generation])
        return undone

    def purge(self, generation: int) -> int:
        """Delete for good the rows that had died by a generation; earlier ones can no longer be read.

        Returns:
            How many rows were deleted.
        """
        with self._database.writing("purge") as connection, self._database.explained("purge"):
            wanted = [checked_generation(generation)]
            purged = connection.execute("DELETE FROM documents WHERE died <= ?", wanted).rowcount
            connection.execute("UPDATE generations SET oldest = max(oldest, min(latest, ?))", wanted)
        return purged

    # Writing, alone: each call is a generation of its own

    def add(self, documents: Iterable[Document]) -> Change:
        """Put documents in, as one new generation; all of them or, on an error, none.

        Args:
            documents: Any iterable; it is streamed. A document whose id is already there replaces it, unless it is equal.

        Raises:
            InvalidInput: If an id comes twice or metadata is not JSON; the message names the document.
            Locked: If another process goes on writing.
            StorageError: If the file cannot be written.
        """
        explained = self._database.explained
        with self._database.writing("add to") as connection:
            with explained("add to"):
                generation = self._latest(connection) + 1
                ((last,),) = connection.execute("SELECT ifnull(max(row), 0) FROM documents")
                connection.execute("CREATE TEMP TABLE IF NOT EXISTS given (id TEXT PRIMARY KEY) WITHOUT ROWID")
                connection.execute("DELETE FROM given")
            counts = dict.fromkeys(Change._fields, 0)
            # An error raised by the caller's own iterable passes as it is.
            for document in checked_documents(documents):
                row = row_of(document)
                with explained("add to"):
                    counts[self._put(connection, generation, row)] += 1
            with explained("add to"):
                if counts["added"] or counts["replaced"]:
                    connection.execute("UPDATE generations SET latest = ?", [generation])
                    counts["duplicates"] = self._repeats(connection, last)
        return Change(**counts)

    def remove(self, ids: Collection[str]) -> int:
        """Take documents out, as one new generation; ids that are not there are passed over.

        Returns:
            How many were there.
        """
        wanted = checked_ids(ids)
        with self._database.writing("remove from") as connection, self._database.explained("remove from"):
            generation = self._latest(connection) + 1
            removed = connection.executemany(END, ((generation, id) for id in wanted)).rowcount if wanted else 0
            if removed:
                connection.execute("UPDATE generations SET latest = ?", [generation])
        return removed

    # The file

    def check(self) -> None:
        """Read everything through: the file's structure and the checksum of every row.

        Raises:
            Corrupt: If something is damaged; the message says what.
        """
        with self._database.reading("check") as connection:
            problems = " ".join(found for (found,) in connection.execute("PRAGMA integrity_check(5)"))
            if problems != "ok":
                raise Corrupt(f"{str(self.path)!r} is damaged: {' '.join(problems.split())}; restore it from a copy")
            for *row, content, plainness in connection.execute(f"SELECT {FIELDS}, content, plain FROM documents"):
                document = document_of(row, self.path)
                if content != digest(document, content=True) or plainness != plain(document.metadata):
                    raise damaged(document.id, self.path)

    def copy_to(self, path: str | os.PathLike[str], at: int | None = None) -> None:
        """Write one generation to a file of its own, complete or not at all.

        Args:
            path: A file that is not there yet.
            at: The generation to copy; the latest by default.

        Raises:
            StorageError: If the path is taken or cannot be written, or the generation has been purged.
        """
        target = Path(path).absolute()
        beside = target.with_name(f".{target.name}.{uuid4().hex}.part")
        with explained("write", target):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with self._database.explained("copy"):
                    connection = self._database.connection()
                    self._check_kept(connection, checked_generation(at))
                    connection.execute("VACUUM INTO ?", [str(beside)])
                with Corpus(beside) as copy:
                    generation = copy.generation if at is None else min(at, copy.generation)
                    copy.rollback(generation)
                    copy.purge(generation)
                if not publish(beside, target):
                    raise StorageError(f"cannot copy to {str(target)!r}: something is there; choose another path")
            finally:
                beside.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file; anything asked afterwards is refused."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # Inside

    def _rows(self, columns: str, ids: Collection[str], at: int | None) -> list[tuple[str, Any]]:
        """A row for each id that is there. One look-up per id costs SQLite no more than a join, and takes any id."""
        wanted, at = checked_ids(ids), checked_generation(at)
        select = f"SELECT {columns} FROM documents WHERE id = ? AND {VISIBLE}"
        with self._database.reading() as connection:
            self._check_kept(connection, at)
            found = ((id, connection.execute(select, (id, at, at)).fetchone()) for id in dict.fromkeys(wanted))
            return [(id, row) for id, row in found if row is not None]

    def _select(self, columns: str, where: Where | None, at: int | None, order: str = "") -> list[Any]:
        with self._database.reading() as connection:
            return self._asked(connection, columns, where, at, order).fetchall()

    def _asked(self, connection: Connection, columns: str, where: Where | None, at: int | None, order: str) -> Cursor:
        condition, parameters = filters.compile(where)
        at = checked_generation(at)
        self._check_kept(connection, at)
        select = f"SELECT {columns} FROM documents WHERE {VISIBLE} AND {condition} {order}"
        return connection.execute(select, [at, at, *parameters])

    def _put(self, connection: Connection, generation: int, row: Row) -> str:
        """Add one row, and say which count of a Change it belongs to."""
        if not connection.execute("INSERT OR IGNORE INTO given VALUES (?)", [row.id]).rowcount:
            raise InvalidInput(_twice(row.id))
        found = connection.execute("SELECT digest FROM documents WHERE id = ? AND died IS NULL", [row.id]).fetchone()
        if found == (row.digest,):
            return "unchanged"
        if found:
            connection.execute(END, [generation, row.id])
        connection.execute(INSERT, [generation, *row])
        return "replaced" if found else "added"

    def _repeats(self, connection: Connection, last: int) -> int:
        """How many of the rows after `last` repeat the title and text of an earlier document."""
        same = "content = new.content AND title = new.title AND text = new.text AND row < new.row AND died IS NULL"
        ((found,),) = connection.execute(
            f"SELECT count(*) FROM documents AS new WHERE row > ? AND EXISTS (SELECT 1 FROM documents WHERE {same})",
            [last],
        )
        return int(found)

    def _latest(self, connection: Connection) -> int:
        return self._generations(connection)[0]

    def _check_kept(self, connection: Connection, at: int) -> None:
        if at < (oldest := self._generations(connection)[1]):
            raise StorageError(
                f"generation {at} of {str(self.path)!r} has been purged, {oldest} is the oldest kept; open the latest"
            )

    def _generations(self, connection: Connection) -> tuple[int, int]:
        """The latest and the oldest."""
        match connection.execute("SELECT latest, oldest FROM generations").fetchall():
            case [(int(latest), int(oldest))]:
                return latest, oldest
        raise Corrupt(f"{str(self.path)!r} is damaged: it does not know its generations; restore it from a copy")


def _twice(id: str) -> str:
    return f"the id {id!r} is given twice in one call; ids must be unique, so keep one of its documents"

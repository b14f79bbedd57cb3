"""The documents of a collection in PostgreSQL: what `ragistry.corpus.Corpus` does, in tables.

A row is visible at generation g if it was born at g or before and had not died by then, so that a search that began in one
state ends in it, whatever is written meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from psycopg.types.json import Json

from .. import filters
from ..errors import StorageError
from ..filters import Where
from ..rows import checked_generation, checked_ids, damaged, digest, document_of, in_order, row_of
from ..types import Document
from .conditions import Sql, condition
from .server import Connection, Server
from .wire import bare, copy_rows, full

TABLE = """
    CREATE TABLE documents (
        row bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, born bigint NOT NULL, died bigint,
        id text COLLATE "C" NOT NULL, content bytea NOT NULL, digest bytea NOT NULL,
        metadata json NOT NULL, facts jsonb, title text NOT NULL, text text NOT NULL
    );
    CREATE UNIQUE INDEX ON documents (id, born);
    CREATE INDEX ON documents (content);
    CREATE INDEX ON documents (died) WHERE died IS NOT NULL;
    CREATE INDEX ON documents (row) WHERE facts IS NULL;
"""
VISIBLE = "born <= %s AND (died IS NULL OR died > %s)"
_FIELDS = "id, title, text, metadata::text, digest"
_COLUMNS = "documents (born, id, content, digest, metadata, facts, title, text)"
_TYPES = ("int8", "text", "bytea", "bytea", "json", "jsonb", "text", "text")
_BATCH = 1000


class Passing(Collection[str]):
    """The ids of documents that pass a filter: a condition to the database's own indexes, and a set to anyone else."""

    def __init__(self, documents: Table, where: Where, at: int) -> None:
        self._documents, self._where, self.at = documents, where, at

    @cached_property
    def sql(self) -> Sql:
        """The condition, over the table of documents."""
        return self._documents.condition(self._where, self.at)

    @cached_property
    def _ids(self) -> frozenset[str]:
        return frozenset(self._documents.ids(self._where, self.at))

    def __contains__(self, id: object) -> bool:
        return id in self._ids

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return self.count

    @cached_property
    def count(self) -> int:
        """How many there are."""
        return self._documents.count(self.at, self._where)


class Table:
    """Documents by id, of every generation that can still be read: see `Corpus`, whose methods these are."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._name = cast(Path, server.location)  # what errors call it

    def get(self, ids: Sequence[str], at: int | None = None) -> list[Document]:
        """Documents by id, in the order asked; an unknown one is an `UnknownName`."""
        return in_order(ids, self.find(ids, at))

    def find(self, ids: Collection[str], at: int | None = None) -> dict[str, Document]:
        """Documents by id, those that are there."""
        return {document.id: document for document in map(self._document, self._by_id(_FIELDS, ids, at))}

    def digests(self, ids: Collection[str], at: int | None = None, *, content: bool = False) -> dict[str, bytes]:
        """What `digest` says of stored documents, by id, without reading them."""
        return {full(id): found for id, found in self._by_id(f"id, {'content' if content else 'digest'}", ids, at)}

    def holders(self, contents: Collection[bytes], at: int | None = None) -> dict[bytes, str]:
        """For content digests, the id of a document that has it."""
        select = f"SELECT content, id FROM documents WHERE content = ANY(%s) AND {VISIBLE} ORDER BY row DESC"
        return {content: full(id) for content, id in self._asked(select, [list(contents)], at)}

    def ids(self, where: Where | None = None, at: int | None = None) -> list[str]:
        """Ids of the documents that pass a filter, in order of insertion."""
        sql, parameters = self.condition(where, at)
        select = f"SELECT id FROM documents WHERE {sql} AND {VISIBLE} ORDER BY row"
        return [full(id) for (id,) in self._asked(select, parameters, at)]

    def count(self, at: int | None = None, where: Where | None = None) -> int:
        """How many documents pass a filter."""
        sql, parameters = self.condition(where, at)
        ((found,),) = self._asked(f"SELECT count(*) FROM documents WHERE {sql} AND {VISIBLE}", parameters, at)
        return int(found)

    def documents(self, at: int | None = None, where: Where | None = None) -> Iterator[Document]:
        """The documents of one generation that pass a filter, in order of insertion, whatever is written meanwhile."""
        sql, parameters = self.condition(where, at)
        generation = checked_generation(at)
        select = f"SELECT {_FIELDS} FROM documents WHERE {sql} AND {VISIBLE} ORDER BY row"
        yield from map(self._document, self._scanned(select, [*parameters, generation, generation], generation))

    def duplicates(self, at: int | None = None) -> list[tuple[str, ...]]:
        """Groups of ids whose documents have exactly equal title and text, each in order of insertion."""
        select = (
            f"SELECT array_agg(id ORDER BY row) FROM documents WHERE {VISIBLE} GROUP BY content, title, text "
            "HAVING count(*) > 1 ORDER BY min(row)"
        )
        return [tuple(map(full, ids)) for (ids,) in self._asked(select, [], at)]

    def condition(self, where: Where | None, at: int | None) -> Sql:
        """A filter as SQL over the table; documents that only Python can judge are judged now."""
        if not where:
            filters.compile(where)  # refuses what is no filter
            return "true", []
        held = condition(where)
        unsure = "facts IS NULL" if held else "true"
        select = f"SELECT row, metadata::text FROM documents WHERE {unsure} AND {VISIBLE}"
        judged = [row for row, metadata in self._asked(select, [], at) if filters.matches(where, json.loads(metadata))]
        sql, parameters = held or ("false", [])
        if not judged:
            return f"(facts IS NOT NULL AND {sql})", parameters
        return f"((facts IS NOT NULL AND {sql}) OR row = ANY(%s))", [*parameters, judged]

    def write(self, connection: Connection, generation: int, add: Sequence[Document], remove: Collection[str]) -> None:
        """Take documents out, then put documents in, as part of a transaction that makes a generation."""
        ended = [bare(id) for id in {*remove, *(document.id for document in add)}]
        if ended:
            end = "UPDATE documents SET died = %s WHERE id = ANY(%s) AND died IS NULL"
            connection.execute(end, [generation, ended])
        copy_rows(connection, _COLUMNS, _TYPES, (_row(document, generation) for document in add))

    def check(self) -> None:
        """Compare every document with its checksums."""
        for row in self._scanned(f"SELECT {_FIELDS}, content FROM documents", [], None):
            document = self._document(row[:5])
            if digest(document, content=True) != bytes(row[5]):
                raise damaged(document.id, self._name)

    def _document(self, row: Sequence[Any]) -> Document:
        id, title, text, metadata, found = row
        return document_of((full(id), full(title), full(text), metadata, bytes(found)), self._name)

    def _by_id(self, columns: str, ids: Collection[str], at: int | None) -> list[Any]:
        wanted = [bare(id) for id in checked_ids(ids)]
        return self._asked(f"SELECT {columns} FROM documents WHERE id = ANY(%s) AND {VISIBLE}", [wanted], at)

    def _scanned(self, select: str, parameters: Sequence[Any], generation: int | None) -> Iterator[Any]:
        """Rows, some at a time, all of the moment in which the first is taken."""
        self._server.ask(lambda connection: connection.execute("SELECT 1"))  # replaces connections that died
        with self._server.explained("read"), self._server.connection() as connection, connection.transaction():
            if generation is not None:
                check_kept(connection, generation)
            with connection.cursor("documents") as cursor:
                cursor.itersize = _BATCH
                yield from cursor.execute(select, parameters)

    def _asked(self, select: str, parameters: Sequence[Any], at: int | None) -> list[Any]:
        generation = checked_generation(at)

        def rows(connection: Connection) -> list[Any]:
            return together(connection, [(select, [*parameters, generation, generation])], generation)[0]

        return self._server.ask(rows)


def together(
    connection: Connection, selects: Sequence[tuple[str, Sequence[Any]]], generation: int, *, binary: bool = False
) -> list[list[Any]]:
    """What some statements find in a generation, in one round trip; refused if rows of it may have been deleted before."""
    with connection.pipeline() as pipeline:
        cursors = []
        for select, values in selects:
            cursors.append(connection.execute(select, values, binary=binary))
            pipeline.sync()  # ends the transaction, in which shards would stay as the first statement found them
        state = connection.execute("SELECT oldest FROM state")
        found = [cursor.fetchall() for cursor in cursors]
        _check(state.fetchone(), generation)
    return found


def check_kept(connection: Connection, generation: int) -> None:
    """Refuse a generation of which rows may have been deleted."""
    _check(connection.execute("SELECT oldest FROM state").fetchone(), generation)


def _check(oldest: Any, generation: int) -> None:
    if oldest is None or oldest[0] > generation:
        raise StorageError(f"generation {generation} of the collection has been cleared away; open the latest")


def _row(document: Document, generation: int) -> tuple[Any, ...]:
    row = row_of(document)
    facts = row.metadata if row.plain else None
    texts = bare(row.title), bare(row.text)
    return (
        generation,
        bare(row.id),
        row.content,
        row.digest,
        Json(row.metadata, dumps=str),
        facts and Json(facts, dumps=str),
        *texts,
    )

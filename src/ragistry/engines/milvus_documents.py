"""The documents of a collection in Milvus: what `ragistry.corpus.Corpus` does, as rows of a `Log`.

A document has as many rows as its text needs, since a field of Milvus holds 65,535 bytes: the first has its id, its digests
and what filters look at, and all have parts of its metadata and of its title and text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from .. import filters
from ..errors import InvalidInput
from ..filters import Where
from ..metadata import encode
from ..rows import checked_ids, damaged, digest, document_of, in_order, row_of
from ..types import Document
from .milvus_conditions import narrowing
from .milvus_files import FLAT, NO_VECTOR
from .milvus_log import Log, key_of, pieces
from .milvus_server import LONGEST, Row, Server

NAME = "documents"
_TEXT = {"type": "VARCHAR", "max_length": LONGEST}
_FIELDS: dict[str, dict[str, Any]] = {
    "row": {"type": "INT64"},
    "key": {"type": "INT64"},
    "same": {"type": "INT64"},
    "part": {"type": "INT64"},
    "parts": {"type": "INT64"},
    "size": {"type": "INT64"},
    "sure": {"type": "BOOL"},
    "id": _TEXT,
    "digest": {"type": "VARCHAR", "max_length": 32},
    "content": {"type": "VARCHAR", "max_length": 32},
    "facts": {"type": "JSON"},
    "metadata": _TEXT,
    "body": _TEXT,
    "vector": {"type": "FLOAT_VECTOR", "dim": 2},
}
_WHOLE = ["part", "parts", "id", "digest", "content", "metadata", "body"]
_AT_ONCE = 250  # rows with texts: 32 MB at most
_FILTERED = 500  # rows with metadata
_IDS = 4000
_HEADS = "part == 0"


class Table:
    """Documents by id, of every generation that can still be read: see `Corpus`, whose methods these are.

    Args:
        server: The server.
        log: Gives the rows of a generation, or of the latest; a `StorageError` if they may have been deleted.
    """

    def __init__(self, server: Server, log: Callable[[int | None], Log]) -> None:
        self._server, self._log = server, log
        self._name = cast(Path, server.location)  # what errors call it

    @staticmethod
    def make(server: Server) -> Log:
        """Make the collection of Milvus."""
        server.create(NAME, _FIELDS, FLAT)
        return Log(server, NAME)

    def get(self, ids: Sequence[str], at: int | None = None) -> list[Document]:
        """Documents by id, in the order asked; an unknown one is an `UnknownName`."""
        return in_order(ids, self.find(ids, at))

    def find(self, ids: Collection[str], at: int | None = None) -> dict[str, Document]:
        """Documents by id, those that are there."""
        wanted = set(checked_ids(ids))
        rows = self._log(at).find("key", list(map(key_of, wanted)), _WHOLE, _AT_ONCE)
        return {parts[0]["id"]: self._document(parts) for parts in _grouped(rows) if parts[0]["id"] in wanted}

    def digests(self, ids: Collection[str], at: int | None = None, *, content: bool = False) -> dict[str, bytes]:
        """What `digest` says of stored documents, by id, without reading them."""
        which = "content" if content else "digest"
        return {row["id"]: bytes.fromhex(row[which]) for row in _heads(self._log(at), ids, [which])}

    def holders(self, contents: Collection[bytes], at: int | None = None) -> dict[bytes, str]:
        """For content digests, the id of a document that has it."""
        wanted, found = set(contents), dict[bytes, str]()
        for row in self._log(at).find("same", list(map(_same, wanted)), ["part", "id", "content"]):
            content = bytes.fromhex(row["content"])
            if row["part"] == 0 and content in wanted:
                found.setdefault(content, row["id"])
        return found

    def ids(self, where: Where | None = None, at: int | None = None) -> list[str]:
        """Ids of the documents that pass a filter, in order of insertion."""
        if not where:
            filters.compile(where)  # refuses what is no filter
            return [row["id"] for page in self._pages(at, ["id"], _IDS, _HEADS) for row in page]
        fields = ["part", "parts", "id", "metadata"]
        return [parts[0]["id"] for parts in self._passing(where, at, fields, _FILTERED)]

    def documents(self, at: int | None = None, where: Where | None = None) -> Iterator[Document]:
        """The documents of one generation that pass a filter, in order of insertion.

        Raises:
            StorageError: If while they are read, for more than half a minute, documents are removed or replaced.
        """
        for parts in self._passing(where or {}, at, _WHOLE, _AT_ONCE):
            yield self._document(parts)

    def duplicates(self, at: int | None = None) -> list[tuple[str, ...]]:
        """Groups of ids whose documents have exactly equal title and text, each in order of insertion."""
        alike: dict[str, list[str]] = {}
        for page in self._pages(at, ["id", "content"], _IDS, _HEADS):
            for row in page:
                alike.setdefault(row["content"], []).append(row["id"])
        groups: dict[tuple[str, str], list[str]] = {}
        for ids in alike.values():
            for document in self.get(ids, at) if len(ids) > 1 else ():
                groups.setdefault((document.title, document.text), []).append(document.id)
        return [tuple(ids) for ids in groups.values() if len(ids) > 1]

    def check(self, at: int | None = None) -> int:
        """Compare every document with its checksums; how many there are."""
        count = 0
        for parts in self._passing({}, at, _WHOLE, _AT_ONCE):
            document = self._document(parts)
            if digest(document, content=True).hex() != parts[0]["content"]:
                raise damaged(document.id, self._name)
            count += 1
        return count

    def _passing(self, where: Where, at: int | None, fields: Sequence[str], most: int) -> Iterator[list[Row]]:
        """The rows of each document that passes a filter."""
        said = narrowing(where)
        rows = (
            row for page in self._pages(at, fields, most, f"sure == false or {said}" if said else "") for row in page
        )
        for parts in _grouped(rows):
            if not where or filters.matches(where, json.loads("".join(row["metadata"] for row in parts))):
                yield parts

    def _pages(self, at: int | None, fields: Sequence[str], most: int, condition: str = "") -> Iterator[list[Row]]:
        log = self._log(at)
        for page in log.pages(fields, most, condition):
            if at is not None:
                self._log(at)  # refuses what may have been deleted meanwhile
            yield page

    def _document(self, parts: Sequence[Row]) -> Document:
        head = parts[0]
        metadata, body = ("".join(row[field] for row in parts) for field in ("metadata", "body"))
        try:
            title, text = json.loads(body)
        except ValueError:
            raise damaged(head["id"], self._name) from None
        return document_of((head["id"], title, text, metadata, bytes.fromhex(head["digest"])), self._name)


def check_ids(documents: Sequence[Document]) -> None:
    """Refuse ids that are too long for Milvus; texts never are."""
    for document in documents:
        if len(document.id.encode()) > LONGEST:
            raise InvalidInput(
                f"the id {document.id!r:.100} has more than {LONGEST} bytes, which Milvus cannot hold; shorten it"
            )


def changed(log: Log, generation: int, now: float, add: Sequence[Document], remove: Collection[str]) -> tuple[Log, int]:
    """Take documents out, then put documents in, for a generation; the log after it, and how many bytes more it holds."""
    rows = [list(_rows(document)) for document in add]
    gone = _heads(log, {*remove, *(document.id for document in add)}, ["parts", "size"])
    dead = [row for head in gone for row in range(head["row"], head["row"] + head["parts"])]
    size = sum(row["size"] for parts in rows for row in parts) - sum(row["size"] for row in gone)
    after = log.appended(row for parts in rows for row in parts)
    return after.buried(dead, generation, now), size


def _heads(log: Log, ids: Collection[str], fields: Sequence[str]) -> list[Row]:
    """The first row of each document that has one of some ids."""
    wanted = set(checked_ids(ids))
    rows = log.find("key", list(map(key_of, wanted)), ["part", "id", *fields])
    return [row for row in rows if row["part"] == 0 and row["id"] in wanted]


def _rows(document: Document) -> Iterator[Row]:
    stored = row_of(document)
    body, metadata = pieces(encode([stored.title, stored.text])), pieces(stored.metadata)
    parts = max(len(body), len(metadata))
    sure = stored.plain and len(metadata) == 1
    for part in range(parts):
        yield {
            "key": key_of(stored.id),
            "same": _same(stored.content),
            "part": part,
            "parts": parts,
            "size": 0 if part else len(stored.metadata) + len(stored.title) + len(stored.text),
            "sure": sure and not part,
            "id": "" if part else stored.id,
            "digest": stored.digest.hex(),
            "content": stored.content.hex(),
            "facts": json.loads(stored.metadata) if sure and not part else {},
            "metadata": metadata[part] if part < len(metadata) else "",
            "body": body[part] if part < len(body) else "",
            "vector": NO_VECTOR,
        }


def _grouped(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Rows by document; a document of which some rows were not asked for is left out."""
    parts: list[Row] = []
    for row in rows:
        if row["part"] != len(parts) or (parts and row["row"] != parts[-1]["row"] + 1):
            parts = []
        if row["part"] == len(parts):
            parts.append(row)
            if row["part"] + 1 == row["parts"]:
                yield parts
                parts = []


def _same(content: bytes) -> int:
    return int.from_bytes(content[:8], "little", signed=True)

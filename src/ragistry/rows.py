"""Documents as rows of a corpus, with the digests that detect change and damage."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from .database import Format
from .errors import Corrupt, InvalidInput, UnknownName
from .metadata import encode, normal, plain
from .types import Document, check_text

# `row` keeps the order of insertion. The long columns come last, so that a scan of the others need not read them.
FORMAT = Format(
    "corpus",
    application=0x52414749,  # "RAGI"
    version=1,
    script="""
        CREATE TABLE documents (
            row INTEGER PRIMARY KEY, born INTEGER NOT NULL, died INTEGER, plain INTEGER NOT NULL, id TEXT NOT NULL,
            content BLOB NOT NULL, digest BLOB NOT NULL, metadata TEXT NOT NULL, title TEXT NOT NULL, text TEXT NOT NULL
        );
        CREATE INDEX documents_by_id ON documents (id, born, died);
        CREATE INDEX documents_by_content ON documents (content, born, died);
        CREATE INDEX documents_dead ON documents (died) WHERE died IS NOT NULL;
        CREATE TABLE generations (latest INTEGER NOT NULL, oldest INTEGER NOT NULL);
        INSERT INTO generations VALUES (0, 0);
    """,
)
LATEST = 2**62  # after every generation
VISIBLE = "born <= ? AND (died IS NULL OR died > ?)"
FIELDS = "id, title, text, metadata, digest"
END = "UPDATE documents SET died = ? WHERE id = ? AND died IS NULL"
INSERT = (
    "INSERT INTO documents (born, plain, id, content, digest, metadata, title, text) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
ADVICE = "restore it from a copy, or make it again"


class Change(NamedTuple):
    """What `Corpus.add` did, in documents; `duplicates` of those added or replaced repeat an earlier one's content."""

    added: int
    replaced: int
    unchanged: int
    duplicates: int


def in_order(ids: Sequence[str], found: Mapping[str, Document]) -> list[Document]:
    """Documents that were found, as they were asked for.

    Raises:
        UnknownName: If one was not found; the message names it.
    """
    if unknown := [id for id in ids if id not in found]:
        more = f" (nor {len(unknown) - 1} more of the {len(ids)} asked for)" if len(unknown) > 1 else ""
        raise UnknownName(f"no document has the id {unknown[0]!r}{more}; `ids()` lists those there are")
    return [found[id] for id in ids]


class Row(NamedTuple):
    """What `INSERT` stores of a document, after the generation it was born in."""

    plain: bool
    id: str
    content: bytes
    digest: bytes
    metadata: str
    title: str
    text: str


def digest(document: Document, *, content: bool = False) -> bytes:
    """A document's digest: equal for equal documents only (blake2b, 16 bytes).

    Args:
        document: Any document.
        content: Of title and text only, which is what retrievers see, rather than also of id and metadata.

    Raises:
        InvalidInput: If the metadata is not JSON.

    Example:
        >>> old, new = Document("1", "A haiku."), Document("1", "A haiku.", metadata={"year": 2024})
        >>> digest(old) == digest(new), digest(old, content=True) == digest(new, content=True)
        (False, True)
    """
    return _digest(document.title, document.text) if content else row_of(document).digest


def _digest(*values: str) -> bytes:
    whole = blake2b(digest_size=16)
    for value in values:
        encoded = value.encode()
        whole.update(len(encoded).to_bytes(8, "little") + encoded)
    return whole.digest()


def row_of(document: Document) -> Row:
    """A document as the corpus stores it; the error names the document and what cannot be stored."""
    if not isinstance(document, Document):
        raise InvalidInput(
            f"{document!r:.100} is {type(document).__name__}; give a list or other iterable of Documents"
        )
    id, title, text = document.id, document.title, document.text
    values = normal(document.metadata, f"document {id!r}: metadata") if document.metadata else {}
    metadata = encode(values)
    return Row(plain(values), id, _digest(title, text), _digest(id, title, text, metadata), metadata, title, text)


def document_of(row: Sequence[Any], path: Path) -> Document:
    """The document in the `FIELDS` of a row, if they match their digest; else the error names the file."""
    *values, expected = row[:5]
    id, title, text, metadata = values
    if not all(isinstance(value, str) for value in values) or _digest(*values) != expected:
        raise damaged(id, path)
    return Document(id, text, title, json.loads(metadata))


def damaged(id: Any, path: Path) -> Corrupt:
    """The error for a document that fails its checksum."""
    return Corrupt(f"the document {id!r} in {str(path)!r} is damaged: it fails its checksum; {ADVICE}")


def checked_documents(documents: Iterable[Document]) -> Iterable[Document]:
    """Documents as something that can be iterated over."""
    if not isinstance(documents, Iterable):
        raise InvalidInput(
            f"documents are given as {type(documents).__name__}; give a list or other iterable of Documents"
        )
    return documents


def checked_ids(ids: Iterable[str]) -> Collection[str]:
    """Ids as a collection of text."""
    if isinstance(ids, str) or not isinstance(ids, Iterable):
        raise InvalidInput(f"ids are given as one {type(ids).__name__}, {ids!r:.100}; give a list of ids")
    wanted = ids if isinstance(ids, Collection) else list(ids)
    for id in wanted:
        if not isinstance(id, str):
            raise InvalidInput(f"the id {id!r:.100} is {type(id).__name__}; ids are text")
        check_text(id, f"the id {id!r:.100}")
    return wanted


def checked_generation(at: int | None) -> int:
    """A generation, or one after all there are."""
    if at is None:
        return LATEST
    if not isinstance(at, int) or isinstance(at, bool) or not 0 <= at < LATEST:
        raise InvalidInput(f"a generation is a whole number from 0; given {at!r}")
    return at

"""What a model says to the tools of the server besides `search`, and what they answer."""

from __future__ import annotations

import json
from typing import Annotated, Any, Protocol
from urllib.parse import quote

from pydantic import BaseModel, Field

from ragistry.errors import InvalidInput
from ragistry.tools import CHARACTERS, MOST, Arguments, one_line
from ragistry.types import Document

MOST_CHARACTERS = 50_000
"""Of a document, in one answer."""
_TITLE = 300  # characters that are shown
_METADATA = 4000  # characters of a document's metadata that are shown


class Answer(Protocol):
    """What a tool answers: fields for programs, and a text for a prompt."""

    def cited(self) -> str:
        """Compact text for a prompt."""

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """The fields, as JSON can hold them."""


class FetchArgs(Arguments):
    """What a model says to read a document."""

    id: Annotated[str, Field(min_length=1, description="a document's id, exactly as search gives it")]
    offset: Annotated[int, Field(ge=0, description="characters of the text to pass over")] = 0
    limit: Annotated[int, Field(ge=1, le=MOST_CHARACTERS, description="characters to return at most")] = CHARACTERS


class EntityArgs(Arguments):
    """What a model says to find out what a mention means."""

    mention: Annotated[str, Field(min_length=1, description="the words that stand for someone or something")]
    text: Annotated[str | None, Field(description="where they stand first: a sentence or more")] = None
    k: Annotated[int, Field(ge=1, le=MOST, description="how many documents to return at most")] = 5

    def where(self) -> tuple[str, int]:
        """The text, and where in it the mention begins.

        Raises:
            InvalidInput: If it is not there.

        Example:
            >>> EntityArgs(mention="the Bard", text="A sonnet by the Bard.").where()
            ('A sonnet by the Bard.', 12)
        """
        if not self.mention.strip():
            raise InvalidInput("the mention is blank; give the words that stand for someone or something")
        text = self.mention if self.text is None else self.text
        start = text.find(self.mention)
        if start < 0:
            raise InvalidInput(
                f"the mention {self.mention!r:.100} is not in the text; copy it from there, letter by letter"
            )
        return text, start


class Part(BaseModel):
    """A document, or as much of it as was asked for."""

    id: str
    uri: Annotated[str, Field(description="the same as a resource")]
    title: str = ""
    text: str
    metadata: dict[str, Any] = Field(default_factory=dict)
    offset: Annotated[int, Field(description="characters before this text")]
    total: Annotated[int, Field(description="characters of the whole text")]
    next_offset: Annotated[int | None, Field(description="where to go on; null at the end")] = None
    shortened: Annotated[bool, Field(description="whether title or metadata was cut")] = False

    @classmethod
    def of(cls, document: Document, args: FetchArgs, collection: str) -> Part:
        """What was asked for.

        Raises:
            InvalidInput: If the document ends before it.

        Example:
            >>> part = Part.of(Document("a/b", "Fourteen lines."), FetchArgs(id="a/b", limit=8), "docs")
            >>> part.text, part.next_offset, part.uri
            ('Fourteen', 8, 'doc://docs/a%2Fb')
        """
        total, end = len(document.text), args.offset + args.limit
        if args.offset > total:
            raise InvalidInput(f"offset={args.offset}; the document has {total} characters")
        metadata, left = dict[str, Any](), _METADATA
        for key, value in document.metadata.items():
            left -= len(json.dumps({key: value}))
            if left >= 0:
                metadata[key] = value
        return cls(
            id=document.id,
            uri=uri(collection, document.id),
            title=document.title[:_TITLE],
            text=document.text[args.offset : end],
            metadata=metadata,
            offset=args.offset,
            total=total,
            next_offset=end if end < total else None,
            shortened=len(document.title) > _TITLE or len(metadata) < len(document.metadata),
        )

    def cited(self) -> str:
        """The text below a line that says whose it is, and above one that says how to go on."""
        about = [f"id: {one_line(self.id)}", f"title: {one_line(self.title)}" if self.title else ""]
        about += [f"metadata: {one_line(json.dumps(self.metadata, ensure_ascii=False))}" if self.metadata else ""]
        about += [f"characters {self.offset} to {self.offset + len(self.text)} of {self.total}"]
        more = "" if self.next_offset is None else f"\n\n(There is more: fetch again with offset={self.next_offset}.)"
        return f"{' | '.join(filter(None, about))}\n{self.text}{more}"


class About(BaseModel):
    """A collection."""

    name: str
    description: str = ""
    documents: Annotated[int | None, Field(description="how many; null where that is not known")] = None
    retriever: Annotated[str, Field(description="how it is searched")] = ""
    fields: Annotated[list[str], Field(description="of metadata, for filters; others may exist")] = []
    sampled: Annotated[int, Field(description="in how many of the first documents these fields were seen")] = 0


class Collections(BaseModel):
    """What is served."""

    collections: list[About]

    def cited(self) -> str:
        """A line for each collection."""
        lines = []
        for found in self.collections:
            parts = [] if found.documents is None else [f"{found.documents} documents"]
            parts += [f"searched by {found.retriever}"] if found.retriever else []
            fields = ", ".join(map(one_line, found.fields))
            parts += [f"metadata fields seen in the first {found.sampled} documents: {fields}"] if fields else []
            about = f"{one_line(found.description)} " if found.description else ""
            lines.append(f"{one_line(found.name)}: {about}({'; '.join(parts)})")
        return "\n".join(lines)


class Entity(BaseModel):
    """A document that a mention may mean."""

    id: str
    name: str
    log_probability: Annotated[float, Field(description="of the name; nearer to 0 is more likely")]


class Entities(BaseModel):
    """What a mention may mean, the most likely first."""

    mention: str
    entities: list[Entity]

    def cited(self) -> str:
        """A line for each."""
        lines = [
            f"[{number}] id: {one_line(found.id)} | name: {one_line(found.name)} | {found.log_probability:.3f}"
            for number, found in enumerate(self.entities, 1)
        ]
        return "\n".join(lines) or "No document has a name that this may be."


def uri(collection: str, id: str) -> str:
    """A document as a resource.

    Example:
        >>> uri("docs", "a b/ü")
        'doc://docs/a%20b%2F%C3%BC'
    """
    return f"doc://{quote(collection, safe='')}/{quote(id, safe='')}"

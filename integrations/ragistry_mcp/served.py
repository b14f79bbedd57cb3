"""A collection as the server holds it: what its tools do, on plain arguments and answers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

from ragistry import Collection
from ragistry.engines import is_address
from ragistry.errors import InvalidInput, UnknownName
from ragistry.protocols import Searchable
from ragistry.tools import SearchArgs, SearchResult, SearchTool, one_line
from ragistry.types import Document

from .answers import About, Entities, Entity, EntityArgs, FetchArgs, Part

SAMPLE = 100
"""Documents that are looked at for the names of metadata fields."""
_FIELDS = 50  # names that are shown
_NAME = 100  # characters of one

One: TypeAlias = Searchable | str | os.PathLike[str]
Given: TypeAlias = One | Sequence[One] | Mapping[str, One]
"""A collection or the directory of one; several; or several by name."""


@dataclass(frozen=True)
class Served:
    """A collection, its name, and what is to be found there."""

    name: str
    collection: Searchable
    description: str = ""

    @property
    def get(self) -> Callable[[Sequence[str]], Iterable[Document]] | None:
        """What gives documents by id: the collection, or the store it is borrowed from."""
        holder = self.collection if hasattr(self.collection, "get") else getattr(self.collection, "source", None)
        return getattr(holder, "get", None)

    @property
    def names(self) -> bool:
        """Whether it is searched by a model that writes names."""
        return hasattr(self._retriever(), "namer")

    async def search(self, args: SearchArgs) -> SearchResult:
        """The best documents for a query."""
        # The filters of tools are in our own language, which a foreign store may misread: there, none is taken.
        fields: dict[str, str] | None = None if isinstance(self.collection, Collection) else {}
        return await SearchTool(self.collection, fields=fields).acall(args)

    async def fetch(self, args: FetchArgs) -> Part:
        """A part of a document.

        Raises:
            UnknownName: If there is no such document.
            InvalidInput: If the part begins after its end.
        """
        assert self.get is not None
        try:
            found = list(await asyncio.to_thread(self.get, [args.id]))
        except UnknownName:
            found = []
        if not found:
            raise UnknownName(
                f"no document has the id {args.id!r:.200}; search first, and give an id exactly as it is found there"
            )
        return Part.of(found[0], args, self.name)

    async def entities(self, args: EntityArgs) -> Entities:
        """The documents that a mention may mean."""
        return await asyncio.to_thread(self._entities, args)

    async def about(self) -> About:
        """What is here."""
        return await asyncio.to_thread(self._about)

    def _retriever(self) -> Any:
        held = getattr(self.collection, "retriever", None)
        return held() if callable(held) else None

    def _entities(self, args: EntityArgs) -> Entities:
        from ragistry.retrievers.linking import disambiguate

        text, start = args.where()
        ranking = disambiguate(self._retriever(), text, [(start, start + len(args.mention))], args.k)[0]
        found = {} if self.get is None else {document.id: document for document in self.get(list(ranking.ids))}
        named = [(found.get(id, Document(id, "")), score) for id, score in ranking]
        # A document without a title is named by its text.
        entities = [
            Entity(id=document.id, name=(document.title or document.text)[:300], log_probability=score)
            for document, score in named
        ]
        return Entities(mention=args.mention[:300], entities=entities)

    def _about(self) -> About:
        collection, fields, sampled = self.collection, dict[str, None](), 0
        if isinstance(collection, Collection):
            for document in islice(collection.documents(), SAMPLE):
                fields |= dict.fromkeys(key[:_NAME] for key in document.metadata)
                sampled += 1
        return About(
            name=self.name,
            description=self.description,
            documents=len(collection) if isinstance(collection, Sized) else None,
            retriever=str(getattr(collection, "recipe", {}).get("name", "")),
            fields=list(fields)[:_FIELDS],
            sampled=sampled,
        )


def served(collections: Given, descriptions: Mapping[str, str]) -> dict[str, Served]:
    """Collections by name, opened where they are given as directories.

    Args:
        collections: Without a name, one is called as its directory is; a second of the same name has a number.
        descriptions: By name.

    Raises:
        InvalidInput: If there is none, something is no collection, or a description is of none that is served.
        StorageError: If a directory is not a collection.

    Example:
        >>> class Nothing:
        ...     def search_many(self, queries, k=10, *, where=None):
        ...         return [[] for _ in queries]
        >>> list(served([Nothing(), Nothing()], {})), list(served({"mine": Nothing()}, {}))
        (['collection', 'collection-2'], ['mine'])
    """
    if isinstance(collections, str | os.PathLike | Searchable):
        collections = [collections]
    if isinstance(collections, Mapping):
        opened = {name: _opened(one) for name, one in collections.items()}
    else:
        opened = dict[str, Searchable]()
        for one in map(_opened, collections):
            plain = one_line(_called(one)) or "collection"
            name, number = plain, 1
            while name in opened:
                number += 1
                name = f"{plain}-{number}"
            opened[name] = one
    if not opened:
        raise InvalidInput("there is no collection to serve; give at least one")
    for name in opened:
        if not isinstance(name, str) or not name or one_line(name) != name or len(name) > _NAME:
            raise InvalidInput(
                f"a collection is called {name!r:.200}; give a name of one line, up to {_NAME} characters"
            )
    if unknown := sorted(set(descriptions) - set(opened)):
        raise InvalidInput(
            f"the description of {unknown[0]!r} is of no collection here; there are: {', '.join(opened)}"
        )
    return {name: Served(name, one, descriptions.get(name, "")) for name, one in opened.items()}


def _called(one: Searchable) -> str:
    """The name of a collection's directory, or what it is called in its database."""
    location = one.location if isinstance(one, Collection) else ""
    if is_address(location):
        return location.rpartition("collection=")[2]
    return Path(location).resolve().name if location else ""


def _opened(one: One) -> Searchable:
    if isinstance(one, str | os.PathLike):
        return Collection.open(one)
    if not isinstance(one, Searchable):
        raise InvalidInput(f"{type(one).__name__} has no method `search_many`; give a Collection, or its directory")
    return one

"""A writer for indexing pipelines."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from haystack import Document, component, default_from_dict, default_to_dict

import ragistry
from ragistry import Collection
from ragistry.errors import InvalidInput

from ._held import Held


@component
class RagistryWriter:
    """Adds documents to a Ragistry collection, which is there already: `ragistry.Collection.create` makes one.

    A document whose id is already there is replaced, one that has not changed is passed over. `meta["title"]` is searched
    together with the text, and stays in the metadata.

    Args:
        collection: The path of a collection, which is opened when first needed; or one that is open, of which a serialised
            pipeline keeps the path.

    Raises:
        InvalidInput: If it is neither.

    Example:
        >>> import tempfile
        >>> docs = Collection.create(tempfile.mkdtemp() + "/docs", ragistry.create("bm25"))
        >>> RagistryWriter(docs).run([Document(content="The sonnet has fourteen lines.", meta={"title": "Sonnet"})])
        {'documents_written': 1}
        >>> docs.search("sonnet")[0].title
        'Sonnet'
    """

    def __init__(self, collection: str | os.PathLike[str] | Collection) -> None:
        if not isinstance(collection, str | os.PathLike | Collection):
            raise InvalidInput(f"{type(collection).__name__} takes no documents; give a collection or its path")
        self._held = Held(collection)

    def warm_up(self) -> None:
        """Open the collection.

        Raises:
            StorageError: If there is none at the path.
        """
        self._held.get()

    def close(self) -> None:
        """Close the collection, unless it was given open."""
        self._held.close()

    @component.output_types(documents_written=int)
    def run(self, documents: list[Document]) -> dict[str, int]:
        """Add documents.

        Args:
            documents: With text.

        Returns:
            `documents_written`: how many were new or had changed.

        Raises:
            InvalidInput: If one has no text, or metadata that JSON cannot hold, or an id is given twice.
            Locked: If another process is writing.
        """
        collection = self._held.get()
        assert isinstance(collection, Collection)
        change = collection.add([_document(document) for document in documents])
        return {"documents_written": change.added + change.replaced}

    @component.output_types(documents_written=int)
    async def run_async(self, documents: list[Document]) -> dict[str, int]:
        """The same as `run`, the event loop running on meanwhile."""
        return await asyncio.to_thread(self.run, documents)

    def to_dict(self) -> dict[str, Any]:
        """As a pipeline keeps it, with the path of the collection."""
        return default_to_dict(self, collection=self._held.path())

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RagistryWriter:
        """From what `to_dict` gave."""
        made: RagistryWriter = default_from_dict(cls, data)
        return made


def _document(document: Document) -> ragistry.Document:
    if document.content is None:
        raise InvalidInput(f"document {document.id!r} has no text; convert or leave out what holds something else")
    title = document.meta.get("title")
    return ragistry.Document(
        document.id, document.content, title if isinstance(title, str) else "", metadata=document.meta
    )

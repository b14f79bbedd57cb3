"""A collection as LangChain's document index, kept up to date by `index()` and `aindex()`."""

from __future__ import annotations

import os
import uuid
from collections import Counter
from collections.abc import Sequence
from typing import Any

from langchain_core.documents import Document
from langchain_core.indexing import UpsertResponse
from langchain_core.indexing.base import DeleteResponse, DocumentIndex
from pydantic import field_validator

import ragistry
from ragistry import Collection
from ragistry.errors import InvalidInput, UnknownName
from ragistry.metadata import normal

from .documents import given, taken
from .retrievers import RagistryRetriever


class RagistryIndex(RagistryRetriever, DocumentIndex):
    """A collection that LangChain fills, and a `RagistryRetriever` over it.

    `page_content` is what is searched; metadata, of values that JSON can hold, is what filters see. What fails raises, as
    `index()` takes no notice of failures that are merely reported; it then records nothing of that batch, and does it again
    in its next run.

    Args:
        collection: A `ragistry.Collection` or the path of one. The other arguments are those of `RagistryRetriever`.

    Example:
        >>> import tempfile
        >>> from langchain_core.indexing import InMemoryRecordManager, index
        >>> docs = RagistryIndex(collection=Collection.create(tempfile.mkdtemp() + "/docs", ragistry.create("bm25")))
        >>> records = InMemoryRecordManager("docs")
        >>> records.create_schema()
        >>> page = Document("The sonnet has fourteen lines.", metadata={"source": "sonnet.html"})
        >>> for _ in range(2):
        ...     done = index([page], records, docs, cleanup="full", source_id_key="source", key_encoder="sha256")
        ...     done["num_added"], done["num_skipped"]
        (1, 0)
        (0, 1)
        >>> [document.metadata for document in docs.invoke("sonnet")]
        [{'source': 'sonnet.html'}]
    """

    @field_validator("collection", mode="before")
    @classmethod
    def _opened(cls, found: Any) -> Any:
        if not isinstance(found, Collection | str | os.PathLike):
            raise InvalidInput(f"{type(found).__name__} cannot be written; give a Collection or the path of one")
        return Collection.open(found) if not isinstance(found, Collection) else found

    def upsert(self, items: Sequence[Document], /) -> UpsertResponse:  # type: ignore[override]  # takes nothing else
        """Add documents; one whose id is already there is replaced, one without an id is given one.

        Returns:
            The ids, in order, none of which failed.

        Raises:
            InvalidInput: If a document cannot be stored, or an id is given twice; nothing is added then.
            Locked: If another process is writing.
            StorageError: If the disk is full or cannot be written.
        """
        documents = [_checked(document, number) for number, document in enumerate(items)]
        ids = [document.id for document in documents]
        id, count = next(iter(Counter(ids).most_common(1)), ("", 0))
        if count > 1:
            raise InvalidInput(f"the id {id!r} is given to {count} documents; give each its own")
        self.collection.add(documents)
        return UpsertResponse(succeeded=ids, failed=[])

    def delete(self, ids: list[str] | None = None) -> DeleteResponse:  # type: ignore[override]
        """Take documents out; ids that are not there are passed over.

        Raises:
            InvalidInput: If no ids are given.
            Locked: If another process is writing.
        """
        if ids is None:
            raise InvalidInput("no ids were given to delete; give a list of them")
        there = [document.id for document in self._present(ids)]
        return DeleteResponse(
            succeeded=there, num_deleted=self.collection.remove(there) if there else 0, failed=[], num_failed=0
        )

    def get(self, ids: Sequence[str], /) -> list[Document]:  # type: ignore[override]
        """Documents by id, in the order asked; ids that are not there are passed over."""
        return [given(document) for document in self._present(ids)]

    def _present(self, ids: Sequence[str]) -> list[ragistry.Document]:
        """Those documents that are there: a collection refuses ids that are not, so halves are asked for."""
        wanted = list(dict.fromkeys(ids))
        try:
            return list(self.collection.get(wanted))
        except UnknownName:
            half = len(wanted) // 2
            return [*self._present(wanted[:half]), *self._present(wanted[half:])] if half else []


def _checked(document: Document, number: int) -> ragistry.Document:
    """A document that a collection can store."""
    name = f"document {number}" + (f" ({document.id!r})" if document.id is not None else "")
    normal(document.metadata, f"the metadata of {name}")
    return taken(document, str(uuid.uuid4()) if document.id is None else document.id)

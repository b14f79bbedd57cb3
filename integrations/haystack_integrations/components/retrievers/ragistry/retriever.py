"""A retriever for pipelines and agents."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from haystack import Document, component, default_from_dict, default_to_dict
from haystack.document_stores.types import FilterPolicy

from ragistry import Collection, Hit
from ragistry.errors import InvalidInput
from ragistry.protocols import Searchable
from ragistry.tools import joined, searched

from ._held import Held
from .filters import to_where


@component
class RagistryRetriever:
    """Finds the documents of a Ragistry collection that answer a query best.

    It is a `TextRetriever`: `MultiRetriever`, `MultiQueryTextRetriever` and `ComponentTool` take it. Found documents have
    their id, text and score; a title is in `meta["title"]`.

    Args:
        collection: The path of a collection, which is opened when first needed; or one that is open, of which a serialised
            pipeline keeps the path. Whatever else can be searched (`ragistry.borrowed`) cannot be serialised, and is
            given filters as they are, in its own language.
        filters: In Haystack's language: see `to_where`.
        top_k: How many documents at most.
        filter_policy: REPLACE: filters of a run take the place of those given here. MERGE: both must hold. (Haystack's own
            merging lets the former win where both name a field, and drops the latter where one is an OR; here no run gets
            around them.)

    Raises:
        InvalidInput: If the collection, `top_k` or the policy cannot be used.
        FilterError: If the filters are none of Haystack's.

    Example:
        >>> import tempfile
        >>> import ragistry
        >>> docs = ragistry.Collection.create(tempfile.mkdtemp() + "/docs", ragistry.create("bm25"))
        >>> docs.add(ragistry.Document("1", "The sonnet has fourteen lines.", metadata={"year": 1609})).added
        1
        >>> retriever = RagistryRetriever(docs, filters={"field": "meta.year", "operator": "<", "value": 1700})
        >>> [(found.id, found.meta) for found in retriever.run("how many lines?")["documents"]]
        [('1', {'year': 1609})]
    """

    def __init__(
        self,
        collection: str | os.PathLike[str] | Searchable,
        filters: dict[str, Any] | None = None,
        top_k: int = 10,
        filter_policy: FilterPolicy = FilterPolicy.REPLACE,
    ) -> None:
        self._held = Held(collection)
        foreign = isinstance(collection, Searchable) and not isinstance(collection, Collection)
        if not isinstance(filter_policy, FilterPolicy):
            raise InvalidInput(f"filter_policy={filter_policy!r}; FilterPolicy.REPLACE or FilterPolicy.MERGE is needed")
        if foreign and filter_policy is FilterPolicy.MERGE:
            raise InvalidInput("filters of another store's language cannot be merged; use FilterPolicy.REPLACE")
        if not foreign:
            to_where(filters)
        self.filters, self.top_k, self.filter_policy = filters, _counted(top_k, 1), filter_policy

    def warm_up(self) -> None:
        """Open the collection.

        Raises:
            StorageError: If there is none at the path.
        """
        self._held.get()

    async def warm_up_async(self) -> None:
        """The same, the event loop running on meanwhile."""
        await asyncio.to_thread(self.warm_up)

    def close(self) -> None:
        """Close the collection, unless it was given open."""
        self._held.close()

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """Search.

        Args:
            query: What is asked.
            filters: Further ones, or others: see `filter_policy`.
            top_k: How many documents at most.

        Returns:
            `documents`, best first.

        Raises:
            InvalidInput: If the query is not text, or `top_k` is negative.
            FilterError: If the filters are none of Haystack's.
        """
        collection = self._held.get()
        where, k = self._where(filters, collection), self._k(top_k)
        return {"documents": [_document(hit) for hit in collection.search_many([query], k, where=where)[0]]}

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """The same as `run`, the event loop running on meanwhile."""
        collection = await asyncio.to_thread(self._held.get)
        where, k = self._where(filters, collection), self._k(top_k)
        return {"documents": [_document(hit) for hit in (await searched(collection, [query], k, where=where))[0]]}

    def to_dict(self) -> dict[str, Any]:
        """As a pipeline keeps it, with the path of the collection.

        Raises:
            SerializationError: If what it searches is no collection.
        """
        return default_to_dict(
            self,
            collection=self._held.path(),
            filters=self.filters,
            top_k=self.top_k,
            filter_policy=self.filter_policy.value,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> RagistryRetriever:
        """From what `to_dict` gave."""
        given = dict(data.get("init_parameters", {}))
        if "filter_policy" in given:
            given["filter_policy"] = FilterPolicy.from_str(given["filter_policy"])
        made: RagistryRetriever = default_from_dict(cls, {**data, "init_parameters": given})
        return made

    def _where(self, filters: dict[str, Any] | None, collection: Searchable) -> dict[str, Any] | None:
        if not isinstance(collection, Collection):
            return filters or self.filters
        if self.filter_policy is FilterPolicy.MERGE:
            return joined(to_where(self.filters), to_where(filters))
        return to_where(filters or self.filters)

    def _k(self, top_k: int | None) -> int:
        return self.top_k if top_k is None else _counted(top_k, 0)


def _counted(top_k: int, least: int) -> int:
    if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < least:
        raise InvalidInput(f"top_k={top_k!r}; a whole number of at least {least} is needed")
    return top_k


def _document(hit: Hit) -> Document:
    meta = {"title": hit.title, **hit.metadata} if hit.title else dict(hit.metadata)
    return Document(id=hit.id, content=hit.text, meta=meta, score=hit.score)

"""A collection as a retriever of LlamaIndex."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks.base import CallbackManager
from llama_index.core.schema import NodeWithScore, QueryBundle

from ragistry import Collection, Hit
from ragistry.encoders.projected import Projected
from ragistry.errors import InvalidInput
from ragistry.protocols import Searchable
from ragistry.tools import searched
from ragistry.types import Floats

from .documents import node_of
from .filters import Filters, filter_for
from .vectors import searcher_of


class RagistryRetriever(BaseRetriever):
    """Retrieves from a collection: for query engines, fusions, routers, agents and evaluators.

    Nodes are made anew for every call, with the documents' ids, and a title among the metadata. Scores are in
    `NodeWithScore` alone, so that a document has the same hash from every retriever. `aretrieve` does not block the loop.

    A query's `embedding` is used where the collection is searched with one dense vector, as by `dense`. It must come from
    the encoder as it was before it was taught: what was learnt is applied here, if it can be applied to vectors. Its
    `custom_embedding_strs`, such as an imagined answer, are encoded there, and their mean is searched with. Other
    collections, such as `bm25` and `hybrid`, search for the text of the query, as LlamaIndex's own retrievers without
    vectors do.

    Args:
        collection: A `ragistry.Collection` or its path, or whatever else has its `search_many`, as a `Borrowed`.
        similarity_top_k: How many nodes at most.
        filters: LlamaIndex's `MetadataFilters`, or Ragistry's mapping. A store that is borrowed gets them as they are.
        excluded_metadata_keys: Names of metadata that neither prompts nor embedding models are to see: what is noise there.
        callback_manager: LlamaIndex's.

    Raises:
        InvalidInput: If the filters cannot be translated (see `where_of`), or something is out of range.
        StorageError: If the path is no collection.

    Example:
        >>> import tempfile
        >>> from ragistry import Document, create
        >>> docs = Collection.create(tempfile.mkdtemp() + "/docs", create("bm25"))
        >>> docs.add([Document("1", "Fourteen lines."), Document("2", "Three lines.")]).added
        2
        >>> [node.node_id for node in RagistryRetriever(docs, similarity_top_k=1).retrieve("three")]
        ['2']
    """

    def __init__(
        self,
        collection: Searchable | str | os.PathLike[str],
        *,
        similarity_top_k: int = 10,
        filters: Filters | None = None,
        excluded_metadata_keys: Sequence[str] = (),
        callback_manager: CallbackManager | None = None,
    ) -> None:
        if isinstance(collection, str | os.PathLike):
            collection = Collection.open(collection)
        if not isinstance(collection, Searchable):
            raise InvalidInput(
                f"{type(collection).__name__} has no method `search_many`; give a Collection or its path"
            )
        if not isinstance(similarity_top_k, int) or similarity_top_k < 1:
            raise InvalidInput(f"similarity_top_k={similarity_top_k!r:.100}; give a whole number of 1 or more")
        self.collection = collection
        self.similarity_top_k = similarity_top_k
        self.filters = filters
        self.excluded_metadata_keys = tuple(excluded_metadata_keys)
        self._where()  # refuses filters that cannot be used
        super().__init__(callback_manager=callback_manager)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        hits = self._by_vector(query_bundle)
        if hits is None:
            query = query_bundle.query_str
            hits = self.collection.search_many([query], self.similarity_top_k, where=self._where())[0]
        return self._nodes(hits)

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        hits = await asyncio.to_thread(self._by_vector, query_bundle) if _has_vector(query_bundle) else None
        if hits is None:
            query = query_bundle.query_str
            hits = (await searched(self.collection, [query], self.similarity_top_k, where=self._where()))[0]
        return self._nodes(hits)

    def _by_vector(self, bundle: QueryBundle) -> list[Hit] | None:
        """What is near to the vector that a query comes with; none if there is no vector, or no use for it."""
        searcher = searcher_of(self.collection) if _has_vector(bundle) else None
        search = getattr(self.collection, "search_vectors", None)
        if searcher is None or search is None or not searcher.takes_vectors:  # one that was taught to read texts
            return None
        if bundle.embedding is not None:
            vectors = np.array([bundle.embedding], np.float32)
        else:
            encoder = searcher.encoder.encoder if isinstance(searcher.encoder, Projected) else searcher.encoder
            vectors = cast(Floats, encoder.encode(bundle.embedding_strs, "query")).mean(axis=0, keepdims=True)
        hits: list[list[Hit]] = search(vectors, self.similarity_top_k, where=self._where())
        return hits[0]

    def _where(self) -> Any:
        return filter_for(self.collection, self.filters)

    def _nodes(self, hits: Sequence[Hit]) -> list[NodeWithScore]:
        return [NodeWithScore(node=node_of(hit, excluded=self.excluded_metadata_keys), score=hit.score) for hit in hits]


def _has_vector(bundle: QueryBundle) -> bool:
    return bundle.embedding is not None or bool(bundle.custom_embedding_strs)

"""A vector store of LlamaIndex, lent to Ragistry: searched better, and only read."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.indices.vector_store.base import VectorStoreIndex
from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.core.storage.docstore.types import BaseDocumentStore
from llama_index.core.vector_stores.types import BasePydanticVectorStore, VectorStoreQuery, VectorStoreQueryResult

from ragistry import Document, Hit
from ragistry.borrowed import Borrowed
from ragistry.encoders.functions import Function
from ragistry.errors import InvalidInput
from ragistry.protocols import Encoder
from ragistry.types import Floats

from .documents import document_of
from .embeddings import RagistryEmbedding
from .filters import Filters, filters_of


class VectorStoreSource:
    """What `ragistry.borrowed.Borrowed` asks of a store, answered by any vector store of LlamaIndex. Nothing is written.

    Args:
        store: The vector store.
        docstore: Where nodes are, for stores that give ids only: an index's `docstore`.
        node_ids: The nodes of an index, by the ids that the store gives them: its `index_struct.nodes_dict`. Others that may
            be in the store are left out, as by the index's own retriever; by default all are found.

    Raises:
        InvalidInput: If it is no vector store. From a search, if the store gives an id whose node is nowhere to be found.

    Example:
        >>> import numpy as np
        >>> from llama_index.core.schema import TextNode
        >>> from llama_index.core.storage.docstore import SimpleDocumentStore
        >>> from llama_index.core.vector_stores import SimpleVectorStore
        >>> node = TextNode(id_="1", text="Fourteen lines.", embedding=[1.0, 0.0])
        >>> store, docstore = SimpleVectorStore(), SimpleDocumentStore()
        >>> added = store.add([node]), docstore.add_documents([node])
        >>> VectorStoreSource(store, docstore).near(np.array([1, 0], np.float32), 5)
        [Hit(id='1', score=1.0, text='Fourteen lines.', title='', metadata={})]
    """

    def __init__(
        self,
        store: BasePydanticVectorStore,
        docstore: BaseDocumentStore | None = None,
        *,
        node_ids: Mapping[str, str] | None = None,
    ) -> None:
        if not isinstance(store, BasePydanticVectorStore):
            raise InvalidInput(f"{type(store).__name__} was given; a vector store or VectorStoreIndex is needed")
        self.store, self.docstore, self.node_ids = store, docstore, node_ids

    def near(self, vector: Floats, k: int, where: Filters | None = None) -> list[Hit]:
        """The nearest `k` to a vector float32 [d], best first; `where` is `MetadataFilters` or what `filters_of` takes."""
        found = self.store.query(self._query(vector, k, where))
        ids = self._ids(found)
        nodes: Sequence[BaseNode] = found.nodes or ()
        if not nodes and self.docstore is not None:
            nodes = self.docstore.get_nodes(ids, raise_error=False)
        return self._hits(ids, nodes, found.similarities)

    async def anear(self, vector: Floats, k: int, where: Filters | None = None) -> list[Hit]:
        """The same, by the store's own asynchronous query if it has one, else in a thread."""
        if type(self.store).aquery is BasePydanticVectorStore.aquery:  # which would block the loop
            return await asyncio.to_thread(self.near, vector, k, where)
        found = await self.store.aquery(self._query(vector, k, where))
        ids = self._ids(found)
        nodes: Sequence[BaseNode] = found.nodes or ()
        if not nodes and self.docstore is not None:
            nodes = await self.docstore.aget_nodes(ids, raise_error=False)
        return self._hits(ids, nodes, found.similarities)

    def get(self, ids: Sequence[str]) -> list[Document]:
        """Those of the documents that docstore or store can give, with the text that was embedded."""
        nodes = [] if self.docstore is None else self.docstore.get_nodes(list(ids), raise_error=False)
        known = {node.node_id: node for node in nodes}
        if lacking := [id for id in ids if id not in known]:
            with suppress(NotImplementedError):  # many stores give nothing by id
                known |= {node.node_id: node for node in self.store.get_nodes(node_ids=lacking) or ()}
        return [document_of(known[id], MetadataMode.EMBED) for id in ids if id in known]

    def _query(self, vector: Floats, k: int, where: Filters | None) -> VectorStoreQuery:
        nodes = None if self.node_ids is None else list(self.node_ids.values())
        return VectorStoreQuery(
            query_embedding=vector.tolist(), similarity_top_k=k, node_ids=nodes, filters=filters_of(where)
        )

    def _ids(self, found: VectorStoreQueryResult) -> list[str]:
        if found.nodes:
            return [node.node_id for node in found.nodes]
        names = self.node_ids or {}
        return [names.get(id, id) for id in found.ids or ()]

    def _hits(self, ids: Sequence[str], nodes: Sequence[BaseNode], scores: Sequence[float] | None) -> list[Hit]:
        known = {node.node_id: document_of(node) for node in nodes}
        if lost := [id for id in ids if id not in known]:
            raise InvalidInput(
                f"{type(self.store).__name__} found {lost[0]!r} and gives ids only; give the docstore that holds its nodes, "
                "such as the index's `docstore`"
            )
        if scores is None:
            scores = [1 / rank for rank in range(1, len(ids) + 1)]
        documents = [known[id] for id in ids]
        return [Hit(d.id, float(s), d.text, d.title, d.metadata) for d, s in zip(documents, scores, strict=True)]


def borrow(
    store: VectorStoreIndex | BasePydanticVectorStore,
    encoder: Encoder | BaseEmbedding | None = None,
    *,
    docstore: BaseDocumentStore | None = None,
    where: Filters | None = None,
) -> Borrowed:
    """Search, and teach, over a vector store that is there already; it is only read, and nothing is indexed again.

    Untaught, it answers as the index's own retriever does. A node's id is its hit's id.

    Args:
        store: An index, or a vector store.
        encoder: What made the store's vectors, of LlamaIndex or Ragistry; for an index, its own by default.
        docstore: Where nodes are, for a vector store that gives ids only; an index has its own.
        where: A filter that every search is held to.

    Raises:
        InvalidInput: If there is no encoder, or it is not dense.

    Example:
        >>> from llama_index.core import MockEmbedding, VectorStoreIndex
        >>> from llama_index.core.schema import TextNode
        >>> index = VectorStoreIndex([TextNode(id_="1", text="Fourteen lines.")], embed_model=MockEmbedding(4))
        >>> [hit.id for hit in borrow(index).search("how many lines?")]
        ['1']
    """
    node_ids: Mapping[str, str] | None = None
    if isinstance(store, VectorStoreIndex):
        encoder = store._embed_model if encoder is None else encoder  # there is no public name for it
        docstore = store.docstore if docstore is None else docstore
        node_ids, store = store.index_struct.nodes_dict, store.vector_store
    source = VectorStoreSource(store, docstore, node_ids=node_ids)
    if encoder is None:
        raise InvalidInput("a vector store has no encoder; give the one that made its vectors as `encoder`")
    return Borrowed(source, _encoder(encoder), where=where)


def _encoder(given: Encoder | BaseEmbedding) -> Encoder:
    if isinstance(given, RagistryEmbedding):
        ours: Encoder = given.encoder
        return ours
    if isinstance(given, BaseEmbedding):
        # As it is, not of unit length: some stores rank by dot product.
        return Function(given, f"{given.class_name()} {given.model_name}", normalise=False)
    return given

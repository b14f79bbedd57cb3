"""Any LangChain vector store, to be searched with better queries: see `ragistry.borrowed`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore

import ragistry
from ragistry.borrowed import Borrowed
from ragistry.encoders.functions import Function
from ragistry.errors import InvalidInput
from ragistry.protocols import Encoder
from ragistry.types import Hit

from .documents import taken
from .embeddings import RagistryEmbeddings


def borrow(
    store: VectorStore,
    encoder: Encoder | None = None,
    *,
    where: Any = None,
    id_key: str | None = None,
    filter_key: str = "filter",
) -> Borrowed:
    """A vector store, searched as a collection is, and taught as one; it is only read.

    Args:
        store: Any that finds documents by vector.
        encoder: For queries; by default the store's own embeddings, so that it answers as before until it is taught.
        where: A filter in the store's own language that every search is held to.
        id_key: See `VectorStoreSource`.
        filter_key: See `VectorStoreSource`.

    Raises:
        InvalidInput: If no encoder is given, and the store does not say what its embeddings are.

    Example:
        >>> from langchain_core.embeddings import DeterministicFakeEmbedding
        >>> from langchain_core.vectorstores import InMemoryVectorStore
        >>> store = InMemoryVectorStore(DeterministicFakeEmbedding(size=8))
        >>> store.add_documents([Document("fourteen lines", id="1"), Document("three lines", id="2")])
        ['1', '2']
        >>> mine = borrow(store)
        >>> [hit.id for hit in mine.search("three lines", k=1)]
        ['2']
    """
    if not isinstance(store, VectorStore):
        raise InvalidInput(f"{type(store).__name__} was given; a VectorStore of LangChain's is needed")
    if encoder is None:
        embeddings = store.embeddings
        if embeddings is None:
            raise InvalidInput(f"{type(store).__name__} does not say what its embeddings are; give `encoder`")
        # What a store makes of vectors may depend on their lengths, so they stay.
        if isinstance(embeddings, RagistryEmbeddings):
            encoder = embeddings.encoder
        else:
            encoder = Function(embeddings, _name(embeddings), normalise=False)
    return Borrowed(VectorStoreSource(store, id_key=id_key, filter_key=filter_key), encoder, where=where)


class VectorStoreSource:
    """A LangChain vector store as a `ragistry.protocols.Source`.

    Hits are in the store's order. Their score is one over their rank, as LangChain does not say of the numbers that stores
    give whether higher is better.

    Args:
        store: Any that has `similarity_search_by_vector`.
        id_key: The key of the metadata that holds documents' ids, for stores that return documents without `id`. Failing
            both, `_id` is looked for, where langchain-qdrant has it.
        filter_key: What the store calls the argument for its filter.

    Example:
        >>> from langchain_core.embeddings import DeterministicFakeEmbedding
        >>> from langchain_core.vectorstores import InMemoryVectorStore
        >>> model = DeterministicFakeEmbedding(size=8)
        >>> store = InMemoryVectorStore(model)
        >>> _ = store.add_documents([Document("fourteen lines", id="1"), Document("three lines", id="2")])
        >>> hits = VectorStoreSource(store).near(np.array(model.embed_query("three lines"), np.float32), 2)
        >>> [(hit.id, hit.score) for hit in hits]
        [('2', 1.0), ('1', 0.5)]
    """

    def __init__(self, store: VectorStore, *, id_key: str | None = None, filter_key: str = "filter") -> None:
        self.store, self.id_key, self.filter_key = store, id_key, filter_key

    def near(self, vector: npt.NDArray[np.float32], k: int, where: Any = None) -> list[Hit]:
        """The `k` documents nearest to a vector [dimensions], best first.

        Raises:
            InvalidInput: If the store cannot be searched by vector, or a document has no id.
        """
        try:
            return self._hits(self.store.similarity_search_by_vector(vector.tolist(), k=k, **self._filter(where)))
        except NotImplementedError as error:
            raise self._cannot() from error

    async def anear(self, vector: npt.NDArray[np.float32], k: int, where: Any = None) -> list[Hit]:
        """`near`, by the store's own way of not blocking the event loop."""
        try:
            found = await self.store.asimilarity_search_by_vector(vector.tolist(), k=k, **self._filter(where))
        except NotImplementedError as error:
            raise self._cannot() from error
        return self._hits(found)

    def get(self, ids: Sequence[str]) -> list[ragistry.Document]:
        """The documents with these ids, as far as the store can give them: none if it cannot look up ids, or has others."""
        if self.id_key is not None:
            return []
        try:
            found = self.store.get_by_ids(list(ids))
        except NotImplementedError:
            return []
        wanted = set(ids)
        documents = {id: taken(document, id) for document in found if (id := self._id(document)) in wanted}
        return [documents[id] for id in dict.fromkeys(ids) if id in documents]

    def _hits(self, found: Sequence[Document]) -> list[Hit]:
        hits = []
        for rank, document in enumerate(found, 1):
            item = taken(document, self._id(document))
            hits.append(Hit(item.id, 1 / rank, item.text, metadata=item.metadata))
        return hits

    def _id(self, document: Document) -> str:
        id = document.id or document.metadata.get("_id")
        if self.id_key is not None:
            id = document.metadata.get(self.id_key)
        if id is None:
            held = ", ".join(map(str, document.metadata)) or "none"
            wanted = "" if self.id_key is None else f" under {self.id_key!r}"
            raise InvalidInput(
                f"{type(self.store).__name__} gave a document without an id{wanted}; give `id_key`, the key of the metadata "
                f"that holds it (keys there: {held})"
            )
        return str(id)

    def _filter(self, where: Any) -> dict[str, Any]:
        return {} if where is None else {self.filter_key: where}

    def _cannot(self) -> InvalidInput:
        return InvalidInput(
            f"{type(self.store).__name__} cannot be searched by vector (it has no `similarity_search_by_vector`), so no "
            "other query vectors can be given to it"
        )


def _name(embeddings: Any) -> str:
    """What tells a model from others."""
    names = (getattr(embeddings, key, None) for key in ("model_name", "model", "model_id"))
    model = next((name for name in names if isinstance(name, str)), "")
    return f"{type(embeddings).__name__}:{model}" if model else type(embeddings).__name__

"""Collections that are searched with one dense vector: their encoders, and searches with a vector that is there already."""

from __future__ import annotations

from typing import Any

import numpy as np

from ragistry.borrowed import Borrowed
from ragistry.encoders.projected import Projected
from ragistry.errors import InvalidInput
from ragistry.protocols import Encoder
from ragistry.retrievers.adapted import Adapted
from ragistry.retrievers.augmented import Augmented
from ragistry.retrievers.retrained import Retrained
from ragistry.retrievers.searcher import Searcher
from ragistry.types import Floats, Hit


def searcher_of(collection: Any) -> Searcher | None:
    """The collection's retriever, if it searches with one dense vector and nothing else."""
    found = collection.retriever() if callable(getattr(collection, "retriever", None)) else None
    return found if isinstance(found, Searcher) and found.encoder.kind == "dense" else None


def encoder_of(collection: Any) -> Encoder:
    """The encoder of a collection, with what it was taught about queries and texts.

    Raises:
        InvalidInput: If the collection is not searched with one dense vector.
    """
    searcher = searcher_of(collection)
    if searcher is None:
        raise InvalidInput(
            f"{type(collection).__name__} is not searched with one dense vector; give a collection whose retriever is, such "
            "as `dense`, or one that was taught over it"
        )
    if isinstance(searcher, Adapted):
        return searcher.adapter() or searcher.encoder
    if isinstance(searcher, Augmented):
        return searcher.aware or searcher.encoder
    return searcher.encoder


def turned(searcher: Searcher, vectors: Floats) -> Floats | None:
    """Vectors of queries that the untaught encoder made, float32 [n, d], as they are searched with.

    None if vectors alone do not tell: the searcher was taught to read queries' texts in another way.
    """
    if isinstance(searcher, Adapted):
        return searcher.turned(vectors)
    if (isinstance(searcher, Retrained) and searcher.weights) or (isinstance(searcher, Augmented) and searcher.aware):
        return None
    encoder = searcher.encoder
    return encoder.projection(vectors, "query") if isinstance(encoder, Projected) else vectors


def near(collection: Any, vector: Floats, k: int, where: Any) -> list[Hit]:
    """The best `k` documents for a vector float32 [d] as it is searched with."""
    if isinstance(collection, Borrowed):
        if where and collection.where:
            raise InvalidInput("a filter was given, and the store is held to one already; give one that says both")
        return collection.source.near(vector, k, where or collection.where)[:k]
    searcher = searcher_of(collection)
    assert searcher is not None  # as the vector came from it
    among = {document.id for document in collection.documents(where)} if where else None
    ranking = searcher.index.search(np.atleast_2d(vector), k, among=among)[0]
    documents = collection.get(ranking.ids)
    scores = ranking.scores.tolist()
    return [Hit(d.id, score, d.text, d.title, d.metadata) for d, score in zip(documents, scores, strict=True)]

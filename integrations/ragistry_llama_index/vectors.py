"""Collections that are searched with one dense vector, and their encoders."""

from __future__ import annotations

from typing import Any

from ragistry.errors import InvalidInput
from ragistry.protocols import Encoder
from ragistry.retrievers.adapted import Adapted
from ragistry.retrievers.augmented import Augmented
from ragistry.retrievers.searcher import Searcher


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

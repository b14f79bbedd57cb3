"""The concepts of Ragistry as structural types. Read this first.

An `Encoder` turns queries or documents into vectors of one kind; an `Index` holds vectors of that kind and finds the
nearest; a `Retriever` answers queries with rankings, by joining an encoder and an index, by wrapping other retrievers, or
without vectors at all. A class is one of these by having the methods; nothing needs to be inherited.

All of them refuse what they cannot use with one of `ragistry.errors`: items and queries that are no text, one text where a
list is needed, an id twice in one call, vectors of another kind, width or not finite. Ids that are not there are passed
over by `remove` and refused by `vectors`. The contracts in `ragistry.testing` check that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol, Self, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from .types import Among, Document, Floats, Hit, Item, Kind, Query, Ranking, Role, Vectors

State: TypeAlias = dict[str, Any]
"""What JSON can hold: the part of an object's state that goes into the manifest."""

NOTHING: Mapping[str, str] = MappingProxyType({})


class Files(Protocol):
    """Where an object leaves its arrays when saved: write-once files, named by their content."""

    def put(self, array: npt.NDArray[Any]) -> str:
        """Store an array and return its name."""

    def get(self, name: str) -> npt.NDArray[Any]:
        """The array stored under a name, read-only and memory-mapped."""


@runtime_checkable
class Encoder(Protocol):
    """Turns items into vectors of one kind. Batch size, device, precision and prompts are constructor state."""

    kind: Kind

    def encode(self, items: Sequence[Item], role: Role) -> Vectors:
        """One vector per item, in order, whatever the batches (up to rounding, which bf16 makes visible)."""

    def fingerprint(self) -> str:
        """Differs between encoders whose vectors must not meet in one index."""


@runtime_checkable
class Index(Protocol):
    """Holds vectors of one kind by id. Safe to search from many threads; one thread at a time may change it."""

    kind: Kind

    def add(self, ids: Sequence[str], vectors: Vectors) -> None:
        """Insert; an id that is already there is replaced."""

    def remove(self, ids: Iterable[str]) -> None:
        """Take ids out; ids that are not there are passed over."""

    def search(self, queries: Vectors, k: int, *, among: Among = None) -> list[Ranking]:
        """The nearest `k` of `among` for each query; fewer when there are fewer."""

    def vectors(self, ids: Sequence[str]) -> Vectors:
        """The stored vectors, in the order asked."""

    def fork(self) -> Self:
        """A copy that shares what is stored: changing one leaves the other as it was."""

    def save(self, files: Files) -> State:
        """Store arrays in `files` and return the rest."""

    def load(self, state: State, files: Files) -> None:
        """Become what was saved."""

    def __len__(self) -> int: ...


@runtime_checkable
class Retriever(Protocol):
    """Answers queries with rankings."""

    def search(self, queries: Sequence[Query], k: int = 10, *, among: Among = None) -> list[Ranking]:
        """One ranking per query, at most `k` long, of ids in `among`."""


@runtime_checkable
class Updatable(Retriever, Protocol):
    """A retriever that a `Collection` can keep: it takes documents, forks, and is saved with its collection.

    One with an attribute `reads_metadata` that is true is also given documents of which nothing but metadata changed.
    """

    recipe: Any

    def add(self, documents: Sequence[Document], *, same: Mapping[str, str] = NOTHING) -> None:
        """Insert; a document whose id is already there is replaced.

        `same` names, for some of them, a document already there with the same title and text: what was computed for that
        one may be copied.
        """

    def remove(self, ids: Iterable[str]) -> None:
        """Take ids out; ids that are not there are passed over."""

    def fork(self) -> Self:
        """A copy that shares what is stored: changing one leaves the other as it was."""

    def save(self, files: Files) -> State:
        """Store arrays in `files` and return the rest."""

    def load(self, state: State, files: Files) -> None:
        """Become what was saved."""


@runtime_checkable
class Reading(Protocol):
    """A retriever that reads documents' texts while it searches; a `Collection` gives it its corpus."""

    def read_from(self, documents: Callable[[Sequence[str]], Sequence[Document]]) -> None:
        """Read texts from `documents`, which gives those with some ids, in the order asked; keep none.

        A fork reads from the same until it is told otherwise, which leaves its original as it was.
        """


@runtime_checkable
class Searchable(Protocol):
    """What applications search: a `Collection`, or a store of someone else's (`ragistry.borrowed`)."""

    def search_many(
        self, queries: Sequence[Query], k: int = 10, *, where: Mapping[str, Any] | None = None
    ) -> list[list[Hit]]:
        """The best `k` documents for each query, among those that pass the filter."""


@runtime_checkable
class Source(Protocol):
    """A vector store of someone else's, of which only reading is asked."""

    def near(self, vector: Floats, k: int, where: Any = None) -> list[Hit]:
        """The nearest `k` to a vector float32 [d], best first; `where` is a filter in the store's own language, or none.

        The order is what counts: a store that tells no scores may give 1 / rank.
        """

    async def anear(self, vector: Floats, k: int, where: Any = None) -> list[Hit]:
        """The same, the event loop running on meanwhile."""

    def get(self, ids: Sequence[str]) -> list[Document]:
        """Those of the documents that the store can give by id, as they were given to the model that made its vectors.

        They serve to have vectors made again, of a few; so `text` is all that was encoded, and there is no `title`.
        """


@runtime_checkable
class Scorer(Protocol):
    """Scores documents given the query text."""

    def score(self, query: Query, documents: Sequence[Document]) -> npt.NDArray[np.float32]:
        """float32 [len(documents)], higher is better."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a first search found: documents best first, with their vectors and scores float32 [n]."""

    documents: Sequence[Document]
    vectors: Vectors
    scores: Floats


@runtime_checkable
class Expander(Protocol):
    """Changes the query vector after a first look."""

    def expand(self, query: Query, vector: Vectors, feedback: Feedback) -> Vectors:
        """The query vector [1, ...] to search with next."""

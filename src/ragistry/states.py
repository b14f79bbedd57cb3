"""What a collection asks of where it is kept, be it a directory or a database: committed states, one after another."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from .errors import Corrupt, StorageError
from .metadata import encode, normal
from .protocols import Reading, Updatable
from .registry import Recipe, create
from .storage import ArrayFiles, Manifest
from .types import Among, Document

_FILTERS_KEPT = 32

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class View:
    """One committed state: everything a search needs, never changed."""

    stamp: tuple[int, int]
    manifest: Manifest
    retriever: Updatable


class Documents(Protocol):
    """The documents of a store, as a `Collection` reads them: see `ragistry.corpus.Corpus`."""

    def get(self, ids: Sequence[str], at: int | None = None) -> list[Document]: ...
    def find(self, ids: Collection[str], at: int | None = None) -> dict[str, Document]: ...
    def digests(self, ids: Collection[str], at: int | None = None, *, content: bool = False) -> dict[str, bytes]: ...
    def holders(self, contents: Collection[bytes], at: int | None = None) -> dict[bytes, str]: ...
    def ids(self, where: Mapping[str, Any] | None = None, at: int | None = None) -> list[str]: ...
    def documents(self, at: int | None = None, where: Mapping[str, Any] | None = None) -> Iterator[Document]: ...
    def duplicates(self, at: int | None = None) -> list[tuple[str, ...]]: ...


class States(ABC):
    """Where a collection is kept: committed states, of which the latest is read and the next one prepared."""

    location: str
    """A directory or an address, for people: without a password."""
    corpus: Documents
    files: ArrayFiles
    recovered: str = ""
    """What an interrupted writer had left behind and was undone."""

    def __init__(self) -> None:
        self._filtering = threading.Lock()
        self._filters: OrderedDict[tuple[int, str], Among] = OrderedDict()

    @abstractmethod
    def current(self) -> View:
        """The latest committed state."""

    @abstractmethod
    def writer(self) -> AbstractContextManager[None]:
        """Other threads wait; other writers are told."""

    @abstractmethod
    def commit(
        self, view: View, retriever: Updatable, add: Sequence[Document], remove: Sequence[str], documents: int
    ) -> None:
        """Make the next generation: a retriever, documents to add and remove, and how many there are then."""

    @abstractmethod
    def check(self) -> None:
        """Read everything and compare it with its checksums."""

    @abstractmethod
    def sizes(self) -> dict[str, int]:
        """Bytes taken by the index and by the documents: `index_bytes` and `corpus_bytes`."""

    @abstractmethod
    def close(self) -> None:
        """Close files and connections."""

    def among(self, where: Mapping[str, Any], generation: int) -> Among:
        """The documents of a generation that pass a filter; the last few are remembered."""
        key = generation, encode(normal(where, "the filter"))
        known = self._filters.get(key)
        if known is None:
            known = self._passing(where, generation)
            with self._filtering:
                self._filters[key] = known
                while len(self._filters) > _FILTERS_KEPT:
                    self._filters.popitem(last=False)
        return known

    def _passing(self, where: Mapping[str, Any], generation: int) -> Among:
        return frozenset(self.corpus.ids(where, at=generation))

    def made(self, recipe: Mapping[str, Any]) -> Updatable:
        """An empty retriever that can be kept here."""
        retriever = create(recipe)
        if not isinstance(retriever, Updatable):
            raise Corrupt(f"{self.location!r} names a retriever that a collection cannot keep")
        return retriever

    def unloaded(self, recipe: Mapping[str, Any], before: View | None) -> Updatable:
        """A retriever to load a state into: a twin of the last one's, with its loaded model, if its recipe is the same."""
        if before is not None and before.manifest.recipe == recipe:
            return before.retriever.fork()
        return self.made(recipe)

    def read(self, ask: Callable[[View], T]) -> T:
        """What `ask` finds in one committed state; asked again if writers have cleared that state away meanwhile."""
        while True:
            view = self.current()
            try:
                return ask(view)
            except StorageError:
                if self.current().manifest.generation == view.manifest.generation:
                    raise

    def named(self, ids: Collection[str], generation: int) -> dict[str, Document]:
        """The documents that a retriever of some generation names, by id."""
        found = self.corpus.find(ids, at=generation)
        if lost := set(ids) - found.keys():
            raise Corrupt(
                f"{self.location!r}: the index names the document {min(lost)!r} that the corpus does not hold; restore the "
                "collection from a copy, or index again"
            )
        return found

    def rebuilt(self, view: View, recipe: Recipe) -> Updatable:
        """The retriever of a state, with other settings."""
        retriever = self.made(recipe.model_dump(mode="json"))
        retriever.load(view.manifest.state, self.arrays(view.manifest.generation))
        return retriever

    def arrays(self, generation: int) -> ArrayFiles:
        """The arrays of a generation."""
        return self.files

    def _bind(self, retriever: Updatable, generation: int) -> Updatable:
        """A retriever; one that reads texts reads those of its own generation."""

        def documents(ids: Sequence[str]) -> list[Document]:
            found = self.named(ids, generation)
            return [found[id] for id in ids]

        if isinstance(retriever, Reading):
            retriever.read_from(documents)
        return retriever

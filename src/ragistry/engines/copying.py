"""From a directory to a database, or back: documents with their vectors, nothing encoded again, some at a time.

What a retriever has learnt goes with the first commit; documents follow in their order, each with its vectors. What is there
already is passed over, so that an interrupted copy is continued by the same call. At the end both sides are read through and
compared: how many documents there are, and a checksum over every one and its vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from ..corpus import digest
from ..errors import Corrupt, InvalidInput, StorageError, UnknownName
from ..indexes.inverted import Inverted
from ..protocols import Index, State, Updatable
from ..registry import create
from ..states import States, View
from ..types import Document, MultiVectors, Vectors
from . import Location, holds_one, make_at, store_at
from .placed import Placed, ids_of, indexes, rehoused

BATCH = 2000
_EMPTY: State = {"segments": []}


class Copied(NamedTuple):
    """How many documents were copied, were there already, and were removed; and the checksum that both sides have."""

    copied: int
    unchanged: int
    removed: int
    checksum: str


def copy(
    source: States, location: Location, *, resume: bool = True, progress: Callable[[int], None] | None = None
) -> Copied:
    """Copy the latest state of a collection to another place.

    Args:
        source: What keeps it.
        location: A directory or an address: of nothing yet, or of a copy that was begun.
        resume: Whether a copy that was begun is continued; else anything there is an error.
        progress: Called after each commit with the number of documents dealt with.

    Raises:
        StorageError: If there is something else at the location, or it cannot be written.
        InvalidInput: If what is there was learnt otherwise than what is to be copied.
        Corrupt: If the two differ in the end.
        Locked: If another process is writing there.
    """
    view = source.current()
    if not holds_one(location):
        make_at(location, create(view.manifest.recipe))
    elif not resume:
        raise StorageError(f"{str(location)!r} already holds a collection; choose another location")
    target = store_at(location)
    try:
        with target.writer():
            job = _Copying(source, view, target)
            counts = job.run(progress)
            sums = [_checksum(store, at) for store, at in ((source, view), (target, target.current()))]
        if sums[0] != sums[1]:
            raise Corrupt(f"the copy {target.location!r} differs from {source.location!r}; delete it and copy again")
        return Copied(*counts, sums[1])
    finally:
        target.close()


@dataclass(frozen=True)
class _Copying:
    source: States
    view: View
    target: States

    def run(self, progress: Callable[[int], None] | None) -> tuple[int, int, int]:
        """Copy what is missing, then remove what is not in the source."""
        view, target = self.view, self.target
        begun = target.current().manifest
        if begun.documents and (begun.recipe, _learnt(begun.state)) != (
            view.manifest.recipe,
            _learnt(view.manifest.state),
        ):
            raise InvalidInput(
                f"{target.location!r} is no copy of {self.source.location!r} that was begun: its retriever differs, or has "
                "learnt something else; copy to another location"
            )
        copied = unchanged = 0
        seen: set[str] = set()
        documents = self.source.corpus.documents(at=view.manifest.generation)
        while some := list(islice(documents, BATCH)):
            seen.update(document.id for document in some)
            there = target.corpus.digests([document.id for document in some])
            fresh = [document for document in some if there.get(document.id) != digest(document)]
            if fresh:
                self._append(fresh, len(there.keys() & {document.id for document in fresh}))
            copied, unchanged = copied + len(fresh), unchanged + len(some) - len(fresh)
            if progress is not None:
                progress(len(some))
        return copied, unchanged, self._remove([id for id in target.corpus.ids() if id not in seen])

    def _append(self, fresh: Sequence[Document], replaced: int) -> None:
        """Commit some documents with their vectors."""
        now, ids = self.target.current(), [document.id for document in fresh]
        retriever = self._begun(now)
        pairs = zip(indexes(self.view.retriever), indexes(retriever), self._of_documents, strict=True)
        for there, here, of_documents in pairs:
            if _portioned(there) or _portioned(here):  # others are saved whole, with what was learnt
                some = ids if of_documents else [] if now.manifest.documents else ids_of(there)
                if some:
                    here.add(some, there.vectors(some))
        self.target.commit(now, retriever, fresh, [], now.manifest.documents + len(fresh) - replaced)

    def _begun(self, now: View) -> Updatable:
        """What the target has so far: at first what was learnt, without documents."""
        if now.manifest.documents:
            return now.retriever.fork()
        manifest = self.view.manifest
        retriever = self.target.made(manifest.recipe)
        retriever.load(_portable(manifest.state), self.source.arrays(manifest.generation))
        rehoused(retriever, [_emptied(one) for one in indexes(retriever)])
        return retriever

    @cached_property
    def _of_documents(self) -> list[bool]:
        """Of each index, whether it has a vector for each document, rather than for queries that are known."""
        manifest = self.view.manifest
        first = [document.id for document in islice(self.source.corpus.documents(at=manifest.generation), 1)]
        held = indexes(self.view.retriever)
        return [len(index) == manifest.documents and _vectors(index, first) is not None for index in held]

    def _remove(self, gone: Sequence[str]) -> int:
        if gone:
            now = self.target.current()
            retriever = now.retriever.fork()
            retriever.remove(gone)
            self.target.commit(now, retriever, [], gone, now.manifest.documents - len(gone))
        return len(gone)


def _portioned(index: Index) -> bool:
    """Whether what an index holds of documents is copied with them, so that neither is there without the other."""
    return isinstance(index, Placed) or type(index) is Inverted


def _emptied(index: Index) -> Index:
    """One like it without vectors, if they come in portions."""
    if isinstance(index, Placed):
        return index.emptied()
    return Inverted(index.weighting) if type(index) is Inverted else index


def _vectors(index: Index, ids: Sequence[str]) -> Vectors | None:
    """Those of some ids, or None if some are not there."""
    try:
        return index.vectors(ids)
    except UnknownName:
        return None


def _portable(state: Any) -> Any:
    """A state whose indexes in a database are empty ones."""
    return _mapped(state, lambda index: _EMPTY if "place" in index else index)


def _learnt(state: Any) -> Any:
    """A state without its indexes."""
    return _mapped(state, lambda index: None)


def _mapped(state: Any, change: Callable[[State], Any]) -> Any:
    """A state with other indexes."""
    if isinstance(state, dict):
        if "place" in state or "segments" in state:
            return change(state)
        return {key: _mapped(value, change) for key, value in state.items()}
    return [_mapped(value, change) for value in state] if isinstance(state, list) else state


def _checksum(store: States, view: View) -> str:
    """Of every document and its vectors, in whatever order they are."""
    total, count = 0, 0
    documents = store.corpus.documents(at=view.manifest.generation)
    while some := list(islice(documents, BATCH)):
        ids = [document.id for document in some]
        parts = [[digest(document) for document in some]]
        held = (_vectors(index, ids) for index in indexes(view.retriever))
        parts += [list(_bytes(vectors)) for vectors in held if vectors is not None]
        for row in zip(*parts, strict=True):
            total += int.from_bytes(blake2b(b"".join(row), digest_size=16).digest(), "little")
        count += len(some)
    return f"{count}-{total % 2**128:032x}"


def _bytes(vectors: Any) -> Iterator[bytes]:
    if isinstance(vectors, MultiVectors):
        yield from (vectors[item].tobytes() for item in range(len(vectors)))
    elif isinstance(vectors, np.ndarray):
        yield from (row.tobytes() for row in vectors)
    else:
        for first, last in zip(vectors.indptr, vectors.indptr[1:], strict=False):
            terms, counts = vectors.indices[first:last], vectors.data[first:last]
            yield np.asarray(terms, np.int64).tobytes() + np.asarray(counts, np.float32).tobytes()

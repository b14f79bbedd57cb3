"""Indexes that a database holds: what is committed there, and what is not yet committed here."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, Self, cast

import numpy as np

from ..errors import InvalidInput
from ..indexes.inverted import Inverted
from ..indexes.weighting import Weighting
from ..protocols import Files, Index, Retriever, State
from ..types import Among, Kind, Ranking, Vectors

if TYPE_CHECKING:
    from .server import Server

_CHUNK = 10_000


class Place(Protocol):
    """What an index in a database holds at one generation; never changed."""

    @property
    def width(self) -> int: ...
    @property
    def count(self) -> int: ...
    def state(self) -> State: ...
    def search(self, queries: Any, k: int, among: Among) -> list[Ranking]: ...
    def present(self, ids: Collection[str]) -> set[str]: ...
    def ids(self) -> list[str]: ...
    def vectors(self, ids: Sequence[str]) -> dict[str, Any]: ...
    def joined(self, vectors: Sequence[Any]) -> Vectors: ...


class Home(Protocol):
    """A database, as a keeper of places."""

    def takes(self, files: Files) -> bool:
        """Whether `files` are of this database and a generation is being made there."""

    def opened(self, empty: Index, state: State, files: Files) -> Place:
        """The place that a state tells of; `empty` is an index of the kind, which says how vectors are compared."""

    def changed(
        self, empty: Index, place: Place | None, files: Files, gone: Collection[str], ids: Sequence[str], vectors: Any
    ) -> State:
        """Take vectors out of a place, or a new one, and put others in; the state of what there is then."""


@dataclass(frozen=True)
class _Contents:
    """What an index holds: the vectors of a place, without some, and others in memory. Never changed."""

    place: Place | None
    gone: frozenset[str]
    fresh: Index

    @property
    def changed(self) -> bool:
        return bool(self.gone) or bool(len(self.fresh))

    @cached_property
    def whole(self) -> Index:
        """All of it in memory."""
        if self.place is None:
            return self.fresh
        whole = self.fresh.fork()
        kept = [id for id in self.place.ids() if id not in self.gone]
        for first in range(0, len(kept), _CHUNK):
            some = kept[first : first + _CHUNK]
            held = self.place.vectors(some)
            whole.add(some, self.place.joined([held[id] for id in some]))
        return whole


class Placed:
    """An index whose committed vectors are in a database, and answer there.

    Vectors that were added and are not committed yet wait in memory, in an index of the ordinary kind, until a commit saves
    them. An index that holds both is searched in memory, for which all its vectors are read: that happens where a change is
    tried before it is committed, not where documents are added or committed ones searched.

    Args:
        home: The database.
        empty: An empty index of the ordinary kind, which says how vectors are compared.
    """

    def __init__(self, home: Home, empty: Index) -> None:
        self.kind: Kind = empty.kind
        self._home, self._empty = home, empty
        self._now = _Contents(None, frozenset(), empty)

    def add(self, ids: Sequence[str], vectors: Vectors) -> None:
        """Insert; an id that is already there is replaced."""
        now = self._now
        fresh = now.fresh.fork()
        fresh.add(ids, vectors)
        if len(ids):
            self._check_width(now.place, vectors)
            self._now = _Contents(now.place, now.gone | self._present(now, ids), fresh)

    def remove(self, ids: Iterable[str]) -> None:
        """Take ids out; ids that are not there are passed over."""
        now, given = self._now, ids if isinstance(ids, str) else list(ids)
        fresh = now.fresh.fork()
        fresh.remove(given)
        self._now = _Contents(now.place, now.gone | self._present(now, given), fresh)

    def search(self, queries: Any, k: int, *, among: Among = None) -> list[Ranking]:
        """The nearest `k` of `among` for each query; fewer when there are fewer."""
        now = self._now
        if now.place is None:
            return now.fresh.search(queries, k, among=among)
        nothing = self._empty.search(queries, 0)  # refuses what cannot be asked
        self._check_width(now.place, queries)
        if now.changed:
            return now.whole.search(queries, k, among=among)
        if k <= 0 or not now.place.count or (among is not None and not among):
            return nothing
        asked = queries if self.kind == "sparse" else np.ascontiguousarray(queries, np.float32)
        return now.place.search(asked, k, among)

    def vectors(self, ids: Sequence[str]) -> Vectors:
        """The stored vectors, in the order asked.

        Raises:
            UnknownName: If an id is not there.
        """
        now = self._now
        if now.place is None:
            return now.fresh.vectors(ids)
        held = now.place.vectors([id for id in ids if id not in now.gone])
        if rest := [id for id in ids if id not in held]:
            held |= dict(zip(rest, _apart(now.fresh.vectors(rest)), strict=True))
        return now.place.joined([held[id] for id in ids])

    def fork(self) -> Self:
        """A copy that shares what is stored: changing one leaves the other as it was."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def weighted(self, weighting: Weighting) -> Self:
        """The same counts under another weighting."""
        twin, now = self.fork(), self._now
        fresh, twin._empty = (cast(Inverted, index).weighted(weighting) for index in (now.fresh, self._empty))
        place = now.place if now.place is None else replace(cast(Any, now.place), weighting=weighting)
        twin._now = _Contents(place, now.gone, fresh)
        return twin

    def save(self, files: Files) -> State:
        """Store what is new in the database whose arrays `files` are, or all of it in ordinary files."""
        now = self._now
        if not self._home.takes(files):
            return now.whole.save(files)
        if not now.changed:
            return now.place.state() if now.place else {"place": None}
        ids = ids_of(now.fresh)
        return self._home.changed(self._empty, now.place, files, now.gone, ids, now.fresh.vectors(ids))

    def load(self, state: State, files: Files) -> None:
        """Become what was saved."""
        fresh, place = self._empty, None
        if "place" not in state:
            fresh = fresh.fork()
            fresh.load(state, files)
        elif state["place"] is not None:
            place = self._home.opened(fresh, state, files)
        self._now = _Contents(place, frozenset(), fresh)

    def emptied(self) -> Self:
        """One like it without vectors."""
        twin = self.fork()
        twin._now = _Contents(None, frozenset(), self._empty)
        return twin

    @property
    def place(self) -> Place | None:
        """What of it is committed."""
        return self._now.place

    def ids(self) -> list[str]:
        """What it holds."""
        now = self._now
        stored = now.place.ids() if now.place else []
        return [id for id in stored if id not in now.gone] + ids_of(now.fresh)

    def settle(self, connection: Any) -> None:
        """Build what makes searching fast, if it is missing."""
        if self._now.place is not None:
            cast(Any, self._now.place).settle(connection)

    def __len__(self) -> int:
        now = self._now
        return (now.place.count if now.place else 0) - len(now.gone) + len(now.fresh)

    @staticmethod
    def _present(now: _Contents, ids: Sequence[str]) -> set[str]:
        return now.place.present(ids) if now.place is not None and len(ids) else set()

    @staticmethod
    def _check_width(place: Place | None, vectors: Any) -> None:
        given = int(vectors.shape[1]) if hasattr(vectors, "shape") else len(vectors[0]) if len(vectors) else None
        if place is not None and given not in (None, place.width):
            raise InvalidInput(
                f"the vectors have {given} dimensions, the index holds vectors of {place.width}; use the encoder the "
                "index was made with"
            )


def _apart(vectors: Any) -> Iterator[Any]:
    """Vectors one by one, as a place gives them."""
    if isinstance(vectors, np.ndarray):
        yield from vectors
    else:
        for a, b in itertools.pairwise(vectors.indptr.tolist()):
            yield vectors.indices[a:b], vectors.data[a:b]


def housed(retriever: Any, house: Callable[[Index], Index]) -> None:
    """Replace each index of a retriever that was just built: those it holds, and those it makes.

    One that `house` gives back stays, and is saved as arrays. What makes an index is known by its name: `_make`, `_keep`.
    """
    for holder in _holders(retriever):
        for name in ("_make", "_keep"):
            if name in _fields(holder):
                setattr(holder, name, _Maker(getattr(holder, name), house))
    rehoused(retriever, [house(index) for index in indexes(retriever)])


def rehoused(retriever: Any, others: Sequence[Index]) -> None:
    """Replace the indexes that `indexes` lists by others, in place."""
    slots = [(holder, name) for holder in _holders(retriever) for name in _held(holder)]
    for (holder, name), other in zip(slots, others, strict=True):
        setattr(holder, name, other)


def indexes(retriever: Any) -> list[Index]:
    """The indexes of a retriever, in one order."""
    return [getattr(holder, name) for holder in _holders(retriever) for name in _held(holder)]


def _held(holder: Any) -> list[str]:
    return [n for n, value in _fields(holder).items() if isinstance(value, Index) and not isinstance(value, type)]


def _fields(holder: Any) -> dict[str, Any]:
    return getattr(holder, "__dict__", {})


def _holders(retriever: Any) -> Iterator[Any]:
    """A retriever and those in it, but for one that reads the postings of an ordinary index itself: see `PRF.common`."""
    if getattr(retriever, "common", None) is not None:
        return
    yield retriever
    for value in _fields(retriever).values():
        for part in value.values() if isinstance(value, dict) else [value]:
            if isinstance(part, Retriever) and not isinstance(part, Index):
                yield from _holders(part)


@dataclass(frozen=True)
class _Maker:
    """Makes indexes that are then replaced."""

    make: Callable[[], Index]
    house: Callable[[Index], Index]

    def __call__(self) -> Index:
        return self.house(self.make())


def house(server: Server) -> Callable[[Index], Index]:
    """What puts indexes in PostgreSQL: those of counts, and of dense vectors."""
    from .tables import Tables

    home = Tables(server)
    return lambda index: Placed(home, index) if type(index) is Inverted or is_dense(index) else index


def is_dense(index: Index) -> bool:
    """Whether an index is the ordinary one of dense vectors."""
    faiss = sys.modules.get("ragistry.indexes.faiss")  # not loaded where there is none to be put
    return faiss is not None and type(index) is faiss.Faiss


def ids_of(index: Index) -> list[str]:
    """The ids that an index holds."""
    if isinstance(index, Placed):
        return index.ids()
    segments = cast(Any, index)._segments
    return [segment.ids.all[row] for segment in segments for row in np.flatnonzero(segment.alive).tolist()]

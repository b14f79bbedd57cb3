"""Indexes as a short list of immutable segments, so that updates are cheap, exact and invisible to running searches.

Adding makes a small segment and merges it with its neighbours while they are of similar size, so that n documents lie in
about log(n) segments. Removing clears bits of a copied mask. Nothing that a search may be reading is ever changed: an
update builds a new tuple of segments and swaps it in.

Source: the logarithmic merge of Lester, Moffat and Zobel, "Efficient online index construction for text databases" (TODS
33(3), 2008).
"""

from __future__ import annotations

import itertools
import weakref
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Protocol, Self, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInput, UnknownName
from ..protocols import Files, State
from ..types import Among, Bools, Ints, MultiVectors, Vectors, check_text

Allowed: TypeAlias = tuple[Bools, Ints | None]
"""Which rows a search may return: bool [rows], and their numbers, ascending, where there are few."""

_FILTERS = 32  # remembered by each segment
_FEW = 8  # few is one row in so many


class Ids:
    """The ids of a segment's rows, UTF-8 on disk, with their alphabetical ranks for breaking ties."""

    def __init__(self, blob: npt.NDArray[np.uint8], offsets: Ints, ranks: npt.NDArray[np.int32]) -> None:
        self.blob, self.offsets, self.ranks = blob, offsets, ranks

    @classmethod
    def of(cls, ids: Sequence[str]) -> Ids:
        encoded = [value.encode() for value in ids]
        offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        ranks = np.empty(len(ids), np.int32)
        ranks[sorted(range(len(encoded)), key=encoded.__getitem__)] = np.arange(len(ids), dtype=np.int32)
        made = cls(np.frombuffer(b"".join(encoded), np.uint8), offsets, ranks)
        made.__dict__["all"] = list(ids)
        return made

    @cached_property
    def all(self) -> list[str]:
        content, offsets = self.blob.tobytes(), self.offsets.tolist()
        return [content[a:b].decode() for a, b in itertools.pairwise(offsets)]

    @cached_property
    def rows(self) -> dict[str, int]:
        return {value: row for row, value in enumerate(self.all)}

    def at(self, rows: Iterable[int]) -> list[str]:
        """The ids of some rows, without decoding the others."""
        known = self.__dict__.get("all")
        if known is not None:
            return [known[row] for row in rows]
        return [self.blob[self.offsets[row] : self.offsets[row + 1]].tobytes().decode() for row in rows]

    def __len__(self) -> int:
        return len(self.offsets) - 1


class Content(Protocol):
    """What a segment holds for its rows. Immutable."""

    def save(self, files: Files) -> State: ...


C = TypeVar("C", bound=Content)


@dataclass(frozen=True, eq=False)
class Segment(Generic[C]):
    """Rows with ids, of which some are alive."""

    ids: Ids
    alive: Bools
    content: C

    @cached_property
    def filters(self) -> dict[int, tuple[weakref.ref[frozenset[str]], Allowed]]:
        """What the last few filters allow, by their address: an application asks with the same again."""
        return {}

    @cached_property
    def size(self) -> int:
        """How many rows are alive."""
        return int(np.count_nonzero(self.alive))

    @cached_property
    def full(self) -> bool:
        """Whether all rows are alive."""
        return self.size == len(self.alive)

    def save(self, files: Files) -> State:
        ids = [files.put(array) for array in (self.ids.blob, self.ids.offsets, self.ids.ranks)]
        return {"ids": ids, "alive": "" if self.full else files.put(self.alive), "content": self.content.save(files)}


class Segmented(Generic[C]):
    """What every index of segments does; what is in a segment and how it is searched is left to `_make` and the like."""

    def __init__(self) -> None:
        self._segments: tuple[Segment[C], ...] = ()

    def _make(self, vectors: Any) -> C:
        """The content of a new segment; refuses vectors it cannot hold."""
        raise InvalidInput(f"{type(self).__name__} does not say how vectors become a segment")

    def _merge(self, segments: Sequence[Segment[C]]) -> C:
        """The content of the alive rows of several segments, in order."""
        raise InvalidInput(f"{type(self).__name__} does not say how segments are merged")

    def _may_merge(self, segments: Sequence[Segment[C]]) -> bool:
        """Whether segments of similar size are to be one."""
        return True

    def _read(self, state: State, files: Files) -> C:
        """The content that `save` wrote."""
        raise InvalidInput(f"{type(self).__name__} does not say how segments are read")

    def add(self, ids: Sequence[str], vectors: Vectors) -> None:
        """Insert; an id that is already there is replaced.

        Raises:
            InvalidInput: If ids and vectors do not match one to one, an id is not text or given twice, or a vector cannot
                be held.
        """
        count = _count(vectors)
        if len(ids) != count:
            raise InvalidInput(f"{len(ids)} ids were given with {count} vectors; one each is needed")
        for value in ids:
            if not isinstance(value, str):
                raise InvalidInput(f"the id {value!r:.100} is {type(value).__name__}; ids are text")
            check_text(value, f"the id {value!r:.100}")
        if len(set(ids)) != len(ids):
            twice = Counter(ids).most_common(1)[0][0]
            raise InvalidInput(f"the id {twice!r} is given twice in one call; ids must be unique")
        if not len(ids):
            return
        added = Segment(Ids.of(ids), np.ones(len(ids), np.bool_), self._make(vectors))
        segments = [*self._without(ids), added]
        while len(segments) > 1 and segments[-2].size < 2 * segments[-1].size and self._may_merge(segments[-2:]):
            segments[-2:] = [self._merged(segments[-2:])]
        self._segments = tuple(segments)

    def remove(self, ids: Iterable[str]) -> None:
        """Take ids out; ids that are not there are passed over.

        Raises:
            InvalidInput: If one text is given instead of several ids.
        """
        if isinstance(ids, str):
            raise InvalidInput(f"ids are given as one text, {ids!r:.100}; give a list of ids")
        self._segments = tuple(self._without(ids))

    def fork(self) -> Self:
        """A copy that shares what is stored: changing one leaves the other as it was."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

    def save(self, files: Files) -> State:
        """Store arrays in `files` and return the rest."""
        return {"segments": [segment.save(files) for segment in self._segments]}

    def load(self, state: State, files: Files) -> None:
        """Become what was saved; arrays stay memory-mapped."""
        segments = []
        for saved in state["segments"]:
            ids = Ids(*(files.get(name) for name in saved["ids"]))
            alive = files.get(saved["alive"]) if saved["alive"] else np.ones(len(ids), np.bool_)
            segments.append(Segment(ids, alive, self._read(saved["content"], files)))
        self._segments = tuple(segments)

    def __len__(self) -> int:
        return sum(segment.size for segment in self._segments)

    @staticmethod
    def _locate(segments: Sequence[Segment[C]], ids: Iterable[str]) -> list[tuple[int, int]]:
        """The segment number and row of each id; an unknown id is an `UnknownName`."""
        found = []
        for value in ids:
            for number, segment in enumerate(segments):
                row = segment.ids.rows.get(value)
                if row is not None and segment.alive[row]:
                    found.append((number, row))
                    break
            else:
                raise UnknownName(f"the index holds no vector for the id {value!r}")
        return found

    @classmethod
    def _mask(cls, segment: Segment[C], among: Among) -> Bools:
        """bool [rows]: what a search may return."""
        return cls._allowed(segment, among)[0]

    @staticmethod
    def _allowed(segment: Segment[C], among: Among) -> Allowed:
        """What a search may return."""
        if among is None:
            return segment.alive, None
        known = segment.filters.get(id(among))
        if known is not None and known[0]() is among:
            return known[1]
        rows = segment.ids.rows
        if len(among) <= len(rows):
            chosen = [row for row in map(rows.get, among) if row is not None]
        else:
            allowed = among if isinstance(among, set | frozenset) else frozenset(among)
            chosen = [row for value, row in rows.items() if value in allowed]
        mask = np.zeros(len(segment.alive), np.bool_)
        mask[chosen] = True
        mask &= segment.alive
        found = mask, np.flatnonzero(mask) if _FEW * len(chosen) <= len(mask) else None
        if type(among) is frozenset:  # the only kind that cannot change
            for old in list(segment.filters)[: 1 - _FILTERS]:
                segment.filters.pop(old, None)
            segment.filters[id(among)] = weakref.ref(among), found
        return found

    def _without(self, ids: Iterable[str]) -> list[Segment[C]]:
        gone = list(ids)
        segments = []
        for segment in self._segments:
            rows = [row for row in map(segment.ids.rows.get, gone) if row is not None and segment.alive[row]]
            if rows:
                alive = segment.alive.copy()
                alive[rows] = False
                segment = Segment(segment.ids, alive, segment.content)
                if 0 < 2 * segment.size < len(alive):
                    segment = self._merged([segment])
            if segment.size:
                segments.append(segment)
        return segments

    def _merged(self, segments: Sequence[Segment[C]]) -> Segment[C]:
        ids = [segment.ids.all[row] for segment in segments for row in np.flatnonzero(segment.alive).tolist()]
        return Segment(Ids.of(ids), np.ones(len(ids), np.bool_), self._merge(segments))


def _count(vectors: Any) -> int:
    shape = (len(vectors),) if isinstance(vectors, MultiVectors) else getattr(vectors, "shape", ())
    if not shape:
        raise InvalidInput(
            f"vectors are {type(vectors).__name__}; a numpy array, a scipy csr_array or MultiVectors is needed"
        )
    return int(shape[0])

"""Names as sequences of tokens, kept so that a model can be led along names and nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInput
from ..protocols import Files, State
from ..types import Bools, Ints
from . import walking

SHARE = 4  # names added lie beside older ones while those are so many times as many; else both are merged
VIEW = 16  # a view of one name in so many, or fewer, is a trie of its own; a larger one marks nodes of the whole
LARGEST = 2**31 - 1  # of token ids, entity numbers and nodes
_NONE = np.zeros(0, np.int64)
_ALL = np.zeros(0, np.bool_)


class Ragged(NamedTuple):
    """Lists of different lengths in one array: list i is `values[offsets[i]:offsets[i + 1]]`."""

    values: Ints
    offsets: Ints


class Children(NamedTuple):
    """What may follow nodes: of node i tokens, rising, and the nodes they lead to, from `offsets[i]` to `offsets[i + 1]`."""

    tokens: Ints
    nodes: Ints
    offsets: Ints


def _whole(values: Iterable[int] | Ints, what: str) -> Ints:
    loose = isinstance(values, Iterable) and not isinstance(values, Sequence | np.ndarray)
    found = np.asarray(list(values) if loose else values)
    if found.ndim != 1 or (found.dtype.kind not in "iu" and found.size):
        raise InvalidInput(f"{what} are {found.dtype} of shape {found.shape}; a list of whole numbers is needed")
    if found.size and not (found.min() >= 0 and found.max() <= LARGEST):
        raise InvalidInput(f"{what} run from {found.min()} to {found.max()}; they must lie between 0 and {LARGEST}")
    return found.astype(np.int64, copy=False)


def _ragged(lists: Sequence[Sequence[int]]) -> Ragged:
    try:
        offsets = _summed(np.fromiter(map(len, lists), np.int64, len(lists)))
        return Ragged(_whole(list(itertools.chain.from_iterable(lists)), "token ids"), offsets)
    except TypeError:
        raise InvalidInput(f"names are {lists!r:.100}; give a list with the list of token ids of each name") from None


def _summed(counts: npt.NDArray[Any]) -> Ints:
    """Offsets of runs of these lengths."""
    offsets = np.zeros(len(counts) + 1, np.int64)
    counts.cumsum(out=offsets[1:])
    return offsets


def _laid(begins: Ints, offsets: Ints) -> Ints:
    """The places of runs, end to end."""
    found: Ints = (begins - offsets[:-1]).repeat(offsets[1:] - offsets[:-1])
    found += np.arange(len(found))
    return found


def _spans(rising: npt.NDArray[Any], values: Ints) -> Ragged:
    """The places at which a rising array of int32 holds each value."""
    wanted = values.astype(np.int32)
    begins = np.searchsorted(rising, wanted)
    offsets = _summed(np.searchsorted(rising, wanted, "right") - begins)
    return Ragged(_laid(begins, offsets), offsets)


def _distinct(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    found = np.sort(values)  # several times faster than np.unique, which hashes
    return np.compress(np.append(True, found[1:] != found[:-1])[: len(found)], found)


@dataclass(frozen=True, eq=False)
class _Segment:
    """Names in arrays that never change and may lie on disk.

    Nodes are numbered breadth first, siblings by token: the edges of a node lie side by side and edge i leads to node
    i + 1, so that no array of children is needed. One node past the last stands for "not in this segment". The number of a
    node's first edge is kept as its lowest byte and, for all nodes together, the nodes at which the rest grows by one.
    """

    tokens: npt.NDArray[Any]  # of each edge, uint16 or int32 [nodes - 1]
    low: npt.NDArray[np.uint8]  # [nodes + 2]
    steps: Ints  # [nodes / 256]
    ends: npt.NDArray[Any]  # the node at which a name ends, once for each entity that has the name, int32 rising
    owners: npt.NDArray[Any]  # those entities, int32, rising at each node
    depth: int  # tokens of the longest name
    alive: Bools | None = None  # which of the owners are left; all by default
    open: Bools | None = None  # which nodes lead to one of those; all by default

    @classmethod
    def of(cls, names: Ragged, numbers: Ints) -> _Segment:
        """Build from names that hold their end token: level by level, names at one node with one token share a child."""
        values, offsets = names
        lengths, width = np.diff(offsets), int(values.max()) + 1
        node, going = np.zeros(len(numbers), np.int64), np.arange(len(numbers))
        tokens, parents, count = list[Ints](), list[Ints](), 1
        while len(going):
            keys, child = np.unique(node[going] * width + values[offsets[going] + len(tokens)], return_inverse=True)
            parents.append(keys // width)
            tokens.append(keys % width)
            node[going] = count + child
            count += len(keys)
            going = going[lengths[going] > len(tokens)]
        order = np.lexsort((numbers, node))
        ends, owners = node[order], numbers[order]
        first = np.append(True, (np.diff(ends) != 0) | (np.diff(owners) != 0))
        return cls.laid(tokens, np.bincount(np.concatenate(parents)), ends[first], owners[first])

    @classmethod
    def laid(cls, tokens: list[Ints], degrees: Ints, ends: Ints, owners: Ints) -> _Segment:
        """Pack edges, given level by level, and pairs of node and owner, in order."""
        edges = np.concatenate(tokens)
        if len(edges) >= LARGEST:
            raise InvalidInput(f"{len(edges)} nodes are too many for one trie; divide the names among several")
        starts = np.full(len(edges) + 3, len(edges))
        starts[: len(degrees) + 1] = _summed(degrees)
        steps = np.searchsorted(starts, np.arange(256, len(edges) + 1, 256))
        narrow = edges.astype(np.uint16 if edges.max() < 2**16 else np.int32)
        low, pairs = (starts & 255).astype(np.uint8), (ends.astype(np.int32), owners.astype(np.int32))
        return cls(narrow, low, steps, *pairs, len(tokens))

    @cached_property
    def nodes(self) -> int:
        return len(self.tokens) + 1

    @cached_property
    def size(self) -> int:
        return len(self.owners) if self.alive is None else int(np.count_nonzero(self.alive))

    @property
    def arrays(self) -> list[npt.NDArray[Any]]:
        arrays = (self.tokens, self.low, self.steps, self.ends, self.owners, self.alive, self.open)
        return [array for array in arrays if array is not None]

    def starts(self, nodes: Ints) -> Ints:
        """The first edge of each node."""
        found: Ints = self.low[nodes] + (self.steps.searchsorted(nodes, "right") << 8)
        return found

    def children(self, nodes: Sequence[int] | Ints) -> Children:
        opened, asked = _ALL if self.open is None else self.open, np.ascontiguousarray(nodes, np.int64)
        return Children(*walking.children(self.tokens, self.low, self.steps, opened, asked))

    def pairs(self, nodes: Ints) -> Ragged:
        """The places in `owners` of the names that end at nodes."""
        return self._left(*_spans(self.ends, nodes))

    def pairs_of(self, numbers: Ints) -> Ints:
        """The places in `owners` of the names of entities, each given once."""
        order, owners, _ = self._inverse
        places, offsets = _spans(owners, numbers)
        return self._left(order[places], offsets).values

    def _left(self, pairs: Ints, offsets: Ints) -> Ragged:
        if self.alive is None:
            return Ragged(pairs, offsets)
        keep = self.alive[pairs]
        return Ragged(pairs[keep], _summed(keep)[offsets])

    @cached_property
    def _inverse(self) -> tuple[Ints, npt.NDArray[Any], npt.NDArray[Any]]:
        """Made when views or removals first need it: pairs by owner, the owners, and the parent of each node."""
        order = np.argsort(self.owners, kind="stable")
        degrees = np.diff(self.starts(np.arange(self.nodes + 1)))
        return order, self.owners[order], np.repeat(np.arange(self.nodes, dtype=np.int32), degrees)

    def parents(self, nodes: Ints) -> Ints:
        """The nodes above; there is none above the root."""
        return _distinct(self._inverse[2][nodes[nodes > 0] - 1])

    def only(self, numbers: Ints) -> _Segment:
        """The names of some entities: from their ends up to the root, nodes are marked."""
        pairs = self.pairs_of(numbers)
        alive, opened = np.zeros(len(self.owners), np.bool_), np.zeros(self.nodes, np.bool_)
        alive[pairs] = True
        nodes = _distinct(self.ends[pairs])
        while len(nodes):
            opened[nodes] = True
            nodes = self.parents(nodes)
            nodes = nodes[~opened[nodes]]
        return self._masked(alive, opened)

    def without(self, numbers: Ints) -> _Segment:
        """The names of all other entities: from the ends up, nodes are closed as far as nothing else is below them."""
        pairs = self.pairs_of(numbers)
        if not len(pairs):
            return self
        alive = np.ones(len(self.owners), np.bool_) if self.alive is None else self.alive.copy()
        opened = np.ones(self.nodes, np.bool_) if self.open is None else self.open.copy()
        alive[pairs] = False
        nodes, made = _distinct(self.ends[pairs]), self._masked(alive, opened)
        while len(nodes):
            left = np.diff(made.children(nodes).offsets) + np.diff(made.pairs(nodes).offsets)
            nodes = nodes[left == 0]
            opened[nodes] = False
            nodes = self.parents(nodes)
        return made

    def _masked(self, alive: Bools, opened: Bools) -> _Segment:
        made = replace(self, alive=alive, open=opened)
        made.__dict__["_inverse"] = self._inverse
        return made


def _states(segments: Sequence[_Segment]) -> int:
    return prod(segment.nodes + 1 for segment in segments)


class Trie:
    """The names of entities as a prefix tree over token ids: an entity may have several names, a name several entities.

    Every name is closed by the end token, which stands nowhere else: so a name may begin another, and "may it end here?" is
    one child among the others. Nodes are numbers, the root is 0. They mean something only to the trie that gave them, as it
    was then: hold a `fork` during a search.

    New names lie in small tries beside the large one, merged as they grow; removed ones are marked, and what leads to
    nothing else is closed, so that every child leads to a name. Views and removals first make, in memory, 4 bytes a node.

    Args:
        end: The model's end token.

    Raises:
        InvalidInput: If `end` is no token id.

    Example:
        >>> trie = Trie(end=1)
        >>> trie.add([[5, 6], [5, 6, 7], [8]], [10, 11, 11])
        >>> trie.children([0]).tokens.tolist()
        [5, 8]
        >>> trie.among([10]).children([0]).tokens.tolist()
        [5]

    Source: GENRE, arXiv:2010.00904 (2021), section 3 (nested dicts); breadth-first numbers: Jacobson, "Space-efficient
    static trees and graphs" (FOCS 1989). Deviations: arrays, several entities for one name, removals, views.
    """

    def __init__(self, end: int) -> None:
        self.end = int(_whole([end], "end tokens")[0])
        self._segments: tuple[_Segment, ...] = ()

    def add(self, names: Ragged | Sequence[Sequence[int]], numbers: Iterable[int] | Ints) -> None:
        """Insert names; an entity that is already there gets them beside those it has.

        Args:
            names: Token ids without the end token, one list a name.
            numbers: The entity of each.

        Raises:
            InvalidInput: If they do not match, a name is empty or holds the end token, or a number is not in [0, 2^31).
        """
        values, offsets = names if isinstance(names, Ragged) else _ragged(names)
        values, owners, lengths = _whole(values, "token ids"), _whole(numbers, "entity numbers"), np.diff(offsets)
        if len(owners) != len(lengths):
            raise InvalidInput(f"{len(lengths)} names were given with {len(owners)} entity numbers; one each is needed")
        if not len(owners):
            return
        if offsets[0] != 0 or offsets[-1] != len(values) or lengths.min() < 1:
            raise InvalidInput(f"name {np.argmin(lengths)} has no token, or offsets do not run from 0 to {len(values)}")
        if (values == self.end).any():
            place = np.searchsorted(offsets, np.argmax(values == self.end), "right") - 1
            raise InvalidInput(f"name {place} holds the end token, {self.end}; give names without it, it is added here")
        closed = Ragged(np.insert(values, offsets[1:], self.end), offsets + np.arange(len(offsets)))
        wanted = _distinct(owners) if self._segments else owners
        older = [segment.only(wanted) for segment in self._segments if len(segment.pairs_of(wanted))]
        segments = [*self._without(wanted), *self._merged([*older, _Segment.of(closed, owners)])]
        while len(segments) > 1 and (segments[-2].size < SHARE * segments[-1].size or _states(segments) >= 2**62):
            segments[-2:] = self._merged(segments[-2:])
        self._segments = tuple(segments)

    def remove(self, numbers: Iterable[int]) -> None:
        """Take entities out with all their names; numbers that are not there are passed over."""
        self._segments = tuple(self._without(_distinct(_whole(numbers, "entity numbers"))))

    def among(self, numbers: Iterable[int]) -> Trie:
        """The names of some entities, as a trie with nodes of its own; numbers that are not there are passed over."""
        wanted = _distinct(_whole(numbers, "entity numbers"))
        segments = [found for found in (segment.only(wanted) for segment in self._segments) if found.size]
        view, few = self.fork(), VIEW * sum(found.size for found in segments) <= len(self)
        view._segments = tuple(self._merged(segments) if few else segments)
        return view

    def children(self, nodes: Sequence[int] | Ints) -> Children:
        """What may follow each of several nodes, in any order; a number that is no node is refused."""
        if len(self._segments) == 1 and len((found := self._segments[0].children(nodes)).offsets):
            return found
        nodes = self._checked(nodes)
        whole = Children(_NONE, _NONE, np.zeros(len(nodes) + 1, np.int64))
        for segment, part, radix in self._parts(nodes):
            tokens, kids, offsets = segment.children(part)
            # All nodes past the last one of each segment before: that is where a child is that none of those has.
            whole = Children(*walking.merged(*whole, radix - 1, tokens, kids * radix, offsets, segment.nodes * radix))
        return whole

    def entities(self, nodes: Sequence[int] | Ints) -> Ragged:
        """The entities, rising, with a name that ends at each of several nodes; a number that is no node is refused."""
        nodes = self._checked(nodes)
        keys = [np.zeros(0, np.int64)]
        for segment, part, _ in self._parts(nodes):
            pairs, offsets = segment.pairs(part)
            keys.append(np.repeat(np.arange(len(nodes)), np.diff(offsets)) << 32 | segment.owners[pairs])
        found = _distinct(np.concatenate(keys))
        return Ragged(found & 0xFFFFFFFF, np.searchsorted(found, np.arange(len(nodes) + 1) << 32))

    def fork(self) -> Trie:
        """A copy that shares what is stored: changing one leaves the other as it was."""
        return copy(self)

    def save(self, files: Files) -> State:
        """Store arrays in `files` and return the rest."""
        segments = [{"depth": s.depth, "arrays": [files.put(array) for array in s.arrays]} for s in self._segments]
        return {"end": self.end, "segments": segments}

    def load(self, state: State, files: Files) -> None:
        """Become what was saved; arrays stay memory-mapped."""
        segments = []
        for saved in state["segments"]:
            tokens, low, steps, ends, owners, *masks = map(files.get, saved["arrays"])
            segments.append(_Segment(tokens, low, steps, ends, owners, saved["depth"], *masks))
        self.end, self._segments = state["end"], tuple(segments)

    def __len__(self) -> int:
        """How many names there are, counted once for each entity."""
        return sum(segment.size for segment in self._segments)

    @property
    def depth(self) -> int:
        """Tokens of the longest name with its end, which may have been removed since."""
        return max((segment.depth for segment in self._segments), default=0)

    @property
    def nodes(self) -> int:
        """How many nodes are stored."""
        return sum(segment.nodes for segment in self._segments)

    @property
    def nbytes(self) -> int:
        """Bytes of the stored arrays."""
        return sum(array.nbytes for segment in self._segments for array in segment.arrays)

    def _checked(self, nodes: Sequence[int] | Ints) -> Ints:
        found = np.asarray(nodes, np.int64)
        if found.size and found.view(np.uint64).max() >= _states(self._segments):  # negative ones look large
            raise InvalidInput("a number is no node of this trie; take nodes from `children`, starting at the root, 0")
        return found

    def _parts(self, nodes: Ints) -> Iterator[tuple[_Segment, Ints, int]]:
        """Each segment, the nodes in it, and what one of its nodes counts: together they are the digits of a number."""
        radix = 1
        for segment in self._segments:
            yield segment, nodes // radix % (segment.nodes + 1), radix
            radix *= segment.nodes + 1

    def _merged(self, segments: Sequence[_Segment]) -> list[_Segment]:
        """One segment without gaps: levels of the union are already in the order of a packed trie."""
        if len(segments) > 2:  # two at a time, so that numbers of nodes fit
            return self._merged([*self._merged(segments[:2]), *segments[2:]])
        if not segments or (len(segments) == 1 and segments[0].alive is None):
            return list(segments)
        whole, nodes, count = self.fork(), np.zeros(1, np.int64), 1
        whole._segments = tuple(segments)
        tokens, degrees, ends, owners = [], [], [], []
        while len((found := whole.children(nodes)).tokens):
            over = np.flatnonzero(found.tokens == self.end)
            owned = whole.entities(found.nodes[over])
            tokens.append(found.tokens)
            degrees.append(np.diff(found.offsets))
            ends.append(np.repeat(count + over, np.diff(owned.offsets)))
            owners.append(owned.values)
            nodes, count = found.nodes, count + len(found.tokens)
        return [_Segment.laid(tokens, np.concatenate(degrees), np.concatenate(ends), np.concatenate(owners))]

    def _without(self, numbers: Ints) -> list[_Segment]:
        left = [found for found in (segment.without(numbers) for segment in self._segments) if found.size]
        return [self._merged([found])[0] if 2 * found.size < len(found.owners) else found for found in left]

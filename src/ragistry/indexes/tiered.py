"""Coarse to fine: codes in memory propose a shortlist, vectors on disk decide its order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np

from ..errors import InvalidInput
from ..protocols import Files, Index, State
from ..types import Among, Kind, Ranking, Vectors


class Tiered:
    """Two indexes of the same vectors: a coarse one looks at all, a fine one at those that the coarse one finds nearest.

    Once loaded, the vectors of a fine `Faiss("Flat")` lie in a memory-mapped file of which a search reads the rows of the
    shortlist, and all only where the shortlist is more than a quarter of them. Before it is saved they are in memory. What
    must be in memory is the coarse index, such as `Quantised` or `Binary`, and the ids.

    Args:
        coarse: Proposes.
        fine: Decides.
        depth: How many are proposed; `k` if that is more. As many as there are: the ranking is that of `fine`, exactly, if
            `weight` is 0.
        weight: Of the coarse score, added to the fine one.

    Raises:
        InvalidInput: If the kinds differ, one of the indexes is not empty, `depth` is not positive, or `weight` not finite.

    Example:
        >>> from ragistry.indexes.binary import Binary
        >>> from ragistry.indexes.faiss import Faiss
        >>> index = Tiered(Binary(), Faiss("Flat"), depth=100)
        >>> index.add(["a", "b"], np.eye(2, 8, dtype=np.float32))
        >>> index.search(np.eye(1, 8, dtype=np.float32), k=1)[0].ids
        ('a',)

    Source: BiDR, arXiv:2201.05409 (WWW 2022); its code adds the coarse score with weight 0.3.
    """

    def __init__(self, coarse: Index, fine: Index, depth: int = 1000, weight: float = 0.0) -> None:
        if coarse.kind != fine.kind or len(coarse) or len(fine):
            raise InvalidInput(
                f"the coarse index holds {len(coarse)} {coarse.kind} vectors, the fine one {len(fine)} {fine.kind} ones; "
                "two empty indexes of the same kind are needed"
            )
        if depth < 1 or not np.isfinite(weight):
            raise InvalidInput(f"depth={depth}, weight={weight}; a positive depth and a finite weight are needed")
        self.kind: Kind = fine.kind
        self.depth, self.weight = depth, weight
        self._tiers = coarse, fine  # replaced as a whole, so that a search sees two that agree

    @property
    def coarse(self) -> Index:
        """Proposes."""
        return self._tiers[0]

    @property
    def fine(self) -> Index:
        """Decides."""
        return self._tiers[1]

    def add(self, ids: Sequence[str], vectors: Vectors) -> None:
        """Insert into both; an id that is already there is replaced.

        Raises:
            InvalidInput: If one of them refuses; then neither is changed.
        """
        tiers = self.coarse.fork(), self.fine.fork()
        for tier in tiers:
            tier.add(ids, vectors)
        self._tiers = tiers

    def remove(self, ids: Iterable[str]) -> None:
        """Take ids out of both; ids that are not there are passed over."""
        gone = ids if isinstance(ids, str) else list(ids)  # a text, which the indexes refuse, would pass as its letters
        tiers = self.coarse.fork(), self.fine.fork()
        for tier in tiers:
            tier.remove(gone)
        self._tiers = tiers

    def search(self, queries: Any, k: int, *, among: Among = None) -> list[Ranking]:
        """The best `k` of those of `among` that the coarse index finds nearest, for each query."""
        coarse, fine = self._tiers
        proposed = coarse.search(queries, max(self.depth, k) if k > 0 else 0, among=among)
        return [self._ranked(fine, queries[i : i + 1], some, k) for i, some in enumerate(proposed)]

    def vectors(self, ids: Sequence[str]) -> Vectors:
        """The vectors of the fine index, in the order asked."""
        return self.fine.vectors(ids)

    def fork(self) -> Self:
        """A copy that shares what is stored: changing one leaves the other as it was."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__, _tiers=(self.coarse.fork(), self.fine.fork()))
        return twin

    def save(self, files: Files) -> State:
        """Store arrays in `files` and return the rest."""
        coarse, fine = self._tiers
        return {"coarse": coarse.save(files), "fine": fine.save(files)}

    def load(self, state: State, files: Files) -> None:
        """Become what was saved."""
        tiers = self.coarse.fork(), self.fine.fork()
        for name, tier in zip(("coarse", "fine"), tiers, strict=True):
            tier.load(state[name], files)
        self._tiers = tiers

    def __len__(self) -> int:
        return len(self.fine)

    def _ranked(self, fine: Index, query: Any, proposed: Ranking, k: int) -> Ranking:
        if not self.weight:
            return fine.search(query, k, among=proposed.ids)[0]
        found = fine.search(query, len(proposed), among=proposed.ids)[0]
        known = dict(proposed)
        coarse = np.array([known[id] for id in found.ids], np.float32)
        return Ranking.of(found.ids, found.scores + np.float32(self.weight) * coarse, k)

"""A searcher whose vectors were taught: queries, and maybe documents, turned after encoding, nothing encoded again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self, cast

import numpy as np

from ..encoders.projected import Projected, Projection, lengths, unit
from ..errors import InvalidInput
from ..protocols import Encoder, Files, Index, State
from ..types import Among, Bools, Document, Floats, Ints, Query, Ranking
from .asking import check_search
from .keeping import Keeping

CHUNK = 10_000
"""Documents transformed at a time, which bounds memory."""
CROWD = 5
"""How many of the nearest queries say how crowded a document is."""


@dataclass(frozen=True)
class Memory:
    """What documents remember of the queries they answered: each moves towards the mean of its own.

    y becomes scale |y| z / |z|, with z = share y / |y| + (1 - share) mean / |mean|, or just z if lengths are not kept.

    Args:
        ids: Of documents with examples; others have no mean.
        means: Of their queries' vectors, float32 [len(ids), d].
        share: Of the document itself, above 0 and at most 1, which changes nothing.
        scale: On documents with examples, above 0. Below 1 it takes back what examples gave them over others.
        keep_length: Whether documents keep their length and means count by direction alone.
        crowd: Some queries of unit length, float32 [n, d], among which a document's crowding is measured.
        damping: How much a crowded document loses: it is scaled by 1 - damping (c - level), where c is its mean similarity
            to the 5 nearest of the crowd.
        level: The crowding at which nothing changes: the mean over documents.

    Raises:
        InvalidInput: If ids and means do not match, or a value is out of range.

    Source: PEFA-XS, arXiv:2312.02429 (WSDM 2024), section 3.2, with `keep_length=False`: there, documents without examples
    shrink to a share of themselves, and lose every comparison. Keeping lengths is the deviation that mends that. `scale` is
    the idea of calibrated stacking (Chao et al., arXiv:1605.04253, 2016); `damping` that of cross-domain similarity local
    scaling (Conneau et al., arXiv:1710.04087, 2018, section 2.3), as a factor in place of an offset, so that it fits any
    index.
    """

    ids: tuple[str, ...]
    means: Floats
    share: float = 0.5
    scale: float = 1.0
    keep_length: bool = True
    crowd: Floats | None = None
    damping: float = 0.0
    level: float = 0.0

    def __post_init__(self) -> None:
        if self.means.ndim != 2 or len(self.means) != len(self.ids):
            raise InvalidInput(
                f"{len(self.ids)} documents have means of shape {self.means.shape}; one row each is needed"
            )
        if not 0 < self.share <= 1 or not self.scale > 0 or not 0 <= self.damping <= 1:
            raise InvalidInput(
                f"share={self.share}, scale={self.scale}, damping={self.damping}; a share in (0, 1], a scale above 0 and a "
                "damping from 0 to 1 are needed"
            )

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {id: row for row, id in enumerate(self.ids)}

    def __call__(self, ids: Sequence[str], vectors: Floats) -> Floats:
        """Vectors of documents [len(ids), d] with what they remember."""
        rows = np.array([self._rows.get(id, -1) for id in ids], np.int64)
        known = rows >= 0
        moved = self._moved(vectors, rows, known)
        if self.damping and self.crowd is not None and len(moved):
            moved = moved * (1 - self.damping * (crowding(moved, self.crowd) - np.float32(self.level)))[:, None]
        return moved

    def _moved(self, vectors: Floats, rows: Ints, known: Bools) -> Floats:
        if self.keep_length and (not known.any() or (self.share == 1 and self.scale == 1)):
            return vectors
        means = np.zeros_like(vectors)
        means[known] = self.means[rows[known]]
        if not self.keep_length:
            mixed: Floats = np.float32(self.share) * vectors + np.float32(1 - self.share) * means
            mixed[known] *= np.float32(self.scale)
            return mixed
        moved = unit(np.float32(self.share) * unit(vectors) + np.float32(1 - self.share) * unit(means))
        moved *= lengths(vectors) * np.float32(self.scale)
        moved[~known] = vectors[~known]
        return moved


def crowding(vectors: Floats, crowd: Floats) -> Floats:
    """The mean cosine of each vector with the 5 nearest of the crowd, whose vectors are of unit length: float32 [n].

    What is near to many queries is returned for many that it does not answer: a hub (Radovanovic et al., JMLR 2010).
    """
    k = min(CROWD, len(crowd))
    found = [np.empty(0, np.float32)]
    for first in range(0, len(vectors), CHUNK):
        some = vectors[first : first + CHUNK]
        near = np.partition(some @ crowd.T, len(crowd) - k, axis=1)[:, len(crowd) - k :]
        found.append(near.mean(axis=1) / np.maximum(lengths(some)[:, 0], 1e-12))
    return np.concatenate(found)


class Adapted(Keeping):
    """A dense searcher that can be taught: a projection of queries and documents, and a memory of documents.

    Untaught it is the plain searcher, exactly. Where documents are changed the vectors as they were encoded are kept beside
    the changed ones, so that it can be taught again and nothing is ever encoded twice.

    Args:
        encoder: A dense encoder, never changed.
        make: Makes the empty index to search in.
        keep: Makes the empty index for vectors as they were encoded.

    Raises:
        InvalidInput: If the encoder is not dense.

    Example:
        >>> from ragistry.encoders.functions import Function
        >>> from ragistry.indexes.faiss import Faiss
        >>> base = Function(lambda texts: [[len(text), 1.0] for text in texts], "length")
        >>> searcher = Adapted(base, Faiss, Faiss)
        >>> searcher.add([Document("1", "fourteen lines"), Document("2", "three")])
        >>> taught = searcher.taught(["1", "2"], memory=Memory(("2",), np.array([[1.0, 0.1]], np.float32), share=0.1))
        >>> [hits[0].ids[0] for hits in (searcher.search(["how many?"]), taught.search(["how many?"]))]
        ['1', '2']
    """

    def __init__(self, encoder: Encoder, make: Callable[[], Index], keep: Callable[[], Index]) -> None:
        super().__init__(encoder, make, keep)
        self.projection: Projection | None = None
        self.memory: Memory | None = None

    def search(self, queries: Sequence[Query], k: int = 10, *, among: Among = None) -> list[Ranking]:
        """One ranking per query, at most `k` long, of ids in `among`."""
        check_search(queries, k, among)
        if not queries:
            return []
        self._check()
        return self.index.search(self.turned(cast(Floats, self._encoded(queries))), k, among=among)

    def taught(self, ids: Sequence[str], projection: Projection | None = None, memory: Memory | None = None) -> Self:
        """The same documents, searched with what was learnt; this one stays as it is.

        Args:
            ids: Of all documents.
            projection: For queries, and maybe documents; none is the identity.
            memory: Of documents; none remembers nothing.

        Raises:
            UnknownName: If an id is not there.
        """
        twin = self._twin(self.index)
        twin.projection, twin.memory = projection, memory
        changes = memory is not None or (projection is not None and "document" in projection.arrays)
        source = self.raw if self.raw is not None else self.index
        twin.index, twin.raw = (self._make(), self._keep()) if changes else (self._make(), None)
        if not changes and self.raw is None:
            twin.index = self.index.fork()
            return twin
        for first in range(0, len(ids), CHUNK):
            some = list(ids[first : first + CHUNK])
            vectors = cast(Floats, source.vectors(some))
            twin.index.add(some, twin.changed(some, vectors))
            if twin.raw is not None:
                twin.raw.add(some, vectors)
        return twin

    def turned(self, vectors: Floats) -> Floats:
        """Vectors of queries as they are searched with."""
        return vectors if self.projection is None else self.projection(vectors, "query")

    def changed(self, ids: Sequence[str], vectors: Floats) -> Floats:
        """Vectors of documents as they are searched."""
        found = vectors if self.projection is None else self.projection(vectors, "document")
        return found if self.memory is None else self.memory(ids, found)

    def adapter(self) -> Projected | None:
        """Encoder and projection, to be saved, shared or used over another vector store; none if it has no projection."""
        return None if self.projection is None else Projected(self.encoder, self.projection)

    def save(self, files: Files) -> State:
        """Store arrays in `files` and return the rest."""
        state = super().save(files)
        if self.projection is not None:
            arrays = {
                role: {name: files.put(value) for name, value in sorted(found.items())}
                for role, found in sorted(self.projection.arrays.items())
            }
            state["projection"] = {"form": self.projection.form, "arrays": arrays}
        if (memory := self.memory) is not None:
            names = ("share", "scale", "keep_length", "damping", "level")
            state["memory"] = {
                "ids": list(memory.ids),
                "means": files.put(memory.means),
                "crowd": None if memory.crowd is None else files.put(memory.crowd),
                "settings": {name: getattr(memory, name) for name in names},
            }
        return state

    def load(self, state: State, files: Files) -> None:
        """Become what was saved."""
        super().load(state, files)
        self.projection, self.memory = None, None
        if found := state.get("projection"):
            arrays: Any = {
                role: {name: files.get(file) for name, file in parts.items()} for role, parts in found["arrays"].items()
            }
            self.projection = Projection(found["form"], arrays)
        if found := state.get("memory"):
            crowd = None if found["crowd"] is None else files.get(found["crowd"])
            self.memory = Memory(tuple(found["ids"]), files.get(found["means"]), crowd=crowd, **found["settings"])

    def _altered(self, documents: Sequence[Document], vectors: Floats) -> Floats:
        return self.changed([document.id for document in documents], vectors)

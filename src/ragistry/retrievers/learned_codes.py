"""A dense searcher in codes that can be taught: bits or quantised vectors in memory, vectors as encoded on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt

from ..encoders.projected import Projection
from ..errors import InvalidInput
from ..indexes.quantised import Codec, Quantised
from ..protocols import NOTHING, Encoder, Files, Index, State
from ..types import Among, Document, Floats, Query, Ranking, Role
from .asking import check_search, query_vectors
from .searcher import Searcher

CHUNK = 10_000
"""Documents coded at a time, which bounds memory."""


@dataclass(frozen=True)
class Coding:
    """What was learnt; nothing of it by default.

    Args:
        projection: Of queries before codes are searched, and maybe of documents before they are coded.
        codec: What the codes are read with, in place of what documents are coded with.
        fine: Of queries before they are compared with vectors themselves.
    """

    projection: Projection | None = None
    codec: Codec | None = None
    fine: Projection | None = None

    def queries(self, vectors: Floats) -> Floats:
        """As codes are searched with."""
        return vectors if self.projection is None else self.projection(vectors, "query")

    def documents(self, vectors: Floats) -> Floats:
        """As they are coded."""
        return vectors if self.projection is None else self.projection(vectors, "document")

    def compared(self, vectors: Floats) -> Floats:
        """Queries as they are compared with vectors themselves."""
        return vectors if self.fine is None else self.fine(vectors, "query")


class LearnedCodes(Searcher):
    """A dense searcher that compares queries with short codes of documents, and can learn better ones.

    Untaught it is a searcher over the index of codes, exactly. The vectors as encoded are kept beside the codes, on disk
    once it is saved, and no search reads them but where `depth` asks for it: they are there to be taught from again, and
    nothing is ever encoded twice.

    Args:
        encoder: A dense encoder, never changed.
        make: Makes the empty index of codes.
        keep: Makes the empty index for vectors as encoded.
        depth: Documents that codes propose and vectors themselves put in order; none trusts the codes.
        weight: Then, of the codes' scores beside the vectors' own.

    Raises:
        InvalidInput: If the encoder is not dense, or the depth not positive.

    Example:
        >>> from ragistry.encoders.functions import Function
        >>> from ragistry.indexes.binary import Binary
        >>> from ragistry.indexes.faiss import Faiss
        >>> base = Function(lambda texts: [[len(text) - 10.0] + [1.0] * 7 for text in texts], "length")
        >>> searcher = LearnedCodes(base, Binary, Faiss)
        >>> searcher.add([Document("1", "fourteen lines"), Document("2", "three")])
        >>> searcher.search(["how long is it?"], k=1)[0].ids
        ('1',)
    """

    def __init__(
        self,
        encoder: Encoder,
        make: Callable[[], Index],
        keep: Callable[[], Index],
        *,
        depth: int | None = None,
        weight: float = 0.0,
    ) -> None:
        super().__init__(encoder, keep())
        if depth is not None and depth < 1:
            raise InvalidInput(f"depth={depth}; a positive number, or none, is needed")
        self.depth, self.weight = depth, weight
        self.coding = Coding()
        self.first: Codec | None = None
        """What documents were coded with before it was taught, where they are coded anew since."""
        self._make = make
        self._hold(make())

    def search(self, queries: Sequence[Query], k: int = 10, *, among: Among = None) -> list[Ranking]:
        """One ranking per query, at most `k` long, of ids in `among`."""
        check_search(queries, k, among)
        if not queries:
            return []
        self._check()
        return self._nearest(cast(Floats, self._encoded(queries)), k, among)

    def search_vectors(self, vectors: npt.ArrayLike, k: int = 10, *, among: Among = None) -> list[Ranking]:
        """One ranking for each of some queries' vectors, array [n, d], as the encoder makes them untaught.

        Raises:
            InvalidInput: If these are no vectors of the index's dimensions.
        """
        check_search([], k, among)
        given = query_vectors(vectors)
        if not len(given):
            return []
        self._check()
        return self._nearest(given, k, among)

    def add(self, documents: Sequence[Document], *, same: Mapping[str, str] = NOTHING) -> None:
        """Insert; a document whose id is already there is replaced. It is coded by what was learnt."""
        before = self.index
        self.index = before.fork()
        try:
            super().add(documents, same=same)
            if documents:
                ids = [document.id for document in documents]
                codes = self.codes.fork()
                codes.add(ids, self.coding.documents(self.encoded(ids)))
                self._hold(codes)
        except BaseException:
            self.index = before  # both or neither
            raise

    def remove(self, ids: Iterable[str]) -> None:
        """Take ids out; ids that are not there are passed over."""
        gone = ids if isinstance(ids, str) else list(ids)  # a text, which the index refuses, would pass as its letters
        super().remove(gone)
        self.codes.remove(gone)
        self._hold(self.codes)

    def encoded(self, ids: Sequence[str]) -> Floats:
        """Vectors of documents as they were encoded, float32 [len(ids), d].

        Raises:
            UnknownName: If an id is not there.
        """
        return cast(Floats, self.index.vectors(ids))

    def taught(self, ids: Sequence[str], coding: Coding, codes: Index | None = None) -> Self:
        """The same documents, searched with what was learnt; this one stays as it is.

        Args:
            ids: Of all documents.
            coding: What was learnt.
            codes: An empty index for codes to be made anew; by default the codes stay, unless documents are projected.

        Raises:
            UnknownName: If an id is not there.
        """
        twin = self._twin(self.index.fork())
        twin.coding = coding
        changes = coding.projection is not None and "document" in coding.projection.arrays
        if codes is None and not changes:
            twin._hold(self.codes.fork())
            return twin
        made = codes if codes is not None else self._make()
        for first in range(0, len(ids), CHUNK):
            some = list(ids[first : first + CHUNK])
            made.add(some, coding.documents(self.encoded(some)))
        twin._hold(made)
        if isinstance(self.codes, Quantised) and isinstance(made, Quantised):
            twin.first = self.first or self.codes.codec
        return twin

    def fork(self) -> Self:
        """A copy that shares what is stored: changing one leaves the other as it was."""
        twin = super().fork()
        twin._hold(self.codes.fork())
        return twin

    def save(self, files: Files) -> State:
        """Store arrays in `files` and return the rest."""
        state = super().save(files) | {"codes": self.codes.save(files)}
        for name in ("projection", "fine"):
            if (found := getattr(self.coding, name)) is not None:
                state[name] = _saved(found, files)
        for name, codec in (("codec", self.coding.codec), ("first", self.first)):
            if codec is not None:
                state[name] = codec.save(files)
        return state

    def load(self, state: State, files: Files) -> None:
        """Become what was saved."""
        super().load(state, files)
        codes = self._make()
        codes.load(state["codes"], files)
        maps = {name: _read(state[name], files) for name in ("projection", "fine") if name in state}
        codecs = {name: Codec.read(state[name], files) for name in ("codec", "first") if name in state}
        self.coding = Coding(maps.get("projection"), codecs.get("codec"), maps.get("fine"))
        self.first = codecs.get("first")
        self._hold(codes)

    def _hold(self, codes: Index) -> None:
        """Search these codes, read as was learnt."""
        self.codes = codes
        read = self.coding.codec
        self._served = codes.with_codec(read) if read is not None and isinstance(codes, Quantised) else codes

    def _nearest(self, asked: Floats, k: int, among: Among) -> list[Ranking]:
        depth = None if k <= 0 else self.depth
        found = self._served.search(self.coding.queries(asked), max(k, depth or 0), among=among)
        if depth is None:
            return found
        compared = self.coding.compared(asked)
        return [self._compared(query[None], ranking, k) for query, ranking in zip(compared, found, strict=True)]

    def _compared(self, query: Floats, proposed: Ranking, k: int) -> Ranking:
        """What codes proposed, by the vectors themselves and maybe the codes' own scores."""
        [exact] = self.index.search(query, len(proposed), among=proposed.ids)
        if not self.weight:
            return exact.head(k)
        by_code = dict(proposed)
        coarse = np.array([by_code[id] for id in exact.ids], np.float32)
        return Ranking.of(exact.ids, exact.scores + np.float32(self.weight) * coarse, k)


def _saved(projection: Projection, files: Files) -> State:
    arrays = {
        role: {name: files.put(value) for name, value in sorted(found.items())}
        for role, found in sorted(projection.arrays.items())
    }
    return {"form": projection.form, "arrays": arrays}


def _read(state: State, files: Files) -> Projection:
    arrays: dict[Role, Any] = {
        role: {name: files.get(file) for name, file in parts.items()} for role, parts in state["arrays"].items()
    }
    return Projection(state["form"], arrays)

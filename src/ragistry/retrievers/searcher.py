"""An encoder joined to an index."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self, cast

import numpy as np
import numpy.typing as npt

from ..encoders.spread import encode_documents
from ..encoders.terms import Terms
from ..errors import FingerprintMismatch, InvalidInput
from ..indexes.inverted import Inverted
from ..protocols import NOTHING, Encoder, Files, Index, State
from ..types import Among, Counts, Document, Floats, Kind, MultiVectors, Query, Ranking, Vectors
from .asking import check_search, query_vectors

RECENT = 1024
"""Of how many queries a searcher remembers what a model made of them."""


class Searcher:
    """Encodes queries and finds their nearest documents.

    Args:
        encoder: Any encoder.
        index: An index of the same kind.

    Raises:
        InvalidInput: If their kinds differ.
        FingerprintMismatch: From `add` and `search`, if what was loaded was encoded by another encoder.

    Example:
        >>> from ragistry.encoders.terms import Terms
        >>> from ragistry.indexes.inverted import Inverted
        >>> from ragistry.indexes.weighting import BM25
        >>> from ragistry.text import Analyzer
        >>> searcher = Searcher(Terms(Analyzer()), Inverted(BM25()))
        >>> searcher.add([Document("1", "fourteen lines"), Document("2", "three lines")])
        >>> searcher.search(["fourteen lines"], k=1)[0].ids
        ('1',)
    """

    recipe: Any = None

    def __init__(self, encoder: Encoder, index: Index) -> None:
        if encoder.kind != index.kind:
            raise InvalidInput(
                f"{type(encoder).__name__} makes {encoder.kind} vectors, {type(index).__name__} holds {index.kind} ones; "
                "join an encoder and an index of the same kind"
            )
        self.encoder = encoder
        self.index = index
        self._expected = ""
        self._recent: dict[Query, Floats] = {}

    def search(self, queries: Sequence[Query], k: int = 10, *, among: Among = None) -> list[Ranking]:
        """One ranking per query, at most `k` long, of ids in `among`.

        Raises:
            InvalidInput: If `queries` is no sequence of texts, `k` no whole number, or `among` no collection.
        """
        check_search(queries, k, among)
        if not queries:
            return []
        self._check()
        return self.index.search(self._encoded(queries), k, among=among)

    @property
    def takes_vectors(self) -> bool:
        """Whether a query's vector, as the encoder makes it untaught, is all that is needed."""
        return self.encoder.kind == "dense"

    def search_vectors(self, vectors: npt.ArrayLike, k: int = 10, *, among: Among = None) -> list[Ranking]:
        """One ranking for each of some queries' vectors, array [n, d], as the encoder makes them untaught.

        Raises:
            InvalidInput: If queries' texts are needed, or these are no vectors of the index's dimensions.
        """
        check_search([], k, among)
        if not self.takes_vectors:
            raise InvalidInput(f"{type(self).__name__} reads the texts of queries here; give them to `search`")
        given = query_vectors(vectors)
        if not len(given):
            return []
        self._check()
        return self.index.search(self.turned(given), max(k, 0), among=among)

    def turned(self, vectors: Floats) -> Floats:
        """Vectors of queries as they are searched with, float32 [n, d]: these, unless something was learnt about them."""
        return vectors

    def add(self, documents: Sequence[Document], *, same: Mapping[str, str] = NOTHING) -> None:
        """Insert; a document whose id is already there is replaced.

        Args:
            documents: What to insert.
            same: For some of their ids, that of a document already there with the same title and text: a model's vectors
                are copied from it.

        Raises:
            InvalidInput: If something given is no `Document`, or two have the same id.
            UnknownName: If `same` names a document that is not there.
        """
        for document in documents:
            if not isinstance(document, Document):
                raise InvalidInput(f"{document!r:.100} is {type(document).__name__}; give a list of Documents")
        if documents:
            self._check()
            if not len(self.index):
                self._expected = ""  # nothing is left of what another encoder may have made
            self.index.add([document.id for document in documents], self._vectors(documents, same))

    def remove(self, ids: Iterable[str]) -> None:
        """Take ids out; ids that are not there are passed over."""
        self.index.remove(ids)

    def fork(self) -> Self:
        """A copy that shares what is stored: changing one leaves the other as it was."""
        return self._twin(self.index.fork())

    def over(self, index: Index) -> Self:
        """The same encoder over another index."""
        return self._twin(index)

    def save(self, files: Files) -> State:
        """Store arrays in `files` and return the rest."""
        made_by = self._expected if len(self.index) else ""
        return {"fingerprint": made_by or self.encoder.fingerprint(), "index": self.index.save(files)}

    def load(self, state: State, files: Files) -> None:
        """Become what was saved. The encoder is compared when it is first used, so that opening stays quick."""
        self.index.load(state["index"], files)
        self._expected = state["fingerprint"]

    def _vectors(self, documents: Sequence[Document], same: Mapping[str, str]) -> Vectors:
        """Document vectors. What a model makes is computed once for each text that is not there yet."""
        if self.encoder.kind == "sparse":
            return encode_documents(self.encoder, documents)
        known = [document for document in documents if document.id in same]
        first = {document.full_text: document for document in reversed(documents) if document.id not in same}
        computed = cast(Floats, encode_documents(self.encoder, list(first.values()))) if first else ()
        by_text = dict(zip(first, computed, strict=True))
        if known:
            copied = self._copied([same[document.id] for document in known])
            by_text |= {document.full_text: vector for document, vector in zip(known, copied, strict=True)}
        return _joined(self.encoder.kind, [by_text[document.full_text] for document in documents])

    def _copied(self, ids: Sequence[str]) -> Floats:
        """Vectors as the encoder made them."""
        return cast(Floats, self.index.vectors(ids))

    def _encoded(self, queries: Sequence[Query]) -> Vectors | Counts:
        """Query vectors. A model's are kept for a while: a fusion asks the same query again, and models are slow."""
        if self.encoder.kind == "sparse":
            if type(self.encoder) is Terms and type(self.index) is Inverted:
                return self.encoder.counts(queries)  # the same without scipy, which takes long to load
            return self.encoder.encode(queries, "query")
        recent = self._recent  # replaced as a whole, never changed, so that threads need no lock
        unknown = [query for query in dict.fromkeys(queries) if query not in recent]
        if unknown:
            recent = recent | dict(zip(unknown, cast(Floats, self._asking().encode(unknown, "query")), strict=True))
            self._recent = recent
            if len(recent) > RECENT:  # copied, as parts of an array would keep all of it
                self._recent = {query: vector.copy() for query, vector in list(recent.items())[-RECENT:]}
        return _joined(self.encoder.kind, [recent[query] for query in queries])

    def _asking(self) -> Encoder:
        """What encodes queries."""
        return self.encoder

    def _twin(self, index: Index) -> Self:
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__, index=index)
        return twin

    def _check(self) -> None:
        expected = self._expected  # another thread may be as far, and forget it
        if expected and len(self.index):
            found = self.encoder.fingerprint()
            if found != expected:
                raise FingerprintMismatch(
                    f"the index was made by another encoder (fingerprint {expected[:12]}, this one is {found[:12]}); "
                    "use the model it was made with, or index the documents again"
                )
        self._expected = ""


def _joined(kind: Kind, vectors: Sequence[Floats]) -> Vectors:
    """Vectors of some items, each [d], or [t, d] if they are `multi`, as one."""
    if kind == "dense":
        return np.stack(vectors)
    return MultiVectors(np.concatenate(vectors), np.cumsum([0, *map(len, vectors)], dtype=np.int64))

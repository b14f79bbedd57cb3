"""Pseudo-relevance feedback: what a first look finds changes the query that is searched with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Self, TypeAlias, cast

import numpy as np

from ..encoders.terms import Terms
from ..errors import InvalidInput
from ..indexes.foreign import Foreign
from ..indexes.inverted import Inverted
from ..protocols import NOTHING, Expander, Feedback, Files, Reading, Retriever, State
from ..types import Among, Counts, Document, Floats, Ints, Query, Ranking, Vectors
from .asking import check_search
from .neighbours import Neighbours
from .searcher import Searcher

Texts: TypeAlias = Callable[[Sequence[str]], Sequence[Document]]
"""Gives the documents of some ids, in the order asked."""


class PRF:
    """Looks twice: the best documents of a first look are taken for right, and say what is searched for.

    Both looks are held to `among`, so a query learns nothing of documents that it may not find. Documents are not encoded
    again: their vectors are the index's. (Word counts, which an inverted index does not keep by document, are made anew
    where a `Collection` gives texts.) What a hit gets depends on what the first look found: as a member of a `Fuse`, use
    `missing="minimum"`.

    Args:
        searcher: Takes the second look, and the first, with any dense or sparse encoder.
        expander: Makes the new query: `VectorPRF` for dense, `RM3` for words.
        depth: How many documents of the first look are feedback; 0 for none.
        common: Of words: those that more than this share of all documents hold, and more than `depth` of them, are no
            feedback. They are counted over all documents, as for BM25's own weights. None: every word is feedback.
        first: Takes the first look in the searcher's place, over the same documents, which are then its own to keep:
            `add`, `remove`, `fork`, `save` and `load` are refused.

    Raises:
        InvalidInput: If a setting is out of range, the expander is for other vectors, or the searcher's index cannot give
            its vectors or adds something to their scores.

    Example:
        >>> from ragistry import create
        >>> from ragistry.retrievers.expanders import RM3
        >>> looking = PRF(create("bm25"), RM3())
        >>> looking.add([Document("1", "a sonnet of love"), Document("2", "love and roses"), Document("3", "a cat")])
        >>> [ranking.ids for ranking in (looking.searcher.search(["sonnet"])[0], looking.search(["sonnet"])[0])]
        [('1',), ('1', '2')]
    """

    recipe: Any = None

    def __init__(
        self,
        searcher: Searcher,
        expander: Expander,
        *,
        depth: int = 5,
        common: float | None = None,
        first: Retriever | None = None,
    ) -> None:
        if not isinstance(searcher, Searcher):
            raise InvalidInput(
                f"feedback needs one encoder and one index; {type(searcher).__name__} is no Searcher: give one such as "
                "bm25 or dense, and fuse or rerank what comes of it"
            )
        if isinstance(searcher, Neighbours):
            raise InvalidInput("Neighbours adds the scores of known queries to those of vectors; give another searcher")
        if isinstance(searcher.index, Foreign):
            raise InvalidInput(
                "feedback needs vectors of documents, and a store of someone else's "
                f"({type(searcher.index.source).__name__}) gives none; keep the documents in a Collection, or search "
                "the store without feedback"
            )
        if not isinstance(expander, Expander):
            raise InvalidInput(f"{type(expander).__name__} has no method `expand`; give an Expander")
        if (kind := getattr(expander, "kind", searcher.encoder.kind)) != searcher.encoder.kind or kind == "multi":
            raise InvalidInput(
                f"{type(expander).__name__} expands {kind} queries, the searcher's are {searcher.encoder.kind}; use "
                "VectorPRF for dense and RM3 for sparse ones (there is none for multi)"
            )
        if not isinstance(depth, int) or depth < 0:
            raise InvalidInput(f"depth={depth!r:.100}; give a whole number of 0 or more")
        if common is not None and not (isinstance(searcher.index, Inverted) and 0 < common <= 1):
            raise InvalidInput(f"common={common!r:.100}; give a share above 0, at most 1, with an inverted index")
        if first is not None and not isinstance(first, Retriever):
            raise InvalidInput(f"{type(first).__name__} has no method `search`; give a Retriever as `first`")
        self.searcher, self.expander, self.first = searcher, expander, first
        self.depth, self.common = depth, common
        self._source: Texts | None = None

    def search(self, queries: Sequence[Query], k: int = 10, *, among: Among = None) -> list[Ranking]:
        """One ranking per query, at most `k` long, of ids in `among`.

        Raises:
            InvalidInput: If `queries` is no sequence of texts, `k` no whole number, or `among` no collection.
        """
        check_search(queries, k, among)
        if k <= 0 or not queries:
            return [Ranking((), np.empty(0, np.float32))] * len(queries)
        asked, index = self._asked(queries), self.searcher.index
        if self.depth == 0:
            return index.search(asked, k, among=among)
        if self.first is None:
            looks = index.search(asked, self.depth, among=among)
        else:
            looks = self.first.search(queries, self.depth, among=among)
        ids = list(dict.fromkeys(id for look in looks for id in look.ids))
        if not ids:
            return index.search(asked, k, among=among)
        rows, vectors = {id: row for row, id in enumerate(ids)}, self._vectors(ids)
        expanded = [
            self.expander.expand(
                query,
                asked[[i]],
                Feedback(_Texts(look.ids, self._source), vectors[[rows[id] for id in look.ids]], look.scores),
            )
            for i, (query, look) in enumerate(zip(queries, looks, strict=True))
        ]
        return index.search(_stacked(expanded), k, among=among)

    @property
    def reads_metadata(self) -> bool:
        """See `ragistry.protocols.Updatable`."""
        return bool(getattr(self.searcher, "reads_metadata", False))

    def read_from(self, documents: Texts) -> None:
        """Let expanders that read texts read those of `documents`: see `ragistry.protocols.Reading`."""
        self._source = documents
        if isinstance(self.first, Reading):
            self.first.read_from(documents)

    def add(self, documents: Sequence[Document], *, same: Mapping[str, str] = NOTHING) -> None:
        """Insert; a document whose id is already there is replaced. For `same` see `ragistry.protocols.Updatable`."""
        self._keeps().add(documents, same=same)

    def remove(self, ids: Iterable[str]) -> None:
        """Take ids out; ids that are not there are passed over."""
        self._keeps().remove(ids)

    def fork(self) -> Self:
        """A copy that shares what is stored: changing one leaves the other as it was."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__, searcher=self._keeps().fork())
        return twin

    def save(self, files: Files) -> State:
        """Store arrays in `files` and return the rest."""
        return {"searcher": self._keeps().save(files)}

    def load(self, state: State, files: Files) -> None:
        """Become what was saved."""
        self._keeps().load(state["searcher"], files)

    def _keeps(self) -> Searcher:
        if self.first is not None:
            raise InvalidInput(
                f"the documents are kept by the first look ({type(self.first).__name__}) as well as by the searcher; change "
                "and store both there, as `Interpolated` does"
            )
        return self.searcher

    def _asked(self, queries: Sequence[Query]) -> Any:
        """The queries' vectors as they are searched with, dense or CSR."""
        self.searcher._check()
        asked: Any = self.searcher.turned(cast(Floats, self.searcher._encoded(queries)))
        if not isinstance(asked, Counts):
            return asked
        from scipy.sparse import csr_array

        return csr_array((asked.data, asked.indices, asked.indptr), shape=asked.shape)

    def _vectors(self, ids: Sequence[str]) -> Any:
        """The documents' vectors, dense or CSR, without the words that are too common."""
        encoder, index = self.searcher.encoder, self.searcher.index
        found: Any
        if self._source is not None and isinstance(encoder, Terms):
            found = encoder.encode(self._source(ids), "document")  # the index would go through all it holds
        else:
            found = index.vectors(ids)
        if self.common is None or not isinstance(index, Inverted):
            return found
        from scipy.sparse import csr_array

        columns, places = np.unique(found.indices, return_inverse=True)
        kept = (holding(index, columns) <= max(self.depth, self.common * len(index)))[places]
        ends = np.concatenate([[0], np.cumsum(kept)])[found.indptr]
        return csr_array((found.data[kept], found.indices[kept], ends), shape=found.shape)


class _Texts(Sequence[Document]):
    """The documents of some ids, read when first asked for: few expanders need more than vectors."""

    def __init__(self, ids: Sequence[str], source: Texts | None) -> None:
        self.ids, self.source = ids, source

    @cached_property
    def read(self) -> Sequence[Document]:
        if self.source is None:
            raise InvalidInput(
                "the expander reads texts, and none are there: call `read_from`, or search through a Collection"
            )
        return self.source(list(self.ids))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, item: Any) -> Any:
        return self.read[item]


def holding(index: Inverted, columns: Ints) -> Ints:
    """How many documents of an index hold each of some columns, int64 [len(columns)].

    Example:
        >>> from ragistry.indexes.weighting import BM25
        >>> from ragistry.text import Analyzer
        >>> index, counts = Inverted(BM25()), Terms(Analyzer()).encode(["a sonnet", "two sonnets"], "document")
        >>> index.add(["1", "2"], counts)
        >>> sorted(holding(index, np.unique(counts.indices)).tolist())
        [1, 2]
    """
    found = np.zeros(len(columns), np.int64)
    for segment in index._segments:
        terms, starts, rows = segment.content.terms, segment.content.starts, segment.content.rows
        if not len(terms):
            continue
        places = np.minimum(np.searchsorted(terms, columns), len(terms) - 1)
        held = np.flatnonzero(terms[places] == columns)
        firsts, lasts = starts[places[held]], starts[places[held] + 1]
        if segment.full:
            found[held] += lasts - firsts
        else:
            alive = (segment.alive[rows[a:b]] for a, b in zip(firsts.tolist(), lasts.tolist(), strict=True))
            found[held] += np.fromiter(map(np.count_nonzero, alive), np.int64, len(held))
    return found


def _stacked(vectors: Sequence[Any]) -> Vectors:
    """Arrays [1, ...], dense or CSR, as one."""
    if isinstance(vectors[0], np.ndarray):
        return np.concatenate(vectors)
    from scipy.sparse import vstack

    return vstack(vectors, format="csr")

"""A vector store that you run already, searched better: only the query's vector changes, and the store is only read.

Example:
    >>> import numpy as np
    >>> from ragistry.encoders.functions import Function
    >>> class Store:  # `ragistry_langchain.borrow` and `ragistry_llama_index.borrow` make one of any store
    ...     texts = {"sonnet": "fourteen lines", "haiku": "three lines"}
    ...     def near(self, vector, k, where=None):
    ...         best = sorted(self.texts, key=lambda id: -float(vector @ letters([self.texts[id]])[0]))
    ...         return [Hit(id, 1 / rank, self.texts[id]) for rank, id in enumerate(best[:k], 1)]
    ...     async def anear(self, vector, k, where=None):
    ...         return self.near(vector, k)
    ...     def get(self, ids):
    ...         return [Document(id, self.texts[id]) for id in ids if id in self.texts]
    >>> def letters(texts):
    ...     return np.array([[text.count(letter) for letter in "aefhort"] for text in texts], np.float32)
    >>> mine = Borrowed(Store(), Function(letters, "letters", normalise=False))
    >>> [hit.id for hit in mine.search("four of them", k=1)]
    ['sonnet']
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from .encoders.projected import Projected, unit
from .errors import InvalidInput
from .indexes.foreign import Foreign
from .protocols import Encoder, Source
from .registry import Lesson, Recipe, Spec, recipe
from .retrievers.asking import check_search, query_vectors
from .retrievers.searcher import Searcher
from .types import Document, Floats, Hit, Query, check_text

if TYPE_CHECKING:
    from .evaluation.selection import Fit
    from .training.examples import GIVEN

DEPTH = 30
"""How many hits of each query `fit` looks at, besides the documents that answer it."""
_PROBES = 20  # documents that are searched by their own vectors
_CLOSE = 5  # hits among which such a document has to be


class Borrowed:
    """A store of someone else's with an encoder for queries: searched as a `Collection` is, and taught as one.

    Queries are encoded by `encoder` and the store finds what is nearest; documents' vectors stay as they are. With the
    encoder that filled the store it answers as the store does, exactly, until `fit` teaches it.

    Args:
        source: The store.
        encoder: For queries: the model that made the store's vectors, as it is, turned (`Projected`, what `fit` learns), or
            otherwise changed on the query's side alone.
        where: A filter in the store's own language that every search is held to, such as a tenant's.

    Raises:
        InvalidInput: If the source cannot be read, the encoder is not dense, or it changes documents' vectors too.
    """

    foreign_filters = True
    """Filters are in the store's own language: no model writes them, and no two can be joined."""

    def __init__(self, source: Source, encoder: Encoder, *, where: Any = None) -> None:
        if isinstance(encoder, Projected) and "document" in encoder.projection.arrays:
            raise InvalidInput(
                "the adapter turns documents too, which those of someone else's store cannot be; fit one with side=query"
            )
        self.source, self.encoder, self.where = source, encoder, where
        self.retriever()  # refuses what does not fit together

    def search(self, query: Query, k: int = 10, *, where: Any = None) -> list[Hit]:
        """The best `k` documents for a query, as the store gives them.

        Args:
            query: What is asked.
            k: How many hits at most.
            where: A filter in the store's own language; with a filter of its own already, none can be added.

        Raises:
            InvalidInput: If the query is not text, or both filters are given.
        """
        return self.search_many([query], k, where=where)[0]

    def search_many(self, queries: Sequence[Query], k: int = 10, *, where: Any = None) -> list[list[Hit]]:
        """`search` for several queries, encoded together."""
        held = self._held(where)
        vectors = self._encoded(queries, k)
        return [self.source.near(vector, k, held)[:k] if k > 0 else [] for vector in vectors]

    def search_vectors(self, vectors: npt.ArrayLike, k: int = 10, *, where: Any = None) -> list[list[Hit]]:
        """The best `k` documents for vectors of queries, array [n, d], as the store's own model makes them, untaught."""
        held, given = self._held(where), query_vectors(vectors)
        check_search([], k, None)
        if isinstance(self.encoder, Projected):
            given = self.encoder.projection(given, "query")
        return [self.source.near(vector, k, held)[:k] if k > 0 else [] for vector in given]

    async def asearch_many(self, queries: Sequence[Query], k: int = 10, *, where: Any = None) -> list[list[Hit]]:
        """The same, by the store's own way of not blocking the event loop; the model encodes in a thread."""
        held = self._held(where)
        vectors = await asyncio.to_thread(self._encoded, queries, k)
        if k <= 0:
            return [[] for _ in vectors]
        found = await asyncio.gather(*(self.source.anear(vector, k, held) for vector in vectors))
        return [hits[:k] for hits in found]

    def retriever(self) -> Searcher:
        """The store as a retriever, to be fused with others, or reranked."""
        return Searcher(self.encoder, Foreign(self.source, self.where))

    def adapter(self) -> Projected | None:
        """What `fit` learnt, with its encoder: save it, and give `Projected.load(path, encoder)` as encoder elsewhere."""
        return self.encoder if isinstance(self.encoder, Projected) else None

    def fit(
        self,
        pairs: GIVEN,
        *,
        retriever: Spec = "adder",
        documents: Iterable[Document] = (),
        depth: int = DEPTH,
        measure: str = "nDCG@10",
        goal: str = "balanced",
        progress: Callable[[int], None] | None = None,
    ) -> Fit:
        """Learn to turn queries' vectors from queries with documents that answer them; what does not help is not kept.

        Documents that answer, and the best `depth` hits of every query, are encoded once more, here; they stand for all
        others. Once a map is learnt its own best hits join them, and it is learnt again. Every fit starts anew.

        Args:
            pairs: As `Collection.fit` takes them; ids are the store's.
            retriever: What learns: the recipe of one that turns queries' vectors, with settings of your own.
            documents: Such as the store cannot give by id, with the ids and texts they have there.
            depth: How many hits of each query are looked at.
            measure: What to improve.
            goal: Whether new queries to documents with examples are to gain (`seen`), to those without (`unseen`), or both.
            progress: Called with 1 after each thing tried.

        Returns:
            Base, fitted and headroom side by side on held-out queries, and whether it was kept.

        Raises:
            InvalidInput: If the store knows too few of the documents, or its vectors were made by another encoder.
        """
        from .training.examples import examples_of, judgements

        judged = judgements(examples_of(pairs))
        base = self.encoder.encoder if isinstance(self.encoder, Projected) else self.encoder
        pool = _Pool(self.source, base, self.where)
        pool.take(documents)
        pool.look_up({id for found in judged.values() for id in found})
        pool.look_around(list(judged), base, depth)
        pool.check()
        chosen = recipe(retriever, {"side": "query", "memory": False})
        lesson = Lesson(measure, goal, progress=progress)
        turned, learnt = pool.lesson(chosen, judged, lesson)
        if turned is not None and pool.look_around(list(judged), turned, depth):
            turned, learnt = pool.lesson(chosen, judged, lesson)
        if turned is not None:
            self.encoder = turned
        return learnt

    def _encoded(self, queries: Sequence[Query], k: int) -> Floats:
        check_search(queries, k, None)
        for query in queries:
            check_text(query, "the query")
        if not queries:
            return np.empty((0, 0), np.float32)
        return cast(Floats, self.encoder.encode(queries, "query"))

    def _held(self, where: Any) -> Any:
        if where and self.where:
            raise InvalidInput(
                "a filter was given, and the store is held to one already; only the store knows how to join them: give one "
                "filter that says both"
            )
        return where or self.where


class _Pool:
    """Documents of a store that stand for all of them, with vectors made here."""

    def __init__(self, source: Source, encoder: Encoder, where: Any) -> None:
        self.source, self.encoder, self.where = source, encoder, where
        self.held: dict[str, Floats] = {}

    def take(self, documents: Iterable[Document]) -> None:
        """Encode documents that are not there yet."""
        new = {document.id: document.full_text for document in documents if document.id not in self.held}
        if new:
            vectors = unit(cast(Floats, self.encoder.encode(list(new.values()), "document")))
            self.held |= dict(zip(new, vectors, strict=True))

    def look_up(self, ids: Iterable[str]) -> None:
        """Take documents by id, those that the store can give."""
        wanted = sorted(set(ids) - set(self.held))
        self.take(self.source.get(wanted) if wanted else ())

    def look_around(self, queries: Sequence[Query], encoder: Encoder, depth: int) -> int:
        """Take the best hits of queries, and say how many of them were new."""
        before, texts = len(self.held), dict[str, str]()
        for vector in cast(Floats, encoder.encode(queries, "query")):
            texts |= {hit.id: hit.text for hit in self.source.near(vector, depth, self.where)}
        self.look_up(texts)
        self.take(Document(id, text) for id, text in texts.items())
        return len(self.held) - before

    def check(self) -> None:
        """Search some documents by their own vectors: they should find themselves."""
        some = list(self.held)[:: max(1, len(self.held) // _PROBES)][:_PROBES]
        found = sum(id in {hit.id for hit in self.source.near(self.held[id], _CLOSE, self.where)} for id in some)
        if 2 * found < len(some):
            raise InvalidInput(
                f"of {len(some)} documents of the store that were searched by vectors of their own, {found} were among the "
                f"first {_CLOSE} hits: its vectors were made by another encoder, or of other texts; give the encoder (and "
                "`documents`, with the texts) that they were made with"
            )

    def lesson(
        self, chosen: Recipe, judged: Mapping[str, Mapping[str, int]], lesson: Lesson
    ) -> tuple[Projected | None, Fit]:
        """The encoder with what was learnt, none if it is not to be kept, and the report."""
        from .indexes.faiss import Faiss
        from .retrievers.adapted import Adapted
        from .training.fitting import fitted

        untaught = Adapted(self.encoder, Faiss, Faiss)
        untaught.index.add(list(self.held), np.stack(list(self.held.values())))
        untaught.recipe = chosen
        taught, fit = fitted(untaught, judged, self.held, list(self.held), lesson)
        return (taught.adapter() if fit.kept else None), fit

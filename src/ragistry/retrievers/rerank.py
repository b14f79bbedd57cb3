"""A retriever whose best hits are read again, and put in order, by a scorer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from time import perf_counter
from typing import Any, Literal, Self, TypeAlias, get_args

import numpy as np

from ..errors import InvalidInput
from ..metadata import encode, normal
from ..protocols import NOTHING, Files, Reading, Retriever, Scorer, State, Updatable
from ..types import Among, Document, Floats, Query, Ranking
from .asking import check_search
from .fuse import scaling

Normalise: TypeAlias = Literal["min-max", "z-score", "none"]

_LARGEST = 1e38
_SMALLEST = np.float32(1e-30)  # smaller ones may count as 0: some libraries make the processor round them off


class Rerank:
    """Finds documents with one retriever, and orders the best of them by a scorer that reads query and text together.

    The best `depth` hits of the first retriever are scored, in batches, in its order. What they get is weight times the
    scorer's score plus (1 - weight) times the first retriever's, each normalised over the hits that were scored; equal
    sums keep the first retriever's order. Hits that were not scored, because they lie beyond `depth` or time had run out,
    follow below in the first retriever's order: the j-th of them has the lowest score of those above less j / (j + 1).

    A `Collection` says where texts are read from (see `ragistry.protocols.Reading`); elsewhere the documents that are
    added are kept, and saved with the rest. What a hit gets depends on the hits it was scored with, unless `normalise` is
    "none": as a member of a `Fuse`, use `missing="minimum"`.

    Args:
        first: Whose hits are reranked. One that takes documents is needed for `add`, `remove`, `fork`, `save` and `load`.
        scorer: Scores documents given the query text.
        depth: How many hits are scored for each query.
        weight: From 0 (the first retriever alone; the scorer is not asked) to 1 (the scorer alone).
        normalise: "min-max" (to 0 .. 1), "z-score" (mean 0, deviation 1) or "none". Over equal scores, "min-max" gives 1
            and "z-score" 0.
        budget_ms: No batch is begun later than this after the first batch of its query. One batch is always scored.
        batch: Documents per call of the scorer.

    Raises:
        InvalidInput: If a parameter is out of range. From `search`, if the scorer does not give one finite score for each
            document, or the text of a hit is not there.

    Example:
        >>> from ragistry import create
        >>> class Brevity:
        ...     def score(self, query, documents):
        ...         return np.array([-len(document.text) for document in documents], np.float32)
        >>> reranked = Rerank(create("bm25"), Brevity(), weight=1.0)
        >>> reranked.add([Document("1", "a sonnet, a sonnet"), Document("2", "a sonnet")])
        >>> reranked.first.search(["sonnet"])[0].ids, reranked.search(["sonnet"])[0].ids
        (('1', '2'), ('2', '1'))
    """

    recipe: Any = None

    def __init__(
        self,
        first: Retriever,
        scorer: Scorer,
        *,
        depth: int = 100,
        weight: float = 0.8,
        normalise: Normalise = "min-max",
        budget_ms: float | None = None,
        batch: int = 16,
    ) -> None:
        for value, wanted, method in ((first, Retriever, "search"), (scorer, Scorer, "score")):
            if not isinstance(value, wanted):
                raise InvalidInput(f"{type(value).__name__} has no method `{method}`; give a {wanted.__name__}")
        for name, number in (("depth", depth), ("batch", batch)):
            if not isinstance(number, int) or number < 1:
                raise InvalidInput(f"{name}={number!r:.100}; give a whole number of 1 or more")
        if normalise not in get_args(Normalise):
            raise InvalidInput(f"normalise={normalise!r:.100} is not known; known: {', '.join(get_args(Normalise))}")
        if budget_ms is not None and not (isinstance(budget_ms, Real) and 0 <= budget_ms < float("inf")):
            raise InvalidInput(f"budget_ms={budget_ms!r:.100}; give milliseconds, 0 or more, or None for no limit")
        self.first, self.scorer = first, scorer
        self.depth, self.weight, self.normalise = depth, _checked_weight(weight), normalise
        self.budget_ms, self.batch = budget_ms, batch
        self._clock = perf_counter
        self._source: Callable[[Sequence[str]], Sequence[Document]] | None = None
        self._kept: dict[str, Document] = {}  # where there is no source
        self._memory: RememberedScores | None = None  # what the same retriever with other weights asks
        self._asked: RememberedScores | None = None  # in place of the scorer, by one that `weighted` made

    @property
    def reads_metadata(self) -> bool:
        """See `ragistry.protocols.Updatable`."""
        return bool(getattr(self.first, "reads_metadata", False))

    def search(self, queries: Sequence[Query], k: int = 10, *, among: Among = None) -> list[Ranking]:
        """One ranking per query, at most `k` long, of ids in `among`.

        Raises:
            InvalidInput: If `queries` is no sequence of texts, `k` no whole number, or `among` no collection; if a text is
                missing, or the scorer gives what cannot be used.
        """
        check_search(queries, k, among)
        if k <= 0:
            return [Ranking((), np.empty(0, np.float32))] * len(queries)
        if self.weight == 0:
            return self.first.search(queries, k, among=among)
        rankings = self.first.search(queries, max(self.depth, k), among=among)
        found = []
        for query, ranking in zip(queries, rankings, strict=True):
            scores = self._scored(query, ranking.ids[: self.depth])
            found.append(merged(ranking, scores, self.weight, self.normalise).head(k))
        return found

    def read_from(self, documents: Callable[[Sequence[str]], Sequence[Document]]) -> None:
        """Read texts from `documents`, which gives those with some ids, in the order asked; keep none."""
        self._source, self._kept = documents, {}
        self._forget()
        if isinstance(self.first, Reading):
            self.first.read_from(documents)

    def weighted(self, weight: float) -> Self:
        """The same retriever with another weight, for comparing many.

        All of them share documents and settings, and remember scores together: each is computed once. Use them while the
        documents do not change. One that is given other texts, by `read_from`, `add` or `load`, remembers no more.

        Raises:
            InvalidInput: If the weight is not from 0 to 1.
        """
        weight = _checked_weight(weight)
        self._memory = self._memory or RememberedScores(self.scorer)
        twin = self._twin(self.first)
        twin.weight, twin._asked = weight, self._memory
        return twin

    def add(self, documents: Sequence[Document], *, same: Mapping[str, str] = NOTHING) -> None:
        """Insert; a document whose id is already there is replaced. For `same` see `ragistry.protocols.Updatable`."""
        self._updatable().add(documents, same=same)
        self._forget()
        if self._source is None:
            self._kept.update((document.id, document) for document in documents)

    def remove(self, ids: Iterable[str]) -> None:
        """Take ids out; ids that are not there are passed over."""
        gone = ids if isinstance(ids, str) else list(ids)  # a text, which the first refuses, would pass as its letters
        self._updatable().remove(gone)
        for id in gone:
            self._kept.pop(id, None)

    def fork(self) -> Self:
        """A copy that shares what is stored: changing one leaves the other as it was."""
        twin = self._twin(self._updatable().fork())
        twin._kept = dict(self._kept)
        return twin

    def save(self, files: Files) -> State:
        """Store arrays in `files` and return the rest. Texts are among them unless they are read from elsewhere."""
        state: State = {"first": self._updatable().save(files)}
        if self._kept:
            rows = [
                [d.id, d.text, d.title, normal(d.metadata, f"the metadata of {d.id!r}")] for d in self._kept.values()
            ]
            state["documents"] = files.put(np.frombuffer(encode(rows).encode(), np.uint8))
        return state

    def load(self, state: State, files: Files) -> None:
        """Become what was saved."""
        self._updatable().load(state["first"], files)
        self._kept = {}
        self._forget()
        if "documents" in state and self._source is None:
            rows = json.loads(files.get(state["documents"]).tobytes())
            self._kept = {id: Document(id, text, title, metadata) for id, text, title, metadata in rows}

    def _scored(self, query: Query, ids: Sequence[str]) -> Floats:
        """Scores of as many of the ids, from the first on, as time allows."""
        began, found = self._clock(), [np.empty(0, np.float32)]
        for start in range(0, len(ids), self.batch):
            if start and self.budget_ms is not None and (self._clock() - began) * 1000 >= self.budget_ms:
                break
            documents = self._documents(list(ids[start : start + self.batch]))
            found.append(scores_of(self._asked or self.scorer, query, documents))
        return np.concatenate(found)

    def _documents(self, ids: Sequence[str]) -> Sequence[Document]:
        if self._source is not None:
            return self._source(ids)
        if lost := [id for id in ids if id not in self._kept]:
            raise InvalidInput(
                f"the text of {lost[0]!r} is not there to be scored: it was added to the first retriever alone, or saved by "
                "a collection, which keeps texts itself; call `add` or `read_from`, or search through the collection"
            )
        return [self._kept[id] for id in ids]

    def _forget(self) -> None:
        self._memory = self._asked = None

    def _updatable(self) -> Updatable:
        if not isinstance(self.first, Updatable):
            raise InvalidInput(f"the first retriever ({type(self.first).__name__}) takes no documents of its own")
        return self.first

    def _twin(self, first: Retriever) -> Self:
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__, first=first)
        return twin


class RememberedScores:
    """Keeps every score it gives, by query and document id, for comparing many uses of the same scorer.

    Use it while the documents do not change, and drop it afterwards: memory grows with every new pair.

    Args:
        scorer: Who is asked the first time.

    Raises:
        InvalidInput: From `score`, if the scorer does not give one finite score for each document.

    Example:
        >>> class Brevity:
        ...     def score(self, query, documents):
        ...         return np.array([-len(document.text) for document in documents], np.float32)
        >>> RememberedScores(Brevity()).score("any", [Document("1", "four")]).tolist()
        [-4.0]
    """

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        self._known: dict[tuple[Query, str], float] = {}

    def score(self, query: Query, documents: Sequence[Document]) -> Floats:
        """float32 [len(documents)], higher is better."""
        unknown = {document.id: document for document in documents if (query, document.id) not in self._known}
        if unknown:
            scores = scores_of(self.scorer, query, list(unknown.values()))
            for id, score in zip(unknown, scores.tolist(), strict=True):
                self._known[query, id] = score
        return np.array([self._known[query, document.id] for document in documents], np.float32)


def scores_of(scorer: Scorer, query: Query, documents: Sequence[Document]) -> Floats:
    """What a scorer says of documents, float32 [len(documents)].

    Raises:
        InvalidInput: If it does not give one finite score for each.
    """
    name, found = type(scorer).__name__, scorer.score(query, documents)
    try:
        with np.errstate(over="ignore"):
            scores = np.asarray(found, np.float32)
    except (TypeError, ValueError):
        raise InvalidInput(
            f"{name} scored {len(documents)} documents with {found!r:.100}; numbers are needed"
        ) from None
    if scores.shape != (len(documents),):
        raise InvalidInput(
            f"{name} scored {len(documents)} documents with {type(found).__name__} of shape {scores.shape}; one score each "
            "is needed"
        )
    if not np.isfinite(scores).all():
        worst = int(np.argmin(np.isfinite(scores)))
        raise InvalidInput(
            f"{name} gave the document {documents[worst].id!r} the score {scores[worst]} for {query!r:.100}; scores must be "
            "finite as float32"
        )
    return scores


def merged(first: Ranking, scores: Floats, weight: float, normalise: Normalise) -> Ranking:
    """A ranking whose first `len(scores)` hits are put in a new order: see `Rerank`.

    Args:
        first: What was found.
        scores: Of its best hits, in its order.
        weight: Of these scores, 0 to 1.
        normalise: How both kinds of score are made comparable.

    Example:
        >>> merged(Ranking.of(["a", "b", "c"], [3.0, 2.0, 1.0]), np.array([0, 5], np.float32), 0.75, "min-max").ids
        ('b', 'a', 'c')
    """
    count = len(scores)
    if not count:
        return first
    own, given = first.scores[:count].astype(np.float64), scores.astype(np.float64)
    sums = weight * scaling(given, normalise)(given) + (1 - weight) * scaling(own, normalise)(own)
    order = np.argsort(-sums, kind="stable")
    behind = np.arange(1, len(first) - count + 1)
    values = np.concatenate([sums[order], sums.min() - behind / (behind + 1)])
    ids = (*(first.ids[i] for i in order.tolist()), *first.ids[count:])
    return Ranking(ids, _falling(ids, np.clip(values, -_LARGEST, _LARGEST).astype(np.float32), count))


def _falling(ids: Sequence[str], scores: Floats, count: int) -> Floats:
    """Scores made to fall, by as little as can be, where equal ones would not be in the order of their ids, or cross
    from the `count` hits that were scored to the others."""
    falling = scores.copy()
    for i in range(1, len(ids)):
        above, here = falling[i - 1], falling[i]
        if here > above or (here == above and (ids[i] < ids[i - 1] or i == count)):
            falling[i] = min(np.nextafter(above, np.float32(-np.inf)), above - _SMALLEST)
    return falling


def _checked_weight(weight: float) -> float:
    if not isinstance(weight, Real) or not 0 <= weight <= 1:
        raise InvalidInput(
            f"weight={weight!r:.100}; give a number from 0 (the first retriever alone) to 1 (the scorer alone)"
        )
    return float(weight)

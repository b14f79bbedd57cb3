"""Teaching a multi-vector encoder from pairs: a query's tokens are to find their like in documents that answer it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import nn

from ..encoders.multi import TokenStack
from ..encoders.steps import Features
from ..errors import InvalidInput
from ..evaluation.selection import Fit
from ..protocols import Encoder, Index
from ..registry import Lesson, Recipe
from ..retrievers.token_tuned import TokenTuned
from ..types import Document, Floats, Ints, MultiVectors, Ranking, Role
from .adapting import Problem, capped
from .crossfit import HEADROOM, Candidate, Judge, crossfit
from .folds import Fold, folds
from .live import BATCH, Live
from .losses.late import MaxSim
from .losses.ranking import InfoNCE
from .samplers import Sampler
from .teaching import relevance, report_of
from .trainer import History, Trainer

Tuning: TypeAlias = Literal["full", "lora"]
Others: TypeAlias = Literal["in-batch", "judged", "mined"]
"""Negatives: see `Sampler`. All documents at once, of several vectors each, would be too many."""
SAMPLE, DEPTH = 64, 4
"""Of `judged` negatives, and of `mined` ones for each query."""


@dataclass(frozen=True, slots=True)
class Matching:
    """What is trained, and how; see `ragistry.recipes.colbert`."""

    epochs: int = 3
    rate: float = 2e-5
    size: int = 32
    temperature: float = 1.0
    negatives: Others = "mined"
    documents: bool = False
    tune: Tuning = "full"
    rank: int = 16
    seed: int = 0


class Texts:
    """Queries as tokens, and documents as the vectors that an index holds, or as tokens where they are to learn as well.

    Args:
        stack: Reads the texts, and gives the vectors of the index.
        queries: Texts.
        ids: Of documents.
        index: Holds their vectors.
        documents: The documents themselves, where the model is trained for them.
    """

    def __init__(
        self,
        stack: TokenStack,
        queries: Sequence[str],
        ids: Sequence[str],
        index: Index,
        documents: Sequence[Document] | None = None,
    ) -> None:
        self._stack, self._texts, self._ids, self._index = stack, queries, ids, index
        self._asked = stack.tokens(queries, "query")
        self._held = None if documents is None else stack.tokens(documents, "document")
        self._place = {id: row for row, id in enumerate(ids)}

    def queries(self, rows: Ints) -> Features:
        """Their token ids and masks."""
        return self._stack.reader("query").features([self._asked[row] for row in rows.tolist()])

    def documents(self, rows: Ints) -> Features:
        """Their vectors, or their token ids and masks."""
        if self._held is not None:
            return self._stack.reader("document").features([self._held[row] for row in rows.tolist()])
        vectors: Any = self._index.vectors([self._ids[row] for row in rows.tolist()])
        return filled(vectors)

    def nearest(self, encoder: nn.Module, rows: Ints, k: int, answers: csr_array) -> Ints:
        """By the index, which holds documents as they were: so where documents learn, queries ask as they did, too."""
        found = np.full((len(rows), k), -1, np.int64)
        depth = k + int(np.diff(answers.indptr).max(initial=0))
        for first in range(0, len(rows), BATCH):
            some = rows[first : first + BATCH]
            if self._held is None:
                vectors = ragged(encoder(self.queries(some), "query"))
            else:
                vectors = self._stack.encode([self._texts[row] for row in some.tolist()], "query")
            for place, (row, ranking) in enumerate(zip(some, self._index.search(vectors, depth), strict=True)):
                start, end = answers.indptr[row], answers.indptr[row + 1]
                own = set(answers.indices[start:end][answers.data[start:end] > 0].tolist())
                near = [self._place[id] for id in ranking.ids if self._place.get(id, -1) not in own | {-1}][:k]
                found[first + place, : len(near)] = near
        return found


def filled(vectors: MultiVectors) -> Features:
    """Vectors of texts as a batch: `vector`, float32 [b, t, d], and `kept`, bool [b, t]."""
    lengths = np.diff(vectors.offsets)
    kept = np.arange(max(1, lengths.max(initial=0))) < lengths[:, None]
    vector = np.zeros((*kept.shape, vectors.values.shape[1]), np.float32)
    vector[kept] = vectors.values
    return {"vector": torch.from_numpy(vector), "kept": torch.from_numpy(kept)}


def ragged(features: Features) -> MultiVectors:
    """The reverse of `filled`."""
    kept = features["kept"].numpy()
    offsets = np.concatenate([[0], np.cumsum(kept.sum(axis=1))]).astype(np.int64)
    return MultiVectors(features["vector"].numpy()[kept], offsets)


def matched(
    stack: TokenStack, source: Texts, judged: csr_array, settings: Matching
) -> tuple[dict[str, Floats], History]:
    """The weights of the model that training changed, and its history; the stack stays as it is.

    Args:
        stack: What to train.
        source: Queries and documents.
        judged: Relevance, CSR [queries, documents]; queries without an answer are not learnt from.
        settings: What and how.
    """
    tuned: tuple[Role, ...] = ("query", "document") if settings.documents else ("query",)
    live = Live(stack, None, tuned, settings.rank if settings.tune == "lora" else None, settings.seed)
    sampler = Sampler(
        judged, negatives=settings.negatives, size=settings.size, sample=SAMPLE, depth=DEPTH, seed=settings.seed
    )
    trainer = Trainer(epochs=settings.epochs, rate=settings.rate, warmup=0.1, looks=settings.epochs, seed=settings.seed)
    history = trainer.fit(live, MaxSim(InfoNCE(settings.temperature, "dot")), sampler, source)
    return live.weights(), history


class Rankings:
    """Scores of queries by row, of the documents that an index finds; no other one is among the best.

    Args:
        encoder: Reads queries.
        index: Searched.
        queries: Texts.
        ids: Of documents, by column.
        depth: Of the search.
    """

    def __init__(self, encoder: Encoder, index: Index, queries: Sequence[str], ids: Sequence[str], depth: int) -> None:
        self._encoder, self._index, self._queries, self._depth = encoder, index, queries, depth
        self._place = {id: row for row, id in enumerate(ids)}
        self._known: dict[int, Ranking] = {}

    def __call__(self, rows: Ints) -> Floats:
        """float32 [len(rows), ids], minus infinity for what was not found."""
        new = [row for row in rows.tolist() if row not in self._known]
        if new:
            vectors = self._encoder.encode([self._queries[row] for row in new], "query")
            self._known |= dict(zip(new, self._index.search(vectors, self._depth), strict=True))
        found = np.full((len(rows), len(self._place)), -np.inf, np.float32)
        for line, row in zip(found, rows.tolist(), strict=True):
            ranking = self._known[row]
            line[[self._place[id] for id in ranking.ids]] = ranking.scores
        return found


def teach(
    retriever: TokenTuned,
    recipe: Recipe,
    settings: Matching,
    judged: Mapping[str, Mapping[str, int]],
    ids: Sequence[str],
    lesson: Lesson,
) -> tuple[TokenTuned, Fit]:
    """A taught copy of a searcher, and what that brought on pairs held out, a fifth of them.

    A searcher that was taught before is taught anew, from its model as it was.

    Raises:
        InvalidInput: If fewer than 10 queries have an answer, or the lesson has no documents.
    """
    began = perf_counter()
    read = lesson.documents
    if read is None:
        raise InvalidInput("a multi-vector encoder learns from the documents' texts; give `documents` with the lesson")
    untaught = retriever.taught(ids, {}, read) if retriever.weights else retriever
    untaught._check()  # vectors of another encoder would teach nonsense
    stack, index = untaught.base, untaught.index
    if not isinstance(stack, TokenStack):
        raise InvalidInput(
            f"{type(stack).__name__} shows no tokens to learn by; use a multi-vector model that runs here"
        )
    queries = [query for query, found in judged.items() if found]
    # There are no single vectors: what is wanted of a problem are its judgements.
    none = np.empty((len(queries), 0), np.float32), np.empty((len(ids), 0), np.float32)
    problem = Problem(queries, none[0], ids, none[1], relevance(queries, judged, ids))
    documents = read(ids) if settings.documents else None
    source = Texts(stack, queries, ids, index, documents)
    judge = Judge(problem.judged, ids, lesson.measure)
    depth = max(judge.depth, HEADROOM)

    def propose(fold: Fold) -> Iterator[Candidate]:
        weights, _ = matched(stack, source, problem.taught_by(fold.train), settings)
        other = untaught.taught(ids, weights, read)
        found = Rankings(other._asking(), other.index, queries, ids, depth)
        yield Candidate(f"{settings.epochs} epochs of training", {}, found)
        if lesson.progress is not None:
            lesson.progress(1)

    goal: Any = lesson.goal
    divided = [capped(fold) for fold in folds(problem.judged, queries, ids, 1)]
    choice = crossfit(judge, divided, Rankings(stack, index, queries, ids, depth), propose, goal)
    taught, history = untaught, History()
    if choice.label:
        weights, history = matched(stack, source, problem.judged, settings)
        taught = untaught.taught(ids, weights, read)
    fit = report_of(choice, recipe, lesson, len(queries), choice.label, history.to_json())
    return taught, replace(fit, seconds=round(perf_counter() - began, 2))

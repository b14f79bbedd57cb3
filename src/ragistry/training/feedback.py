"""Teaching a query encoder to read what a first look found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from ..encoders.stack import Stack
from ..encoders.steps import Features
from ..encoders.token_aware import stack_of
from ..errors import InvalidInput
from ..evaluation.selection import Fit
from ..registry import Lesson, Recipe
from ..retrievers.expanders import TextPRF
from ..retrievers.text_feedback import Rereading, separator_of, tower
from ..types import Floats, Ints, Role
from .adapting import Problem, capped, scores_of
from .crossfit import Candidate, Judge, crossfit
from .folds import Fold, folds
from .live import Live, Tokens
from .losses import Batch, Loss
from .losses.ranking import InfoNCE
from .samplers import Sampler
from .teaching import problem_of, report_of
from .trainer import History, Stored, Trainer

Tuning: TypeAlias = Literal["lora", "full"]


@dataclass(frozen=True, slots=True)
class Feeding:
    """What is trained, and how; see `ragistry.recipes.ance_prf`."""

    negatives: int = 20
    pool: int = 200
    size: int = 16
    temperature: float = 0.05
    epochs: int = 3
    rate: float = 2e-5
    tune: Tuning = "full"
    rank: int = 16
    seed: int = 0


class Listed(Loss):
    """Another loss of each query with its own candidates alone, the mean over queries; no other query's count.

    Own are documents that answer it, and those whose `row` is among its `candidates`: see `Fed`.

    Args:
        loss: Of one query.

    Source: ANCE-PRF, arXiv:2108.13454, section 3.2.
    """

    def __init__(self, loss: Loss) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        """A scalar."""
        queries, documents = encoder(batch.queries, "query")["vector"], encoder(batch.documents, "document")["vector"]
        drawn = (batch.documents["row"][None, :, None] == batch.queries["candidates"][:, None, :]).any(dim=2)
        found = []
        for query, mine, relevance in zip(queries, drawn | (batch.relevance > 0), batch.relevance, strict=True):
            features: Features = {"vector": documents[mine]}
            found.append(self.loss(_Same(), Batch({"vector": query[None]}, features, relevance[None, mine])))
        return torch.stack(found).mean()


class Fed(Tokens):
    """Queries with feedback, as token ids, and vectors of documents, as the source of features.

    Every epoch each query gets other negatives: documents judged wrong, and some drawn from those found nearest to it.

    Args:
        asked: Token ids of each query with what was found for it.
        held: Vectors of documents, float32 [m, d].
        near: Rows of the documents nearest to each query that do not answer it, int64 [n, pool]; -1 for none.
        seed: Of the draws.
    """

    def __init__(self, asked: Sequence[Sequence[int]], held: Floats, near: Ints, seed: int = 0) -> None:
        super().__init__(asked, [[0]] * len(held), held_vectors=held)
        self._near, self._draw = near, np.random.default_rng(seed)
        self._candidates: Ints = np.full((len(asked), 1), -1, np.int64)

    def queries(self, rows: Ints) -> Features:
        """Their token ids, mask, and rows of their `candidates`."""
        return super().queries(rows) | {"candidates": torch.from_numpy(self._candidates[rows])}

    def documents(self, rows: Ints) -> Features:
        """Their vectors and their rows."""
        return super().documents(rows) | {"row": torch.from_numpy(np.asarray(rows, np.int64))}

    def nearest(self, encoder: nn.Module, rows: Ints, k: int, answers: Any) -> Ints:
        """The next draw of `k` negatives of each query; the encoder plays no part."""
        found = np.full((len(rows), k), -1, np.int64)
        for i, row in enumerate(rows.tolist()):
            own = slice(*answers.indptr[row : row + 2])
            wrong = answers.indices[own][answers.data[own] <= 0]
            near = self._near[row][(self._near[row] >= 0) & ~np.isin(self._near[row], wrong)]
            drawn = np.concatenate([wrong, self._draw.permutation(near)])[:k]
            found[i, : len(drawn)] = drawn
        self._candidates = np.full((len(self._asked), k), -1, np.int64)
        self._candidates[rows] = found
        return found


def reread(
    base: Stack, problem: Problem, tokens: Sequence[Sequence[int]], near: Ints, judged: csr_array, settings: Feeding
) -> tuple[dict[str, Floats], History]:
    """Train a copy of a query encoder: the weights that changed, and how it went.

    Args:
        base: As it is; it stays so.
        problem: Queries and documents with their vectors, of which those of documents are what is aimed at.
        tokens: Of each query with what was found for it.
        near: See `Fed`.
        judged: What to learn from, CSR [queries, documents].
        settings: What and how.
    """
    tuned: tuple[Role, ...] = ("query",)
    live = Live(base, None, tuned, settings.rank if settings.tune == "lora" else None, settings.seed)
    sampler = Sampler(judged, negatives="mined", size=settings.size, depth=settings.negatives, seed=settings.seed)
    trainer = Trainer(epochs=settings.epochs, rate=settings.rate, warmup=0.1, looks=settings.epochs, seed=settings.seed)
    source = Fed(tokens, problem.held, near, settings.seed)
    history = trainer.fit(live, Listed(InfoNCE(settings.temperature)), sampler, source)
    return live.weights(), history


def teach(
    retriever: Rereading,
    recipe: Recipe,
    settings: Feeding,
    judged: Mapping[str, Mapping[str, int]],
    ids: Sequence[str],
    lesson: Lesson,
) -> tuple[Rereading, Fit]:
    """A taught copy, and what that brought on pairs held out, a fifth of them. Nothing of a document is encoded or changed.

    Raises:
        InvalidInput: As `problem_of`, or if the lesson has no documents, or the retriever reads none.
    """
    began = perf_counter()
    if lesson.documents is None or not retriever.depth:
        raise InvalidInput(
            f"feedback is learnt from the texts of documents found; depth={retriever.depth} was given, 1 or more and "
            "`documents` with the lesson are needed"
        )
    base = stack_of(retriever.encoder)
    problem = problem_of(retriever, judged, ids)
    separator = separator_of(base)
    reading = TextPRF(base, separator, retriever.length)
    looks = retriever.searcher.search(problem.queries, retriever.depth)
    found = list(dict.fromkeys(id for look in looks for id in look.ids))
    by_id = dict(zip(found, lesson.documents(found), strict=True))
    texts = [
        reading.text(query, [by_id[id] for id in look.ids]) for query, look in zip(problem.queries, looks, strict=True)
    ]
    tokens = base.tokens(texts, "query")
    everything = np.arange(len(problem.queries))
    near = Stored(problem.asked, problem.held).nearest(_Same(), everything, settings.pool, problem.judged)
    judge = Judge(problem.judged, problem.ids, lesson.measure)
    divided = [capped(fold) for fold in folds(problem.judged, problem.queries, problem.ids, 1)]
    label = f"the query encoder, reading {retriever.depth} documents, {settings.epochs} epochs ({settings.tune})"
    histories: list[History] = []

    def propose(fold: Fold) -> Iterator[Candidate]:
        rows = np.concatenate([fold.seen, fold.unseen])
        weights, history = reread(base, problem, tokens, near, problem.taught_by(fold.train), settings)
        histories.append(history)
        asked = problem.asked.copy()
        asked[rows] = tower(base, weights).encode([texts[row] for row in rows.tolist()], "query")
        yield Candidate(label, {}, scores_of(asked, problem.held))
        if lesson.progress is not None:
            lesson.progress(1)

    goal: Any = lesson.goal
    choice = crossfit(judge, divided, scores_of(problem.asked, problem.held), propose, goal)
    fit = report_of(choice, recipe, lesson, len(problem.queries), label, histories[0].to_json())
    if fit.kept:
        weights, _ = reread(base, problem, tokens, near, problem.judged, settings)
        retriever = retriever.taught(weights, separator)
    return retriever, replace(fit, seconds=round(perf_counter() - began, 2))


class _Same(nn.Module):
    def forward(self, features: Features, role: Role) -> Features:
        return features

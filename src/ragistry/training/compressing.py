"""Teaching compressed vectors: what learning bits and learning centroids share. All of it runs on vectors that are there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import nn

from ..encoders.steps import Features
from ..errors import InvalidInput
from ..evaluation.selection import Fit
from ..registry import Lesson, Recipe
from ..retrievers.learned_codes import Coding, LearnedCodes
from ..types import Floats, Ints
from ..workers import workers
from .adapting import LOOKS, STEPS, Problem, capped, runs_of
from .crossfit import Candidate, Judge, Scores, crossfit
from .folds import Fold, folds
from .losses import Loss
from .pseudo import Pseudo, labelled, with_made
from .samplers import Sampler
from .teaching import problem_of, report_of
from .trainer import History, Stored, Trainer

Watch = Callable[[Coding], Mapping[str, float]]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast. Without `epochs` there are 10, or as many as make 80 steps."""

    epochs: int | None = None
    rate: float = 1e-4
    size: int = 128
    seed: int = 0

    def length(self, queries: int) -> int:
        """Epochs, for so many queries in all, so that every fold has the same."""
        return self.epochs or max(10, -(-STEPS // max(1, -(-queries // self.size))))


@dataclass(frozen=True)
class Lessons:
    """What is learnt from.

    Args:
        problem: Queries and documents as encoded: those of the pairs, followed by those made from documents.
        given: How many queries have pairs of their own.
        labels: A teacher's scores, CSR [queries, documents]; none where there is no teacher.
    """

    problem: Problem
    given: int
    labels: csr_array | None = None

    @property
    def made(self) -> Ints:
        """Rows of the queries that were made from documents."""
        return np.arange(self.given, len(self.problem.queries))

    def source(self) -> Numbered:
        """Their vectors."""
        return Numbered(self.problem.asked, self.problem.held)


class Method(Protocol):
    """A way to compress: what is there untaught, what training gives, how either scores, and how it is served."""

    def base(self, problem: Problem) -> Scores:
        """Scores by vectors that were compressed without learning."""

    def scores(self, problem: Problem, coding: Coding) -> Scores:
        """Scores by what was learnt."""

    def train(
        self,
        lessons: Lessons,
        rows: Ints,
        *,
        watch: Watch | None = None,
        progress: Callable[[int], None] | None = None,
        until: int | None = None,
    ) -> tuple[dict[int, Coding], History]:
        """What is learnt from some queries, by epoch; 0 is before the first."""

    def taught(self, retriever: LearnedCodes, ids: Sequence[str], coding: Coding) -> LearnedCodes:
        """The retriever with what was learnt."""


def teach(
    retriever: LearnedCodes,
    recipe: Recipe,
    method: Method,
    judged: Mapping[str, Mapping[str, int]],
    ids: Sequence[str],
    lesson: Lesson,
    pseudo: Pseudo | None = None,
) -> tuple[LearnedCodes, Fit]:
    """A taught copy of a searcher in codes, and what that brought on held-out queries.

    It is to be kept if what was chosen is better beyond chance than the same vectors compressed without learning, queries
    with unseen documents not losing. Every look at the training is a candidate. A searcher that was taught before is taught
    anew. Held-out queries are pairs' own; those made from documents teach in every fold, as they may: answers to nobody's
    question, they are known before any question is.

    Raises:
        InvalidInput: As `problem_of`, or if there are too few documents to learn codes.
    """
    began = perf_counter()
    lessons = lessons_of(retriever, problem_of(retriever, judged, ids), lesson, pseudo)
    problem, given = lessons.problem, np.arange(lessons.given)
    pairs = problem.taught_by(given)
    judge = Judge(pairs, problem.ids, lesson.measure)
    divided = [capped(fold) for fold in folds(pairs, problem.queries, problem.ids, runs_of(lessons.given))]
    histories: list[History] = []
    goal: Any = lesson.goal

    def propose(fold: Fold) -> Iterator[Candidate]:
        rows = np.concatenate([fold.train, lessons.made])
        if not len(rows):
            return

        def watch(coding: Coding) -> dict[str, float]:
            scores, held_out = method.scores(problem, coding), {"seen": fold.seen[:200], "unseen": fold.unseen[:200]}
            found = {part: float(judge.values(some, scores).mean()) for part, some in held_out.items() if len(some)}
            wanted = [value for part, value in found.items() if goal in (part, "balanced")] or list(found.values())
            return {"goal": float(np.mean(wanted))} | found if found else {}

        looks, history = method.train(
            lessons, rows, watch=watch if fold is divided[0] else None, progress=lesson.progress
        )
        if fold is divided[0]:
            histories.append(history)
        for epoch, coding in looks.items():
            if epoch:
                yield Candidate(f"epoch {epoch}", {"epoch": epoch}, method.scores(problem, coding))

    pool = workers()
    choice = crossfit(judge, divided, method.base(problem), propose, goal, pool)
    taught, chosen, history = retriever, "", next(iter(histories), History())
    if choice.label:
        until = int(choice.settings[0]["epoch"])
        rows = np.flatnonzero(np.diff(problem.answers().indptr)).astype(np.int64)
        looks, _ = pool.submit(method.train, lessons, rows, progress=lesson.progress, until=until).result()
        taught = method.taught(retriever, ids, looks[until])
        made = len(problem.queries) - lessons.given
        chosen = f"{until} epochs of training" + (f", with {made:,} queries made from the documents" if made else "")
        history.best = until
    fit = report_of(choice, recipe, lesson, lessons.given, chosen, history.to_json())
    return taught, replace(fit, seconds=round(perf_counter() - began, 2))


def lessons_of(retriever: LearnedCodes, problem: Problem, lesson: Lesson, pseudo: Pseudo | None) -> Lessons:
    """A problem, with queries made from the documents and a teacher's labels if they are asked for."""
    given = len(problem.queries)
    if pseudo is None:
        return Lessons(problem, given)
    if lesson.documents is None:
        raise InvalidInput("queries are made from the documents' texts here; give `documents` with the lesson")
    documents = lesson.documents(problem.ids)
    problem = with_made(retriever.encoder, problem, documents, pseudo)
    if pseudo.labels == "genq":
        return Lessons(problem, given)
    problem, labels = labelled(problem, np.arange(given, len(problem.queries)), documents, pseudo)
    return Lessons(problem, given, labels)


def trained(
    step: nn.Module,
    loss: Loss,
    sampler: Sampler,
    lessons: Lessons,
    schedule: Schedule,
    snapshot: Callable[[], Coding],
    *,
    slower: Mapping[str, float] | None = None,
    watch: Watch | None = None,
    progress: Callable[[int], None] | None = None,
    until: int | None = None,
) -> tuple[dict[int, Coding], History]:
    """Train a step over stored vectors and keep a snapshot of each look, by epoch."""
    looks: dict[int, Coding] = {}

    def measure(encoder: nn.Module, epoch: int) -> Mapping[str, float]:
        looks[epoch] = snapshot()
        if progress is not None:
            progress(1)
        return {} if watch is None else watch(looks[epoch])

    epochs = schedule.length(len(lessons.problem.queries))
    trainer = Trainer(epochs=epochs, rate=schedule.rate, looks=LOOKS, seed=schedule.seed, slower=slower or {})
    history = trainer.fit(step, loss, sampler, lessons.source(), measure=measure, until=until)
    return looks, history


class Numbered(Stored):
    """Stored vectors with their row numbers, as the feature `row`, by which codes and labels are found.

    Args:
        queries: float32 [n, d].
        documents: float32 [m, d].
    """

    def queries(self, rows: Ints) -> Features:
        """Their vectors and rows."""
        return super().queries(rows) | {"row": torch.from_numpy(np.asarray(rows, np.int64))}

    def documents(self, rows: Ints) -> Features:
        """Their vectors and rows."""
        return super().documents(rows) | {"row": torch.from_numpy(np.asarray(rows, np.int64))}

    def nearest(self, encoder: nn.Module, rows: Ints, k: int, answers: Any) -> Ints:
        """By the inner products that codes are served with, over all documents."""
        held = encoder(self.documents(np.arange(len(self._documents))), "document")["vector"].numpy()
        found = np.full((len(rows), k), -1, np.int64)
        for first in range(0, len(rows), 256):
            some = rows[first : first + 256]
            scores = encoder(self.queries(some), "query")["vector"].numpy() @ held.T
            scores[answers[some].toarray() > 0] = -np.inf
            best = best_of(scores, k)
            found[first : first + 256, : best.shape[1]] = np.where(
                np.take_along_axis(scores, best, 1) > -np.inf, best, -1
            )
        return found


def best_of(scores: Floats, k: int) -> Ints:
    """Columns of the best `k` of each row, best first, equal ones by number: int64 [n, min(k, columns)]."""
    k = min(k, scores.shape[1])
    near = np.sort(np.argpartition(-scores, k - 1, axis=1)[:, :k], axis=1)
    order = np.argsort(-np.take_along_axis(scores, near, 1), axis=1, kind="stable")
    best: Ints = np.take_along_axis(near, order, 1).astype(np.int64)
    return best

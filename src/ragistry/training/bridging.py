"""Teaching token-aware augmentation: from pairs, from the documents themselves, or from their statistics alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import torch
from torch import nn

from ..encoders.steps.token_bridge import BridgeSide, Form, Paradigm, Statistics, TokenBridge
from ..encoders.token_aware import new_bridge, parts_of, stack_of
from ..errors import InvalidInput
from ..evaluation.selection import Fit
from ..registry import Lesson, Recipe
from ..retrievers.augmented import Aware, served
from ..types import Document, Floats, Ints, Role
from ..workers import workers
from .adapting import Problem, capped, runs_of, scores_of
from .crossfit import Candidate, Choice, Judge, crossfit
from .examples import judgements
from .folds import Fold, folds
from .live import Live, Tokens, embeddings_of, vectors_of
from .losses.ranking import InfoNCE
from .own_pairs import own_pairs
from .samplers import Negatives, Sampler
from .teaching import extended, problem_of, report_of
from .trainer import History, Point, Trainer

Tuning: TypeAlias = Literal["none", "lora", "full"]
STRENGTHS = (0.5, 0.7, 1.0)
"""Tried of a bridge, as shares of what it was trained with."""
KINDS = ("part-of-passage-8", "keyword-2", "part-of-passage-16", "keyword-3", "first-sentence", "title")
"""Tasks of `ragistry.evaluation` whose queries, made from the documents, are learnt from beside the pairs."""


@dataclass(frozen=True, slots=True)
class Bridging:
    """What is trained, and how; see `ragistry.recipes.lexsembridge`."""

    paradigm: Paradigm = "slr"
    form: Form = "sum"
    side: BridgeSide = "shared"
    strength: float = 0.7
    tune: Tuning = "none"
    tune_documents: bool = False
    rank: int = 16
    negatives: Negatives = "judged"
    size: int = 128
    temperature: float = 0.02
    epochs: int = 3
    rate: float = 3e-3
    tune_rate: float = 1e-4
    made: int = 4000
    seed: int = 0
    bridge: bool = True
    """Without, the model alone is tuned: the control."""


@dataclass(frozen=True)
class Lessons:
    """Texts as tokens, with the vectors that are there: what a bridge learns from.

    Args:
        problem: Queries and documents with their vectors as encoded.
        asked: Token ids of each query.
        held: Token ids of each document.
        embeddings: Of the queries' tokens, where the paradigm reads them and the model is not trained.
    """

    problem: Problem
    asked: Sequence[Sequence[int]]
    held: Sequence[Sequence[int]]
    embeddings: Sequence[Floats] | None = None

    def source(self, settings: Bridging) -> Tokens:
        """Vectors where the model stays as it is, token ids alone where it is trained."""
        live = settings.tune != "none"
        asked = None if live else self.problem.asked
        held = None if live and settings.tune_documents else self.problem.held
        return Tokens(self.asked, self.held, asked, held, self.embeddings)


def lessons_of(encoder: Any, problem: Problem, documents: Sequence[Document], settings: Bridging) -> Lessons:
    """Tokenise what a problem is made of."""
    base = stack_of(encoder)
    asked, held = base.tokens(problem.queries, "query"), base.tokens(documents, "document")
    reads = settings.bridge and settings.paradigm != "slr" and settings.tune == "none"
    return Lessons(problem, asked, held, embeddings_of(base, asked) if reads else None)


def started(encoder: Any, lessons: Lessons, settings: Bridging) -> TokenBridge:
    """A bridge with the documents' statistics; as a sum, with a random projection, as a gate, at the identity."""
    form = {"paradigm": settings.paradigm, "form": settings.form, "side": settings.side}
    bridge = new_bridge(encoder, **form)
    if settings.form == "sum":
        statistics = Statistics.of(lessons.held, bridge.vocabulary)
        bridge.start(statistics, lessons.problem.held, settings.strength, settings.seed)
    else:
        bridge.start(Statistics.of(lessons.held, bridge.vocabulary))
    return bridge


def train(
    encoder: Any,
    lessons: Lessons,
    rows: Ints,
    settings: Bridging,
    *,
    measure: Callable[[nn.Module, int], Mapping[str, float]] | None = None,
    progress: Callable[[Point], None] | None = None,
) -> tuple[Live, History]:
    """Train a bridge, and with it the model if the settings say so, on some of the queries.

    Args:
        encoder: What the vectors are from.
        lessons: Queries and documents.
        rows: Of the queries to learn from.
        settings: What and how.
        measure: See `Trainer.fit`; without it the last weights remain.
        progress: See `Trainer.fit`.
    """
    roles: dict[bool, tuple[Role, ...]] = {True: ("query", "document"), False: ("query",)}
    tuned = roles[settings.tune_documents] if settings.tune != "none" else ()
    bridge = started(encoder, lessons, settings) if settings.bridge else None
    rank = settings.rank if settings.tune == "lora" else None
    live = Live(stack_of(encoder), bridge, tuned, rank, settings.seed)
    if not settings.epochs or not len(rows):
        return live.eval(), History()
    negatives: Negatives = "in-batch" if settings.tune_documents and settings.tune != "none" else settings.negatives
    sampler = Sampler(
        lessons.problem.taught_by(rows), negatives=negatives, size=settings.size, sample=4096, seed=settings.seed
    )
    trainer = Trainer(
        epochs=settings.epochs,
        rate=settings.rate,
        looks=settings.epochs,
        seed=settings.seed,
        slower={"model.": settings.tune_rate / settings.rate},
    )
    history = trainer.fit(
        live, InfoNCE(settings.temperature), sampler, lessons.source(settings), measure=measure, progress=progress
    )
    return live, history


def teach(
    retriever: Any,
    recipe: Recipe,
    settings: Bridging,
    judged: Mapping[str, Mapping[str, int]],
    ids: Sequence[str],
    lesson: Lesson,
) -> tuple[Any, Fit]:
    """A taught copy of an `Augmented` searcher, and what that brought.

    What is learnt from are the pairs and queries made from the documents. What is chosen, by the pairs alone and across
    folds as `crossfit` says, is how strongly the bridge works and whether training it was better than the documents'
    statistics; the base is kept unless that is better beyond chance and documents without pairs do not lose.

    Raises:
        InvalidInput: As `problem_of`, or if the lesson has no documents.
    """
    began = perf_counter()
    if lesson.documents is None:
        raise InvalidInput(
            "token-aware augmentation learns from the documents' texts; give `documents` with the lesson"
        )
    problem = problem_of(retriever, judged, ids)
    documents = lesson.documents(problem.ids)
    given = np.arange(len(problem.queries))
    problem = with_made(retriever.encoder, problem, documents, settings)
    made = np.arange(len(given), len(problem.queries))
    lessons = lessons_of(retriever.encoder, problem, documents, settings)
    pairs = problem.taught_by(given)
    judge = Judge(pairs, problem.ids, lesson.measure)
    runs = runs_of(len(given)) if settings.tune == "none" else 2
    divided = [capped(fold) for fold in folds(pairs, problem.queries, problem.ids, runs)]
    histories: list[History] = []

    def propose(fold: Fold) -> Iterator[Candidate]:
        rows = np.concatenate([fold.seen, fold.unseen])
        source = lessons.source(settings)
        stages = [replace(settings, epochs=0)] if settings.form == "sum" and settings.tune == "none" else []
        for stage in [*stages, settings] if settings.epochs else stages or [settings]:
            learnt = np.concatenate([fold.train, made])
            live, history = train(retriever.encoder, lessons, learnt, stage)
            if stage.epochs:
                histories.append(history)
            # A tuned model has learnt with its bridge at full strength.
            for strength in STRENGTHS if stage.tune == "none" else (1.0,):
                asked, held = applied(live, source, problem, rows, strength)
                label = f"{stage.epochs} epochs; strength {strength:g}"
                yield Candidate(label, {"stage": stage, "strength": strength}, scores_of(asked, held))
            if lesson.progress is not None:
                lesson.progress(1)

    goal: Any = lesson.goal
    pool = workers()
    choice = crossfit(judge, divided, scores_of(problem.asked, problem.held), propose, goal, pool)
    best: Mapping[str, Any] = choice.settings[0] if choice.label else {"stage": settings, "strength": 1.0}
    taught = retriever
    if choice.label:
        everything = np.arange(len(problem.queries))
        live, history = pool.submit(train, retriever.encoder, lessons, everything, best["stage"]).result()
        histories.append(history)
        aware = _served(retriever.encoder, live, best["strength"], settings)
        taught = retriever.taught(ids, aware, lesson.documents)
    shown = histories[0].to_json() if histories else History().to_json()
    fit = report_of(choice, recipe, lesson, len(given), in_words(choice, best), shown)
    return taught, replace(fit, seconds=round(perf_counter() - began, 2))


def with_made(encoder: Any, problem: Problem, documents: Sequence[Document], settings: Bridging) -> Problem:
    """A problem with queries made from documents added to its own; none where none can be made, or training is off."""
    if not settings.made or not settings.epochs:
        return problem
    try:
        found = judgements(own_pairs(documents, queries=settings.made, seed=settings.seed, kinds=KINDS))
    except InvalidInput:  # the documents are too short or too alike
        return problem
    return extended(problem, found, encoder)


def in_words(choice: Choice, best: Mapping[str, Any]) -> str:
    """What was chosen, in words."""
    if not choice.label:
        return ""
    stage: Bridging = best["stage"]
    how = f"{stage.epochs} epochs of training" if stage.epochs else "from the documents' statistics, without training"
    tuned = "" if stage.tune == "none" else f", the model tuned ({stage.tune})"
    return f"{stage.paradigm} {stage.form}, side {stage.side}, {how}{tuned}; strength {best['strength']:g}"


def applied(live: Live, source: Tokens, problem: Problem, rows: Ints, strength: float) -> tuple[Floats, Floats]:
    """Vectors of some queries (others stay 0) and of all documents with a bridge of this strength."""
    with scaled(live, strength):
        found = vectors_of(live, source, rows, "query")
        held = vectors_of(live, source, np.arange(len(problem.ids)), "document")
    asked = np.zeros((len(problem.queries), held.shape[1]), np.float32)
    asked[rows] = found
    return asked, held


def _served(encoder: Any, live: Live, strength: float, settings: Bridging) -> Aware:
    with torch.no_grad():
        bridge = copy.deepcopy(cast(TokenBridge, live.after))
        bridge.scale.mul_(strength)
    return served(encoder, *parts_of(bridge), live.weights(), settings.tune_documents)


@contextmanager
def scaled(live: Live, strength: float) -> Iterator[None]:
    """A bridge of another strength for a while."""
    scale = live.after.scale if isinstance(live.after, TokenBridge) else None
    before = None if scale is None else scale.detach().clone()
    if scale is not None:
        scale.data.mul_(strength)
    try:
        yield
    finally:
        if scale is not None and before is not None:
            scale.data.copy_(before)

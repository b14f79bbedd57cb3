"""Adaptation without training: the same folds and report, and nothing to choose but whether it helps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any, cast

import numpy as np
from scipy.sparse import csr_array

from ..evaluation.selection import Fit
from ..registry import Lesson, Recipe
from ..retrievers.adapted import Adapted
from ..retrievers.neighbours import Neighbours
from ..types import Floats, Ints
from .adapting import Problem, remembered, runs_of
from .crossfit import Candidate, Choice, Judge, Scores, crossfit
from .folds import Fold, folds
from .teaching import problem_of, report_of


def move_documents(
    retriever: Adapted,
    recipe: Recipe,
    judged: Mapping[str, Mapping[str, int]],
    ids: Sequence[str],
    lesson: Lesson,
    *,
    share: float,
    keep_length: bool,
) -> tuple[Adapted, Fit]:
    """A searcher whose documents moved towards the queries they answered, and what that brought on held-out queries.

    Raises:
        InvalidInput: If fewer than 10 queries have an answer, or vectors are not finite.
    """
    began = perf_counter()
    problem = problem_of(retriever, judged, ids)

    def scores(rows: Ints) -> Scores:
        held = remembered(problem, None, rows, share, keep_length=keep_length)(problem.ids, problem.held)
        return lambda asked: problem.asked[asked] @ held.T

    choice = _measured(problem, scores, lesson)
    memory = remembered(problem, None, _answered(problem), share, keep_length=keep_length)
    fit = report_of(choice, recipe, lesson, len(problem.queries), f"{len(memory.ids):,} documents remember queries", {})
    return retriever.taught(ids, None, memory), replace(fit, seconds=round(perf_counter() - began, 2))


def keep_queries(
    retriever: Neighbours,
    recipe: Recipe,
    judged: Mapping[str, Mapping[str, int]],
    ids: Sequence[str],
    lesson: Lesson,
) -> tuple[Neighbours, Fit]:
    """A searcher that knows the queries given, and what that brought on held-out queries.

    Raises:
        InvalidInput: If fewer than 10 queries have an answer, or vectors are not finite.
    """
    began = perf_counter()
    problem = problem_of(retriever, judged, ids)
    share, k = retriever.share, retriever.neighbours

    def scores(rows: Ints) -> Scores:
        answers, known = problem.answers(rows)[rows], problem.asked[rows]
        most = min(k, len(rows))

        def of(asked: Ints) -> Floats:
            similar = problem.asked[asked] @ known.T
            kth = np.partition(similar, len(rows) - most, axis=1)[:, [len(rows) - most]]
            lent = (csr_array(np.where(similar >= kth, similar, 0)) @ answers).toarray() / k
            return cast(Floats, share * (problem.asked[asked] @ problem.held.T) + (1 - share) * lent)

        return of

    choice = _measured(problem, scores, lesson)
    rows = _answered(problem)
    answers = problem.answers(rows)
    lists = [[problem.ids[i] for i in answers.indices[answers.indptr[row] : answers.indptr[row + 1]]] for row in rows]
    fit = report_of(
        choice, recipe, lesson, len(problem.queries), f"{len(rows):,} queries with their answers are known", {}
    )
    return retriever.knowing(problem.asked[rows], lists), replace(fit, seconds=round(perf_counter() - began, 2))


def _measured(problem: Problem, scores: Callable[[Ints], Scores], lesson: Lesson) -> Choice:
    def propose(fold: Fold) -> Iterator[Candidate]:
        if len(fold.train):
            yield Candidate("remembering", {}, scores(fold.train))
        if lesson.progress is not None:
            lesson.progress(1)

    goal: Any = lesson.goal
    divided = list(folds(problem.judged, problem.queries, problem.ids, runs_of(len(problem.queries))))
    judge = Judge(problem.judged, problem.ids, lesson.measure)
    return crossfit(judge, divided, lambda rows: problem.asked[rows] @ problem.held.T, propose, goal)


def _answered(problem: Problem) -> Ints:
    return np.flatnonzero(np.diff(problem.answers().indptr)).astype(np.int64)

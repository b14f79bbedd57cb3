"""What `Collection.fit` does: settings are chosen, or a retriever is taught, whichever its recipe can."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

from ..errors import InvalidInput
from ..evaluation.selection import FEWEST_QUERIES, Fit, select
from ..protocols import Updatable
from ..registry import Lesson, Recipe
from .crossfit import Goal


def fitted(
    retriever: Updatable,
    judged: Mapping[str, Mapping[str, int]],
    known: Collection[str],
    ids: Sequence[str],
    lesson: Lesson,
) -> tuple[Any, Fit]:
    """A retriever that was taught, or none where only settings were chosen, and a report that says whether to keep it.

    Args:
        retriever: Made by `create`, and filled. It stays as it is.
        judged: Relevance by query text and document id.
        known: Those of the judged documents that are there; the others are left out and counted.
        ids: Of all documents.
        lesson: What to improve.

    Raises:
        InvalidInput: If fewer than 10 queries have an answer that is there, or something cannot be learnt from.
    """
    if lesson.goal not in get_args(Goal):
        raise InvalidInput(f"goal={lesson.goal!r}; one of {', '.join(get_args(Goal))} is needed")
    here = {query: {id: value for id, value in found.items() if id in known} for query, found in judged.items()}
    skipped = sum(map(len, judged.values())) - sum(map(len, here.values()))
    answered = sum(any(value > 0 for value in found.values()) for found in here.values())
    if answered < FEWEST_QUERIES:
        total = sum(map(len, judged.values()))
        raise InvalidInput(
            f"{answered} queries have an answer in the collection ({skipped} of {total} pairs name documents that it does "
            f"not hold), at least {FEWEST_QUERIES} are needed to learn from; add pairs, or check that their ids are those "
            "of the collection"
        )
    recipe: Recipe = retriever.recipe
    learnt = recipe.learn(retriever, here, ids, replace(lesson, skipped=skipped))
    if learnt is not None:
        taught, fit = learnt
        return taught, fit
    return None, select(here, skipped, recipe, retriever, measure=lesson.measure, progress=lesson.progress)

"""Teaching the members of a fusion that can learn, and then choosing how much each counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from time import perf_counter
from typing import Any

from ..evaluation.evaluate import Evaluation, evaluate
from ..evaluation.selection import FEWEST_QUERIES, SIGNIFICANT, Fit, perfect
from ..evaluation.significance import compare
from ..protocols import Retriever
from ..registry import Lesson

Judged = Mapping[str, Mapping[str, int]]
TEACHING = 0.6
"""Share of the queries that teach; of the others, half choose the weights and half say what it brought."""


def teach_members(
    retriever: Any,
    recipe: Any,
    judged: Judged,
    ids: Sequence[str],
    lesson: Lesson,
    joined: Callable[[Any, Mapping[str, Any]], Any],
) -> tuple[Any, Fit] | None:
    """A fusion whose members were taught, with weights chosen for them, and what that brought; none if no member can learn.

    Three parts of the queries, divided by a hash of their text, teach the members, choose the weights, and compare with the
    fusion as it was. If that helps, members are taught again with all queries.

    Args:
        retriever: A fusion, filled. It stays as it is.
        recipe: Its own.
        judged: Relevance by query text and document id.
        ids: Of all documents.
        lesson: What to improve.
        joined: Makes a fusion from a recipe and members.
    """
    began = perf_counter()
    answered = {query: found for query, found in judged.items() if any(value > 0 for value in found.values())}
    order = sorted(answered, key=lambda query: blake2b(query.encode("utf-8", "replace")).digest())
    cut = int(len(order) * TEACHING)
    if cut < FEWEST_QUERIES or len(order) - cut < FEWEST_QUERIES:
        return None
    parts = ({query: answered[query] for query in some} for some in (order[:cut], order[cut::2], order[cut + 1 :: 2]))
    teaching, choosing, comparing = parts
    taught, fits = _taught(retriever, recipe, teaching, ids, lesson)
    if not fits:
        return None
    other = joined(recipe, taught)
    chosen, best, tried = recipe, _measured(other, choosing, lesson).means[lesson.measure], 0
    for settings, candidate in recipe.variants(other):
        tried += 1
        value = _measured(candidate, choosing, lesson).means[lesson.measure]
        if value > best:
            chosen, best = settings, value
    before = _measured(retriever, comparing, lesson, "before")
    after = _measured(joined(chosen, taught), comparing, lesson, "after")
    base, fitted = before.means[lesson.measure], after.means[lesson.measure]
    p = compare([before, after], lesson.measure, "before")[0].p
    kept = fitted > base and p < SIGNIFICANT
    if kept:
        all_taught, _ = _taught(retriever, recipe, answered, ids, lesson)
        taught = {name: all_taught[name] if name in fits else member for name, member in retriever.members.items()}
    final = joined(chosen if kept else recipe, taught if kept else retriever.members)
    final.recipe = chosen if kept else recipe
    fit = Fit(
        recipe=final.recipe,
        kept=kept,
        measure=lesson.measure,
        base=base,
        fitted=fitted,
        p=p,
        headroom=_measured(perfect(retriever, comparing), comparing, lesson).means[lesson.measure],
        candidates=tried + sum(found.candidates for found in fits.values()),
        queries=(len(teaching) + len(choosing), len(comparing)),
        skipped=lesson.skipped,
        goal=lesson.goal,
        chosen="; ".join([*(f"{name}: {found.chosen}" for name, found in fits.items()), _weights(chosen)]),
        seconds=round(perf_counter() - began, 2),
    )
    return final, fit


def _taught(
    retriever: Any, recipe: Any, judged: Judged, ids: Sequence[str], lesson: Lesson
) -> tuple[dict[str, Any], dict[str, Fit]]:
    """All members, those taught that can be and are better for it, and the reports of those."""
    members, fits = dict(retriever.members), dict[str, Fit]()
    for name, member in retriever.members.items():
        learnt = recipe.members[name].learn(member, judged, ids, lesson)
        if learnt is not None and learnt[1].kept:
            members[name], fits[name] = learnt
            members[name].recipe = recipe.members[name]
    return members, fits


def _weights(recipe: Any) -> str:
    if recipe.method != "interpolation":
        return "reciprocal ranks"
    shown = ", ".join(f"{name} {recipe.weights.get(name, 1):g}" for name in recipe.members)
    return f"weights: {shown}"


def _measured(retriever: Retriever, judged: Judged, lesson: Lesson, name: str = "") -> Evaluation:
    numbered = {str(i): query for i, query in enumerate(judged)}
    qrels = {number: dict(judged[query]) for number, query in numbered.items()}
    return evaluate(retriever, numbered, qrels, [lesson.measure], name=name)

"""From a collection's retriever and its pairs to a taught one, with a report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from time import perf_counter
from typing import Any, cast

import numpy as np
from scipy.sparse import csr_array, vstack

from ..evaluation.selection import SIGNIFICANT, Fit
from ..protocols import Encoder
from ..registry import Lesson, Recipe
from ..retrievers.adapted import Adapted
from .adapting import SHARES, Learnt, Problem, Settings, adapt
from .crossfit import Choice

POOL = 100_000
"""Documents that are looked at, beyond which a sample and each query's nearest stand for all."""


def problem_of(retriever: Any, judged: Mapping[str, Mapping[str, int]], ids: Sequence[str], seed: int = 0) -> Problem:
    """Pairs over the vectors that a retriever holds: each query is encoded once, documents not at all.

    Args:
        retriever: An `Adapted` or another that has `encoder`, `search` and `encoded`, filled.
        judged: Relevance by query text and document id.
        ids: Of all documents.
        seed: Of the sample, where there are too many documents to look at all of them.

    Raises:
        InvalidInput: If fewer than 10 queries have an answer, or vectors are not finite.
    """
    queries = [query for query, found in judged.items() if found]
    retriever._check()  # vectors of another encoder would teach nonsense
    asked = np.asarray(retriever.encoder.encode(queries, "query"), np.float32)
    if len(ids) > POOL:
        near = retriever.search(queries, 50)
        wanted = {id for found in judged.values() for id in found} | {id for ranking in near for id in ranking.ids}
        drawn = np.random.default_rng(seed).choice(len(ids), POOL, replace=False)
        wanted |= {ids[row] for row in drawn}
        ids = [id for id in ids if id in wanted]
    matrix = relevance(queries, judged, ids)
    return Problem(queries, asked, ids, retriever.encoded(ids), matrix)


def relevance(queries: Sequence[str], judged: Mapping[str, Mapping[str, int]], ids: Sequence[str]) -> csr_array:
    """Judgements as an array, CSR [queries, ids]; those of 0 stay stored.

    Args:
        queries: By row.
        judged: Relevance by query text and document id; every id of it is among `ids`.
        ids: By column.
    """
    place = {id: row for row, id in enumerate(ids)}
    entries = [(row, place[id], value) for row, query in enumerate(queries) for id, value in judged[query].items()]
    rows, columns, values = (np.array(part) for part in zip(*entries, strict=True))
    order = np.lexsort((columns, rows))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(queries)))])
    # Built from its parts, as a sum of entries would drop zeros.
    return csr_array((values[order].astype(np.float32), columns[order], indptr), shape=(len(queries), len(ids)))


def extended(problem: Problem, judged: Mapping[str, Mapping[str, int]], encoder: Encoder) -> Problem:
    """A problem with further queries after its own; one that was asked already is left out.

    Args:
        problem: To extend.
        judged: Relevance by query text and document id; every id is among the problem's.
        encoder: Gives the queries' vectors.
    """
    own = set(problem.queries)
    queries = [query for query in judged if query not in own]
    if not queries:
        return problem
    asked = np.asarray(encoder.encode(queries, "query"), np.float32)
    return replace(
        problem,
        queries=[*problem.queries, *queries],
        asked=np.concatenate([problem.asked, asked]),
        judged=csr_array(vstack([problem.judged, relevance(queries, judged, problem.ids)])),
    )


def teach(
    retriever: Adapted,
    recipe: Recipe,
    tried: Sequence[Settings],
    judged: Mapping[str, Mapping[str, int]],
    ids: Sequence[str],
    lesson: Lesson,
    shares: Sequence[float] = SHARES,
) -> tuple[Adapted, Fit]:
    """A taught copy of a searcher, and what that brought.

    It is to be kept if what was chosen is better than the untaught encoder on held-out queries beyond chance, those with
    unseen documents not losing. A searcher that was taught before is taught anew, from its vectors as they were encoded.

    Raises:
        InvalidInput: As `problem_of`.
    """
    began = perf_counter()
    problem = problem_of(retriever, judged, ids)
    goal: Any = lesson.goal
    learnt = adapt(problem, tried, measure=lesson.measure, goal=goal, shares=shares, progress=lesson.progress)
    taught = retriever.taught(ids, learnt.projection, learnt.memory)
    fit = report_of(learnt.choice, recipe, lesson, len(problem.queries), in_words(learnt), learnt.history.to_json())
    return taught, replace(fit, seconds=round(perf_counter() - began, 2))


def report_of(
    choice: Choice, recipe: Recipe, lesson: Lesson, queries: int, chosen: str, history: Mapping[str, Any]
) -> Fit:
    """What cross-fitting found, as `fit` reports it."""
    without = "" if lesson.goal == "seen" else " without a loss on unseen documents"
    return Fit(
        recipe=recipe,
        kept=bool(choice.label) and choice.fitted > choice.base and choice.p < SIGNIFICANT,
        measure=lesson.measure,
        base=choice.base,
        fitted=choice.fitted,
        p=choice.p,
        headroom=choice.headroom,
        candidates=len(choice.tried) - 1,
        queries=(queries, sum(part.queries for part in choice.parts.values())),
        skipped=lesson.skipped,
        goal=lesson.goal,
        parts={name: asdict(part) for name, part in choice.parts.items()},
        chosen=chosen if choice.label else f"nothing, as no candidate was better{without}",
        tried={
            label: cast(Any, tuple(None if math.isnan(value) else value for value in means))
            for label, means in choice.tried.items()
            if label
        },
        history=history,
    )


def in_words(learnt: Learnt) -> str:
    """What was chosen, in words."""
    if learnt.settings is None:
        return ""
    parts = [f"{_map(learnt.settings)}, {learnt.epoch} epochs" if learnt.projection is not None else "no map"]
    if (memory := learnt.memory) is not None:
        if memory.share < 1:
            parts.append(f"documents moved {1 - memory.share:.0%} of the way to the queries they answered")
        if memory.scale < 1:
            parts.append(f"scores of documents with examples times {memory.scale:.3f}, so that they hide no others")
        if memory.damping:
            parts.append(f"documents near to many queries damped by {memory.damping:g}")
    return "; ".join(parts)


def _map(settings: Settings) -> str:
    form = {"linear": "a linear map", "softmax": "a dictionary"}[settings.form]
    size = "" if settings.rank is None else f" of rank {settings.rank}"
    side = {"query": "of queries", "both": "of queries and another of documents", "shared": "of queries and documents"}
    return f"{form}{size} {side[settings.side]} (loss {settings.loss})"

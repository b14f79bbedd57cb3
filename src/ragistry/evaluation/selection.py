"""Choosing a retriever's settings from known answers, and saying honestly what it brought."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from typing import Any

from ..protocols import Retriever
from ..registry import Recipe
from ..types import Among, Ranking
from .evaluate import Evaluation, evaluate
from .significance import compare

FEWEST_QUERIES = 10
DEPTH = 100
SIGNIFICANT = 0.05


@dataclass(frozen=True, slots=True)
class Fit:
    """What `fit` found.

    Attributes:
        recipe: The chosen settings; those of before, if nothing helped.
        kept: Whether they differ from those of before.
        measure: What was improved, 0 to 1.
        base: The old settings on the validation queries.
        fitted: The best other settings on the same queries, kept or not.
        p: How likely a gain as large as this is by chance (paired randomisation test), 1 if nothing was better.
        headroom: What a perfect reordering of the base's first 100 would reach on them.
        candidates: How many other settings were tried.
        queries: How many queries chose, and how many validated.
        skipped: Pairs left out because the collection does not hold their document.
        goal: What was to be improved, for retrievers that learn from pairs: `seen`, `unseen` or `balanced`.
        parts: For those, by kind of held-out query, `seen` or `unseen`: `queries`, `base`, `fitted`, `headroom` and `p`.
        chosen: What was learnt, in words.
        tried: By candidate, its means on seen and unseen queries, null where there are none.
        history: The validation curve, as JSON.
        seconds: What it took.
    """

    recipe: Recipe
    kept: bool
    measure: str
    base: float
    fitted: float
    p: float
    headroom: float
    candidates: int
    queries: tuple[int, int]
    skipped: int
    goal: str = ""
    parts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    chosen: str = ""
    tried: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    history: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self) | {"recipe": self.recipe.model_dump(mode="json")}


def select(
    judged: Mapping[str, Mapping[str, int]],
    skipped: int,
    recipe: Recipe,
    retriever: Retriever,
    *,
    measure: str = "nDCG@10",
    progress: Callable[[int], None] | None = None,
) -> Fit:
    """Try the recipe's variants on half of the queries and keep the best only if it helps on the other half beyond chance.

    Queries are divided by a hash of their text, so the same pairs always give the same halves. What was there before is
    among the candidates, and stays unless the gain on queries that chose nothing has p < 0.05: a gain that would not hold
    on the next question is none.

    Args:
        judged: Relevance by query text and document id, of documents that are there.
        skipped: How many pairs were left out, whose documents are not.
        recipe: The settings in use.
        retriever: The retriever in use.
        measure: What to improve.
        progress: Called after each candidate.
    """
    answers = {query: dict(found) for query, found in judged.items() if any(value > 0 for value in found.values())}
    order = sorted(answers, key=lambda query: blake2b(query.encode("utf-8", "replace")).digest())
    choosing, validating = order[::2], order[1::2]

    def measured(candidate: Retriever, queries: Sequence[str], name: str = "") -> Evaluation:
        return evaluate(candidate, *_numbered(queries, answers), [measure], name=name)

    chosen, used, best, candidates = recipe, retriever, measured(retriever, choosing).means[measure], 0
    for other, candidate in recipe.variants(retriever):
        candidates += 1
        value = measured(candidate, choosing).means[measure]
        if value > best:
            chosen, used, best = other, candidate, value
        if progress is not None:
            progress(1)
    base = measured(retriever, validating, "base")
    fitted, p = base, 1.0
    if used is not retriever:
        fitted = measured(used, validating, "fitted")
        p = compare([base, fitted], measure, "base")[0].p
    kept = fitted.means[measure] > base.means[measure] and p < SIGNIFICANT
    return Fit(
        recipe=chosen if kept else recipe,
        kept=kept,
        measure=measure,
        base=base.means[measure],
        fitted=fitted.means[measure],
        p=p,
        headroom=measured(_Perfect(retriever, answers), validating).means[measure],
        candidates=candidates,
        queries=(len(choosing), len(validating)),
        skipped=skipped,
    )


def perfect(retriever: Retriever, answers: Mapping[str, Mapping[str, int]]) -> Retriever:
    """A retriever that puts the known answers among the first 100 of another one first: what reordering could reach."""
    return _Perfect(retriever, answers)


class _Perfect:
    """Puts the known answers among the first 100 of another retriever first."""

    def __init__(self, retriever: Retriever, answers: Mapping[str, Mapping[str, int]]) -> None:
        self.retriever, self.answers = retriever, answers

    def search(self, queries: Sequence[str], k: int = 10, *, among: Among = None) -> list[Ranking]:
        rankings = self.retriever.search(queries, max(k, DEPTH), among=among)
        return [
            Ranking.of(ranking.ids, [float(self.answers[query].get(i, 0)) for i in ranking.ids], k)
            for query, ranking in zip(queries, rankings, strict=True)
        ]


def _numbered(
    queries: Sequence[str], answers: Mapping[str, dict[str, int]]
) -> tuple[dict[str, str], dict[str, dict[str, int]]]:
    names = {str(i): query for i, query in enumerate(queries)}
    return names, {name: answers[query] for name, query in names.items()}

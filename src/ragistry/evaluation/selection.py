"""Choosing a retriever's settings from known answers, and saying honestly what it brought."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any

from ..errors import InvalidInput
from ..protocols import Retriever
from ..registry import Recipe
from ..types import Among, Pair, Ranking
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

    def to_json(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self) | {"recipe": self.recipe.model_dump(mode="json")}


def select(
    pairs: Sequence[Pair],
    known: AbstractSet[str],
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
        pairs: Query texts and the ids of documents that answer them.
        known: The ids that the collection holds.
        recipe: The settings in use.
        retriever: The retriever in use.
        measure: What to improve.
        progress: Called after each candidate.

    Raises:
        InvalidInput: If fewer than 10 queries have a known document.
    """
    answers: dict[str, dict[str, int]] = {}
    for query, document_id in pairs:
        if document_id in known:
            answers.setdefault(query, {})[document_id] = 1
    skipped = sum(pair.document_id not in known for pair in pairs)
    if len(answers) < FEWEST_QUERIES:
        raise InvalidInput(
            f"{len(answers)} queries name a document of the collection ({skipped} of {len(pairs)} pairs do not), at least "
            f"{FEWEST_QUERIES} are needed to learn from; add pairs, or check that their ids are those of the collection"
        )
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


class _Perfect:
    """Puts the known answers among the first 100 of another retriever first."""

    def __init__(self, retriever: Retriever, answers: Mapping[str, Mapping[str, int]]) -> None:
        self.retriever, self.answers = retriever, answers

    def search(self, queries: Sequence[str], k: int = 10, *, among: Among = None) -> list[Ranking]:
        rankings = self.retriever.search(queries, max(k, DEPTH), among=among)
        return [
            Ranking.of(ranking.ids, [float(i in self.answers[query]) for i in ranking.ids], k)
            for query, ranking in zip(queries, rankings, strict=True)
        ]


def _numbered(
    queries: Sequence[str], answers: Mapping[str, dict[str, int]]
) -> tuple[dict[str, str], dict[str, dict[str, int]]]:
    names = {str(i): query for i, query in enumerate(queries)}
    return names, {name: answers[query] for name, query in names.items()}

"""Several retrievers on one task, best first: quality with intervals and tests, and what each of them costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import InvalidInput
from .evaluate import Evaluation, Qrels
from .significance import Comparison, Interval, compare, interval


@dataclass(frozen=True)
class Cost:
    """What a retriever costs; None is not known.

    Args:
        index_seconds: To index all documents from nothing, with the time that any shared embeddings took.
        index_bytes: Of the index on disk, documents not counted.
        memory_bytes: The most that a fresh process holds which opens the collection and answers queries, interpreter and
            model included.
        p50_ms: Median time for one query asked alone, in milliseconds.
        p95_ms: What 95 % of them stay below.
        queries_per_second: Answered when queries are asked many at once.
    """

    index_seconds: float | None = None
    index_bytes: int | None = None
    memory_bytes: int | None = None
    p50_ms: float | None = None
    p95_ms: float | None = None
    queries_per_second: float | None = None


@dataclass(frozen=True)
class Entry:
    """One retriever's line.

    Args:
        name: Of the retriever.
        evaluation: Its means, its values for each query, and its rankings.
        intervals: 95 % interval of each mean, by measure; None with fewer than two queries.
        against_best: The test of the difference from the best one, corrected for all pairs of retrievers; None for the best
            itself, or for one alone.
        cost: What it costs.
        settings: Of the retriever, as JSON can hold them.
    """

    name: str
    evaluation: Evaluation
    intervals: Mapping[str, Interval | None]
    against_best: Comparison | None
    cost: Cost
    settings: Mapping[str, Any]

    @property
    def behind(self) -> bool:
        """Whether it is worse than the best beyond chance."""
        return self.against_best is not None and self.against_best.significant()


@dataclass(frozen=True)
class Leaderboard:
    """Entries on one task, best first by the first measure.

    Args:
        task: Its name.
        documents: How many are searched; None if it is not known.
        queries: Texts by query id; those without text have their id.
        qrels: Relevance by query id and document id.
        entries: Best first.
        notes: Of the task, and of what was left out.
        uniqueness: See `ragistry.evaluation.tasks.Task`.
    """

    task: str
    documents: int | None
    queries: Mapping[str, str]
    qrels: Qrels
    entries: tuple[Entry, ...]
    notes: tuple[str, ...] = ()
    uniqueness: float | None = None

    @property
    def measures(self) -> tuple[str, ...]:
        """Those that were asked for."""
        return self.entries[0].evaluation.measures

    def verdict(self) -> str:
        """Which one to use, in a sentence or two: the best, and the quickest that is not worse beyond chance."""
        best, measure = self.entries[0], self.measures[0]
        value = best.evaluation.means[measure]
        level = [entry for entry in self.entries[1:] if not entry.behind]
        equal = [entry.name for entry in level if entry.evaluation.means[measure] == value]
        worse = [entry.name for entry in level if entry.name not in equal]
        if equal:
            said = f"{_listed([best.name, *equal], 'and')} are level, with {measure} {value:.3f}"
        else:
            said = f"{best.name} is best, with {measure} {value:.3f}"
            said += ", beyond chance against every other" if len(self.entries) > 1 and not level else ""
        if worse:
            said += f"; that {'they are' if equal else 'it is'} better than {_listed(worse, 'or')} may be chance"
        quick = [entry for entry in (best, *level) if entry.cost.p50_ms is not None]
        quickest = min(quick, key=lambda entry: entry.cost.p50_ms or 0.0, default=best)
        if quickest is not best and best.cost.p50_ms and quickest.cost.p50_ms:
            times = best.cost.p50_ms / quickest.cost.p50_ms
            if times >= 1.5:
                said += f". {quickest.name} answers {times:,.1f} times as fast"
        return said + "."

    def to_json(self) -> dict[str, Any]:
        """Everything but texts and rankings, as JSON can hold it."""
        return {
            "task": self.task,
            "documents": self.documents,
            "queries": len(self.entries[0].evaluation.run),
            "measures": list(self.measures),
            "uniqueness": self.uniqueness,
            "notes": list(self.notes),
            "verdict": self.verdict(),
            "retrievers": [
                {
                    **entry.evaluation.to_json(),
                    "name": entry.name,
                    "intervals": {measure: found and list(found) for measure, found in entry.intervals.items()},
                    "against_best": entry.against_best and asdict(entry.against_best),
                    "cost": asdict(entry.cost),
                    "settings": dict(entry.settings),
                }
                for entry in self.entries
            ],
        }


def leaderboard(
    task: str,
    evaluations: Sequence[Evaluation],
    queries: Mapping[str, str],
    qrels: Qrels,
    *,
    documents: int | None = None,
    costs: Mapping[str, Cost] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    notes: Sequence[str] = (),
    uniqueness: float | None = None,
    seed: int = 0,
) -> Leaderboard:
    """Order evaluations of the same queries, with intervals, and test each against the best.

    Args:
        task: Its name.
        evaluations: One for each retriever, by different names, all with the same measures.
        queries: Texts by query id.
        qrels: The judgements that they were measured by.
        documents: How many were searched.
        costs: By name.
        settings: By name.
        notes: What to tell with the table.
        uniqueness: Share of the queries that only one document can answer.
        seed: Of intervals and tests.

    Raises:
        InvalidInput: If there is no evaluation, two share a name, or their queries or measures differ.

    Example:
        >>> from ragistry import Ranking
        >>> from ragistry.evaluation import evaluate
        >>> queries, qrels = {str(i): "?" for i in range(8)}, {str(i): {"d": 1} for i in range(8)}
        >>> found = [
        ...     evaluate(lambda texts, k, id=id: [Ranking.of([id], [1.0])] * len(texts), queries, qrels, ["P@1"], name=name)
        ...     for name, id in (("bad", "e"), ("good", "d"))
        ... ]
        >>> leaderboard("letters", found, queries, qrels).verdict()
        'good is best, with P@1 1.000, beyond chance against every other.'
    """
    if not evaluations:
        raise InvalidInput("no evaluation was given; a leaderboard needs at least one")
    if len({evaluation.measures for evaluation in evaluations}) > 1:
        raise InvalidInput("the evaluations have different measures; evaluate all of them by the same ones")
    measure = evaluations[0].measures[0]
    ordered = sorted(evaluations, key=lambda evaluation: -evaluation.means[measure])
    # The best is chosen by the same queries, so each test is corrected as one of those between all pairs.
    tests = compare(ordered, measure, samples=20_000, seed=seed) if len(ordered) > 1 else []
    against = {test.name: test for test in tests if test.baseline == ordered[0].name}
    entries = tuple(
        Entry(
            evaluation.name,
            evaluation,
            {name: interval(list(values.values()), seed=seed) for name, values in evaluation.per_query.items()},
            against.get(evaluation.name),
            (costs or {}).get(evaluation.name, Cost()),
            (settings or {}).get(evaluation.name, {}),
        )
        for evaluation in ordered
    )
    return Leaderboard(task, documents, queries, qrels, entries, tuple(notes), uniqueness)


def _listed(names: Sequence[str], word: str) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"

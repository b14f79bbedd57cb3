"""Measure a retriever against judgements."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from numbers import Integral
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np

from ..errors import InvalidInput
from ..protocols import Retriever
from ..types import Ranking
from .measures import HIGHEST_RELEVANCE, Measure, depth_of, parse_measure, values

Search: TypeAlias = Callable[[Sequence[str], int], Sequence[Ranking]]
Qrels: TypeAlias = Mapping[str, Mapping[str, int]]

DEFAULT_MEASURES = ("nDCG@10", "R@100", "MRR@10", "MAP")


@dataclass(frozen=True)
class Evaluation:
    """What a retriever reached.

    Args:
        name: Of the retriever, as given to `evaluate`.
        measures: As they were asked for.
        means: Mean of each measure over the judged queries, from 0 to 1.
        per_query: Each measure's value for each judged query, by query id.
        run: The ranking for each judged query, by query id.
        seconds: Time spent in searching, measuring left out.
        unjudged: How many queries were left out because nothing is judged for them.
    """

    name: str
    measures: tuple[str, ...]
    means: dict[str, float]
    per_query: dict[str, dict[str, float]]
    run: dict[str, Ranking]
    seconds: float
    unjudged: int = 0

    @property
    def queries_per_second(self) -> float:
        """How many queries were answered per second of searching."""
        return len(self.run) / max(self.seconds, 1e-9)

    def to_json(self) -> dict[str, Any]:
        """Everything but the run, as JSON can hold it; `write_run` stores the run."""
        return {
            "name": self.name,
            "queries": len(self.run),
            "unjudged": self.unjudged,
            "means": dict(self.means),
            "per_query": {measure: dict(found) for measure, found in self.per_query.items()},
            "seconds": self.seconds,
            "queries_per_second": self.queries_per_second if self.seconds else None,
        }


def evaluate(
    search: Retriever | Search,
    queries: Mapping[str, str],
    qrels: Qrels,
    measures: Sequence[str] = DEFAULT_MEASURES,
    *,
    k: int | None = None,
    batch: int = 64,
    name: str = "",
    progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Ask a retriever every judged query and measure its rankings.

    A query is asked if `qrels` judges a document for it, and every query asked counts in the mean: one for which
    nothing is found, or no judged document is relevant, has 0, as in trec_eval with `-c`. Queries without judgements
    cannot be measured; they are left out and counted as `unjudged`. A judged query without text is an error, for leaving
    it out would change the mean unnoticed.

    Measures have the names of ir_measures, in any case: `nDCG@10` (the gain is the relevance itself), `R@100` or
    recall, `RR@10` or MRR, `AP` or MAP, `P@5` or precision, `Success@5` or hit, `Judged@10`, `Rprec`, `Bpref`.
    Documents of relevance 1 and above are relevant; `AP(rel=2)` sets another level. Values are those of trec_eval, by
    way of ir_measures (MacAvaney, Macdonald and Ounis 2022), except that equal scores keep the retriever's order.

    Args:
        search: A retriever, or a function from query texts and k to one ranking each.
        queries: Texts by query id.
        qrels: Relevance by query id and document id; 0 or less is not relevant.
        measures: Their names; results are keyed by them as given here.
        k: How many hits to ask for. By default the deepest cutoff, or 1000 if a measure has none and no cutoff is
            deeper. A measure without cutoff sees no more than these.
        batch: How many queries to search at once.
        name: Of the retriever, for tables and for `compare`.
        progress: Called after each batch with the number of queries in it.

    Returns:
        Means, values per query, the run, and the time spent in searching.

    Raises:
        UnknownName: If a measure is not known.
        InvalidInput: If no query is judged, a judged query has no text, a relevance is not a whole number of at most a
            million, `k` is smaller than a cutoff, or the retriever does not give one ranking for each query.

    Example:
        >>> def search(texts, k):
        ...     return [Ranking.of(["d1", "d2"], [2.0, 1.0], k) for _ in texts]
        >>> found = evaluate(search, {"q1": "why?", "q2": "how?"}, {"q1": {"d2": 1}, "q2": {"d3": 1}}, ["RR@10", "R@2"])
        >>> found.means
        {'RR@10': 0.25, 'R@2': 0.5}
    """
    parsed = _parsed(measures)
    depth = max((measure.cutoff or 1 for measure in parsed), default=1)
    if k is not None and k < depth:
        raise InvalidInput(
            f"k is {k}, and the measures look at the first {depth} hits; give a k of {depth} or more, or none"
        )
    if batch < 1:
        raise InvalidInput(f"batch is {batch}; 1 or more is needed")
    judged = judgements_of(queries, qrels)
    ask = search.search if isinstance(search, Retriever) else search
    if not callable(ask):
        raise InvalidInput(
            f"{type(search).__name__} was given; a retriever, or a function of query texts and k, is needed"
        )
    run, seconds = _run(ask, {query: queries[query] for query in judged}, k or depth_of(parsed), batch, progress)
    return _measured(parsed, measures, judged, run, seconds, name, len(queries) - len(judged))


def measure_run(
    run: Mapping[str, Ranking],
    qrels: Qrels,
    measures: Sequence[str] = DEFAULT_MEASURES,
    *,
    seconds: float = 0.0,
    name: str = "",
) -> Evaluation:
    """Measure rankings that were made before, such as those of a run file.

    Every query that `qrels` judges counts: one that the run does not have found nothing, and has 0.

    Args:
        run: Rankings by query id. Queries that are not judged are left out and counted as `unjudged`.
        qrels: Relevance by query id and document id.
        measures: As in `evaluate`.
        seconds: What the searching took, if it is known.
        name: Of the run.

    Raises:
        UnknownName: If a measure is not known.
        InvalidInput: If the run has queries and none of them is judged, or a relevance cannot be used.

    Example:
        >>> found = measure_run({"q1": Ranking.of(["d1"], [1.0])}, {"q1": {"d1": 1}, "q2": {"d2": 1}}, ["R@10"])
        >>> found.means
        {'R@10': 0.5}
    """
    parsed = _parsed(measures)
    asked = {query: query for query, found in qrels.items() if found}
    if run and not any(query in asked for query in run):
        raise InvalidInput(
            f"none of the {len(run)} queries of the run {name!r} is judged, such as {next(iter(run), '')!r}; the "
            f"judgements are of {len(asked)} queries, such as {next(iter(asked), '')!r}: use files that belong together"
        )
    judged = judgements_of(asked, qrels)
    empty = Ranking((), np.empty(0, np.float32))
    found = {query: run.get(query, empty) for query in judged}
    return _measured(parsed, measures, judged, found, seconds, name, sum(query not in judged for query in run))


def _parsed(measures: Sequence[str]) -> list[Measure]:
    if isinstance(measures, str) or not measures:
        raise InvalidInput(f"measures were given as {measures!r}; a list of one or more names is needed")
    return [parse_measure(measure) for measure in measures]


def _measured(
    parsed: Sequence[Measure],
    measures: Sequence[str],
    judged: Mapping[str, Mapping[str, int]],
    run: dict[str, Ranking],
    seconds: float,
    name: str,
    unjudged: int,
) -> Evaluation:
    per_query = dict(zip(measures, values(parsed, judged, run), strict=True))
    return Evaluation(
        name=name,
        measures=tuple(measures),
        means={measure: fsum(found.values()) / len(found) for measure, found in per_query.items()},
        per_query=per_query,
        run=run,
        seconds=seconds,
        unjudged=unjudged,
    )


def judgements_of(queries: Mapping[str, str], qrels: Qrels) -> dict[str, Mapping[str, int]]:
    """The judgements of queries that have any, in the order of the queries.

    Raises:
        InvalidInput: If no query is judged, a judged query has no text, or a relevance cannot be used.
    """
    without_text = [query for query, found in qrels.items() if found and query not in queries]
    if without_text:
        raise InvalidInput(
            f"{len(without_text)} judged queries have no text: {', '.join(map(repr, without_text[:5]))}"
            f"{', …' if len(without_text) > 5 else ''}; add their texts, or leave their judgements out"
        )
    judged = {query: qrels[query] for query in queries if qrels.get(query)}
    if not judged:
        raise InvalidInput(
            f"none of the {len(queries)} queries is judged; give judgements of these queries ({len(qrels)} were given)"
        )
    for query, found in judged.items():
        for document, relevance in found.items():
            if not isinstance(relevance, Integral) or abs(int(relevance)) > HIGHEST_RELEVANCE:
                raise InvalidInput(
                    f"the relevance of document {document!r} to query {query!r} is {relevance!r}; a whole number "
                    f"of at most {HIGHEST_RELEVANCE} is needed"
                )
    return judged


def _run(
    ask: Search, queries: dict[str, str], k: int, batch: int, progress: Callable[[int], None] | None
) -> tuple[dict[str, Ranking], float]:
    """The rankings by query id, and the seconds that they took."""
    ids, texts = list(queries), list(queries.values())
    run: dict[str, Ranking] = {}
    seconds = 0.0
    for start in range(0, len(ids), batch):
        asked = texts[start : start + batch]
        began = perf_counter()
        rankings = list(ask(asked, k))
        seconds += perf_counter() - began
        if len(rankings) != len(asked) or not all(isinstance(ranking, Ranking) for ranking in rankings):
            kinds = sorted({type(ranking).__name__ for ranking in rankings})
            raise InvalidInput(
                f"{len(asked)} queries were answered with {len(rankings)} values of type {', '.join(kinds) or 'none'}; "
                "`search` must give one Ranking for each query"
            )
        run.update(zip(ids[start : start + batch], (ranking.head(k) for ranking in rankings), strict=True))
        if progress is not None:
            progress(len(asked))
    return run, seconds

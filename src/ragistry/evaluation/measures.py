"""Names of measures, and their values for a ranking; ir_measures does the arithmetic."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import InvalidInput, UnknownName
from ..types import Ranking

_NAMES = {
    "ndcg": "nDCG",
    "r": "R",
    "recall": "R",
    "rr": "RR",
    "mrr": "RR",
    "ap": "AP",
    "map": "AP",
    "p": "P",
    "precision": "P",
    "success": "Success",
    "hit": "Success",
    "judged": "Judged",
    "rprec": "Rprec",
    "bpref": "Bpref",
}
_CUTOFF_NEEDED = frozenset({"R", "P", "Success", "Judged"})
_CUTOFF_REFUSED = frozenset({"Rprec", "Bpref"})
_LEVEL_REFUSED = frozenset({"nDCG", "Judged"})
_KNOWN = "nDCG@10, R@100 (recall), RR@10 (MRR), AP (MAP), P@5 (precision), Success@5 (hit), Judged@10, Rprec, Bpref"
_FORM = re.compile(r"([a-z]+)(?:\(rel=([1-9]\d{0,5})\))?(?:@([1-9]\d{0,8}))?", re.IGNORECASE)

FULL_DEPTH = 1000
"""How deep a ranking goes for measures without cutoff: TREC's custom."""

HIGHEST_RELEVANCE = 1_000_000
"""trec_eval keeps a table as long as the highest relevance, and crashes where that is past all memory."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A measure with its parameters; `str` gives its name in ir_measures."""

    family: str
    level: int | None  # None is 1, the level that counts by default
    cutoff: int | None

    def __str__(self) -> str:
        level = "" if self.level is None else f"(rel={self.level})"
        return f"{self.family}{level}" + ("" if self.cutoff is None else f"@{self.cutoff}")


def parse_measure(name: str) -> Measure:
    """The measure with a name, in any case and with the aliases that people use.

    Args:
        name: Such as `nDCG@10`, `recall@100`, `MRR@10`, `MAP`, or `AP(rel=2)`, for which documents of relevance 2 and
            above count.

    Raises:
        UnknownName: If no measure has that name; the message lists those that are known.
        InvalidInput: If the measure needs a cutoff or level that is not given, or takes none.

    Example:
        >>> str(parse_measure("mrr@10"))
        'RR@10'
    """
    form = _FORM.fullmatch(name.replace(" ", "")) if isinstance(name, str) else None
    family = _NAMES.get(form[1].lower()) if form else None
    if form is None or family is None:
        raise UnknownName(
            f"no measure is called {name!r}; known are {_KNOWN}, with any cutoff from 1, and levels as in AP(rel=2)"
        )
    if family in _CUTOFF_NEEDED and not form[3]:
        raise InvalidInput(f"the measure {name!r} has no cutoff; it needs one, as in {family}@10")
    if family in _CUTOFF_REFUSED and form[3]:
        raise InvalidInput(f"the measure {name!r} has a cutoff, and {family} takes none; leave @{form[3]} out")
    if family in _LEVEL_REFUSED and form[2]:
        raise InvalidInput(f"the measure {name!r} has a level, and {family} takes none; leave (rel={form[2]}) out")
    level = int(form[2] or 1)
    return Measure(family, level if level > 1 else None, int(form[3]) if form[3] else None)


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Names of measures, each measure once, as it is first called.

    Example:
        >>> distinct(["nDCG@10", "R@5", "ndcg@10"])
        ('nDCG@10', 'R@5')
    """
    found: dict[str, str] = {}
    for name in names:
        found.setdefault(str(parse_measure(name)), name)
    return tuple(found.values())


def depth_of(measures: Sequence[Measure]) -> int:
    """How many hits the measures need."""
    return max(FULL_DEPTH if measure.cutoff is None else measure.cutoff for measure in measures)


def values(
    measures: Sequence[Measure], qrels: Mapping[str, Mapping[str, int]], run: Mapping[str, Ranking]
) -> list[dict[str, float]]:
    """The value of each measure for each query of `qrels`; a query without hits has 0.

    Documents and queries go to trec_eval as numbers, in place of ids, which it cuts at a NUL; scores as falling whole
    numbers, in place of ours, whose ties it would order its own way.
    """
    import ir_measures

    queries = list(qrels)
    judged: dict[str, dict[str, int]] = {}
    found: dict[str, dict[str, float]] = {}
    for number, query in enumerate(queries):
        numbers: dict[str, str] = {}
        for id in (*run[query].ids, *qrels[query]):
            numbers.setdefault(id, str(len(numbers)))
        judged[str(number)] = {numbers[id]: int(relevance) for id, relevance in qrels[query].items()}
        if run[query].ids:
            hits = len(run[query])
            found[str(number)] = {numbers[id]: float(hits - rank) for rank, id in enumerate(run[query].ids)}
    result = {measure: dict.fromkeys(queries, 0.0) for measure in measures}
    asked = {}
    for measure in result:
        theirs = getattr(ir_measures, measure.family)
        theirs = theirs if measure.level is None else theirs(rel=measure.level)
        asked[theirs if measure.cutoff is None else theirs @ measure.cutoff] = measure
    if found:
        for metric in ir_measures.iter_calc(list(asked), judged, found):
            result[asked[metric.measure]][queries[int(metric.query_id)]] = float(metric.value)
    return [dict(result[measure]) for measure in measures]

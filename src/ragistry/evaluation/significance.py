"""Is one retriever better than another, or was it luck? Paired tests over the queries of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInput, UnknownName
from .evaluate import Evaluation
from .measures import parse_measure

Differences = npt.NDArray[np.float64]
Interval: TypeAlias = tuple[float, float]

_CELLS = 4_000_000
"""Signs drawn at once: bounds the memory to some tens of megabytes."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One retriever against another on the same queries.

    Args:
        measure: What was compared.
        baseline: Name of the first evaluation.
        name: Name of the second.
        difference: Mean of the second less mean of the first.
        p: Two-sided probability of a difference this large if the two were the same.
        corrected: `p` corrected by Holm's method for all comparisons made together.
        n: How many queries.
    """

    measure: str
    baseline: str
    name: str
    difference: float
    p: float
    corrected: float
    n: int

    def significant(self, alpha: float = 0.05) -> bool:
        """Whether the corrected probability is at most `alpha`."""
        return self.corrected <= alpha


def compare(
    evaluations: Sequence[Evaluation],
    measure: str,
    baseline: str | None = None,
    *,
    test: Literal["randomisation", "t"] = "randomisation",
    samples: int = 100_000,
    seed: int = 0,
) -> list[Comparison]:
    """Test the differences between evaluations over the same queries.

    The randomisation test (Fisher 1935; for retrieval Smucker, Allan and Carterette, CIKM 2007) asks how often the mean
    difference is at least as large when the two values of each query are swapped at random. All ways of swapping are
    tried if there are no more than `samples`; otherwise `samples` are drawn. Holm's step-down method (Scandinavian
    Journal of Statistics, 1979) corrects for the number of comparisons in this call.

    Args:
        evaluations: Two or more, each with a name of its own.
        measure: One that all of them have, by any of its names.
        baseline: Name of the one to compare all others with; by default every pair is compared.
        test: "randomisation", or "t" for Student's paired t-test.
        samples: How many random swaps to draw; the smallest p is 1 / (samples + 1).
        seed: Of the random swaps; the same seed gives the same p.

    Returns:
        One comparison for each pair, in the order given.

    Raises:
        UnknownName: If the baseline or the measure is not among those evaluated.
        InvalidInput: If there are fewer than two evaluations, two share a name, their queries differ, or `test` or
            `samples` cannot be used.

    Example:
        >>> from ragistry import Ranking
        >>> from ragistry.evaluation.evaluate import evaluate
        >>> queries, qrels = {str(i): "?" for i in range(8)}, {str(i): {"d": 1} for i in range(8)}
        >>> hit, miss = Ranking.of(["d"], [1.0]), Ranking.of(["e"], [1.0])
        >>> good = evaluate(lambda texts, k: [hit] * len(texts), queries, qrels, ["P@1"], name="good")
        >>> bad = evaluate(lambda texts, k: [miss] * len(texts), queries, qrels, ["P@1"], name="bad")
        >>> [found] = compare([bad, good], "P@1")
        >>> found.difference, found.p, found.significant()
        (1.0, 0.0078125, True)
    """
    if test not in ("randomisation", "t"):
        raise InvalidInput(f'test is {test!r}; "randomisation" or "t" is needed')
    if samples < 1:
        raise InvalidInput(f"samples is {samples}; 1 or more is needed")
    pairs = _pairs(evaluations, baseline)
    found: list[tuple[str, str, Differences, float]] = []
    for first, second in pairs:
        differences = _differences(first, second, measure)
        p = _t_test(differences) if test == "t" else _randomisation_test(differences, samples, seed)
        found.append((first.name, second.name, differences, p))
    corrected = holm([p for *_, p in found])
    return [
        Comparison(measure, first, second, float(differences.mean()), p, adjusted, len(differences))
        for (first, second, differences, p), adjusted in zip(found, corrected, strict=True)
    ]


def interval(values: Sequence[float], *, level: float = 0.95, samples: int = 10_000, seed: int = 0) -> Interval | None:
    """Between which bounds the mean over all queries of this kind lies, by the bootstrap over those that were asked.

    The percentile method (Efron 1979) as scipy has it: queries are drawn again with replacement.

    Args:
        values: One for each query.
        level: How often an interval made this way holds the true mean.
        samples: How many times to draw.
        seed: Of the draws.

    Returns:
        Lower and upper bound, or None for fewer than two queries, which say nothing of others.

    Example:
        >>> interval([1.0, 1.0]), interval([0.5])
        ((1.0, 1.0), None)
    """
    from scipy import stats

    if len(values) < 2:
        return None
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    size = max(1, _CELLS // len(values))
    generator = np.random.default_rng(seed)
    found = stats.bootstrap(
        (values,), np.mean, confidence_level=level, n_resamples=samples, batch=size, method="percentile", rng=generator
    ).confidence_interval
    return float(found.low), float(found.high)


def randomisation_test(differences: npt.ArrayLike, *, samples: int = 100_000, seed: int = 0) -> float:
    """The two-sided p of paired differences, one for each query, as `compare` finds it.

    Example:
        >>> randomisation_test([1.0] * 8)
        0.0078125
    """
    return _randomisation_test(np.asarray(differences, np.float64), samples, seed)


def holm(ps: Sequence[float]) -> list[float]:
    """Probabilities corrected for their number by Holm's step-down method (1979), in the order given.

    Example:
        >>> holm([0.25, 0.125, 0.75])
        [0.5, 0.375, 0.75]
    """
    order = np.argsort(ps, kind="stable")
    stepped = np.asarray(ps, dtype=np.float64)[order] * np.arange(len(ps), 0, -1)
    corrected = np.empty(len(ps))
    corrected[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return [float(p) for p in corrected]


def _pairs(evaluations: Sequence[Evaluation], baseline: str | None) -> list[tuple[Evaluation, Evaluation]]:
    """The pairs to compare, baseline first."""
    by_name = {evaluation.name: evaluation for evaluation in evaluations}
    names = ", ".join(map(repr, by_name))
    if len(evaluations) < 2:
        raise InvalidInput(f"{len(evaluations)} evaluations were given; two or more are needed for a comparison")
    if len(by_name) < len(evaluations):
        raise InvalidInput(f"{len(evaluations)} evaluations share the names {names}; give `evaluate` a name for each")
    if baseline is None:
        return list(combinations(evaluations, 2))
    if baseline not in by_name:
        raise UnknownName(f"no evaluation is called {baseline!r}; there are {names}")
    return [(by_name[baseline], evaluation) for evaluation in evaluations if evaluation.name != baseline]


def _differences(first: Evaluation, second: Evaluation, measure: str) -> Differences:
    """Second less first for each query: float64 [queries]."""
    ours, theirs = _values(first, measure), _values(second, measure)
    if ours.keys() != theirs.keys():
        alone = sorted(ours.keys() ^ theirs.keys())
        raise InvalidInput(
            f"{first.name!r} and {second.name!r} were evaluated on different queries: {len(alone)} are in only one of "
            f"them, such as {alone[0]!r}; evaluate both on the same queries"
        )
    return np.array([theirs[query] - value for query, value in ours.items()])


def _values(evaluation: Evaluation, measure: str) -> dict[str, float]:
    asked = str(parse_measure(measure))
    for name, found in evaluation.per_query.items():
        if str(parse_measure(name)) == asked:
            return found
    raise UnknownName(f"{evaluation.name!r} was not evaluated by {measure!r}; it has {', '.join(evaluation.measures)}")


def _t_test(differences: Differences) -> float:
    """Two-sided p of Student's paired t-test; without spread it is all or nothing."""
    from scipy import stats

    if len(differences) < 2:
        raise InvalidInput(f"{len(differences)} query was evaluated; the t-test needs two or more")
    if np.ptp(differences) == 0:
        return 0.0 if differences.any() else 1.0
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def _randomisation_test(differences: Differences, samples: int, seed: int) -> float:
    """Two-sided p of swapping the values of queries, exact where all ways can be tried."""
    moved = differences[differences != 0]  # swapping equal values changes nothing
    if not len(moved):
        return 1.0
    observed = abs(moved.sum())
    reached = observed - 1e-12 * np.abs(moved).sum()  # sums in another order differ in their last digits
    exact = len(moved) < 63 and 2 ** len(moved) <= samples
    total = 2 ** len(moved) if exact else samples
    size = max(1, _CELLS // len(moved))
    generator = np.random.default_rng(seed)
    count = 0
    for start in range(0, total, size):
        rows = min(size, total - start)
        if exact:
            swapped = (np.arange(start, start + rows)[:, None] >> np.arange(len(moved))) & 1
        else:
            packed = generator.integers(0, 256, (rows, -(-len(moved) // 8)), dtype=np.uint8)
            swapped = np.unpackbits(packed, axis=1, count=len(moved)).astype(np.int64)
        sums = moved.sum() - 2 * (swapped @ moved)
        count += int((np.abs(sums) >= reached).sum())
    # A sampled p counts the observed ways too, so that it is never 0 (Davison and Hinkley 1997).
    return count / total if exact else (count + 1) / (total + 1)

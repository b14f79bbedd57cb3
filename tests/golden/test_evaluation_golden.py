"""Values from elsewhere: worked by hand, scipy 1.17.1, and trec_eval through pytrec_eval-terrier 0.5.11."""

import math

import numpy as np
import pytest
import pytrec_eval
from scipy import stats

from ragistry.evaluation import Evaluation, compare, evaluate
from ragistry.evaluation.significance import holm
from ragistry.types import Ranking


def evaluation(name: str, values: np.ndarray) -> Evaluation:
    per_query = {str(query): float(value) for query, value in enumerate(values)}
    run = {query: Ranking((), np.empty(0, np.float32)) for query in per_query}
    return Evaluation(name, ("AP",), {"AP": float(values.mean())}, {"AP": per_query}, run, 1.0)


def test_measures_worked_by_hand() -> None:
    ranking = Ranking.of(["a", "b", "c", "d"], [4.0, 3.0, 2.0, 1.0])
    qrels = {"q": {"b": 2, "d": 1, "e": 3, "a": 0}}
    measures = ["nDCG@3", "nDCG@10", "R@3", "P@4", "RR@10", "MAP", "Success@1", "Rprec", "Judged@4"]
    found = evaluate(lambda texts, k: [ranking], {"q": "?"}, qrels, measures).means
    ideal = 3 + 2 / math.log2(3) + 1 / 2
    assert found == pytest.approx(
        {
            "nDCG@3": (2 / math.log2(3)) / ideal,
            "nDCG@10": (2 / math.log2(3) + 1 / math.log2(5)) / ideal,
            "R@3": 1 / 3,
            "P@4": 2 / 4,
            "RR@10": 1 / 2,
            "MAP": (1 / 2 + 2 / 4) / 3,
            "Success@1": 0.0,
            "Rprec": 1 / 3,
            "Judged@4": 3 / 4,
        }
    )


def test_measures_are_those_of_trec_eval() -> None:
    random = np.random.default_rng(7)
    ids = [f"d{number}" for number in range(300)]
    qrels, run = {}, {}
    for query in map(str, range(40)):
        qrels[query] = {ids[i]: int(random.integers(0, 4)) for i in random.choice(300, 25, replace=False)}
        found = random.choice(300, int(random.integers(1, 250)), replace=False)
        run[query] = Ranking.of([ids[i] for i in found], random.permutation(len(found)))
    names = {"nDCG@10": "ndcg_cut_10", "R@100": "recall_100", "MAP": "map", "MRR": "recip_rank", "P@5": "P_5"}
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, set(names.values()))
    expected = evaluator.evaluate({query: dict(ranking) for query, ranking in run.items()})
    ours = evaluate(lambda texts, k: [run[text] for text in texts], {query: query for query in run}, qrels, list(names))
    for name, theirs in names.items():
        assert ours.per_query[name] == pytest.approx({query: values[theirs] for query, values in expected.items()})


@pytest.mark.parametrize("n", [1, 2, 7, 12])
@pytest.mark.parametrize("grain", [1, 4, 1000])
def test_the_exact_randomisation_test_is_scipys(n: int, grain: int) -> None:
    first, second = np.random.default_rng(n).integers(0, grain + 1, (2, n)) / grain
    [found] = compare([evaluation("a", first), evaluation("b", second)], "AP")
    if n == 1:
        assert found.p == 1.0  # scipy refuses one observation; its two signs are equally far from nought
        return
    expected = stats.permutation_test(
        (second - first,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    assert found.difference == pytest.approx(expected.statistic)
    assert found.p == pytest.approx(expected.pvalue, abs=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.03, 0.06])
def test_the_sampled_randomisation_test_is_near_scipys(shift: float) -> None:
    random = np.random.default_rng(3)
    first = random.random(120)
    second = np.clip(first + random.normal(shift, 0.2, 120), 0, 1)
    [found] = compare([evaluation("a", first), evaluation("b", second)], "AP", samples=20_000)
    expected = stats.permutation_test(
        (second - first,), np.mean, permutation_type="samples", n_resamples=20_000, vectorized=True, rng=random
    ).pvalue
    error = math.sqrt(2 * expected * (1 - expected) / 20_000)
    assert abs(found.p - expected) < 5 * error + 1e-4


def test_the_exact_test_worked_by_hand() -> None:
    # Differences 3, 2, -1: of the 8 sums, |6|, |4|, |0|, |2| twice each, those of at least 4 are four.
    [found] = compare([evaluation("a", np.array([0, 0, 0.1])), evaluation("b", np.array([0.3, 0.2, 0]))], "AP")
    assert found.p == 4 / 8


def test_a_tiny_p_is_never_nought() -> None:
    [found] = compare([evaluation("a", np.zeros(50)), evaluation("b", np.ones(50))], "AP", samples=999)
    assert found.p == 1 / 1000


def test_the_t_test_is_scipys() -> None:
    first, second = np.random.default_rng(5).random((2, 30))
    [found] = compare([evaluation("a", first), evaluation("b", second)], "AP", test="t")
    assert found.p == pytest.approx(stats.ttest_rel(second, first).pvalue)


def test_holm_worked_by_hand() -> None:
    # 0.005 * 4, 0.01 * 3, 0.03 * 2, then 0.04 * 1, raised to the 0.06 before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == [1.0, 1.0]
    assert holm([0.2, 0.2, 0.2]) == pytest.approx([0.6] * 3)
    assert holm([]) == []


def test_comparisons_made_together_are_corrected_together() -> None:
    random = np.random.default_rng(11)
    base = random.random(10)
    runs = [evaluation(name, np.clip(base + random.normal(0.1, 0.2, 10), 0, 1)) for name in "abc"]
    found = compare([evaluation("base", base), *runs], "AP", "base")
    assert [one.corrected for one in found] == pytest.approx(holm([one.p for one in found]))
    assert any(one.corrected > one.p for one in found)

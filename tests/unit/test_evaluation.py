"""Evaluation: every judged query counts, names have aliases, ties keep their order, differences are tested."""

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragistry.errors import InvalidInput, UnknownName
from ragistry.evaluation import Evaluation, compare, evaluate
from ragistry.types import Among, Ranking

QUICK = settings(max_examples=60, deadline=None)
IDS = [f"d{number}" for number in range(12)]


class Fixed:
    """A retriever that answers each text with the ids known for it, best first."""

    def __init__(self, answers: dict[str, Sequence[str]]) -> None:
        self.answers = answers
        self.asked: list[tuple[int, int]] = []

    def search(self, queries: Sequence[str], k: int = 10, *, among: Among = None) -> list[Ranking]:
        self.asked.append((len(queries), k))
        return [ranked(self.answers.get(text, ())[:k]) for text in queries]


def ranked(ids: Sequence[str]) -> Ranking:
    return Ranking(tuple(ids), np.arange(len(ids), 0, -1, dtype=np.float32))


def reference(measure: str, ids: Sequence[str], judged: dict[str, int]) -> float:
    """The measures as textbooks give them."""
    name, _, at = measure.partition("@")
    relevant = sum(relevance > 0 for relevance in judged.values())
    gains = [max(judged.get(id, 0), 0) for id in (ids[: int(at)] if at else ids)]
    if name == "nDCG":
        best = sorted((max(relevance, 0) for relevance in judged.values()), reverse=True)[: int(at)]
        ideal = sum(gain / math.log2(rank + 1) for rank, gain in enumerate(best, 1))
        return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, 1)) / ideal if ideal else 0.0
    hits = [rank for rank, gain in enumerate(gains, 1) if gain]
    return {
        "R": len(hits) / relevant if relevant else 0.0,
        "P": len(hits) / int(at or 1),
        "Success": float(bool(hits)),
        "RR": 1 / hits[0] if hits else 0.0,
        "AP": sum(found / rank for found, rank in enumerate(hits, 1)) / relevant if relevant else 0.0,
    }[name]


@QUICK
@given(
    st.dictionaries(
        st.sampled_from("abcdef"),
        st.tuples(
            st.permutations(IDS).flatmap(lambda ids: st.integers(0, 12).map(lambda n: ids[:n])),
            st.dictionaries(st.sampled_from(IDS), st.integers(-1, 3), min_size=1),
        ),
        min_size=1,
    )
)
def test_values_are_the_textbooks(data: dict[str, tuple[list[str], dict[str, int]]]) -> None:
    measures = ["nDCG@10", "nDCG@3", "R@5", "P@5", "Success@2", "RR@10", "RR", "AP", "AP@4"]
    retriever = Fixed({query: ids for query, (ids, _) in data.items()})
    found = evaluate(
        retriever, {query: query for query in data}, {q: judged for q, (_, judged) in data.items()}, measures
    )
    for measure in measures:
        expected = {query: reference(measure, ids, judged) for query, (ids, judged) in data.items()}
        assert found.per_query[measure] == pytest.approx(expected, abs=1e-9)
        assert found.means[measure] == pytest.approx(sum(expected.values()) / len(data), abs=1e-9)


def test_a_query_without_hits_counts_as_nought() -> None:
    qrels = {"q1": {"d1": 1}, "q2": {"d1": 1}, "q3": {"d1": 0}}
    found = evaluate(Fixed({"one": ["d1"]}), {"q1": "one", "q2": "two", "q3": "three"}, qrels)
    assert found.means == dict.fromkeys(("nDCG@10", "R@100", "MRR@10", "MAP"), pytest.approx(1 / 3))
    assert found.per_query["MAP"] == {"q1": 1.0, "q2": 0.0, "q3": 0.0}
    assert list(found.run) == ["q1", "q2", "q3"]


def test_nothing_found_at_all() -> None:
    assert evaluate(Fixed({}), {"q": "?"}, {"q": {"d": 1}}).means["nDCG@10"] == 0.0


def test_queries_without_judgements_are_left_out_and_counted() -> None:
    retriever = Fixed({"one": ["d1"], "two": ["d1"]})
    found = evaluate(retriever, {"q1": "one", "q2": "two", "q3": "three"}, {"q1": {"d1": 1}, "q3": {}})
    assert found.unjudged == 2
    assert list(found.run) == ["q1"]
    assert retriever.asked == [(1, 1000)]


def test_judged_queries_without_text_are_refused() -> None:
    qrels = {f"q{number}": {"d1": 1} for number in range(9)}
    with pytest.raises(InvalidInput, match=r"8 judged queries have no text: 'q1', .*'q5', …"):
        evaluate(Fixed({}), {"q0": "one"}, qrels)


@pytest.mark.parametrize("qrels", [{}, {"q": {}}])
def test_no_judged_query_is_refused(qrels: dict[str, dict[str, int]]) -> None:
    with pytest.raises(InvalidInput, match="none of the 1 queries is judged"):
        evaluate(Fixed({}), {"q": "one"}, qrels)


def test_ties_keep_the_order_of_the_ranking() -> None:
    tied = Ranking(("a", "b", "c"), np.ones(3, np.float32))
    for id, rank in (("a", 1), ("b", 2), ("c", 3)):
        found = evaluate(lambda texts, k: [tied], {"q": "?"}, {"q": {id: 1}}, ["RR", "RR@10", "AP", f"P@{rank}"])
        assert list(found.means.values()) == pytest.approx([1 / rank] * 4)


@pytest.mark.parametrize(("id", "other"), [("a\0x", "a\0y"), ("a b", "a"), ("é", "e\u0301"), ("🦆", "🦢")])
def test_ids_are_told_apart(id: str, other: str) -> None:
    found = evaluate(Fixed({"?": [other]}), {"q\0": "?"}, {"q\0": {id: 1}}, ["R@10", "AP", "RR@10", "nDCG@10"])
    assert set(found.means.values()) == {0.0}


@pytest.mark.parametrize(
    ("asked", "same"),
    [
        ("ndcg@10", "nDCG@10"),
        ("NDCG@10", "nDCG@10"),
        ("recall@2", "R@2"),
        ("mrr", "RR"),
        ("MRR@10", "RR@10"),
        ("map", "AP"),
        ("precision@2", "P@2"),
        ("hit@2", "Success@2"),
        ("rprec", "Rprec"),
        ("AP(REL=1)", "AP"),
    ],
)
def test_measures_have_aliases_and_keep_the_name_asked(asked: str, same: str) -> None:
    found = evaluate(Fixed({"?": ["x", "d1"]}), {"q": "?"}, {"q": {"d1": 1, "d2": 2}}, [asked, same])
    assert found.measures == (asked, same)
    assert found.means[asked] == found.means[same] > 0


def test_a_level_makes_lower_grades_irrelevant() -> None:
    found = evaluate(
        Fixed({"?": ["d1", "d2"]}), {"q": "?"}, {"q": {"d1": 1, "d2": 2}}, ["AP(rel=2)", "RR(rel=2)@10", "AP"]
    )
    assert found.means == pytest.approx({"AP(rel=2)": 0.5, "RR(rel=2)@10": 0.5, "AP": 1.0})


@pytest.mark.parametrize("name", ["bleu", "nDCG@", "nDCG@0", "nDCG@-1", "nDCG@ten", "", "R@10@20", "nDCG(dcg=x)@10", 7])
def test_an_unknown_measure_lists_the_known(name: str) -> None:
    with pytest.raises(UnknownName, match=r"nDCG@10, R@100 .*Bpref"):
        evaluate(Fixed({}), {"q": "?"}, {"q": {"d": 1}}, [name])


@pytest.mark.parametrize("name", ["R", "P", "success", "Judged", "Rprec@5", "nDCG(rel=2)@5"])
def test_a_measure_with_the_wrong_parameters_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match=r"it needs one|takes none"):
        evaluate(Fixed({}), {"q": "?"}, {"q": {"d": 1}}, [name])


@pytest.mark.parametrize(
    ("measures", "k", "asked"),
    [
        (["nDCG@10", "P@3"], None, 10),
        (["R@50"], 70, 70),
        (["MAP"], None, 1000),
        (["MAP", "R@2000"], None, 2000),
        (["MAP"], 5, 5),
    ],
)
def test_the_retriever_is_asked_as_deep_as_needed(measures: list[str], k: int | None, asked: int) -> None:
    retriever = Fixed({})
    evaluate(retriever, {"q": "?"}, {"q": {"d": 1}}, measures, k=k)
    assert retriever.asked == [(1, asked)]


def test_hits_past_k_are_cut() -> None:
    found = evaluate(lambda texts, k: [ranked(IDS)], {"q": "?"}, {"q": {"d9": 1}}, ["MAP"], k=3)
    assert found.run["q"].ids == ("d0", "d1", "d2")
    assert found.means["MAP"] == 0.0


@QUICK
@given(st.integers(1, 9), st.integers(1, 12))
def test_batches_do_not_matter(batch: int, count: int) -> None:
    queries = {f"q{number}": IDS[number] for number in range(count)}
    qrels = {query: {IDS[3]: 1} for query in queries}
    retriever, done = Fixed({id: IDS[number:] for number, id in enumerate(IDS)}), list[int]()
    found = evaluate(retriever, queries, qrels, batch=batch, progress=done.append)
    assert found.per_query == evaluate(retriever, queries, qrels).per_query
    assert sum(done) == count
    assert set(done[:-1]) <= {batch}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"k": 5}, "k is 5, and the measures look at the first 100 hits"),
        ({"batch": 0}, "batch is 0"),
        ({"measures": []}, "one or more names"),
        ({"measures": "MAP"}, "one or more names"),
        ({"search": 7}, "int was given; a retriever"),
        ({"search": lambda texts, k: []}, "1 queries were answered with 0 values of type none"),
        ({"search": lambda texts, k: [["d1"]]}, "1 values of type list; `search` must give one Ranking"),
        ({"qrels": {"q": {"d": 0.5}}}, "the relevance of document 'd' to query 'q' is 0.5; a whole number"),
        ({"qrels": {"q": {"d": 2**40}}}, "is 1099511627776; a whole number of at most 1000000"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(changes: dict[str, object], told: str) -> None:
    given: dict[str, Any] = {"search": Fixed({}), "queries": {"q": "?"}, "qrels": {"q": {"d": 1}}, **changes}
    with pytest.raises(InvalidInput, match=told):
        evaluate(**given)


@pytest.mark.parametrize("relevance", [np.int64(1), np.uint8(1), True])
def test_whole_numbers_of_any_type_are_judgements(relevance: Any) -> None:
    found = evaluate(Fixed({"?": ["d"]}), {"q": "?"}, {"q": {"d": relevance}})
    assert set(found.means.values()) == {1.0}


def test_an_evaluation_as_json() -> None:
    found = evaluate(Fixed({"?": ["d"]}), {"q": "?", "r": "!"}, {"q": {"d": 1}}, ["P@1"], name="fixed")
    told = json.loads(json.dumps(found.to_json()))
    assert (told["name"], told["queries"], told["unjudged"]) == ("fixed", 1, 1)
    assert (told["means"], told["per_query"]) == ({"P@1": 1.0}, {"P@1": {"q": 1.0}})
    assert replace(found, seconds=0.5).queries_per_second == 2.0


def test_importing_stays_light() -> None:
    code = "import sys, ragistry.evaluation; print(*{'ir_measures', 'scipy.stats', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""


def evaluation(name: str, values: Sequence[float], measure: str = "AP") -> Evaluation:
    per_query = {str(query): float(value) for query, value in enumerate(values)}
    run = {query: ranked([]) for query in per_query}
    return Evaluation(name, (measure,), {measure: float(np.mean(values))}, {measure: per_query}, run, 1.0)


def test_comparisons_are_of_every_pair_or_with_a_baseline() -> None:
    runs = [evaluation(name, values) for name, values in [("a", [0, 0, 1]), ("b", [1, 1, 1]), ("c", [0, 1, 1])]]
    assert [(found.baseline, found.name) for found in compare(runs, "map")] == [("a", "b"), ("a", "c"), ("b", "c")]
    with_b = compare(runs, "AP", "b")
    assert [(found.baseline, found.name, found.n) for found in with_b] == [("b", "a", 3), ("b", "c", 3)]
    assert [found.difference for found in with_b] == pytest.approx([-2 / 3, -1 / 3])


def test_equal_runs_do_not_differ() -> None:
    runs = [evaluation("a", [0.1, 0.5, 0.7]), evaluation("b", [0.1, 0.5, 0.7])]
    for found in (*compare(runs, "AP"), *compare(runs, "AP", test="t")):
        assert (found.difference, found.p, found.corrected, found.significant()) == (0.0, 1.0, 1.0, False)


@QUICK
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=12), st.randoms())
def test_a_p_depends_on_neither_direction_nor_order(values: list[tuple[float, float]], random: object) -> None:
    first, second = (evaluation(name, side) for name, side in zip("ab", zip(*values, strict=True), strict=True))
    [there], [back] = compare([first, second], "AP"), compare([second, first], "AP")
    assert there.p == back.p
    assert there.difference == -back.difference
    assert 2.0 ** -len(values) <= there.p <= there.corrected <= 1


def test_the_same_seed_gives_the_same_p() -> None:
    values = np.random.default_rng(0).random((2, 60))
    runs = [evaluation("a", values[0]), evaluation("b", values[1])]
    first, again, other = (compare(runs, "AP", samples=2000, seed=seed)[0].p for seed in (1, 1, 2))
    assert first == again != other


def test_mistakes_in_a_comparison_are_told() -> None:
    a, b = evaluation("a", [0, 1]), evaluation("b", [1, 1])
    with pytest.raises(InvalidInput, match="two or more are needed"):
        compare([a], "AP")
    with pytest.raises(InvalidInput, match="share the names 'a'"):
        compare([a, a], "AP")
    with pytest.raises(InvalidInput, match="different queries: 1 are in only one of them, such as '2'"):
        compare([a, evaluation("c", [1, 1, 1])], "AP")
    with pytest.raises(UnknownName, match="no evaluation is called 'z'; there are 'a', 'b'"):
        compare([a, b], "AP", "z")
    with pytest.raises(UnknownName, match="'a' was not evaluated by 'RR@10'; it has AP"):
        compare([a, b], "RR@10")
    with pytest.raises(InvalidInput, match="samples is 0"):
        compare([a, b], "AP", samples=0)
    with pytest.raises(InvalidInput, match='"randomisation" or "t"'):
        compare([a, b], "AP", test=cast(Any, "sign"))
    with pytest.raises(InvalidInput, match="1 query was evaluated"):
        compare([evaluation("a", [0]), evaluation("b", [1])], "AP", test="t")

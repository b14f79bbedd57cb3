"""LIMIT: our own sets have the released one's structure, words find everything, few dimensions do not."""

import os
from collections import Counter
from math import comb
from pathlib import Path

import numpy as np
import pytest
import Stemmer

from ragistry import Document, create
from ragistry.errors import InvalidInput, UnknownName
from ragistry.evaluation import evaluate, load
from ragistry.evaluation.attributes import ATTRIBUTES, PERSONS, attribute, person
from ragistry.evaluation.limit import PATTERNS, graph_density, limit, query_strength
from ragistry.evaluation.tasks import Task
from ragistry.text import Analyzer

RELEASED = Path(os.environ.get("RAGISTRY_DATA") or "../shared/data") / "limit-small"


@pytest.fixture(scope="module")
def dense() -> Task:
    return limit()


def test_attributes_are_told_apart_by_any_search() -> None:
    words = [attribute(number) for number in range(ATTRIBUTES + 40_000)]
    assert len(set(words)) == len(words) > 50_000
    assert len(set(Stemmer.Stemmer("english").stemWords(words))) == len(words)
    assert all(Analyzer().terms(word) == Analyzer().terms(f"Who likes {word}?")[2:] for word in words[::997])
    assert all(word.isascii() and word.isalpha() and word.islower() for word in words)
    assert attribute(10**9) != attribute(10**9 + 1)


def test_names_are_told_apart() -> None:
    names = [person(number) for number in range(PERSONS + 20_000)]
    assert len(set(names)) == len(names) > 80_000
    words = set(Analyzer().terms(" ".join(names[: PERSONS + 100])))
    assert words.isdisjoint(Analyzer().terms(" ".join(map(attribute, range(ATTRIBUTES)))))


def test_dense_is_as_small_as_can_be(dense: Task) -> None:
    assert (dense.name, dense.measures, dense.uniqueness) == ("limit-dense", ("R@2", "R@10", "R@20"), None)
    assert len(dense.documents) == 46
    assert comb(45, 2) < 1000 <= comb(46, 2)
    assert {document.text.count(",") for document in dense.documents} == {43}  # 45 attributes, the last after "and"
    degrees = Counter(id for found in dense.qrels.values() for id in found)
    assert (min(degrees.values()), max(degrees.values())) == (37, 45)
    assert dense.notes == ("Made up, by the pattern 'dense': 1,000 queries, each answered by 2 of 46 documents.",)


@pytest.mark.parametrize(
    ("pattern", "relevant", "documents"),
    [("dense", 3, 12), ("random", 2, 200), ("cycle", 2, 200), ("disjoint", 3, 600)],
)
def test_patterns_have_their_sizes(pattern: str, relevant: int, documents: int) -> None:
    task = limit(pattern, queries=200, relevant=relevant)
    assert len(task.documents) == documents
    assert task.measures == (f"R@{relevant}", "R@10", "R@20")


def test_seeds_draw_anew(dense: Task) -> None:
    assert limit().queries == dense.queries
    assert limit().documents == dense.documents
    assert limit(seed=1).queries != dense.queries


def test_more_documents_answer_nothing() -> None:
    task = limit("cycle", queries=30, documents=80)
    assert len(task.documents) == 80
    assert len({id for found in task.qrels.values() for id in found}) == 30
    places = [row for row, document in enumerate(task.documents) if any(document.id in q for q in task.qrels.values())]
    assert max(places) > 40
    assert "50 more documents answer no query." in task.notes


def test_documents_grow_with_their_queries() -> None:
    task = limit(queries=100, attributes=5)
    assert {document.text.count(",") + 2 for document in task.documents} == {14}
    assert task.notes[1] == "Documents have 14 attributes in place of 5, for one answers 14 queries."


def test_one_attribute_needs_no_list() -> None:
    task = limit("disjoint", queries=2, relevant=1, attributes=1)
    assert task.uniqueness == 1.0
    assert task.documents[0].text.count(" ") == 3
    assert "and" not in task.documents[0].text.split()


def test_densities(dense: Task) -> None:
    density = {pattern: graph_density(limit(pattern).qrels) for pattern in PATTERNS}
    assert density["dense"] == pytest.approx(1000 / comb(46, 2))
    assert density["dense"] > 100 * density["random"]
    assert density["random"] > density["disjoint"] == pytest.approx(1000 / comb(2000, 2))
    assert graph_density(dense.qrels, "queries") == pytest.approx(0.0855, abs=1e-4)
    assert query_strength(dense.qrels) == pytest.approx(28.47, abs=0.01)
    assert query_strength(limit("cycle").qrels) == pytest.approx(2 / 3)
    assert query_strength(limit("disjoint").qrels) == graph_density(limit("disjoint").qrels, "queries") == 0.0


def test_density_and_strength_by_hand() -> None:
    rng = np.random.default_rng(0)
    qrels = {
        str(query): {str(id): int(rng.integers(0, 2)) for id in rng.choice(12, rng.integers(1, 5), replace=False)}
        for query in range(20)
    }
    sets = [found for judged in qrels.values() if (found := {id for id, grade in judged.items() if grade})]
    strength = sum(len(a & b) / len(a | b) for a in sets for b in sets if a is not b) / len(sets)
    assert query_strength(qrels) == pytest.approx(strength)
    shared = sum(bool(a & b) for a in sets for b in sets if a is not b)
    assert graph_density(qrels, "queries") == pytest.approx(shared / (len(sets) * (len(sets) - 1)))
    nodes = sorted(set().union(*sets))
    linked = sum(any({a, b} <= found for found in sets) for a in nodes for b in nodes if a != b)
    assert graph_density(qrels) == pytest.approx(linked / (len(nodes) * (len(nodes) - 1)))


def test_nothing_relevant_has_no_density() -> None:
    assert graph_density({}) == query_strength({}) == graph_density({"q": {"d": 0}}, "queries") == 0.0
    with pytest.raises(InvalidInput, match="'documents' or 'queries' is needed"):
        graph_density({}, "words")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"queries": 1}, "needs 2 or more"),
        ({"queries": 0}, "queries=0; a whole number"),
        ({"relevant": 0}, "relevant=0; a whole number"),
        ({"attributes": 0}, "attributes=0; a whole number"),
        ({"documents": 45}, "documents=45; the pattern 'dense' with 1,000 queries of 2 needs 46"),
    ],
)
def test_sizes_that_cannot_be(settings: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        limit("dense", **settings)


def test_an_unknown_pattern_lists_the_known() -> None:
    with pytest.raises(UnknownName, match="no pattern is called 'star'; there are dense, random, cycle, disjoint"):
        limit("star")


@pytest.mark.parametrize("pattern", sorted(PATTERNS))
def test_words_find_everything(pattern: str) -> None:
    task = limit(pattern)
    assert recall_of_bm25(list(task.documents), task) == 1.0


def test_more_dimensions_find_more(dense: Task) -> None:
    """Random projections of the exact bags of attributes."""
    analyzer = Analyzer()
    terms = sorted({term for document in dense.documents for term in analyzer.terms(document.text)})
    column = {term: number for number, term in enumerate(terms)}
    bags = np.zeros((len(dense.documents), len(terms)))
    for row, document in enumerate(dense.documents):
        bags[row, [column[term] for term in analyzer.terms(document.text)]] = 1
    asked = [column[analyzer.terms(text)[-1]] for text in dense.queries.values()]
    ids = [document.id for document in dense.documents]
    wanted = [{ids.index(id) for id in found} for found in dense.qrels.values()]

    def recall(dimensions: int) -> float:
        found = []
        for seed in range(3):
            projection = np.random.default_rng(seed).standard_normal((len(terms), dimensions))
            scores = projection[asked] @ (bags @ projection).T
            top = np.argsort(-scores, axis=1)[:, :2].tolist()
            found.append(np.mean([len(set(row) & want) / 2 for row, want in zip(top, wanted, strict=True)]))
        return float(np.mean(found))

    recalls = [recall(dimensions) for dimensions in (8, 64, 256, 1024)]
    assert recalls == sorted(recalls)
    assert recalls[0] < 0.2
    assert recalls[-1] > 0.9


@pytest.mark.skipif(not RELEASED.is_dir(), reason="the released set is not there; set RAGISTRY_DATA")
def test_the_released_set_has_the_structure_of_ours(dense: Task) -> None:
    dataset = load(RELEASED)
    test = dataset.split("test")
    assert (len(dataset.documents), len(test.queries)) == (46, 1000)
    assert all(len(found) == 2 for found in test.qrels.values())
    assert len({frozenset(found) for found in test.qrels.values()}) == 1000
    degrees = Counter(id for found in test.qrels.values() for id in found)
    assert (min(degrees.values()), max(degrees.values())) == (37, 45)
    assert sorted(degrees.values()) == sorted(Counter(id for found in dense.qrels.values() for id in found).values())
    assert graph_density(test.qrels) == pytest.approx(graph_density(dense.qrels))
    assert graph_density(test.qrels, "queries") == pytest.approx(graph_density(dense.qrels, "queries"))
    assert query_strength(test.qrels) == pytest.approx(query_strength(dense.qrels))
    task = Task("limit-small", dataset.documents, test.queries, test.qrels, ("R@2",))
    assert recall_of_bm25(dataset.documents, task) >= 0.97
    assert recall_of_bm25(dataset.documents, task, stemmer=None) >= 0.99  # "Rubies" is not Ruby


def recall_of_bm25(documents: list[Document], task: Task, stemmer: str | None = "english") -> float:
    retriever = create("bm25", stemmer=stemmer)
    retriever.add(documents)
    return evaluate(retriever, task.queries, task.qrels, task.measures[:1]).means[task.measures[0]]

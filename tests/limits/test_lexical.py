"""Word-based scores against other implementations and against sums written out by hand."""

from __future__ import annotations

import math
from collections import Counter
from itertools import product
from typing import get_args

import bm25s
import numpy as np
import pytest
from scipy.sparse import csr_array

from ragistry import Analyzer, Document, create
from ragistry.encoders.terms import Terms
from ragistry.indexes.inverted import Inverted
from ragistry.indexes.weighting import BM25, Dirichlet, Impact, JelinekMercer, Variant, Weighting
from ragistry.retrievers.searcher import Searcher

SETTINGS = [(1.2, 0.75), (0.01, 0.5), (2.0, 0.0), (0.9, 1.0), (1.5, 0.4)]
TEXTS = [
    "The sonnet is a poem of fourteen lines, and its lines are of ten syllables each.",
    "A haiku has three lines; a haiku has no rhyme.",
    "Call os.path.join to join the parts of a path, or use pathlib and its Path objects.",
    "The cat sat on the mat. The cat, the cat!",
    "Bread is baked of flour, water, salt and yeast; flour and water alone make flat bread.",
    "",
    "Lines of verse are lines of thought, line upon line.",
]
QUESTIONS = [
    "how many lines has a sonnet",
    "join a path with os.path.join",
    "cat cat mat",
    "flat bread of flour and water",
]
Tokens = list[list[str]]


def random_tokens(seed: int, documents: int = 60, words: int = 40) -> tuple[Tokens, Tokens]:
    """Documents and queries with words as rare and as common as in language; some documents are empty."""
    random = np.random.default_rng(seed)
    chances = 1 / np.arange(1, words + 1)
    chances /= chances.sum()

    def draw(least: int, most: int) -> list[str]:
        return [f"w{i}" for i in random.choice(words, random.integers(least, most), p=chances)]

    return [draw(0, 30) for _ in range(documents)], [draw(1, 6) for _ in range(15)]


def real_tokens() -> tuple[Tokens, Tokens]:
    analyzer = Analyzer()
    return [analyzer.terms(text) for text in TEXTS], [analyzer.terms(question) for question in QUESTIONS]


CORPORA = [random_tokens(0), random_tokens(1, documents=7, words=5), real_tokens()]
corpora = pytest.mark.parametrize(("documents", "queries"), CORPORA, ids=["random", "few and common", "real"])


def searched(weighting: Weighting, documents: Tokens, queries: Tokens) -> list[dict[int, float]]:
    """Scores by document number, for each query."""
    vocabulary = {word: i for i, word in enumerate(sorted({w for tokens in documents + queries for w in tokens}))}

    def counted(tokens: Tokens) -> csr_array:
        rows = np.zeros((len(tokens), len(vocabulary)), np.float32)
        for row, words in zip(rows, tokens, strict=True):
            for word in words:
                row[vocabulary[word]] += 1
        return csr_array(rows)

    index = Inverted(weighting)
    index.add([str(i) for i in range(len(documents))], counted(documents))
    found = index.search(counted(queries), len(documents))
    return [{int(name): score for name, score in ranking} for ranking in found]


@corpora
@pytest.mark.parametrize("variant", get_args(Variant))
def test_bm25_equals_bm25s(variant: Variant, documents: Tokens, queries: Tokens) -> None:
    for (k1, b), delta in product(SETTINGS, (0.5, 1.0)):
        theirs = bm25s.BM25(method=variant, k1=k1, b=b, delta=delta, dtype="float64")
        theirs.index(documents, show_progress=False)
        for query, found in zip(queries, searched(BM25(k1, b, variant, delta), documents, queries), strict=True):
            expected = theirs.get_scores(query)
            sharing = {i for i, words in enumerate(documents) if set(words) & set(query)}
            assert set(found) == sharing
            for number, score in found.items():
                assert score == pytest.approx(expected[number], rel=1e-5, abs=1e-6)


@corpora
def test_bm25_without_k1_is_the_sum_of_rarities(documents: Tokens, queries: Tokens) -> None:
    n = len(documents)
    for query, found in zip(queries, searched(BM25(k1=0.0), documents, queries), strict=True):
        for number, score in found.items():
            holding = [sum(word in words for words in documents) for word in query if word in documents[number]]
            assert score == pytest.approx(sum(math.log(1 + (n - df + 0.5) / (df + 0.5)) for df in holding), rel=1e-5)


@corpora
@pytest.mark.parametrize("mu", [1.0, 50.0, 2500.0])
def test_dirichlet_equals_the_sum_up_to_a_constant(mu: float, documents: Tokens, queries: Tokens) -> None:
    seen = Counter(word for words in documents for word in words)
    total = sum(seen.values())
    for query, found in zip(queries, searched(Dirichlet(mu), documents, queries), strict=True):
        differences = []
        for number, score in found.items():
            counts, length = Counter(documents[number]), len(documents[number])
            # Words that the collection does not hold are left out: their probability is 0.
            chances = [(counts[word], seen[word] / total) for word in query if seen[word]]
            differences.append(score - sum(math.log((f + mu * p) / (length + mu)) for f, p in chances))
        assert differences == pytest.approx([differences[0]] * len(differences), rel=1e-5, abs=1e-5) if found else True


@corpora
@pytest.mark.parametrize("weight", [0.1, 0.5, 0.9])
def test_jelinek_mercer_equals_the_sum_up_to_a_constant(weight: float, documents: Tokens, queries: Tokens) -> None:
    seen = Counter(word for words in documents for word in words)
    total = sum(seen.values())
    for query, found in zip(queries, searched(JelinekMercer(weight), documents, queries), strict=True):
        known = [word for word in query if seen[word]]
        differences = []
        for number, score in found.items():
            counts, length = Counter(documents[number]), len(documents[number])
            chances = [((1 - weight) * counts[word] / length, weight * seen[word] / total) for word in known]
            differences.append(score - sum(math.log(f + p) for f, p in chances))
        assert differences == pytest.approx([differences[0]] * len(differences), rel=1e-5, abs=1e-5) if found else True


@corpora
def test_impact_is_the_dot_product(documents: Tokens, queries: Tokens) -> None:
    for query, found in zip(queries, searched(Impact(), documents, queries), strict=True):
        for number, score in found.items():
            counts = Counter(documents[number])
            assert score == sum(counts[word] for word in query)


@pytest.mark.parametrize("variant", get_args(Variant))
def test_the_registered_retriever_gives_the_same_scores(variant: Variant) -> None:
    documents, queries = real_tokens()
    theirs = bm25s.BM25(method=variant, k1=1.2, b=0.75, delta=0.5, dtype="float64")
    theirs.index(documents, show_progress=False)
    ours = create("bm25", variant=variant)
    assert isinstance(ours, Searcher)
    ours.add([Document(str(i), text) for i, text in enumerate(TEXTS)])
    for query, ranking in zip(queries, ours.search(QUESTIONS, 10), strict=True):
        expected = theirs.get_scores(query)
        assert len(ranking) > 0
        for name, score in ranking:
            assert score == pytest.approx(expected[int(name)], rel=1e-5)


def test_terms_are_counted_as_the_analyzer_gives_them() -> None:
    analyzer = Analyzer()
    for text, row in zip(TEXTS, Terms(analyzer).encode(TEXTS, "document"), strict=True):
        assert sorted(row.data.tolist()) == sorted(map(float, Counter(analyzer.terms(text)).values()))

"""Time of one query after another, beside bm25s, and how it grows from 100,000 documents to a million.

    python benchmarks/lexical_query.py [--rounds 5] [--queries 300] [--large 1000000]

First on real text: from tokens (bm25s) or a vector (ragistry) to the ten best, and from the query's text. Each query's time
is the median of all rounds but the first, which is reported by itself: ragistry weighs a word when it is first asked for.
Then on made-up collections of two sizes, with words of Zipf's frequencies: queries of three words that are in equally many
documents of both, of rare words, of frequent words, and of both; and of words that are as frequent as in the documents.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import bm25s
import numpy as np
import Stemmer
from common import interleaved, report
from passages import passages, questions
from scipy.sparse import csr_array, vstack

from ragistry import Analyzer
from ragistry.encoders.terms import Terms
from ragistry.indexes.inverted import Inverted
from ragistry.indexes.weighting import BM25

K1, B, K = 1.2, 0.75, 10
SMALL = 100_000
WORDS, LENGTH = 500_000, 40  # of the made-up collections: different words, and words in a document
PLANTED, PLANTED_IN = 300, 200  # words that are in equally many documents, whatever the size
RANKS = {"rare words": (3_000, 15_000), "frequent words": (30, 300)}
MIXED = (("rare words", 1), ("frequent words", 2))
LONG = (6, 12, 30)


def main() -> None:
    """Measure, print and write results/lexical_query.json and results/lexical_growth.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--large", type=int, default=1_000_000)
    options = parser.parse_args()
    beside(options.queries, options.rounds)
    growth(options.queries, options.rounds, options.large)


def beside(count: int, rounds: int) -> None:
    """Real text, beside bm25s."""
    texts, origin = passages(SMALL)
    queries = questions(count)
    encoder, index = Terms(Analyzer()), Inverted(BM25(K1, B))
    index.add([str(i) for i in range(len(texts))], encoder.encode(texts, "document"))
    stemmer = Stemmer.Stemmer("english", 0)
    peer = bm25s.BM25(method="lucene", k1=K1, b=B, backend="numba")
    peer.index(bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False), show_progress=False)

    def tokens(query: str) -> list[list[str]]:
        return bm25s.tokenize([query], stopwords="en", stemmer=stemmer, show_progress=False, return_ids=False)

    def ask(query: list[list[str]], threads: int) -> Any:
        return peer.retrieve(query, k=K, show_progress=False, n_threads=threads)

    vectors = [encoder.encode([query], "query") for query in queries]
    split = [tokens(query) for query in queries]
    from_tokens = measured(
        {
            "ragistry": [lambda v=v: index.search(v, K) for v in vectors],
            "bm25s, numba, 1 thread": [lambda t=t: ask(t, 1) for t in split],
            "bm25s, numba, all threads": [lambda t=t: ask(t, -1) for t in split],
        },
        rounds,
    )
    from_text = measured(
        {
            "ragistry": [lambda q=q: index.search(encoder.encode([q], "query"), K) for q in queries],
            "bm25s, numba, 1 thread": [lambda q=q: ask(tokens(q), 1) for q in queries],
            "bm25s, numba, all threads": [lambda q=q: ask(tokens(q), -1) for q in queries],
        },
        rounds,
    )
    rows = []
    for given, found in (("tokens", from_tokens), ("text", from_text)):
        best = min(time.p50 for name, time in found.items() if name.startswith("bm25s"))
        for name, time in found.items():
            row = {"from": given, "engine": name, "p50 ms": time.p50, "p95 ms": time.p95, "first p50 ms": time.first}
            rows.append(row | {"x best bm25s": round(best / time.p50, 2)})
    notes = (
        f"{origin}; {len(queries)} queries, the best {K}; medians of {rounds} interleaved rounds for each query. Ratios are "
        "of p50, to the quicker number of threads of bm25s"
    )
    report("lexical_query", rows, title=f"Lexical queries, {len(texts):,} documents", notes=notes)


def growth(count: int, rounds: int, large: int) -> None:
    """Made-up collections of two sizes."""
    draw = np.random.default_rng(3)
    asked = {"planted words": draw.integers(WORDS, WORDS + PLANTED, (count, 3))}
    asked |= {kind: draw.integers(*ranks, (count, 3)) for kind, ranks in RANKS.items()}
    asked["a rare and two frequent words"] = np.hstack([draw.integers(*RANKS[kind], (count, n)) for kind, n in MIXED])
    asked |= {f"{n} words as in documents": words_as_found(draw, (count, n)) for n in LONG}
    runs: dict[str, list[Callable[[], Any]]] = {}
    documents: dict[str, list[str]] = {kind: [] for kind in asked}
    for size in (SMALL, large):
        rows = collection(size)
        frequencies = np.bincount(rows.indices, minlength=rows.shape[1])
        index, peer = Inverted(BM25(K1, B)), engine(rows)
        index.add([str(i) for i in range(size)], rows)
        for kind, words in asked.items():
            documents[kind].append(f"{np.median(frequencies[words]):,.0f}")
            vectors, ids = [vector(some) for some in words], [[some] for some in words.tolist()]
            runs[f"ragistry, {kind}, {size}"] = [lambda v=v, i=index: i.search(v, K) for v in vectors]
            runs[f"bm25s, {kind}, {size}"] = [
                lambda t=t, p=peer: p.retrieve(t, k=K, show_progress=False, n_threads=1) for t in ids
            ]
    found = measured(runs, rounds)
    table = []
    for kind, name in product(asked, ("ragistry", "bm25s")):
        few, many = (found[f"{name}, {kind}, {size}"] for size in (SMALL, large))
        row = {"query of": kind, "engine": name, "documents with a word": " -> ".join(documents[kind])}
        row |= {f"p50 ms, {SMALL:,}": few.p50, f"p50 ms, {large:,}": many.p50, f"p95 ms, {large:,}": many.p95}
        peer_p50 = found[f"bm25s, {kind}, {large}"].p50
        table.append(row | {"growth": round(many.p50 / few.p50, 2), "x bm25s": round(peer_p50 / many.p50, 2)})
    notes = (
        f"{LENGTH} words a document, of {WORDS:,} with Zipf's frequencies (seeded); {count} queries a row, of 3 words "
        f"unless a number is given; medians of {rounds} interleaved rounds for each query; growth for {large / SMALL:g} "
        "times the documents"
    )
    report("lexical_growth", table, title="Lexical queries, growth with the collection", notes=notes)


class Time(NamedTuple):
    """Milliseconds: p50 and p95 over queries, and p50 of the first time each is asked."""

    p50: float
    p95: float
    first: float


def measured(runs: Mapping[str, Sequence[Callable[[], Any]]], rounds: int) -> dict[str, Time]:
    """Time of one call after another: of each call, the first round and the median of the other ones."""
    seconds: dict[str, list[list[float]]] = {name: [] for name in runs}

    def run(name: str) -> None:
        calls = (interleaved({name: call}, 1)[name][0] for call in runs[name])
        seconds[name].append(list(calls))

    interleaved({name: partial(run, name) for name in runs}, rounds + 1)
    found = {}
    for name, (first, *others) in seconds.items():
        usual = [statistics.median(one) for one in zip(*others, strict=True)]
        of = *np.percentile(usual, [50, 95]), np.median(first)
        found[name] = Time(*(round(1000 * float(value), 3) for value in of))
    return found


def collection(size: int) -> csr_array:
    """Term counts of so many made-up documents."""
    return vstack(list(_chunks(size)), format="csr")


def _chunks(size: int, step: int = 100_000) -> Iterator[csr_array]:
    draw = np.random.default_rng(4)
    planted_in = np.concatenate([draw.choice(size, PLANTED_IN, replace=False) for _ in range(PLANTED)])
    planted = np.repeat(WORDS + np.arange(PLANTED), PLANTED_IN)
    for first in range(0, size, step):
        count = min(step, size - first)
        owners = np.repeat(np.arange(count), LENGTH)
        words = words_as_found(draw, (count * LENGTH,))
        mine = (planted_in >= first) & (planted_in < first + count)
        owners, words = np.concatenate((owners, planted_in[mine] - first)), np.concatenate((words, planted[mine]))
        ones = np.ones(len(words), np.float32)
        yield csr_array((ones, (owners, words)), shape=(count, WORDS + PLANTED))


def words_as_found(draw: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Words of Zipf's frequencies."""
    share = np.cumsum(1 / np.arange(1.0, WORDS + 1))
    return np.searchsorted(share, draw.random(shape) * share[-1])


def vector(words: np.ndarray) -> csr_array:
    """A query as `Terms` would give it."""
    columns, counts = np.unique(words, return_counts=True)
    return csr_array((counts.astype(np.float32), columns, [0, len(columns)]), shape=(1, WORDS + PLANTED))


def engine(rows: csr_array) -> bm25s.BM25:
    """bm25s over the same counts, its weights worked out here: its own index takes lists of Python numbers."""
    columns = rows.tocsc()
    size, lengths = rows.shape[0], rows.sum(axis=1)
    documents = np.diff(columns.indptr)
    rarity = np.log(1 + (size - documents + 0.5) / (documents + 0.5))
    penalty = K1 * (1 - B + B * lengths / lengths.mean())
    weights = np.repeat(rarity, documents) * columns.data / (columns.data + penalty[columns.indices])
    peer = bm25s.BM25(method="lucene", k1=K1, b=B, backend="numba")
    peer.scores = {
        "data": weights.astype(np.float32),
        "indices": columns.indices.astype(np.int32),
        "indptr": columns.indptr.astype(np.int64),
        "num_docs": size,
    }
    peer.vocab_dict = {str(word): word for word in range(rows.shape[1])}
    peer.unique_token_ids_set = set(range(rows.shape[1]))
    peer.nonoccurrence_array = None
    return peer


if __name__ == "__main__":
    main()

"""Text to searchable index, beside bm25s, and that both rank alike.

    python benchmarks/lexical_build.py [--documents 100000] [--rounds 5] [--queries 500]

Both sides drop English stop words and stem with Snowball's English algorithm, each with its own tokenizer, and answer one
query at the end. bm25s runs with both of its backends, and with a stemmer that keeps no cache, which is faster.
Rankings are compared on equal terms: bm25s is given the analyzer's.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

import bm25s
import numpy as np
import Stemmer
from common import interleaved, median_ratio, report
from passages import passages, questions

from ragistry import Analyzer
from ragistry.encoders.terms import Terms
from ragistry.indexes.inverted import Inverted
from ragistry.indexes.weighting import BM25

K1, B = 1.2, 0.75
BATCH = 4096  # as many as a collection of this kind commits at once
TOLERANCE = 1e-5


def main() -> None:
    """Measure, print and write results/lexical_build.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--queries", type=int, default=500, help="whose rankings are compared")
    options = parser.parse_args()
    texts, origin = passages(options.documents)
    queries = questions(options.queries)

    query = queries[0]
    build(texts[:100], 10, query), build_peer(texts[:100], "numba", query)  # compile
    seconds = interleaved(
        {
            "ragistry, one add": lambda: build(texts, len(texts), query),
            f"ragistry, batches of {BATCH}": lambda: build(texts, BATCH, query),
            "bm25s, numpy": lambda: build_peer(texts, "numpy", query),
            "bm25s, numba": lambda: build_peer(texts, "numba", query),
        },
        options.rounds,
    )
    best = min(
        (name for name in seconds if name.startswith("bm25s")), key=lambda name: statistics.median(seconds[name])
    )
    rows = [
        {
            "engine": name,
            "seconds": round(statistics.median(times), 2),
            "documents/s": round(len(texts) / statistics.median(times)),
            f"x {best}": round(median_ratio(seconds, best, name), 2),
        }
        for name, times in seconds.items()
    ]
    compared, difference = compare(texts, queries)
    notes = (
        f"{origin}, {sum(map(len, texts)) / 1e6:.0f} million characters. Text to first answer, medians of {options.rounds} "
        f"interleaved rounds, ratios within a round. On equal terms, the top 100 of {compared} queries are equal up to ties "
        f"within {TOLERANCE:g}; the largest relative difference of scores is {difference:.1e}"
    )
    report("lexical_build", rows, title=f"Lexical index, {len(texts):,} documents", notes=notes)


def build(texts: Sequence[str], batch: int, query: str) -> Inverted:
    """An index of texts, added in batches, that has answered a query."""
    encoder, index = Terms(Analyzer()), Inverted(BM25(K1, B))
    for first in range(0, len(texts), batch):
        some = texts[first : first + batch]
        index.add([str(first + i) for i in range(len(some))], encoder.encode(some, "document"))
    index.search(encoder.encode([query], "query"), 10)
    return index


def build_peer(texts: Sequence[str], backend: str, query: str) -> None:
    """The same with bm25s and its own tokenizer."""
    engine = bm25s.BM25(method="lucene", k1=K1, b=B, backend=backend)
    engine.index(tokens(texts), show_progress=False)
    engine.retrieve(tokens([query]), k=10, show_progress=False)


def tokens(texts: Sequence[str]) -> bm25s.tokenization.Tokenized:
    """What bm25s makes of texts."""
    return bm25s.tokenize(texts, stopwords="en", stemmer=Stemmer.Stemmer("english", 0), show_progress=False)


def compare(texts: Sequence[str], queries: Sequence[str]) -> tuple[int, float]:
    """How many queries were compared, and the largest relative difference of scores; ends the script if it is too large."""
    analyzer = Analyzer()
    keys, offsets = analyzer.keys(texts)
    vocabulary, terms = np.unique(keys, return_inverse=True)
    peer = bm25s.BM25(method="lucene", k1=K1, b=B)
    bounds = zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
    peer.index(
        ([terms[a:b].tolist() for a, b in bounds], {str(key): i for i, key in enumerate(vocabulary.tolist())}),
        show_progress=False,
    )
    index, encoder = build(texts, BATCH, queries[0]), Terms(analyzer)
    compared, largest = 0, 0.0
    for query in queries:
        asked = analyzer.keys([query])[0]
        known = np.searchsorted(vocabulary, asked[np.isin(asked, vocabulary)])
        if not len(known):
            continue
        expected = peer.get_scores_from_ids(known)
        ranking = index.search(encoder.encode([query], "query"), 100)[0]
        best = np.sort(expected[expected > 0])[::-1][:100]
        if len(ranking) != len(best):
            raise SystemExit(f"{query!r}: {len(ranking)} documents were found, bm25s finds {len(best)}")
        # The score of each document found is right, and so is the one of each rank: nothing better was left out.
        for theirs in (expected[np.array(ranking.ids, np.int64)], best):
            largest = max(largest, float(np.max(np.abs(theirs / ranking.scores - 1), initial=0.0)))
        compared += 1
    if largest > TOLERANCE:
        raise SystemExit(f"scores differ from those of bm25s by {largest:.1e}")
    return compared, largest


if __name__ == "__main__":
    main()

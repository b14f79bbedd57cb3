"""What `Collection.search` adds to its parts: the encoder and the index, called directly.

    python benchmarks/overhead.py [--documents 100000] [--dense 2000] [--queries 200] [--rounds 5]

The rest is looking for newer commits and fetching ten documents, with metadata and checksums, from disk. The dense
retriever is measured over fewer documents (0 for none), which take time to encode, and without encoding queries: it
remembers the vectors of recent ones.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import interleaved, report
from passages import passages, questions

from ragistry import Collection, Document, create

K = 10


def main() -> None:
    """Measure, print and write results/overhead.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--dense", type=int, default=2000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    texts, origin = passages(options.documents)
    queries = questions(options.queries)
    rows = [measure("bm25", texts, queries, options.rounds)]
    if options.dense:
        rows.append(measure("dense", texts[: options.dense], queries, options.rounds))
    notes = (
        f"{origin}; {len(queries)} queries, the best {K}. For each query the medians of {options.rounds} interleaved rounds "
        "and their difference, all after a first round; then p50 over queries"
    )
    report("overhead", rows, title="What Collection.search adds", notes=notes)


def measure(name: str, texts: Sequence[str], queries: Sequence[str], rounds: int) -> dict[str, object]:
    """A row of the table."""
    documents = (Document(str(i), text, metadata={"number": i}) for i, text in enumerate(texts))
    with (
        tempfile.TemporaryDirectory() as directory,
        Collection.create(Path(directory) / name, create(name)) as collection,
    ):
        collection.add(documents)
        searcher: Any = collection.retriever()
        times = []
        for query in queries:
            vector = searcher.encoder.encode([query], "query")
            runs = {
                "parts": partial(parts, searcher, query, vector if searcher.encoder.kind == "dense" else None),
                "whole": partial(collection.search, query, K),
            }
            interleaved(runs, 1)
            found = interleaved(runs, rounds)
            times.append([1000 * statistics.median(found[which]) for which in ("parts", "whole")])
    direct, whole = np.array(times).T
    return {
        "retriever": name,
        "documents": len(texts),
        "parts p50 ms": round(float(np.median(direct)), 3),
        "Collection.search p50 ms": round(float(np.median(whole)), 3),
        "added p50 ms": round(float(np.median(whole - direct)), 3),
        "added p95 ms": round(float(np.percentile(whole - direct, 95)), 3),
    }


def parts(searcher: Any, query: str, vector: Any) -> None:
    """The encoder, unless the vector is known, and the index."""
    searcher.index.search(searcher.encoder.encode([query], "query") if vector is None else vector, K)


if __name__ == "__main__":
    main()

"""Late interaction: the best ten of many documents by MaxSim, all scored or by candidates, beside numpy.

    python benchmarks/maxsim.py [--sizes 10000 100000] [--tokens 32] [--dimensions 128] [--queries 20] [--rounds 3]

Documents are made: tokens are words, most of them of the document's topic (60 of 5,000 words for each of a topic per 200
documents), turned towards the topic and by noise. A query is made like a document. `numpy` is the loop of the definition,
einsum over one document's float32 tokens after another; of the index, `all` scores all documents and `auto` candidates. The
index is saved and loaded, memory-mapped, as a user's would be. In a round, every way answers all queries, the first way
changing from round to round; the time of a query is its median over rounds, and p50 and p95 are over queries. `recall@10` is
against numpy.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from common import interleaved, report

from ragistry.compiled import ready
from ragistry.indexes.maxsim import MaxSim
from ragistry.indexes.precision import Precision
from ragistry.storage import ArrayFiles
from ragistry.types import Floats, Ints, MultiVectors

K = 10
PRECISIONS: tuple[Precision, ...] = ("fp16", "int8")


def main() -> None:
    """Measure, print and write results/maxsim.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000], help="how many documents")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--dimensions", type=int, default=128)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rows, built = [], []
    for size in options.sizes:
        documents, queries = made(size, options.queries, options.tokens, options.dimensions)
        ways = {"numpy": partial(loop, documents)}
        held = {"numpy": documents.values.nbytes / size}
        with tempfile.TemporaryDirectory() as folder:
            for precision in PRECISIONS:
                start = time.perf_counter()
                index = MaxSim(precision)
                index.add([str(number) for number in range(size)], documents)
                state = index.save(ArrayFiles(Path(folder, precision)))
                seconds = time.perf_counter() - start
                files = ArrayFiles(Path(folder, precision))
                stored = sum(path.stat().st_size for path in Path(folder, precision).iterdir()) / size
                for name, depth in (("all", None), ("auto", "auto")):
                    index = MaxSim(precision, depth=depth)
                    index.load(state, files)
                    ways[f"{precision}, {name}"] = partial(ours, index)
                    held[f"{precision}, {name}"] = stored
                built.append(f"{size:,} x {precision} in {seconds:.0f} s (recall measured as {index.recall})")
            ready()
            rows += [{"documents": f"{size:,}", **row} for row in measure(ways, queries, options.rounds, held)]
    asked = f"{options.queries} queries of {options.tokens} tokens; {options.rounds} interleaved rounds"
    notes = f"{asked}. Built: {'; '.join(built)}"
    report("maxsim", rows, title=f"MaxSim, best {K}, {options.tokens} x {options.dimensions} a document", notes=notes)


def measure(
    ways: Mapping[str, Callable[[Floats], set[int]]], queries: MultiVectors, rounds: int, held: Mapping[str, float]
) -> list[dict[str, object]]:
    """A row for each way."""
    times: dict[str, list[list[float]]] = {name: [] for name in ways}
    found: dict[str, list[set[int]]] = {}

    def ask(name: str) -> None:
        seconds, found[name] = [], []
        for i in range(len(queries)):
            start = time.perf_counter()
            hits = ways[name](queries[i])
            seconds.append(1000 * (time.perf_counter() - start))
            found[name].append(hits)
        times[name].append(seconds)

    interleaved({name: partial(ask, name) for name in ways}, rounds + 1)
    each = {name: np.median(some[1:], axis=0) for name, some in times.items()}  # the first round fills caches
    return [
        {
            "way": name,
            "recall@10": round(
                statistics.mean(len(a & b) / K for a, b in zip(found[name], found["numpy"], strict=True)), 4
            ),
            "p50 ms": round(float(np.median(taken)), 2),
            "p95 ms": round(float(np.percentile(taken, 95)), 2),
            "x numpy": round(float(np.median(each["numpy"]) / np.median(taken)), 1),
            "bytes a document": round(held[name]),
        }
        for name, taken in each.items()
    ]


def loop(documents: MultiVectors, query: Floats) -> set[int]:
    """The definition."""
    scores = [np.einsum("qd,td->qt", query, documents[i]).max(axis=1).sum() for i in range(len(documents))]
    return set(np.argsort(scores)[-K:].tolist())


def ours(index: MaxSim, query: Floats) -> set[int]:
    """The index's answer."""
    return set(map(int, index.search(MultiVectors(query, np.array([0, len(query)])), K)[0].ids))


def made(count: int, asked: int, tokens: int, dimensions: int) -> tuple[MultiVectors, MultiVectors]:
    """Documents and queries, of vectors of length 1."""
    rng = np.random.default_rng(3)
    words = unit(rng.standard_normal((5000, dimensions)))
    topics = unit(rng.standard_normal((max(1, count // 200), dimensions)))
    vocabulary = rng.integers(0, len(words), (len(topics), 60))

    def texts(about: Ints) -> MultiVectors:
        values = np.empty((len(about) * tokens, dimensions), np.float32)
        for first in range(0, len(about), 1000):
            some = np.repeat(about[first : first + 1000], tokens)
            word = vocabulary[some, rng.integers(0, vocabulary.shape[1], len(some))]
            word = np.where(rng.random(len(some)) < 0.3, rng.integers(0, len(words), len(some)), word)
            noise = unit(rng.standard_normal((len(some), dimensions), np.float32))
            values[first * tokens : first * tokens + len(some)] = unit(words[word] + 0.5 * topics[some] + 0.7 * noise)
        return MultiVectors(values, np.arange(0, len(values) + 1, tokens))

    return texts(rng.integers(0, len(topics), count)), texts(rng.integers(0, len(topics), asked))


def unit(vectors: np.ndarray) -> Floats:
    """Of length 1."""
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


if __name__ == "__main__":
    main()

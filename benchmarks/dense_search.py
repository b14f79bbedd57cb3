"""The nearest ten of many vectors: the default index beside faiss Flat and other ways, all in one run.

    python benchmarks/dense_search.py [--vectors 100000] [--real 6000] [--queries 40] [--rounds 7]

Vectors are those of MiniLM: of real passages, and further ones between two of these, with noise, as encoding so many would
take long (without the model, of random directions around common ones). They lie closer together than real ones would, which
is harder. Queries are people's questions, asked one by one. In a round, every index answers all of them, the first index
changing from round to round; the time of a query is its median over rounds, and p50 and p95 are over queries. faiss is given
one thread, as two that wait for each other on a busy machine take several times as long.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial

import faiss
import numpy as np
from common import interleaved, report
from passages import passages, questions

from ragistry.errors import RagistryError
from ragistry.indexes.faiss import Faiss
from ragistry.types import Floats

K = 10
FLAT, AUTO = "faiss Flat", "ragistry auto"


def main() -> None:
    """Measure, print and write results/dense_search.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--real", type=int, default=6000, help="of them, of real passages")
    parser.add_argument("--queries", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    vectors, queries, origin = embedded(options.vectors, options.real, options.queries)
    faiss.omp_set_num_threads(1)

    ids = [str(number) for number in range(len(vectors))]
    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(vectors)
    exact, auto = Faiss("Flat"), Faiss("auto")
    build = {}
    for name, index in (("ragistry Flat", exact), (AUTO, auto)):
        start = time.perf_counter()
        index.add(ids, vectors)
        index.search(queries[:1], K)
        build[name] = time.perf_counter() - start

    def ours(index: Faiss, among: frozenset[str] | None) -> Callable[[Floats], set[int]]:
        return lambda query: set(map(int, index.search(query, K, among=among)[0].ids))

    def theirs(mask: np.ndarray | None) -> Callable[[Floats], set[int]]:
        bits = None if mask is None else faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
        parameters = None if mask is None else faiss.SearchParameters(sel=bits)
        return lambda query: set(flat.search(query, K, params=parameters)[1][0].tolist())

    rows = []
    for share in (1.0, 0.2, 0.01):
        mask = None if share == 1 else np.random.default_rng(4).random(len(vectors)) < share
        among = None if mask is None else frozenset(str(number) for number in np.flatnonzero(mask).tolist())
        ways = {FLAT: theirs(mask), "ragistry Flat": ours(exact, among), AUTO: ours(auto, among)}
        rows += [{"allowed": f"{share:.0%}", **row} for row in measure(ways, queries, options.rounds)]
    notes = (
        f"{origin}; {len(queries)} queries, the best {K}; {options.rounds} interleaved rounds. `auto` was built in "
        f"{build[AUTO]:.1f} s and measured its own recall as {auto.recall}. Filters were asked with before"
    )
    report("dense_search", rows, title=f"Exact nearest {K} of {len(vectors):,} x {vectors.shape[1]}", notes=notes)


def measure(ways: Mapping[str, Callable[[Floats], set[int]]], queries: Floats, rounds: int) -> list[dict[str, object]]:
    """A row for each way."""
    times: dict[str, list[list[float]]] = {name: [] for name in ways}
    found: dict[str, list[set[int]]] = {}

    def ask(name: str) -> None:
        seconds, found[name] = [], []
        for query in queries:
            start = time.perf_counter()
            hits = ways[name](query[None])
            seconds.append(1000 * (time.perf_counter() - start))
            found[name].append(hits)
        times[name].append(seconds)

    interleaved({name: partial(ask, name) for name in ways}, rounds + 1)
    each = {name: np.median(some[1:], axis=0) for name, some in times.items()}  # the first round fills caches
    return [
        {
            "index": name,
            "recall@10": round(
                statistics.mean(len(a & b) / K for a, b in zip(found[name], found[FLAT], strict=True)), 5
            ),
            "p50 ms": round(float(np.median(taken)), 3),
            "p95 ms": round(float(np.percentile(taken, 95)), 3),
            "x faiss Flat": round(float(np.median(each[FLAT]) / np.median(taken)), 1),
        }
        for name, taken in each.items()
    ]


def embedded(count: int, real: int, asked: int) -> tuple[Floats, Floats, str]:
    """Vectors, queries, and a sentence that says where they come from."""
    rng = np.random.default_rng(3)
    texts, origin = passages(real)
    try:
        from ragistry.encoders.named import encoder

        model = encoder("all-MiniLM-L6-v2")
        known = np.concatenate([model.encode(texts[i : i + 512], "document") for i in range(0, len(texts), 512)])
        queries = np.asarray(model.encode(questions(asked), "query"), np.float32)
    except RagistryError:
        origin = "random directions around 200 common ones"
        around = rng.standard_normal((200, 384))
        known = unit(around[rng.integers(0, 200, real)] + rng.standard_normal((real, 384)))
        queries = unit(around[rng.integers(0, 200, asked)] + rng.standard_normal((asked, 384)))
    made = max(count - len(known), 0)
    first, second = rng.integers(0, len(known), (2, made))
    share, noise = rng.uniform(0.5, 1, (made, 1)), rng.standard_normal((made, known.shape[1]))
    between = unit(share * known[first] + (1 - share) * known[second] + 0.3 / known.shape[1] ** 0.5 * noise)
    vectors = np.concatenate([known, between])[:count]
    return np.ascontiguousarray(vectors, np.float32), queries, f"vectors of {origin}, {made:,} more made between them"


def unit(vectors: np.ndarray) -> Floats:
    """Of length 1."""
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


if __name__ == "__main__":
    main()

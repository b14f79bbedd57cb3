"""The nearest ten of many vectors: the default index beside faiss Flat, LanceDB and other ways, all in one run.

    python benchmarks/dense_search.py [--vectors 100000] [--real 6000] [--queries 40] [--rounds 7]

For the vectors see `vectors.py`. Queries are people's questions, asked one by one. In a round, every index answers all of
them, the first index changing from round to round; the time of a query is its median over rounds, and p50 and p95 are over
queries. faiss is given one thread, as two that wait for each other on a busy machine take several times as long. LanceDB is
a process of its own, which times itself; it scans, as it does by default, and finds what is allowed in a column with a
bitmap index.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import faiss
import numpy as np
from common import report
from peers import here, in_turn, started, versions
from vectors import embedded

from ragistry.indexes.faiss import Faiss

K = 10
FLAT, AUTO, LANCE = "faiss Flat", "ragistry auto", "LanceDB"
SHARES = (1.0, 0.2, 0.01)


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
    draw = np.random.default_rng(4)
    masks = {f"part_{share * 100:.0f}": draw.random(len(vectors)) < share for share in SHARES if share < 1}

    rows = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        arrays = masks | {"vectors": vectors, "queries": queries}
        files = {name: str(folder / f"{name}.npy") for name in arrays}
        for name, array in arrays.items():
            np.save(files[name], array)
        workers = started(stack, [(LANCE, "with_lancedb", "lancedb")])
        for worker in workers.values():
            worker(
                "load",
                folder=str(folder),
                vectors=files["vectors"],
                masks={name: files[name] for name in masks},
                queries=files["queries"],
            )
        for share, mask in zip(SHARES, (None, *masks), strict=True):
            print(f"{share:.0%} allowed ...", flush=True)
            allowed = None if mask is None else masks[mask]
            among = None if allowed is None else frozenset(str(number) for number in np.flatnonzero(allowed).tolist())
            engines = {
                FLAT: here(theirs(flat, queries, allowed)),
                "ragistry Flat": here(ours(exact, queries, among)),
                AUTO: here(ours(auto, queries, among)),
            }
            for name, worker in workers.items():
                engines[name] = lambda number, w=worker, m=mask: w("search", number=number, k=K, mask=m)
            found = in_turn(engines, [{"number": i} for i in range(len(queries))], options.rounds + 1)
            rows += [{"allowed": f"{share:.0%}", **row} for row in table(found)]
    notes = (
        f"{origin}; {len(queries)} queries, the best {K}; {options.rounds} interleaved rounds. `auto` was built in "
        f"{build[AUTO]:.1f} s and measured its own recall as {auto.recall}. Filters were asked with before"
    )
    title = f"Exact nearest {K} of {len(vectors):,} x {vectors.shape[1]}"
    report("dense_search", rows, title=title, notes=notes, versions=versions(workers.values()))


def ours(index: Faiss, queries: np.ndarray, among: frozenset[str] | None) -> Callable[[int], list[int]]:
    """A search of ours for the query of a number."""
    return lambda number: [int(id) for id in index.search(queries[number : number + 1], K, among=among)[0].ids]


def theirs(index: Any, queries: np.ndarray, mask: np.ndarray | None) -> Callable[[int], list[int]]:
    """The same of faiss, with a selector for a mask."""
    bits = None if mask is None else faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
    parameters = None if mask is None else faiss.SearchParameters(sel=bits)
    return lambda number: index.search(queries[number : number + 1], K, params=parameters)[1][0].tolist()


def table(found: dict[str, tuple[list[list[int]], np.ndarray]]) -> list[dict[str, object]]:
    """A row for each way; the first round fills caches."""
    taken = {name: np.median(times[1:], axis=0) for name, (_, times) in found.items()}
    right = found[FLAT][0]
    return [
        {
            "index": name,
            "recall@10": round(float(np.mean([len({*a} & {*b}) / K for a, b in zip(hits, right, strict=True)])), 5),
            "p50 ms": round(float(np.median(taken[name])), 3),
            "p95 ms": round(float(np.percentile(taken[name], 95)), 3),
            "x faiss Flat": round(float(np.median(taken[FLAT]) / np.median(taken[name])), 3),
        }
        for name, (hits, _) in found.items()
    ]


if __name__ == "__main__":
    main()

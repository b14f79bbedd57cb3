"""BM25 over a million documents: text to index, and queries, beside bm25s, tantivy and Lucene, each in a process of its own.

    python benchmarks/lexical_peers.py [--documents 1000000] [--words 60] [--builds 5] [--queries 200] [--rounds 5]

Texts are the first `--words` words of passages (see `passages.py`), one a line of a file, which every engine reads while it
builds. All drop English stop words and stem, each with its own analyzer, and have k1 = 1.2 and b = 0.75. Seconds are from
the file to an index that can be asked; memory is the most that the process held, libraries and, of Lucene, pyserini's torch
included: what it held before is given too. bm25s and ours keep the index in memory, tantivy and Lucene write it to disk.
Engines take turns, in builds and in queries; those of the last build answer one query after another, and a query's time is
its median over rounds, the first of which is left out.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from common import report
from passages import lines, questions
from peers import Absent, Worker, in_turn, versions

K = 10
OURS = "ragistry"
ENGINES: Mapping[str, tuple[str, str | None]] = {
    OURS: ("with_inverted", None),
    "bm25s, numba": ("with_bm25s", None),
    "tantivy": ("with_tantivy", "tantivy"),
    "Lucene": ("with_lucene", "lucene"),
}


def main() -> None:
    """Measure, print and write results/lexical_peers.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--words", type=int, default=60, help="of a text at most")
    parser.add_argument("--builds", type=int, default=5)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        origin = lines(folder / "texts", options.documents, options.words)
        built: dict[str, list[dict[str, float]]] = {name: [] for name in ENGINES}
        workers: dict[str, Worker] = {}
        for number in range(options.builds):
            names, first = list(built), number % len(built)
            for name in names[first:] + names[:first]:
                place = folder / f"{name}-{number}"
                place.mkdir()
                try:
                    worker = stack.enter_context(Worker(*ENGINES[name]))
                except Absent as reason:
                    print(f"without {name}: {reason}", flush=True)
                    del built[name]
                    continue
                built[name].append(build(worker, folder / "texts", place))
                print(f"built {name}: {built[name][-1]['seconds']:.1f} s", flush=True)
                if number == options.builds - 1:
                    workers[name] = worker
                else:
                    worker.close()
        asked = [{"query": query, "k": K} for query in questions(options.queries)]
        engines = {name: lambda w=workers[name], **given: w("search", **given) for name in built}
        found = in_turn(engines, asked, options.rounds + 1)
        of_peers = versions(workers.values())
    notes = (
        f"{origin}; medians of {options.builds} builds in turn, of fresh processes; {len(asked)} queries, the best {K}, "
        f"medians of {options.rounds} rounds in turn for each; p50 and p95 over queries. `same of {K}`: found by {OURS} too"
    )
    title = f"BM25, {options.documents:,} documents"
    report("lexical_peers", table(built, found), title=title, notes=notes, versions=of_peers)


def build(worker: Worker, texts: Path, place: Path) -> dict[str, float]:
    """Seconds, megabytes and what was there before."""
    before = worker("memory").value["peak"]
    seconds = worker("build", texts=str(texts), folder=str(place)).seconds
    disk = sum(file.stat().st_size for file in place.rglob("*") if file.is_file()) / 1e6
    return {"seconds": seconds, "peak": worker("memory").value["peak"], "before": before, "disk": disk}


def table(
    built: Mapping[str, Sequence[Mapping[str, float]]], found: Mapping[str, tuple[list[Any], np.ndarray]]
) -> list[dict[str, object]]:
    """A row for each engine; the first round of queries fills caches."""
    taken = {name: np.median(times[1:], axis=0) for name, (_, times) in found.items()}
    right = found[OURS][0]
    rows = []
    for name, some in built.items():
        middle = {key: statistics.median(one[key] for one in some) for key in some[0]}
        ratio = statistics.median(a["seconds"] / b["seconds"] for a, b in zip(some, built[OURS], strict=True))
        same = np.mean([len({*a} & {*b}) / max(len(b), 1) for a, b in zip(found[name][0], right, strict=True)])
        rows.append(
            {
                "engine": name,
                "build s": round(middle["seconds"], 2),
                "x ours": round(ratio, 2),
                "peak MB": round(middle["peak"]),
                "before MB": round(middle["before"]),
                "disk MB": round(middle["disk"]),
                "p50 ms": round(float(np.median(taken[name])), 3),
                "p95 ms": round(float(np.percentile(taken[name], 95)), 3),
                "p50 x ours": round(float(np.median(taken[name]) / np.median(taken[OURS])), 2),
                f"same of {K}": round(float(same), 3),
            }
        )
    return rows


if __name__ == "__main__":
    main()

"""How time, disk and memory grow with the collection: 10,000, 100,000 and a million documents.

    python benchmarks/growth.py [--sizes 10000 100000 1000000] [--words 60] [--real 2000] [--queries 100] [--rounds 5]

Collections of ours on disk, with texts, by `bm25`, `dense` and `hybrid`, beside the indexes alone of bm25s (numba) and faiss
Flat. Texts and vectors as in `hybrid.py`. Each is built and saved by a process that ends, once, then opened by a fresh one;
those of one size take turns in answering queries whose vectors are given, one by one: no model is loaded. A query's time is
its median over rounds, the first of which is left out; memory is the most that the process held. A million documents take
some 20 minutes, 10 GB of disk and 5 GB of memory. Besides the JSON, a plot is written to results/growth.png and .svg.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from common import RESULTS, report
from hybrid import material
from passages import questions
from peers import Worker, in_turn
from vectors import embedded

K = 10
BM25, DENSE, HYBRID, BM25S, FLAT = "ragistry bm25", "ragistry dense", "ragistry hybrid", "bm25s", "faiss Flat"
SCRIPTS = {
    BM25: "with_ragistry",
    DENSE: "with_ragistry",
    HYBRID: "with_ragistry",
    BM25S: "with_bm25s",
    FLAT: "with_faiss",
}
PANELS = ("p50 ms", "build s", "disk MB", "peak MB")


def main() -> None:
    """Measure, print and write results/growth.json, .png and .svg."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--words", type=int, default=60, help="of a text at most")
    parser.add_argument("--real", type=int, default=2000, help="documents with vectors of their own")
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    asked, rows = questions(options.queries), list[dict[str, object]]()
    sought = embedded(1, 1, asked)[1]
    for size in sorted(set(options.sizes)):
        with TemporaryDirectory() as given:
            folder = Path(given)
            origin = material(folder, size, options.words, options.real)
            np.save(folder / "queries.npy", sought)
            rows += measure(folder, size, asked, options.rounds)
    notes = (
        f"{origin} (of the largest); {len(asked)} queries with known vectors, the best {K}, medians of "
        f"{options.rounds} rounds in turn for each; one build. Disk: of ours with the texts; of it the index"
    )
    report("growth", rows, title="Growth with the collection", notes=notes)
    plot(rows, RESULTS / "growth")


def measure(folder: Path, size: int, asked: Sequence[str], rounds: int) -> list[dict[str, object]]:
    """A row for each engine, of one size."""
    built = {name: build(folder, name, size) for name in SCRIPTS}
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(script)) for name, script in SCRIPTS.items()}
        for name, worker in workers.items():
            worker("open", **opening(folder, name, asked))
        sides: dict[str, Any] = {}
        for name, worker in workers.items():
            key = "number" if name == FLAT else "query"
            sides[name] = lambda w=worker, key=key, **given: w("search", **{key: given[key], "k": K})
        found = in_turn(sides, [{"number": i, "query": query} for i, query in enumerate(asked)], rounds + 1)
        memory = {name: worker("memory").value for name, worker in workers.items()}
        sizes = {name: workers[name]("size").value["index"] / 1e6 for name in (BM25, DENSE, HYBRID)}
    rows = []
    for name, (_, times) in found.items():
        taken = np.median(times[1:], axis=0)
        rows.append(
            {
                "engine": name,
                "documents": size,
                "p50 ms": round(float(np.median(taken)), 3),
                "p95 ms": round(float(np.percentile(taken, 95)), 3),
                "build s": round(built[name]["seconds"], 3),
                "build MB": round(built[name]["peak"]),
                "disk MB": round(built[name]["disk"], 1),
                "index MB": round(sizes.get(name, built[name]["disk"]), 1),
                "peak MB": round(memory[name]["peak"]),
                "anonymous MB": round(memory[name]["anonymous"]),
            }
        )
        shutil.rmtree(folder / name)
    return rows


def build(folder: Path, name: str, size: int) -> dict[str, float]:
    """Build and save an index in a process of its own: seconds, megabytes of memory and of disk."""
    place, texts, vectors = folder / name, str(folder / "texts"), str(folder / "vectors.npy")
    with Worker(SCRIPTS[name]) as worker:
        if name == FLAT:
            place.mkdir()
            seconds = worker("build", vectors=vectors, count=size, path=str(place / "index")).seconds
        elif name == BM25S:
            seconds = worker("build", texts=texts, folder=str(place)).seconds
            seconds += worker("save", folder=str(place)).seconds
        else:
            kind = name.removeprefix("ragistry ")
            given = {} if kind == "bm25" else {"vectors": vectors}
            worker("warm", kind=kind, vectors=bool(given))
            seconds = worker("build", kind=kind, texts=texts, folder=str(place), **given).seconds
        peak = worker("memory").value["peak"]
    disk = sum(file.stat().st_size for file in place.rglob("*") if file.is_file()) / 1e6
    print(f"built {name}, {size:,} documents: {seconds:.1f} s, {disk:,.0f} MB", flush=True)
    return {"seconds": seconds, "peak": peak, "disk": disk}


def opening(folder: Path, name: str, asked: Sequence[str]) -> dict[str, object]:
    """What `open` is told."""
    place, queries = folder / name, str(folder / "queries.npy")
    if name == FLAT:
        return {"path": str(place / "index"), "vectors": queries}
    known = {} if name in (BM25, BM25S) else {"queries": list(asked), "vectors": queries}
    return {"folder": str(place), **known}


def plot(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Lines by engine over documents, both axes logarithmic, as PNG and SVG."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "growth"
    from matplotlib import pyplot

    colours = {BM25: "#1b6ca8", DENSE: "#c2571a", HYBRID: "#5b3a8e", BM25S: "#1b6ca8", FLAT: "#c2571a"}
    figure, axes = pyplot.subplots(1, len(PANELS), figsize=(14, 3.6), layout="constrained")
    for axis, column in zip(axes, PANELS, strict=True):
        for name, colour in colours.items():
            points = sorted((row["documents"], row[column]) for row in rows if row["engine"] == name)
            ours = name.startswith("ragistry")
            axis.loglog(
                *zip(*points, strict=True),
                color=colour,
                linestyle="-" if ours else "--",
                marker="o" if ours else "x",
                label=name,
            )
        axis.set_title(column)
        axis.set_xlabel("documents")
        axis.grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(colours), frameon=False)
    figure.savefig(path.with_suffix(".png"), dpi=130)
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    main()

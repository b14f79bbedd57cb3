"""What compressed vectors keep of a dense ranking, and what they take: bytes a document, recall, nDCG@10, time.

    python benchmarks/compression.py [--sets scifact] [--depths 100 1000] [--recipes bm25 lexicon colbert] [--rounds 5]

All indexes hold the same vectors of MiniLM and answer the same test queries, one by one, in interleaved rounds; times are
of searching alone, after encoding. Codes are learnt from all documents. `recall@10` is the share of the exact ten nearest
that is found. Bytes are what a search has in memory for each document: codes. `+ rows` reads the vectors of a shortlist of
so many as well, which lie on disk, in the file cache here. `fixed` is what codes need besides, however many documents there
are: a rotation, centroids, axes. Recipes are measured for comparison, by all arrays that they save; a name that is not known
is left out. Writes results/compression.json and compression.svg. RAGISTRY_DATA is the folder of the data sets.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, data, interleaved, report, required

from ragistry import Document, Ranking, create, names
from ragistry.compiled import ready
from ragistry.encoders.cached import Cached
from ragistry.encoders.named import encoder
from ragistry.evaluation import evaluate, load
from ragistry.indexes.binary import Binary
from ragistry.indexes.coded import Compressed
from ragistry.indexes.faiss import Faiss
from ragistry.indexes.quantised import Quantised
from ragistry.indexes.reduced import Reduced
from ragistry.indexes.tiered import Tiered
from ragistry.protocols import Index
from ragistry.storage import ArrayFiles, file_names, write_file
from ragistry.types import Floats

K = 10
EXACT, SCALAR = "fp32, exact", "SQ8 + rows"


@dataclass(frozen=True)
class Way:
    """A way to hold vectors of some documents, saved and loaded again, so that vectors lie in mapped files."""

    name: str
    index: Index
    bytes: float
    fixed: int


def main() -> None:
    """Measure, print, and write the results and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=["scifact"])
    parser.add_argument("--depths", nargs="+", type=int, default=[100, 1000])
    parser.add_argument("--recipes", nargs="*", default=["bm25"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cache", type=Path, default=RESULTS / "compression.cache.sqlite", help="of embeddings")
    options = parser.parse_args()
    os.environ.setdefault("RAGISTRY_DATA", str(data(".")))
    ready()
    rows = []
    for name in options.sets:
        required(data(name))
        rows += measure(name, options.depths, options.recipes, options.rounds, options.cache)
    notes = (
        "Bytes in memory for each document, without ids; the ten nearest of each query; median of interleaved rounds"
    )
    report("compression", rows, title="Dense vectors compressed", notes=notes)
    draw(rows, RESULTS / "compression.svg")


def measure(
    name: str, depths: Sequence[int], recipes: Sequence[str], rounds: int, cache: Path
) -> list[dict[str, object]]:
    """A row for each way, and for each recipe."""
    dataset = load(name)
    split, documents = dataset.split("test"), dataset.documents
    asked = [id for id in split.queries if id in split.qrels]
    model = Cached(encoder("all-MiniLM-L6-v2"), cache, roles=("query", "document"))
    vectors = np.asarray(model.encode(documents, "document"), np.float32)
    queries = np.asarray(model.encode([split.queries[id] for id in asked], "query"), np.float32)
    row_of = {split.queries[id]: number for number, id in enumerate(asked)}
    found: dict[str, list[Ranking]] = {}
    times: dict[str, list[list[float]]] = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        made = [way(Path(directory), documents, vectors, label, make) for label, make in ways(vectors, depths).items()]

        def ask(one: Way) -> None:
            found[one.name] = []
            seconds = interleaved({"": lambda: None}, 0)[""]
            for query in queries:
                took = interleaved(
                    {"": lambda query=query: found[one.name].extend(one.index.search(query[None], K))}, 1
                )
                seconds += took[""]
            times.setdefault(one.name, []).append(seconds)

        interleaved({one.name: partial(ask, one) for one in made}, rounds + 1)
    label = f"{name} ({len(documents):,} documents, {len(asked)} queries)"
    rows: list[dict[str, object]] = []
    for one in made:
        rankings = found[one.name]
        search = partial(looked_up, rankings, row_of)
        quality = evaluate(search, split.queries, split.qrels, ["nDCG@10"]).means["nDCG@10"]
        kept = [len({*a.ids} & {*b.ids}) / len(b) for a, b in zip(rankings, found[EXACT], strict=True)]
        each = np.median(times[one.name][1:], axis=0)  # the first round fills caches
        rows.append(
            {
                "data": label,
                "vectors": one.name,
                "bytes": round(one.bytes, 1),
                "times smaller": round(4 * vectors.shape[1] / one.bytes, 1),
                "fixed KiB": round(one.fixed / 1024),
                "recall@10": round(statistics.mean(kept), 4),
                "nDCG@10": round(quality, 4),
                "p50 ms": round(1000 * float(np.median(each)), 3),
            }
        )
    for recipe in recipes:
        if recipe in names():
            rows.append({"data": label, **other(recipe, documents, split, 4 * vectors.shape[1])})
        else:
            print(f"{recipe}: no retriever has this name; left out")
    return rows


def ways(vectors: Floats, depths: Sequence[int]) -> dict[str, Callable[[], Index]]:
    """Empty indexes by name."""
    count, dimension = vectors.shape
    eighth = dimension // 8
    coarse: dict[str, Callable[[], Compressed]] = {
        "sign": lambda: Binary(1000),
        f"PQ, {eighth} bytes": lambda: Quantised(eighth, rotate=False, enough=count),
        f"OPQ, {eighth} bytes": lambda: Quantised(eighth, enough=count),
    }
    found: dict[str, Callable[[], Index]] = {
        EXACT: lambda: Faiss("Flat"),
        "fp16": lambda: Reduced(),
        SCALAR: lambda: Faiss("SQ8"),
        f"PCA, {dimension // 4} dimensions": lambda: Reduced(dimension // 4, enough=count),
        f"PCA, {dimension // 16} dimensions": lambda: Reduced(dimension // 16, enough=count),
        **coarse,
        f"OPQ, {eighth // 2} bytes": lambda: Quantised(eighth // 2, enough=count),
        f"OPQ, {2 * eighth} bytes": lambda: Quantised(2 * eighth, enough=count),
    }
    for depth in depths:
        found[f"sign + {depth} rows"] = lambda depth=depth: Tiered(Binary(4 * depth), Faiss("Flat"), depth)
        found[f"OPQ, {eighth} bytes + {depth} rows"] = lambda depth=depth: Tiered(
            Quantised(eighth, enough=count), Faiss("Flat"), depth
        )
    return found


def way(directory: Path, documents: Sequence[Document], vectors: Floats, name: str, make: Callable[[], Index]) -> Way:
    """An index filled, saved and loaded, and its size in memory."""
    index, files = make(), ArrayFiles(directory / "files")
    index.add([document.id for document in documents], vectors)
    state = index.save(files)
    index.load(state, files)
    held = index.coarse if isinstance(index, Tiered) else index
    if isinstance(held, Compressed):
        codes = held.codes([document.id for document in documents])
        state = state["coarse"] if isinstance(index, Tiered) else state
        fixed = sum(files.get(file).nbytes for file in file_names(state["coder"]))
        return Way(name, index, codes.nbytes / len(documents), fixed)
    coded = all(segment["content"]["built"] for segment in state["segments"])  # of few documents faiss codes none
    return Way(name, index, vectors.shape[1] * (1 if name == SCALAR and coded else 4), 0)


def looked_up(rankings: Sequence[Ranking], row_of: dict[str, int], texts: Sequence[str], k: int) -> list[Ranking]:
    """What was found for some queries."""
    return [rankings[row_of[text]].head(k) for text in texts]


def other(recipe: str, documents: Sequence[Document], split: Any, whole: int) -> dict[str, object]:
    """The row of a recipe."""
    retriever: Any = create(recipe)
    retriever.add(documents)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        files = ArrayFiles(Path(directory))
        size = sum(files.get(file).nbytes for file in file_names(retriever.save(files))) / len(documents)
    quality = evaluate(retriever, split.queries, split.qrels, ["nDCG@10"]).means["nDCG@10"]
    row: dict[str, object] = {"vectors": recipe, "bytes": round(size, 1), "times smaller": round(whole / size, 1)}
    return row | {"fixed KiB": "", "recall@10": "", "nDCG@10": round(quality, 4), "p50 ms": ""}


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Quality against bytes: a row of two pictures for each data set. What reads rows on disk is a triangle."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    sets, ways = (list(dict.fromkeys(row[column] for row in rows)) for column in ("data", "vectors"))
    figure: Any = Figure(figsize=(12, 4.5 * len(sets)), layout="constrained")
    panels = figure.subplots(len(sets), 2, squeeze=False)
    for some, pair in zip(sets, panels, strict=True):
        for measure, axes in zip(("recall@10", "nDCG@10"), pair, strict=True):
            for row in rows:
                if row["data"] == some and row[measure] != "":
                    marker, colour = (
                        "^" if "rows" in row["vectors"] else "o",
                        colormaps["tab20"](ways.index(row["vectors"])),
                    )
                    axes.plot(row["bytes"], row[measure], marker, color=colour, label=row["vectors"], markersize=8)
            axes.set_xscale("log", base=2)
            axes.grid(alpha=0.3)
            axes.set(xlabel="bytes in memory for a document", ylabel=measure, title=some)
    handles = {
        label: handle for axes in panels.flat for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside right center", frameon=False, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    write_file(path, buffer.getvalue())


if __name__ == "__main__":
    main()

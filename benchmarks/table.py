"""Rewrites the table of benchmarks in README.md from the results of the last runs.

    python benchmarks/table.py [--readme README.md]

The table stands between two markers, `<!-- benchmarks -->` and `<!-- /benchmarks -->`, which must be there; all else is left
as it is, and a second run changes nothing. A row whose script has not been run here says so. The
plot of growth is copied into `docs`.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from common import RESULTS

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- benchmarks -->", "<!-- /benchmarks -->"
HEAD = "| what, side by side in one run | peer | reach | measured | machine |\n|---|---|---|---|---|"
NOT_RUN = "not run"
PEERS_QUERY = "x peer's query"
Found: TypeAlias = Mapping[str, Any]


class Missing(Exception):
    """A result that is not there."""


@dataclass(frozen=True)
class Line:
    """A row: what is measured, against whom, what is to be reached, the script, how to read its results, and the size that
    their title must name."""

    what: str
    peer: str
    reach: str
    script: str
    measured: Callable[[Found], str]
    size: str = ""


def row(found: Found, **of: object) -> Found:
    """The one row of some results with these values."""
    for one in found["rows"]:
        if all(one.get(key) == value for key, value in of.items()):
            return one  # type: ignore[no-any-return]
    raise Missing


def at_least(cosine: float) -> str:
    """Rounded down."""
    return f"{math.floor(cosine * 10_000) / 10_000:.4f}"


def documents_a_second(found: Found) -> str:
    """By encoding.json."""
    one, other = row(found, encoder="ragistry"), row(found, encoder="ragistry, torch")
    alike = f"cosine >= {at_least(one['min cosine'])}"
    return (
        f"{one['x default']:.1f}x, {alike} ({one['documents/s']:.0f} documents/s) by OpenVINO; "
        f"{other['x default']:.1f}x by torch"
    )


def one_query(found: Found) -> str:
    """By onnx.json."""
    one, other = row(found, runtime="openvino"), row(found, runtime="onnx")
    return (
        f"{part(1 / one[PEERS_QUERY])} of theirs ({one['query ms']} ms) by OpenVINO, cosine >= {at_least(one['least'])}; "
        f"{part(1 / other[PEERS_QUERY])} by ONNX Runtime"
    )


def nearest(found: Found) -> str:
    """By dense_search.json, all allowed."""
    one = row(found, allowed="100%", index="ragistry auto")
    return f"{part(1 / one['x faiss Flat'])} of theirs ({one['p50 ms']} ms), recall {one['recall@10']:.4g}"


def filtered(found: Found) -> str:
    """By dense_search.json, 1 % allowed."""
    ours = row(found, allowed="1%", index="ragistry auto")
    times = [
        f"{name} {row(found, allowed='1%', index=name)['p50 ms'] / ours['p50 ms']:.1f}x"
        for name in ("faiss Flat", "LanceDB")
    ]
    return f"faster: {', '.join(times)} ({ours['p50 ms']} ms), recall {ours['recall@10']:.4g}"


def words(found: Found) -> str:
    """By lexical_peers.json, queries."""
    ours = row(found, engine="ragistry")
    return f"{versus(found, ours, 'p50 ms')} ({ours['p50 ms']} ms)"


def indexing(found: Found) -> str:
    """By lexical_peers.json, builds."""
    ours = row(found, engine="ragistry")
    seconds, memory = versus(found, ours, "build s"), versus(found, ours, "peak MB")
    return f"seconds: {seconds} ({ours['build s']} s); memory: {memory} ({ours['peak MB']} MB)"


def imports(found: Found) -> str:
    """By import_time.json."""
    ours = row(found, what="import ragistry")["seconds"]
    names = ("import bm25s", "import sentence_transformers", "import txtai")
    return f"{least_and_most(ours, [row(found, what=name)['seconds'] for name in names])} ({ours} s)"


def first_results(found: Found) -> str:
    """By cold_start.json."""
    ours = row(found, what="ragistry search")["seconds"]
    names = ("bm25s", "sentence-transformers", "txtai")
    dense = row(found, what="ragistry search, dense")["seconds"]
    most = least_and_most(ours, [row(found, what=name)["seconds"] for name in names])
    return f"{most} ({ours} s; dense {dense} s)"


def hybrid(found: Found) -> str:
    """By hybrid.json."""
    one, bare = (row(found, **{"query encoded": it, "engine": "EnsembleRetriever"}) for it in ("yes", "no"))
    told = (f"{part(1 / each['p50 x ours'])} / {part(1 / each['p95 x ours'])}" for each in (one, bare))
    return "{} of theirs; without encoding {}".format(*told)


def held(found: Found) -> str:
    """By memory.json."""
    ours = row(found, engine="ragistry hybrid")
    drawn = row(found, engine="EnsembleRetriever, by a line")
    return (
        f"{part(1 / drawn['x ours'])} of theirs ({ours['peak MB']} MB; theirs is extrapolated from smaller collections); "
        f"without pages of files, which a system short of memory takes back, "
        f"{part(ours['anonymous MB'] / drawn['anonymous MB'])} ({ours['anonymous MB']} MB)"
    )


def versus(found: Found, ours: Found, key: str) -> str:
    """Ours as a part of each other engine's."""
    others = [one for one in found["rows"] if one is not ours]
    return ", ".join(
        f"{part(ours[key] / one[key])} of {one['engine'].partition(',')[0]}'s" for one in others if one[key]
    )


def least_and_most(ours: float, others: Iterable[float]) -> str:
    """Ours as a part of the fastest and of the slowest."""
    some = sorted(others)
    return f"{part(ours / some[-1])} of the slowest, {part(ours / some[0])} of the fastest"


def part(ratio: float) -> str:
    """1/5 for a fifth; 1.3x for what is more."""
    return f"{ratio:.2g}x" if ratio > 0.95 else f"1/{1 / ratio:.2g}" if ratio > 0.1 else f"1/{1 / ratio:.0f}"


LINES = (
    Line(
        "documents/s, SciFact",
        "sentence-transformers (torch, fp32)",
        ">= 4x at cosine >= 0.999",
        "encoding",
        documents_a_second,
    ),
    Line("single query encoded, p50", "the same", "<= 1/4", "onnx", one_query),
    Line(
        "exact dense top ten, 100,000 x 384, single query, p50",
        "faiss Flat",
        "<= 1/10 at recall >= 0.999",
        "dense_search",
        nearest,
        "100,000 x 384",
    ),
    Line(
        "the same with a filter passing 1 %",
        "faiss Flat with selector; LanceDB",
        "ahead of both, recall >= 0.999",
        "dense_search",
        filtered,
        "100,000 x 384",
    ),
    Line(
        "BM25 query, p50, 1,000,000 documents",
        "bm25s (numba); tantivy; Lucene through pyserini",
        "<= bm25s's; <= 1.5x Lucene's",
        "lexical_peers",
        words,
        "1,000,000 documents",
    ),
    Line(
        "BM25 build, 1,000,000 documents",
        "the same",
        "faster than bm25s and tantivy; memory <= bm25s's",
        "lexical_peers",
        indexing,
        "1,000,000 documents",
    ),
    Line(
        "`import`",
        "bm25s; sentence-transformers; txtai",
        "<= 1/5 of the slowest, <= the fastest",
        "import_time",
        imports,
    ),
    Line(
        "first result of a fresh process, 100,000 documents",
        "the same",
        "the same",
        "cold_start",
        first_results,
        "100,000 documents",
    ),
    Line(
        "hybrid query end to end, 100,000 documents, p50 / p95",
        "LangChain EnsembleRetriever over BM25Retriever + FAISS",
        "<= 1/5",
        "hybrid",
        hybrid,
        "100,000 documents",
    ),
    Line(
        "memory of a hybrid collection, 1,000,000 documents, searching",
        "the same",
        "<= 1/4",
        "memory",
        held,
        "1,000,000 documents",
    ),
)


def table(results: Path) -> str:
    """The table, of the results in a folder."""
    rows = [HEAD]
    for line in LINES:
        path = results / f"{line.script}.json"
        measured, machine = NOT_RUN, ""
        if path.exists():
            found = json.loads(path.read_text("utf-8"))
            if line.size not in found["title"]:
                measured = f"{NOT_RUN} at this size"
            else:
                try:
                    measured, machine = line.measured(found), described(found["machine"])
                except Missing:
                    measured = f"{NOT_RUN} with all peers"
        rows.append(f"| {line.what} | {line.peer} | {line.reach} | {measured} | {machine} |")
    return "\n".join(rows)


def described(machine: Found) -> str:
    """A processor, its cores, and how busy it was."""
    name = machine["processor"].partition("(avx")[0].replace("(R)", "").replace("Processor", "").strip()
    return f"{' '.join(name.split())}, {machine['cores']} cores, load {machine['load']:.1f}"


def rewritten(readme: str, table: str) -> str:
    """A text with the table between its markers.

    Raises:
        SystemExit: If they are not there once, in this order.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after or END in before:
        raise SystemExit(
            f"the text needs the markers {BEGIN} and {END}, once and in this order; put them around the table"
        )
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def main() -> None:
    """Rewrite the README."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--readme", type=Path, default=README)
    options = parser.parse_args()
    made = table(RESULTS)
    options.readme.write_text(rewritten(options.readme.read_text("utf-8"), made), "utf-8")
    plot, docs = RESULTS / "growth.svg", options.readme.parent / "docs"
    if plot.exists() and docs.is_dir():
        shutil.copy(plot, docs)
    print(made)


if __name__ == "__main__":
    main()

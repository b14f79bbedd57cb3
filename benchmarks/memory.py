"""What a hybrid collection holds in memory while it is searched, beside LangChain's EnsembleRetriever.

    python benchmarks/memory.py [--documents 1000000] [--peer 100000 250000] [--words 60] [--real 2000] [--queries 100]

Both sides as in `hybrid.py`; each is filled by a process that ends, then opened by a fresh one, which answers `--queries`
questions and is asked how much it held at most: libraries and the model for queries included. `anonymous` is what it holds
then that is not a file's, which the system could drop. The EnsembleRetriever is measured at the sizes of `--peer` only, and
a line through the first and the last of these is drawn to the size of ours, as a million does not fit everywhere.
"""

from __future__ import annotations

import argparse
import shutil
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from common import report
from hybrid import OURS, SIDES, THEIRS, filled, material
from passages import questions
from peers import Worker, installed, versions

K = 10


def main() -> None:
    """Measure, print and write results/memory.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--peer", type=int, nargs="+", default=[100_000, 250_000], help="documents; two sizes or more")
    parser.add_argument("--words", type=int, default=60, help="of a text at most")
    parser.add_argument("--real", type=int, default=2000, help="documents with vectors of their own")
    parser.add_argument("--queries", type=int, default=100)
    options = parser.parse_args()
    if len(set(options.peer)) < 2 or max(options.peer) > options.documents:
        parser.error("--peer needs two different sizes, none above --documents")
    asked = questions(options.queries)
    of_peers: dict[str, str] = {}
    found: dict[str, list[dict[str, float]]] = {OURS: [], THEIRS: []}
    with TemporaryDirectory() as given:
        folder = Path(given)
        origin = material(folder, options.documents, options.words, options.real)
        todo = [(OURS, options.documents)]
        if installed("langchain"):
            todo += [(THEIRS, size) for size in sorted(set(options.peer))]
        for name, size in todo:
            place = filled(folder, name, size)
            if place is None:
                continue
            found[name].append({"documents": size} | answering(name, place, asked, of_peers))
            shutil.rmtree(place)
    ours = found[OURS][0]
    rows = [{"engine": OURS, **shown(ours), "x ours": 1.0}]
    rows += [{"engine": THEIRS, **shown(one), "x ours": ""} for one in found[THEIRS]]
    if found[THEIRS]:
        drawn = line(found[THEIRS], options.documents)
        ratio = round(drawn["peak"] / ours["peak"], 2)
        rows.append({"engine": f"{THEIRS}, by a line", **shown(drawn), "x ours": ratio})
    notes = f"{origin}; after {len(asked)} questions, the best {K}, in a process of its own"
    title = f"Memory of a hybrid collection, {options.documents:,} documents"
    report("memory", rows, title=title, notes=notes, versions=of_peers)


def answering(name: str, place: Path, queries: list[str], of_peers: dict[str, str]) -> dict[str, float]:
    """Megabytes of a process that opened an index and answered."""
    with ExitStack() as stack:
        worker = stack.enter_context(Worker(*SIDES[name]))
        of_peers |= versions([worker])
        before = worker("memory").value["peak"]
        worker("open", folder=str(place))
        for query in queries:
            worker("search", query=query, k=K)
        return {"before": before} | worker("memory").value  # type: ignore[no-any-return]


def line(found: list[dict[str, float]], size: int) -> dict[str, float]:
    """What a line through the first and the last of some measurements says of another size."""
    first, last = found[0], found[-1]
    along = (size - first["documents"]) / (last["documents"] - first["documents"])
    return {"documents": size} | {
        key: first[key] + along * (last[key] - first[key]) for key in first if key != "documents"
    }


def shown(one: dict[str, float]) -> dict[str, object]:
    """A measurement's columns."""
    return {
        "documents": one["documents"],
        "peak MB": round(one["peak"]),
        "now MB": round(one["now"]),
        "anonymous MB": round(one["anonymous"]),
        "before opening MB": round(one["before"]),
    }


if __name__ == "__main__":
    main()

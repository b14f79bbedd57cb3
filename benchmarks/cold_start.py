"""From the shell to the answer: `ragistry search` of an existing collection, each time in a fresh process.

    python benchmarks/cold_start.py [--documents 100000] [--rounds 9]

Beside Python's own start and imports that nothing can do without, or that one query does without. On a machine that does
other work, look at the ratios: processor time is given too, which suffers less.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from common import interleaved, report
from passages import passages, questions

from ragistry import Collection, Document, create


def main() -> None:
    """Measure, print and write results/cold_start.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    texts, origin = passages(options.documents)
    (query,) = questions(1)
    with tempfile.TemporaryDirectory() as directory:
        docs = str(Path(directory) / "docs")
        with Collection.create(docs, create("bm25")) as collection:
            collection.add(Document(str(i), text) for i, text in enumerate(texts))
        ragistry = ["-c", "from ragistry.cli import main; main()"]
        runs = {
            "python -c pass": ["-c", "pass"],
            "import numpy": ["-c", "import numpy"],
            "import numba": ["-c", "import numba"],
            "ragistry --help": [*ragistry, "--help"],
            "ragistry search": [*ragistry, "search", docs, query],
            "ragistry search --json": [*ragistry, "search", docs, query, "--json"],
        }
        used: dict[str, list[float]] = {name: [] for name in runs}
        calls = {name: partial(run, arguments, used[name]) for name, arguments in runs.items()}
        interleaved(calls, 1)  # byte code and the file cache
        seconds = interleaved(calls, options.rounds)
    bare = statistics.median(seconds["python -c pass"])
    rows = [
        {
            "what": name,
            "seconds": round(statistics.median(times), 3),
            "least": round(min(times), 3),
            "of the processor": round(statistics.median(used[name][1:]), 3),
            "x python": round(statistics.median(times) / bare, 1),
        }
        for name, times in seconds.items()
    ]
    notes = f"{origin}; the query {query!r}; medians of {options.rounds} interleaved rounds"
    report("cold_start", rows, title=f"One BM25 query of {len(texts):,} documents, from the shell", notes=notes)


def run(arguments: list[str], used: list[float]) -> None:
    """Run Python with some arguments, and note the seconds of the processor it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


if __name__ == "__main__":
    main()

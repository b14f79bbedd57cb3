"""Adding or removing 1,000 documents of a collection on disk, beside building it again.

    python benchmarks/update.py [--documents 100000] [--some 1000] [--rounds 5] [--directory DIR]

Everything is committed to a directory of the given disk. Every round adds new documents and removes as many others, drawn at
random, so that the collection keeps its size; building again is done in a directory of its own.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from common import interleaved, median_ratio, report
from passages import passages

from ragistry import Collection, Document, create

QUERY = "what causes the growth of cells?"


def main() -> None:
    """Measure, print and write results/update.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--some", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", type=Path, help="of the disk to write to (by default that of temporary files)")
    options = parser.parse_args()
    size, some = options.documents, options.some
    texts, origin = passages(size + some * options.rounds)
    documents = [Document(str(number), text) for number, text in enumerate(texts)]
    fresh, draw = count(size, some), random.Random(5)

    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        folders = (Path(directory) / f"again-{number}" for number in count())
        with build(Path(directory) / "kept", documents[:size]) as collection:

            def add() -> None:
                first = next(fresh)
                collection.add(documents[first : first + some])
                collection.search(QUERY)

            def remove(ids: Sequence[str]) -> None:
                if collection.remove(ids) != some:
                    raise SystemExit("some of the documents to remove were not there")
                collection.search(QUERY)

            def choose() -> list[str]:
                return draw.sample([document.id for document in collection.documents()], some)

            again = "build again, of both"
            seconds: dict[str, list[float]] = {}
            for _ in range(options.rounds):
                ids = choose()
                runs = {
                    again: lambda: build(next(folders), documents[: size + some]).close(),
                    f"add {some:,}": add,
                    f"remove {some:,}": lambda ids=ids: remove(ids),
                }
                for name, (found,) in interleaved(runs, 1).items():
                    seconds.setdefault(name, []).append(found)
    rows = [
        {
            "what": name,
            "seconds": round(statistics.median(times), 3),
            "worst": round(max(times), 3),
            "x building again": round(median_ratio(seconds, again, name), 1),
        }
        for name, times in seconds.items()
    ]
    notes = (
        f"a collection of {size:,} documents ({origin}) with bm25; commits to disk and the first query afterwards included; "
        f"medians of {options.rounds} rounds, ratios within a round"
    )
    report("update", rows, title=f"Updates of {size:,} documents", notes=notes)


def build(path: Path, documents: Sequence[Document]) -> Collection:
    """A collection that has answered a query."""
    collection = Collection.create(path, create("bm25"))
    collection.add(documents)
    collection.search(QUERY)
    return collection


if __name__ == "__main__":
    main()

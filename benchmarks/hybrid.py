"""A hybrid query end to end, beside LangChain's EnsembleRetriever over BM25Retriever (rank_bm25) and a FAISS vector store.

    python benchmarks/hybrid.py [--documents 100000] [--words 60] [--real 2000] [--queries 20] [--rounds 5]

Both sides hold the same texts (the first `--words` words of passages) and vectors (see `vectors.py`: of MiniLM for `--real`
of them, made between these for the rest), encode queries with the same MiniLM, return ten documents with their texts, and
are processes of their own that loaded what another one had saved. They take turns round by round; every question is asked
once, as ours remembers the vectors of recent queries. Ratios are medians of rounds, percentiles are over all questions but
those of a first round. The vector store is exact, as is ours by what it measured of itself.
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
from peers import in_turn, started, versions
from vectors import embedded

from ragistry.encoders.exporting import export
from ragistry.models import MINILM

K = 10
OURS, THEIRS = "ragistry hybrid", "EnsembleRetriever"
SIDES: Mapping[str, tuple[str, str | None]] = {
    OURS: ("with_ragistry", None),
    THEIRS: ("with_langchain", "langchain"),
}


def main() -> None:
    """Measure, print and write results/hybrid.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--words", type=int, default=60, help="of a text at most")
    parser.add_argument("--real", type=int, default=2000, help="documents with vectors of their own")
    parser.add_argument("--queries", type=int, default=20, help="a round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    asked = [{"query": query, "k": K} for query in questions(options.queries * (options.rounds + 1))]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        origin = material(folder, options.documents, options.words, options.real)
        places = {OURS: filled(folder, OURS, options.documents), THEIRS: filled(folder, THEIRS, options.documents)}
        workers = started(stack, [(name, *SIDES[name]) for name, place in places.items() if place])
        for name, worker in workers.items():
            worker("open", folder=str(places[name]))
        engines = {name: lambda w=worker, **given: w("search", **given) for name, worker in workers.items()}
        found = []
        for first in range(0, len(asked), options.queries):
            found.append(in_turn(engines, asked[first : first + options.queries], 1))
            print(f"{first + options.queries} of {len(asked)} questions", flush=True)
        of_peers = versions(workers.values())
    notes = (
        f"{origin}; {options.rounds} rounds of {options.queries} questions, the best {K}. `same of {K}`: found by {OURS} "
        "too, which has another analyzer and another fusion"
    )
    report("hybrid", table(found[1:]), title=f"Hybrid, {options.documents:,} documents", notes=notes, versions=of_peers)


def material(folder: Path, documents: int, words: int, real: int) -> str:
    """Write texts and vectors, and have the model exported, so that queries need no torch; where they come from."""
    export(MINILM)
    print(f"{documents:,} texts and vectors ...", flush=True)
    origin = lines(folder / "texts", documents, words)
    vectors, _, of_vectors = embedded(documents, real, 1)
    np.save(folder / "vectors.npy", vectors)
    return f"{origin}; {of_vectors}"


def filled(folder: Path, name: str, documents: int) -> Path | None:
    """The folder where one of the sides saved an index of so many documents; None where it is absent."""
    place = folder / f"{name}-{documents}"
    given: dict[str, Any] = {"texts": str(folder / "texts"), "folder": str(place)}
    given["vectors"] = str(folder / "vectors.npy")
    with ExitStack() as stack:
        for worker in started(stack, [(name, *SIDES[name])]).values():
            if name == OURS:
                seconds = worker("build", kind="hybrid", model=True, **given).seconds
            else:
                place.mkdir()
                seconds = worker("build", count=documents, **given).seconds
            print(f"built {name}, {documents:,} documents: {seconds:.0f} s", flush=True)
            return place
    return None


def table(found: Sequence[Mapping[str, tuple[list[Any], np.ndarray]]]) -> list[dict[str, object]]:
    """Rows for both sides, with and without encoding."""
    rows = list[dict[str, object]]()
    for encoding in (True, False):
        taken = {name: [milliseconds(one[name], encoding) for one in found] for name in found[0]}
        for name, times in taken.items():
            p50, p95 = (
                statistics.median(
                    float(np.percentile(a, share) / np.percentile(b, share))
                    for a, b in zip(times, taken[OURS], strict=True)
                )
                for share in (50, 95)
            )
            every = np.concatenate(times)
            same = [
                len({*a["ids"]} & {*b["ids"]}) / max(len(b["ids"]), 1)
                for one in found
                for a, b in zip(one[name][0], one[OURS][0], strict=True)
            ]
            rows.append(
                {
                    "query encoded": "yes" if encoding else "no",
                    "engine": name,
                    "p50 ms": round(float(np.percentile(every, 50)), 2),
                    "p95 ms": round(float(np.percentile(every, 95)), 2),
                    "p50 x ours": round(p50, 2),
                    "p95 x ours": round(p95, 2),
                    f"same of {K}": round(statistics.mean(same), 3),
                }
            )
    return rows


def milliseconds(answers: tuple[list[Any], np.ndarray], encoding: bool) -> np.ndarray:
    """Of one round's queries, with the time to encode them or without."""
    values, times = answers
    spent = 1000 * np.array([value["encoding"] for value in values])
    return np.asarray(times[0] if encoding else times[0] - spent)


if __name__ == "__main__":
    main()

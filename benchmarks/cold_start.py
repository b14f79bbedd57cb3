"""From the shell to the answer of an existing collection, each time in a fresh process: `ragistry search`, and peers.

    python benchmarks/cold_start.py [--documents 100000] [--rounds 5] [--peers bm25s sentence-transformers txtai]

Beside Python's own start and imports that nothing can do without, or that one query does without. A peer is the shortest
program that loads what it had saved of the same documents and prints its best ten: bm25s and txtai (its keyword index, in an
environment of its own) by words; sentence-transformers by its model, from an array of vectors. Ours is asked by words and by
vectors: these are made up, as encoding so many documents would take long and the time does not depend on them. On a machine
that does other work, look at the ratios: processor time is given too, which suffers less.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from common import interleaved, report
from passages import lines, questions
from peers import Worker, installed, python
from vectors import unit

from ragistry.encoders.backbones import Backbone
from ragistry.encoders.exporting import export
from ragistry.models import MINILM

BM25S = """
import sys, bm25s, Stemmer
engine = bm25s.BM25.load(sys.argv[1], load_corpus=True)
asked = bm25s.tokenize([sys.argv[2]], stopwords="en", stemmer=Stemmer.Stemmer("english"), show_progress=False)
print(*engine.retrieve(asked, k=10, show_progress=False).documents[0], sep="\\n")
"""
SAVE_BM25S = """
import sys, bm25s, Stemmer
texts = open(sys.argv[2], encoding="utf-8").read().splitlines()
engine = bm25s.BM25()
engine.index(
    bm25s.tokenize(texts, stopwords="en", stemmer=Stemmer.Stemmer("english", 0), show_progress=False), show_progress=False
)
engine.save(sys.argv[1], corpus=texts)
"""
SENTENCE_TRANSFORMERS = """
import sys, numpy
from sentence_transformers import SentenceTransformer
scores = numpy.load(sys.argv[1], mmap_mode="r") @ SentenceTransformer(sys.argv[3], device="cpu").encode(sys.argv[2])
print(*scores.argsort()[-10:])
"""
TXTAI = """
import sys
from txtai import Embeddings
engine = Embeddings()
engine.load(sys.argv[1])
print(*engine.search(sys.argv[2], 10), sep="\\n")
"""
SAVE_TXTAI = """
import sys
from txtai import Embeddings
engine = Embeddings(keyword=True, content=True)
engine.index(open(sys.argv[2], encoding="utf-8").read().splitlines())
engine.save(sys.argv[1])
"""


def main() -> None:
    """Measure, print and write results/cold_start.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", nargs="*", default=["bm25s", "sentence-transformers", "txtai"])
    options = parser.parse_args()
    (query,) = questions(1)
    with TemporaryDirectory() as directory:
        folder = Path(directory)
        origin = lines(folder / "texts", options.documents)
        runs = {"python -c pass": [sys.executable, "-c", "pass"]}
        runs |= {f"import {name}": [sys.executable, "-c", f"import {name}"] for name in ("numpy", "numba")}
        runs |= ours(folder, options.documents, query)
        runs |= peers(folder, query, options.peers)
        used: dict[str, list[float]] = {name: [] for name in runs}
        calls = {name: partial(run, command, used[name]) for name, command in runs.items()}
        interleaved(calls, 1)  # byte code and the file cache
        seconds = interleaved(calls, options.rounds)
    bare = statistics.median(seconds["python -c pass"])
    first = statistics.median(seconds["ragistry search"])
    rows = [
        {
            "what": name,
            "seconds": round(statistics.median(times), 3),
            "least": round(min(times), 3),
            "of the processor": round(statistics.median(used[name][1:]), 3),
            "x python": round(statistics.median(times) / bare, 1),
            "x ragistry search": round(statistics.median(times) / first, 2),
        }
        for name, times in seconds.items()
    ]
    notes = f"{origin}; the query {query!r}; medians of {options.rounds} interleaved rounds"
    report("cold_start", rows, title=f"One query of {options.documents:,} documents, from the shell", notes=notes)


def ours(folder: Path, documents: int, query: str) -> dict[str, list[str]]:
    """Commands of ours, over collections made now, and with a model exported as it is after some use."""
    export(MINILM)
    draw, array = np.random.default_rng(5), str(folder / "vectors.npy")
    np.save(array, unit(draw.standard_normal((documents, 384), np.float32)))
    for kind, given in (("bm25", {}), ("dense", {"vectors": array, "model": True})):
        with Worker("with_ragistry") as worker:
            print(f"filling a collection with {documents:,} documents ({kind}) ...", flush=True)
            worker("build", kind=kind, texts=str(folder / "texts"), folder=str(folder / kind), **given)
    ragistry = [sys.executable, "-c", "from ragistry.cli import main; main()"]
    return {
        "ragistry --help": [*ragistry, "--help"],
        "ragistry search": [*ragistry, "search", str(folder / "bm25"), query],
        "ragistry search --json": [*ragistry, "search", str(folder / "bm25"), query, "--json"],
        "ragistry search, dense": [*ragistry, "search", str(folder / "dense"), query],
    }


def peers(folder: Path, query: str, wanted: Sequence[str]) -> dict[str, list[str]]:
    """Commands of peers, over what they save now; those that are absent are left out."""
    found: dict[str, list[str]] = {}
    if "bm25s" in wanted:
        saved("bm25s", [sys.executable, "-c", SAVE_BM25S, str(folder / "bm25s"), str(folder / "texts")])
        found["bm25s"] = [sys.executable, "-c", BM25S, str(folder / "bm25s"), query]
    if "sentence-transformers" in wanted:
        model = str(Backbone(MINILM).layout().folder)
        found["sentence-transformers"] = [
            sys.executable,
            "-c",
            SENTENCE_TRANSFORMERS,
            str(folder / "vectors.npy"),
            query,
            model,
        ]
    if "txtai" in wanted and installed("txtai"):
        there = str(python("txtai"))
        saved("txtai", [there, "-c", SAVE_TXTAI, str(folder / "txtai"), str(folder / "texts")])
        found["txtai"] = [there, "-c", TXTAI, str(folder / "txtai"), query]
    return found


def saved(name: str, command: list[str]) -> None:
    """Let a peer save an index."""
    print(f"filling an index of {name} ...", flush=True)
    run(command, [])


def run(command: list[str], used: list[float]) -> None:
    """Run a command, and note the seconds of the processor it took; the script ends with what it said if it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    if done.returncode:
        raise SystemExit(f"{command[:1]} {command[3:]} failed:\n{done.stderr[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


if __name__ == "__main__":
    main()

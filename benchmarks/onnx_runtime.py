"""Encoding by ONNX Runtime and OpenVINO beside torch and sentence-transformers: documents a second, one query's time, the
first answer of a fresh process, and what int8 and bf16 cost on the queries at hand.

    python benchmarks/onnx_runtime.py [--rounds 3] [--limit 60] [--queries 40]

The model is all-MiniLM-L6-v2, the texts are SciFact's. The script is not called onnx.py, which would hide the package.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from common import data, interleaved, jsonl, median_ratio, report, required
from sentence_transformers import SentenceTransformer

from ragistry import Collection, Document, create
from ragistry.encoders.backbones import Backbone, stack
from ragistry.encoders.exporting import agreement, export
from ragistry.encoders.onnx import Onnx
from ragistry.models import MINILM
from ragistry.protocols import Encoder

PEER = "sentence-transformers"
REFERENCE = "torch, fp32"


def main() -> None:
    """Measure, print and write results/onnx.json and results/onnx_start.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=int, default=60, help="documents, evenly spread")
    parser.add_argument("--queries", type=int, default=40, help="asked one at a time; ten times as many are compared")
    options = parser.parse_args()
    documents = [f"{d['title']}\n{d['text']}" for d in jsonl(required(data("scifact") / "corpus.jsonl"))]
    documents = [documents[i] for i in np.linspace(0, len(documents) - 1, options.limit).astype(int)]
    queries = [q["text"] for q in jsonl(required(data("scifact") / "queries.jsonl"))][: 10 * options.queries]
    export(MINILM)
    export(MINILM, "int8")
    encoding(documents, queries, options.queries, options.rounds)
    starting(documents, queries[0], options.rounds)


def encoding(documents: list[str], queries: list[str], single: int, rounds: int) -> None:
    """Speeds of runtimes that are loaded, and what each would change."""
    peer = SentenceTransformer(str(Backbone(MINILM).layout().folder), device="cpu")
    ours: Mapping[str, Encoder] = {
        REFERENCE: stack(MINILM, precision="fp32"),
        "torch, bf16": stack(MINILM, precision="bf16"),
        "onnx": Onnx(MINILM),
        "openvino": Onnx(MINILM, engine="openvino"),
        "onnx-int8": Onnx(MINILM, variant="int8"),
    }
    bulk: dict[str, Callable[[], object]] = {PEER: lambda: peer.encode(documents)}
    alone: dict[str, Callable[[], object]] = {PEER: lambda: [peer.encode([query]) for query in queries[:single]]}
    for name, encoder in ours.items():
        bulk[name] = partial(encoder.encode, documents, "document")
        alone[name] = lambda encoder=encoder: [encoder.encode([query], "query") for query in queries[:single]]
    interleaved(alone, 1)  # load
    seconds, waits = interleaved(bulk, rounds), interleaved(alone, rounds)
    rows = []
    for name in bulk:
        cost = agreement(ours[REFERENCE], ours[name], queries, documents) if name in ours else None
        rows.append(
            {
                "runtime": name,
                "documents/s": round(len(documents) / statistics.median(seconds[name]), 1),
                "x peer": round(median_ratio(seconds, PEER, name), 2),
                "query ms": round(1000 * statistics.median(waits[name]) / single, 1),
                "x peer's query": round(median_ratio(waits, PEER, name), 2),
                "cosine": cost and cost.cosine,
                "least": cost and cost.least,
                "same of 10": cost and round(cost.overlap, 3),
                "same first": cost and round(cost.first, 3),
            }
        )
    notes = (
        f"{MINILM}, {len(documents)} SciFact documents, {single} queries one at a time; medians of interleaved rounds, "
        f"loading left out; cosines of {len(queries)} queries to {REFERENCE}, and what is found among the documents"
    )
    report("onnx", rows, title="Encoding without torch", notes=notes)


def starting(documents: list[str], query: str, rounds: int) -> None:
    """The first answer of a fresh process."""
    rows = []
    with TemporaryDirectory() as folder:
        runs: dict[str, Callable[[], object]] = {"python": partial(python, "pass")}
        for runtime in ("torch", "onnx", "openvino"):
            place = Path(folder) / runtime
            with Collection.create(place, create("dense", model=MINILM, runtime=runtime)) as some:
                some.add([Document(str(number), text) for number, text in enumerate(documents)])
            runs[f"ragistry search, {runtime}"] = partial(
                python, "from ragistry.cli import main; main()", "search", str(place), query
            )
        interleaved(runs, 1)  # compile to byte code
        seconds = interleaved(runs, rounds)
        for name, times in seconds.items():
            rows.append({"what": name, "seconds": round(statistics.median(times), 2)})
    report("onnx_start", rows, title="First answer", notes=f"medians of {rounds} interleaved rounds of fresh processes")


def python(*given: str) -> None:
    """Run code in a fresh interpreter."""
    subprocess.run([sys.executable, "-c", *given], check=True, capture_output=True, env=os.environ)


if __name__ == "__main__":
    main()

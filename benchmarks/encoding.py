"""Documents encoded in a second, and one query's time, beside sentence-transformers: same model, texts and process.

    python benchmarks/encoding.py [--rounds 5] [--limit 400]

The model is all-MiniLM-L6-v2, the texts are SciFact's abstracts. Ours runs as it does once the model was exported, which is
by OpenVINO, and by torch. sentence-transformers runs with its defaults (batch size 32, all cores) and with other batch sizes
and numbers of threads, in fp32; the defaults give the reference for cosines.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from common import data, interleaved, jsonl, median_ratio, report, required
from sentence_transformers import SentenceTransformer

from ragistry.encoders.backbones import Backbone, stack
from ragistry.encoders.exporting import export
from ragistry.encoders.named import encoder
from ragistry.models import MINILM
from ragistry.protocols import Encoder

PEER = "sentence-transformers"
DEFAULT = f"{PEER}, defaults"


def main() -> None:
    """Measure, print and write results/encoding.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--limit", type=int, help="documents to encode (evenly spread; 400 by default, 0 for all 5,183)", default=400
    )
    options = parser.parse_args()
    documents = [f"{d['title']}\n{d['text']}" for d in jsonl(required(data("scifact") / "corpus.jsonl"))]
    if options.limit and options.limit < len(documents):
        documents = [documents[i] for i in np.linspace(0, len(documents) - 1, options.limit).astype(int)]
    queries = [q["text"] for q in jsonl(required(data("scifact") / "queries.jsonl"))][:40]

    peer = SentenceTransformer(str(Backbone(MINILM).layout().folder), device="cpu")
    export(MINILM)
    ours: dict[str, Encoder] = {
        "ragistry": encoder(MINILM),
        "ragistry, torch": stack(MINILM),
        "ragistry, torch, fp32": stack(MINILM, precision="fp32"),
    }
    bulk: dict[str, Callable[[], np.ndarray]] = {DEFAULT: lambda: peer.encode(documents)}
    for size, threads in sorted({(8, torch.get_num_threads()), (8, 1), (32, 1)}):
        bulk[f"{PEER}, batch {size}, threads {threads}"] = partial(_peer, peer, documents, size, threads)
    single: dict[str, Callable[[], object]] = {DEFAULT: lambda: [peer.encode([query]) for query in queries]}
    for name, mine in ours.items():
        bulk[name] = lambda mine=mine: mine.encode(documents, "document")
        single[name] = lambda mine=mine: [mine.encode([query], "query") for query in queries]

    for run in single.values():
        run()
    vectors: dict[str, np.ndarray] = {}
    seconds = interleaved(
        {name: lambda n=name, f=run: vectors.update({n: f()}) for name, run in bulk.items()}, options.rounds
    )
    waits = interleaved(single, options.rounds)
    best = min((name for name in bulk if name.startswith(PEER)), key=lambda name: statistics.median(seconds[name]))
    rows = []
    for name, times in seconds.items():
        asked = waits.get(name)
        rows.append(
            {
                "encoder": name,
                "documents/s": round(len(documents) / statistics.median(times), 1),
                "x default": round(median_ratio(seconds, DEFAULT, name), 2),
                "x best peer": round(median_ratio(seconds, best, name), 2),
                "min cosine": round(float((vectors[name] * vectors[DEFAULT]).sum(axis=1).min()), 5),
                "query ms": round(1000 * statistics.median(asked) / len(queries), 1) if asked else None,
                "x query": round(median_ratio(waits, DEFAULT, name), 2) if asked else None,
            }
        )
    notes = (
        f"{MINILM}, {len(documents)} SciFact documents, {len(queries)} queries one at a time; medians of {options.rounds} "
        "interleaved rounds, loading left out; ratios within a round; cosine to sentence-transformers fp32"
    )
    report("encoding", rows, title="Encoding", notes=notes)


def _peer(peer: SentenceTransformer, documents: list[str], size: int, threads: int) -> np.ndarray:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return peer.encode(documents, batch_size=size)
    finally:
        torch.set_num_threads(before)


if __name__ == "__main__":
    main()

"""A vector store that one runs already, before and after its queries are taught: nothing in it is written or encoded again.

    python benchmarks/borrowed.py [--set nl2bash] [--pairs 300] [--seeds 3]

Qdrant, in this process and over LangChain, is filled with MiniLM's vectors as any application fills it. `borrow` learns a
map for queries from pairs of `train`, looking at the store's own hits alone; `test` is then searched through the store.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from common import data, report, required
from langchain_core.embeddings import Embeddings
from langchain_qdrant import QdrantVectorStore
from qdrant_client import QdrantClient
from qdrant_client.models import Distance, VectorParams

from ragistry.borrowed import Borrowed
from ragistry.encoders.cached import Cached
from ragistry.encoders.named import encoder
from ragistry.evaluation import datasets
from ragistry.evaluation.evaluate import evaluate
from ragistry.types import Among, Ranking
from ragistry_langchain import RagistryEmbeddings, borrow

MEASURES = ["nDCG@10", "R@10"]


def main() -> None:
    """Measure, print and write results/borrowed.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", default="nl2bash", choices=["nl2bash", "conala", "scifact"])
    parser.add_argument("--pairs", type=int, nargs="+", default=[300, 2000])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    found = datasets.load(required(data(options.set)))
    train, test = found.split("train"), found.split("test")
    with tempfile.TemporaryDirectory() as directory:
        model = Cached(encoder("all-MiniLM-L6-v2"), Path(directory) / "cache.sqlite")
        store = filled(found, RagistryEmbeddings(model))
        rows = [
            {"pairs": 0, **measured(borrow(store), test), "seconds to fit": ""},
            *({"pairs": count, **taught(store, train, test, count, options.seeds)} for count in options.pairs),
        ]
    notes = (
        f"{options.set}, {len(test.qrels)} queries of test over {len(found.documents)} documents in Qdrant; means over "
        f"{options.seeds} samples of pairs of train, and their range"
    )
    report("borrowed", rows, title="A store of someone else's, its queries taught", notes=notes)


def filled(found: Any, embeddings: Embeddings) -> QdrantVectorStore:
    """A store as an application fills it."""
    client = QdrantClient(":memory:")
    size = len(embeddings.embed_query("any"))
    client.create_collection("documents", vectors_config=VectorParams(size=size, distance=Distance.COSINE))
    store = QdrantVectorStore(client, "documents", embedding=embeddings)
    documents = found.documents
    store.add_texts([one.full_text for one in documents], ids=[named(one.id) for one in documents], batch_size=512)
    return store


def named(id: str) -> str:
    """An id as Qdrant takes it."""
    return str(uuid5(NAMESPACE_OID, id))


def taught(store: Any, train: Any, test: Any, count: int, seeds: int) -> dict[str, object]:
    """The means over several samples of pairs."""
    judged = [(pair.query, named(pair.document_id)) for pair in train.pairs()]
    values: dict[str, list[float]] = {measure: [] for measure in MEASURES}
    seconds = []
    for seed in range(seeds):
        mine = borrow(store)
        began = perf_counter()
        mine.fit(random.Random(seed).sample(judged, min(count, len(judged))))
        seconds.append(perf_counter() - began)
        for measure, value in measured(mine, test).items():
            values[measure].append(float(str(value)))
    means: dict[str, object] = {
        measure: f"{statistics.mean(some):.3f} ({min(some):.3f} to {max(some):.3f})" for measure, some in values.items()
    }
    return {**means, "seconds to fit": f"{statistics.median(seconds):.0f}"}


def measured(mine: Borrowed, test: Any) -> dict[str, object]:
    """Measures of a store."""

    class Through:
        """The store, as `evaluate` asks it."""

        def search(self, queries: Sequence[str], k: int = 10, *, among: Among = None) -> list[Ranking]:
            return [
                Ranking.of([hit.id for hit in hits], [hit.score for hit in hits])
                for hits in mine.search_many(queries, k)
            ]

    qrels = {query: {named(id): value for id, value in judged.items()} for query, judged in test.qrels.items()}
    found = evaluate(Through(), test.queries, qrels, MEASURES)
    return {measure: f"{found.means[measure]:.3f}" for measure in MEASURES}


if __name__ == "__main__":
    main()

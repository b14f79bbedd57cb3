"""LIMIT: what retrievers find of it, how many documents free vectors tell apart, and a witness that four dimensions do.

Run it with `python benchmarks/limit.py`; `--full` adds critical n for four dimensions, which takes minutes.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

import numpy as np
from common import data, report

from ragistry import create
from ragistry.evaluation import evaluate, load
from ragistry.evaluation.free_embedding import critical_n, witness
from ragistry.evaluation.limit import PATTERNS, graph_density, limit, query_strength
from ragistry.evaluation.tasks import Task, labelled

MEASURES = ("R@2", "R@10", "R@20")


def tasks(queries: int) -> list[Task]:
    """The released small set, where it is there, our own, and each pattern among as many documents as "disjoint" needs."""
    made = []
    if data("limit-small").is_dir():
        dataset = load("limit-small")
        test = dataset.split("test")
        made.append(labelled("limit-small (released)", dataset.documents, test.queries, test.qrels, measures=MEASURES))
    return [*made, limit(queries=queries), *(limit(name, queries=queries, documents=2 * queries) for name in PATTERNS)]


def retrieval(queries: int) -> list[dict[str, object]]:
    """A row for each task and retriever."""
    rows = []
    for task in tasks(queries):
        retrievers: dict[str, Any] = {"bm25": create("bm25"), "bm25, not stemmed": create("bm25", stemmer=None)}
        retrievers["dense"] = create("dense")
        for retriever in retrievers.values():
            retriever.add(task.documents)
        hybrid = create("hybrid")
        hybrid.members.update(bm25=retrievers["bm25"], dense=retrievers["dense"])  # need not be made twice
        retrievers["hybrid"] = hybrid
        for name, retriever in retrievers.items():
            found = evaluate(retriever, task.queries, task.qrels, MEASURES)
            rows.append(
                {
                    "task": task.name,
                    "documents": len(task.documents),
                    "density": round(graph_density(task.qrels), 5),
                    "of queries": round(graph_density(task.qrels, "queries"), 5),
                    "strength": round(query_strength(task.qrels), 2),
                    "retriever": name,
                    **{measure: round(found.means[measure], 3) for measure in MEASURES},
                }
            )
    return rows


def free(full: bool) -> list[dict[str, object]]:
    """A row for each number of dimensions."""
    proven = {2: "3", 3: "4", 4: "every number"}
    return [
        {
            "dimensions": dimensions,
            "per-pair": critical_n(dimensions, loss="per-pair"),
            "per-pair, rate 0.05": critical_n(dimensions, loss="per-pair", rate=0.05),
            "joint": critical_n(dimensions, loss="joint"),
            "can be represented": proven[dimensions],
        }
        for dimensions in (2, 3, *([4] if full else []))
    ]


def witnesses() -> list[dict[str, object]]:
    """A row for each number of documents and precision."""
    rows = []
    for documents in (46, 100, 200, 400):
        for dtype in (np.float64, np.float32):
            found = witness(documents, dtype=dtype)
            rows.append(
                {
                    "documents": documents,
                    "pairs": len(found.pairs),
                    "precision": np.dtype(dtype).name,
                    "pairs on top": f"{found.accuracy:.3%}",
                    "exact": "yes" if found.exact else "no",
                    "least margin": f"{found.margin:.1e}",
                }
            )
    return rows


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=1000, help="of each made set")
    parser.add_argument("--full", action="store_true", help="critical n for four dimensions too")
    given = parser.parse_args()
    os.environ.setdefault("RAGISTRY_DATA", str(data(".")))
    report(
        "limit_witness",
        witnesses(),
        title="Every pair of documents in four dimensions, in closed form",
        notes="Points on the trigonometric moment curve. Precision, not dimension, is what runs out.",
    )
    report(
        "limit_free",
        free(given.full),
        title="Critical n: documents of which optimised vectors return every pair",
        notes="Best of 3 seeds. From four dimensions on this is a limit of the optimisation, not of the vectors.",
    )
    report(
        "limit_retrieval",
        retrieval(given.queries),
        title="LIMIT",
        notes="density: of documents, linked if relevant to one query; of queries: linked if they share a document",
    )


if __name__ == "__main__":
    main()

"""Quality of the built-in retrievers, untuned, beside bm25s with its own tokenizer: nDCG@10 and R@100 on test queries.

Run it with `python benchmarks/quality.py`; `--sets` names other data sets (see `ragistry.evaluation.load`).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

import bm25s
import numpy as np
import Stemmer
from common import data, report, required

from ragistry import Document, Ranking, create
from ragistry.evaluation import Evaluation, compare, evaluate, load

MEASURES = ("nDCG@10", "R@100")


class Peer:
    """bm25s as its documentation sets it up: its own tokenizer, English stop words and stemmer."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self.ids = [document.id for document in documents]
        self.stemmer = Stemmer.Stemmer("english")
        self.index = bm25s.BM25()
        self.index.index(self._terms([document.full_text for document in documents]), show_progress=False)

    def search(self, queries: Sequence[str], k: int = 10, *, among: object = None) -> list[Ranking]:
        found, scores = self.index.retrieve(self._terms(queries), k=min(k, len(self.ids)), show_progress=False)
        hits = [np.flatnonzero(row > 0) for row in scores]
        return [Ranking.of([self.ids[found[i, j]] for j in kept], scores[i, kept]) for i, kept in enumerate(hits)]

    def _terms(self, texts: Sequence[str]) -> bm25s.tokenization.Tokenized:
        return bm25s.tokenize(list(texts), stopwords="en", stemmer=self.stemmer, show_progress=False)


def measure(name: str) -> list[dict[str, object]]:
    """One row for each retriever."""
    dataset = load(name)
    test = dataset.split("test")
    dense = create("dense")
    dense.add(dataset.documents)
    bm25 = create("bm25")
    bm25.add(dataset.documents)
    likelihood = create("query-likelihood")
    likelihood.add(dataset.documents)
    hybrid = create("hybrid")
    hybrid.members.update(bm25=bm25, dense=dense)  # what they hold need not be made twice
    retrievers = {"bm25s": Peer(dataset.documents), "bm25": bm25, "query-likelihood": likelihood}
    retrievers |= {"dense": dense, "hybrid": hybrid}
    found: list[Evaluation] = [
        evaluate(retriever, test.queries, test.qrels, MEASURES, name=label) for label, retriever in retrievers.items()
    ]
    against = {one.name: one for one in compare(found, "nDCG@10", baseline="hybrid")}
    return [
        {
            "data": f"{name} ({len(dataset.documents):,} documents, {len(one.run):,} queries)",
            "retriever": one.name,
            **{m: round(one.means[m], 4) for m in MEASURES},
            "hybrid's p": "" if one.name == "hybrid" else f"{against[one.name].corrected:.2g}",
        }
        for one in found
    ]


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="+", default=["scifact", "python-docs"])
    os.environ.setdefault("RAGISTRY_DATA", str(data(".")))
    rows = []
    for name in parser.parse_args().sets:
        if name != "python-docs":
            required(data(name))
        rows += measure(name)
    report(
        "quality",
        rows,
        title="Quality on test queries, untuned",
        notes="hybrid's p: of its difference in nDCG@10 from the row's, paired randomisation test, Holm-corrected",
    )


if __name__ == "__main__":
    main()

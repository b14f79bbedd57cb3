"""Adapted embeddings measured on real data: what each way of learning from pairs brings, on documents seen and unseen.

    python tests/reproduction/adder.py            # every data set, half an hour on 2 cores; writes adder.md beside it
    python tests/reproduction/adder.py --sets conala scifact

An interrupted run continues: rows are kept in `adder.json`, to be deleted after a change of the code that is measured.

Each is fitted on `train` alone, as `Collection.fit` does it (its own held-out queries choose), and measured on `test` once.
`seen` are test queries of which a relevant document also answers a training query, `unseen` the others. With the packages
llama-index-finetuning and llama-index-embeddings-adapter installed, LlamaIndex's own adapter is trained beside, by its own
defaults; without them that row is missing. Needs RAGISTRY_DATA; embeddings are kept in `adder.cache.sqlite` beside this.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np

from ragistry import Recipe, create, recipe
from ragistry.encoders.cached import Cached
from ragistry.evaluation import Evaluation, compare, evaluate, load
from ragistry.registry import Lesson

HERE = Path(__file__).parent
MEASURES = ("nDCG@1", "nDCG@3", "nDCG@5", "nDCG@10")
SETS = ("nl2bash", "conala", "python-apidocs", "scifact")
PAPER = {"form": "softmax", "rank": 64, "loss": "triplet", "negatives": "mined", "memory": False}
ARMS: dict[str, dict[str, Any]] = {
    "adder, as it is by default": {"name": "adder"},
    "adder, query side": {"name": "adder", "side": "query"},
    "ADDER (softmax dictionary, triplet, global negatives)": {"name": "adder", "side": "query", **PAPER},
    "ADDER2 (the same, both sides)": {"name": "adder", "side": "both", **PAPER},
    "low-rank linear, both sides": {"name": "adder", "rank": 64, "memory": False},
    "full linear, both sides": {"name": "adder", "memory": False},
    "Search-Adaptor style": {
        "name": "adder",
        "side": "shared",
        "loss": "logistic",
        "recovery": 0.1,
        "prediction": 0.01,
        "memory": False,
    },
    "PEFA-XS": {"name": "pefa-xs"},
    "PEFA-XS, lengths as in the paper": {"name": "pefa-xs", "keep_length": False},
    "PEFA-XL": {"name": "pefa-xl"},
}
BASE = "base (all-MiniLM-L6-v2)"
LLAMA = "LlamaIndex adapter, its own defaults"


@dataclass(frozen=True)
class Row:
    """One way of learning on one data set."""

    data: str
    pairs: int
    name: str
    means: Mapping[str, float]
    seen: float | None
    unseen: float | None
    p: float | None
    kept: str
    seconds: float


class Data:
    """A data set with every text encoded once."""

    def __init__(self, name: str) -> None:
        self.name = name
        dataset = load(name)
        self.documents = dataset.documents
        self.train, self.test = dataset.split("train"), dataset.split("test")
        self.ids = [document.id for document in self.documents]
        self.judged: dict[str, dict[str, int]] = {}
        for query, found in self.train.qrels.items():
            self.judged.setdefault(self.train.queries[query], {}).update(found)

    def retriever(self, spec: Mapping[str, Any]) -> Any:
        """A filled retriever that reads queries' embeddings from the cache as well."""
        made: Any = create(spec, cache=str(HERE / "adder.cache.sqlite"))
        made.encoder = Cached(made.encoder.encoder, made.encoder.path, ("query", "document"))
        made.add(self.documents)
        return made

    def some(self, queries: int | None, seed: int) -> dict[str, dict[str, int]]:
        """Pairs of so many training queries, drawn by a hash of text and seed."""
        order = sorted(self.judged, key=lambda text: blake2b(f"{seed} {text}".encode()).digest())
        return {text: self.judged[text] for text in (order if queries is None else order[:queries])}

    def measured(self, retriever: Any, name: str) -> Evaluation:
        """On test."""
        return evaluate(retriever, self.test.queries, self.test.qrels, MEASURES, name=name)

    def row(self, name: str, found: Evaluation, base: Evaluation, judged: Any, kept: str, seconds: float) -> Row:
        """What the table shows."""
        taught = {id for of in judged.values() for id, value in of.items() if value > 0}
        values = found.per_query["nDCG@10"]
        parts: dict[bool, list[float]] = {True: [], False: []}
        for query, value in values.items():
            seen = any(id in taught for id, relevance in self.test.qrels[query].items() if relevance > 0)
            parts[seen].append(value)
        p = None if found is base else compare([base, found], "nDCG@10", base.name)[0].p
        seen_mean, unseen_mean = (float(np.mean(parts[k])) if parts[k] else None for k in (True, False))
        return Row(self.name, len(judged), name, found.means, seen_mean, unseen_mean, p, kept, seconds)


def learnt(data: Data, spec: Mapping[str, Any], judged: Any, seed: int = 0) -> tuple[Any, str, float]:
    """A taught retriever, whether it would be kept, and the seconds from pairs to a retriever that can be searched."""
    wanted = {**spec, "seed": seed} if spec["name"] == "adder" else dict(spec)
    made = data.retriever(wanted)
    made.encoder.encode(list(judged), "query")  # encoding is the same for all; it is left out of the seconds
    began = perf_counter()
    of: Recipe = recipe(made.recipe)
    taught, fit = of.learn(made, judged, data.ids, Lesson())
    return taught, "yes" if fit.kept else "no", perf_counter() - began


def llama(data: Data, base: Any, judged: Any) -> tuple[Any, float]:
    """LlamaIndex's linear adapter, trained by its own engine with its own defaults over the same embeddings."""
    from llama_index.core.embeddings import BaseEmbedding
    from llama_index.finetuning import EmbeddingAdapterFinetuneEngine, EmbeddingQAFinetuneDataset

    texts = {document.id: document.full_text for document in data.documents}
    queries = list(judged)
    known = dict(zip(queries, base.encoder.encode(queries, "query").tolist(), strict=True))
    held = dict(zip(texts.values(), base.encoder.encode(data.documents, "document").tolist(), strict=True))

    class Looked(BaseEmbedding):  # type: ignore[misc]
        def _get_query_embedding(self, query: str) -> list[float]:
            return list(known.get(query) or held.get(query) or next(iter(held.values())))

        def _get_text_embedding(self, text: str) -> list[float]:
            return list(held.get(text) or known.get(text) or next(iter(held.values())))

        async def _aget_query_embedding(self, query: str) -> list[float]:
            return self._get_query_embedding(query)

    answers = {str(i): [id for id, value in judged[text].items() if value > 0] for i, text in enumerate(queries)}
    asked = {str(i): text for i, text in enumerate(queries) if answers[str(i)]}
    dataset = EmbeddingQAFinetuneDataset(
        queries=asked, corpus=texts, relevant_docs={key: answers[key] for key in asked}
    )
    began = perf_counter()
    with TemporaryDirectory() as folder:
        engine = EmbeddingAdapterFinetuneEngine(dataset, Looked(), model_output_path=folder, device="cpu")
        engine.finetune()
        weight = engine.model.state_dict()["linear.weight"].numpy()
    seconds = perf_counter() - began
    from ragistry.encoders.projected import Projection

    delta = np.ascontiguousarray(weight.T - np.eye(len(weight)), np.float32)
    return base.taught(data.ids, Projection("linear", {"query": {"weight": delta}})), seconds


class Rows:
    """What was measured, kept in a file from one run to the next."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.all = [Row(**row) for row in json.loads(path.read_text(encoding="utf-8"))] if path.exists() else []

    def has(self, data: str, name: str) -> bool:
        """Whether it was measured before."""
        return any((row.data, row.name) == (data, name) for row in self.all)

    def add(self, row: Row) -> None:
        """Keep and show."""
        self.all.append(row)
        self.path.write_text(json.dumps([asdict(row) for row in self.all], indent=1), encoding="utf-8")
        print(f"{row.data}: {row.name}: nDCG@10 {row.means['nDCG@10']:.3f}, {row.seconds:.1f} s", flush=True)


def measure(name: str, arms: Sequence[str], sizes: Sequence[int], seeds: Sequence[int], rows: Rows) -> None:
    """Everything on one data set that was not measured before."""
    data = Data(name)
    untaught = data.retriever({"name": "adder"})
    base = data.measured(untaught, "base")
    if not rows.has(name, BASE):
        rows.add(data.row(BASE, base, base, data.judged, "", 0.0))
    for label in arms:
        if not rows.has(name, label):
            taught, kept, seconds = learnt(data, ARMS[label], data.judged)
            rows.add(data.row(label, data.measured(taught, label), base, data.judged, kept, seconds))
    if find_spec("llama_index") and find_spec("llama_index.finetuning") and not rows.has(name, LLAMA):
        taught, seconds = llama(data, untaught, data.judged)
        rows.add(data.row(LLAMA, data.measured(taught, LLAMA), base, data.judged, "", seconds))
    for size, seed in product(sizes, seeds):
        label = f"adder, {size:,} queries, seed {seed}"
        if not rows.has(name, label):
            judged = data.some(size, seed)
            taught, kept, seconds = learnt(data, {"name": "adder"}, judged, seed)
            rows.add(data.row(label, data.measured(taught, label), base, judged, kept, seconds))


def table(rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = []
    for name in dict.fromkeys(row.data for row in rows):
        lines += [
            f"\n## {name}\n",
            "| | pairs of queries | nDCG@1 | @3 | @5 | @10 | p to base | seen @10 | unseen @10 | kept by fit | seconds |",
            "|---|---|---|---|---|---|---|---|---|---|---|",
        ]
        order = [BASE, *ARMS, LLAMA]
        own = [row for row in rows if row.data == name]
        for row in sorted(own, key=lambda row: order.index(row.name) if row.name in order else len(order)):
            means = " | ".join(f"{row.means[measure]:.3f}" for measure in MEASURES)
            parts = " | ".join("" if value is None else f"{value:.3f}" for value in (row.seen, row.unseen))
            p = "" if row.p is None else "< .001" if row.p < 0.001 else f"{row.p:.3f}"
            lines.append(f"| {row.name} | {row.pairs:,} | {means} | {p} | {parts} | {row.kept} | {row.seconds:.1f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS), metavar="NAME")
    parser.add_argument("--sizes", nargs="*", type=int, default=[100, 300, 1000], help="for nl2bash")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=HERE / "adder.md")
    given = parser.parse_args()
    rows = Rows(HERE / "adder.json")
    for name in given.sets:
        measure(name, given.arms, given.sizes if name == SETS[0] else [], given.seeds, rows)
        head = (
            "# Adapted embeddings, measured\n\n"
            f"Written by `{Path(__file__).name}` on {platform.processor() or platform.machine()}, Python "
            f"{platform.python_version()}. Fitted on train, measured on test, once. `p`: paired randomisation test on "
            "nDCG@10 against the base. `seen`: a relevant document also answers a training query. `kept by fit`: whether "
            "held-out training queries said that it helps; what would not be kept is measured all the same. Seconds are "
            "without encoding.\n"
        )
        given.output.write_text(head + table(rows.all), encoding="utf-8")
    sys.stdout.write(table(rows.all))


if __name__ == "__main__":
    main()

"""Late interaction with all tokens and with fewer, measured.

    python tests/reproduction/crisp.py                    # half an hour on 2 idle cores; writes crisp.md beside it
    python tests/reproduction/crisp.py --sets cranfield --trained "all tokens" C8x32

MiniLM's token vectors as they are, unprojected: one vector a text (dense), all tokens (MaxSim), and every reducer of the
paper: the last ones (Tail), every n-th (K), so many clusters (C, queries x documents), a share of them (C25, C50); besides,
clusters of documents alone (Cx8, Cx32), which are what an index stores. Each after the fact, and some of them with the model
trained for queries through the reducer, on pairs of train, or on pairs made from the documents where there is no train.
Documents are encoded once and are those of the untrained model throughout. All documents are compared; test questions are
asked once. An interrupted run continues: rows are kept in `crisp.json`, to be deleted after a change of the code. Needs
RAGISTRY_DATA.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from ragistry.encoders.backbones import stack
from ragistry.encoders.multi import TokenStack, token_stack
from ragistry.encoders.reducing import Reducer
from ragistry.encoders.steps.clusters import Clusters
from ragistry.encoders.tuned import Tuned
from ragistry.evaluation import load
from ragistry.evaluation.significance import randomisation_test
from ragistry.indexes.maxsim import MaxSim
from ragistry.training.crossfit import Judge
from ragistry.training.examples import judgements
from ragistry.training.losses.late import maxsim
from ragistry.training.matching import Matching, Texts, filled, matched
from ragistry.training.own_pairs import own_pairs
from ragistry.training.teaching import relevance
from ragistry.types import Floats, Ints, MultiVectors, Role

HERE = Path(__file__).parent
SETS = {"cranfield": None, "scifact": "train", "msmarco-mini": "train_weak", "limit-small": None}
"""With the questions to learn from."""
MEASURES = {"limit-small": "R@10"}
DENSE, ALL = "one vector", "all tokens"
ARMS: dict[str, tuple[Reducer | None, Reducer] | None] = {
    ALL: None,
    "Tail4x8": (Reducer("tail", 4), Reducer("tail", 8)),
    "Tail8x32": (Reducer("tail", 8), Reducer("tail", 32)),
    "K4": (Reducer("spacing", 4), Reducer("spacing", 4)),
    "K2": (Reducer("spacing", 2), Reducer("spacing", 2)),
    "C4x8": (Reducer("fixed", 4), Reducer("fixed", 8)),
    "C8x32": (Reducer("fixed", 8), Reducer("fixed", 32)),
    "Cx8": (None, Reducer("fixed", 8)),
    "Cx32": (None, Reducer("fixed", 32)),
    "C25": (Reducer("relative", 0.25), Reducer("relative", 0.25)),
    "C50": (Reducer("relative", 0.5), Reducer("relative", 0.5)),
}
TRAINED = (ALL, "C4x8", "C8x32", "Cx32")
PAIRS = 800
"""Made from documents where there are none to learn from, and the most that are learnt from."""


@dataclass(frozen=True)
class Row:
    """One arm on one set; `values` are of each test question, `vectors` the mean of a document's and of a query's."""

    data: str
    arm: str
    trained: bool
    values: Sequence[float]
    vectors: tuple[float, float]
    seconds: float


class Data:
    """Documents with their token vectors, test questions, and pairs to learn from."""

    def __init__(self, name: str, length: int | None) -> None:
        found = load(name)
        self.name = name
        self.stack = token_stack(document_length=length)
        self.documents = list(found.documents)
        self.ids = [document.id for document in self.documents]
        self.held = encoded(self.stack, self.documents)
        test = found.split("test")
        self.asked = list(test.queries.values())
        judged = {text: dict(test.qrels[id]) for id, text in test.queries.items()}
        self.judge = Judge(relevance(self.asked, known(judged, self.ids), self.ids), self.ids, measure_of(name))
        if split := SETS[name]:
            train = found.split(split)
            self.pairs = known({text: dict(train.qrels[id]) for id, text in train.queries.items()}, self.ids)
        else:
            self.pairs = judgements(own_pairs(self.documents, queries=PAIRS, seed=0))
        self.pairs = dict(list(self.pairs.items())[:PAIRS])

    def reduced(self, arm: str) -> MultiVectors:
        """The documents' vectors."""
        reducers = ARMS[arm]
        return self.held if reducers is None else reducers[1].reduce(self.held)

    def encoder(self, arm: str) -> TokenStack:
        """The encoder with the reducers of an arm."""
        reducers = ARMS[arm]
        if reducers is None:
            return self.stack
        given: dict[Role, Reducer | None] = {"query": reducers[0], "document": reducers[1]}
        of = {role: reducer for role, reducer in given.items() if reducer is not None}
        return self.stack.over(self.stack.backbone, [*self.stack.steps, Clusters(of)])

    def values(self, queries: Any, documents: Any) -> list[float]:
        """The measure of each test question."""

        def scores(rows: Ints) -> Floats:
            if not isinstance(documents, MultiVectors):
                return np.asarray(queries[rows] @ documents.T)
            some = [queries[row] for row in rows.tolist()]
            asked = filled(MultiVectors(np.concatenate(some), np.cumsum([0, *map(len, some)])))
            parts = [
                maxsim(asked, filled(slice_of(documents, first))).numpy() for first in range(0, len(documents), 16)
            ]
            return np.concatenate(parts, axis=1)

        with torch.inference_mode():
            return [float(value) for value in self.judge.values(np.arange(len(self.asked)), scores)]


def measure_of(name: str) -> str:
    """What a set is measured by."""
    return MEASURES.get(name, "nDCG@10")


def known(judged: Mapping[str, Mapping[str, int]], ids: Sequence[str]) -> dict[str, dict[str, int]]:
    """Judgements of documents that are there."""
    there = set(ids)
    found = {text: {id: value for id, value in of.items() if id in there} for text, of in judged.items()}
    return {text: of for text, of in found.items() if of}


def encoded(encoder: TokenStack, documents: Sequence[Any]) -> MultiVectors:
    """Their vectors, some hundred documents at a time."""
    parts = [encoder.encode(documents[first : first + 256], "document") for first in range(0, len(documents), 256)]
    sizes = np.concatenate([np.diff(part.offsets) for part in parts])
    return MultiVectors(np.concatenate([part.values for part in parts]), np.concatenate([[0], np.cumsum(sizes)]))


def slice_of(vectors: MultiVectors, first: int, count: int = 16) -> MultiVectors:
    """Some of the texts."""
    offsets = vectors.offsets[first : first + count + 1]
    return MultiVectors(vectors.values[offsets[0] : offsets[-1]], offsets - offsets[0])


def measured(data: Data, arm: str, trained: bool, given: Any) -> Row:
    """One row."""
    began = perf_counter()
    if arm == DENSE:
        dense = stack(max_length=given.length)
        vectors = dense.encode(data.asked, "query"), dense.encode(data.documents, "document")
        return Row(data.name, arm, False, data.values(*vectors), (1.0, 1.0), perf_counter() - began)
    encoder, held = data.encoder(arm), data.reduced(arm)
    if trained:
        index = MaxSim(depth=None)
        index.add(data.ids, held)
        queries = list(data.pairs)
        source = Texts(encoder, queries, data.ids, index)
        settings = Matching(epochs=given.epochs, rate=given.rate, temperature=given.temperature, negatives="judged")
        weights, _ = matched(encoder, source, relevance(queries, data.pairs, data.ids), settings)
        encoder = encoder.over(Tuned(encoder.backbone, weights), encoder.steps)
    asked = encoder.encode(data.asked, "query")
    sizes = (float(np.diff(held.offsets).mean()), float(np.diff(asked.offsets).mean()))
    return Row(data.name, arm, trained, data.values(asked, held), sizes, perf_counter() - began)


def written(rows: Sequence[Row], settings: str) -> str:
    """The page."""
    lines = [
        "# Late interaction with fewer vectors, measured",
        "",
        "Written by `tests/reproduction/crisp.py`, whose first lines say what is compared. Means on test questions in",
        "percent; in brackets the share of what all tokens reach, trained alike. `+` and `-`: better or worse than that at",
        "p < 0.05 (paired randomisation).",
        "",
        f"Machine: {platform.processor() or platform.machine()}, torch {torch.__version__}. {settings}",
    ]
    for name in dict.fromkeys(row.data for row in rows):
        own = {(row.arm, row.trained): row for row in rows if row.data == name}
        lines += ["", f"## {name}: {measure_of(name)}", ""]
        lines += [
            "| | vectors a document | a query | after the fact | trained for queries |",
            "|---|---:|---:|---:|---:|",
        ]
        for arm in (DENSE, *ARMS):
            cells = [cell(own.get((arm, trained)), own.get((ALL, trained))) for trained in (False, True)]
            if one := own.get((arm, False)) or own.get((arm, True)):
                sizes = f"{one.vectors[0]:.1f} | {one.vectors[1]:.1f}"
                lines.append(f"| {arm} | {sizes} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines) + "\n"


def cell(row: Row | None, whole: Row | None) -> str:
    """The mean, its share of that of all tokens, and a mark."""
    if row is None:
        return ""
    mean = float(np.mean(row.values))
    if whole is None or whole is row:
        return f"{100 * mean:.1f}"
    difference = np.array(row.values) - np.array(whole.values)
    mark = (" +" if difference.mean() > 0 else " -") if randomisation_test(difference) < 0.05 else ""
    return f"{100 * mean:.1f} ({100 * mean / float(np.mean(whole.values)):.0f} %){mark}"


def main() -> None:
    """Measure what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS), metavar="NAME")
    parser.add_argument("--arms", nargs="+", default=[DENSE, *ARMS])
    parser.add_argument("--trained", nargs="*", default=TRAINED, help="arms that are trained as well")
    parser.add_argument("--length", type=int, help="tokens of a document; by default the model's own limit")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rate", type=float, default=2e-5)
    parser.add_argument("--temperature", type=float, default=1.0)
    given = parser.parse_args()
    kept = HERE / "crisp.json"
    rows = [Row(**row) for row in json.loads(kept.read_text())] if kept.exists() else []
    settings = f"{given.length or 256} tokens of a document, {given.epochs} epochs on at most {PAIRS} queries."
    for name in given.sets:
        data: Data | None = None
        for trained in (False, True):
            for arm in given.trained if trained else given.arms:
                if any((row.data, row.arm, row.trained) == (name, arm, trained) for row in rows):
                    continue
                data = data or Data(name, given.length)
                rows.append(measured(data, arm, trained, given))
                kept.write_text(json.dumps([asdict(row) for row in rows]))
                (HERE / "crisp.md").write_text(written(rows, settings))
                print(name, arm, trained, f"{100 * np.mean(rows[-1].values):.1f}", rows[-1].vectors, flush=True)


if __name__ == "__main__":
    main()

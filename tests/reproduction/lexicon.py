"""Learned sparse retrieval measured on real data: what a model's words add to those that are there, and what they cost.

    python tests/reproduction/lexicon.py               # every data set, half an hour on 2 idle cores; writes lexicon.md
    python tests/reproduction/lexicon.py --sets nl2bash --pairs 2000

Lexicons learn from training questions or, where there are none, from queries made of the documents; `fit` decides on some of
those whether to keep what was learnt. Test questions are asked once and choose nothing. Where nothing is kept, the
row repeats the untaught lexicon. Tables are kept in `lexicon.*.json`, to be deleted after a change of the code: an
interrupted run continues. Needs RAGISTRY_DATA.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from ragistry import Document, create
from ragistry.evaluation import Evaluation, compare, evaluate, load
from ragistry.recipes.lexicon import LexiconRecipe
from ragistry.registry import Lesson
from ragistry.retrievers.expanded import Expanded
from ragistry.training.examples import judgements
from ragistry.training.own_pairs import own_pairs

HERE = Path(__file__).parent
MEASURES = ("nDCG@10", "R@100")
SETS = {"scifact": "train", "nl2bash": "train", "msmarco-mini": "train_weak", "limit-small": None}
"""With the questions to learn from."""
ARMS: dict[str, dict[str, Any]] = {
    "fitted": {},
    "fitted, queries by words alone": {"queries": "words"},
}
BASE = "lexicon, not fitted"


@dataclass(frozen=True)
class Row:
    """One retriever on one data set; `terms` of a document, `size` of the index in bytes."""

    name: str
    found: Evaluation
    terms: float
    size: int
    note: str = ""


class Sizes:
    """Where arrays are left only to be measured."""

    def __init__(self) -> None:
        self.bytes = 0

    def put(self, array: np.ndarray[Any, Any]) -> str:
        self.bytes += array.nbytes
        return str(self.bytes)

    def get(self, name: str) -> np.ndarray[Any, Any]:
        raise KeyError(name)


class Data:
    """Documents, test questions, and what to learn from."""

    def __init__(self, name: str, most: int, pairs: int, seed: int) -> None:
        found = load(name)
        drawn = np.random.default_rng(seed).permutation(len(found.documents))[:most]
        self.name, self.documents = name, [found.documents[row] for row in sorted(drawn.tolist())]
        self.by_id = {document.id: document for document in self.documents}
        questions = found.split("test")
        self.qrels = {
            query: here
            for query, judged in questions.qrels.items()
            if any((here := {id: value for id, value in judged.items() if id in self.by_id}).values())
        }
        self.queries = {query: questions.queries[query] for query in self.qrels}
        if split := SETS[name]:
            known = found.split(split)
            answered = {
                known.queries[query]: {id: value for id, value in judged.items() if id in self.by_id}
                for query, judged in known.qrels.items()
            }
            answered = {query: judged for query, judged in answered.items() if any(judged.values())}
            order = np.random.default_rng(seed).permutation(sorted(answered)).tolist()
            self.judged: Mapping[str, Mapping[str, int]] = {query: answered[query] for query in order[:pairs]}
        else:
            self.judged = judgements(own_pairs(self.documents, queries=pairs, seed=seed))

    def texts(self, ids: Sequence[str]) -> list[Document]:
        """Documents by id."""
        return [self.by_id[id] for id in ids]

    def measured(self, name: str, made: Any, note: str = "") -> Row:
        """A filled retriever on the test questions."""
        found = evaluate(made, self.queries, self.qrels, MEASURES, name=name)
        sizes = Sizes()
        made.index.save(sizes)
        terms = made.index.vectors(list(self.by_id)).nnz / len(self.by_id) if made.index.kind == "sparse" else 0
        print(f"{self.name}: {name}: {found.means}, {terms:.0f} terms, {sizes.bytes:,} bytes {note}", flush=True)
        return Row(name, found, terms, sizes.bytes, note)


def rows(data: Data, settings: Mapping[str, Any]) -> list[Row]:
    """Words, vectors, and lexicons before and after they learn."""
    found = []
    for name, spec in (("bm25", "bm25"), ("dense", "dense")):
        made: Any = create(spec)
        made.add(data.documents)
        found.append(data.measured(name, made))
    for label, fields in ARMS.items():
        recipe = LexiconRecipe(**{**settings, **fields})
        untaught: Any = recipe.build()
        untaught.add(data.documents)
        if label == next(iter(ARMS)):
            found.append(data.measured(BASE, untaught))
        began = perf_counter()
        taught, fit = recipe.learn(untaught, data.judged, list(data.by_id), Lesson(documents=data.texts))
        note = f"{fit.chosen}; {'kept' if fit.kept else 'not kept'}: held out {fit.base:.3f} to {fit.fitted:.3f}"
        note += f", p {fit.p:.3f}, {perf_counter() - began:.0f} s"
        if fit.kept:
            expansion = taught.lexical.expansion
            found.append(data.measured(f"lexicon, {label}", taught, note))
            fewer = taught.lexical.taught(expansion)
            fewer.terms = {**fewer.terms, "document": 32}
            found.append(data.measured(f"lexicon, {label}, 32 terms", _over(taught, fewer, data)))
        else:
            found.append(replace(found[2], name=f"lexicon, {label}", note=note))
    return found


def _over(taught: Any, encoder: Any, data: Data) -> Any:
    """The same over an encoder that keeps other terms."""
    made = Expanded(encoder)
    made.add(data.documents)
    return made


def table(data: Data, found: Sequence[Row]) -> str:
    """Markdown; p against the lexicon that was not fitted."""
    base = next(row.found for row in found if row.name == BASE)
    lines = [
        f"\n## {data.name}\n",
        f"{len(data.documents):,} documents, {len(data.qrels):,} test questions, {len(data.judged):,} to learn from"
        f"{'' if SETS[data.name] else ', made of the documents'}.\n",
        "| | nDCG@10 | p | R@100 | p | terms a document | bytes | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in found:
        cells = []
        for measure in MEASURES:
            same = row.found is base
            p = 1.0 if same else compare([base, row.found], measure, base.name)[0].p
            cells += [f"{row.found.means[measure]:.3f}", "" if same else "< .001" if p < 0.001 else f"{p:.3f}"]
        terms = f"{row.terms:.0f}" if row.terms else ""
        lines.append(f"| {row.name} | {' | '.join(cells)} | {terms} | {row.size:,} | {row.note} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS), metavar="NAME")
    parser.add_argument("--documents", type=int, default=1_000_000, help="at most so many, drawn; and what they answer")
    parser.add_argument("--pairs", type=int, default=100_000, help="questions to learn from, at most")
    parser.add_argument("--made", type=int, default=1000, help="queries made of the documents, to learn from as well")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=HERE / "lexicon.md")
    given = parser.parse_args()
    written = (
        "# Lexicons, measured\n\n"
        f"Written by `{Path(__file__).name}` on {platform.processor() or platform.machine()}, Python "
        f"{platform.python_version()}, over all-MiniLM-L6-v2, seed {given.seed}, at most {given.pairs:,} questions and "
        f"{given.made:,} made queries to learn from. `p`: paired randomisation test against the lexicon before `fit`.\n"
    )
    kept = given.output.with_suffix(f".{given.documents}-{given.pairs}-{given.made}-{given.seed}.json")
    tables: dict[str, str] = json.loads(kept.read_text()) if kept.exists() else {}
    for name in given.sets:
        if name not in tables:
            data = Data(name, given.documents, given.pairs, given.seed)
            tables[name] = table(data, rows(data, {"seed": given.seed, "made": given.made}))
            kept.write_text(json.dumps(tables))
    given.output.write_text(written + "".join(tables[name] for name in SETS if name in tables), encoding="utf-8")
    sys.stdout.write(given.output.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()

"""Pseudo-relevance feedback measured on real data: what a second look brings, to precision and to recall.

    python tests/reproduction/prf.py              # every data set, some minutes on 2 cores; writes prf.md beside it
    python tests/reproduction/prf.py --sets cranfield

What is learnt (ANCE-PRF, and a lexicon in the place of BM25) takes longer and is asked for: `--learn ance lexicon`. Settings
are the recipes' defaults, which are those of the papers, or chosen by `fit` on training or development queries where there
are some; test queries chose nothing. Needs RAGISTRY_DATA. Embeddings are kept in `prf.cache.sqlite` beside this, and tables
in `prf.json`, to be deleted after a change of the code: an interrupted run continues.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from ragistry import create, recipe
from ragistry.encoders.cached import Cached
from ragistry.evaluation import Evaluation, compare, evaluate, load
from ragistry.evaluation.selection import Fit, select
from ragistry.registry import Lesson
from ragistry.retrievers.expanders import VectorPRF
from ragistry.retrievers.interpolated import Interpolated

HERE = Path(__file__).parent
MEASURES = ("nDCG@10", "R@100")
SETS = {"cranfield": None, "scifact": "train", "nl2bash": "dev", "msmarco-mini": "train_weak"}
"""With the queries that settings are chosen on."""
FUSION = {"name": "hybrid", "normalise": "min-max", "missing": "minimum"}
ARMS: dict[str, dict[str, tuple[dict[str, Any], bool]]] = {
    "bm25": {"RM3": ({"name": "rm3"}, True), "RM3, any word": ({"name": "rm3", "common": None}, False)},
    "query-likelihood": {"RM3 over query likelihood": ({"name": "rm3", "first": "query-likelihood"}, True)},
    "dense": {
        "Vector-PRF, average of 3": ({"name": "vector-prf", "mode": "average", "depth": 3}, False),
        "Vector-PRF, Rocchio of 5": ({"name": "vector-prf"}, True),
    },
    "bm25 + dense, interpolated": {
        "interpolation before feedback": ({"name": "interpolated-prf", "position": "before"}, False),
        "interpolation after feedback": ({"name": "interpolated-prf", "position": "after"}, False),
        "interpolation before and after": ({"name": "interpolated-prf"}, True),
    },
}
"""By what they look twice with: their settings, and whether `fit` is tried on them."""


@dataclass(frozen=True)
class Row:
    """One retriever on one data set."""

    name: str
    means: Mapping[str, float]
    p: Mapping[str, float]
    milliseconds: float
    note: str = ""


class Data:
    """A data set, every text of it encoded once."""

    def __init__(self, name: str, cache: Path) -> None:
        dataset = load(name)
        self.documents, self.test, self.cache = dataset.documents, dataset.split("test"), cache
        self.judged: dict[str, dict[str, int]] = {}
        if split := SETS[name]:
            chosen_on = dataset.split(split)
            known = {document.id for document in self.documents}
            for query, found in chosen_on.qrels.items():
                here = {id: value for id, value in found.items() if id in known}
                self.judged.setdefault(chosen_on.queries[query], {}).update(here)

    def retriever(self, spec: Any) -> Any:
        """A filled retriever that reads embeddings, those of queries as well, from the cache."""
        made: Any = create(spec)
        for searcher in (made, getattr(made, "searcher", None), getattr(made, "members", {}).get("dense")):
            if getattr(getattr(searcher, "encoder", None), "kind", "") == "dense":
                searcher.encoder = Cached(searcher.encoder, self.cache, ("query", "document"))  # type: ignore[union-attr]
        made.add(self.documents)
        return made

    def texts(self, ids: Sequence[str]) -> list[Any]:
        """Documents by id."""
        by_id = {document.id: document for document in self.documents}
        return [by_id[id] for id in ids]

    def learnt(self, made: Any) -> tuple[Any, Fit]:
        """A retriever that was taught by the queries that are chosen on, if that is kept, and what it brought."""
        ids = [document.id for document in self.documents]
        taught, fit = made.recipe.learn(made, self.judged, ids, Lesson(documents=self.texts))
        if hasattr(taught, "read_from"):
            taught.read_from(self.texts)
        return taught, fit

    def measured(self, made: Any, name: str) -> tuple[Evaluation, float]:
        """On test, and the milliseconds of one query alone whose embedding is there."""
        found = evaluate(made, self.test.queries, self.test.qrels, MEASURES, name=name)
        times = []
        for query in list(self.test.queries.values())[:100]:
            made.search([query], 100)
            began = perf_counter()
            made.search([query], 100)
            times.append(1000 * (perf_counter() - began))
        return found, median(times)


def rows(data: Data) -> list[Row]:
    """Every retriever beside the one that it looks twice with."""
    found = []
    for base, arms in ARMS.items():
        before, milliseconds = data.measured(data.retriever(FUSION if "+" in base else base), base)
        found.append(Row(base, before.means, {}, milliseconds))
        for name, (spec, fits) in arms.items():
            found.append(_row(data, spec, name, before))
            chosen_for = MEASURES if fits and data.judged else ()
            found += [_fitted(data, spec, f"{name}, fitted to {m}", m, before) for m in chosen_for]
    return found


def feedback_rows(data: Data) -> list[Row]:
    """ANCE-PRF beside embeddings."""
    before, milliseconds = data.measured(data.retriever("dense"), "dense")
    taught, fit = data.learnt(data.retriever("ance-prf"))
    return [
        Row("dense", before.means, {}, milliseconds),
        _measured(data, taught, "ANCE-PRF", before, _said(fit)),
    ]


def lexicon_rows(data: Data) -> list[Row]:
    """Feedback between fusions with BM25, with a lexicon, and with one that was taught."""
    found = []
    dense, plain = data.retriever("dense"), data.retriever("lexicon")
    taught, fit = data.learnt(plain)
    members = {"bm25": data.retriever("bm25"), "lexicon": plain, "lexicon, taught": taught}
    for name, sparse in members.items():
        fused = Interpolated(sparse, dense, VectorPRF(), feedback=0)
        before, milliseconds = data.measured(fused, f"{name} + dense, interpolated")
        found.append(Row(before.name, before.means, {}, milliseconds, _said(fit) if sparse is taught else ""))
        both = Interpolated(sparse, dense, VectorPRF())
        found.append(_measured(data, both, f"{name}: interpolation before and after", before))
    return found


LEARNT = {"ance": ("ANCE-PRF", feedback_rows), "lexicon": ("lexicons", lexicon_rows)}
"""What has to be taught."""


def _said(fit: Fit) -> str:
    return f"{'kept' if fit.kept else 'not kept'}: held out {fit.base:.3f} to {fit.fitted:.3f}, p {fit.p:.3f}"


def _row(data: Data, spec: Any, name: str, before: Evaluation, note: str = "") -> Row:
    return _measured(data, data.retriever(spec), name, before, note)


def _measured(data: Data, made: Any, name: str, before: Evaluation, note: str = "") -> Row:
    after, milliseconds = data.measured(made, name)
    p = {measure: compare([before, after], measure, before.name)[0].p for measure in MEASURES}
    row = Row(name, after.means, p, milliseconds, note)
    print(f"{name}: {', '.join(f'{measure} {after.means[measure]:.3f}' for measure in MEASURES)} {note}", flush=True)
    return row


def _fitted(data: Data, spec: Mapping[str, Any], name: str, measure: str, before: Evaluation) -> Row:
    """With the settings that `fit` keeps: those of before, unless others are better beyond chance."""
    made = data.retriever(spec)
    fit = select(data.judged, 0, recipe(made.recipe), made, measure=measure)
    was, now = made.recipe.model_dump(), fit.recipe.model_dump()
    changed = ", ".join(f"{field}={now[field]}" for field in now if now[field] != was[field])
    return _row(data, fit.recipe, name, before, changed if fit.kept else "nothing kept")


def table(name: str, data: Data, found: Sequence[Row]) -> str:
    """Markdown."""
    chosen = f"{len(data.judged):,} of {SETS[name]} for `fit`" if data.judged else "no others for `fit`"
    lines = [
        f"\n## {name}\n",
        f"{len(data.documents):,} documents, {len(data.test.qrels):,} test queries, {chosen}.\n",
        "| | nDCG@10 | p | R@100 | p | ms | kept by fit |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found:
        cells = []
        for measure in MEASURES:
            p = row.p.get(measure)
            cells += [f"{row.means[measure]:.3f}", "" if p is None else "< .001" if p < 0.001 else f"{p:.3f}"]
        title = row.name if row.p else f"**{row.name}**"
        lines.append(f"| {title} | {' | '.join(cells)} | {row.milliseconds:.1f} | {row.note} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS), metavar="NAME")
    parser.add_argument("--cache", type=Path, default=HERE / "prf.cache.sqlite")
    parser.add_argument("--output", type=Path, default=HERE / "prf.md")
    parser.add_argument("--learn", nargs="*", default=[], choices=list(LEARNT), help="what has to be taught as well")
    given = parser.parse_args()
    written = (
        "# Pseudo-relevance feedback, measured\n\n"
        f"Written by `{Path(__file__).name}` on {platform.processor() or platform.machine()}, Python "
        f"{platform.python_version()}, embeddings by all-MiniLM-L6-v2. `p`: paired randomisation test against the bold row "
        "above, which is the same retriever without feedback. Interpolation weighs words and embeddings alike, unless "
        "fitted. `ms`: median time of one query alone for 100 hits, its embedding known, while other work may be running.\n"
    )
    kept = given.output.with_suffix(".json")
    tables: dict[str, str] = json.loads(kept.read_text()) if kept.exists() else {}
    for name in given.sets:
        learnt = {f"{name}, {title}": found for title, found in (LEARNT[one] for one in given.learn) if SETS[name]}
        wanted = {name: rows} | learnt
        for title, found in wanted.items():
            if title not in tables:
                data = Data(name, given.cache)
                tables[title] = table(title, data, found(data))
                kept.write_text(json.dumps(tables))
    every = ["", *(f", {title}" for title, _ in LEARNT.values())]
    order = [f"{name}{title}" for name in SETS for title in every if f"{name}{title}" in tables]
    given.output.write_text(written + "".join(tables[title] for title in order), encoding="utf-8")
    sys.stdout.write(given.output.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()

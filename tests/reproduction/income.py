"""Learnt codes measured: bits and centroids, taught by pairs of one domain, or by the documents of another alone.

    python tests/reproduction/income.py           # some minutes on 2 cores; writes income.md beside it
    python tests/reproduction/income.py --seeds 0 1 2

The codes are learnt on SciFact's training pairs and measured on its test queries, and as they are on other collections
(zero-shot: maps and centroids come along, documents are coded anew). `GenQ` and `GPL` learn from a collection's documents
alone: from queries made of them and, for GPL, the scores of the vectors uncompressed; no judgement is looked at. BiDR's
codes find candidates whose vectors are read. Weights are the last of a schedule fixed beforehand: nothing is chosen by test
queries. Needs RAGISTRY_DATA; embeddings are kept in `income.cache.sqlite` beside this, or in `--cache`.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from ragistry import create
from ragistry.encoders.cached import Cached
from ragistry.evaluation import Evaluation, compare, evaluate, load
from ragistry.evaluation.selection import SIGNIFICANT
from ragistry.indexes.binary import Binary
from ragistry.indexes.faiss import Faiss
from ragistry.indexes.quantised import Codec, Quantised
from ragistry.retrievers.learned_codes import Coding, LearnedCodes
from ragistry.training.compressing import Lessons, Schedule
from ragistry.training.examples import judgements
from ragistry.training.hashing import Hashing
from ragistry.training.pseudo import Pseudo, labelled, pseudo_pairs
from ragistry.training.quantising import Quantising, TwoStage
from ragistry.training.teaching import problem_of

HERE = Path(__file__).parent
SOURCE = "scifact"
SETS = (SOURCE, "cranfield", "nq-mini")
MEASURES = ("nDCG@10", "R@100")
PARTS = 48
"""Bytes of a document, of 1,536 as float32; of bits, too."""


class Data:
    """A data set with every text encoded once."""

    def __init__(self, name: str, cache: Path) -> None:
        self.name = name
        dataset = load(name)
        self.documents = dataset.documents
        self.ids = [document.id for document in self.documents]
        self.test = dataset.split("test")
        self.judged: dict[str, dict[str, int]] = {}
        if name == SOURCE:
            for query, found in dataset.split("train").qrels.items():
                self.judged.setdefault(dataset.split("train").queries[query], {}).update(found)
        dense: Any = create("dense", cache=str(cache))
        self.encoder = Cached(dense.encoder.encoder, cache, ("query", "document"))

    def over(self, make: Any, **settings: Any) -> LearnedCodes:
        """A filled retriever over an index of codes."""
        made = LearnedCodes(self.encoder, make, Faiss, **settings)
        made.add(self.documents)
        return made

    def measured(self, retriever: Any, name: str) -> Evaluation:
        """On test."""
        return evaluate(retriever, self.test.queries, self.test.qrels, MEASURES, k=100, name=name)

    def alone(self, pseudo: Pseudo) -> Lessons:
        """What the documents alone teach."""
        judged = judgements(pseudo_pairs(self.documents, pseudo))
        problem = problem_of(self.over(Faiss), judged, self.ids)
        if pseudo.labels == "genq":
            return Lessons(problem, 0)
        return Lessons(*_swapped(labelled(problem, np.arange(len(problem.queries)), self.documents, pseudo)))


def _swapped(found: tuple[Any, Any]) -> tuple[Any, int, Any]:
    problem, labels = found
    return problem, 0, labels


def learnt(method: Any, lessons: Lessons) -> tuple[Coding, float]:
    """What a method leaves at the end of its schedule, and the seconds it took."""
    began = perf_counter()
    rows = np.flatnonzero(np.diff(lessons.problem.answers().indptr)).astype(np.int64)
    looks, _ = method.train(lessons, rows)
    return looks[max(looks)], perf_counter() - began


def arms(
    data: Data, source: Data, known: Mapping[str, Any], made: int, seed: int
) -> Iterator[tuple[str, tuple[str, ...], Any, float]]:
    """Name, the arms it is held against, retriever and seconds of training."""
    schedule, own = Schedule(seed=seed), data.name == source.name
    where = "its own pairs" if own else f"pairs of {source.name}, zero-shot"
    bits, codes = data.over(Binary), data.over(lambda: Quantised(PARTS, codec=known["codec"]))
    opq = "OPQ" if own else f"OPQ of {source.name}"
    bpr, jpq = f"BPR, {where}", f"JPQ, {where}"
    yield "signs", (), bits, 0.0
    yield bpr, ("signs",), bits.taught(data.ids, known["bpr"][0]), known["bpr"][1]
    for labels in ("genq", "gpl"):
        lessons = data.alone(Pseudo(labels, made, seed=seed))
        method = Hashing(schedule=schedule)
        coding, seconds = learnt(method, lessons)
        yield (
            f"BPR, documents alone ({labels})",
            ("signs",) if own else ("signs", bpr),
            method.taught(bits, data.ids, coding),
            seconds,
        )
    yield opq, (), codes, 0.0
    yield jpq, (opq,), codes.taught(data.ids, known["jpq"][0]), known["jpq"][1]
    mine = "OPQ" if own else "OPQ of its own documents"
    held = codes.encoded(data.ids)
    codec = known["codec"] if own else Codec.train(held, PARTS, seed=seed)
    fitted = codes if own else data.over(lambda: Quantised(PARTS, codec=codec))
    if not own:
        yield mine, (), fitted, 0.0
    for labels in ("genq", "gpl"):
        lessons = data.alone(Pseudo(labels, made, seed=seed))  # type: ignore[arg-type]
        coding, seconds = learnt(Quantising(codec, schedule=replace(schedule, size=32)), lessons)
        yield (
            f"JPQ, documents alone ({labels})",
            (mine,) if own else (mine, jpq),
            fitted.taught(data.ids, coding),
            seconds,
        )
    two = f"{opq}, then vectors of 200"
    tiered = data.over(lambda: Quantised(PARTS, codec=known["codec"]), depth=200, weight=0.3)
    yield two, (), tiered, 0.0
    coding, seconds = known["bidr"]
    yield f"BiDR, {where}", (two,), TwoStage(known["codec"]).taught(tiered, data.ids, coding), seconds


def taught_by(source: Data, seed: int) -> dict[str, Any]:
    """What each method learns from the source's pairs."""
    untaught = source.over(Faiss)
    lessons = Lessons(problem_of(untaught, source.judged, source.ids), len(source.judged))
    codec = Codec.train(lessons.problem.held, PARTS, seed=seed)
    schedule = Schedule(seed=seed)
    methods = {
        "bpr": Hashing(schedule=schedule),
        "jpq": Quantising(codec, schedule=replace(schedule, size=32)),
        "bidr": TwoStage(codec, depth=200, coarse=schedule, fine=schedule),
    }
    return {"codec": codec} | {name: learnt(method, lessons) for name, method in methods.items()}


def _held_against(other: Evaluation, evaluation: Evaluation) -> tuple[str, str]:
    """p, and what it says."""
    value = compare([other, evaluation], "nDCG@10", other.name)[0].p
    better = evaluation.means["nDCG@10"] > other.means["nDCG@10"]
    verdict = "no difference shown" if value >= SIGNIFICANT else "better" if better else "worse"
    return "< .001" if value < 0.001 else f"{value:.3f}", verdict


def table(name: str, found: Sequence[tuple[str, tuple[str, ...], Evaluation, float]]) -> str:
    """Markdown of one collection."""
    by_name = {arm: evaluation for arm, _, evaluation, _ in found}
    lines = [
        f"\n## {name}\n",
        "| | nDCG@10 | R@100 | held against | p (nDCG@10) | | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm, against, evaluation, seconds in found:
        tests = [_held_against(by_name[other], evaluation) for other in against]
        p, verdict = ("; ".join(cells) for cells in zip(*tests, strict=True)) if tests else ("", "")
        means = " | ".join(f"{evaluation.means[measure]:.4f}" for measure in MEASURES)
        lines.append(
            f"| {arm} | {means} | {'; '.join(against)} | {p} | {verdict} | {f'{seconds:.0f}' if seconds else ''} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--made", type=int, default=1000, help="queries made from documents")
    parser.add_argument("--cache", type=Path, default=HERE / "income.cache.sqlite")
    parser.add_argument("--output", type=Path, default=HERE / "income.md")
    given = parser.parse_args()
    source = Data(SOURCE, given.cache)
    text = (
        "# Learnt codes, measured\n\n"
        f"Written by `{Path(__file__).name}` on {platform.machine()}, Python {platform.python_version()}. All-MiniLM-L6-v2; "
        f"codes of {PARTS} bytes a document, 1/32 of float32; {given.made:,} queries made from documents, taken from their "
        "own words. `p`: paired randomisation tests against the arms named. Seconds are of training alone.\n"
    )
    for seed in given.seeds:
        known = taught_by(source, seed)
        for name in given.sets:
            data = source if name == SOURCE else Data(name, given.cache)
            found: list[Any] = [
                ("vectors, uncompressed", (), data.measured(data.over(Faiss), "vectors, uncompressed"), 0.0)
            ]
            for arm, against, retriever, seconds in arms(data, source, known, given.made, seed):
                found.append((arm, against, data.measured(retriever, arm), seconds))
                sys.stdout.write(f"{name}, seed {seed}: {arm}: {found[-1][2].means} {seconds:.0f} s\n")
                sys.stdout.flush()
            text += table(name if len(given.seeds) == 1 else f"{name}, seed {seed}", found)
            given.output.write_text(text, encoding="utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()

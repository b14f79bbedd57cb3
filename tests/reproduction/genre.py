"""Documents found by their names, measured: entities meant by mentions in texts, and functions meant by descriptions.

    python tests/reproduction/genre.py                        # an hour or two on 2 cores; writes genre.md beside it
    python tests/reproduction/genre.py --parts entities --seeds 1

*Entities*: which of the 292,893 names of `wiki-titles` a mention means. Taught by `el-wiki-anchors` and the other visible
sets of mentions. Two of these are first kept apart, whole, as a new set will be met: by them, with what the rest teaches,
everything is chosen (what BM25 and MiniLM are asked with, the mention alone or all of the text; the generative
retriever's penalty on length; the weights of sums). Then all are taught, and `el-aquaint` is asked once. *Mention match*
is the name that equals the mention, small and capital letters alike, or else the first one whose form without parentheses
or what follows a comma does. *Among candidates*: of each mention the 20 names nearest by BM25 and the 20 nearest by MiniLM.

*Functions*: which of the standard library's public names (`python-docs`) is described by the first sentence of its
documentation. Taught by `train` and by the documents' texts, chosen on `dev`, asked once on `test`, all that is chosen
with the same model.

The generative model is grown from MiniLM: three of its layers for an encoder, two for a decoder. An interrupted run
continues: rows are kept in `genre.json`, to be deleted after a change of the code; vectors in `genre.cache.sqlite`. Needs
RAGISTRY_DATA.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
import torch

from ragistry import Document, create
from ragistry.evaluation import load
from ragistry.evaluation.significance import randomisation_test
from ragistry.registry import Lesson
from ragistry.retrievers.fuse import Fuse
from ragistry.retrievers.generative import Generative
from ragistry.retrievers.namer import Marked, Namer
from ragistry.scorers.language_model import LanguageModel
from ragistry.training.name_pairs import Pair, forms_of
from ragistry.training.naming import Naming, lessons, said, stages

HERE = Path(__file__).parent
TRAIN = (
    "el-wiki-anchors",
    "el-derczynski",
    "el-oke-2015-train",
    "el-oke-2015-eval",
    "el-oke-2016-eval",
    "el-rss-500",
    "el-spotlight",
)
KEPT = ("el-rss-500", "el-oke-2016-eval")
"""What everything is chosen by."""
TEST = "el-aquaint"
MATCH, BM25, DENSE, ADDER, BOTH, GENRE, FUSED = (
    "mention match",
    "BM25",
    "MiniLM",
    "MiniLM + ADDER",
    "BM25 + MiniLM",
    "generative",
    "generative + BM25 + MiniLM",
)
AMONG = "{}, among candidates"
WHOLE = {BM25: "BM25, whole documents", DENSE: "MiniLM, whole documents"}
PENALTIES = (0.0, 0.5, 1.0)
SHARES = (0.0, 0.25, 0.5, 1.0)
T = TypeVar("T")
CANDIDATES = 20
ENTITIES = Naming(copies=120_000, made=0, epochs=4, encoder=0.2, size=64)
FUNCTIONS = Naming(copies=16_000, made=20_000, epochs=4, encoder=0.2, size=64)


@dataclass(frozen=True)
class Row:
    """One arm with one seed; `values` are 1 for each test query answered rightly at once, else 0."""

    part: str
    arm: str
    seed: int
    values: Sequence[float]
    tenth: float = 0.0
    """Share of the queries answered rightly among the best ten."""
    seconds: float = 0.0
    chosen: str = ""


@dataclass(frozen=True)
class Asked:
    """Queries with their answers."""

    queries: Sequence[str]
    answers: Sequence[str]


@dataclass(frozen=True)
class Data:
    """What is taught and asked; `kept` are pairs that are chosen by, and taught afterwards."""

    documents: Sequence[Document]
    learn: Sequence[Pair]
    kept: Sequence[Pair]
    choose: Asked
    test: Asked


class OfMention:
    """Asks a retriever with the mention of a query alone."""

    def __init__(self, first: Any) -> None:
        self.first = first

    def search(self, queries: Sequence[str], k: int = 10, *, among: Any = None) -> Any:
        """As the retriever does."""
        found = [Marked.of(query) for query in queries]
        return self.first.search(
            [query if one is None else one.mention for query, one in zip(queries, found, strict=True)], k, among=among
        )


class Remembered:
    """Keeps what a retriever answers, for adding it up in many ways."""

    def __init__(self, first: Any) -> None:
        self.first = first
        self.known: dict[tuple[str, int], Any] = {}

    def search(self, queries: Sequence[str], k: int = 10, *, among: Any = None) -> Any:
        """As the retriever does."""
        if among is not None:
            return self.first.search(queries, k, among=among)
        new = [query for query in dict.fromkeys(queries) if (query, k) not in self.known]
        self.known |= {(query, k): ranking for query, ranking in zip(new, self.first.search(new, k), strict=True)}
        return [self.known[query, k] for query in queries]


def answered(retriever: Any, asked: Asked, among: Sequence[Sequence[str]] | None = None) -> tuple[list[float], float]:
    """Of each query whether the first answer is right, and the share of those right among ten."""
    if among is None:
        rankings = retriever.search(list(asked.queries), 10)
    else:
        rankings = [retriever.search([q], 10, among=ids)[0] for q, ids in zip(asked.queries, among, strict=True)]
    first = [float(r.ids[:1] == (answer,)) for r, answer in zip(rankings, asked.answers, strict=True)]
    return first, float(np.mean([answer in r.ids for r, answer in zip(rankings, asked.answers, strict=True)]))


def best(candidates: Mapping[T, Any], asked: Asked) -> T:
    """The label of the candidate that is right most often."""
    return max(candidates, key=lambda label: float(np.mean(answered(candidates[label], asked)[0])))


class Match:
    """The name that equals the mention, or whose shorter form does, in the order of the names."""

    def __init__(self, names: Sequence[str]) -> None:
        self.whole: dict[str, list[str]] = {}
        self.short: dict[str, list[str]] = {}
        for name in sorted(names):
            self.whole.setdefault(name.casefold(), []).append(name)
            for form in forms_of(name, telling=False):
                if not form.endswith("s") or form in name:
                    self.short.setdefault(form.casefold(), []).append(name)

    def search(self, queries: Sequence[str], k: int = 10, *, among: Any = None) -> list[Any]:
        """All that match, best first."""
        from ragistry import Ranking

        found = []
        for query in queries:
            mention = query.casefold()
            ids = list(dict.fromkeys([*self.whole.get(mention, ()), *self.short.get(mention, ())]))[:k]
            found.append(Ranking(tuple(ids), -np.arange(len(ids), dtype=np.float32)))
        return found


def data() -> Path:
    """Where data sets lie."""
    return Path(os.environ.get("RAGISTRY_DATA") or "../shared/data")


def mentions_of(name: str) -> list[Pair]:
    """The query and title of each mention in a set."""
    lines = (data() / name / "mentions.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    return [Pair(Marked(m["left"], m["mention"], m["right"]).query, m["title"]) for m in found]


def entities() -> Data:
    """Names, pairs to learn from, and mentions to choose by and to test with."""
    titles = (data() / "wiki-titles" / "titles.txt").read_text(encoding="utf-8").splitlines()
    known = set(titles)
    pairs = {name: [pair for pair in mentions_of(name) if pair.name in known] for name in TRAIN}
    learn = [pair for name in TRAIN if name not in KEPT for pair in pairs[name]]
    kept = [pair for name in KEPT for pair in pairs[name]]
    documents = [Document(title, "", title) for title in titles]
    return Data(documents, learn, kept, asked_of(kept), asked_of(mentions_of(TEST)))


def functions() -> Data:
    """Names with their documents, pairs to learn from, and sentences to choose by and to test with."""
    data = load("python-docs")
    train, dev, test = (
        [Pair(split.queries[query], next(iter(ids))) for query, ids in split.qrels.items()]
        for split in map(data.split, ("train", "dev", "test"))
    )
    return Data(list(data.documents), train, [], asked_of(dev), asked_of(test))


def asked_of(pairs: Sequence[Pair]) -> Asked:
    """Queries apart from their answers."""
    return Asked([pair.query for pair in pairs], [pair.name for pair in pairs])


def taught(data: Data, settings: Naming) -> tuple[list[Generative], float]:
    """Generative retrievers over the names, with models taught by what is learnt from first, and by all in the end."""
    began = perf_counter()
    model = LanguageModel("all-MiniLM-L6-v2", grow="seq2seq", layers=2, encoder_layers="half", precision="fp32")
    namer = Namer(model, query_tokens=64, name_tokens=32)
    first, made = lessons(data.documents, [pair.query for pair in data.learn], "aliases", settings)
    then = [said(namer, [*data.learn, *made])]
    if data.kept:
        then.append(said(namer, [*data.learn, *data.kept, *made]))
    weights = [found for found, _ in stages(model.model, said(namer, first), then, settings)]
    seconds = perf_counter() - began
    one = Generative(namer)
    one.add(data.documents)
    return [one.tuned(found) for found in weights], seconds


def plain(part: str, data: Data) -> Any:
    """Rows of what is not generative, and the retrievers to add up with."""
    documents, choose, test, learn = data.documents, data.choose, data.test, [*data.learn, *data.kept]
    named = [Document(document.id, "", document.title) for document in documents]
    cache = str(HERE / "genre.cache.sqlite")
    rows, made = [], dict[str, Any]()
    fitted = {BM25: create("bm25"), DENSE: create("dense", cache=cache), ADDER: create("adder", cache=cache)}
    marked = any(Marked.of(query) for query in test.queries)
    for arm, retriever in fitted.items():
        retriever.add(named)
        seconds = 0.0
        if arm == ADDER:
            taught = [Pair(Marked.of(p.query).mention, p.name) if marked else p for p in learn]  # type: ignore[union-attr]
            judged: dict[str, dict[str, int]] = {}
            for query, name in taught:
                judged.setdefault(query, {})[name] = 1
            began = perf_counter()
            retriever, _ = retriever.recipe.learn(retriever, judged, [d.id for d in named], Lesson("nDCG@10"))
            seconds = perf_counter() - began
        ways = {"the mention": OfMention(retriever), "all of the text": retriever} if marked else {"": retriever}
        chosen = best(ways, choose)
        made[arm] = ways[chosen]
        values, tenth = answered(made[arm], test)
        rows.append(Row(part, arm, 0, values, tenth, seconds, chosen))
    if marked:
        values, tenth = answered(OfMention(Match([d.id for d in documents])), test)
        rows.insert(0, Row(part, MATCH, 0, values, tenth))
    else:
        for arm, retriever in ((BM25, create("bm25")), (DENSE, create("dense", cache=cache))):
            retriever.add(documents)
            made[WHOLE[arm]] = retriever
            rows.append(Row(part, WHOLE[arm], 0, *answered(retriever, test)))
    words, dense = (Remembered(made.get(WHOLE[arm], made[arm])) for arm in (BM25, DENSE))
    label, (_, both) = added({}, words, dense, choose)
    rows.append(Row(part, BOTH, 0, *answered(both, test), 0.0, label))
    return rows, made


def added(
    others: Mapping[str, Any], words: Any, dense: Any, choose: Asked
) -> tuple[str, tuple[dict[str, float], Fuse]]:
    """Others with BM25 and MiniLM, in the shares that do best."""
    sums = {}
    for found in product(SHARES, repeat=len(others) + 2):
        shares = dict(zip([*others, "words", "dense"], found, strict=True))
        if max(found) == 1 and all(shares[name] for name in others):
            label = f"weights {', '.join(f'{value:g}' for value in found)}"
            sums[label] = shares, summed({**others, "words": words, "dense": dense}, shares)
    chosen = best({label: fused for label, (_, fused) in sums.items()}, choose)
    return chosen, sums[chosen]


def summed(members: Mapping[str, Any], shares: Mapping[str, float]) -> Fuse:
    """The weighted sum of what several answer."""
    return Fuse(dict(members), dict(shares), missing="minimum", depth=50)


def generative(part: str, data: Data, others: Mapping[str, Any], seed: int) -> list[Row]:
    """The generative retriever alone, among candidates, and added up with others."""
    choose, test = data.choose, data.test
    retrievers, seconds = taught(data, replace(ENTITIES if part == "entities" else FUNCTIONS, seed=seed))
    ways = {penalty: retrievers[0].penalised(penalty) for penalty in PENALTIES}
    chosen = best(ways, choose)
    one = retrievers[-1].penalised(chosen)
    rows = [Row(part, GENRE, seed, *answered(one, test), seconds, f"length penalty {chosen:g}")]
    words, dense = (Remembered(others.get(WHOLE[arm], others[arm])) for arm in (BM25, DENSE))
    label, (shares, _) = added({"names": Remembered(ways[chosen])}, words, dense, choose)
    fused = summed({"names": one, "words": words, "dense": dense}, shares)
    rows.append(Row(part, FUSED, seed, *answered(fused, test), 0.0, label))
    if part == "entities":
        near = [words.search(list(test.queries), CANDIDATES), dense.search(list(test.queries), CANDIDATES)]
        among = [sorted({*a.ids, *b.ids}) for a, b in zip(*near, strict=True)]
        for arm, who in ((GENRE, one), (DENSE, dense)):
            rows.append(Row(part, AMONG.format(arm), seed, *answered(who, test, among)))
    return rows


def sizes(documents: Sequence[Document]) -> str:
    """Of the index, beside vectors of the same names."""
    retriever = Generative(Namer(LanguageModel("all-MiniLM-L6-v2", grow="seq2seq", layers=2)))
    retriever.add([Document(document.id, "", document.title) for document in documents])
    ids = sum(len(document.id.encode()) + 8 for document in documents)
    trie, vectors = retriever.names.nbytes, len(documents) * 384 * 4
    return (
        f"{len(documents):,} names: {trie / 1e6:.1f} MB of names as a trie, and {ids / 1e6:.1f} MB of ids, which vectors "
        f"need as well; MiniLM's vectors {vectors / 1e6:.0f} MB, {vectors / trie:.0f} times the trie."
    )


def written(rows: Sequence[Row], notes: Sequence[str]) -> str:
    """The page."""
    lines = [
        "# Documents found by their names, measured",
        "",
        "Written by `tests/reproduction/genre.py`, whose first lines say what is compared. Accuracy: percent of the test",
        "queries whose first answer is right, means over seeds of training. `+` and `-`: better or worse at",
        "p < 0.05 (paired randomisation) than `m` mention match, `d` MiniLM (over whole documents where there are such).",
        "",
        f"Machine: {platform.processor() or platform.machine()}, torch {torch.__version__}.",
    ]
    order = [MATCH, BM25, DENSE, ADDER, *WHOLE.values(), BOTH, GENRE, FUSED, AMONG.format(DENSE), AMONG.format(GENRE)]
    for part in dict.fromkeys(row.part for row in rows):
        own = {arm: [row for row in rows if (row.part, row.arm) == (part, arm)] for arm in order}
        count = len(next(row for row in rows if row.part == part).values)
        lines += ["", f"## {part.capitalize()}: {count} queries", "", "| | accuracy | among ten | seeds |"]
        lines += ["|---|---:|---:|---:|"]
        for arm in order:
            if not own[arm]:
                continue
            mean, mark = np.mean([row.values for row in own[arm]], axis=0), ""
            for sign, other in (("m", MATCH), ("d", WHOLE[DENSE] if own[WHOLE[DENSE]] else DENSE)):
                if arm != other and own[other]:
                    difference = mean - np.mean([row.values for row in own[other]], axis=0)
                    if randomisation_test(difference) < 0.05:
                        mark += f" {'+' if difference.mean() > 0 else '-'}{sign}"
            tenth = np.mean([row.tenth for row in own[arm]])
            lines.append(f"| {arm} | {100 * mean.mean():.1f}{mark} | {100 * tenth:.1f} | {len(own[arm])} |")
        chosen = [f"{row.arm}: {row.chosen} (seed {row.seed})" for row in rows if row.part == part and row.chosen]
        took = [f"{row.arm} {row.seconds:.0f} s" for row in rows if row.part == part and row.seconds]
        lines += ["", f"Chosen: {'; '.join(chosen)}.", f"Training took: {', '.join(took)}."]
    return "\n".join([*lines, *(line for note in notes for line in ("", note))]) + "\n"


def main() -> None:
    """Measure what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=["entities", "functions"])
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    kept = HERE / "genre.json"
    saved = json.loads(kept.read_text()) if kept.exists() else {"rows": [], "notes": []}
    rows, notes = [Row(**row) for row in saved["rows"]], saved["notes"]
    for part in given.parts:
        data = entities() if part == "entities" else functions()
        counts = [len(some) for some in (data.documents, data.learn, data.choose.queries)]
        print(f"{part}: {counts[0]} names, {counts[1]} pairs, {counts[2]} to choose by", flush=True)
        found, others = plain(part, data)
        rows = [row for row in rows if row.part != part or row.arm in (GENRE, FUSED) or "among" in row.arm]
        rows += found
        if part == "entities":
            notes = [sizes(data.documents)]
        for seed in range(given.seeds):
            for row in found:
                print(
                    row.arm, row.seed, row.chosen, f"{100 * np.mean(row.values):.1f} {100 * row.tenth:.1f}", flush=True
                )
            kept.write_text(json.dumps({"rows": [asdict(row) for row in rows], "notes": notes}))
            (HERE / "genre.md").write_text(written(rows, notes))
            found = []
            if not any((row.part, row.arm, row.seed) == (part, GENRE, seed) for row in rows):
                found = generative(part, data, others, seed)
                rows += found
        for row in found:
            print(row.arm, row.seed, row.chosen, f"{100 * np.mean(row.values):.1f} {100 * row.tenth:.1f}", flush=True)
        kept.write_text(json.dumps({"rows": [asdict(row) for row in rows], "notes": notes}))
        (HERE / "genre.md").write_text(written(rows, notes))


if __name__ == "__main__":
    main()

"""Documents found by their names, measured: entities meant by mentions in texts, and functions meant by descriptions.

    python tests/reproduction/genre.py                        # an hour or two on 2 cores; writes genre.md beside it
    python tests/reproduction/genre.py --parts entities --seeds 1

*Entities*: which of the 292,893 names of `wiki-titles` a mention means. Taught by `el-wiki-anchors` and the other visible
sets of mentions, less a tenth of their texts, by which everything is chosen: what BM25 and MiniLM are asked with (the
mention alone, or all of the text), the generative retriever's penalty on length, and the weights of sums. `el-aquaint` is
asked once. *Mention match* is the name that equals the mention, small and capital letters alike, or else the first one
whose form without parentheses or what follows a comma does. *Among candidates*: of each mention the 20 names nearest by
BM25 and the 20 nearest by MiniLM.

*Functions*: which of the standard library's public names (`python-docs`) is described by the first sentence of its
documentation. Taught by `train` and by the documents' texts, chosen on `dev`, asked once on `test`.

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
from hashlib import blake2b
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

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
CANDIDATES = 20
ENTITIES = Naming(copies=32_000, made=0, epochs=4, encoder=0.2)
FUNCTIONS = Naming(copies=8_000, made=6_000, epochs=3, encoder=0.2)


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


def best(candidates: Mapping[str, Any], asked: Asked) -> str:
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


def mentions_of(name: str) -> list[tuple[str, str, str]]:
    """The text, query and title of each mention in a set."""
    lines = (data() / name / "mentions.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    return [(f"{name} {m['doc']}", Marked(m["left"], m["mention"], m["right"]).query, m["title"]) for m in found]


def entities() -> tuple[list[Document], list[Pair], Asked, Asked]:
    """Names, pairs to learn from, and mentions to choose by and to test with."""
    titles = (data() / "wiki-titles" / "titles.txt").read_text(encoding="utf-8").splitlines()
    known, learn, choose = set(titles), list[Pair](), list[Pair]()
    for name in TRAIN:
        for text, query, title in mentions_of(name):
            if title in known:
                held = int.from_bytes(blake2b(text.encode(), digest_size=4).digest()) % 10 == 0
                (choose if held else learn).append(Pair(query, title))
    test = [Pair(query, title) for _, query, title in mentions_of(TEST)]
    documents = [Document(title, "", title) for title in titles]
    return documents, learn, asked_of(choose), asked_of(test)


def functions() -> tuple[list[Document], list[Pair], Asked, Asked]:
    """Names with their documents, pairs to learn from, and sentences to choose by and to test with."""
    data = load("python-docs")
    train, dev, test = (
        [Pair(split.queries[query], next(iter(ids))) for query, ids in split.qrels.items()]
        for split in map(data.split, ("train", "dev", "test"))
    )
    return list(data.documents), train, asked_of(dev), asked_of(test)


def asked_of(pairs: Sequence[Pair]) -> Asked:
    """Queries apart from their answers."""
    return Asked([pair.query for pair in pairs], [pair.name for pair in pairs])


def taught(documents: Sequence[Document], learn: Sequence[Pair], settings: Naming) -> tuple[Generative, float]:
    """A generative retriever over the names, its model taught."""
    began = perf_counter()
    model = LanguageModel("all-MiniLM-L6-v2", grow="seq2seq", layers=2, encoder_layers="half", precision="fp32")
    namer = Namer(model, query_tokens=64, name_tokens=32)
    first, made = lessons(documents, [pair.query for pair in learn], "aliases", settings)
    [(weights, _)] = stages(model.model, said(namer, first), [said(namer, [*learn, *made])], settings)
    retriever = Generative(namer.tuned(weights))
    seconds = perf_counter() - began
    retriever.add(documents)
    return retriever, seconds


def plain(part: str, documents: Sequence[Document], choose: Asked, test: Asked, learn: Sequence[Pair]) -> Any:
    """Rows of what is not generative, and the retrievers to add up with."""
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
    label, both = added({}, words, dense, choose)
    rows.append(Row(part, BOTH, 0, *answered(both, test), 0.0, label))
    return rows, made


def added(others: Mapping[str, Any], words: Any, dense: Any, choose: Asked) -> tuple[str, Fuse]:
    """Others with BM25 and MiniLM, in the shares of these that do best."""
    sums = {}
    for first, second in product(SHARES, SHARES):
        weights = dict.fromkeys(others, 1.0) | {"words": first, "dense": second}
        if sum(weights.values()):
            members = {**others, "words": words, "dense": dense}
            label = f"weights {', '.join(f'{value:g}' for value in weights.values())}"
            sums[label] = Fuse(members, weights, missing="minimum", depth=50)
    chosen = best(sums, choose)
    return chosen, sums[chosen]


def generative(part: str, data: Any, others: Mapping[str, Any], seed: int) -> list[Row]:
    """The generative retriever alone, among candidates, and added up with others."""
    documents, learn, choose, test = data
    retriever, seconds = taught(documents, learn, replace(ENTITIES if part == "entities" else FUNCTIONS, seed=seed))
    ways = {f"length penalty {penalty}": retriever.penalised(penalty) for penalty in PENALTIES}
    chosen = best(ways, choose)
    one = ways[chosen]
    rows = [Row(part, GENRE, seed, *answered(one, test), seconds, chosen)]
    words, dense = (Remembered(others.get(WHOLE[arm], others[arm])) for arm in (BM25, DENSE))
    names = Remembered(one)
    label, fused = added({"names": names}, words, dense, choose)
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
        documents, learn, choose, test = data
        print(part, len(documents), "names,", len(learn), "pairs,", len(choose.queries), "to choose by", flush=True)
        found, others = plain(part, documents, choose, test, learn)
        rows = [row for row in rows if row.part != part or row.arm in (GENRE, FUSED) or "among" in row.arm]
        rows += found
        if part == "entities":
            notes = [sizes(documents)]
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

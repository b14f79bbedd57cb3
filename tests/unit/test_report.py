"""The page that compares retrievers: what stands in it, that nothing in it comes alive, and that it stays small."""

from __future__ import annotations

import json
import random
import re
from base64 import b64encode
from collections.abc import Collection, Mapping
from hashlib import sha256
from html import unescape
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from ragistry import Analyzer, Document, Ranking
from ragistry.errors import InvalidInput
from ragistry.evaluation import report as module
from ragistry.evaluation.evaluate import measure_run
from ragistry.evaluation.leaderboard import Cost, Leaderboard, leaderboard
from ragistry.evaluation.report import report
from ragistry.passages import find

DOCUMENTS = {
    "a": Document("a", "Sonnets have fourteen lines. " * 3, title="On sonnets"),
    "b": Document("b", "A haiku has three lines."),
    "c": Document("c", "Nothing of interest."),
}
QUERIES = {"q1": "sonnet lines", "q2": "haiku"}
QRELS = {"q1": {"a": 2, "c": 0}, "q2": {"b": 1, "z": 1}}
RUNS = {
    "good": {"q1": Ranking.of(["a", "b"], [2.0, 1.0]), "q2": Ranking.of(["b"], [1.23456])},
    "bad": {"q1": Ranking.of(["c"], [3.0]), "q2": Ranking.of([], [])},
}
HOSTILE = "</script><script>alert(1)</script><!-- \u2028 <b>&amp;{{data}} \u202e\x00 'quoted\" \U0001f600"


def board(runs: Mapping[str, Mapping[str, Ranking]] = RUNS, name: str = "poems", **settings: Any) -> Leaderboard:
    found = [measure_run(run, QRELS, ["nDCG@10", "R@2"], name=retriever) for retriever, run in runs.items()]
    return leaderboard(name, found, QUERIES, QRELS, documents=3, **settings)


def known(ids: Collection[str]) -> dict[str, Document]:
    return {id: DOCUMENTS[id] for id in ids if id in DOCUMENTS}


def data_of(page: str) -> Any:
    [found] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    return json.loads(found)


class Elements(HTMLParser):
    """All elements of a page with their attributes, and the texts of scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.raw: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] in ("script", "style") and data.strip():
            self.raw.append((self.elements[-1][0], data))


def test_what_stands_in_the_page() -> None:
    cost = Cost(1.5, 2_000, 3_000, 0.5, 0.9, 2_000.0)
    made = board(
        costs={"good": cost},
        settings={"good": {"k1": 1.2, "stop_words": None}},
        notes=["One was left out."],
        uniqueness=0.5,
    )
    data = data_of(report([made], known, title="Poems"))
    [found] = data["boards"]
    assert (found["task"], found["documents"], found["total"]) == ("poems", 3, 2)
    assert (found["notes"], found["uniqueness"], found["measures"]) == (["One was left out."], 0.5, ["nDCG@10", "R@2"])
    assert found["verdict"] == made.verdict()
    good, bad = found["retrievers"]
    assert (good["name"], good["against"], good["means"][1]) == ("good", None, 0.75)
    assert good["cost"]["p50_ms"] == 0.5 and set(bad["cost"].values()) == {None}
    assert good["settings"] == {"k1": "1.2", "stop_words": "null"}
    assert bad["against"]["difference"] == pytest.approx(bad["means"][0] - good["means"][0])
    assert found["pairs"] == [[[2, 0, 0], [2, 0, 0]]]


def test_what_stands_in_the_page_of_a_query() -> None:
    data = data_of(report([board()], known))
    first, second = sorted(data["boards"][0]["queries"], key=lambda query: query["id"])
    names = [row[0] for row in data["documents"]]
    assert [[names[i] for i in hits] for hits in first["hits"]] == [["a", "b"], ["c"]]
    assert first["scores"] == [[2.0, 1.0], [3.0]] and second["scores"] == [[1.235], []]
    assert [(names[i], level) for i, level in first["relevant"]] == [("a", 2)]
    assert {(names[i], level) for i, level in second["relevant"]} == {("b", 1), ("z", 1)}
    assert first["values"] == [[10_000, 10_000], [0, 0]]
    assert data["documents"][names.index("a")] == ["a", "On sonnets"]
    assert data["documents"][names.index("z")] == ["z"], "unknown documents have their id"
    assert str(names.index("z")) not in second["passages"]


def test_marks_fall_on_the_words_that_match() -> None:
    data = data_of(report([board()], known))
    query = next(query for query in data["boards"][0]["queries"] if query["id"] == "q1")
    text, title = query["passages"]["0"]
    assert "".join(text) == DOCUMENTS["a"].text.strip()
    assert set(text[1::2]) == {"Sonnets", "lines"} and title == ["On ", "sonnets", ""]


def test_words_match_as_their_retriever_sees_them() -> None:
    exact = {"stemmer": None, "stop_words": None, "identifiers": True}

    def marks(**how: Any) -> list[str]:
        data = data_of(report([board(settings=how.get("settings"))], known, analyzers=how.get("analyzers")))
        query = next(query for query in data["boards"][0]["queries"] if query["id"] == "q1")
        return sorted(set(query["passages"]["0"][0][1::2]))

    assert marks() == ["Sonnets", "lines"]
    assert marks(settings={"good": exact}) == ["lines"]
    assert marks(analyzers={"good": Analyzer(stemmer=None)}) == ["lines"]


@pytest.mark.parametrize(
    "text",
    ["see os.path.join here", "getUserName", "東京都庁", "x" * 500 + " os.path " + "y" * 500, "", "\U0001f600 path"],
)
def test_parts_of_a_passage_give_its_text(text: str) -> None:
    analyzer = Analyzer()
    found = find(text, analyzer.terms("os.path.join user name 東京 path"), analyzer)
    parts = module._segments(found)
    assert len(parts) % 2 == 1
    assert "".join(parts) == ("… " if found.before else "") + found.text + (" …" if found.after else "")
    held = {i for start, end in found.marks for i in range(start, end)}
    assert sum(map(len, parts[1::2])) == len(held) and all(parts[1::2])


def test_below_the_ten_first() -> None:
    ids = [f"d{i:02}" for i in range(30)]
    run = {"q1": Ranking.of(ids, np.arange(30, 0, -1)), "q2": Ranking.of([], [])}
    qrels = {"q1": {"d00": 1, "d17": 1, "gone": 3}, "q2": {"b": 1}}
    made = leaderboard("deep", [measure_run(run, qrels, ["R@100"], name="one")], QUERIES, qrels)
    data = data_of(report([made], known))
    query = next(query for query in data["boards"][0]["queries"] if query["id"] == "q1")
    names = [row[0] for row in data["documents"]]
    assert [names[i] for i in query["hits"][0]] == ids[:10] and query["depth"] == [30]
    assert [[(names[i], rank) for i, rank in found] for found in query["further"]] == [[("d17", 18)]]
    assert [(names[i], level) for i, level in query["relevant"]] == [("gone", 3), ("d00", 1), ("d17", 1)]


def test_many_relevant_documents_are_counted() -> None:
    qrels = {"q1": {f"r{i:03}": 1 for i in range(100)}}
    made = leaderboard(
        "many", [measure_run({"q1": Ranking.of(["r000"], [1.0])}, qrels, ["R@10"], name="one")], {}, qrels
    )
    [query] = data_of(report([made], known))["boards"][0]["queries"]
    assert len(query["relevant"]) == 21 and query["unnamed"] == 79
    assert query["text"] == "q1", "a query without text has its id"


def test_nothing_comes_alive() -> None:
    documents = {id: Document(id, HOSTILE + f" sonnet {id}", title=HOSTILE) for id in ("a", "b", f"c{HOSTILE}")}
    runs = {
        f"one {HOSTILE}": {"q1": Ranking.of(list(documents), [3.0, 2.0, 1.0]), "q2": Ranking.of([], [])},
        "two": {"q1": Ranking.of(["b"], [1.0]), "q2": Ranking.of(["a"], [1.0])},
    }
    found = [measure_run(run, QRELS, ["nDCG@10"], name=name) for name, run in runs.items()]
    made = leaderboard(
        HOSTILE, found, {"q1": HOSTILE, "q2": HOSTILE}, QRELS, notes=[HOSTILE], settings={"two": {HOSTILE: HOSTILE}}
    )
    page = report([made, board()], lambda ids: documents, title=HOSTILE)
    elements = Elements(page)
    assert [tag for tag, _ in elements.elements].count("script") == 2
    assert not {tag for tag, _ in elements.elements} & {"b", "img", "iframe", "object", "base", "form"}
    data = data_of(page)
    assert data["boards"][0]["task"].startswith("</script><script>alert(1)</script><!--")
    assert "{{data}}" in data["boards"][0]["notes"][0]
    assert not re.search("[\0-\x08\x7f-\x9f\u2028-\u202e\u2066-\u2069]", page)


def test_the_page_asks_for_nothing() -> None:
    page = report([board(), board(name="again")], known)
    elements = Elements(page)
    links = [
        value for _, attributes in elements.elements for name, value in attributes.items() if name in ("src", "href")
    ]
    assert links == ["data:,"], "an icon of no bytes, so that none is asked for"
    assert not [
        attributes
        for _, attributes in elements.elements
        if "style" in attributes or set(attributes) & {"onclick", "onload"}
    ]
    assert not re.search(r"https?:|url\(|@import|import\(|fetch\(|XMLHttp|WebSocket|innerHTML|eval\(", page)
    [policy] = [a["content"] for tag, a in elements.elements if tag == "meta" and "http-equiv" in a]
    sources = [text for _, text in elements.raw]
    style, script = sources[0], sources[-1]
    for kind, source in (("style", style), ("script", script)):
        digest = b64encode(sha256(source.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in str(policy)
    assert str(policy).startswith("default-src 'none';") and "unsafe" not in str(policy)


def test_without_scripts_the_verdict_is_there() -> None:
    page = report([board({"a<b>": RUNS["good"]})], known)
    [plain] = re.findall("<noscript>(.*?)</noscript>", page, re.S)
    assert board({"a<b>": RUNS["good"]}).verdict() in unescape(plain)
    assert "a&lt;b&gt;" in plain and "<th>nDCG@10</th>" in plain


def test_one_retriever_and_one_query() -> None:
    made = board({"alone": RUNS["good"]})
    [found] = data_of(report([made], known))["boards"]
    assert found["pairs"] == [] and found["retrievers"][0]["against"] is None
    qrels = {"q1": {"a": 1}}
    single = leaderboard("single", [measure_run(RUNS["good"], qrels, ["P@1"], name="x")], QUERIES, qrels)
    [found] = data_of(report([single], known))["boards"]
    assert found["retrievers"][0]["intervals"] == [None] and found["total"] == 1


def test_costs_that_are_no_numbers_are_left_out() -> None:
    made = board(costs={"good": Cost(p50_ms=float("nan"), p95_ms=float("inf"), index_bytes=0)})
    cost = data_of(report([made], known))["boards"][0]["retrievers"][0]["cost"]
    assert cost["p50_ms"] is None and cost["p95_ms"] is None and cost["index_bytes"] == 0


def test_no_leaderboard() -> None:
    with pytest.raises(InvalidInput, match="at least one"):
        report([], known)


def large(queries: int, retrievers: int, documents: int, found: int = 100) -> tuple[Leaderboard, dict[str, Document]]:
    """A comparison of rankings drawn at random."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(3, 9))) for _ in range(2_000)]
    texts = [" ".join(draw.choices(words, k=260))[:1_500] for _ in range(documents)]
    docs = {f"doc-{i:05}": Document(f"doc-{i:05}", text, title=text[:60]) for i, text in enumerate(texts)}
    ids, scores = list(docs), np.arange(found, 0, -1)
    qrels = {f"q{i}": {draw.choice(ids): 1} for i in range(queries)}
    runs = [{query: Ranking(tuple(draw.sample(ids, found)), scores) for query in qrels} for _ in range(retrievers)]
    for run in runs:
        for query in draw.sample(list(qrels), queries // 2):
            rest = [id for id in run[query].ids if id not in qrels[query]]
            run[query] = Ranking((*qrels[query], *rest[: found - 1]), scores)
    measured = [measure_run(run, qrels, ["nDCG@10", "R@100"], name=f"retriever {i}") for i, run in enumerate(runs)]
    return leaderboard("large", measured, {query: " ".join(draw.choices(words, k=8)) for query in qrels}, qrels), docs


def test_a_thousand_queries_of_five_retrievers_stay_small() -> None:
    made, docs = large(1_000, 5, 5_000)
    page = report([made], lambda ids: {id: docs[id] for id in ids})
    assert len(page.encode()) < 5_000_000
    [found] = data_of(page)["boards"]
    assert len(found["queries"]) == 1_000
    assert 100 < found["passages"] < 1_000
    assert sum("passages" in query for query in found["queries"]) == found["passages"]
    spreads = [max(v[0] for v in query["values"]) - min(v[0] for v in query["values"]) for query in found["queries"]]
    assert spreads == sorted(spreads, reverse=True)


def test_of_too_many_queries_some_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUERIES", 100)
    made, docs = large(500, 2, 300, 20)
    page = report([made], lambda ids: {id: docs[id] for id in ids})
    [found] = data_of(page)["boards"]
    shown = [query["id"] for query in found["queries"]]
    assert found["total"] == 500 and len(set(shown)) == len(shown) == 100
    assert sum(found["pairs"][0][0]) == 500, "shares count all"
    assert page == report([made], lambda ids: {id: docs[id] for id in ids}), "the same queries each time"


def test_bytes_are_limited_whatever_the_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    made, docs = large(300, 3, 300, 20)
    monkeypatch.setattr(module, "LISTS", 60_000)
    monkeypatch.setattr(module, "PAGE", 90_000)
    data = data_of(report([made, board(), made], lambda ids: {id: docs[id] for id in ids if id in docs}))
    first, small, last = data["boards"]
    assert len(json.dumps(data, ensure_ascii=False, separators=(",", ":"))) < 95_000
    assert len(small["queries"]) == 2 and 0 < len(first["queries"]) < 300 and 0 < len(last["queries"]) < 300
    named = {i for board in data["boards"] for query in board["queries"] for hits in query["hits"] for i in hits}
    assert max(named) < len(data["documents"])
    monkeypatch.setattr(module, "LISTS", 0)
    assert len(data_of(report([made], lambda ids: docs))["boards"][0]["queries"]) == 1

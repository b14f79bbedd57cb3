"""`ragistry compare`: which retriever is best for these documents, told in numbers, pages and files."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ragistry import Collection, Document, create
from ragistry.cli import app

POEMS = {
    "sonnet": "A sonnet has fourteen lines of ten syllables each, in rhyme.",
    "haiku": "A haiku has three lines of five, seven and five syllables.",
    "villanelle": "A villanelle has nineteen lines with two refrains.",
    "limerick": "A limerick has five lines and is seldom serious.",
    "ode": "An ode praises someone or something at some length.",
}


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["compare", *map(str, arguments)])
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


def run_json(*arguments: object, code: int = 0) -> Any:
    return json.loads(run(*arguments, "--json", code=code).stdout)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with documents, questions and judgements."""
    (tmp_path / "poems").mkdir()
    for name, text in POEMS.items():
        (tmp_path / "poems" / f"{name}.txt").write_text(text)
    (tmp_path / "poems.jsonl").write_text(
        "".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in POEMS.items())
    )
    (tmp_path / "q.tsv").write_text("q1\tfourteen lines\nq2\trefrains\nq3\tnot judged\nq4\tserious\n")
    (tmp_path / "qrels.txt").write_text("q1 0 sonnet 1\nq1 0 lost 1\nq2 0 villanelle 2\nq4 0 limerick 0\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_judgements_decide_and_nothing_is_dropped_in_silence(here: Path) -> None:
    result = run("poems.jsonl", "--retrievers", "bm25,query-likelihood", "--queries", "q.tsv", "--qrels", "qrels.txt")
    lines = result.stdout.splitlines()
    assert lines[0] == "qrels: 3 queries, 5 documents"
    assert "nDCG@10 [95 %]" in lines[1]
    assert "p50 / p95 ms" in lines[1]
    assert lines[2].split()[0] == "bm25"
    said = " ".join(result.stdout.split())
    assert "1 of 4 queries has no judgements and was left out" in said
    assert "1 document that is not in the corpus, such as 'lost'" in said
    assert "1 of 3 queries has no relevant document" in said
    assert "bm25 and query-likelihood are level, with nDCG@10" in said
    assert (here / "poems.compare" / "runs").is_dir()


def test_without_judgements_tasks_are_made(here: Path) -> None:
    (here / "long").mkdir()
    for name, text in POEMS.items():
        (here / "long" / f"{name}.txt").write_text(" ".join(f"{text.split()[0]} {name}{n} {n}" for n in range(12)))
    result = run("long", "--retrievers", "bm25", "-o", "work")
    assert "questions are made from the documents: keyword, part-of-passage-32" in result.stderr
    assert [line for line in result.stdout.splitlines() if "queries, 5 documents" in line] == [
        "keyword: 5 queries, 5 documents",
        "part-of-passage-32: 5 queries, 5 documents",
    ]
    assert "was indexed before" in result.stderr  # one index serves both


def test_tasks_that_cannot_be_made_are_told(here: Path) -> None:
    result = run("poems", "--retrievers", "bm25")
    assert "not asked: part-of-passage-32: no document of 5 has 32 words, the longest has 11" in result.stderr
    assert result.stdout.splitlines()[0] == "keyword: 5 queries, 5 documents"
    (here / "q.csv").write_text("id,text\n1,one\n2,two\n")
    assert "no questions could be made" in run("q.csv", "--retrievers", "bm25", code=2).stderr


def test_as_json_with_runs_that_compare_elsewhere(here: Path) -> None:
    found = run_json("poems", "--retrievers", "bm25,other=other.yaml", "--task", "part-of-passage-3", code=2)
    assert found["error"]["type"] == "InvalidInput"
    (here / "other.yaml").write_text("name: bm25\nk1: 0.5\n")
    found = run_json("poems", "--retrievers", "bm25,other=other.yaml", "--task", "part-of-passage-3")
    [board] = found["leaderboards"]
    assert {retriever["name"]: retriever["settings"]["k1"] for retriever in board["retrievers"]} == {
        "bm25": 1.2,
        "other": 0.5,
    }
    assert board["uniqueness"] == 1.0
    assert len(found["runs"]) == 2
    moved = []
    (here / "elsewhere").mkdir()
    for file in found["runs"]:
        for path in (Path(file), Path(f"{file}.json")):
            path.rename(here / "elsewhere" / path.name)
        moved.append(here / "elsewhere" / Path(file).name)
    again = run_json("--runs", *moved)
    assert [r["means"] for r in again["leaderboards"][0]["retrievers"]] == [r["means"] for r in board["retrievers"]]
    assert "bm25" in run("--runs", *moved).stdout


def test_a_report_is_written_and_never_read(here: Path) -> None:
    arguments = ("poems", "--retrievers", "bm25,query-likelihood", "--task", "keyword", "--report", "poems/r.html")
    first = run_json(*arguments)
    page = (here / "poems" / "r.html").read_text()
    assert "villanelle" in page
    assert page.startswith("<!doctype html>")
    assert first["report"] == "poems/r.html"
    assert run_json(*arguments)["leaderboards"] == first["leaderboards"]
    run("--runs", *first["runs"], "--texts", "poems", "--report", "later.html")
    assert "nineteen lines" in (here / "later.html").read_text()
    run("--runs", *first["runs"], "--report", "bare.html")
    assert "nineteen lines" not in (here / "bare.html").read_text()


def test_a_collection_and_a_data_set_are_corpora(here: Path) -> None:
    with Collection.create(here / "kept", create("bm25")) as collection:
        collection.add([Document(name, text) for name, text in POEMS.items()])
    found = run_json("kept", "--task", "part-of-passage-4", "--retrievers", "bm25")
    assert found["leaderboards"][0]["documents"] == 5
    (here / "beir" / "qrels").mkdir(parents=True)
    (here / "beir" / "corpus.jsonl").write_text(
        "".join(json.dumps({"_id": name, "text": text}) + "\n" for name, text in POEMS.items())
    )
    (here / "beir" / "queries.jsonl").write_text('{"_id": "q1", "text": "refrains"}\n')
    (here / "beir" / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\nq1\tvillanelle\t1\n")
    for name in ("beir", "beir:beir"):
        [board] = run_json(name, "--retrievers", "bm25")["leaderboards"]
        assert (board["task"], board["queries"]) == ("beir-dev", 1)
        assert board["retrievers"][0]["means"]["nDCG@10"] == 1.0


def test_tasks_of_one_name_are_told_apart(here: Path) -> None:
    specs = ["keyword:terms=3", "keyword:terms=3,seed=1"]
    found = run_json("poems", "--retrievers", "bm25", "--task", specs[0], "--task", specs[1], "--sample", 2)
    assert [board["task"] for board in found["leaderboards"]] == specs
    assert len(set(found["runs"])) == 2


def test_limit_makes_its_own_documents(here: Path) -> None:
    [board] = run_json("--task", "limit:queries=20", "--retrievers", "bm25")["leaderboards"]
    assert board["task"].startswith("limit")
    assert board["retrievers"][0]["means"]["R@2"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no CORPUS was given"),
        (["poems", "--queries", "q.tsv"], "go together"),
        (["poems.jsonl", "--queries", "q.tsv", "--qrels", "qrels.txt", "--task", "keyword"], "leave no room"),
        (["poems", "--queries", "q.tsv", "--qrels", "qrels.txt"], "none of the 4 judgements is about"),
        (["nowhere"], "there is no data set or directory 'nowhere'"),
        (["poems", "--retrievers", "bm52"], "Did you mean 'bm25'"),
        (["poems", "--retrievers", "bm25,bm25"], "two retrievers are called 'bm25'"),
        (["poems", "--retrievers", ","], "names none"),
        (["poems", "--task", "riddle"], "no task is called 'riddle'"),
        (["poems", "--task", "part-of-passage-64"], "64 words"),
        (["poems/ode.txt"], "at least two documents"),
        (["poems", "--report", "no/where.html"], "make it first"),
        (["poems", "--report", "poems"], "is a folder"),
        (["poems", "--texts", "poems"], "--texts goes with --runs"),
        (["--runs"], "without files"),
        (["--runs", "q.tsv", "--task", "keyword"], "--task is of no use with --runs"),
        (["poems", "--split", "test", "--task", "keyword"], "--split chooses judgements"),
        (["--runs", "q.tsv"], "--qrels"),
        (["poems", "--measure", "F7"], "no measure is called 'F7'"),
        (["poems", "--split", "test"], "--split 'test' is of a data set"),
    ],
)
def test_what_cannot_be_compared_says_why(here: Path, arguments: list[str], message: str) -> None:
    result = run(*arguments, code=2)
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_ctrl_c_keeps_what_is_done(here: Path) -> None:
    texts = (f'{{"id": "d{n}", "text": "{" ".join(POEMS.values())} {n}"}}\n' for n in range(13_000))
    (here / "many.jsonl").write_text("".join(texts))
    command = ["compare", "many.jsonl", "--retrievers", "bm25", "--task", "keyword:terms=3"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ragistry.cli", *command],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore Ctrl-C
    )
    times = here / "many.compare" / "times.json"
    while not times.exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "repeat the command to continue" in errors
    left = run(*command[1:]).stderr
    assert "indexed 13,000 documents" not in left
    assert "bm25: indexed" in left

"""Queries, judgements, pairs and runs: every format reads alike, every mistake is named with its line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragistry.errors import InvalidInput, StorageError
from ragistry.evaluation import pairs_of, read_pairs, read_qrels, read_queries, read_run, write_run
from ragistry.types import Pair, Ranking

QUERIES = {"q 1": "what is a sonnet?", "q2": 'who said "hello, world"?'}
QRELS = {"q1": {"d1": 2, "d2": 0}, "q2": {"d1": -1}}
WORDS = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=8).filter(str.strip)
INPUTS = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "q.jsonl",
            '{"_id": "q 1", "text": "what is a sonnet?"}\n{"_id": "q2", "text": "who said \\"hello, world\\"?"}\n',
        ),
        (
            "q.json",
            '\n{"id": "q 1", "query": "what is a sonnet?"}\n\n{"qid":"q2","text":"who said \\"hello, world\\"?"}',
        ),
        (
            "q.txt",
            '{"query_id": "q 1", "text": "what is a sonnet?"}\n{"id": "q2", "text": "who said \\"hello, world\\"?"}',
        ),
        ("q.tsv", 'q 1\twhat is a sonnet?\nq2\twho said "hello, world"?\n'),
        ("q.tsv", 'query_id\tquery\r\nq 1\twhat is a sonnet?\r\nq2\twho said "hello, world"?\r\n'),
        ("q.txt", 'text\tlanguage\tid\nwhat is a sonnet?\ten\tq 1\nwho said "hello, world"?\ten\tq2\n'),
        ("q.csv", 'id,text\nq 1,what is a sonnet?\nq2,"who said ""hello, world""?"\n'),
        ("q.csv", '\ufeffQuery_ID,Query\n\nq 1,what is a sonnet?\nq2,"who said ""hello, world""?"\n'),
    ],
)
def test_queries_in_every_format(tmp_path: Path, name: str, content: str) -> None:
    assert read_queries(write(tmp_path / name, content)) == QUERIES


def test_numbers_as_ids_are_text(tmp_path: Path) -> None:
    assert read_queries(write(tmp_path / "q.jsonl", '{"_id": 7, "text": "why?"}')) == {"7": "why?"}


def test_a_csv_value_keeps_its_line_breaks(tmp_path: Path) -> None:
    path = write(tmp_path / "q.csv", 'id,text\nq1,"one\n\ntwo"\nq2,three\n')
    assert read_queries(path) == {"q1": "one\n\ntwo", "q2": "three"}


def test_unusual_line_breaks_stay_in_the_text(tmp_path: Path) -> None:
    assert read_queries(write(tmp_path / "q.tsv", "q1\tone\u2028two\x0cthree\n")) == {"q1": "one\u2028two\x0cthree"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq2\td1\t-1\n"),
        ("test.tsv", "q1\td1\t2\nq1\td2\t0\nq2\td1\t-1\n"),
        ("qrels.dev.tsv", "q1\t0\td1\t2\nq1\t0\td2\t0\nq2\t0\td1\t-1\n"),
        ("qrels.txt", "q1 0 d1 2\nq1  0 d2   0\n\nq2 Q0 d1 -1"),
        ("qrels", "query-id corpus-id score\nq1 d1 2\nq1 d2 0\nq2 d1 -1"),
        ("qrels.csv", "doc_id,query_id,relevance\nd1,q1,2\nd2,q1,0\nd1,q2,-1.0\n"),
        ("qrels.jsonl", "".join(json.dumps({"query-id": q, "corpus-id": d, "score": s}) + "\n" for q, d, s in [
            ("q1", "d1", 2), ("q1", "d2", 0), ("q2", "d1", -1)])),
    ],
)  # fmt: skip
def test_judgements_in_every_format(tmp_path: Path, name: str, content: str) -> None:
    assert read_qrels(write(tmp_path / name, content)) == QRELS


def test_ids_may_hold_spaces_where_tabs_separate(tmp_path: Path) -> None:
    path = write(tmp_path / "test.tsv", "query-id\tcorpus-id\tscore\nq 1\tGeneva Durben\t1\n")
    assert read_qrels(path) == {"q 1": {"Geneva Durben": 1}}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pairs.jsonl", '{"query": "why?", "document_id": "d 1"}\n{"text": "how, now?", "positive": "d2"}\n'),
        ("pairs.jsonl", '{"query": "why?", "doc_id": "d 1"}\n{"text": "how, now?", "id": "d2"}\n'),
        ("pairs.tsv", "why?\td 1\nhow, now?\td2\n"),
        ("pairs.csv", 'why?,d 1\n"how, now?",d2\n'),
        ("pairs.csv", 'document_id,query\nd 1,why?\nd2,"how, now?"\n'),
    ],
)
def test_pairs_in_every_format(tmp_path: Path, name: str, content: str) -> None:
    path = write(tmp_path / name, content)
    assert read_pairs(path) == pairs_of(str(path)) == pairs_of(path) == [Pair("why?", "d 1"), Pair("how, now?", "d2")]


def test_pairs_from_memory() -> None:
    assert pairs_of({"a": "1", "b": ["2", "3"]}) == [Pair("a", "1"), Pair("b", "2"), Pair("b", "3")]
    assert pairs_of(iter([("a", "1"), Pair("b", "2")])) == [Pair("a", "1"), Pair("b", "2")]


@pytest.mark.parametrize("value", [[], {}, 3, [("a",)], ["ab"], [("a", 1)], [("", "1")], {"a": [1]}, {"a": 7}])
def test_pairs_that_cannot_be_used(value: Any) -> None:
    with pytest.raises(InvalidInput, match="needed"):
        pairs_of(value)


@pytest.mark.parametrize(
    ("read", "name", "content", "told"),
    [
        (read_queries, "q.jsonl", "", "is empty"),
        (read_queries, "q.jsonl", "\n \n", "is empty"),
        (read_queries, "q.jsonl", '{"_id": "1", "text": "a"}\n{"_id": "2", "text"', "line 2: .* is not JSON"),
        (read_queries, "q.jsonl", "[" * 100_000, "line 1: .* is not JSON"),
        (read_queries, "q.json", '["a"]', "line 1: .* is not a JSON object"),
        (
            read_queries,
            "q.jsonl",
            '{"_id": "1", "body": "a"}',
            r"line 1: the fields \['_id', 'body'\] do not give text",
        ),
        (read_queries, "q.jsonl", '{"_id": "1", "text": 1.5}', "line 1: `text` is 1.5; text is needed"),
        (read_queries, "q.jsonl", '{"_id": true, "text": "a"}', "line 1: `id` is True; text is needed"),
        (read_queries, "q.jsonl", '{"_id": "1", "text": "\\ud800"}', "line 1: `text` holds a lone surrogate"),
        (read_queries, "q.tsv", "1\ta\n\n2\t \n", "line 3: `text` is empty"),
        (read_queries, "q.tsv", "1\ta\n2\tb\tc\n", "line 2: '2 | b | c' has 3 columns; 2 are needed"),
        (read_queries, "q.tsv", "1\ta\n1\tb\n", "line 2: query '1' comes a second time"),
        (read_queries, "q.tsv", b"1\ta\n2\tcaf\xe9\n", "line 2: byte 6 is 0xe9, which is not UTF-8"),
        (read_queries, "q.txt", "what is a sonnet?\n", "line 1: 'what is a sonnet\\?' is neither a query nor a header"),
        (read_queries, "q.csv", "1,a\n", "line 1: '1 | a' is neither a query nor a header"),
        (read_queries, "q.csv", 'id,text\n1,"a\n', "line 2: not CSV"),
        (read_queries, "q.csv", "id,text\n", "holds only a header"),
        (
            read_qrels,
            "r.tsv",
            "query-id\tcorpus-id\tscore\n1\td\t0.5\n",
            "line 2: the relevance is 0.5; a whole number",
        ),
        (read_qrels, "r.tsv", "query\tdocument\tgrade\n1\td\t1\n", "line 1: `relevance` is 'grade'"),
        (read_qrels, "r.txt", "1 0 d 1\n1 0 d 2\n", "line 2: document 'd' has relevance 2 for query '1', before 1"),
        (read_qrels, "r.txt", "1 0 a b 1\n", "line 1: .* is neither a judgement nor a header"),
        (read_qrels, "r.txt", "1 0 a nan\n", "line 1: `relevance` is 'nan'"),
        (read_qrels, "r.jsonl", '{"query-id": "1", "corpus-id": "d", "score": true}', "line 1: `relevance` is True"),
        (read_pairs, "p.tsv", "query\tdocument_id\n", "holds only a header"),
        (read_pairs, "p.csv", "why?\n", "line 1: 'why\\?' is neither a pair nor a header"),
        (read_run, "run", "1 Q0 d 1 2.0 x\n1 Q0 d 2 1.0 x\n", "line 2: document 'd' comes twice"),
        (read_run, "run", "1 Q0 d 1 1e39 x\n", "line 1: `score` is '1e39'; a finite number is needed"),
        (read_run, "run", "1 Q0 d 1\n", "line 1: .* is neither a line of a run nor a header"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, read: object, name: str, content: str, told: str) -> None:
    assert callable(read)
    with pytest.raises(InvalidInput, match=told.replace("|", r"\|")) as caught:
        read(write(tmp_path / name, content))
    assert name in str(caught.value)


@pytest.mark.parametrize("read", [read_queries, read_qrels, read_pairs, read_run])
def test_a_file_that_cannot_be_read(tmp_path: Path, read: object) -> None:
    assert callable(read)
    with pytest.raises(StorageError, match="does not exist"):
        read(tmp_path / "none.tsv")
    with pytest.raises(StorageError, match="cannot read"):
        read(tmp_path)


def test_a_query_said_twice_alike_is_one_query(tmp_path: Path) -> None:
    assert read_queries(write(tmp_path / "q.tsv", "1\ta\n1\ta\n")) == {"1": "a"}


@INPUTS
@given(run=st.dictionaries(WORDS, st.dictionaries(WORDS, st.floats(-1e6, 1e6, width=32), min_size=1), min_size=1))
def test_a_run_comes_back_as_written(tmp_path: Path, run: dict[str, dict[str, float]]) -> None:
    rankings = {query: Ranking.of(list(found), list(found.values())) for query, found in run.items()}
    write_run(tmp_path / "run.txt", rankings)
    assert read_run(tmp_path / "run.txt") == rankings


def test_a_run_of_others_is_sorted_by_score(tmp_path: Path) -> None:
    path = write(tmp_path / "run", "q Q0 b 1 1.0 x\nq Q0 a 2 1.0 x\nq Q0 c 3 7 x\n")
    assert read_run(path)["q"] == Ranking(("c", "a", "b"), np.array([7, 1, 1], np.float32))


@pytest.mark.parametrize(("query", "document", "tag"), [("q\t1", "d", "x"), ("q", "d\n", "x"), ("q", "d", " ")])
def test_a_run_refuses_what_it_cannot_hold(tmp_path: Path, query: str, document: str, tag: str) -> None:
    with pytest.raises(InvalidInput, match="cannot stand in a line"):
        write_run(tmp_path / "run.txt", {query: Ranking.of([document], [1.0])}, tag=tag)
    assert not (tmp_path / "run.txt").exists()


@INPUTS
@given(queries=st.dictionaries(WORDS, WORDS, min_size=1))
def test_json_lines_hold_any_query(tmp_path: Path, queries: dict[str, str]) -> None:
    lines = (json.dumps({"_id": query, "text": text}) for query, text in queries.items())
    assert read_queries(write(tmp_path / "q.jsonl", "\n".join(lines))) == queries

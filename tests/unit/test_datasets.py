"""Data sets: BEIR's layout is read as it is, and python-docs holds no answer to its own questions."""

import ast
import json
import os
import re
import sys
from pathlib import Path

import pytest

from ragistry.errors import InvalidInput, StorageError, UnknownName
from ragistry.evaluation import Dataset, Split, available, evaluate, load
from ragistry.evaluation.standard_library import definitions
from ragistry.types import Pair, Ranking

DATA = Path(os.environ.get("RAGISTRY_DATA") or "../shared/data")
LINES = {
    "corpus.jsonl": '{"_id": "d1", "title": "Sonnet", "text": "fourteen lines"}\n'
    '{"_id": 2, "text": "", "title": null, "metadata": {"year": 1609}}\n',
    "queries.jsonl": '{"_id": "q1", "text": "how long?"}\n{"_id": "q2", "text": "who?"}\n{"_id": "q3", "text": "when?"}\n',
    "qrels/test.tsv": "query-id\tcorpus-id\tscore\nq2\td1\t1\nq1\td1\t2\nq1\t2\t0\n",
    "qrels/train.tsv": "query-id\tcorpus-id\tscore\nq3\t2\t1\n",
}


def lay(directory: Path, **changes: str | None) -> Path:
    """A directory in BEIR's layout, with some files changed or (None) left out."""
    for name, content in {**LINES, **{key.replace("__", "/"): value for key, value in changes.items()}}.items():
        if content is not None:
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_text(content)
    return directory


@pytest.fixture(scope="module")
def python_docs() -> Dataset:
    return load("python-docs")


def test_a_directory_is_read(tmp_path: Path) -> None:
    dataset = load(lay(tmp_path / "small"))
    assert (dataset.name, dataset.splits) == ("small", ("test", "train"))
    first, second = dataset.documents
    assert (first.id, first.title, first.text) == ("d1", "Sonnet", "fourteen lines")
    assert (second.id, second.title, second.text, second.metadata) == ("2", "", "", {"year": 1609})
    assert dataset.split() == Split({"q2": "who?", "q1": "how long?"}, {"q2": {"d1": 1}, "q1": {"d1": 2, "2": 0}})
    assert dataset.split("train").pairs() == [Pair("when?", "2")]
    assert dataset.split("test").pairs() == [Pair("who?", "d1"), Pair("how long?", "d1")]
    assert dataset.documents is dataset.documents
    assert dataset.split() is dataset.split("test")


def test_a_name_is_looked_up_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay(tmp_path / "b")
    lay(tmp_path / "a")
    (tmp_path / "notes").mkdir()
    monkeypatch.setenv("RAGISTRY_DATA", str(tmp_path))
    assert available() == ["python-docs", "a", "b"]
    assert load("b").name == "b"
    with pytest.raises(
        UnknownName, match="no data set or directory 'c'; there are python-docs, a, b; set RAGISTRY_DATA"
    ):
        load("c")
    with pytest.raises(InvalidInput, match=r"it has no corpus.jsonl, queries.jsonl, qrels/test.tsv"):
        load("notes")
    monkeypatch.setenv("RAGISTRY_DATA", str(tmp_path / "none"))
    assert available() == ["python-docs"]


@pytest.mark.parametrize("name", ["qrels.tsv", "qrels.jsonl"])
def test_one_file_of_judgements_is_the_test_split(tmp_path: Path, name: str) -> None:
    lay(tmp_path, qrels__test_tsv=None)
    for path in (tmp_path / "qrels").iterdir():
        path.unlink()
    line = {"query-id": "q1", "corpus-id": "d1", "score": 1}
    (tmp_path / name).write_text(
        json.dumps(line) if name.endswith("jsonl") else "query-id\tcorpus-id\tscore\nq1\td1\t1\n"
    )
    assert load(tmp_path).split("test").qrels == {"q1": {"d1": 1}}


def test_an_unknown_split_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="has no split 'dev'; it has test, train"):
        load(lay(tmp_path)).split("dev")


@pytest.mark.parametrize(
    ("corpus", "told"),
    [
        ("", "holds no documents"),
        ('{"_id": "1"}\n{"_id": "1"}', "line 2: document '1' comes a second time"),
        ('{"_id": "1"}\n\n{"text": "a"}', "line 3: `_id` is missing"),
        ('{"_id": "1", "text": 5}', "line 1: document '1': `text` is int"),
        ('{"_id": "1", "metadata": "x"}', "line 1: document '1': `metadata` is str"),
        ('{"_id": "1", "text": "a"', "line 1: .* is not JSON"),
        ("[1]", "line 1: .* is not a JSON object"),
    ],
)
def test_a_mistake_in_the_corpus_is_named_with_its_line(tmp_path: Path, corpus: str, told: str) -> None:
    dataset = load(lay(tmp_path))
    (tmp_path / "corpus.jsonl").write_text(corpus)
    with pytest.raises(InvalidInput, match=told):
        _ = dataset.documents


def test_judgements_of_other_queries_are_refused(tmp_path: Path) -> None:
    dataset = load(lay(tmp_path))
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq9\td1\t1\n")
    with pytest.raises(InvalidInput, match=r"judges 1 queries that queries.jsonl does not have, such as 'q9'"):
        dataset.split("test")


def test_a_file_that_went_away(tmp_path: Path) -> None:
    dataset = load(lay(tmp_path))
    (tmp_path / "corpus.jsonl").unlink()
    with pytest.raises(StorageError, match="does not exist"):
        _ = dataset.documents


@pytest.mark.skipif(not DATA.is_dir(), reason="RAGISTRY_DATA is absent")
@pytest.mark.parametrize(
    ("name", "documents", "split", "queries", "judgements"),
    [
        ("scifact", 5183, "test", 300, 339),
        ("scifact", 5183, "train", 809, 919),
        ("cranfield", 1400, "test", 225, 1837),
        ("nl2bash", 10594, "dev", 1158, 1169),
        ("conala", 2808, "test", 472, 494),
        ("limit-small", 46, "test", 1000, 2000),
    ],
)
def test_real_data_has_its_published_size(name: str, documents: int, split: str, queries: int, judgements: int) -> None:
    if name not in available():
        pytest.skip(f"RAGISTRY_DATA has no {name}")
    dataset = load(name)
    found = dataset.split(split)
    assert len(dataset.documents) == documents
    assert (len(found.queries), sum(map(len, found.qrels.values()))) == (queries, judgements)
    assert {id for judged in found.qrels.values() for id in judged} <= {document.id for document in dataset.documents}


@pytest.mark.skipif(not DATA.is_dir(), reason="RAGISTRY_DATA is absent")
def test_every_directory_there_can_be_read() -> None:
    for name in available()[1:]:
        dataset = load(name)
        found = [dataset.split(split) for split in dataset.splits]
        assert all(split.queries.keys() == split.qrels.keys() and split.queries for split in found), name


def plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def test_python_docs_has_thousands_of_questions(python_docs: Dataset) -> None:
    assert python_docs.splits == ("train", "dev", "test")
    sizes = [len(python_docs.split(split).queries) for split in python_docs.splits]
    assert sum(sizes) > 2500
    assert [size / sum(sizes) for size in sizes] == pytest.approx([0.6, 0.2, 0.2], abs=0.03)
    assert len({document.id for document in python_docs.documents}) == len(python_docs.documents) > sum(sizes)


def test_python_docs_keeps_the_answer_out_of_the_document(python_docs: Dataset) -> None:
    documents = {document.id: document for document in python_docs.documents}
    for split in map(python_docs.split, python_docs.splits):
        for query, text in split.queries.items():
            [(id, relevance)] = split.qrels[query].items()
            assert relevance == 1
            assert plain(text) not in plain(documents[id].full_text), id


def test_python_docs_asks_nothing_twice(python_docs: Dataset) -> None:
    texts = [plain(text) for split in python_docs.splits for text in python_docs.split(split).queries.values()]
    assert len(set(texts)) == len(texts)
    assert all(
        len(text.split()) >= 3 for split in python_docs.splits for text in python_docs.split(split).queries.values()
    )


def test_python_docs_describes_what_it_found(python_docs: Dataset) -> None:
    documents = {document.id: document for document in python_docs.documents}
    dumps = documents["json.dumps"]
    assert dumps.title == "json.dumps"
    assert dumps.text.startswith("def dumps(obj, *, skipkeys=False")
    assert "If ``skipkeys`` is true" in dumps.text
    assert (dumps.metadata["module"], dumps.metadata["kind"]) == ("json", "function")
    source = Path(json.__file__).read_text().splitlines()
    assert source[dumps.metadata["line"] - 1].startswith("def dumps(")
    encoder = documents["json.encoder.JSONEncoder"]
    assert encoder.metadata["kind"] == "class"
    assert "    def iterencode(self, o, _one_shot=False)" in encoder.text
    assert documents["json.encoder.JSONEncoder.iterencode"].metadata["kind"] == "method"
    assert documents["math.sqrt"].text.startswith("math.sqrt(x, /)")
    assert documents["builtins.str.split"].metadata == {"module": "builtins", "kind": "method"}
    for split in map(python_docs.split, python_docs.splits):
        assert split.queries.get("q:math.sqrt", "Return the square root of x.") == "Return the square root of x."


def test_python_docs_leaves_out_what_is_private(python_docs: Dataset) -> None:
    for document in python_docs.documents:
        assert not re.search(r"(^|\.)(_|tests?\b|idlelib|antigravity)", document.metadata["module"]), document.id
        assert "._" not in document.id
        assert len(document.text) <= 4000
    assert "antigravity" not in sys.modules


def test_python_docs_is_the_same_every_time(python_docs: Dataset) -> None:
    again = definitions()
    assert [definition.name for definition in again] == [document.id for document in python_docs.documents]
    assert load("python-docs").split("dev") == python_docs.split("dev")


def test_python_docs_source_stays_source(python_docs: Dataset) -> None:
    functions = [
        found for found in python_docs.documents if found.metadata["kind"] == "function" and "line" in found.metadata
    ]
    whole = [document for document in functions if len(document.text) < 4000]
    assert len(whole) > 1000
    broken = []
    for document in whole:
        try:
            ast.parse(document.text + (" pass" if document.text.endswith(":") else ""))
        except SyntaxError:
            broken.append(document.id)
    assert broken == []


def test_python_docs_can_be_searched(python_docs: Dataset) -> None:
    test = python_docs.split("test")
    answers = {text: next(iter(test.qrels[query])) for query, text in test.queries.items()}
    found = evaluate(lambda texts, k: [Ranking.of([answers[text]], [1.0]) for text in texts], test.queries, test.qrels)
    assert set(found.means.values()) == {1.0}


def test_a_scheme_names_the_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay(tmp_path / "small")
    monkeypatch.setenv("RAGISTRY_DATA", str(tmp_path))
    for name in (f"beir:{tmp_path / 'small'}", "beir:small"):
        assert load(name).split() == load("small").split()
        assert load(name).documents == load("small").documents
    with pytest.raises(
        UnknownName, match="begins with an unknown scheme, 'trek'; there are beir:, csv:, ir_datasets:, trec:"
    ):
        load("trek:small")
    with pytest.raises(InvalidInput, match="'trec:' names nothing; trec:DIR is needed"):
        load("trec:")
    with pytest.raises(InvalidInput, match="'ir_datasets:' names nothing; ir_datasets:NAME is needed"):
        load("ir_datasets:")
    with pytest.raises(InvalidInput, match="given as int; its name or its directory is needed"):
        load(5)  # type: ignore[arg-type]
    for name in ("csv:none", "trec:none", "beir:none"):
        with pytest.raises(UnknownName, match="no data set or directory 'none'; there are python-docs, small"):
            load(name)


@pytest.mark.skipif(os.name == "nt", reason="a colon is not allowed in a file's name")
def test_a_path_with_a_colon_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lay(Path("trec:x"))
    assert load("trec:x").splits == load(str(tmp_path / "trec:x")).splits == ("test", "train")
    monkeypatch.setenv("RAGISTRY_DATA", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load("trec:x").splits == ("test", "train")
    for name in (r"C:\data", "C:/data", "c:", "./data:x"):
        with pytest.raises(UnknownName, match="no data set or directory"):
            load(name)
    (tmp_path / "elsewhere" / "csv:file").write_text("")
    with pytest.raises(UnknownName, match="no data set or directory"):
        load("csv:file")

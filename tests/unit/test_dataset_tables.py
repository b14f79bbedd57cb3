"""Data sets in tables, and their mistakes."""

from pathlib import Path
from typing import Any

import pytest

from ragistry.errors import InvalidInput, StorageError
from ragistry.evaluation import load
from ragistry.types import Document

from ..laid import lay

TABLES: dict[str, str | bytes] = {
    "documents.csv": 'id,title,text,source,line,year\n007,Sonnet,"fourteen, lines",web,9,1609\nd2,,,,,\n',
    "queries.csv": "id,text\nq1,how long?\nq2,who?\n",
    "qrels.csv": "query-id,corpus-id,score\nq1,007,2\nq1,d2,0\n",
}


def tables(directory: Path, **changes: str | bytes | None) -> Any:
    files = {**TABLES, **{name.replace("__", "/").replace("_", "."): content for name, content in changes.items()}}
    lay(directory, {name: content for name, content in files.items() if content is not None})
    return load(f"csv:{directory}")


def test_tables_are_read(tmp_path: Path) -> None:
    dataset = tables(tmp_path / "small")
    assert (dataset.name, dataset.splits) == ("small", ("test",))
    assert dataset.documents == [
        Document("007", "fourteen, lines", "Sonnet", {"source": "web", "line": 9, "year": 1609}),
        Document("d2", ""),
    ]
    split = dataset.split()
    assert (split.queries, split.qrels) == ({"q1": "how long?"}, {"q1": {"007": 2, "d2": 0}})
    assert split.notes == ("1 query has no judgements and was left out: 'q2'",)


def test_tables_with_tabs_and_splits(tmp_path: Path) -> None:
    dataset = tables(
        tmp_path,
        documents_csv=None,
        queries_csv=None,
        qrels_csv=None,
        corpus_tsv="text\tid\tsource_\na, b\td1\tweb\n",
        queries_tsv="q1\thow?\n",
        qrels__dev_tsv="query-id\tcorpus-id\tscore\nq1\td1\t1\n",
        qrels__train_csv="query-id,corpus-id,score\nq1,d1,1\n",
    )
    assert dataset.documents == [Document("d1", "a, b", "", {"source_": "web"})]
    assert dataset.splits == ("dev", "train")
    assert dataset.split("dev") == dataset.split("train")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("id,text\n1,a\n1,b\n", r"line 3: document '1' comes a second time"),
        ("id,text\n1,a\n\n,b\n", r"line 4: the id is empty"),
        ("id,body\n1,a\n", r"line 1: the columns are 'id, body'; text is needed"),
        ("a,b\n1,a\n", r"line 1: the columns are 'a, b'; id and text are needed"),
        ("", r"line 1: the columns are ''; id and text are needed"),
        (bytes(range(256)) * 20, r"line 1: the columns are .*; id and text are needed"),
        ("id,text\n", r"holds no documents"),
        ("id,text\n1,a,b\n", r"line 2: 3 cells were given for 2 columns"),
        ('id,text\n1,"a\n', r"line 2: unexpected end of data"),
    ],
)
def test_a_mistake_in_a_table_is_named_with_its_line(tmp_path: Path, content: str | bytes, told: str) -> None:
    dataset = tables(tmp_path, documents_csv=content)
    with pytest.raises(InvalidInput, match=rf"^'.*documents.csv',? {told}"):
        _ = dataset.documents


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"documents_csv": None}, r"it has no documents.csv; each may also be .tsv"),
        (
            {"documents_csv": None, "queries_csv": None, "qrels_csv": None, "other_csv": ""},
            r"no documents.csv, no queries.csv, no qrels.csv \(or qrels/test.csv\)",
        ),
        ({"corpus_tsv": ""}, r"holds documents.csv and corpus.tsv, which are for the same"),
        ({"queries_tsv": ""}, r"holds queries.csv and queries.tsv"),
        ({"qrels__dev_csv": ""}, r"holds qrels.csv and qrels/dev.csv"),
        ({"qrels_csv": None, "qrels__dev_csv": "", "qrels__dev_tsv": ""}, r"holds qrels/dev.csv and qrels/dev.tsv"),
    ],
)
def test_tables_that_are_missing_or_there_twice(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        tables(tmp_path, **changes)


def test_tables_that_do_not_belong_together(tmp_path: Path) -> None:
    dataset = tables(tmp_path, qrels_csv="query-id,corpus-id,score\nq1,d1,1\nq9,d1,1\n")
    with pytest.raises(InvalidInput, match=r"qrels.csv' judges 1 queries that queries.csv does not have, such as 'q9'"):
        dataset.split()
    (tmp_path / "documents.csv").unlink()
    with pytest.raises(StorageError, match="does not exist"):
        _ = dataset.documents

"""CSV and JSON records as documents: fields, metadata, numbers, and errors that name file and line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ragistry import Document
from ragistry.errors import InvalidInput
from ragistry.readers import read


def write(folder: Path, name: str, content: str | bytes) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def read_all(path: Path) -> tuple[list[Document], list[str]]:
    reports: list[str] = []
    return list(read(path, report=reports.append)), reports


def test_csv_rows(tmp_path: Path) -> None:
    content = '\ufeffID,Text,title,year,price,zip,source\na,"x, ""y""\nz",T,2001,1.50,0123,web\n\n,no id,,,1e5,,\n'
    documents, _ = read_all(write(tmp_path, "sub/a.csv", content).parent.parent)
    first, second = documents
    assert (first.id, first.text, first.title) == ("a", 'x, "y"\nz', "T")
    assert first.metadata == {
        "year": 2001, "price": 1.5, "zip": "0123", "source_": "web", "source": "sub/a.csv", "line": 2,
    }  # fmt: skip
    assert re.fullmatch(r"sub/a\.csv#[0-9a-f]{12}", second.id)
    assert second.metadata == {"price": "1e5", "source": "sub/a.csv", "line": 5}


@pytest.mark.parametrize("name, separator", [("a.csv", ","), ("a.csv", ";"), ("a.csv", "\t"), ("a.tsv", "\t")])
def test_a_table_without_a_text_column_lists_its_cells(tmp_path: Path, name: str, separator: str) -> None:
    lines = [["name", "", "name"], ["Ada", "1", "B"], ["Bob", "", ""], ["Cy"], ["", "", ""]]
    documents, _ = read_all(write(tmp_path, name, "\r\n".join(separator.join(line) for line in lines)))
    assert [d.text for d in documents] == ["name: Ada\ncolumn 2: 1\nname 2: B", "name: Bob", "name: Cy"]
    assert documents[0].metadata == {"name": "Ada", "column 2": 1, "name 2": "B", "source": name, "line": 2}


@pytest.mark.parametrize(
    "cell, value",
    [
        ("12", 12),
        ("-3", -3),
        ("0", 0),
        ("-0", "-0"),
        ("012", "012"),
        ("1.25", 1.25),
        ("1e-05", 1e-05),
        ("1e+999", "1e+999"),
        ("9" * 30, "9" * 30),
        ("0.12345678901234567890", "0.12345678901234567890"),
        ("١", "١"),
        ("nan", "nan"),
        (" 1", " 1"),
    ],
)
def test_cells_become_numbers_only_where_nothing_is_lost(tmp_path: Path, cell: str, value: object) -> None:
    (document,), _ = read_all(write(tmp_path, "a.csv", f"text,n\nx,{cell}\n"))
    assert document.metadata["n"] == value
    assert type(document.metadata["n"]) is type(value)


def test_cells_may_be_long(tmp_path: Path) -> None:
    (document,), _ = read_all(write(tmp_path, "a.csv", f"id,text\n1,{'x' * 200_000}\n"))
    assert len(document.text) == 200_000


@pytest.mark.parametrize(
    "content, message",
    [("text,n\nx,1\ny,2,3\n", "a.csv, line 3: 3 cells"), ('text,n\n"x,1\ny,2\n', "a.csv, line 2: .*double quotes")],
)
def test_broken_tables_are_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        read_all(write(tmp_path, "a.csv", content))


def test_jsonl_in_the_beir_layout(tmp_path: Path) -> None:
    rows = [
        {"_id": "d1", "title": "T", "text": "x\u2028y", "metadata": {"year": 1999, "line": 7}},
        {"id": 5, "text": None, "tags": ["a"]},
        {"body": "no id", "metadata": None},
        {"body": "no id"},
        {"n": 1, "name": "é"},
    ]
    content = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    for encoded in (content.encode(), content.encode("utf-8-sig"), content.encode("utf-16")):
        documents, reports = read_all(write(tmp_path, "a.jsonl", encoded))
        assert not reports
        assert [d.text for d in documents] == ["x\u2028y", "", "no id", "no id", "n: 1\nname: é"]
        assert [d.id for d in documents[:2]] == ["d1", "5"]
        assert documents[3].id == f"{documents[2].id}-2"
        assert documents[0].metadata == {"year": 1999, "line_": 7, "source": "a.jsonl", "line": 1}
        assert documents[1].metadata == {"tags": ["a"], "source": "a.jsonl", "line": 3}


@pytest.mark.parametrize(
    "line, message",
    [
        ('{"text": ', "not JSON: Expecting value at character 9"),
        ("[1]", "object is needed.*list"),
        ('{"text": "a"} {}', "more follows"),
        ('{"text": ["a"]}', "`text` is list"),
        ('{"id": true, "text": "a"}', "`id` is bool"),
        ('{"text": "\\ud800"}', "surrogate"),
        ('{"text": "a", "m": "\\ud800"}', "surrogate"),
        ('{"\\ud800": 1}', "surrogate"),
        ('{"text": "a", "m": 1e999}', "number that cannot be stored"),
        ("[" * 100_000, "not JSON"),
        ('{"n": ' + "9" * 5000 + "}", "not JSON"),
    ],
)
def test_a_bad_json_line_names_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    file = write(tmp_path, "sub/a.jsonl", f'{{"text": "fine"}}\n{line}\n')
    documents = read(file)
    assert next(documents).text == "fine"
    with pytest.raises(InvalidInput, match=rf"^a\.jsonl, line 2: .*{message}"):
        next(documents)


def test_inside_a_folder_a_bad_record_ends_its_file_only(tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl", '{"text": "fine"}\n{bad\n{"text": "lost"}\n')
    write(tmp_path, "b.txt", "another file")
    lines: list[str] = []
    assert [d.text for d in read(tmp_path, report=lines.append)] == ["fine", "another file"]
    (line,) = lines
    assert line.startswith("a.jsonl, line 2: ") and line.endswith("; the rest of the file is skipped")


def test_json_lists_are_records_and_other_json_is_text(tmp_path: Path) -> None:
    documents, _ = read_all(
        write(tmp_path, "a.json", '[{"id": "1", "text": "a"},\n\n {"id": "2", "text": "b", "x": NaN}]\n')
    )
    assert [(d.id, d.text, d.metadata["line"]) for d in documents] == [("1", "a", 1), ("2", "b", 3)]
    assert documents[1].metadata["x"] is None
    assert [d.text for d in read(write(tmp_path, "b.json", '{"a": 1}'))] == ['{"a": 1}']
    assert not list(read(write(tmp_path, "c.json", "[]")))
    for end in (",]", "", "] x", ", 3]"):
        with pytest.raises(InvalidInput, match=r"d\.json, line 2: "):
            read_all(write(tmp_path, "d.json", f'[\n{{"text": "a"}}{end}'))


def test_bytes_that_are_not_text_are_replaced_and_reported(tmp_path: Path) -> None:
    documents, reports = read_all(
        write(tmp_path, "a.jsonl", b'{"id": 1, "text": "caf\xe9"}\n{"id": 2, "text": "\xe2\x82"}\n')
    )
    assert [d.text for d in documents] == ["caf\ufffd", "\ufffd\ufffd"]
    assert reports == ["a.jsonl: 3 bytes are not UTF-8, replaced"]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "b.csv"])
def test_files_without_records_give_none(tmp_path: Path, name: str) -> None:
    assert read_all(write(tmp_path, name, "id,text\n" if name == "b.csv" else "\n\n")) == ([], [])

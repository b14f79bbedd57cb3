"""CSV rows and JSON objects: one document each."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from itertools import chain
from math import isfinite
from pathlib import Path
from typing import Any

from ..errors import InvalidInput
from ..types import Document, check_text
from .chunking import Ids, Lines
from .files import Report, encoding_of, report_replaced, unescape

_ID = ("_id", "id")
_TEXT = ("text", "contents", "content", "body", "passage")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(\.\d+)?(e[+-]\d+)?", re.ASCII)
_LIST = re.compile(r"\s*\[\s*(?=[{\]])")
_COMMA = re.compile(r"\s*,\s*(?=[^\s\]])")
_END = re.compile(r"\s*\]\s*\Z")
# NaN and the infinities, which Python writes though JSON has none, are read as null.
_JSON = json.JSONDecoder(parse_constant=lambda name: None)


def read_table(file: Path, source: str, report: Report) -> Iterator[Document]:
    """The rows of a CSV or TSV file whose first line names the columns."""
    # The csv module refuses cells above 128 KiB, and documents can be longer. The limit belongs to the process.
    csv.field_size_limit(max(csv.field_size_limit(), 2**31 - 1))
    ids = Ids(source)
    with _lines(file, source, report, newline="") as lines:
        first = next(lines, "")
        unquoted = re.sub(r'"[^"]*"', "", first)
        delimiter = "\t" if file.suffix.lower() == ".tsv" else max(",;\t", key=unquoted.count)
        rows = _rows(chain([first], lines), delimiter, source)
        columns = _columns(next(rows, (1, []))[1])
        for line, cells in rows:
            with _located(source, line):
                if any(cells[len(columns) :]):
                    raise InvalidInput(
                        f"{len(cells)} cells were given for {len(columns)} columns; put cells that hold "
                        f"{delimiter!r} in double quotes"
                    )
                record = {name: cell for name, cell in zip(columns, cells, strict=False) if cell}
                document = _document(record, columns, ids, line, _number)
            yield document


def read_lines(file: Path, source: str, report: Report) -> Iterator[Document]:
    """The objects of a JSON Lines file."""
    ids = Ids(source)
    with _lines(file, source, report, newline="\n") as lines:
        for number, line in enumerate(lines, 1):
            content = line.strip()
            if content:
                with _located(source, number):
                    record, end = _object(content, 0)
                    if end < len(content):
                        raise InvalidInput(f"more follows the object, at character {end + 1}; put one on each line")
                    document = _document(record, record, ids, number)
                yield document


def is_list(text: str) -> bool:
    """Whether a JSON text is a list of objects, as far as its beginning tells."""
    return _LIST.match(text) is not None


def read_list(text: str, source: str) -> Iterator[Document]:
    """The objects of a JSON list."""
    ids, lines = Ids(source), Lines(text)
    next_one = _LIST.match(text)
    while next_one and text[next_one.end()] != "]":
        start = next_one.end()
        with _located(source, lines.at(start)):
            record, end = _object(text, start)
            document = _document(record, record, ids, lines.at(start))
        yield document
        next_one = _COMMA.match(text, end)
        if not next_one and not _END.match(text, end):
            raise InvalidInput(
                f"{source}, line {lines.at(end)}: after an object, a list needs ',' and another one, or ']'"
            )


@contextmanager
def _lines(file: Path, source: str, report: Report, newline: str) -> Iterator[Iterator[str]]:
    """The lines of a text file as they come, bytes that are not text replaced and, at the end, reported."""
    with open(file, "rb") as stream:
        encoding = encoding_of(stream.read(4))
    bad = 0

    def clean(lines: Iterable[str]) -> Iterator[str]:
        nonlocal bad
        for line in lines:
            text, replaced = unescape(line)
            bad += replaced
            yield text

    errors = "surrogateescape" if encoding.startswith("utf-8") else "replace"
    with open(file, encoding=encoding, errors=errors, newline=newline) as text:
        yield clean(text)
    report_replaced(source, bad, report)


@contextmanager
def _located(source: str, line: int) -> Iterator[None]:
    """Say where the error is."""
    try:
        yield
    except InvalidInput as error:
        raise InvalidInput(f"{source}, line {line}: {error}") from None


def _rows(lines: Iterable[str], delimiter: str, source: str) -> Iterator[tuple[int, list[str]]]:
    """The rows that hold something, each with its first line."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise InvalidInput(
                f"{source}, line {line}: {error}; put cells that hold quotes or newlines in double quotes, "
                "and double the quotes inside"
            ) from None
        if any(cells):
            yield line, cells


def _columns(names: list[str]) -> list[str]:
    """The names of the columns, made unique: blank ones are numbered, and so are repeated ones."""
    seen: Counter[str] = Counter()
    columns = []
    for number, given in enumerate(names, 1):
        name = given.strip() or f"column {number}"
        seen[name] += 1
        columns.append(name if seen[name] == 1 else f"{name} {seen[name]}")
    return columns


def _object(text: str, start: int) -> tuple[dict[str, Any], int]:
    """The JSON object that begins at an offset, and where it ends."""
    try:
        value, end = _JSON.raw_decode(text, start)
    except json.JSONDecodeError as error:
        raise InvalidInput(f"not JSON: {error.msg} at character {error.pos - start + 1}; write one object") from None
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"not JSON that can be read: {error}") from None
    if not isinstance(value, dict):
        raise InvalidInput(f'a JSON object is needed, such as {{"text": "..."}}; given {type(value).__name__}')
    return value, end


def _document(
    record: Mapping[str, Any],
    names: Collection[str],
    ids: Ids,
    line: int,
    value: Callable[[Any], Any] = lambda found: found,
) -> Document:
    """A record as a document; `names` are the fields it could have, `value` turns what goes into the metadata."""
    known: dict[str, str] = {}
    for name in names:
        known.setdefault(name.lower(), name)
    id_name, text_name = (next((known[n] for n in wanted if n in known), "") for wanted in (_ID, _TEXT))
    title_name = known.get("title", "")
    title = _string(record, title_name)
    text = _string(record, text_name) if text_name else _listed(record)
    rest = {name: found for name, found in record.items() if name not in {id_name, text_name, title_name}}
    own = rest.pop("metadata") if isinstance(rest.get("metadata"), dict) else {}
    metadata = {**own, **{name: value(found) for name, found in rest.items()}}
    for name, found in (("source", ids.source), ("line", line)):
        if name in metadata:
            metadata[f"{name}_"] = metadata.pop(name)
        metadata[name] = found
    try:
        written = json.dumps(metadata, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise InvalidInput(f"the metadata hold a number that cannot be stored ({error}); write it as text") from None
    check_text(written, "the metadata")
    return Document(_string(record, id_name) or ids.of(f"{title}\n{text}"), text, title, metadata)


def _string(record: Mapping[str, Any], name: str) -> str:
    """A field as text: numbers are written out, null and a missing field are empty."""
    found = record.get(name)
    if found is None:
        return ""
    if isinstance(found, bool) or not isinstance(found, (str, int, float)):
        raise InvalidInput(f"`{name}` is {type(found).__name__}; text is needed")
    text = str(found)
    check_text(text, f"`{name}`")
    return text


def _listed(record: Mapping[str, Any]) -> str:
    """All fields of a record as lines."""
    shown = {
        k: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for k, v in record.items() if v is not None
    }
    text = "\n".join(f"{name}: {found}" for name, found in shown.items() if found)
    check_text(text, "the record")
    return text


def _number(cell: str) -> str | int | float:
    """A cell as the number it writes, if a 64-bit integer or float has exactly that value; else as it is."""
    match = _NUMBER.fullmatch(cell)
    if match is None:
        return cell
    if match[1] is None and match[2] is None:
        return int(cell) if cell != "-0" and len(cell) < 19 else cell
    number = float(cell)
    return number if isfinite(number) and Decimal(cell) == Decimal(repr(number)) else cell

"""Rows of named fields from JSON lines, CSV, tab-separated or TREC files, with the line each came from.

The format is seen from the content; the extension decides where the content allows two readings. Every error names the
file, the line, what was found there and what is needed.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

from ..errors import InvalidInput
from ..storage import explained
from ..types import check_text

FilePath: TypeAlias = str | PathLike[str]
JSON_LINES = frozenset({".jsonl", ".ndjson", ".json"})


@dataclass(frozen=True)
class Layout:
    """What a record holds.

    Args:
        what: Name of one record, for messages.
        fields: Each field with the names that files give it, in the order in which records hold them.
        columns: Field of each column of a file without header, by the number of columns; "" is passed over.
        example: A line as it should be, for messages.
        spaced: Whether white space may separate columns, as in TREC files.
        bare_csv: Whether a CSV file may lack a header.
        optional: Fields that a record may lack, with their names.
    """

    what: str
    fields: Mapping[str, tuple[str, ...]]
    columns: Mapping[int, tuple[str, ...]]
    example: str
    spaced: bool = False
    bare_csv: bool = False
    optional: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def header(self, cells: list[str]) -> tuple[str, ...] | None:
        """The field of each column, "" for others, if these cells name all fields."""
        names = [cell.strip().lower() for cell in cells]
        found = {field: first for field, known in self.fields.items() if (first := _first(known, names))}
        if len(found) < len(self.fields):
            return None
        found |= {field: first for field, known in self.optional.items() if (first := _first(known, names))}
        by_name = {name: field for field, name in found.items()}
        return tuple(by_name.pop(name, "") for name in names)

    def needed(self) -> str:
        """What a file must hold, for messages."""
        names = "; ".join(f"{field}: {' or '.join(known)}" for field, known in self.fields.items())
        return f"{self.what} needs a line such as {self.example!r}, or fields or columns with these names ({names})"


@dataclass(frozen=True, slots=True)
class Record:
    """Field values with where they were found."""

    path: Path
    line: int
    values: Mapping[str, Any]

    def error(self, found: str, needed: str) -> InvalidInput:
        """An error that names the file and the line."""
        return InvalidInput(f"{str(self.path)!r}, line {self.line}: {found}; {needed}")

    def text(self, field: str) -> str:
        """The field as text that is not blank; whole numbers become text."""
        value = self.values[field]
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            raise self.error(f"`{field}` is {value!r}", "text is needed")
        if not value.strip():
            raise self.error(f"`{field}` is empty", "text is needed")
        check_text(value, f"{str(self.path)!r}, line {self.line}: `{field}`")
        return value

    def number(self, field: str) -> float:
        """The field as a number that float32 can hold."""
        value = self.values[field]
        try:
            number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None
        except (ValueError, OverflowError):
            number = None
        if number is None or not abs(number) < 3.4e38:
            raise self.error(f"`{field}` is {value!r}", "a finite number is needed")
        return number


def records(path: FilePath, layout: Layout) -> Iterator[Record]:
    """The records of a file, in its order; blank lines are passed over.

    Raises:
        StorageError: If the file cannot be read.
        InvalidInput: If it is empty, is not UTF-8, or a line does not fit the layout.
    """
    file = Path(path)
    lines = text_lines(file)
    number, first = next((found for found in lines if found[1].strip()), (0, ""))
    if not number:
        raise InvalidInput(f"{str(file)!r} is empty; {layout.needed()}")
    everything = chain([(number, first)], lines)
    filled = (found for found in everything if found[1].strip())
    extension, cells = file.suffix.lower(), first.split("\t")
    if extension in JSON_LINES:
        return _json_records(file, layout, filled)
    if extension != ".csv" and (len(cells) in layout.columns or layout.header(cells)):
        return _table(file, layout, ((line, text.split("\t")) for line, text in filled), bare=True)
    if extension not in {".csv", ".tsv"} and first.lstrip().startswith("{"):
        return _json_records(file, layout, filled)
    if extension != ".csv" and layout.spaced:
        return _table(file, layout, ((line, text.split()) for line, text in filled), bare=True)
    return _table(file, layout, _csv_rows(file, everything), bare=layout.bare_csv)


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines without their ends, numbered from 1.

    Raises:
        StorageError: If the file cannot be read.
        InvalidInput: If it is not UTF-8.
    """
    with explained("read", path), path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise InvalidInput(
                    f"{str(path)!r}, line {number}: byte {error.start + 1} is 0x{raw[error.start]:02x}, which is not "
                    "UTF-8; save the file as UTF-8"
                ) from None
            yield number, text.rstrip("\r\n")


def json_objects(path: Path, lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """One JSON object per line, with the line's number."""
    for number, text in lines:
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(
                f"{str(path)!r}, line {number}: {shortened(text)} is not JSON ({error}); one object a line is needed"
            ) from None
        if not isinstance(value, dict):
            raise InvalidInput(
                f"{str(path)!r}, line {number}: {shortened(text)} is not a JSON object; one a line is needed"
            )
        yield number, value


def shortened(text: str, length: int = 60) -> str:
    """Quoted, and cut where it is long."""
    return repr(text if len(text) <= length else text[:length] + "…")


def _json_records(path: Path, layout: Layout, lines: Iterator[tuple[int, str]]) -> Iterator[Record]:
    for number, found in json_objects(path, lines):
        by_name = {name.lower(): value for name, value in found.items()}
        named = (*layout.fields.items(), *layout.optional.items())
        values = {field: by_name[name] for field, known in named if (name := _first(known, by_name))}
        missing = [field for field in layout.fields if field not in values]
        if missing:
            raise InvalidInput(
                f"{str(path)!r}, line {number}: the fields {sorted(found)} do not give {missing[0]}; {layout.needed()}"
            )
        yield Record(path, number, values)


def _table(path: Path, layout: Layout, rows: Iterator[tuple[int, list[str]]], *, bare: bool) -> Iterator[Record]:
    number, cells = next(rows)
    fields = layout.header(cells)
    if fields is None:
        fields = layout.columns.get(len(cells)) if bare else None
        if fields is None:
            raise InvalidInput(
                f"{str(path)!r}, line {number}: {shortened(' | '.join(cells))} is neither {layout.what} nor a header; "
                f"{layout.needed()}"
            )
        rows = chain([(number, cells)], rows)
    for number, cells in rows:
        if len(cells) != len(fields):
            raise InvalidInput(
                f"{str(path)!r}, line {number}: {shortened(' | '.join(cells))} has {len(cells)} columns; {len(fields)} "
                "are needed, as in the first line"
            )
        yield Record(path, number, {field: cell for field, cell in zip(fields, cells, strict=True) if field})


def _csv_rows(path: Path, lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, list[str]]]:
    line = 0

    def text() -> Iterator[str]:
        nonlocal line
        for number, content in lines:
            line = number
            yield content + "\n"

    try:
        for cells in csv.reader(text(), strict=True, skipinitialspace=True):
            if cells:
                yield line, cells
    except csv.Error as error:
        raise InvalidInput(
            f"{str(path)!r}, line {line}: not CSV ({error}); quote values that hold commas, quotes or line breaks"
        ) from None


def _first(known: tuple[str, ...], names: Any) -> str | None:
    return next((name for name in known if name in names), None)

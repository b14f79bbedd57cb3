"""What filters mean, value by value, in Python and in SQL."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from datetime import date
from itertools import product
from typing import Any

import pytest

from ragistry import filters
from ragistry.errors import InvalidInput
from ragistry.filters import MAX_CONDITIONS, MAX_DEPTH, OPERATORS, compile, matches
from ragistry.metadata import encode, normal, plain

NUMBERS = [
    *(0, 1, 2, -1, 1.0, -0.0, 0.5, 0.1, 0.1 + 0.2, 0.3, 1e-5, 1e16, 1e300, 5e-324, 123456789.012345),
    *(2**53, 2**53 + 1, float(2**53), 2**63 - 1, -(2**63), 2**63, float(2**63), 2**64, 2**64 + 1, float(2**64)),
]
TEXTS = [
    "",
    "a",
    "A",
    "ab",
    "b",
    "aé",
    "é",
    "\uffff",
    "𝕏",
    "1",
    "null",
    "\0",
    "a\0",
    "a\0b",
    'a"b',
    "a\\b",
    "a\nb",
    "%",
]
SCALARS = [None, True, False, *NUMBERS, *TEXTS]
VALUES = [
    *SCALARS,
    [],
    [1],
    [1.0],
    ["a"],
    [True],
    [None],
    [1, [2]],
    [[1]],
    {},
    {"x": 1},
    {"x": 1.0},
    {"y": 1},
    [{"x": 1}],
]
KEYS = [
    "a",
    "b",
    "a.b",
    "a.b.a",
    ".",
    "",
    "a.",
    'a"b',
    'a"."b',
    "a\\",
    "\\u0061",
    "\n",
    "\0",
    "é",
    "é",
    "[0]",
    "a[0]",
    "$",
    "#-1",
    "0",
    "'",
]


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    opened = sqlite3.connect(":memory:")
    filters.install(opened)
    opened.execute("CREATE TABLE documents (metadata TEXT, plain INTEGER)")
    yield opened
    opened.close()


def fill(connection: sqlite3.Connection, held: list[dict[str, Any]]) -> None:
    rows = [(encode(normal(m, "metadata")), plain(m)) for m in held]
    connection.executemany("INSERT INTO documents VALUES (?, ?)", rows)


def judged(connection: sqlite3.Connection, where: dict[str, Any]) -> list[int]:
    sql, parameters = compile(where)
    return [found for (found,) in connection.execute(f"SELECT {sql} FROM documents ORDER BY rowid", parameters)]


@pytest.mark.parametrize("name", [name for name in OPERATORS if name != "exists"])
def test_sql_judges_every_value_against_every_operand_as_python_does(connection: sqlite3.Connection, name: str) -> None:
    held: list[dict[str, Any]] = [{}, *({"k": value} for value in VALUES), *({"k": ["z", value]} for value in VALUES)]
    fill(connection, held)
    comparable = [*NUMBERS, *TEXTS]
    operands: list[Any] = {"in": [[a, b] for a, b in zip(VALUES, VALUES[7:] + VALUES[:7], strict=True)] + [[]]}.get(
        name.removeprefix("n") if name == "nin" else name, comparable if name[:2] in {"gt", "lt"} else VALUES
    )
    for operand in operands:
        where = {"k": {name: operand}}
        assert judged(connection, where) == [matches(where, m) for m in held], where


def test_sql_finds_every_key_as_python_does(connection: sqlite3.Connection) -> None:
    held: list[dict[str, Any]] = [{key: 1} for key in KEYS]
    held += [{one: {two: 1}} for one, two in product(KEYS, KEYS)]
    held += [{"a": 1, "a.b": 2}, {"a": {"b": 1}, "a.b": 2}, {"a": [{"b": 1}]}, {"a": '{"b": 1}'}, {"a": None}]
    fill(connection, held)
    for field, condition in product(KEYS, ({"exists": True}, {"exists": False}, {"eq": 1}, {"ne": 1}, {"lt": 2})):
        where = {field: condition}
        assert judged(connection, where) == [matches(where, m) for m in held], where


@pytest.mark.parametrize(
    ("where", "metadata", "expected"),
    [
        ({}, {}, True),
        ({"a": 1, "b": 2}, {"a": 1, "b": 2}, True),
        ({"a": 1, "b": 2}, {"a": 1}, False),
        ({"a": {"gte": 1, "lt": 3}}, {"a": 3}, False),
        ({"a": {"ne": 1}}, {}, True),
        ({"a": {"nin": [1]}}, {}, True),
        ({"a": None}, {}, False),
        ({"a": None}, {"a": None}, True),
        ({"a": {"exists": True}}, {"a": None}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": {"gt": 0}}, {"a": True}, False),
        ({"a": {"gt": 0}}, {"a": "1"}, False),
        ({"a": {"gt": "Z"}}, {"a": "a"}, True),
        ({"not": {"a": {"gt": 0}}}, {"a": "1"}, True),
        ({"a": {"contains": "B"}}, {"a": "abc"}, False),
        ({"a": {"contains": 1}}, {"a": [1.0]}, True),
        ({"a": {"contains": 1}}, {"a": 1}, False),
        ({"a": {"contains": {"x": 1}}}, {"a": [{"x": 1.0}]}, True),
        ({"a": ["x", "y"]}, {"a": ["x", "y"]}, True),
        ({"a": {"eq": {"x": 1, "y": 2}}}, {"a": {"y": 2, "x": 1}}, True),
        ({"a.b": 1}, {"a": {"b": 1}}, True),
        ({"a.b": 1}, {"a.b": 1, "a": {"b": 2}}, True),
        ({"a.b": 2}, {"a.b": 1, "a": {"b": 2}}, False),
        ({"a.0": 1}, {"a": [1]}, False),
        ({"and": []}, {}, True),
        ({"or": []}, {}, False),
        ({"or": [{"a": 1}, {"and": [{"b": 1}, {"not": {"c": 1}}]}], "d": 1}, {"b": 1, "d": 1}, True),
    ],
)
def test_meaning(
    connection: sqlite3.Connection, where: dict[str, Any], metadata: dict[str, Any], expected: bool
) -> None:
    fill(connection, [metadata])
    assert matches(where, metadata) is expected
    assert judged(connection, where) == [expected]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"a": {"like": 1}}, r"'like'.*'a'.*eq, ne, gt, gte, lt, lte, in, nin, exists, contains"),
        ({"a": {"x": 1}}, r'by \{"eq": \{...\}\}'),
        ({"a": {}}, "no operator"),
        ({"a": {"in": "abc"}}, "needs a list"),
        ({"a": {"gt": None}}, "number or text"),
        ({"a": {"lt": True}}, "number or text"),
        ({"a": {"exists": 1}}, "True or False"),
        ({"a": {"eq": math.nan}}, "nan"),
        ({"a": date(2024, 1, 1)}, "date"),
        ({"a": {"in": {1}}}, "set"),
        ({1: 1}, "keys must be text"),
        ({"and": {}}, "list of filters"),
        ({"or": [1]}, "mappings"),
        ({"not": []}, "mappings"),
        ([], "mapping"),
        ("a = 1", "mapping"),
    ],
)
def test_what_is_not_a_filter_is_refused(where: Any, message: str) -> None:
    for judge in (lambda: matches(where, {}), lambda: compile(where)):
        with pytest.raises(InvalidInput, match=message):
            judge()


def nested(depth: int) -> dict[str, Any]:
    where: dict[str, Any] = {"k": {"contains": "a"}}
    for _ in range(depth // 2):
        where = {"or": [{"x": 1}, {"not": where}]}
    return where


def test_the_deepest_and_widest_filters_still_run(connection: sqlite3.Connection) -> None:
    fill(connection, [{"k": "a"}, {"k": ["b"]}])
    deepest = nested(MAX_DEPTH)
    assert (
        judged(connection, deepest) == [matches(deepest, {"k": "a"}), matches(deepest, {"k": ["b"]})] == [True, False]
    )
    conditions = [{"k": {"contains": str(i)}} for i in range(MAX_CONDITIONS - 1)] + [{"k": {"contains": "a"}}]
    assert judged(connection, {"or": conditions}) == [True, False]
    assert judged(connection, {"k": {"contains": "a"}, "n": {"nin": list(range(50_000))}}) == [True, False]


def test_deeper_and_wider_filters_are_refused() -> None:
    with pytest.raises(InvalidInput, match="deep"):
        compile(nested(MAX_DEPTH + 2))
    with pytest.raises(InvalidInput, match=r"501 conditions.*use `in`"):
        compile({"or": [{"k": i} for i in range(MAX_CONDITIONS + 1)]})


def test_fields_and_values_are_never_sql(connection: sqlite3.Connection) -> None:
    fill(connection, [{"k": 1}])
    for evil in ("') OR 1 --", "k' OR '1'='1", '") --', "'; DROP TABLE documents; --"):
        assert (
            judged(connection, {evil: 1})
            == judged(connection, {"k": evil})
            == judged(connection, {"k": {"in": [evil]}})
            == [0]
        )
        assert evil not in compile({evil: evil})[0]


@pytest.mark.parametrize("value", [0, -1, 2**63 - 1, 0.1, -2.5, 1e5, 99999999999999.0, "é", None, [True, {"a.b": 1}]])
def test_plain_metadata(value: Any) -> None:
    assert plain({"k": value})


@pytest.mark.parametrize("value", [2**63, -(2**63), 0.1 + 0.2, 1e-5, 1e16, 1e300, 5e-324, "a\0", [{"": 1}], {'"': 1}])
def test_metadata_that_some_sqlite_reads_otherwise(value: Any) -> None:
    assert not plain({"k": value}) and not plain({"k": [value]})

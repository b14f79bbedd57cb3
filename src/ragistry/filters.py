"""Metadata filters: what they mean, and the SQL they become.

A filter is a mapping such as `{"year": {"gte": 2020}, "lang": "en"}`. Each field is given conditions, which must all
hold; a bare value stands for `{"eq": value}`. `{"and": [...]}`, `{"or": [...]}` and `{"not": {...}}` combine filters.

| operator | holds when the document's value |
|---|---|
| `eq`, `ne` | is equal, is not equal or missing |
| `in`, `nin` | equals one of a list, none of it or missing |
| `gt`, `gte`, `lt`, `lte` | is of the same type, number or text, and compares so (text by code point) |
| `exists` | is there (`True`) or missing (`False`); a null is there |
| `contains` | is text holding this text, or a list holding an equal value |

Numbers are equal by value (`1` and `1.0`), lists and objects by content, and true and false are not numbers. A field is
a key of the metadata; failing that, each dot in it steps into a nested object: `"a.b"` means the key `a.b` if there is
one, else the key `b` of the object under `a`.

`matches` says what a filter means, and `compile` says the same in SQL. SQLite's JSON functions read some values
otherwise than Python does; metadata that is not `metadata.plain` is therefore handed to `matches` by the SQL itself.
"""

from __future__ import annotations

import json
import operator
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

from .errors import InvalidInput
from .metadata import encode, normal, plain_key, plain_value

Where: TypeAlias = Mapping[str, Any]
"""A filter on metadata."""

MAX_DEPTH = 16
MAX_CONDITIONS = 500

_ORDER: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "gt": (">", operator.gt),
    "gte": (">=", operator.ge),
    "lt": ("<", operator.lt),
    "lte": ("<=", operator.le),
}
NEGATED = {"ne": "eq", "nin": "in"}
OPERATORS = ("eq", "ne", "gt", "gte", "lt", "lte", "in", "nin", "exists", "contains")
COMBINERS = ("and", "or", "not")
_MISSING = object()


@dataclass(frozen=True, slots=True)
class Condition:
    """A field, an operator and what the field's value is compared with."""

    field: str
    operator: str
    operand: Any


@dataclass(frozen=True, slots=True)
class _Combination:
    combiner: str
    parts: tuple[_Node, ...]


_Node: TypeAlias = Condition | _Combination
_Sql: TypeAlias = tuple[str, list[Any]]


def matches(where: Where, metadata: Mapping[str, Any]) -> bool:
    """Whether metadata passes a filter: the meaning of filters, in Python.

    Args:
        where: A filter; an empty one lets everything pass.
        metadata: Values that JSON can hold, with text as keys.

    Returns:
        True if it passes.

    Raises:
        InvalidInput: If the filter is not one; the message says what is wrong with it.

    Example:
        >>> matches({"year": {"gte": 2020}, "tags": {"contains": "art"}}, {"year": 2024, "tags": ["art", "music"]})
        True
        >>> matches({"author.name": {"ne": "Ada"}}, {"author": {"name": "Ada"}})
        False
    """
    return _holds(tree(plain_filter(where)), metadata)


def compile(where: Where | None) -> tuple[str, list[Any]]:
    """A filter as an SQL expression that is 1 where `matches` is True, else 0.

    Args:
        where: A filter; an empty one, or None, lets everything pass.

    Returns:
        The expression, over the columns `metadata` (JSON text) and `plain` (what `metadata.plain` said of it), and its
        parameters; values and fields are only ever parameters. The connection needs `install` first.

    Raises:
        InvalidInput: If the filter is not one; the message says what is wrong with it.

    Example:
        >>> connection = sqlite3.connect(":memory:")
        >>> install(connection)
        >>> sql, parameters = compile({"year": {"gte": 2020}})
        >>> document = "(SELECT '{\\"year\\": 2024}' AS metadata, 1 AS plain)"
        >>> connection.execute(f"SELECT {sql} FROM {document}", parameters).fetchone()
        (1,)
        >>> connection.close()
    """
    given = plain_filter({} if where is None else where)
    node = tree(given)
    if node == _Combination("and", ()):
        return "1", []
    sql, parameters = _sql(node)
    return f"CASE WHEN plain THEN {sql} ELSE ragistry_matches(?, metadata) END", [*parameters, encode(given)]


def install(connection: sqlite3.Connection) -> None:
    """Give a connection the SQL function that compiled filters call."""
    connection.create_function("ragistry_matches", 2, _matches_json, deterministic=True)


# From a mapping to a tree.


def plain_filter(where: Any) -> dict[str, Any]:
    """A filter as it is read, in plain types; an `InvalidInput` if it is no mapping."""
    if not isinstance(where, Mapping):
        raise InvalidInput(f'a filter is a mapping such as {{"year": {{"gte": 2020}}}}; given {where!r:.100}')
    normalised: dict[str, Any] = normal(where, "the filter")
    return normalised


def tree(where: dict[str, Any]) -> _Node:
    """Its conditions, nested as they are; an `InvalidInput` if something in it is none."""
    node = _filter(where, 0)
    if _count(node) > MAX_CONDITIONS:
        raise InvalidInput(
            f"the filter has {_count(node)} conditions, over {MAX_CONDITIONS}; use `in` with a list of values"
        )
    return node


def _filter(where: Any, depth: int) -> _Node:
    if not isinstance(where, dict):
        raise InvalidInput(f"`and`, `or` and `not` combine filters, which are mappings; given {where!r:.100}")
    if depth > MAX_DEPTH:
        raise InvalidInput(f"the filter nests `and`, `or` and `not` more than {MAX_DEPTH} deep; flatten it")
    parts: list[_Node] = []
    for name, value in where.items():
        if name in COMBINERS:
            parts.append(_combination(name, value, depth + 1))
        else:
            parts.extend(_conditions(name, value))
    return parts[0] if len(parts) == 1 else _Combination("and", tuple(parts))


def _combination(combiner: str, value: Any, depth: int) -> _Node:
    if combiner == "not":
        return _Combination("not", (_filter(value, depth),))
    if not isinstance(value, list):
        raise InvalidInput(f"`{combiner}` needs a list of filters; given {value!r:.100}")
    return _Combination(combiner, tuple(_filter(part, depth) for part in value))


def _conditions(field: str, value: Any) -> Iterable[_Node]:
    if not isinstance(value, dict):
        value = {"eq": value}
    if not value:
        raise InvalidInput(f"the field {field!r} has no operator; known operators: {', '.join(OPERATORS)}")
    for name, operand in value.items():
        if name not in OPERATORS:
            raise InvalidInput(
                f"unknown operator {name!r} for the field {field!r}; known: {', '.join(OPERATORS)}; "
                f'combine filters with {", ".join(COMBINERS)}; compare with an object by {{"eq": {{...}}}}'
            )
        if name in {"in", "nin"} and not isinstance(operand, list):
            raise InvalidInput(f"`{name}` for the field {field!r} needs a list of values; given {operand!r:.100}")
        if name == "exists" and not isinstance(operand, bool):
            raise InvalidInput(f"`exists` for the field {field!r} needs True or False; given {operand!r:.100}")
        if name in _ORDER and _family(operand) is None:
            raise InvalidInput(f"`{name}` for the field {field!r} needs a number or text; given {operand!r:.100}")
        yield Condition(field, name, operand)


def _count(node: _Node) -> int:
    return 1 if isinstance(node, Condition) else sum(map(_count, node.parts))


# What a tree means.


@lru_cache(maxsize=16)
def _parsed(where: str) -> _Node:
    return tree(json.loads(where))


def _matches_json(where: str, metadata: str) -> bool:
    return _holds(_parsed(where), json.loads(metadata))


def _holds(node: _Node, metadata: Mapping[str, Any]) -> bool:
    if isinstance(node, Condition):
        return _condition_holds(node.operator, _value(metadata, node.field), node.operand)
    if node.combiner == "not":
        return not _holds(node.parts[0], metadata)
    return (all if node.combiner == "and" else any)(_holds(part, metadata) for part in node.parts)


def _value(metadata: Mapping[str, Any], field: str) -> Any:
    if field in metadata:
        return metadata[field]
    value: Any = metadata
    for key in field.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return _MISSING
        value = value[key]
    return value


def _condition_holds(name: str, value: Any, operand: Any) -> bool:
    if name in NEGATED:
        return not _condition_holds(NEGATED[name], value, operand)
    if name == "exists":
        return (value is not _MISSING) is operand
    if name == "eq":
        return _equal(value, operand)
    if name == "in":
        return any(_equal(value, choice) for choice in operand)
    if name == "contains":
        if isinstance(value, str):
            return isinstance(operand, str) and operand in value
        return isinstance(value, list | tuple) and any(_equal(held, operand) for held in value)
    return _family(value) is not None and _family(value) is _family(operand) and bool(_ORDER[name][1](value, operand))


def _family(value: Any) -> type | None:
    """The type whose values compare with this one."""
    if isinstance(value, bool):
        return None
    return float if isinstance(value, int | float) else str if isinstance(value, str) else None


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    if _family(a) is not None:
        return _family(a) is _family(b) and bool(a == b)
    return a is b  # only None, True, False and a missing value are left


# From a tree to SQL. Every expression is 0 or 1, never NULL, so that NOT is the complement.


def _sql(node: _Node) -> _Sql:
    if isinstance(node, Condition):
        return _condition_sql(node)
    parts = [_sql(part) for part in node.parts]
    parameters = [parameter for _, held in parts for parameter in held]
    if node.combiner == "not":
        return f"NOT {parts[0][0]}", parameters
    joined = f" {node.combiner.upper()} ".join(sql for sql, _ in parts)
    return (f"({joined})" if parts else str(int(node.combiner == "and"))), parameters


def _condition_sql(condition: Condition) -> _Sql:
    field, name, operand = condition.field, condition.operator, condition.operand
    if name in NEGATED:
        sql, parameters = _condition_sql(Condition(field, NEGATED[name], operand))
        return f"NOT {sql}", parameters
    keys = field.split(".")
    if not all(map(plain_key, keys)):  # no plain metadata has such a key
        return str(int(_condition_holds(name, _MISSING, operand))), []
    path = "$" + "".join(f'."{key}"' for key in keys)
    if name == "exists":
        return f"(json_type(metadata, ?) IS {'NOT ' if operand else ''}NULL)", [path]
    operands = operand if name == "in" else [operand]
    if not all(plain_value(choice) and not isinstance(choice, dict | list) for choice in operands):
        return "ragistry_matches(?, metadata)", [encode({field: {name: operand}})]
    kind, value = ("json_type(metadata, ?)", [path]), ("json_extract(metadata, ?)", [path])
    if name in _ORDER:
        return _of_family(kind, value, _family(operand), _ORDER[name][0], encode(operand))
    if name == "contains":
        return _contains_sql(path, operand)
    return _one_of(kind, value, operands)


def _of_family(kind: _Sql, value: _Sql, family: type | None, comparison: str, operand: str) -> _Sql:
    """Compare numbers with numbers, or text with text; SQLite reads both sides from JSON, so alike."""
    types = "'text'" if family is str else "'integer', 'real'"
    right = "(SELECT value FROM json_each(?))" if comparison == "IN" else "json_extract(?, '$')"
    sql = f"(ifnull({kind[0]}, '') IN ({types}) AND {value[0]} {comparison} {right})"
    return sql, [*kind[1], *value[1], operand]


def _one_of(kind: _Sql, value: _Sql, operands: list[Any]) -> _Sql:
    """Whether a value equals one of some scalars."""
    families = [(family, [held for held in operands if _family(held) is family]) for family in (float, str)]
    choices = [_of_family(kind, value, family, "IN", encode(held)) for family, held in families if held]
    names = {encode(operand) for operand in operands if _family(operand) is None}
    choices += [(f"{kind[0]} IS '{name}'", kind[1]) for name in sorted(names)]  # null, true, false: also their types
    if not choices:
        return "0", []
    return f"({' OR '.join(sql for sql, _ in choices)})", [held for _, parameters in choices for held in parameters]


def _contains_sql(path: str, operand: Any) -> _Sql:
    held, parameters = _one_of(("e.type", []), ("e.value", []), [operand])
    listed = f"json_type(metadata, ?) IS 'array' AND EXISTS (SELECT 1 FROM json_each(metadata, ?) AS e WHERE {held})"
    if not isinstance(operand, str):
        return f"({listed})", [path, path, *parameters]
    within = "json_type(metadata, ?) IS 'text' AND instr(json_extract(metadata, ?), ?) > 0"
    return f"({within} OR {listed})", [path, path, operand, path, path, *parameters]

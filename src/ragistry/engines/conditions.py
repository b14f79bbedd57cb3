"""Metadata filters as SQL over jsonb: they mean what `ragistry.filters.matches` says.

Metadata is stored twice: as it was given, and as `facts` of type jsonb for filters. What jsonb would read otherwise than
Python does (see `ragistry.metadata.plain`) has no facts, and is judged by `matches`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import filters
from ..filters import Where
from ..metadata import encode

Sql = tuple[str, list[Any]]
_ORDER = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


def condition(where: Where) -> Sql | None:
    """A filter as an SQL expression over the column `facts` that is true or false, never null, and its parameters.

    Returns:
        None where only Python can tell: a null character, which PostgreSQL cannot hold.

    Raises:
        InvalidInput: If the filter is not one.

    Example:
        >>> condition({"year": {"gte": 2020}})[1]
        ['year', 'year', '2020']
    """
    given = filters.plain_filter(where)
    node = filters.tree(given)
    return None if "\\u0000" in encode(given) else _sql(node)


def _sql(node: Any) -> Sql:
    if isinstance(node, filters.Condition):
        return _one(node.field, node.operator, node.operand)
    parts = [_sql(part) for part in node.parts]
    parameters = [parameter for _, held in parts for parameter in held]
    if node.combiner == "not":
        return f"NOT {parts[0][0]}", parameters
    joined = f" {node.combiner.upper()} ".join(sql for sql, _ in parts)
    return (f"({joined})" if parts else str(node.combiner == "and")), parameters


def _one(field: str, operator: str, operand: Any) -> Sql:
    if operator in filters.NEGATED:
        sql, parameters = _one(field, filters.NEGATED[operator], operand)
        return f"NOT {sql}", parameters
    keys = field.split(".")
    value = "(facts" + " -> %s::text" * len(keys) + ")"
    if operator == "exists":
        return f"({value} IS {'NOT ' if operand else ''}NULL)", keys
    if operator == "eq":
        return f"coalesce({value} = %s::jsonb, false)", [*keys, _json(operand)]
    if operator == "in":
        return f"coalesce({value} = ANY(%s::jsonb[]), false)", [*keys, [_json(held) for held in operand]]
    if operator in _ORDER:
        kind, cast, right = (
            ("string", "#>> '{}') COLLATE \"C\"", "%s::text")
            if isinstance(operand, str)
            else ("number", "#>> '{}')::numeric", "%s::numeric")
        )
        right_value = operand if isinstance(operand, str) else _json(operand)
        sql = (
            f"(CASE jsonb_typeof({value}) WHEN '{kind}' THEN ({value} {cast} {_ORDER[operator]} {right} ELSE false END)"
        )
        return sql, [*keys, *keys, right_value]
    listed = f"EXISTS (SELECT 1 FROM jsonb_array_elements({value}) AS held WHERE held = %s::jsonb)"
    within = f"strpos({value} #>> '{{}}', %s::text) > 0" if isinstance(operand, str) else "false"
    sql = f"(CASE jsonb_typeof({value}) WHEN 'array' THEN {listed} WHEN 'string' THEN {within} ELSE false END)"
    return sql, [*keys, *keys, _json(operand), *([*keys, operand] if isinstance(operand, str) else [])]


def _json(value: Any) -> str:
    """A value as JSON text, numbers written out: a float's shortest digits are not always its value."""
    return encode(_exact(value))


def _exact(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_exact(held) for held in value]
    if isinstance(value, Mapping):
        return {key: _exact(held) for key, held in value.items()}
    return value

"""Metadata filters as Milvus can say them: what must hold of a document for it to pass, though it may not be enough.

The servers differ in what they make of missing fields, types and negations. So only what they all read alike is given to
them, and `ragistry.filters.matches` judges what they let through.
"""

from __future__ import annotations

import json
import re
from typing import Any

from .. import filters
from ..filters import Where

FIELD = "facts"
_NEVER = "row < 0"
_ORDER = {"eq": "==", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_KEY = re.compile(r"[A-Za-z0-9_]+")
_TEXT = re.compile(r"[A-Za-z0-9 _.,:;/@+-]*")
_MOST = 50  # values of one list


def narrowing(where: Where) -> str:
    """An expression over the field `facts` that is true of all documents that pass a filter; "" where nothing can be said.

    Raises:
        InvalidInput: If the filter is not one.

    Example:
        >>> narrowing({"year": {"gte": 2020}, "lang": {"ne": "en"}})
        'facts["year"] >= 2020'
    """
    return _narrowed(filters.tree(filters.plain_filter(where))) or ""


def _narrowed(node: Any) -> str | None:
    if isinstance(node, filters.Condition):
        return _one(node.field, node.operator, node.operand)
    if node.combiner == "not":
        return None
    parts = [_narrowed(part) for part in node.parts]
    said = [part for part in parts if part is not None]
    if node.combiner == "and":
        return " and ".join(f"({part})" for part in said) if len(said) > 1 else said[0] if said else None
    return None if len(said) < len(parts) else " or ".join(f"({part})" for part in said) or _NEVER


def _one(field: str, operator: str, operand: Any) -> str | None:
    keys = field.split(".")
    if not all(map(_KEY.fullmatch, keys)):
        return None
    path = FIELD + "".join(f'["{key}"]' for key in keys)
    if operator == "in":
        values = [_literal(value) for value in operand]
        if len(values) > _MOST or None in values:
            return None
        return " or ".join(f"{path} == {value}" for value in values) or _NEVER
    value = _literal(operand)
    return f"{path} {_ORDER[operator]} {value}" if operator in _ORDER and value is not None else None


def _literal(value: Any) -> str | None:
    if isinstance(value, str):
        return json.dumps(value) if _TEXT.fullmatch(value) else None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float) and abs(value) < 2**53 and "e" not in repr(value):
        return repr(value)
    return None

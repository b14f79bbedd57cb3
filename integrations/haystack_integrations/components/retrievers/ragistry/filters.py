"""Haystack's filters as Ragistry's.

A filter in Haystack is a comparison, `{"field": "meta.year", "operator": ">=", "value": 2020}`, or
`{"operator": "AND", "conditions": [...]}` with `AND`, `OR` or `NOT`. Missing values mean what they mean to Haystack: a field
that is missing equals `None`, differs from everything else, and is neither greater nor less than anything.

Two things differ. Dates are compared as the text that they are stored as, not as moments, so those in filters must be
written as those in documents are: ISO 8601, all with the same precision and time zone. And `True` does not equal 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

from haystack.errors import FilterError

from ragistry.filters import COMBINERS

Where = dict[str, Any]

_COMPARISONS = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}
_OPERATORS = ("==", "!=", *_COMPARISONS, "in", "not in")
_LOGICAL = ("AND", "OR", "NOT")
_NO_METADATA = {"id", "content", "blob", "meta", "score", "embedding", "sparse_embedding"}  # fields of a Document
_NOTHING: Where = {"or": []}


def to_where(filters: Mapping[str, Any] | None) -> Where | None:
    """A filter of Haystack as `Collection.search` takes it.

    Args:
        filters: A comparison, or a combination of filters; an empty one, or None, lets everything pass.

    Raises:
        FilterError: If it is no filter, or one of something else than metadata; the message says what is needed.

    Example:
        >>> to_where({"field": "meta.year", "operator": ">=", "value": 2020})
        {'year': {'gte': 2020}}
        >>> to_where({"operator": "NOT", "conditions": [{"field": "meta.lang", "operator": "==", "value": "en"}]})
        {'not': {'and': [{'lang': {'eq': 'en'}}]}}
    """
    return _filter(filters) if filters else None


def _filter(given: Any) -> Where:
    if not isinstance(given, Mapping):
        raise FilterError(f"a filter is a mapping with `field` or `conditions`; given {given!r:.100}")
    wanted = ("field", "operator", "value") if "field" in given else ("operator", "conditions")
    for key in wanted:
        if key not in given:
            raise FilterError(f"the filter {dict(given)!r:.200} has no {key!r}; {', '.join(wanted)} are needed")
    if "field" in given:
        return _comparison(_name(given["field"]), given["operator"], given["value"])
    operator, conditions = given["operator"], given["conditions"]
    if operator not in _LOGICAL:
        raise FilterError(f"filters were combined with {operator!r}; known: {', '.join(_LOGICAL)}")
    if not isinstance(conditions, list):
        raise FilterError(f"`conditions` of {operator} needs a list of filters; given {conditions!r:.100}")
    parts = [_filter(condition) for condition in conditions]
    return {"not": {"and": parts}} if operator == "NOT" else {operator.lower(): parts}


def _name(field: Any) -> str:
    name = field.removeprefix("meta.") if isinstance(field, str) else ""
    if not name or (name == field and name.partition(".")[0] in _NO_METADATA) or name in COMBINERS:
        raise FilterError(f"the field {field!r} cannot be filtered by; name a field of the metadata, as 'meta.year'")
    return name


def _comparison(name: str, operator: Any, value: Any) -> Where:
    if operator not in _OPERATORS:
        raise FilterError(f"the field {name!r} was compared by {operator!r}; known: {', '.join(_OPERATORS)}")
    if operator in _COMPARISONS:
        return _ordered(name, operator, value)
    if operator in {"in", "not in"}:
        if not isinstance(value, list):
            raise FilterError(f"`{operator}` for the field {name!r} needs a list of values; given {value!r:.100}")
        held = _one_of(name, value)
    else:
        held = _one_of(name, [value])
    return {"not": held} if operator in {"!=", "not in"} else held


def _one_of(name: str, values: list[Any]) -> Where:
    plain = [_plain(value) for value in values]
    held: Where = {name: {"eq": plain[0]} if len(plain) == 1 else {"in": plain}}
    return {"or": [held, {name: {"exists": False}}]} if any(value is None for value in plain) else held


def _ordered(name: str, operator: str, value: Any) -> Where:
    if value is None:
        return _NOTHING
    bound = _plain(value)
    if isinstance(bound, bool) or not isinstance(bound, int | float | str):
        raise FilterError(f"`{operator}` for the field {name!r} needs a number or a date; given {value!r:.100}")
    if isinstance(bound, str):
        try:
            datetime.fromisoformat(bound)
        except ValueError:
            raise FilterError(f"`{operator}` for the field {name!r} needs an ISO date; given {value!r:.100}") from None
    return {name: {_COMPARISONS[operator]: bound}}


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) else value  # a datetime is one as well

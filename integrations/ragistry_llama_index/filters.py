"""LlamaIndex's metadata filters and Ragistry's, each as the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters
from pydantic import ValidationError

from ragistry.errors import InvalidInput
from ragistry.filters import COMBINERS, matches

Filters: TypeAlias = MetadataFilters | Mapping[str, Any]
"""A filter in either language."""

_SAME = {
    FilterOperator.EQ: "eq",
    FilterOperator.NE: "ne",
    FilterOperator.GT: "gt",
    FilterOperator.GTE: "gte",
    FilterOperator.LT: "lt",
    FilterOperator.LTE: "lte",
    FilterOperator.IN: "in",
    FilterOperator.NIN: "nin",
    FilterOperator.CONTAINS: "contains",
}
_LISTS = {FilterOperator.IN: "in", FilterOperator.NIN: "nin", FilterOperator.ANY: "or", FilterOperator.ALL: "and"}
_BACK = {name: operator for operator, name in _SAME.items()}


def where_of(filters: Filters | None) -> dict[str, Any] | None:
    """A filter as `Collection.search` takes it, with the meaning that LlamaIndex's own store gives it.

    Where that store would raise an error, as for a number compared with text, nothing matches. True and false are no numbers
    here. Filters may be nested, which that store refuses.

    Args:
        filters: LlamaIndex's, or Ragistry's, which is passed on.

    Raises:
        InvalidInput: If a filter cannot be said in Ragistry's language: `text_match_insensitive`, a value that is missing or
            no list where one is needed, a field called `and`, `or` or `not`.

    Example:
        >>> where_of(MetadataFilters(filters=[MetadataFilter(key="year", value=1700, operator=FilterOperator.LT)]))
        {'year': {'lt': 1700}}
    """
    if filters is None or isinstance(filters, Mapping):
        return None if filters is None else dict(filters)
    if not isinstance(filters, MetadataFilters):
        raise InvalidInput(f"{filters!r:.100} is {type(filters).__name__}; MetadataFilters or a mapping is needed")
    # No filter at all lets everything pass, whatever its condition: so does LlamaIndex's store.
    parts = [where_of(part) if isinstance(part, MetadataFilters) else _condition(part) for part in filters.filters]
    if not parts:
        return {}
    if filters.condition == FilterCondition.NOT:  # none of them holds
        return {"not": parts[0] if len(parts) == 1 else {"or": parts}}
    return parts[0] if len(parts) == 1 else {(filters.condition or FilterCondition.AND).value: parts}


def filter_for(collection: object, filters: Filters | None) -> Any:
    """A filter as a collection takes it; one that borrows a store of someone else's takes it as it is."""
    return filters if getattr(collection, "foreign_filters", False) else where_of(filters)


def filters_of(where: Filters | None) -> MetadataFilters | None:
    """A filter as LlamaIndex's vector stores take it. What it means there, and what is supported, is the store's business.

    Conditions that must all hold are never nested, as many stores take one level only.

    Args:
        where: Ragistry's filter, or LlamaIndex's, which is passed on.

    Raises:
        InvalidInput: If it is no filter, or cannot be said in LlamaIndex's language: `exists`, and values other than text,
            numbers, and lists of one of them.

    Example:
        >>> found = filters_of({"lang": "en", "year": {"gte": 1600, "lt": 1700}})
        >>> [(part.key, part.operator.value, part.value) for part in found.filters]
        [('lang', '==', 'en'), ('year', '>=', 1600), ('year', '<', 1700)]
    """
    if where is None or isinstance(where, MetadataFilters):
        return where
    matches(where, {})  # refuses what is no filter
    parts = list(_conjuncts(where))
    if len(parts) == 1 and isinstance(parts[0], MetadataFilters):
        return parts[0]
    return MetadataFilters(filters=parts) if parts else None


def _condition(given: MetadataFilter) -> dict[str, Any]:
    """One condition."""
    key, operator, value = given.key, given.operator, given.value
    about = f"the filter {operator.value!r} for the field {key!r}"
    if key in COMBINERS:
        raise InvalidInput(
            f"{about} cannot be said: the name is a word of Ragistry's language; give the field another one"
        )
    if operator == FilterOperator.IS_EMPTY:
        return {"or": [{key: {"exists": False}}, {key: {"in": [None, "", []]}}]}
    if value is None:
        raise InvalidInput(f"{about} has no value; give one, or use 'is_empty' for what is missing")
    if operator in _LISTS and not isinstance(value, list):
        raise InvalidInput(f"{about} has the value {value!r:.100}; a list of values is needed")
    if operator in _SAME:
        return {key: {_SAME[operator]: value}}
    if isinstance(value, list) and operator in {FilterOperator.ANY, FilterOperator.ALL}:
        if value:
            return {_LISTS[operator]: [{key: {"contains": held}} for held in value]}
        return {key: {"in": []} if operator == FilterOperator.ANY else {"exists": True, "ne": None}}
    if operator == FilterOperator.TEXT_MATCH and isinstance(value, str):
        return {key: {"contains": value, "gte": ""}}  # what compares with text is text, not a list holding it
    raise InvalidInput(
        f"{about} with the value {value!r:.100} has no counterpart; use 'text_match' with text, or keep a copy of the field "
        "in lower case"
    )


def _conjuncts(where: Mapping[str, Any]) -> Iterator[MetadataFilter | MetadataFilters]:
    """What must all hold."""
    for name, value in where.items():
        if name == "and":
            for part in value:
                yield from _conjuncts(part)
        elif name == "or" and len(value) == 1:
            yield from _conjuncts(value[0])
        elif name == "or":
            yield MetadataFilters(filters=[_one(part) for part in _some(value)], condition=FilterCondition.OR)
        elif name == "not":
            yield MetadataFilters(filters=[_one(value)], condition=FilterCondition.NOT)
        else:
            conditions = value if isinstance(value, Mapping) else {"eq": value}
            for operator, operand in conditions.items():
                yield _filter(name, operator, operand)


def _one(where: Mapping[str, Any]) -> MetadataFilter | MetadataFilters:
    parts = _some(list(_conjuncts(where)))
    return parts[0] if len(parts) == 1 else MetadataFilters(filters=parts)


def _some(given: list[Any]) -> list[Any]:
    """Refuse what is empty: to LlamaIndex that is no filter, even where it lets nothing pass here."""
    if not given:
        raise InvalidInput("an empty filter within `or` or `not` cannot be said in LlamaIndex's language; leave it out")
    return given


def _filter(key: str, operator: str, operand: Any) -> MetadataFilter:
    if operator not in _BACK:
        raise InvalidInput(
            f"`{operator}` for the field {key!r} has no counterpart in LlamaIndex; give MetadataFilters with 'is_empty' if "
            "the store understands that"
        )
    value = list(operand) if isinstance(operand, tuple) else operand
    try:
        if value is not None:
            return MetadataFilter(key=key, value=value, operator=_BACK[operator])
    except ValidationError:
        pass
    raise InvalidInput(
        f"`{operator}` for the field {key!r} compares with {operand!r:.100}; LlamaIndex's filters take text, numbers, and "
        "lists of one of them"
    )

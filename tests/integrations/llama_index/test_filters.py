"""Filters of both languages mean the same, by LlamaIndex's own store and by Ragistry's `matches`."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("llama_index.core")

from hypothesis import assume, given
from hypothesis import strategies as st
from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

try:  # what LlamaIndex's own store makes of filters, which changed; compared is how it is now
    from llama_index.core import __version__ as theirs
    from llama_index.core.vector_stores.utils import build_metadata_filter_fn
except ImportError:
    theirs = "0"

from ragistry.errors import InvalidInput
from ragistry.filters import matches
from ragistry.tools import joined
from ragistry_llama_index import filters_of, where_of

if tuple(map(int, theirs.split(".")[:3])) < (0, 14, 25):
    pytest.skip("an older LlamaIndex, whose stores filter otherwise", allow_module_level=True)

METADATA: list[dict[str, Any]] = [
    {},
    {"x": None},
    {"x": ""},
    {"x": []},
    {"x": 0},
    {"x": 1},
    {"x": 1.5},
    {"x": "a"},
    {"x": "abc"},
    {"x": "ABC"},
    {"x": ["a"]},
    {"x": ["a", "abc"]},
    {"x": [1, 2]},
    {"y": "a"},
]


def theirs(filters: MetadataFilters | None, metadata: dict[str, Any]) -> bool | None:
    """What LlamaIndex's own store makes of it; none if it raises an error, as for a number compared with text."""
    try:
        return build_metadata_filter_fn(lambda _: metadata, filters)("id")
    except TypeError:
        return None


def one(operator: str, value: Any, key: str = "x") -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value, operator=FilterOperator(operator))])


@pytest.mark.parametrize("metadata", METADATA, ids=str)
@pytest.mark.parametrize(
    ("operator", "values"),
    [
        ("==", [0, 1, 1.5, "a", "", ["a"]]),
        ("!=", [0, 1, 1.5, "a", "", ["a"]]),
        (">", [0, 1.5, "a"]),
        (">=", [0, 1.5, "a"]),
        ("<", [0, 1.5, "b"]),
        ("<=", [0, 1.5, "b"]),
        ("in", [[], ["a", "b"], [1, 2], [1.5]]),
        ("nin", [[], ["a", "b"], [1, 2], [1.5]]),
        ("contains", ["a", "b", 1]),
        ("any", [[], ["a"], ["a", "z"], [1]]),
        ("all", [[], ["a"], ["a", "abc"], ["a", "z"], [1]]),
        ("text_match", ["a", "B", ""]),
        ("is_empty", [None]),
    ],
)
def test_every_operator_means_what_it_means_in_llama_index(operator, values, metadata) -> None:
    for value in values:
        expected = theirs(one(operator, value), metadata)
        # What is an error there matches nothing here.
        assert matches(where_of(one(operator, value)), metadata) == bool(expected), value


plain = st.one_of(st.integers(-2, 2), st.sampled_from(["", "a", "ab", "b"]))
values = st.one_of(st.none(), plain, st.lists(st.sampled_from(["a", "b", "ab"]), max_size=2))
conditions = st.one_of(
    st.builds(
        MetadataFilter,
        key=st.sampled_from("xyz"),
        value=plain,
        operator=st.sampled_from([FilterOperator(name) for name in ("==", "!=", ">", "<", ">=", "<=", "contains")]),
    ),
    st.builds(
        MetadataFilter,
        key=st.sampled_from("xyz"),
        value=st.lists(st.sampled_from(["a", "b", "ab"]), max_size=3),
        operator=st.sampled_from([FilterOperator(name) for name in ("in", "nin", "any", "all")]),
    ),
    st.builds(
        MetadataFilter, key=st.sampled_from("xyz"), value=st.none(), operator=st.just(FilterOperator("is_empty"))
    ),
)


@given(
    filters=st.builds(
        MetadataFilters,
        filters=st.lists(conditions, max_size=4),
        condition=st.sampled_from([*FilterCondition, None]),
    ),
    metadata=st.dictionaries(st.sampled_from("xyz"), values),
)
def test_combinations_mean_what_they_mean_in_llama_index(filters, metadata) -> None:
    expected = theirs(filters, metadata)
    assume(expected is not None)
    assert matches(where_of(filters) or {}, metadata) == expected


def test_filters_nest_as_their_store_would_not() -> None:
    tree = MetadataFilters(
        filters=[
            MetadataFilters(filters=[one("==", 1).filters[0], one("==", 2).filters[0]], condition="or"),
            MetadataFilters(filters=[one("==", "en", "lang").filters[0]], condition="not"),
        ]
    )
    assert where_of(tree) == {
        "and": [{"or": [{"x": {"eq": 1}}, {"x": {"eq": 2}}]}, {"not": {"lang": {"eq": "en"}}}],
    }
    assert matches(where_of(tree), {"x": 2, "lang": "de"})
    assert not matches(where_of(tree), {"x": 2, "lang": "en"})


def test_no_filters_let_everything_pass_whatever_their_condition() -> None:
    for condition in [*FilterCondition, None]:
        assert where_of(MetadataFilters(filters=[], condition=condition)) == {}
    assert where_of(None) is None
    assert where_of({"year": 1609}) == {"year": 1609}


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        (one("text_match_insensitive", "a"), "'text_match_insensitive' for the field 'x' .* has no counterpart"),
        (one("text_match", 1), "'text_match' for the field 'x' with the value 1 has no counterpart"),
        (one("in", "abc"), "'in' for the field 'x' has the value 'abc'; a list of values is needed"),
        (one("any", "abc"), "'any' .* a list of values is needed"),
        (one("==", None), "'==' for the field 'x' has no value; give one, or use 'is_empty'"),
        (one("==", 1, "or"), "'==' for the field 'or' cannot be said"),
        (MetadataFilter(key="x", value=1), "is MetadataFilter; MetadataFilters or a mapping is needed"),
        ([("x", 1)], "is list; MetadataFilters or a mapping"),
    ],
    ids=str,
)
def test_what_cannot_be_said_exactly_is_refused(filters, message) -> None:
    with pytest.raises(InvalidInput, match=message):
        where_of(filters)


WHERES: list[dict[str, Any]] = [
    {"x": 1},
    {"x": "a"},
    {"x": {"ne": "a"}},
    {"x": {"gte": 1, "lt": 1.5}},
    {"x": {"gt": "a", "lte": "abc"}},
    {"x": {"in": ["a", "abc"]}},
    {"x": {"nin": [1, 2]}},
    {"x": {"contains": "a"}},
    {"or": [{"x": 1}, {"y": "a"}]},
    {"and": [{"x": {"gte": 0}}, {"and": [{"x": {"lt": 1}}]}]},
    {"not": {"x": 1}},
    {"not": {"or": [{"x": 1}]}},
]


@pytest.mark.parametrize("where", WHERES, ids=str)
def test_our_filters_mean_the_same_in_their_store(where) -> None:
    compared = 0
    for metadata in METADATA:
        found = theirs(filters_of(where), metadata)
        if found is not None:
            assert found == matches(where, metadata), metadata
            compared += 1
    assert compared >= 5  # the rest compare a number with text


def test_a_tools_filters_are_one_level() -> None:
    """What a tenant's filter and a model's come to: many stores take no more, LlamaIndex's own among them."""
    both = joined({"tenant": "a"}, joined({"and": [{"year": {"gte": 1600}}, {"lang": {"eq": "en"}}]}))
    found = filters_of(both)
    assert found is not None
    assert [(part.key, part.value) for part in found.filters] == [("tenant", "a"), ("year", 1600), ("lang", "en")]
    assert found.condition == FilterCondition.AND


def test_nothing_is_no_filter_and_theirs_are_passed_on() -> None:
    theirs = one("text_match_insensitive", "a")
    assert filters_of(theirs) is theirs
    assert filters_of(None) is None
    assert filters_of({}) is None


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"x": {"exists": False}}, "`exists` for the field 'x' has no counterpart in LlamaIndex"),
        ({"x": True}, "`eq` for the field 'x' compares with True"),
        ({"x": None}, "compares with None"),
        ({"x": {"eq": {"a": 1}}}, "compares with"),
        ({"x": {"in": ["a", 1]}}, "lists of one of them"),
        ({"x": {"near": 1}}, "unknown operator 'near'"),
        ({"or": []}, "an empty filter within `or`"),
        ({"not": {}}, "an empty filter within"),
        ({"not": {"and": [{}]}}, "an empty filter within"),
        ({"x": 1, "or": [{}, {"y": 1}]}, "an empty filter within"),
        ("x == 1", "a filter is a mapping"),
    ],
    ids=str,
)
def test_what_their_filters_cannot_say_is_refused(where, message) -> None:
    with pytest.raises(InvalidInput, match=message):
        filters_of(where)

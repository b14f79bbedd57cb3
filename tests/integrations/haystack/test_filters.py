"""What Haystack's filters mean here is what they mean to Haystack, by its own tests and its own function."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

haystack = pytest.importorskip("haystack")

from haystack import Document  # noqa: E402
from haystack.errors import FilterError  # noqa: E402
from haystack.testing.document_store import FilterDocumentsTest  # noqa: E402
from haystack.utils.filters import document_matches_filter  # noqa: E402

from haystack_integrations.components.retrievers.ragistry import RagistryWriter, to_where  # noqa: E402
from ragistry import Collection, create  # noqa: E402
from ragistry.filters import matches  # noqa: E402


class Store:
    """What the vendor's tests ask of a store, over a collection: so the SQL is tested as well."""

    def __init__(self, path: Path) -> None:
        self.collection = Collection.create(path, create("bm25"))
        self.given: dict[str, Document] = {}

    def write_documents(self, documents: Sequence[Document]) -> None:
        self.given |= {document.id: document for document in documents}
        RagistryWriter(self.collection).run(list(documents))

    def filter_documents(self, filters: dict[str, Any] | None = None) -> list[Document]:
        return [self.given[found.id] for found in self.collection.documents(to_where(filters))]


class TestVendor(FilterDocumentsTest):
    @pytest.fixture
    def document_store(self, tmp_path: Path) -> Store:
        return Store(tmp_path / "docs")


METADATA: list[dict[str, Any]] = [
    {},
    {"x": None},
    {"x": 3, "name": "ada"},
    {"x": 3.0, "name": "grace"},
    {"x": 7, "name": None},
    {"x": "2020-05-01"},
    {"x": "2021-01-01"},
    {"x": [1, 2]},
    {"by": {"name": "ada", "born": 1815}},
    {"by": None},
]
COMPARISONS: list[tuple[str, Any]] = [
    *((operator, value) for operator in ("==", "!=") for value in (3, 4, None, "ada", "2020-05-01", [1, 2], [])),
    *((operator, value) for operator in ("in", "not in") for value in ([3, "ada"], [None], [7, None], [], [[1, 2]])),
]
NESTED: list[dict[str, Any]] = [
    {"operator": operator, "conditions": conditions}
    for operator in ("AND", "OR", "NOT")
    for conditions in (
        [],
        [{"field": "meta.x", "operator": "==", "value": 3}],
        [{"field": "meta.x", "operator": "==", "value": 3}, {"field": "meta.name", "operator": "!=", "value": "ada"}],
        [
            {"operator": "NOT", "conditions": [{"field": "meta.by.name", "operator": "==", "value": "ada"}]},
            {"operator": "OR", "conditions": [{"field": "x", "operator": "in", "value": [3, 7]}]},
        ],
    )
]


def agree(filters: dict[str, Any], metadata: dict[str, Any]) -> bool:
    where = to_where(filters)
    assert where is not None
    return matches(where, metadata) is document_matches_filter(filters, Document(content="", meta=metadata))


@pytest.mark.parametrize("field", ["meta.x", "x", "meta.name", "meta.by.name", "meta.by", "meta.missing.deeper"])
@pytest.mark.parametrize(("operator", "value"), COMPARISONS)
def test_equality_means_what_haystack_means(field: str, operator: str, value: Any) -> None:
    for metadata in METADATA:
        assert agree({"field": field, "operator": operator, "value": value}, metadata), metadata


@pytest.mark.parametrize("operator", [">", ">=", "<", "<="])
@pytest.mark.parametrize(
    ("value", "held"),
    [
        (3, [{}, {"x": None}, {"x": 2}, {"x": 3.0}, {"x": 4}]),
        ("2020-05-01", [{"x": f"2020-0{m}-01"} for m in (4, 5, 6)]),
    ],
)
def test_order_means_what_haystack_means(operator: str, value: Any, held: list[dict[str, Any]]) -> None:
    for metadata in held:
        assert agree({"field": "meta.x", "operator": operator, "value": value}, metadata), metadata
    for metadata in METADATA:
        assert agree({"field": "meta.x", "operator": operator, "value": None}, metadata), metadata


@pytest.mark.parametrize("filters", NESTED)
def test_combinations_mean_what_haystack_means(filters: dict[str, Any]) -> None:
    for metadata in METADATA:
        assert agree(filters, metadata), metadata


def test_nothing_to_filter() -> None:
    assert to_where(None) is None
    assert to_where({}) is None


def test_dates_are_written_out() -> None:
    moment = {"field": "meta.at", "operator": ">=", "value": datetime(2020, 5, 1, 12)}
    assert to_where(moment) == {"at": {"gte": "2020-05-01T12:00:00"}}
    assert to_where({"field": "meta.at", "operator": "==", "value": date(2020, 5, 1)}) == {"at": {"eq": "2020-05-01"}}


@pytest.mark.parametrize(
    ("filters", "said"),
    [
        ([{"field": "meta.x", "operator": "==", "value": 1}], "a mapping"),
        ({"x": 1}, "'operator'"),
        ({"operator": "AND"}, "'conditions'"),
        ({"operator": "XOR", "conditions": []}, "XOR.*AND, OR, NOT"),
        ({"operator": "AND", "conditions": {"field": "meta.x"}}, "needs a list"),
        ({"operator": "AND", "conditions": ["x"]}, "a mapping"),
        ({"field": "meta.x", "operator": "==", "values": 1}, "'value'"),
        ({"field": "meta.x", "operator": "~", "value": 1}, "'~'.*=="),
        ({"field": "meta.x", "operator": ["=="], "value": 1}, "known"),
        ({"field": "content", "operator": "==", "value": "a"}, "'content' cannot be filtered"),
        ({"field": "id", "operator": "in", "value": ["a"]}, "'id' cannot be filtered"),
        ({"field": "meta", "operator": "==", "value": {}}, "'meta' cannot be filtered"),
        ({"field": "meta.", "operator": "==", "value": 1}, "cannot be filtered"),
        ({"field": 7, "operator": "==", "value": 1}, "7 cannot be filtered"),
        ({"field": "meta.and", "operator": "==", "value": 1}, "cannot be filtered"),
        ({"field": "meta.x", "operator": "in", "value": "abc"}, "needs a list"),
        ({"field": "meta.x", "operator": ">", "value": "soon"}, "ISO date"),
        ({"field": "meta.x", "operator": ">", "value": True}, "number or a date"),
        ({"field": "meta.x", "operator": "<", "value": [1]}, "number or a date"),
    ],
)
def test_what_is_no_filter_is_refused(filters: Any, said: str) -> None:
    with pytest.raises(FilterError, match=said):
        to_where(filters)

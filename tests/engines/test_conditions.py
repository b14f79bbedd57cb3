"""Filters mean in PostgreSQL what they mean in Python."""

from __future__ import annotations

from typing import Any

from ragistry import Collection, Document, create
from ragistry.filters import OPERATORS, matches

VALUES: list[Any] = [
    None, True, False, 0, 1, 1.0, -1, 0.1, 0.1 + 0.2, 1e300, 2**53, float(2**53), 2**53 + 1, 2**60, float(2**60), 2**70,
    10**23, "", "a", "b", "B", "é", "𝔸", "1", "true", "a\0b", "with 'quotes' and \\ and %s", [], ["a"], ["a", "b"],
    [1, "1", None], [[1], {"x": 1}], {}, {"x": 1}, {"x": {"y": "a"}}, {"x": [1, 2]}, {"y": 1.0, "x": 1},
]  # fmt: skip
METADATA: list[dict[str, Any]] = [
    *({"f": value} for value in VALUES),
    {},
    {"other": 1},
    {"f.x": 1},
    {"f": {"x": 2}, "f.x": 1},
    {"f": {"0": 1}},
    {"f": [{"x": 1}]},
    {"f": {"": 1}},
]


def test_every_operator_on_every_value(address: str) -> None:
    documents = [Document(f"{i:02}", "text", metadata=metadata) for i, metadata in enumerate(METADATA)]
    filters: list[dict[str, Any]] = []
    for field in ("f", "f.x", "f.x.y", "f.0"):
        for operator in OPERATORS:
            if operator == "exists":
                filters += [{field: {operator: held}} for held in (True, False)]
            elif operator in ("in", "nin"):
                filters += [{field: {operator: VALUES[i : i + 3]}} for i in range(0, len(VALUES), 3)]
                filters += [{field: {operator: []}}]
            else:
                comparable = [v for v in VALUES if isinstance(v, str | int | float) and not isinstance(v, bool)]
                held = comparable if operator in ("gt", "gte", "lt", "lte") else VALUES
                filters += [{field: {operator: value}} for value in held]
    filters += [{"and": []}, {"or": []}, {"not": {}}, {"not": {"f": 1}}, {"or": [{"f": 1}, {"not": {"f.x": 1}}]}]
    with Collection.create(address, create("bm25")) as docs:
        docs.add(documents)
        found = [docs._store.corpus.ids(where) for where in filters]
    assert len(filters) > 600
    for where, ids in zip(filters, found, strict=True):
        expected = [d.id for d in documents if matches(where, d.metadata)]
        assert ids == expected, where

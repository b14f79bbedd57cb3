"""Haystack reports each run of a pipeline to its makers; these tests keep that to themselves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ragistry import Collection, Document, create

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"


@pytest.fixture(autouse=True)
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if something imported it before this file was read."""
    monkeypatch.setattr("haystack.telemetry._telemetry.telemetry", None)


@pytest.fixture
def docs(tmp_path: Path) -> Iterator[Collection]:
    with Collection.create(tmp_path / "docs", create("bm25")) as made:
        made.add(
            [
                Document("sonnet", "Fourteen lines of verse.", title="Sonnet", metadata={"year": 1609, "lang": "en"}),
                Document(
                    "haiku", "Three lines of verse.", metadata={"year": 1686, "lang": "ja", "by": {"name": "Bashō"}}
                ),
                Document("limerick", "Five lines of verse, and a joke.", metadata={"year": 1846, "lang": "en"}),
                Document("prose", "No lines of verse at all.", metadata={}),
            ]
        )
        yield made

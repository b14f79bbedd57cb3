"""A small collection that the tests share; no framework is needed to make it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ragistry import Collection, Document, create

POEMS = [
    Document("sonnet", "A sonnet has fourteen lines.", title="Sonnet", metadata={"lines": 14, "lang": "en"}),
    Document(
        "haiku", "A haiku has three lines.", metadata={"lines": 3, "lang": "ja", "title": "On haiku"}, title="Haiku"
    ),
    Document("limerick", "A limerick has five lines that rhyme.", metadata={"lines": 5, "lang": "en"}),
    Document("couplet", "A couplet has two lines that rhyme.", metadata={"lines": 2, "lang": "en", "of": ["a", "b"]}),
    Document("ghazal", "A ghazal has couplets that share a refrain.", metadata={"lang": "fa"}),
]


@pytest.fixture
def docs(tmp_path: Path) -> Iterator[Collection]:
    """A collection of five poems."""
    with Collection.create(tmp_path / "docs", create("bm25")) as made:
        made.add(POEMS)
        yield made


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Collection]:
    """A collection of nothing."""
    with Collection.create(tmp_path / "empty", create("bm25")) as made:
        yield made

"""A collection mirrors files, also where some of them are broken."""

from __future__ import annotations

from pathlib import Path

from ragistry import create
from ragistry.collection import Collection
from ragistry.mirror import Reading, stale


def update(collection: Collection, folder: Path) -> Reading:
    reading = Reading([folder], 200, apart=collection.path)
    collection.add(reading.documents(collection))
    collection.remove(stale(collection, reading))
    return reading


def texts(collection: Collection) -> list[str]:
    return sorted(document.text for document in collection.documents())


def test_a_broken_record_takes_nothing_away(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    rows = folder / "rows.jsonl"
    rows.write_text('{"id": "1", "text": "one"}\n{"id": "2", "text": "two"}\n{"id": "3", "text": "three"}\n')
    (folder / "z.txt").write_text("a text")
    with Collection.create(tmp_path / "docs", create("bm25")) as docs:
        assert not update(docs, folder).problems
        assert texts(docs) == ["a text", "one", "three", "two"]

        rows.write_text('{"id": "1", "text": "uno"}\n{"id": "2", "text"\n')
        (folder / "z.txt").write_text("another text")
        (line,) = update(docs, folder).problems
        assert line.startswith("rows.jsonl, line 2: ")
        assert texts(docs) == ["another text", "three", "two", "uno"], "what follows the bad record is kept"

        rows.write_text('{"id": "1", "text": "uno"}\n')
        assert not update(docs, folder).problems
        assert texts(docs) == ["another text", "uno"], "once the file can be read, it counts again"

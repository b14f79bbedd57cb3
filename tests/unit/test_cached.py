"""The vector cache: what it remembers, and that no damage to its file gives a wrong vector."""

from __future__ import annotations

import hashlib
import sqlite3
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragistry import Document
from ragistry.encoders.cached import Cached
from ragistry.errors import InvalidInput
from ragistry.protocols import Encoder
from ragistry.types import Floats, Item, Kind, Role


class Counting:
    """A dense encoder whose vectors follow from the text, and which notes what it was asked for."""

    kind: Kind = "dense"

    def __init__(self, name: str = "counting") -> None:
        self.name = name
        self.asked: list[str] = []

    def encode(self, items: Sequence[Item], role: Role) -> Floats:
        texts = [item.full_text if isinstance(item, Document) else item for item in items]
        self.asked += texts
        seeds = [hashlib.sha256(f"{self.name}{role}{text}".encode()).digest() for text in texts]
        return np.array([np.frombuffer(s, np.uint8) for s in seeds], np.float32).reshape(-1, 32) / np.float32(3)

    def fingerprint(self) -> str:
        return self.name


TEXTS = ["cat", "dog", "", "日本", "cat", "a" * 10_000]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vectors.sqlite"


def test_each_text_is_encoded_once_and_exactly(path: Path) -> None:
    inner = Counting()
    want = Counting().encode(TEXTS, "document")
    cached = Cached(inner, path)
    assert isinstance(cached, Encoder)
    for _ in range(3):
        np.testing.assert_array_equal(cached.encode(TEXTS, "document"), want)
    assert sorted(inner.asked) == sorted(set(TEXTS))
    again = Counting()
    result = Cached(again, path).encode(TEXTS[::-1], "document")
    np.testing.assert_array_equal(result, want[::-1])
    assert result.dtype == np.float32
    assert again.asked == []


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=8), max_size=6))
def test_any_sequence_of_calls_gives_what_the_encoder_gives(
    tmp_path_factory: pytest.TempPathFactory, calls: list[list[str]]
) -> None:
    inner = Counting()
    cached = Cached(inner, tmp_path_factory.mktemp("cache") / "vectors.sqlite")
    for texts in calls:
        np.testing.assert_array_equal(cached.encode(texts, "document"), Counting().encode(texts, "document"))
    assert len(inner.asked) == len(set(inner.asked))


def test_chunks_cannot_be_seen(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragistry.encoders.cached.CHUNK", 2)
    inner = Counting()
    np.testing.assert_array_equal(Cached(inner, path).encode(TEXTS, "document"), Counting().encode(TEXTS, "document"))
    assert sorted(inner.asked) == sorted(set(TEXTS))


def test_a_document_and_its_full_text_share_a_vector(path: Path) -> None:
    inner = Counting()
    cached = Cached(inner, path)
    cached.encode([Document("1", "text", title="title")], "document")
    cached.encode([Document("2", "text", title="title"), "title\ntext"], "document")
    assert inner.asked == ["title\ntext"]


def test_queries_are_kept_only_if_asked_and_apart_from_documents(path: Path) -> None:
    inner = Counting()
    for _ in range(2):
        Cached(inner, path).encode(["cat"], "query")
    assert inner.asked == ["cat", "cat"]
    both = Cached(inner, path, roles=("query", "document"))
    document, query = both.encode(["cat"], "document"), both.encode(["cat"], "query")
    assert not np.array_equal(document, query)
    np.testing.assert_array_equal(both.encode(["cat"], "query"), query)
    assert len(inner.asked) == 4


def test_encoders_with_other_fingerprints_do_not_meet(path: Path) -> None:
    one, two = Counting("one"), Counting("two")
    Cached(one, path).encode(TEXTS, "document")
    np.testing.assert_array_equal(
        Cached(two, path).encode(TEXTS, "document"), Counting("two").encode(TEXTS, "document")
    )
    assert Cached(one, path).fingerprint() == "one"


def test_a_changed_row_is_computed_again(path: Path) -> None:
    cached = Cached(Counting(), path)
    want = cached.encode(TEXTS, "document")
    with sqlite3.connect(path) as database:
        rows = database.execute("SELECT key, content FROM vectors ORDER BY key").fetchall()
        (key, content), (other, _), (third, _) = rows[:3]
        database.execute("UPDATE vectors SET content = ? WHERE key = ?", (content[:-1] + b"\xff", key))
        database.execute("UPDATE vectors SET content = ? WHERE key = ?", (content, other))
        database.execute("UPDATE vectors SET content = 'text' WHERE key = ?", (third,))
    database.close()
    inner = Counting()
    for _ in range(2):
        np.testing.assert_array_equal(Cached(inner, path).encode(TEXTS, "document"), want)
    assert len(inner.asked) == 3


@pytest.mark.parametrize("damage", ["garbage", "cut", "middle"])
def test_a_damaged_file_is_moved_aside_with_a_warning(path: Path, damage: str) -> None:
    texts = [f"text {i}" for i in range(500)]
    want = Cached(Counting(), path).encode(texts, "document")
    content = path.read_bytes()
    half = len(content) // 2
    # Zeroed pages are no valid tree; a file cut at half lacks pages its header counts.
    broken = {
        "garbage": b"not a database" * 1000,
        "cut": content[:half],
        "middle": content[:8192] + bytes(len(content) - 8192),
    }
    path.write_bytes(broken[damage])
    inner = Counting()
    with pytest.warns(RuntimeWarning, match="is damaged"):
        np.testing.assert_array_equal(Cached(inner, path).encode(texts, "document"), want)
    assert path.with_name("vectors.sqlite.damaged").read_bytes() == broken[damage]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            np.testing.assert_array_equal(Cached(inner, path).encode(texts, "document"), want)
    assert len(inner.asked) <= 2 * len(texts)


def test_a_file_that_cannot_be_opened_costs_a_warning_only(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    for where in (tmp_path, blocked / "vectors.sqlite"):
        with pytest.warns(RuntimeWarning, match="cannot be used"):
            vectors = Cached(Counting(), where).encode(TEXTS, "document")
        np.testing.assert_array_equal(vectors, Counting().encode(TEXTS, "document"))


def test_another_programs_database_is_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE notes (text)")
    database.close()
    before = path.read_bytes()
    with pytest.raises(InvalidInput, match="something else"):
        Cached(Counting(), path).encode(TEXTS, "document")
    assert path.read_bytes() == before


def test_many_threads_share_one_file(path: Path) -> None:
    texts = [f"text {i}" for i in range(60)]
    want = Counting().encode(texts, "document")
    with warnings.catch_warnings(), ThreadPoolExecutor(8) as pool:
        warnings.simplefilter("error")
        cached = Cached(Counting(), path)
        starts = [i % 30 for i in range(80)]
        futures = [pool.submit(cached.encode, texts[start:], "document") for start in starts]
        for start, future in zip(starts, futures, strict=True):
            np.testing.assert_array_equal(future.result(), want[start:])
    inner = Counting()
    Cached(inner, path).encode(texts, "document")
    assert inner.asked == []


def test_other_kinds_and_roles_are_refused(path: Path) -> None:
    sparse = Counting()
    sparse.kind = "sparse"
    with pytest.raises(InvalidInput, match="'sparse'"):
        Cached(sparse, path)
    with pytest.raises(InvalidInput, match="passage"):
        Cached(Counting(), path, roles=("passage",))
    assert Cached(Counting(), path).encode([], "document").shape == (0, 32)
    assert not path.exists()

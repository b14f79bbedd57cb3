"""The right to write, held by marks in a database that is only told of: its clock and its contents are the test's."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from ragistry.engines import milvus_lease
from ragistry.engines.milvus_lease import LEASE, Lease
from ragistry.errors import StorageError


class Marks:
    """What a writer reads and writes of a database."""

    def __init__(self, file: str | None) -> None:
        self.server = SimpleNamespace(file=file, location="milvus://there:19530?collection=docs")
        self.there: set[str] = set()

    def put(self, name: str, content: str) -> None:
        self.there.add(name)

    def drop(self, names: Iterable[str]) -> None:
        self.there -= set(names)

    def beginning(self, start: str) -> list[str]:
        return sorted(name for name in self.there if name.startswith(start))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Seconds that pass when the test says so; signs of life come only when asked for."""
    passed = [0.0]
    told = SimpleNamespace(monotonic=lambda: passed[0], sleep=time.sleep)
    monkeypatch.setattr(milvus_lease, "time", told)
    monkeypatch.setattr(milvus_lease, "BEAT", 1000.0)
    return passed


def test_a_late_sign_of_life_is_given_before_a_commit(clock: list[float]) -> None:
    marks = Marks(None)
    with Lease(marks).held() as lease:  # type: ignore[arg-type]
        first = set(marks.there)
        clock[0] += LEASE
        lease.check()
        assert len(marks.there) == 1 and marks.there != first
    assert not marks.there


@pytest.mark.parametrize("late", [0.0, LEASE])
def test_a_right_that_somebody_took_is_lost(clock: list[float], late: float) -> None:
    marks = Marks(None)
    with Lease(marks).held() as lease:  # type: ignore[arg-type]
        clock[0] += late
        marks.there = {"writer-another.one-0000000001"}
        with pytest.raises(StorageError, match="another writer may have begun"):
            lease.check()
    assert marks.there == {"writer-another.one-0000000001"}


def test_a_lost_right_is_not_taken_back_by_a_late_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(milvus_lease, "BEAT", 0.01)
    marks = Marks(None)
    asked = threading.Event()
    with Lease(marks).held() as lease:  # type: ignore[arg-type]
        marks.there = {"writer-another.one-0000000001"}
        seen = marks.beginning
        monkeypatch.setattr(marks, "beginning", lambda start: asked.set() or seen(start))
        assert asked.wait(10)
        time.sleep(0.05)
        with pytest.raises(StorageError, match="another writer may have begun"):
            lease.check()
    assert marks.there == {"writer-another.one-0000000001"}


def test_a_right_taken_while_the_sign_of_life_is_given_is_lost(clock: list[float]) -> None:
    class Slow(Marks):
        def put(self, name: str, content: str) -> None:
            if clock[0]:
                self.there = {"writer-another.one-0000000001"}
            super().put(name, content)

    marks = Slow(None)
    with Lease(marks).held() as lease:  # type: ignore[arg-type]
        clock[0] += LEASE
        with pytest.raises(StorageError, match="another writer may have begun"):
            lease.check()


def test_a_sign_of_life_that_takes_too_long_is_no_right(clock: list[float]) -> None:
    class Slow(Marks):
        def put(self, name: str, content: str) -> None:
            super().put(name, content)
            clock[0] += LEASE

    marks = Slow(None)
    with Lease(marks).held() as lease, pytest.raises(StorageError, match="out of reach"):  # type: ignore[arg-type]
        lease.check()


def test_the_writer_of_a_file_may_take_its_time(clock: list[float]) -> None:
    marks = Marks("docs.db")
    with Lease(marks).held() as lease:  # type: ignore[arg-type]
        first = set(marks.there)
        clock[0] += 100 * LEASE
        lease.check()
        assert marks.there == first
        marks.there.clear()
        with pytest.raises(StorageError, match="another writer may have begun"):
            lease.check()

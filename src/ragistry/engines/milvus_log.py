"""Rows in Milvus that are only ever appended, as they were at one generation.

Milvus has no transactions, so nothing that a reader may be looking at is changed. Rows are numbered; a generation knows how
many there were, and which of them had died. Rows beyond that number are not committed yet: a reader passes them over, and
the next writer deletes them. Rows that have died are deleted some time later, when nobody reads that far back.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from typing import Any, NamedTuple, Self

from ..protocols import State
from .milvus_server import MOST, Row, Server, batches

_KEYS = 1000  # in one condition


class Grave(NamedTuple):
    """Rows that died with a generation, as spans from a first row to before a last; `at` is when, in seconds since 1970."""

    generation: int
    at: float
    spans: list[list[int]]


@dataclass(frozen=True)
class Log:
    """The rows of a collection of Milvus at one generation: those before `next` that are in no grave.

    `stamp` is a time at which all of them had been written. The fields `row` and `key` are there in any log.
    """

    server: Server
    name: str
    next: int = 0
    graves: tuple[Grave, ...] = ()
    stamp: int = 0

    @classmethod
    def of(cls, server: Server, name: str, state: State, stamp: int) -> Self:
        """What `state` was given by."""
        return cls(server, name, int(state["next"]), tuple(Grave(*grave) for grave in state["graves"]), stamp)

    def state(self) -> State:
        """What a manifest keeps of it."""
        return {"next": self.next, "graves": [list(grave) for grave in self.graves]}

    def find(self, field: str, values: Sequence[Any], fields: Sequence[str], most: int = MOST) -> list[Row]:
        """The rows that have one of some numbers in a field, by row; `most` come in one answer."""
        found: dict[int, Row] = {}
        step = min(_KEYS, most - 1)
        for first in range(0, len(values), step):
            for row in self._find(field, list(values[first : first + step]), ["row", *fields], most):
                if self._alive(row["row"]):
                    found[row["row"]] = row
        return [found[row] for row in sorted(found)]

    def pages(self, fields: Sequence[str], most: int = MOST, condition: str = "") -> Iterator[list[Row]]:
        """All rows, by row, some at a time."""
        first, step = 0, most
        also = f" and ({condition})" if condition else ""
        while first < self.next:
            last = min(first + step, self.next)
            rows = self._ask(f"row >= {first} and row < {last}{also}", ["row", *fields], most)
            if len(rows) == most and step > most:  # there may be more of them
                step = most
                continue
            yield sorted((row for row in rows if self._alive(row["row"])), key=lambda row: int(row["row"]))
            first, step = last, most if 2 * len(rows) > most else 2 * step  # wide over what was deleted

    @cached_property
    def condition(self) -> str:
        """What is true of the rows, as Milvus writes it."""
        single = [a for a, b in self._spans if b - a == 1]
        parts = [f"row < {self.next}"] + [f"(row < {a} or row >= {b})" for a, b in self._spans if b - a > 1]
        return " and ".join(parts + ([f"row not in {single}"] if single else []))

    def appended(self, rows: Iterator[Row]) -> Log:
        """The log after more rows, which are given their numbers."""
        stamp, following = self.stamp, self.next
        for some in batches(rows):
            for number, row in enumerate(some, following):
                row["row"] = number
            stamp, following = max(stamp, self.server.insert(self.name, some)), following + len(some)
        return replace(self, next=following, stamp=stamp)

    def buried(self, rows: Collection[int], generation: int, now: float) -> Log:
        """The log after some rows have died; nothing is deleted."""
        if not rows:
            return self
        return replace(self, graves=(*self.graves, Grave(generation, now, _spans(rows))))

    def cleared(self, before: float) -> Log:
        """The log without the graves from before a moment, whose rows are deleted."""
        old = [grave for grave in self.graves if grave.at < before]
        dead = [row for grave in old for a, b in grave.spans for row in range(a, b)]
        for first in range(0, len(dead), _KEYS):
            self.server.delete(self.name, f"row in {dead[first : first + _KEYS]}")
        return replace(self, graves=tuple(grave for grave in self.graves if grave not in old)) if old else self

    def tidied(self) -> int:
        """Delete what a writer left behind that did not commit; how many rows there were."""
        done = 0
        while left := self.server.query(self.name, f"row >= {self.next}", ["row"], MOST):
            numbers = [int(row["row"]) for row in left]
            for first in range(0, len(numbers), _KEYS):
                self.server.delete(self.name, f"row in {numbers[first : first + _KEYS]}")
            done += len(numbers)
        return done

    @cached_property
    def _spans(self) -> list[list[int]]:
        return sorted(span for grave in self.graves for span in grave.spans)

    @cached_property
    def _starts(self) -> list[int]:
        return [a for a, _ in self._spans]

    def _alive(self, row: int) -> bool:
        if row >= self.next:
            return False
        before = bisect_right(self._starts, row) - 1
        return before < 0 or row >= self._spans[before][1]

    def _find(self, field: str, values: list[Any], fields: Sequence[str], most: int) -> list[Row]:
        condition = f"{field} in {values}"
        rows = self._ask(condition, fields, most)
        if len(rows) < most:
            return rows
        if len(values) > 1:
            half = len(values) // 2
            return self._find(field, values[:half], fields, most) + self._find(field, values[half:], fields, most)
        numbers = [row["row"] for row in self._ask(condition, ["row"], MOST)]
        parts = (numbers[first : first + most] for first in range(0, len(numbers), most))
        return [row for part in parts for row in self._ask(f"row in {part}", fields, most)]

    def _ask(self, condition: str, fields: Sequence[str], limit: int) -> list[Row]:
        return self.server.query(self.name, condition, fields, limit, self.stamp)


def key_of(text: str) -> int:
    """A number for an id: what Milvus compares, since texts in its conditions would have to be quoted.

    Different ids may have the same one; whoever asks by it compares the ids themselves.

    Example:
        >>> key_of("a") == key_of("a"), -(2**63) <= key_of("a") < 2**63
        (True, True)
    """
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


def pieces(text: str) -> list[str]:
    """A text in parts that a field of Milvus holds, at least one.

    Example:
        >>> [len(piece) for piece in pieces("x" * 40_000)]
        [16000, 16000, 8000]
    """
    return [text[first : first + 16_000] for first in range(0, len(text), 16_000)] or [""]


def _spans(rows: Collection[int]) -> list[list[int]]:
    runs = itertools.groupby(enumerate(sorted(rows)), key=lambda pair: pair[1] - pair[0])
    held = [[row for _, row in run] for _, run in runs]
    return [[run[0], run[-1] + 1] for run in held]

"""One writer at a time, where the database has no locks.

Who wants to write puts down a mark, and goes on only if there is no other one then. While writing, a thread replaces the
mark by a new one every few seconds, a sign of life; a mark that has not been replaced for a while belongs to somebody who
died, and is taken away. Only lengths of time are compared, each by one's own clock.

This cannot be made perfect: a writer that is halted for longer than `LEASE`, just between its last look at its own mark and
its commit, may commit although another one has begun. That look is taken right before a commit, which is one small row.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Iterator, Sequence

from ..errors import Locked, StorageError
from .milvus_files import Objects

BEAT, LEASE = 3.0, 15.0
"""Seconds from one sign of life to the next, and without any until a writer is taken for dead."""
PATIENCE = 1.0  # seconds for another one to finish
_process = {os.getpid(): secrets.token_hex(4)}


class Lease:
    """The right to write, while it lasts."""

    def __init__(self, objects: Objects) -> None:
        self._objects, self.owner = objects, f"{_of_process()}.{secrets.token_hex(4)}"
        self._mark, self._beat, self._alive = "", 0, 0.0
        self._over, self._renewing = threading.Event(), threading.Lock()

    @contextlib.contextmanager
    def held(self) -> Iterator[Lease]:
        """Have the right for a while.

        Raises:
            Locked: If somebody else has it.
        """
        self._acquire()
        thread = threading.Thread(target=self._live, name="ragistry-lease", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._over.set()
            thread.join()
            with contextlib.suppress(StorageError):  # the server is gone: the mark will be taken away later
                self._objects.drop([self._mark])

    def check(self) -> None:
        """Make sure, right before a commit, that the right was not lost; a sign of life that is late is given now.

        Raises:
            StorageError: If somebody may have taken this writer for dead.
        """
        if self._late() and self._mine(self._marks()):
            self._renew()
            held = not self._late() and all(self._mine([mark]) for mark in self._marks())
        else:
            held = not self._late() and self._mine(self._marks())
        if not held:
            raise StorageError(
                f"{self._objects.server.location!r} was out of reach for so long that another writer may have begun; what "
                "was committed is safe, repeat the rest"
            )

    def _late(self) -> bool:
        """Of a file no other process can take the right, however long it takes."""
        return self._objects.server.file is None and time.monotonic() - self._alive > LEASE / 2

    def _mine(self, marks: Sequence[str]) -> bool:
        return any(self.owner in mark for mark in marks)

    def _acquire(self) -> None:
        until, others = time.monotonic() + PATIENCE, self._others()
        seen, since = others, time.monotonic()
        while True:
            if not others:
                self._renew()
                if not self._others():
                    return
                self._objects.drop([self._mark])  # two began at once: both step back
            elif self._objects.server.file is not None and not any(_of_process() in mark for mark in others):
                self._objects.drop(others)  # only one process has a file open, so theirs is gone
            elif others != seen and time.monotonic() > until:
                raise Locked(
                    f"another writer is at work on {self._objects.server.location!r}; wait until it has finished and "
                    "repeat (searching is possible meanwhile)"
                )
            elif others == seen and time.monotonic() - since > LEASE:
                self._objects.drop(others)
            time.sleep(0.05 + 0.1 * secrets.randbelow(100) / 100)
            others = self._others()
            if not others:
                seen, since = others, time.monotonic()

    def _live(self) -> None:
        while not self._over.wait(BEAT):
            with contextlib.suppress(StorageError):  # `check` says so, if it goes on
                if self._mine(self._marks()):  # a right that was lost is not taken back
                    self._renew()

    def _renew(self) -> None:
        """A new mark, then the old one away: there is one at any time."""
        with self._renewing:
            before, self._beat, began = self._mark, self._beat + 1, time.monotonic()
            mark = f"writer-{self.owner}-{self._beat:010}"
            self._objects.put(mark, "")
            self._mark, self._alive = mark, began
            if before:
                self._objects.drop([before])

    def _marks(self) -> list[str]:
        return self._objects.beginning("writer-")

    def _others(self) -> list[str]:
        return [mark for mark in self._marks() if self.owner not in mark]


def _of_process() -> str:
    return _process.get(os.getpid()) or _process.setdefault(os.getpid(), secrets.token_hex(4))

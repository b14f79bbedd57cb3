"""Whatever breaks off a change in the middle, what was committed stays and the same object goes on working."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ragistry import Collection, Document

from .harness import WRITES, at_step, copied, document, documents, leftovers, one_of, state_of


class Mine(Exception):
    """An error of the caller's own."""


@pytest.mark.parametrize("error", [Mine("x"), KeyboardInterrupt(), OSError(5, "the source failed"), GeneratorExit()])
def test_a_stream_that_breaks_off(docs: Collection, error: BaseException) -> None:
    def stream() -> Iterator[Document]:
        for number in range(10, 15):
            yield document(number, 0)
        raise error

    committed: list[int] = []
    with pytest.raises(type(error)) as caught:
        docs.add(stream(), batch=2, progress=committed.append)
    assert caught.value is error, "the caller's error passes as it is"
    assert committed == [2, 2]
    kept = {"1": 0, "2": 0, "3": 0, **{str(number): 0 for number in range(10, 14)}}
    assert state_of(docs) == kept
    assert docs.add(documents({"14": 0, "15": 0})).added == 2, "and adding goes on"
    assert state_of(docs) == {**kept, "14": 0, "15": 0}
    assert not leftovers(docs.path)


def test_a_progress_bar_that_breaks_off(docs: Collection) -> None:
    def progress(count: int) -> None:
        raise Mine

    with pytest.raises(Mine):
        docs.add([document(number, 0) for number in range(10, 15)], batch=2, progress=progress)
    assert state_of(docs) == {"1": 0, "2": 0, "3": 0, "10": 0, "11": 0}


CHANGES: dict[str, Callable[[Collection], object]] = {
    "add": lambda docs: docs.add(documents({"3": 2, "50": 0})),
    "remove": lambda docs: docs.remove(["1", "30"]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_interrupted_at_every_step(filled: Path, quick: Path, name: str) -> None:
    """By Ctrl-C, after which the same object must go on working."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    with Collection.open(copied(filled, quick / "docs")) as docs:
        before = state_of(docs)
        CHANGES[name](docs)
        after = state_of(docs)
    seen = []
    for step in range(10_000):
        with Collection.open(copied(filled, quick / "docs")) as docs:
            state_of(docs)
            with at_step(step, WRITES | {"acquire", "flock", "fetchall", "dumps", "stat"}, interrupt) as met:
                try:
                    CHANGES[name](docs)
                except KeyboardInterrupt:
                    assert met
            seen.append(state_of(docs))
            assert one_of(seen[-1], [before, after]), f"interrupted at step {step}, {met}"
            docs.add(document(70, 0))
            assert state_of(docs) == {**seen[-1], "70": 0}
            docs.check()
            assert not leftovers(docs.path)
        if not met:
            break
    assert len(seen) > 40 and seen[0] == before and seen[-1] == after

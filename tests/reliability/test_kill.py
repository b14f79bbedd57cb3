"""A writer that is killed, at random moments and at every step in turn, leaves all of a change behind or nothing of it."""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ragistry import Collection
from ragistry.errors import StorageError

from .harness import copied, document, documents, forked, killed, killed_at, leftovers, make, one_of, state_of

BATCH = 3
Operation = tuple[str, Any]


def steps_of(operation: Operation, state: dict[str, int]) -> list[dict[str, int]]:
    """The states that an operation goes through, one for each commit; the first is the one before it."""
    kind, what = operation
    if kind == "remove":
        return [state, {id: version for id, version in state.items() if id not in what}]
    states = [state]
    if kind == "add":
        items = list(what.items())
        for start in range(0, len(items), BATCH):
            states.append({**states[-1], **dict(items[start : start + BATCH])})
    return states


def chosen(random: random.Random, state: dict[str, int], count: int) -> Operation:
    """Something to do that keeps the collection between a few and some fifty documents."""
    kind = random.choices(["add", "remove", "save"], [6, 3 if len(state) < 40 else 8, 1])[0]
    if kind == "save":
        return kind, count
    if kind == "remove":
        return kind, random.sample(sorted(state), min(len(state), random.randint(1, 6)))
    numbers = random.sample(range(60), random.randint(1, 7))
    return kind, {
        str(number): random.choice([v for v in range(5) if v != state.get(str(number))]) for number in numbers
    }


def perform(docs: Collection, operation: Operation, copies: Path) -> None:
    kind, what = operation
    if kind == "add":
        docs.add(documents(what), batch=BATCH)
    elif kind == "remove":
        docs.remove(what)
    else:
        docs.save(copies / str(what))


def victim(path: Path, copies: Path, pipe: int, seed: int) -> None:
    """Change a collection for ever, saying through a pipe what is begun and what is done."""
    chance = random.Random(seed)
    with Collection.open(path) as docs:
        state = {document.id: int(document.metadata["version"]) for document in docs.documents()}
        for count in range(1_000_000):
            operation = chosen(chance, state, count)
            os.write(pipe, json.dumps(["begin", operation]).encode() + b"\n")
            perform(docs, operation, copies)
            os.write(pipe, b'["end"]\n')
            state = steps_of(operation, state)[-1]


def told(pipe: int) -> Iterator[Any]:
    """What a killed process said; a line cut short was not said."""
    with open(pipe, "rb") as file:
        for line in file.read().split(b"\n")[:-1]:
            yield json.loads(line)


def killed_once(path: Path, copies: Path, seed: int, delay: float) -> list[Operation]:
    """Start a victim, kill it some seconds after its first words, and return its operations; the last was in flight."""
    copies.mkdir()
    reading, writing = os.pipe()
    process = forked(lambda: victim(path, copies, writing, seed))
    os.close(writing)
    assert select.select([reading], [], [], 60)[0], "the victim has begun"
    time.sleep(delay)
    killed(process)
    lines = list(told(reading))
    return [line[1] for line in lines if line[0] == "begin"]


def check_copies(copies: Path, operations: list[Operation], states: list[dict[str, int]]) -> None:
    """Finished copies hold the state of their moment; the one in flight holds it too, or is no collection."""
    for i, (kind, what) in enumerate(operations):
        if kind != "save":
            continue
        target, finished = copies / str(what), i < len(operations) - 1
        if finished or (target / "manifest.json").exists():
            with Collection.open(target) as copy:
                copy.check()
                assert state_of(copy) == states[i]
        else:
            with pytest.raises(StorageError, match="not a"):
                Collection.open(target)


def rounds(directory: Path, seed: int, count: int) -> tuple[int, int]:
    """Kill a writer of one collection again and again; how many rounds left something over, and how many did not."""
    path, copies = make(directory / "docs"), directory / "copies"
    chance, state, untidy = random.Random(seed), dict[str, int](), 0
    for number in range(count):
        operations = killed_once(path, copies, chance.getrandbits(32), chance.uniform(0.0, 0.15))
        states = [state]
        for operation in operations[:-1]:
            states.append(steps_of(operation, states[-1])[-1])
        possible = steps_of(operations[-1], states[-1])
        left = leftovers(path)
        with Collection.open(path) as docs:
            assert bool(docs.recovered) == bool(left), f"round {number}: {left} left over, {docs.recovered!r}"
            docs.check()
            found = state_of(docs)
        assert one_of(found, possible), f"round {number}: {operations[-1]} left neither all nor nothing"
        assert not leftovers(path)
        check_copies(copies, operations, states)
        shutil.rmtree(copies)
        state, untidy = found, untidy + bool(left)
    return untidy, count - untidy


def test_killed_sixty_times(quick: Path) -> None:
    untidy, tidy = rounds(quick, seed=1, count=60)
    assert untidy >= 5, "many kills land inside a commit"
    assert tidy >= 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 7))
def test_killed_a_thousand_times(quick: Path, seed: int) -> None:
    assert sum(rounds(quick, seed, count=200)) == 200


OPERATIONS: dict[str, Operation] = {
    "replace and add": ("add", {"3": 2, "20": 1, "50": 0}),
    "add so that segments merge": ("add", {str(number): 3 for number in range(100, 103)}),
    "remove": ("remove", ["1", "2", "30", "41"]),
    "remove everything": ("remove", [str(number) for number in range(60)]),
}


EVERY_STEP = [pytest.param(name, 1, marks=pytest.mark.slow, id=f"{name}, every step") for name in OPERATIONS]
SOME_STEPS = [pytest.param(name, 1 if name == "replace and add" else 3, id=name) for name in OPERATIONS]


@pytest.mark.parametrize(("name", "stride"), [*SOME_STEPS, *EVERY_STEP])
def test_killed_at_each_step(filled: Path, quick: Path, name: str, stride: int) -> None:
    with Collection.open(filled) as docs:
        before = state_of(docs)
    operation = OPERATIONS[name]
    outcomes = []
    for step in range(0, 10_000, stride):
        path = copied(filled, quick / "docs")

        def change(path: Path = path) -> None:
            with Collection.open(path) as docs:
                perform(docs, operation, path)

        died = killed_at(step, change)
        left = leftovers(path)
        with Collection.open(path) as docs:
            assert bool(docs.recovered) == bool(left)
            assert not leftovers(path)
            docs.check()
            found = state_of(docs)
            assert one_of(found, steps_of(operation, before)), f"killed at step {step}"
            outcomes.append(found == before)
            if step % 5 == 0:  # the next writer finds nothing in its way
                perform(docs, operation, path)
                assert state_of(docs) == steps_of(operation, before)[-1]
        if not died:
            break
    assert not died and len(outcomes) * stride > 40
    assert outcomes == sorted(outcomes, reverse=True), "once committed, it stays: before, before, ..., after, after"
    assert outcomes[0] and not outcomes[-1]


def test_killed_at_every_step_of_a_copy(filled: Path, quick: Path) -> None:
    path, target = copied(filled, quick / "docs"), quick / "copy"
    with Collection.open(path) as docs:
        state = state_of(docs)
    complete = []
    for step in range(10_000):
        shutil.rmtree(target, ignore_errors=True)

        def save() -> None:
            with Collection.open(path) as docs:
                docs.save(target)

        died = killed_at(step, save)
        complete.append((target / "manifest.json").exists())
        if complete[-1]:
            with Collection.open(target) as copy:
                copy.check()
                assert state_of(copy) == state
        else:
            with pytest.raises(StorageError, match="not a"):
                Collection.open(target)
        if step % 20 == 0 or not died:
            with Collection.open(path) as docs:
                docs.check()
                assert state_of(docs) == state, "the source is as it was"
        if not died:
            break
    assert not died and complete == sorted(complete) and not complete[0] and complete[-1]


def test_killed_at_every_step_of_making_one(quick: Path) -> None:
    path = quick / "docs"
    for step in range(10_000):
        shutil.rmtree(path, ignore_errors=True)
        died = killed_at(step, lambda: make(path))
        if (path / "manifest.json").exists():
            with Collection.open(path) as docs:
                docs.check()
                assert docs.add(document(1, 0)).added == 1
                assert state_of(docs) == {"1": 0}
        else:
            with pytest.raises(StorageError, match="not a"):
                Collection.open(path)
        if not died:
            break
    assert not died and step > 20


def test_killed_while_it_recovers(filled: Path, quick: Path) -> None:
    """Recovery itself may be interrupted, any number of times."""
    path = copied(filled, quick / "docs")
    with Collection.open(path) as docs:
        before = state_of(docs)

    def change() -> None:
        with Collection.open(path) as docs:
            docs.add(documents({"3": 2, "50": 0}))

    steps = iter(range(10_000))
    while leftovers(path).keys() != {"files", "rows"}:  # kill later and later, until both are left over
        assert killed_at(next(steps), change)
    spoilt = copied(path, quick / "spoilt")
    for step in range(10_000):
        path = copied(spoilt, quick / "docs")
        died = killed_at(step, lambda path=path: Collection.open(path).close())
        with Collection.open(path) as docs:
            docs.check()
            assert state_of(docs) == before
        assert not leftovers(path)
        if not died:
            break
    assert not died and step > 5

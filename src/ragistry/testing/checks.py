"""What the contracts share: comparing vectors and rankings, provoking errors, and running threads."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Barrier
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from ..errors import RagistryError
from ..protocols import Files, State
from ..storage import ArrayFiles
from ..types import Kind, MultiVectors, Ranking, Vectors

THREADS = 4
T = TypeVar("T")


class Saveable(Protocol):
    """What an index and an updatable retriever have in common."""

    def save(self, files: Files) -> State:
        """Store arrays in `files` and return the rest."""

    def load(self, state: State, files: Files) -> None:
        """Become what was saved."""


S = TypeVar("S", bound=Saveable)


def expect(condition: object, message: str) -> None:
    """Fail with a message unless a condition holds; unlike `assert`, also under `python -O`."""
    if not condition:
        raise AssertionError(message)


@contextlib.contextmanager
def refused(what: str) -> Iterator[None]:
    """Fail unless the block raises one of `ragistry.errors`, with a message."""
    try:
        yield
    except RagistryError as error:
        expect(str(error), f"{what} was refused without a message")
    except Exception as error:
        raise AssertionError(
            f"{what} ended in {type(error).__name__}: {error}; raise one of ragistry.errors"
        ) from error
    else:
        raise AssertionError(f"{what} was accepted; raise one of ragistry.errors")


def make_vectors(kind: Kind, count: int, seed: int = 0) -> Vectors:
    """Random vectors of a kind, no two alike, each similar to every other to some degree."""
    random = np.random.default_rng(seed)
    if kind == "dense":
        return random.standard_normal((count, 16), np.float32)
    if kind == "sparse":
        counts = random.integers(0, 4, (count, 40)).astype(np.float32)
        counts[:, 0] = random.integers(1, 9, count)  # shared by all, so that all can be found
        return csr_array(counts)
    offsets = np.concatenate(([0], np.cumsum(random.integers(1, 5, count))))
    return MultiVectors(random.standard_normal((int(offsets[-1]), 16), np.float32), offsets.astype(np.int64))


def size(vectors: Vectors) -> int:
    """How many items vectors are of."""
    return len(vectors) if isinstance(vectors, MultiVectors | np.ndarray) else int(vectors.shape[0])


def take(vectors: Any, items: Sequence[int]) -> Any:
    """The vectors of some items, in the order given."""
    if not isinstance(vectors, MultiVectors):
        return vectors[list(items)]
    parts = [vectors[item] for item in items]
    offsets = np.cumsum([0, *map(len, parts)], dtype=np.int64)
    return MultiVectors(np.concatenate([vectors.values[:0], *parts]), offsets)


def alike(found: Any, expected: Any, tolerance: float) -> bool:
    """Whether vectors are of the same kind and shape, and equal up to rounding."""
    if isinstance(expected, MultiVectors):
        return (
            isinstance(found, MultiVectors)
            and np.array_equal(found.offsets, expected.offsets)
            and np.allclose(found.values, expected.values, rtol=tolerance, atol=tolerance)
        )
    if type(found) is not type(expected) or found.shape != expected.shape:
        return False
    if isinstance(expected, csr_array):
        difference: npt.NDArray[Any] = (found - expected).data
        return bool((np.abs(difference) <= tolerance * max(1.0, float(np.abs(expected.data).max(initial=0)))).all())
    return np.allclose(found, expected, rtol=tolerance, atol=tolerance)


def expect_same(found: Sequence[Ranking], expected: Sequence[Ranking], tolerance: float, message: str) -> None:
    """Fail unless rankings agree: scores up to rounding, ids except where rounding decides between two."""
    expect(len(found) == len(expected), f"{message}: {len(found)} rankings, {len(expected)} were expected")
    for one, other in zip(found, expected, strict=True):
        difference = f"{message}: found {list(one)[:5]} ..., expected {list(other)[:5]} ..."
        expect(len(one) == len(other), f"{difference} ({len(one)} hits, {len(other)} were expected)")
        if not len(one):
            continue
        margin = tolerance * max(1.0, float(np.abs(other.scores).max()))
        expect(np.abs(one.scores - other.scores).max() <= margin, difference)
        known, last = dict(other), float(other.scores[-1])
        expect(all(abs(score - known.get(i, last)) <= margin for i, score in one), difference)


def at_once(tasks: Sequence[Callable[[], T]]) -> list[T]:
    """Run functions side by side, started together, and return what each returns."""
    start = Barrier(len(tasks))

    def run(task: Callable[[], T]) -> T:
        start.wait()
        return task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        return [future.result() for future in [pool.submit(run, task) for task in tasks]]


def saved(thing: Saveable) -> tuple[State, dict[str, bytes]]:
    """What saving to a new directory leaves: the state, and each file's bytes."""
    with TemporaryDirectory() as directory:
        state = thing.save(ArrayFiles(Path(directory)))
        return state, {path.name: path.read_bytes() for path in sorted(Path(directory).iterdir())}


@contextlib.contextmanager
def reloaded(thing: Saveable, other: S) -> Iterator[S]:
    """Save one object and load another from that; its files are there until the block ends."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        state = thing.save(ArrayFiles(Path(directory)))
        other.load(state, ArrayFiles(Path(directory)))
        yield other

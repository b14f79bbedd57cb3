"""Properties of the default index: whatever the vectors, it is the exact scan, at another speed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragistry.indexes import factory, faiss, fastscan
from ragistry.indexes.faiss import Faiss
from ragistry.types import Floats

ROWS = 2_600
IDS = [f"{i:04}" for i in range(ROWS)]
# The same cases each time: as codes may miss what was measured to be far too rare to see, chance cases could fail some day.
repeatable = settings(deadline=None, derandomize=True, max_examples=25)

DIMENSIONS = st.sampled_from([2, 5, 16, 130])
KINDS = st.sampled_from(["anywhere", "around few", "grid", "long and short", "copies"])
CUTS = st.lists(st.integers(0, ROWS), max_size=3)


@pytest.fixture(scope="module", autouse=True)
def small() -> Sequence[None]:
    """Codes from fewer vectors on, as building many large indexes takes long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fastscan, "WHOLE", 0)
        patch.setattr(factory, "CODED", 700)
        patch.setattr(faiss, "SMALL", 100)
        patch.setattr(fastscan, "_QUERIES", 200)
        yield  # type: ignore[misc]


def made(kind: str, dimensions: int, seed: int) -> tuple[Floats, Floats]:
    """Vectors and queries."""
    rng = np.random.default_rng(seed)
    vectors, queries = rng.standard_normal((ROWS, dimensions)), rng.standard_normal((12, dimensions))
    if kind == "around few":
        centres = 3 * rng.standard_normal((20, dimensions))
        vectors += centres[rng.integers(0, 20, ROWS)]
        queries[:6] += centres[:6]
    elif kind == "grid":
        vectors, queries = np.round(vectors), np.round(queries)
    elif kind == "long and short":
        vectors *= rng.lognormal(0, 2, (ROWS, 1))
    elif kind == "copies":
        vectors = vectors[rng.integers(0, 40, ROWS)]
    return vectors.astype(np.float32), queries.astype(np.float32)


def filled(name: str, vectors: Floats, cuts: Sequence[int] = ()) -> Faiss:
    index = Faiss(name)
    for first, last in itertools.pairwise([0, *sorted(cuts), ROWS]):
        index.add(IDS[first:last], vectors[first:last])
    return index


@repeatable
@given(KINDS, DIMENSIONS, st.integers(0, 99), st.integers(1, 60), CUTS)
def test_it_is_the_exact_scan(kind: str, dimensions: int, seed: int, k: int, cuts: list[int]) -> None:
    vectors, queries = made(kind, dimensions, seed)
    auto, wanted = filled("auto", vectors, cuts), filled("Flat", vectors).search(queries, k)
    assert auto.search(queries, k) == wanted
    assert [auto.search(query[None], k)[0] for query in queries] == wanted


@repeatable
@given(KINDS, DIMENSIONS, st.integers(0, 99), st.integers(1, 60), st.floats(0, 1), st.integers(0, 500))
def test_filtered_and_after_removal_as_well(
    kind: str, dimensions: int, seed: int, k: int, share: float, removed: int
) -> None:
    vectors, queries = made(kind, dimensions, seed)
    auto, flat = filled("auto", vectors), filled("Flat", vectors)
    before = auto.search(queries, k)
    chosen = np.random.default_rng(seed).random(ROWS) < share
    among = frozenset(np.array(IDS)[chosen].tolist())
    fork = auto.fork()
    for index in (fork, flat):
        index.remove(IDS[:removed])
    assert fork.search(queries, k, among=among) == flat.search(queries, k, among=among)
    assert auto.search(queries, k) == before

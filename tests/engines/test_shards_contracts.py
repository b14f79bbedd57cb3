"""The indexes on shards held to what every index and retriever must do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .conftest import Bench, Sharded
from .test_contracts import TestAdapted as TestAdapted
from .test_contracts import TestBM25 as TestBM25
from .test_contracts import TestBM25Retriever as TestBM25Retriever
from .test_contracts import TestDense as TestDense
from .test_contracts import TestDenseByDistance as TestDenseByDistance
from .test_contracts import TestDirichlet as TestDirichlet
from .test_contracts import TestHybrid as TestHybrid
from .test_contracts import TestImpact as TestImpact

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bench(sharded: Sharded) -> Iterator[Bench]:
    """Of a collection on shards."""
    bench = Bench(f"{sharded.address}&collection=shards_bench")
    yield bench
    bench.store.close()

"""The indexes in PostgreSQL held to what every index and retriever must do, their contents committed or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from ragistry import Document, create
from ragistry.encoders.functions import Function
from ragistry.indexes.faiss import Faiss
from ragistry.indexes.inverted import Inverted
from ragistry.indexes.weighting import BM25, Dirichlet, Impact
from ragistry.protocols import Index, Updatable
from ragistry.retrievers.adapted import Adapted
from ragistry.testing import IndexContract, UpdatableContract

from .conftest import Bench

pytestmark = pytest.mark.slow


class _Indexes(IndexContract):
    bench: Bench

    @pytest.fixture(autouse=True)
    def _on(self, bench: Bench) -> None:
        self.bench = bench

    def empty(self) -> Index:
        raise NotImplementedError

    def make(self) -> Index:
        return self.bench.housed(self.empty())

    def filled(self, items: Sequence[int] = range(40)) -> Index:
        return self.bench.committed(super().filled(items))


class TestDense(_Indexes):
    def empty(self) -> Index:
        return Faiss("auto")


class TestDenseByDistance(_Indexes):
    def empty(self) -> Index:
        return Faiss("HNSW16", metric="l2")


class TestImpact(_Indexes):
    def empty(self) -> Index:
        return Inverted(Impact())


class TestBM25(_Indexes):
    def empty(self) -> Index:
        return Inverted(BM25(variant="bm25+"))


class TestDirichlet(_Indexes):
    def empty(self) -> Index:
        return Inverted(Dirichlet())


def _letters(texts: Sequence[str]) -> Any:
    counts = [[text.count(letter) + 0.1 for letter in "abcdefghijklmnop"] for text in texts]
    vectors = np.array(counts, np.float32).reshape(len(texts), 16)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class _Retrievers(UpdatableContract):
    bench: Bench

    @pytest.fixture(autouse=True)
    def _on(self, bench: Bench) -> None:
        self.bench = bench

    def built(self) -> Any:
        raise NotImplementedError

    def make(self) -> Any:
        return self.bench.housed(self.built())

    def filled(self) -> Any:
        return self.bench.committed(super().filled())

    def holding(self, documents: Sequence[Document]) -> Updatable:
        found: Updatable = self.bench.committed(super().holding(documents))
        return found


class TestBM25Retriever(_Retrievers):
    def built(self) -> Any:
        return create("bm25")


class TestAdapted(_Retrievers):
    def built(self) -> Any:
        return Adapted(Function(_letters, "letters"), Faiss, Faiss)


class TestHybrid(_Retrievers):
    def built(self) -> Any:
        return create("hybrid", members={"words": "bm25", "likelihood": "query-likelihood"})

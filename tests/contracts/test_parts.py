"""Every encoder and index keeps its contract."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from ragistry import Analyzer
from ragistry.encoders.backbones import stack
from ragistry.encoders.cached import Cached
from ragistry.encoders.terms import Terms
from ragistry.indexes.binary import Binary
from ragistry.indexes.faiss import Faiss
from ragistry.indexes.inverted import Inverted
from ragistry.indexes.maxsim import MaxSim
from ragistry.indexes.precision import Precision
from ragistry.indexes.quantised import Quantised
from ragistry.indexes.reduced import Reduced
from ragistry.indexes.tiered import Tiered
from ragistry.indexes.weighting import BM25, Dirichlet, Impact, JelinekMercer, Weighting
from ragistry.protocols import Encoder, Index
from ragistry.testing import EncoderContract, IndexContract

from ..tiny import tiny_model

WEIGHTINGS: list[Weighting] = [
    *(BM25(variant=variant) for variant in ("robertson", "lucene", "atire", "bm25l", "bm25+")),
    BM25(k1=0, b=1),
    Dirichlet(),
    JelinekMercer(),
    Impact(),
]

FACTORIES = [("Flat", "ip"), ("Flat", "l2"), ("HNSW32", "ip"), ("IVF4,Flat", "ip"), ("SQ8", "ip"), ("PQ4", "l2")]
"""Of so few vectors, as the contract adds, all of them are searched exactly."""


class TestInverted(IndexContract):
    @pytest.fixture(autouse=True, params=WEIGHTINGS, ids=repr)
    def settings(self, request: pytest.FixtureRequest) -> Iterator[None]:
        self.weighting: Weighting = request.param
        yield

    def make(self) -> Index:
        return Inverted(self.weighting)


class TestFaiss(IndexContract):
    @pytest.fixture(autouse=True, params=FACTORIES, ids=repr)
    def settings(self, request: pytest.FixtureRequest) -> Iterator[None]:
        self.name, self.metric = request.param
        yield

    def make(self) -> Index:
        return Faiss(self.name, metric=self.metric)


class TestApproximateFaiss(IndexContract):
    exact = False

    def make(self) -> Index:
        return Faiss("HNSW32")


EXACT: dict[str, Callable[[], Index]] = {
    "quantised, whole": lambda: Quantised(),
    "reduced, whole": lambda: Reduced(3),
    "signs, tiered": lambda: Tiered(Binary(), Faiss("Flat")),
    "codes, tiered": lambda: Tiered(Quantised(4, enough=20), Faiss("Flat")),
}
LOSSY: dict[str, Callable[[], Index]] = {
    "signs": lambda: Binary(),
    "few signs": lambda: Binary(5),
    "codes": lambda: Quantised(4, enough=20),
    "halves": lambda: Reduced(),
    "axes": lambda: Reduced(3, enough=20),
    "weighted": lambda: Tiered(Binary(), Faiss("Flat"), depth=5, weight=0.3),
}


class TestCompressed(IndexContract):
    @pytest.fixture(autouse=True, params=EXACT.values(), ids=EXACT.keys())
    def settings(self, request: pytest.FixtureRequest) -> Iterator[None]:
        self.making = request.param
        yield

    def make(self) -> Index:
        return cast(Index, self.making())


class TestLossy(TestCompressed):
    exact = False

    @pytest.fixture(autouse=True, params=LOSSY.values(), ids=LOSSY.keys())
    def settings(self, request: pytest.FixtureRequest) -> Iterator[None]:
        self.making = request.param
        yield


class TestMaxSim(IndexContract):
    precision: Precision = "fp32"

    def make(self) -> Index:
        return MaxSim(self.precision)


class TestMaxSimOfHalves(TestMaxSim):
    precision = "fp16"
    tolerance = 2e-3


class TestMaxSimOfBytes(TestMaxSim):
    precision = "int8"
    tolerance = 5e-2


class TestTerms(EncoderContract):
    def make(self) -> Encoder:
        return Terms(Analyzer())

    @pytest.fixture(
        autouse=True,
        params=[{"stemmer": "german"}, {"stop_words": None}, {"stop_words": ["cat"]}, {"identifiers": False}],
        ids=repr,
    )
    def settings(self, request: pytest.FixtureRequest) -> Iterator[None]:
        self.other = request.param
        yield

    def make_other(self) -> Encoder:
        return Terms(Analyzer(**self.other))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    return tiny_model(folder), tiny_model(folder, seed=1)


class TestStack(EncoderContract):
    @pytest.fixture(autouse=True)
    def folders(self, models: tuple[Path, Path]) -> Iterator[None]:
        self.model, self.other = models
        yield

    def make(self) -> Encoder:
        return stack(self.model, precision="fp32")

    def make_other(self) -> Encoder:
        return stack(self.other, precision="fp32")


class TestStackWithOtherPooling(TestStack):
    def make_other(self) -> Encoder:
        return stack(self.model, pooling="cls", precision="fp32")


class TestCached(TestStack):
    @pytest.fixture(autouse=True)
    def file(self, tmp_path: Path) -> Iterator[None]:
        self.path = tmp_path / "vectors.sqlite"
        yield

    def make(self) -> Encoder:
        return Cached(super().make(), self.path, roles=("query", "document"))

    def make_other(self) -> Encoder:
        return Cached(super().make_other(), self.path, roles=("query", "document"))

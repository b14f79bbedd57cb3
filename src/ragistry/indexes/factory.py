"""Factory strings: how faiss indexes are named, built, grown, asked and stored."""

from __future__ import annotations

import contextlib
import math
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInput
from ..protocols import Files, State
from ..registry import require
from ..types import Bools, Floats, Ints

faiss = require("faiss", "dense")

Metric: TypeAlias = Literal["ip", "l2"]

_FACTORY = re.compile(
    r"""(?:(?P<turn>OPQ|PCAR?)(?P<turned>[1-9]\d*)(?:_(?P<width>[1-9]\d*))?,)?
        (?:HNSW(?P<links>[2-9]|[1-9]\d+)(?:,(?P<nodes>Flat|SQ8))?
        |(?:IVF(?P<lists>[1-9]\d*),)?(?:(?P<flat>Flat)|SQ(?:4|6|8|fp16|bf16)
            |PQ(?P<parts>[1-9]\d*)(?:x(?P<bits>4fs|[4-9]|1[0-2]))?))""",
    re.VERBOSE,
)
SMALL = 2_000  # so few rows are searched exactly faster than any index could answer
CODED = 5_000  # rows of a segment from which `auto` codes them
_POINTS = 39  # training points per centroid below which faiss warns
_DRIFT = 4  # an index is trained again once its segment has outgrown its training data this many times
_MANY = 128  # dimensions
_ROUNDS = 8  # of k-means for 16 centroids, which hardly move afterwards


@dataclass(frozen=True)
class Factory:
    """What a factory string means: how to build a faiss index and how to ask it.

    `measured`: whether searches take as many candidates as they need by what was measured in building (see `fastscan`).
    """

    name: str
    metric: Metric
    probes: int | None
    ef: int | None
    seed: int
    measured: bool = False

    @cached_property
    def _parts(self) -> dict[str, str | None]:
        found = _FACTORY.fullmatch(self.name)
        if found is None:
            raise InvalidInput(
                f"the factory {self.name!r} is not one this index knows; give Flat, auto, SQ8 (or SQ4, SQ6, SQfp16, "
                "SQbf16), PQ<parts> (or PQ<parts>x4fs), IVF<lists>,<one of those>, HNSW<links> or HNSW<links>,SQ8, any of "
                "them after OPQ<parts>, or OPQ<parts>_<dimension>, or PCA<dimension>,"
            )
        return found.groupdict()

    def suited(self, dimension: int) -> Factory:
        """What `auto` means for vectors of some dimension; another factory is what it is."""
        if self.name != "auto":
            return self
        # One list, as only the scan of lists takes filters. Two dimensions a code, where they are many, and even.
        parts = dimension // 2 if dimension >= _MANY and dimension % 2 == 0 else dimension
        return replace(self, name=f"IVF1,PQ{parts}x4fs", measured=True)

    def check(self) -> None:
        """Refuse settings that do not fit together."""
        if self.name == "auto":
            if (self.metric, self.probes, self.ef) != ("ip", None, None):
                raise InvalidInput(
                    f"the factory 'auto' with metric={self.metric!r}, probes={self.probes} and ef={self.ef}: its metric is "
                    "'ip', and it finds out by itself how far to look; choose another factory to set them"
                )
            return
        parts = self._parts
        if parts["width"] and parts["turn"] != "OPQ":
            raise InvalidInput(f"the factory {self.name!r}: PCA takes one number, the dimension, as in PCA64")
        if self.metric not in ("ip", "l2"):
            raise InvalidInput(f"the metric {self.metric!r} is not known; give 'ip' or 'l2'")
        for name, value, family in (("probes", self.probes, "lists"), ("ef", self.ef, "links")):
            if value is not None and (not parts[family] or value < 1):
                wanted = "an IVF factory" if name == "probes" else "an HNSW factory"
                raise InvalidInput(f"{name}={value} with {self.name!r}: it must be at least 1, and needs {wanted}")

    def check_dimension(self, dimension: int) -> None:
        """Refuse vectors whose dimension the factory cannot divide or reach."""
        parts = self._parts
        width, turned = dimension, int(parts["turned"] or 1)
        if parts["turn"] == "OPQ":
            width = int(parts["width"] or dimension)
        elif parts["turn"]:
            width, turned = turned, 1
        pieces = math.lcm(turned, int(parts["parts"] or 1))
        if width > dimension or width % pieces:
            raise InvalidInput(
                f"the factory {self.name!r} does not suit vectors of {dimension} dimensions: the dimension it codes, "
                f"here {width}, must be at most {dimension} and a multiple of {pieces}; choose other numbers"
            )

    @property
    def approximate(self) -> bool:
        """Whether there is anything to build."""
        return self.name != "Flat"

    @cached_property
    def enough(self) -> int:
        """How many rows it takes before an index is built."""
        parts = self._parts
        codes = 1 << self._bits if parts["parts"] or parts["turn"] == "OPQ" else 1
        return max(CODED if self.measured else SMALL + 1, _POINTS * max(codes, int(parts["lists"] or 1)))

    @cached_property
    def _raw(self) -> bool:
        """Whether the faiss index itself compares the vectors as they are."""
        parts = self._parts
        graph = parts["links"] and parts["nodes"] != "SQ8"
        return not parts["turn"] and bool(parts["flat"] or graph)

    @property
    def _bits(self) -> int:
        """Of each code of a product quantiser; what rotates for one is trained for the same."""
        return int((self._parts["bits"] or "8").removesuffix("fs"))

    def build(self, vectors: Floats) -> Built:
        """Train and fill a faiss index."""
        metric = faiss.METRIC_INNER_PRODUCT if self.metric == "ip" else faiss.METRIC_L2
        index = faiss.index_factory(vectors.shape[1], self.name, metric)
        inner = faiss.downcast_index(faiss.downcast_index(index).index if self._parts["turn"] else index)
        if self._parts["lists"]:
            inner.cp.seed = self.seed
        if self._parts["parts"]:
            inner.pq.cp.seed = self.seed
            if self.measured:
                inner.pq.cp.niter = _ROUNDS
        if hasattr(inner, "do_polysemous_training"):
            inner.do_polysemous_training = False  # slow, and serves a kind of search that is not used
        if self._parts["links"]:
            inner.hnsw.rng = faiss.RandomGenerator(self.seed)
        # Graphs and rotations depend on how threads happen to meet. Clustering pairs of dimensions is such small work that
        # threads mostly wait for each other, on a busy machine for minutes.
        with one_thread(self._has("links", "turn", "parts")):
            if self._parts["turn"] == "OPQ":
                self._rotate(faiss.downcast_VectorTransform(index.chain.at(0)), vectors)
            if not index.is_trained:
                index.train(vectors)
        with one_thread(self._has("links", "turn")):
            index.add(vectors)
        return Built(index, trained=len(vectors))

    def _rotate(self, matrix: Any, vectors: Floats) -> None:
        """Train a rotation for the codes that follow it, instead of for codes of 8 bits."""
        quantizer = faiss.ProductQuantizer(matrix.d_out, matrix.M, self._bits)
        quantizer.cp.seed = self.seed
        matrix.pq = quantizer
        matrix.train(vectors)
        matrix.pq = None

    def extend(self, base: Built, shared: int, vectors: Floats) -> Built:
        """An index trained as another, of whose rows it has the first `shared`; trained afresh if it has drifted."""
        trained = self._parts["lists"] or not self._raw
        if trained and _DRIFT * base.trained < len(vectors):
            return self.build(vectors)
        index = faiss.clone_index(base.index)
        if shared < index.ntotal:
            index.reset()
        with one_thread(self._has("links", "turn")):
            index.add(vectors[index.ntotal :])
        return Built(index, base.trained)

    def _has(self, *families: str) -> bool:
        return any(self._parts[family] for family in families)

    def candidates(self, index: Any, queries: Floats, k: int, mask: Bools | None, allowed: int) -> list[Ints]:
        """For each query, rows that are probably its best, of those the mask allows."""
        selects = mask is not None and (not self._parts["parts"] or self._parts["lists"])
        scale = index.ntotal / allowed
        depth = 4 * k + 60
        fetch = math.ceil((k if self._raw else depth) * (1 if mask is None or selects else scale))
        selector = selection(mask) if selects else None
        parameters = None
        if self._parts["lists"]:
            lists = int(self._parts["lists"])
            probes = min(lists, math.ceil((self.probes or max(8, lists // 8)) * scale))
            parameters = faiss.SearchParametersIVF(sel=selector, nprobe=probes)
        elif self._parts["links"]:
            ef = math.ceil((self.ef or depth) * scale)
            parameters = faiss.SearchParametersHNSW(sel=selector, efSearch=ef)
        elif selector is not None:
            parameters = faiss.SearchParameters(sel=selector)
        if parameters is not None and self._parts["turn"]:
            parameters = faiss.SearchParametersPreTransform(index_params=parameters)
        _, found = index.search(queries, min(fetch, index.ntotal), params=parameters)
        rows = [row[row >= 0] for row in found]
        return rows if mask is None or selects else [row[mask[row]] for row in rows]


@contextlib.contextmanager
def one_thread(wanted: bool = True) -> Iterator[None]:
    """Let faiss, called by this thread, use no others."""
    before = faiss.omp_get_max_threads()
    if wanted:
        faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def selection(mask: Bools | None) -> Any:
    """The rows of a mask as faiss takes them."""
    return None if mask is None else faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))


@dataclass(frozen=True)
class Trust:
    """How far the estimates of an index go (see `fastscan`).

    Attributes:
        margin: How far below the k-th best score one of the best `k` is estimated, relative to the query's length, at most;
            `None` if estimates are not worth asking for.
        recall: recall@10 of searches with that margin, as measured.
    """

    margin: float | None
    recall: float


class Built:
    """A faiss index, opened from its bytes when first used, how many rows it was trained on, and perhaps its trust."""

    def __init__(
        self, index: Any, trained: int, content: npt.NDArray[np.uint8] | None = None, trust: Trust | None = None
    ) -> None:
        self._index, self.trained, self._content, self.trust = index, trained, content, trust
        self._lock = threading.Lock()

    @classmethod
    def read(cls, state: State, files: Files) -> Built:
        """What `save` wrote."""
        margin = state.get("margin")
        trust = Trust(None if margin is None else float(margin), float(state["recall"])) if "recall" in state else None
        return cls(None, int(state["trained"]), files.get(state["index"]), trust)

    @property
    def index(self) -> Any:
        """The faiss index."""
        if self._index is None:
            with self._lock:
                if self._index is None:
                    self._index = faiss.deserialize_index(self._content)
        return self._index

    def save(self, files: Files) -> State:
        """Store the index in `files` and return the rest."""
        if self._content is None:
            self._content = files.get(files.put(faiss.serialize_index(self._index)))
        trust = {"margin": self.trust.margin, "recall": self.trust.recall} if self.trust else {}
        return {"index": files.put(self._content), "trained": self.trained} | trust

"""Coarse to fine: what the fine index is asked and reads, and that both stay of one mind."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragistry import Collection, Document, create
from ragistry.encoders.functions import register_encoder
from ragistry.errors import InvalidInput
from ragistry.indexes.binary import Binary
from ragistry.indexes.faiss import Faiss
from ragistry.indexes.inverted import Inverted
from ragistry.indexes.reduced import Reduced
from ragistry.indexes.tiered import Tiered
from ragistry.indexes.weighting import Impact
from ragistry.registry import BUILT_IN
from ragistry.storage import ArrayFiles
from ragistry.types import Floats

COUNT = 2000
VECTORS = np.random.default_rng(0).standard_normal((COUNT, 32), np.float32)
QUERIES = np.random.default_rng(1).standard_normal((3, 32), np.float32)
IDS = [str(number) for number in range(COUNT)]


def rows(texts: list[str]) -> Floats:
    return VECTORS[[int(text) for text in texts]]


def filled(depth: int = 100, weight: float = 0.0) -> Tiered:
    index = Tiered(Binary(4 * depth), Faiss("Flat"), depth, weight)
    index.add(IDS, VECTORS)
    return index


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_only_the_shortlist_is_read(weight: float) -> None:
    index = filled(weight=weight)
    expected = index.search(QUERIES, 10)
    for query, ranking in zip(QUERIES, expected, strict=True):
        [shortlist] = index.coarse.search(query[None], 100)
        [segment] = index.fine._segments  # type: ignore[attr-defined]
        sound = segment.content.vectors.copy()
        segment.content.vectors[[i for i, id in enumerate(IDS) if id not in set(shortlist.ids)]] = np.nan
        assert index.search(query[None], 10) == [ranking]
        segment.content.vectors[:] = sound


def test_vectors_lie_in_a_mapped_file_once_loaded(tmp_path: Path) -> None:
    index, loaded = filled(), Tiered(Binary(400), Faiss("Flat"), 100)
    loaded.load(index.save(ArrayFiles(tmp_path)), ArrayFiles(tmp_path))
    [segment] = loaded.fine._segments  # type: ignore[attr-defined]
    base: Any = segment.content.vectors
    while isinstance(base, np.ndarray):
        base = base.base
    assert isinstance(base, mmap.mmap)
    assert loaded.search(QUERIES, 10) == index.search(QUERIES, 10)


def test_the_order_is_that_of_exact_scores_on_the_shortlist() -> None:
    for query, ranking in zip(QUERIES, filled().search(QUERIES, 10), strict=True):
        [shortlist] = filled().coarse.search(query[None], 100)
        fine = Faiss("Flat")
        fine.add(IDS, VECTORS)
        assert ranking == fine.search(query[None], 10, among=shortlist.ids)[0]


def test_a_weight_adds_the_coarse_score() -> None:
    [plain], [coarse] = filled().search(QUERIES[:1], 100), filled().coarse.search(QUERIES[:1], 100)
    [weighted] = filled(weight=0.3).search(QUERIES[:1], 100)
    for id, score in weighted:
        assert score == pytest.approx(dict(plain)[id] + 0.3 * dict(coarse)[id], abs=1e-4)
    assert weighted.ids != plain.ids


def test_more_hits_than_the_shortlist_is_deep_make_it_deeper() -> None:
    assert [len(ranking) for ranking in filled(depth=5).search(QUERIES, 30)] == [30] * 3


def test_what_one_refuses_neither_takes() -> None:
    index = Tiered(Faiss("Flat"), Reduced())
    index.add(["a"], np.ones((1, 8), np.float32))
    with pytest.raises(InvalidInput, match="65,504"):
        index.add(["b"], np.full((1, 8), 1e6, np.float32))
    assert (len(index.coarse), len(index.fine)) == (1, 1)


@pytest.mark.parametrize(
    ("coarse", "fine", "depth", "weight", "message"),
    [
        (Binary(), Inverted(Impact()), 10, 0.0, "same kind"),
        (filled().coarse, Faiss("Flat"), 10, 0.0, "empty"),
        (Binary(), Faiss("Flat"), 0, 0.0, "depth=0"),
        (Binary(), Faiss("Flat"), 10, float("nan"), "finite weight"),
    ],
    ids=["kinds", "filled", "depth", "weight"],
)
def test_what_does_not_fit_is_refused(coarse: Any, fine: Any, depth: int, weight: float, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Tiered(coarse, fine, depth, weight)


@pytest.mark.parametrize(
    "fields",
    [{"codes": "sign"}, {"codes": "opq", "bytes": 8}, {"codes": "pca", "bytes": 16}, {"codes": "fp16"}],
    ids=lambda fields: fields["codes"],
)
def test_a_compressed_collection_survives_its_life(
    fields: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BUILT_IN, "compressed", "ragistry.recipes.compressed:CompressedRecipe")
    register_encoder("rows of test_tiered", rows)
    model = {"model": "rows of test_tiered"}
    documents = [Document(f"d{number}", str(number), metadata={"odd": number % 2}) for number in range(400)]
    compressed = Collection.create(tmp_path / "compressed", create("compressed", **fields, **model, enough=300))
    dense = Collection.create(tmp_path / "dense", create("dense", **model))
    for docs in (compressed, dense):
        docs.add(documents[:350])
        docs.add(documents[350:])
        docs.remove(["d3", "d4"])
        docs.add(Document("d5", "6"))
    held: Any = compressed.retriever()
    assert held.index.coarse.codes(["d7"]).dtype != np.float32
    again = Collection.open(tmp_path / "compressed")
    for query in ("5", "17", "399"):
        wanted = [(hit.id, hit.score) for hit in dense.search(query, k=5)]
        assert [(hit.id, hit.score) for hit in again.search(query, k=5)] == wanted
        odd = [(hit.id, hit.score) for hit in dense.search(query, k=5, where={"odd": 1})]
        assert [(hit.id, hit.score) for hit in again.search(query, k=5, where={"odd": 1})] == odd

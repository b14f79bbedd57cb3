"""A bridge served by arrays alone gives the vectors that it gives in torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ragistry import Document, create
from ragistry.encoders.steps.token_bridge import Statistics, TokenBridge
from ragistry.encoders.token_aware import TokenAware, padded, parts_of
from ragistry.encoders.token_table import TokenTable
from ragistry.errors import Corrupt, InvalidInput
from ragistry.retrievers.augmented import served
from ragistry.storage import load, save
from ragistry.types import Floats, Role

from ..tiny import tiny_model

V, D, IGNORED = 13, 6, (1, 2)
CORPUS = [[3, 3, 4], [3, 5, 6, 7, 8], [3, 9], [1, 3, 4, 2], [0, 10, 11, 12, 3, 3]]
TEXTS = st.lists(st.lists(st.integers(0, V - 1), max_size=9), min_size=1, max_size=4)


class Ready:
    """An encoder of token ids written out, whose vectors are there already."""

    kind = "dense"

    def __init__(self, vectors: Floats) -> None:
        self.vectors = vectors

    def encode(self, items: Sequence[str], role: Role) -> Floats:
        return self.vectors[: len(items)]

    def tokens(self, items: Sequence[str], role: Role) -> list[list[int]]:
        return [[int(token) for token in text.split()] for text in items]

    def fingerprint(self) -> str:
        return "ready"


def bridge(form: Any, side: Any, started: bool, seed: int) -> Any:
    step = TokenBridge(D, V, form=form, side=side, ignored=IGNORED)
    if started:
        step.start(Statistics.of(CORPUS, V))
    draw = torch.Generator().manual_seed(seed)
    for weight in step.parameters():
        weight.data = torch.randn(weight.shape, generator=draw)
    return step


@settings(deadline=None, max_examples=40)
@given(
    TEXTS,
    st.sampled_from(["sum", "gate"]),
    st.sampled_from(["query", "document", "both", "shared"]),
    st.sampled_from(["query", "document"]),
    st.booleans(),
    st.integers(0, 9),
)
def test_arrays_give_what_torch_gives(
    texts: list[list[int]], form: str, side: str, role: Any, on: bool, seed: int
) -> None:
    vectors = np.random.default_rng(seed).normal(size=(len(texts), D)).astype(np.float32)
    vectors[0] = 0
    step = bridge(form, side, on, seed)
    tokens = [ids or [0] for ids in texts]
    with torch.inference_mode():
        features = padded(tokens) | {"vector": torch.from_numpy(vectors)}
        wanted = step.eval()(features, role)["vector"].numpy()
    table = TokenTable(Ready(vectors), *parts_of(step))
    found = table.encode([" ".join(map(str, ids)) for ids in tokens], role)
    np.testing.assert_allclose(found, wanted, atol=2e-5, rtol=2e-5)
    assert found.dtype == np.float32
    if not table.changes(role):
        assert found is vectors or np.array_equal(found, vectors)


@pytest.mark.parametrize("form", ["sum", "gate"])
def test_untrained_changes_nothing(form: Any) -> None:
    vectors = np.random.default_rng(0).normal(size=(2, D)).astype(np.float32)
    table = TokenTable(Ready(vectors), *parts_of(TokenBridge(D, V, form=form, side="both", ignored=IGNORED)))
    for role in ("query", "document"):
        np.testing.assert_allclose(table.encode(["3 4", "5"], role), vectors, rtol=1e-6)


def test_what_does_not_fit_is_refused() -> None:
    settings, arrays = parts_of(bridge("sum", "shared", True, 0))
    ready = Ready(np.ones((1, D), np.float32))
    with pytest.raises(InvalidInput, match="'llr' needs a model"):
        TokenTable(ready, settings | {"paradigm": "llr"}, arrays)
    with pytest.raises(Corrupt, match="lacks 'maps"):
        TokenTable(ready, settings, {name: value for name, value in arrays.items() if "maps" not in name})
    with pytest.raises(Corrupt, match="12 rows for 13 tokens"):
        TokenTable(ready, settings, arrays | {"maps.query": arrays["maps.query"][:12]})
    with pytest.raises(InvalidInput, match="token id 13"):
        TokenTable(ready, settings, arrays).encode(["13"], "query")


def test_a_taught_searcher_stays_the_same_when_saved(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    folder = tiny_model(tmp_path)
    documents = [Document(str(i), text) for i, text in enumerate(["the cat sat", "a sonnet has fourteen lines", "dog"])]
    retriever: Any = create("lexsembridge", model=str(folder), precision="fp32")
    retriever.add(documents)
    from ragistry.encoders.token_aware import new_bridge

    step = new_bridge(retriever.encoder, form="sum", side="shared")
    tokens = retriever.encoder.tokens(documents, "document")
    step.start(Statistics.of(tokens, step.vocabulary), retriever.encoder.encode(documents, "document"), 0.7)
    ids = [document.id for document in documents]
    aware = served(retriever.encoder, *parts_of(step), {}, False)
    assert isinstance(aware, TokenTable)
    taught = retriever.taught(ids, aware, lambda some: [documents[int(id)] for id in some])
    save(taught, tmp_path / "kept")
    again: Any = load(tmp_path / "kept")
    before, after = (one.search(["cat", "fourteen lines"], 3) for one in (taught, again))
    assert before == after
    assert before != retriever.search(["cat", "fourteen lines"], 3)
    assert again.aware.fingerprint() == aware.fingerprint() != retriever.encoder.fingerprint()
    aware.save(tmp_path / "bridge.safetensors")
    stored = TokenAware.load(tmp_path / "bridge.safetensors", retriever.encoder)
    np.testing.assert_allclose(stored.encode(["the dog"], "query"), aware.encode(["the dog"], "query"), atol=1e-5)
    assert stored.fingerprint() == aware.fingerprint()

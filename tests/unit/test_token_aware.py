"""Token-aware encoders and the searcher over them: taught, saved, composed; documents are not encoded again."""

from __future__ import annotations

import random
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ragistry import Collection, Document, create
from ragistry.encoders import stack as stacks
from ragistry.encoders.backbones import stack
from ragistry.encoders.named import encoder
from ragistry.encoders.stack import Stack
from ragistry.encoders.steps.token_bridge import Statistics
from ragistry.encoders.token_aware import FILE, TokenAware, new_bridge
from ragistry.errors import Corrupt, FingerprintMismatch, InvalidInput

from ..tiny import tiny_model

DRAW = random.Random(5)
LETTERS = string.ascii_lowercase + string.digits


def word() -> str:
    return "".join(DRAW.sample(LETTERS, 3))


DOCUMENTS = [Document(f"d{i}", " ".join(word() for _ in range(6))) for i in range(60)]
PAIRS = [(" ".join(document.text.split()[2:4]), document.id) for document in DOCUMENTS]
PAIRS += [(document.text.split()[4], document.id) for document in DOCUMENTS]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def base(model: Path) -> Stack:
    return stack(model, precision="fp32")


def aware(base: Stack, **settings: Any) -> TokenAware:
    """With a start of its own."""
    made = new_bridge(base, **settings)
    statistics = Statistics.of(base.tokens(DOCUMENTS, "document"), made.vocabulary)
    made.start(statistics, base.encode(DOCUMENTS, "document"), strength=0.7)
    return TokenAware(base, made)


def filled(path: Path, model: Path, **fields: Any) -> Collection:
    docs = Collection.create(path, create("lexsembridge", model=str(model), precision="fp32", **fields))
    docs.add(DOCUMENTS)
    return docs


def rankings(docs: Collection) -> list[list[tuple[str, float]]]:
    return [[(hit.id, hit.score) for hit in docs.search(query, k=5)] for query, _ in PAIRS[::9]]


def test_untaught_it_ranks_as_dense_does(tmp_path: Path, model: Path) -> None:
    with filled(tmp_path / "a", model) as one:
        other = Collection.create(tmp_path / "b", create("dense", model=str(model), precision="fp32"))
        other.add(DOCUMENTS)
        assert rankings(one) == rankings(other)


def test_fit_learns_keywords_and_encodes_no_document_again(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roles: list[str] = []
    encode = stacks.Stack.encode

    def watched(self: Stack, items: Any, role: Any) -> Any:
        roles.append(role)
        return encode(self, items, role)

    with filled(tmp_path / "docs", model, epochs=1, made=0) as docs:
        monkeypatch.setattr(stacks.Stack, "encode", watched)
        found = docs.fit(PAIRS)
        assert found.kept
        assert found.fitted > found.base + 0.1
        assert "document" not in roles
        assert "slr sum, side shared" in found.chosen
        before = rankings(docs)
        with Collection.open(docs.path) as again:
            assert rankings(again) == before
            again.check()
        # What is added later is changed as well, and finds its own words; what is removed is gone.
        docs.add([Document("new", "q9z x8w v7u")])
        assert docs.search("q9z x8w v7u", k=1)[0].id == "new"
        docs.remove(["new"])
        assert rankings(docs) == before
        retriever: Any = docs.retriever()
        raw = retriever.encoded([document.id for document in DOCUMENTS])
        assert np.array_equal(raw, encode(retriever.encoder, DOCUMENTS, "document"))
        assert docs.fit(PAIRS).fitted == pytest.approx(found.fitted)  # starts anew, from the same vectors


@pytest.mark.parametrize("paradigm", ["slr", "llr", "clr"])
def test_with_the_query_side_alone_documents_stay_bit_for_bit(tmp_path: Path, model: Path, paradigm: str) -> None:
    fields = {"paradigm": paradigm, "form": "gate", "side": "query", "epochs": 2, "made": 0, "learning_rate": 0.05}
    with filled(tmp_path / "docs", model, **fields) as docs:
        docs.fit(PAIRS, goal="seen")
        retriever: Any = docs.retriever()
        ids = [document.id for document in DOCUMENTS]
        assert retriever.raw is None
        assert np.array_equal(retriever.index.vectors(ids), retriever.encoder.encode(DOCUMENTS, "document"))


@pytest.mark.parametrize("documents", [False, True], ids=["queries", "both"])
def test_a_tuned_model_is_kept_and_the_base_stays(tmp_path: Path, model: Path, documents: bool) -> None:
    fields = {"tune": "full", "tune_documents": documents, "epochs": 8, "tuning_rate": 3e-3, "made": 0}
    with filled(tmp_path / "docs", model, **fields) as docs:
        base = stack(model, precision="fp32").encode(["abc"], "query")
        found = docs.fit(PAIRS, goal="seen")
        assert found.kept
        retriever: Any = docs.retriever()
        assert retriever.aware.tuned
        assert not any("word_embeddings" in name for name in retriever.aware.tuned)
        assert np.array_equal(retriever.encoder.encode(["abc"], "query"), base)
        before = rankings(docs)
        with Collection.open(docs.path) as again:
            assert rankings(again) == before
        docs.add([Document("new", DOCUMENTS[3].text)])
        vectors = [retriever_vectors(docs, id) for id in ("new", "d3")]
        assert np.allclose(*vectors, atol=1e-6)
        raw, encoded = retriever.encoded(["d3"]), retriever.encoder.encode(DOCUMENTS[3:4], "document")
        assert np.array_equal(raw, encoded)
        assert retriever.aware.both == documents


def retriever_vectors(docs: Collection, id: str) -> Any:
    retriever: Any = docs.retriever()
    return retriever.index.vectors([id])


@pytest.mark.slow
def test_lora_trains_less_and_is_merged(tmp_path: Path, model: Path) -> None:
    fields = {"tune": "lora", "rank": 4, "epochs": 8, "tuning_rate": 3e-3, "made": 0}
    with filled(tmp_path / "docs", model, **fields) as docs:
        assert docs.fit(PAIRS, goal="seen").kept
        retriever: Any = docs.retriever()
        assert retriever.aware.tuned
        assert all(name.endswith("weight") and "LayerNorm" not in name for name in retriever.aware.tuned)
        before = rankings(docs)
        with Collection.open(docs.path) as again:
            assert rankings(again) == before


@pytest.mark.parametrize("paradigm", ["slr", "llr", "clr"])
@pytest.mark.parametrize("form", ["gate", "sum"])
def test_what_is_saved_encodes_alike(
    tmp_path: Path, base: Stack, monkeypatch: pytest.MonkeyPatch, paradigm: str, form: str
) -> None:
    monkeypatch.setattr("ragistry.encoders.steps.token_bridge.CANDIDATES", 50)
    one = aware(base, paradigm=paradigm, form=form, side="shared")
    one.save(tmp_path / FILE)
    other = TokenAware.load(tmp_path, base)
    assert one.fingerprint() == other.fingerprint() != base.fingerprint()
    for role in ("query", "document"):
        vectors = one.encode(DOCUMENTS[:5], role)  # type: ignore[arg-type]
        assert np.array_equal(other.encode(DOCUMENTS[:5], role), vectors)  # type: ignore[arg-type]
        alone = np.concatenate([one.encode([document], role) for document in DOCUMENTS[:5]])  # type: ignore[arg-type]
        assert np.allclose(alone, vectors, atol=1e-5)
        assert not np.allclose(base.encode(DOCUMENTS[:5], role), vectors, atol=1e-2)  # type: ignore[arg-type]


def test_damage_and_another_encoder_are_refused(tmp_path: Path, base: Stack) -> None:
    one = aware(base, form="sum", side="shared")
    one.save(tmp_path / "a")
    content = bytearray((tmp_path / "a").read_bytes())
    content[-3] ^= 1
    (tmp_path / "b").write_bytes(content)
    (tmp_path / "c").write_bytes(b"no bridge")
    for name in ("b", "c"):
        with pytest.raises(Corrupt, match="no token bridge"):
            TokenAware.load(tmp_path / name, base)
    with pytest.raises(FingerprintMismatch, match="another encoder"):
        TokenAware.load(tmp_path / "a", stack(tiny_model(tmp_path, seed=1), precision="fp32"))


def test_a_folder_with_a_bridge_is_a_model_for_other_recipes(tmp_path: Path, base: Stack) -> None:
    one = aware(base, form="sum", side="shared")
    one.save(tmp_path / FILE)
    found = encoder(str(tmp_path), precision="fp32")
    assert np.array_equal(found.encode(["abc def"], "query"), one.encode(["abc def"], "query"))
    fields = {"model": str(tmp_path), "precision": "fp32"}
    members = {"words": "bm25", "vectors": {"name": "dense", **fields}}
    for spec in ({"name": "adder", **fields}, {"name": "hybrid", "members": members}):
        with Collection.create(tmp_path / str(spec["name"]), create(spec)) as docs:
            docs.add(DOCUMENTS)
            assert docs.search(DOCUMENTS[7].text, k=1)[0].id == "d7"
            if spec["name"] == "adder":
                assert docs.fit(PAIRS[:30]).base > 0


def test_a_hybrid_teaches_it(tmp_path: Path, model: Path) -> None:
    bridged = {"name": "lexsembridge", "model": str(model), "precision": "fp32", "epochs": 0}
    spec = {"name": "hybrid", "members": {"bridged": bridged, "dense": {**bridged, "name": "dense"}}}
    spec["members"]["dense"].pop("epochs")  # type: ignore[index]
    with Collection.create(tmp_path / "docs", create(spec)) as docs:
        docs.add(DOCUMENTS)
        found = docs.fit(PAIRS)
        assert found.kept
        assert "bridged: slr sum" in found.chosen


def test_an_encoder_without_tokens_is_refused() -> None:
    from ragistry.encoders.functions import Function

    with pytest.raises(InvalidInput, match="shows no tokens"):
        new_bridge(Function(lambda texts: [[1.0] for _ in texts], "constant"))


def test_vectors_alone_do_not_do_where_embeddings_are_read(base: Stack) -> None:
    one = aware(base, paradigm="llr")
    with pytest.raises(InvalidInput, match="call `encode`"):
        one.augmented(base.encode(["abc"], "query"), ["abc"], "query")


def test_a_head_of_its_own_is_used_where_the_folder_has_one(tmp_path: Path, model: Path) -> None:
    from transformers import BertConfig, BertForMaskedLM

    with torch.random.fork_rng(devices=[]):
        whole = BertForMaskedLM(BertConfig.from_pretrained(model))
    folder = tiny_model(tmp_path, seed=3)
    whole.save_pretrained(folder)
    found = new_bridge(stack(folder, precision="fp32"), paradigm="clr")
    assert found.head is not None
    embedding = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(found.head(embedding), whole.cls(embedding), atol=1e-5)

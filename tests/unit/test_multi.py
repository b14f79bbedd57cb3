"""The multi-vector encoder: prompts, lengths, expansion, tokens that do not count, and folders of multi-vector models."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from transformers import AutoModel

from ragistry import Document
from ragistry.encoders.multi import TokenStack, token_stack
from ragistry.encoders.reducing import Reducer
from ragistry.encoders.steps.pooling import Normalise, Pooling
from ragistry.encoders.steps.tokens import EachToken, random_projection
from ragistry.encoders.token_layout import PUNCTUATION, Expansion, TokenBackbone
from ragistry.encoders.tuned import Tuned
from ragistry.errors import Corrupt, InvalidInput, ModelNotFound
from ragistry.protocols import Encoder
from ragistry.testing import EncoderContract
from ragistry.types import Floats

from ..tiny import tiny_model

TEXTS = ["the cat sat", "", "a sonnet has fourteen lines, a poem.", "dog", "poem " * 40]
WEIGHT = np.random.default_rng(0).standard_normal((12, 32)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def laid_out(folder: Path, path: Path, kind: str = "sentence-transformers") -> Path:
    """A multi-vector model as sentence-transformers 6 or PyLate 1 saves it."""
    shutil.copytree(folder, path)
    (path / "1_Dense").mkdir()
    save_file({"linear.weight": WEIGHT}, path / "1_Dense" / "model.safetensors")
    dense: dict[str, Any] = {"in_features": 32, "out_features": 12, "bias": False, "use_residual": False}
    dense["activation_function"] = "torch.nn.modules.linear.Identity"
    write(path / "1_Dense" / "config.json", dense)
    if kind == "pylate":
        modules = ["sentence_transformers.models.Transformer", "pylate.models.Dense.Dense"]
        settings: dict[str, Any] = {"max_seq_length": 31, "do_lower_case": False}
        about: dict[str, Any] = {"model_type": "ColBERT", "query_prefix": "[Q] ", "document_prefix": "[D] "}
        about |= {"query_length": 10, "document_length": 18, "attend_to_expansion_tokens": False, "prompts": {}}
    else:
        module = "sentence_transformers.base.modules"
        modules = [f"{module}.transformer.Transformer", f"{module}.dense.Dense"]
        modules += [
            "sentence_transformers.multi_vector_encoder.modules.multi_vector_mask.MultiVectorMask",
            f"{module}.normalize.Normalize",
        ]
        settings = {"document_length": 20, "module_output_name": "token_embeddings"}
        settings["query_expansion"] = {"strategy": "fixed", "attend": False, "token": None, "length": 12}
        about = {"model_type": "MultiVectorEncoder", "prompts": {"document": "the ", "query": "poem "}}
        (path / "2_MultiVectorMask").mkdir()
        mask = {"skiplist_words": [",", "no such token"], "skiplist_tasks": ["document"], "keep_only_token_ids": None}
        write(path / "2_MultiVectorMask" / "config.json", mask)
    paths = ["", "1_Dense", "2_MultiVectorMask", "3_Normalize"]
    write(path / "modules.json", [{"path": at, "type": type} for at, type in zip(paths, modules, strict=False)])
    write(path / "sentence_bert_config.json", settings)
    write(path / "config_sentence_transformers.json", about)
    return path


def write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def plain(folder: Path, ids: list[int], seen: list[int] | None = None) -> Floats:
    """What a transformer gives for token ids, projected and of unit length."""
    model = AutoModel.from_pretrained(folder).float().eval()
    mask = torch.tensor([[1] * len(ids) if seen is None else seen])
    with torch.no_grad():
        states = model(input_ids=torch.tensor([ids]), attention_mask=mask).last_hidden_state[0].numpy()
    projected = states @ WEIGHT.T
    found: Floats = projected / np.linalg.norm(projected, axis=1, keepdims=True)
    return found


class TestTokenStack(EncoderContract):
    @pytest.fixture(autouse=True)
    def settings(self, folder: Path) -> None:
        self.folder = folder

    def make(self) -> Encoder:
        return token_stack(self.folder, precision="fp32", expansion=9, skipped=PUNCTUATION)

    def make_other(self) -> Encoder:
        return token_stack(self.folder, precision="fp32", expansion=8, skipped=PUNCTUATION)


class TestReduced(EncoderContract):
    @pytest.fixture(autouse=True)
    def settings(self, folder: Path) -> None:
        self.folder = folder

    def make(self) -> Encoder:
        reducers: Any = {"query": Reducer("fixed", 2), "document": Reducer("fixed", 4)}
        return token_stack(self.folder, precision="fp32", dimension=16, reducers=reducers)

    def make_other(self) -> Encoder:
        reducers: Any = {"query": Reducer("fixed", 2), "document": Reducer("fixed", 5)}
        return token_stack(self.folder, precision="fp32", dimension=16, reducers=reducers)


def test_every_setting_is_in_the_fingerprint(folder: Path) -> None:
    settings: list[dict[str, Any]] = [
        {},
        {"dimension": 8},
        {"dimension": 8, "seed": 1},
        {"prompts": {"query": "poem "}},
        {"query_length": 9},
        {"document_length": 9},
        {"expansion": 9},
        {"skipped": [","]},
        {"reducers": {"document": Reducer("fixed", 3)}},
        {"reducers": {"query": Reducer("fixed", 3)}},
    ]
    assert len({token_stack(folder, **one).fingerprint() for one in settings}) == len(settings)
    assert token_stack(folder, threads=1, precision="fp32").fingerprint() == token_stack(folder).fingerprint()
    attended = TokenStack(TokenBackbone(folder), [EachToken()], max_length=32, expansion=Expansion(9, True))
    hidden = TokenStack(TokenBackbone(folder), [EachToken()], max_length=32, expansion=Expansion(9))
    assert attended.fingerprint() != hidden.fingerprint()


def test_special_tokens_count_and_marks_only_if_asked_for(folder: Path, tokenizer: Tokenizer) -> None:
    text = "a sonnet, a poem; the cat."
    tokens = tokenizer.encode(text).tokens
    words = [token not in PUNCTUATION for token in tokens]
    every = token_stack(folder, precision="fp32").encode([text], "document").values
    fewer = token_stack(folder, precision="fp32", skipped=PUNCTUATION)
    assert len(every) == len(tokens)
    np.testing.assert_allclose(fewer.encode([text], "document").values, every[words], atol=1e-6)
    assert len(fewer.encode([text], "query").values) == len(tokens)


def test_lengths_are_of_each_role(folder: Path) -> None:
    encoder = token_stack(folder, query_length=5, document_length=7)
    lengths = {role: np.diff(encoder.encode(["poem " * 40, "cat"], role).offsets).tolist() for role in encoder.prompts}
    assert lengths == {"query": [5, 3], "document": [7, 3]}
    with pytest.raises(InvalidInput, match="reads 3 to 64"):
        token_stack(folder, query_length=65).encode(["cat"], "query")


def test_expansion_fills_queries_alone(folder: Path, tokenizer: Tokenizer) -> None:
    encoder = token_stack(folder, expansion=6)
    mask = tokenizer.token_to_id("[MASK]")
    assert encoder.tokens(["cat", "poem " * 40], "query")[0][3:] == [mask] * 3
    assert np.diff(encoder.encode(["cat", "poem " * 40], "query").offsets).tolist() == [6, 32]
    assert np.diff(encoder.encode(["cat"], "document").offsets).tolist() == [3]


def test_expansion_is_seen_only_if_asked_for(folder: Path) -> None:
    each, backbone = [EachToken(), Normalise()], TokenBackbone(folder)
    none, hidden, seen = (
        TokenStack(backbone, each, max_length=32, expansion=expansion, precision="fp32").encode(["cat"], "query").values
        for expansion in (None, Expansion(6), Expansion(6, attended=True))
    )
    np.testing.assert_allclose(hidden[:3], none, atol=1e-6)
    assert not np.allclose(seen[:3], none, atol=1e-3)
    assert not np.allclose(hidden[3:], seen[3:], atol=1e-3)


def test_a_model_without_a_mask_token_cannot_expand(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path)
    content = (folder / "tokenizer.json").read_text().replace("[MASK]", "[NONE]")
    (folder / "tokenizer.json").write_text(content)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    write(folder / "tokenizer_config.json", {key: value for key, value in config.items() if key != "mask_token"})
    encoder = token_stack(folder, expansion=9)
    assert len(encoder.encode(["cat"], "document")) == 1
    with pytest.raises(InvalidInput, match="leave out the expansion"):
        encoder.encode(["cat"], "query")


def test_a_model_of_sentence_transformers_is_used_as_meant(folder: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    # Checked against sentence-transformers 6.2.0: equal bit for bit.
    encoder = token_stack(laid_out(folder, tmp_path / "model"), precision="fp32")
    words: list[int] = tokenizer.encode("poem the cat sat").ids
    mask: Any = tokenizer.token_to_id("[MASK]")
    ids, seen = words + [mask] * 6, [1] * 6 + [0] * 6
    assert len(ids) == 12
    np.testing.assert_allclose(encoder.encode(["the cat sat"], "query").values, plain(folder, ids, seen), atol=1e-5)
    document = tokenizer.encode("the a poem, a cat")
    kept = [token != "," for token in document.tokens]
    found = encoder.encode(["a poem, a cat"], "document").values
    np.testing.assert_allclose(found, plain(folder, document.ids)[kept], atol=1e-5)
    assert np.diff(encoder.encode(["poem " * 40], "document").offsets) == [20]
    assert np.diff(encoder.encode(["poem " * 40], "query").offsets) == [12]


def test_a_model_of_pylate_is_used_as_meant(folder: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    encoder = token_stack(laid_out(folder, tmp_path / "model", "pylate"), precision="fp32")
    assert encoder.expansion == Expansion(10)
    assert (encoder.query_length, encoder.max_length) == (10, 18)
    found = encoder.encode(["a poem, a cat."], "document").values
    document = tokenizer.encode("[D] a poem, a cat.")
    kept = [token not in PUNCTUATION for token in document.tokens]
    assert not all(kept)
    np.testing.assert_allclose(found, plain(folder, document.ids)[kept], atol=1e-5)
    assert np.diff(encoder.encode(TEXTS, "query").offsets).tolist() == [10] * len(TEXTS)


def test_a_prompt_that_is_a_token_is_read_as_one(folder: Path, tmp_path: Path) -> None:
    path = laid_out(folder, tmp_path / "model", "pylate")
    content = json.loads((path / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["[Q] "] = vocabulary.pop("[NEW]", vocabulary["9"])
    del vocabulary["9"]
    write(path / "tokenizer.json", content)
    encoder = token_stack(path, precision="fp32")
    first, second, *_ = encoder.tokens(["cat"], "query")[0]
    assert [first, second] == [encoder.loaded().tokenizer.token_to_id("[CLS]"), vocabulary["[Q] "]]


@pytest.mark.parametrize(
    ("file", "change", "error", "match"),
    [
        ("1_Dense/config.json", {"bias": True}, InvalidInput, "bias"),
        ("1_Dense/config.json", {"use_residual": True}, InvalidInput, "residual"),
        ("1_Dense/config.json", {"activation_function": "torch.nn.modules.activation.Tanh"}, InvalidInput, "Tanh"),
        ("2_MultiVectorMask/config.json", {"keep_only_token_ids": [3]}, InvalidInput, "counts some tokens only"),
        ("2_MultiVectorMask/config.json", {"skiplist_tasks": ["query"]}, InvalidInput, "skips tokens of queries"),
        ("sentence_bert_config.json", {"do_lower_case": True}, InvalidInput, "lower-casing"),
        (
            "sentence_bert_config.json",
            {"query_expansion": {"strategy": "min", "token": "cat", "length": 3}},
            InvalidInput,
            "only mask tokens",
        ),
    ],
    ids=["bias", "residual", "activation", "some tokens", "queries", "lower case", "filler"],
)
def test_what_is_not_supported_is_refused(
    folder: Path, tmp_path: Path, file: str, change: dict[str, Any], error: type[Exception], match: str
) -> None:
    path = laid_out(folder, tmp_path / "model") / file
    write(path, json.loads(path.read_text()) | change)
    with pytest.raises(error, match=match):
        token_stack(tmp_path / "model")


@pytest.mark.parametrize(
    ("harm", "error", "match"),
    [
        (lambda path: (path / "1_Dense" / "model.safetensors").unlink(), Corrupt, "projection"),
        (lambda path: (path / "1_Dense" / "model.safetensors").write_bytes(b"\x00" * 20), Corrupt, "projection"),
        (lambda path: save_file({"a": WEIGHT}, path / "1_Dense" / "model.safetensors"), Corrupt, "linear.weight"),
        (lambda path: (path / "config.json").unlink(), ModelNotFound, "config.json"),
        (
            lambda path: write(path / "modules.json", [{"type": "x.Dense"}, {"type": "x.Router"}]),
            InvalidInput,
            "Router",
        ),
    ],
    ids=["missing", "damaged", "other", "no model", "unknown module"],
)
def test_a_damaged_folder_is_named(
    folder: Path, tmp_path: Path, harm: Callable[[Path], object], error: type[Exception], match: str
) -> None:
    path = laid_out(folder, tmp_path / "model")
    harm(path)
    with pytest.raises(error, match=match) as found:
        token_stack(path)
    assert str(path) in str(found.value)


def test_a_projection_of_the_models_own_has_its_dimension(folder: Path, tmp_path: Path) -> None:
    path = laid_out(folder, tmp_path / "model")
    assert token_stack(path, dimension=12).fingerprint() == token_stack(path).fingerprint()
    with pytest.raises(InvalidInput, match="projects to 12"):
        token_stack(path, dimension=16)


def test_several_projections_are_one(folder: Path, tmp_path: Path) -> None:
    path = laid_out(folder, tmp_path / "model")
    shutil.copytree(path / "1_Dense", path / "4_Dense")
    second = np.random.default_rng(1).standard_normal((5, 12)).astype(np.float32)
    save_file({"linear.weight": second}, path / "4_Dense" / "model.safetensors")
    modules = json.loads((path / "modules.json").read_text())
    write(path / "modules.json", [*modules[:2], {"path": "4_Dense", "type": "x.Dense"}, *modules[2:]])
    projection: Any = token_stack(path).steps[0].projection
    np.testing.assert_allclose(projection.numpy(), second @ WEIGHT, rtol=1e-5)


def test_a_random_projection_is_of_orthonormal_rows_and_its_seeds_own(folder: Path) -> None:
    rows = random_projection(8, 32, seed=3)
    np.testing.assert_allclose(rows @ rows.T, np.eye(8), atol=1e-5)
    np.testing.assert_array_equal(rows, random_projection(8, 32, seed=3))
    assert not np.allclose(rows, random_projection(8, 32, seed=4))
    assert token_stack(folder, dimension=8).encode(["cat"], "query").values.shape == (3, 8)
    assert token_stack(folder, dimension=32).fingerprint() == token_stack(folder).fingerprint()
    with pytest.raises(InvalidInput, match="1 to 32"):
        token_stack(folder, dimension=33)


def test_what_makes_no_vectors_of_tokens_is_refused(folder: Path) -> None:
    backbone = TokenBackbone(folder)
    with pytest.raises(InvalidInput, match="EachToken"):
        TokenStack(backbone, [Pooling(), Normalise()])
    with pytest.raises(InvalidInput, match="query_length=0"):
        TokenStack(backbone, [EachToken()], query_length=0)
    with pytest.raises(InvalidInput, match="expanded to -1"):
        token_stack(folder, expansion=-1)
    for wrong in (np.zeros(3), np.full((2, 2), np.nan)):
        with pytest.raises(InvalidInput, match="projection"):
            EachToken(wrong.astype(np.float32))


def test_bf16_is_near(folder: Path) -> None:
    exact, rounded = (token_stack(folder, precision=p).encode(TEXTS, "document") for p in ("fp32", "bf16"))
    np.testing.assert_array_equal(exact.offsets, rounded.offsets)
    assert not np.array_equal(exact.values, rounded.values)
    assert (exact.values * rounded.values).sum(axis=1).min() > 0.99


def test_over_other_weights_the_settings_stay(folder: Path, tmp_path: Path) -> None:
    encoder = token_stack(laid_out(folder, tmp_path / "model"), precision="fp32")
    name = "encoder.layer.1.output.dense.bias"
    other = encoder.over(Tuned(encoder.backbone, {name: np.arange(32, dtype=np.float32)}), encoder.steps)
    assert other.fingerprint() != encoder.fingerprint()
    for role in encoder.prompts:
        one, two = encoder.encode(TEXTS, role), other.encode(TEXTS, role)
        np.testing.assert_array_equal(one.offsets, two.offsets)
        assert not np.allclose(one.values, two.values, atol=1e-3)
    document = Document("1", "fourteen lines", title="sonnet")
    np.testing.assert_array_equal(
        encoder.encode([document], "document").values, encoder.encode(["sonnet\nfourteen lines"], "document").values
    )

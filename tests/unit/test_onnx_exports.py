"""Exports in their cache: made once, found while the model is as it was, refused when their vectors are others."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytest.importorskip("torch")

from ragistry.encoders import exporting
from ragistry.encoders.backbones import stack
from ragistry.encoders.exporting import Exporting, export
from ragistry.encoders.exports import Export, cache, find
from ragistry.encoders.named import encoder as named
from ragistry.encoders.onnx import Onnx, Quick
from ragistry.encoders.stack import Stack
from ragistry.errors import Corrupt, InvalidInput, ModelNotFound

from ..tiny import tiny_language_model, tiny_model

TEXTS = ["the cat sat", "", "a sonnet has fourteen lines"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a cache and, in `model`, the model exported into it."""
    root = tmp_path_factory.mktemp("exported")
    tiny_model(root).rename(root / "model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAGISTRY_CACHE", str(root / "cache"))
        export(root / "model")
    return root


@pytest.fixture
def model(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """That model, its cache a copy: what a test does to either is undone."""
    shutil.copytree(exported / "cache", tmp_path / "cache")
    monkeypatch.setenv("RAGISTRY_CACHE", str(tmp_path / "cache"))
    shutil.copytree(exported / "model", tmp_path / "kept")
    yield exported / "model"
    shutil.rmtree(exported / "model")
    shutil.copytree(tmp_path / "kept", exported / "model")


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAGISTRY_CACHE", str(tmp_path / "empty"))
    return tmp_path / "empty" / "onnx"


@pytest.fixture
def traces(exported: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Where was written what tracing that model gives, which takes seconds: here it is copied instead."""
    written: list[Path] = []
    (kept,) = (exported / "cache" / "onnx").glob("*-fp32-*")

    def write(_: object, path: Path, __: str) -> None:
        for part in kept.glob("model.onnx*"):
            shutil.copy(part, path.parent)
        written.append(path)

    monkeypatch.setattr(exporting, "_write", write)
    return written


def found(model: Path) -> Export:
    export = find(str(model))
    assert export is not None
    return export


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAGISTRY_CACHE", str(tmp_path))
    assert cache() == tmp_path / "onnx"
    monkeypatch.delenv("RAGISTRY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache() == tmp_path / "xdg" / "ragistry" / "onnx"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache() == Path.home() / ".cache" / "ragistry" / "onnx"


def test_an_export_knows_the_model(model: Path) -> None:
    export = found(model)
    base = stack(model)
    assert export.cosine >= 0.9999
    assert export.fingerprint == base.backbone.fingerprint()
    assert (export.pooling, export.max_length, export.limit, export.least) == ("mean", 32, 64, 3)
    assert {"model.onnx", "tokenizer.json"} <= set(export.files)
    export.check()
    assert not list(cache().glob(".part-*"))


def test_it_is_made_once(model: Path, traces: list[Path]) -> None:
    assert export(model) == found(model)
    assert traces == []


@pytest.mark.parametrize("change", ["touch", "grow", "new file", "gone", "pooling"])
def test_a_model_that_has_changed_is_not_taken_for_the_one_exported(model: Path, change: str) -> None:
    assert find(str(model)) is not None
    weights = model / "model.safetensors"
    if change == "touch":
        os.utime(weights, ns=(0, weights.stat().st_mtime_ns + 1))
    elif change == "grow":
        (model / "tokenizer.json").write_text((model / "tokenizer.json").read_text() + " ")
    elif change == "new file":
        (model / "config_sentence_transformers.json").write_text('{"prompts": {"query": "q: "}}')
    elif change == "gone":
        (model / "modules.json").unlink()
    else:
        (model / "1_Pooling" / "config.json").write_text('{"pooling_mode": "lasttoken"}')
    assert find(str(model)) is None
    with pytest.raises(ModelNotFound, match="has changed since"):
        Onnx(model)


def test_a_version_of_the_hub_that_moves_on_is_seen(tmp_path: Path) -> None:
    folder = tmp_path / "models--some--model"
    (folder / "snapshots" / "1").mkdir(parents=True)
    (folder / "snapshots" / "1" / "config.json").write_text("{}")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("1")
    before = exporting.source_of(folder / "snapshots" / "1")
    assert str(folder / "refs" / "main") in before
    (folder / "refs" / "main").write_text("22")
    assert exporting.source_of(folder / "snapshots" / "1") != before


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "tokenizer.json"])
def test_a_damaged_file_is_never_used(model: Path, name: str) -> None:
    path = found(model).path / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(Corrupt, match="export the model again"):
        Onnx(model).encode(TEXTS, "query")
    wanted = stack(model, precision="fp32")
    quick = Quick(Onnx(model), lambda: wanted)
    with pytest.warns(RuntimeWarning, match="torch encodes instead"):
        np.testing.assert_array_equal(quick.encode(TEXTS, "query"), wanted.encode(TEXTS, "query"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quick.encode(TEXTS, "query")  # once is enough
    assert find(str(model)) is None


def test_a_missing_file_means_no_export(model: Path) -> None:
    shutil.rmtree(found(model).path)
    assert find(str(model)) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", "changed"])
def test_a_damaged_card_costs_a_warning(model: Path, content: str) -> None:
    (card,) = cache().glob("cards/*.json")
    card.write_text(card.read_text().replace('"mean"', '"last"') if content == "changed" else content)
    with pytest.warns(RuntimeWarning, match="cannot be used"):
        assert find(str(model)) is None


def test_what_is_there_but_damaged_is_made_again(model: Path, traces: list[Path]) -> None:
    before = found(model)
    (before.path / "model.onnx").write_bytes(b"")
    after = export(model)
    assert len(traces) == 1
    after.check()
    Onnx(model).encode(TEXTS, "query")
    assert [path for path in cache().iterdir() if path.name != "cards"] == [after.path]


def test_vectors_that_are_not_those_of_torch_are_refused(empty: Path, tmp_path: Path, traces: list[Path]) -> None:
    model = tiny_model(tmp_path, seed=1)  # another's graph and weights are written for it
    with pytest.raises(InvalidInput, match=r"not those of torch: cosine .*, at least 0\.9999 is needed"):
        export(model)
    assert not [path for path in empty.iterdir() if path.name != "cards"]
    assert "not those of torch" in found(model).problem
    with pytest.raises(ModelNotFound, match="not those of torch"):
        Onnx(model)
    assert type(named(str(model))) is Stack  # and it is not tried over and over


def test_vectors_that_are_no_numbers_are_refused(
    model: Path, empty: Path, traces: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "pooled", lambda embedding, *_: np.full((len(embedding), 2), np.nan, np.float32))
    with pytest.raises(InvalidInput, match="not those of torch: cosine nan"):
        export(model)


def test_a_model_that_cannot_be_traced_is_refused(empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("no such operator")

    monkeypatch.setattr(exporting.torch.onnx, "export", broken)
    monkeypatch.setattr(exporting, "ENOUGH", 3)
    model = tiny_model(tmp_path, seed=1)
    with pytest.raises(InvalidInput, match="no such operator"):
        export(model)
    shutil.rmtree(empty)
    encoder = named(str(model))
    with pytest.warns(RuntimeWarning, match="queries will need torch: .*no such operator"):
        encoder.encode(TEXTS, "document")


def test_it_is_exported_when_enough_documents_were_encoded(
    empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(tmp_path, seed=1)
    made: list[str] = []
    monkeypatch.setattr(exporting, "ENOUGH", 5)
    monkeypatch.setattr(exporting, "export", made.append)
    encoder = Exporting(stack(model))
    encoder.encode(TEXTS, "document")
    encoder.encode(TEXTS * 9, "query")
    assert made == []
    for _ in range(3):
        encoder.encode(TEXTS, "document")
    assert made == [str(model)]
    assert encoder.fingerprint() == stack(model).fingerprint()


def test_threads_that_export_together_export_once(model: Path, empty: Path, traces: list[Path]) -> None:
    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(lambda _: export(model), range(3)))
    assert len(traces) == 1
    assert made[0] == made[1] == made[2]
    vectors = Onnx(model).encode(TEXTS, "query")
    np.testing.assert_allclose(vectors, stack(model, precision="fp32").encode(TEXTS, "query"), atol=1e-5)


def test_two_names_of_one_model_share_what_was_traced(model: Path, traces: list[Path], tmp_path: Path) -> None:
    other = Path(shutil.copytree(model, tmp_path / "other"))
    assert export(other).folder == found(model).folder
    assert traces == []
    for name in (model, other):
        Onnx(name).encode(TEXTS, "query")


def test_what_no_name_means_any_more_is_deleted(model: Path, traces: list[Path]) -> None:
    before = found(model)
    (model / "modules.json").touch()
    os.utime(model / "model.safetensors", ns=(0, 0))
    (before.path / "model.onnx").write_bytes(b"damaged")
    assert export(model).path.is_dir()
    assert [path for path in cache().iterdir() if path.name != "cards"] == [found(model).path]
    assert len(traces) == 1


def test_the_models_own_prompts_and_pooling_are_kept(empty: Path, tmp_path: Path, traces: list[Path]) -> None:
    model = tiny_model(tmp_path, pooling="cls")  # with the weights of the one that was traced
    (model / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {"query": "dog "}}))
    export(model)
    ours, theirs = Onnx(model), stack(model, precision="fp32")
    assert ours.prompts == theirs.prompts == {"query": "dog ", "document": ""}
    assert ours.pooling == "cls"
    assert ours.fingerprint() == theirs.fingerprint()
    np.testing.assert_allclose(ours.encode(TEXTS, "query"), theirs.encode(TEXTS, "query"), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["llama", "roberta"])
def test_other_transformers_are_exported_as_well(empty: Path, tmp_path: Path, kind: str) -> None:
    model = tiny_language_model(tmp_path, kind)
    export(model)
    ours, theirs = Onnx(model, pooling="last"), stack(model, pooling="last", precision="fp32")
    texts = [*TEXTS, "poem " * 200]
    assert ours.fingerprint() == theirs.fingerprint()
    assert ours.tokens(texts, "query") == theirs.tokens(texts, "query")
    np.testing.assert_allclose(ours.encode(texts, "query"), theirs.encode(texts, "query"), atol=1e-5)

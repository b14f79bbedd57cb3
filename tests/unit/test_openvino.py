"""Encoding by OpenVINO: what was exported, run in another way; vectors near torch's, tokens and fingerprint the same."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("openvino")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytest.importorskip("torch")

from ragistry import Collection, Document, create
from ragistry.encoders import exporting
from ragistry.encoders.backbones import stack
from ragistry.encoders.exporting import UNFIT, export
from ragistry.encoders.exports import find
from ragistry.encoders.named import encoder as named
from ragistry.encoders.onnx import Onnx, Quick
from ragistry.encoders.stack import Stack
from ragistry.errors import InvalidInput, ModelNotFound
from ragistry.machine import cores

from ..tiny import MAX_LENGTH, tiny_model
from .test_onnx import TEXTS
from .test_onnx import folder as folder
from .test_onnx import torch_stack as torch_stack


def least(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The least cosine."""
    return float((ours * theirs).sum(axis=1).min())


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("max_length", [None, 5])
def test_settings_mean_what_they_mean_to_torch(folder: Path, pooling: str, max_length: int | None) -> None:
    ours = Onnx(folder, pooling=pooling, max_length=max_length, engine="openvino")
    theirs = stack(folder, pooling=pooling, max_length=max_length, precision="fp32")
    assert ours.fingerprint() == theirs.fingerprint()
    assert ours.tokens(TEXTS, "query") == theirs.tokens(TEXTS, "query")
    found = ours.encode(TEXTS, "query")
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert least(found, theirs.encode(TEXTS, "query")) >= 0.9999


def test_a_text_of_the_greatest_length_is_read(folder: Path, torch_stack: Stack) -> None:
    ours = Onnx(folder, engine="openvino")
    assert len(ours.tokens(["poem " * 900], "query")[0]) == MAX_LENGTH
    assert least(ours.encode(["poem " * 900], "query"), torch_stack.encode(["poem " * 900], "query")) >= 0.9999


def test_threads_that_ask_together_get_what_one_gets(folder: Path, torch_stack: Stack) -> None:
    texts = [f"{text} {number}" for number in range(10) for text in TEXTS]
    ours = Onnx(folder, threads=2, engine="openvino")
    with ThreadPoolExecutor(16) as pool:
        found = np.array(list(pool.map(lambda text: ours.encode([text], "query")[0], texts)))
    assert least(found, torch_stack.encode(texts, "query")) >= 0.9999


def test_the_export_says_how_near_the_vectors_are(folder: Path) -> None:
    found = find(str(folder))
    assert found is not None
    assert 0.9999 <= found.openvino <= 1 + 1e-6


@pytest.mark.parametrize("cosine", [0.0, UNFIT, 0.99])
def test_vectors_that_are_not_those_of_torch_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cosine: float
) -> None:
    monkeypatch.setenv("RAGISTRY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(exporting, "_by_openvino", lambda reference, made: cosine)
    made = str(tiny_model(tmp_path))
    assert export(made).openvino == cosine
    quick = named(made)
    assert isinstance(quick, Quick)
    assert quick.exported.engine == "onnxruntime"
    with pytest.raises(ModelNotFound, match="OpenVINO are not those of torch"):
        Onnx(made, engine="openvino")


def test_what_openvino_was_not_there_for_is_checked_when_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGISTRY_CACHE", str(tmp_path / "cache"))
    made = str(tiny_model(tmp_path))
    with monkeypatch.context() as before:
        before.setattr(exporting, "_by_openvino", lambda reference, made: 0.0)
        assert export(made).openvino == 0
    found = named(made, runtime="openvino")
    assert isinstance(found, Onnx)
    assert found.engine == "openvino"


def test_a_model_that_openvino_cannot_run_costs_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAGISTRY_CACHE", str(tmp_path / "cache"))

    def fails(*given: object) -> None:
        raise RuntimeError("no such operation")

    monkeypatch.setattr("ragistry.encoders.onnx.OpenVino", fails)
    with pytest.warns(RuntimeWarning, match="no such operation"):
        made = export(tiny_model(tmp_path))
    assert (made.cosine > 0.9999, made.openvino) == (True, UNFIT)


def test_the_runtime_is_chosen_as_described(folder: Path) -> None:
    model = str(folder)
    quick, exact = named(model), named(model, precision="fp32")
    assert isinstance(quick, Quick)
    assert isinstance(exact, Quick)
    assert (quick.exported.engine, exact.exported.engine) == ("openvino", "onnxruntime")
    for precision in ("bf16", "fp32"):
        with pytest.raises(InvalidInput, match=f"'openvino' has no precision '{precision}'"):
            named(model, runtime="openvino", precision=precision)
    with pytest.raises(InvalidInput, match="int8 was asked for by OpenVINO"):
        Onnx(model, variant="int8", engine="openvino")
    with pytest.raises(InvalidInput, match="'other' is not known"):
        Onnx(model, engine="other")


FRESH = """
import os, sys
import numpy as np
from ragistry import Collection

with Collection.open(sys.argv[1]) as found:
    print(*(hit.id for hit in found.search("the cat sat", k=3)))
heavy = [name for name in ("torch", "transformers", "onnxruntime", "onnx") if name in sys.modules]
assert not heavy, heavy

from ragistry.encoders.onnx import Onnx
encoder = Onnx(sys.argv[2], threads=2, engine="openvino")
texts = ["the cat", "a poem " * 9] * 40
before = encoder.encode(texts, "query")
child = os.fork()
if not child:
    same = all(np.allclose(encoder.encode(some, "query"), before[:len(some)], atol=1e-2) for some in (texts, texts[:1]))
    sys.exit(0 if same else 1)  # with all that ends with a process
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fresh_process_and_its_child_need_no_torch(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    with Collection.create(tmp_path / "c", create("dense", model=str(folder), runtime="openvino")) as some:
        some.add([Document(str(number), text) for number, text in enumerate(TEXTS)])
        wanted = [hit.id for hit in some.search("the cat sat", k=3)]
    run = subprocess.run(
        [sys.executable, "-c", FRESH, str(tmp_path / "c"), str(folder)], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == wanted


def test_no_more_cores_are_used_than_allowed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for given, threads in (("1", 1), ("1,1", 1), ("1000000", cores()), ("", cores()), ("none", cores())):
        monkeypatch.setenv("OMP_NUM_THREADS", given)
        assert Onnx(folder, engine="openvino").threads == threads


def test_documents_are_encoded_without_torch_as_well(folder: Path, torch_stack: Stack) -> None:
    quick = Quick(Onnx(folder, engine="openvino"), lambda: torch_stack)
    assert least(np.asarray(quick.encode(TEXTS, "document")), torch_stack.encode(TEXTS, "document")) >= 0.9999
    assert "torch" not in vars(quick)

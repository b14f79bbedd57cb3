"""Workers with models: equal vectors bit for bit, every recipe, models that have learnt, and a Ray cluster."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragistry import Collection, Document, create
from ragistry.encoders.spread import elsewhere
from ragistry.encoders.terms import Terms
from ragistry.errors import ServiceError, StorageError
from ragistry.spreading import Actors, Worker
from ragistry.storage import recipe_of
from ragistry.text import Analyzer

from ..contracts.test_registered import SPECS, filled_in
from ..tiny import WORDS, tiny_language_model, tiny_model

pytestmark = pytest.mark.slow

BATCH = 24


def poems(count: int) -> list[Document]:
    """Texts of many lengths, so that batches are padded."""
    chosen = np.random.default_rng(0)
    return [Document(f"{i:03}", " ".join(chosen.choice(WORDS[:12], chosen.integers(1, 40)))) for i in range(count)]


def arrays(vectors: Any) -> list[Any]:
    """What vectors of any kind consist of."""
    names = ("data", "indices", "indptr") if hasattr(vectors, "indptr") else ("values", "offsets")
    return [vectors] if isinstance(vectors, np.ndarray) else [getattr(vectors, name) for name in names]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    speakers = {"SPEAKER": "llama", "WRITER": "bart"}
    return {"MODEL": str(tiny_model(folder))} | {k: str(tiny_language_model(folder, v)) for k, v in speakers.items()}


def test_vectors_are_equal_bit_for_bit(models: dict[str, str], tmp_path: Path) -> None:
    given = {document.full_text: document for document in poems(150)}.values()  # a repeated text is not encoded again
    ids = [document.id for document in given]

    def made(name: str, cache: str | None, workers: int) -> list[Any]:
        dense = {"name": "dense", "model": models["MODEL"], "index": "Flat", "cache": cache and str(tmp_path / cache)}
        spec = {"name": "hybrid", "members": {"bm25": "bm25", "dense": dense}}
        with Collection.create(tmp_path / name, create(spec)) as docs:
            assert docs.add(given, batch=BATCH, workers=workers).added == len(ids)
            members: Any = docs.retriever()
            members = members.members
            return [arrays(members[name].index.vectors(ids)) for name in ("dense", "bm25")]

    for one, two in zip(made("one", None, 1), made("two", "vectors.sqlite", 2), strict=True):
        assert all(map(np.array_equal, one, two))
    assert (tmp_path / "vectors.sqlite").exists(), "workers share the cache"


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_workers_find_the_encoders_of_every_recipe(spec: Any, models: dict[str, str]) -> None:
    retriever: Any = create(filled_in(spec, models))
    asked: dict[str, Any] = {}

    def noted(encoder: Any, texts: Sequence[str]) -> list[Any]:
        asked[encoder.fingerprint()] = texts, encoder.encode(texts, "document")
        return [asked[encoder.fingerprint()][1]]

    with elsewhere(noted):
        retriever.add(poems(3))
    assert asked or spec["name"] == "genre", "nothing is encoded but where names are all there is"
    worker = Worker(recipe_of(retriever), "nowhere")
    for fingerprint, (texts, vectors) in asked.items():
        found = worker.encode(fingerprint, texts)
        assert all(map(np.array_equal, arrays(found), arrays(vectors)))


def test_a_model_that_has_learnt_is_taken_from_the_collection(models: dict[str, str], tmp_path: Path) -> None:
    spec = {"name": "llm-ql", "model": models["SPEAKER"], "precision": "fp32"}
    with Collection.create(tmp_path / "docs", create(spec)) as docs:
        docs.add(poems(5))
        store, untaught = docs._store, docs.retriever()
        model = untaught.encoder.loaded().model  # type: ignore[attr-defined]
        weights = {name: value.detach().numpy() * 1.5 for name, value in model.named_parameters() if "mlp" in name}
        taught = untaught.taught([d.id for d in poems(5)], weights, docs.get)  # type: ignore[attr-defined]
        store.commit(store.current(), taught, [], [], 5)
        found = Worker(docs.recipe, str(tmp_path / "docs")).encode(taught.encoder.fingerprint(), ["a cat", "a sonnet"])
        assert np.array_equal(found, taught.encoder.encode(["a cat", "a sonnet"], "document"))  # type: ignore[arg-type]
        assert not np.allclose(found, untaught.encoder.encode(["a cat", "a sonnet"], "document"))  # type: ignore
        docs.add(poems(40), batch=10, workers=2)
        retriever: Any = docs.retriever()
        assert np.allclose(
            retriever.index.vectors(["039"]), taught.encoder.encode(poems(40)[39:], "document"), atol=1e-6
        )


def test_ctrl_c_ends_workers_too(tmp_path: Path) -> None:
    total, source, directory = 60_000, tmp_path / "r.jsonl", tmp_path / "docs"
    source.write_text("".join(f'{{"id": "{i}", "text": "number{i} {"of many " * 10}"}}\n' for i in range(total)))
    command = [sys.executable, "-m", "ragistry.cli", "index", str(source), "-o", str(directory), "--workers", "2"]
    running = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while (
        not (directory / "manifest.json").exists()
        or not json.loads((directory / "manifest.json").read_text())["generation"]
    ):
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does
    _, stderr = running.communicate(timeout=60)  # ends with the last process that holds the pipe
    assert running.returncode == 130
    assert b"error: interrupted: 8,192 documents" in stderr
    assert b"Traceback" not in stderr
    with Collection.open(directory) as docs:
        assert len(docs) == 8192
        docs.check()


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    pytest.importorskip("ray", reason="no cluster: pip install 'ragistry[ray]'")
    ray = importlib.import_module("ray")
    ray.init(num_cpus=2, include_dashboard=False, logging_level="error")
    yield ray
    ray.shutdown()


def test_a_cluster(ray: Any, models: dict[str, str], tmp_path: Path) -> None:
    ids = [document.id for document in poems(100)]
    found = []
    for name, workers in (("one", 1), ("two", "ray")):
        with Collection.create(tmp_path / name, create("dense", model=models["MODEL"], index="Flat")) as docs:
            assert docs.add(poems(100), batch=BATCH, workers=workers).added == 100
            retriever: Any = docs.retriever()
            found.append(retriever.index.vectors(ids))
    assert np.array_equal(*found)
    assert ray.is_initialized(), "what was begun by others is left to them"


def test_a_cluster_whose_actors_die(ray: Any) -> None:
    terms = Terms(Analyzer())
    parts = [[f"sonnet {i}", "a line"] for i in range(6)]
    pool = Actors("ray", {"name": "bm25"}, "nowhere")
    try:
        for _ in range(2):
            found = pool.encode(terms.fingerprint(), parts)
            for one, texts in zip(found, parts, strict=True):
                assert all(map(np.array_equal, arrays(one), arrays(terms.encode(texts, "document"))))
            for actor in pool._actors:
                ray.kill(actor, no_restart=False)
        with pytest.raises(StorageError, match="nowhere"):  # looked for an encoder that has learnt
            pool.encode("another", parts)
        for actor in pool._actors:
            ray.kill(actor)  # for good
        with pytest.raises(ServiceError, match="the Ray cluster failed"):
            pool.encode(terms.fingerprint(), parts)
    finally:
        pool.close(now=True)


def test_a_cluster_that_cannot_be_used(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="no cluster: pip install 'ragistry[ray]'")
    with Collection.create(tmp_path / "docs", create("bm25")) as docs:
        with pytest.raises(ServiceError, match="ray://localhost:1"):
            docs.add(poems(30), workers="ray://localhost:1")
        assert len(docs) == 0

"""Workers encode what the process that adds would have encoded, and nothing is lost or doubled when any of them dies."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from ragistry import Collection, Document, create
from ragistry.cli import app
from ragistry.encoders.remote import Remote
from ragistry.encoders.spread import elsewhere, encode_documents
from ragistry.encoders.terms import Terms
from ragistry.errors import FingerprintMismatch, InvalidInput, RagistryError
from ragistry.spreading import Processes, Worker
from ragistry.text import Analyzer
from ragistry.types import MultiVectors

BATCH = 20
BM25 = {"name": "bm25", "stemmer": None}


def documents(count: int, first: int = 0) -> list[Document]:
    return [Document(str(i), f"a sonnet number{i} of lines number{i % 7}") for i in range(first, first + count)]


def counts(docs: Collection, ids: Sequence[str]) -> Any:
    retriever: Any = docs.retriever()
    return retriever.index.vectors(ids)


def children() -> list[int]:
    return [child.pid for child in multiprocessing.active_children() if child.pid is not None]


def alive(process: int) -> bool:
    """Whether a process, maybe one of nobody's, is there and not a dead one that nobody has reaped."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Letters:
    """Vectors of texts, one each or one for each letter."""

    def __init__(self, kind: Any) -> None:
        self.kind = kind

    def encode(self, items: Sequence[Any], role: Any) -> Any:
        rows = [np.array([[ord(letter), 1] for letter in text], np.float32).reshape(-1, 2) for text in items]
        if self.kind == "dense":
            return np.array([row.sum(axis=0) for row in rows], np.float32)
        return MultiVectors(np.concatenate(rows), np.cumsum([0, *map(len, rows)], dtype=np.int64))

    def fingerprint(self) -> str:
        return "letters"


@pytest.mark.parametrize("bounds", [[0, 5], [0, 2, 5], [0, 1, 2, 3, 4, 5]], ids=["whole", "two", "five"])
def test_parts_are_put_together_as_they_were(bounds: list[int]) -> None:
    texts = ["b", "a sonnet", "", "a line a sonnet", "c"]

    def parted(encoder: Any, given: Sequence[str]) -> list[Any]:
        return [encoder.encode(given[a:b], "document") for a, b in pairwise(bounds)]

    dense, multi, sparse = Letters("dense"), Letters("multi"), Terms(Analyzer())
    with elsewhere(parted):
        found = encode_documents(dense, texts)
        several: Any = encode_documents(multi, texts)
        terms: Any = encode_documents(sparse, [Document(f"d{i}", text) for i, text in enumerate(texts)])
        assert encode_documents(dense, []).shape == (0,)  # what the encoder itself makes of nothing
    assert np.array_equal(found, dense.encode(texts, "document"))
    expected = multi.encode(texts, "document")
    assert np.array_equal(several.values, expected.values) and np.array_equal(several.offsets, expected.offsets)
    whole: Any = sparse.encode(texts, "document")
    for name in ("data", "indices", "indptr"):
        assert np.array_equal(getattr(terms, name), getattr(whole, name))
    assert (terms.shape, terms.indices.dtype) == (whole.shape, whole.indices.dtype)


def test_an_encoder_behind_http_is_asked_by_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Remote, "encode", lambda self, items, role: np.ones((len(items), 2), np.float32))

    def refused(encoder: Any, texts: Sequence[str]) -> list[Any]:
        raise AssertionError("it was shared out")

    with elsewhere(refused):
        assert len(encode_documents(Remote("model", "http://localhost:1"), ["a", "b"])) == 2


@pytest.mark.parametrize("workers", [0, -1, True, 2.0, "4", "http://host", None], ids=repr)
def test_what_is_no_number_of_workers_is_refused(tmp_path: Path, workers: Any) -> None:
    with Collection.create(tmp_path / "docs", create(BM25)) as docs:
        with pytest.raises(InvalidInput, match="the number of processes"):
            docs.add(documents(3), workers=workers)
        assert len(docs) == 0


def test_without_ray_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with Collection.create(tmp_path / "docs", create(BM25)) as docs:
        with pytest.raises(RagistryError, match=r"pip install 'ragistry\[ray\]'"):
            docs.add(documents(3), workers="ray")
        assert docs.add(documents(3)).added == 3


def test_a_worker_that_cannot_help_says_why() -> None:
    fingerprint = Terms(Analyzer(stemmer=None)).fingerprint()
    worker = Worker(BM25, "nowhere")
    assert worker.encode(fingerprint, ["two lines"]).shape[0] == 1
    with pytest.raises(InvalidInput, match=r"cannot make the retriever 'own'.*not known to others"):
        Worker({"name": "own"}, "nowhere").encode(fingerprint, ["two lines"])


def test_a_worker_without_the_encoder_is_refused(tmp_path: Path) -> None:
    with (
        Collection.create(tmp_path / "docs", create(BM25)),
        pytest.raises(FingerprintMismatch, match="same model files"),
    ):
        Worker(BM25, str(tmp_path / "docs")).encode("of another version", ["two lines"])


def test_few_documents_start_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*given: Any) -> Any:
        raise AssertionError("a process was asked")

    monkeypatch.setattr(Processes, "encode", refused)
    with Collection.create(tmp_path / "docs", create(BM25)) as docs:
        docs.add(documents(BATCH), batch=BATCH, workers=2)
        assert docs.add(documents(BATCH), batch=BATCH, workers=2).unchanged == BATCH
        with pytest.raises(AssertionError, match="was asked"):
            docs.add(documents(BATCH + 1, first=BATCH), batch=BATCH, workers=2)
        assert len(docs) == BATCH


def test_processes_make_the_same_collection_and_survive_each_other(tmp_path: Path) -> None:
    given = [*documents(90), Document("twin", documents(1)[0].text)]
    with Collection.create(tmp_path / "one", create(BM25)) as one:
        assert one.add(given, batch=BATCH).added == 91
        wanted, hits = counts(one, [d.id for d in given]), one.search("number3 number12", k=5)

    def struck(done: int) -> None:
        os.kill(children()[0], signal.SIGKILL)

    before = children()
    with Collection.create(tmp_path / "two", create(BM25)) as two:
        with pytest.raises(RagistryError, match=r"worker processes died.*repeat"):
            two.add(given, batch=BATCH, workers=2, progress=struck)
        assert len(two) == 2 * BATCH, "a commit is a batch for each worker; the first one was made"
        assert children() == before, "none is left behind"
        seen: list[int] = []
        change = two.add(given, batch=BATCH, workers=2, progress=seen.append)
        assert seen == [2 * BATCH, 2 * BATCH, 91 - 4 * BATCH]
        assert (change.added, change.unchanged, change.duplicates) == (51, 40, 1)
        assert (counts(two, [d.id for d in given]) != wanted).nnz == 0
        assert two.search("number3 number12", k=5) == hits
        two.check()
    assert children() == before


def test_a_killed_run_leaves_no_process_and_is_continued(tmp_path: Path) -> None:
    directory, total = tmp_path / "docs", 200
    Collection.create(directory, create(BM25)).close()
    source = "".join(
        f"{line}\n"
        for line in (
            "import multiprocessing, sys, time",
            "from ragistry import Collection, Document",
            f"docs = [Document(str(i), f'a sonnet number{{i}}') for i in range({total})]",
            "def told(done):",
            "    print(*(child.pid for child in multiprocessing.active_children()), flush=True)",
            "    time.sleep(600)",
            f"Collection.open({str(directory)!r}).add(docs, batch={BATCH}, workers=2, progress=told)",
        )
    )
    running = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    workers = [int(process) for process in running.stdout.readline().split()]
    assert len(workers) == 2 and all(map(alive, workers))
    running.kill()
    running.communicate()
    deadline = time.monotonic() + 60
    while any(map(alive, workers)):
        assert time.monotonic() < deadline, "the workers outlive the process that they work for"
        time.sleep(0.01)
    given = [Document(str(i), f"a sonnet number{i}") for i in range(total)]
    with Collection.open(directory) as docs:
        assert len(docs) == 2 * BATCH
        assert docs.add(given, batch=BATCH, workers=2)[:3] == (total - 2 * BATCH, 0, 2 * BATCH)
        assert [document.id for document in docs.documents()] == [document.id for document in given]
        assert all(docs.search(f"number{i}")[0].id == str(i) for i in range(total))
        docs.check()


def test_command(tmp_path: Path) -> None:
    source, directory = tmp_path / "r.jsonl", tmp_path / "docs"
    total = create("bm25").recipe.batch + 10  # type: ignore[attr-defined]  # more than is encoded without workers
    source.write_text("".join(f'{{"id": "{i}", "text": "number{i} of many"}}\n' for i in range(total)))

    def run(workers: str) -> Any:
        command = ["index", str(source), "-o", str(directory), "--workers", workers, "--json"]
        result = CliRunner().invoke(app, command)
        return result.exit_code, json.loads(result.stdout)

    for wrong in ("0", "many", "-1"):
        code, found = run(wrong)
        assert (code, found["error"]["type"]) == (2, "InvalidInput")
    assert not directory.exists()
    code, found = run("2")
    assert (code, found["added"], found["documents"]) == (0, total, total)
    with Collection.open(directory) as docs:
        assert [hit.id for hit in docs.search("number4099")] == ["4099"]

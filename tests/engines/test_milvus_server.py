"""What can happen to Milvus: kills, restarts, a second process; and the contracts of indexes and retrievers."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ragistry import Collection, Document, create
from ragistry.engines import milvus_lease
from ragistry.errors import StorageError

from .conftest import Milvus, MilvusBench
from .test_contracts import TestAdapted as TestAdapted
from .test_contracts import TestDense as TestDense
from .test_contracts import TestDenseByDistance as TestDenseByDistance
from .test_contracts import TestHybrid as TestHybrid
from .test_server import _many

pytestmark = pytest.mark.slow
_numbers = itertools.count()
WRITER = """
import sys
import numpy as np
from ragistry import Collection, Document
from ragistry.encoders.functions import register_encoder
register_encoder("numbered-texts", lambda texts: np.stack(
    [np.random.default_rng(abs(int(text.split()[-1]))).standard_normal(24) for text in texts]))
docs = Collection.open(sys.argv[1])
documents = (Document(f"d{i:05}", f"text {i}", metadata={"n": i, "rare": i % 100 == 0}) for i in range(int(sys.argv[2])))
docs.add(documents, batch=50, progress=lambda done: print(len(docs), flush=True))
"""
HYBRID = {"name": "hybrid", "members": {"bm25": "bm25", "dense": {"name": "dense", "model": "numbered-texts"}}}


@pytest.fixture(scope="module", params=["lite", "server"])
def bench(request: pytest.FixtureRequest) -> Iterator[MilvusBench]:
    """Of a collection that nothing else is kept in."""
    running = request.getfixturevalue(f"milvus_{request.param}")
    bench = MilvusBench(f"{running.address}&collection=bench_{next(_numbers)}")
    yield bench
    bench.store.close()


def _whole(docs: Collection, count: int) -> None:
    """Everything is there once, in order, with its vectors."""
    ids = [f"d{i:05}" for i in range(count)]
    assert len(docs) == count
    assert [document.id for document in docs.documents()] == ids
    assert sorted(docs.retriever().search(["text 5"], 2 * count)[0].ids) == ids
    docs.check()


def _killed(address: str, count: int, after: int) -> int:
    """Start a process that adds documents and kill it when so many are acknowledged; how many were."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, address, str(count)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    acknowledged = 0
    for line in process.stdout:
        acknowledged = int(line)
        if acknowledged >= after:
            time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
            break
    rest = [int(line) for line in process.stdout]
    process.wait()
    return rest[-1] if rest else acknowledged


def test_a_killed_writer_loses_and_doubles_nothing_in_a_file(tmp_path: Path) -> None:
    address = f"milvus://{tmp_path}/docs.db?collection=docs"
    Collection.create(address, create(HYBRID)).close()
    for after in (50, 150):
        acknowledged = _killed(address, 400, after)
        with Collection.open(address) as docs:
            assert len(docs) >= acknowledged >= after
            _whole(docs, len(docs))
    with Collection.open(address) as docs:
        docs.add(_many(400), batch=200)
        _whole(docs, 400)


def test_a_file_serves_one_process(tmp_path: Path) -> None:
    address = f"milvus://{tmp_path}/docs.db?collection=docs"
    code = "import sys, ragistry\ntry: ragistry.Collection.open(sys.argv[1])\nexcept OSError as error: print(error)"
    with Collection.create(address, create("bm25")):
        done = subprocess.run([sys.executable, "-c", code, address], capture_output=True, text=True, timeout=120)
        assert "serves one process at a time" in done.stdout
    done = subprocess.run([sys.executable, "-c", code, address], capture_output=True, text=True, timeout=120)
    assert done.stdout == ""


def test_a_killed_writer_loses_and_doubles_nothing_on_a_server(
    milvus_server: Milvus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(milvus_lease, "LEASE", 6.0)
    monkeypatch.setattr(milvus_lease, "BEAT", 0.5)
    address = f"{milvus_server.address}&collection=killed_writer"
    Collection.create(address, create(HYBRID)).close()
    acknowledged = _killed(address, 300, 100)
    with Collection.open(address) as docs:
        assert len(docs) >= acknowledged >= 100
        docs.add(_many(300), batch=100)
        _whole(docs, 300)


def test_another_process_commits(milvus_server: Milvus) -> None:
    address = f"{milvus_server.address}&collection=another_process"
    code = "import sys, ragistry as r; r.Collection.open(sys.argv[1]).add(r.Document('there', 'a cat'))"
    with Collection.create(address, create("bm25")) as docs:
        docs.add(Document("here", "a cat"))
        subprocess.run([sys.executable, "-c", code, address], check=True, timeout=120)
        assert [hit.id for hit in docs.search("cat")] == ["here", "there"]


def test_threads_search_while_one_adds(milvus_lite: Milvus) -> None:
    with Collection.create(f"{milvus_lite.address}&collection=threads", create(HYBRID)) as docs:
        docs.add(_many(50))
        wrong: list[object] = []

        def ask() -> None:
            for _ in range(10):
                try:
                    count = len(docs.search("text 1", 1000))
                    if count % 10:
                        wrong.append(count)
                except Exception as error:
                    wrong.append(error)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for i in range(5):
            docs.add(_many(10, first=100 + 10 * i))
        for thread in threads:
            thread.join()
        assert not wrong


def test_a_killed_server_loses_and_doubles_nothing(milvus_server: Milvus, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"{milvus_server.address}&collection=killed_server"
    monkeypatch.setattr(milvus_lease, "LEASE", 4.0)
    Collection.create(address, create(HYBRID)).close()
    for kill in range(2):
        acknowledged = 0

        def told(done: int) -> None:
            nonlocal acknowledged
            acknowledged += done

        timer = threading.Timer(6 + 2 * kill, milvus_server.kill)
        timer.start()
        monkeypatch.setattr("ragistry.engines.milvus_server.PATIENCE", 2.0)
        with pytest.raises(StorageError), Collection.open(address) as docs:
            while True:
                docs.add(_many(2000), batch=50, progress=told)
                docs.remove("d01999")
        timer.join()
        milvus_server.start()
        monkeypatch.setattr("ragistry.engines.milvus_server.PATIENCE", 120.0)
        with Collection.open(address) as docs:
            assert len(docs) >= acknowledged
            _whole(docs, len(docs))
    with Collection.open(address) as docs:
        docs.add(_many(400), batch=200)
        _whole(docs, max(400, len(docs)))


def test_a_restart_is_waited_for(milvus_server: Milvus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragistry.engines.milvus_server.PATIENCE", 120.0)
    with Collection.create(f"{milvus_server.address}&collection=restart", create("bm25")) as docs:
        docs.add(_many(30))
        before = docs.search("text 7")
        milvus_server.kill()
        restarted: Any = threading.Timer(1.0, milvus_server.start)
        restarted.start()
        assert docs.search("text 7") == before
        restarted.join()
        assert docs.add(_many(1, first=100)).added == 1

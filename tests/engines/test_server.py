"""What can happen to a server: graphs, kills, restarts, other versions, a second process; and the command line."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from typer.testing import CliRunner

from ragistry import Collection, Document, create
from ragistry.cli import app
from ragistry.encoders.functions import register_encoder
from ragistry.engines import places
from ragistry.engines.conditions import condition
from ragistry.engines.postgres import Postgres
from ragistry.engines.server import Server
from ragistry.engines.wire import bare, full
from ragistry.errors import Corrupt, StorageError
from ragistry.indexes.faiss import Faiss

from .conftest import Bench, Replica, Running


def _numbered(texts: Sequence[str]) -> Any:
    return np.stack([np.random.default_rng(abs(int(text.split()[-1]))).standard_normal(24) for text in texts])


register_encoder("numbered-texts", _numbered)
DENSE = {"name": "dense", "model": "numbered-texts"}


def _many(count: int, first: int = 0) -> Iterator[Document]:
    return (
        Document(f"d{i:05}", f"text {i}", metadata={"n": i, "rare": i % 100 == 0}) for i in range(first, first + count)
    )


@pytest.mark.parametrize("metric", ["ip", pytest.param("l2", marks=pytest.mark.slow)])
def test_a_graph_proposes_and_exact_scores_decide(bench: Bench, metric: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "EXACT", 300)
    random = np.random.default_rng(3)
    vectors, queries = (random.standard_normal((n, 24), np.float32) for n in (1500, 20))
    ids = [f"i{n:04}" for n in range(len(vectors))]
    plain = Faiss(metric=metric)
    plain.add(ids, vectors)
    index = bench.housed(Faiss("HNSW16", metric=metric))
    index.add(ids, vectors)
    index = bench.committed(index)
    with bench.store.server.connect() as connection:
        index.settle(connection)
        index.settle(connection)  # there already
    asked = index._now.place._proposed(queries, 10, None)
    assert all(len(rows) == 10 for rows in asked)
    half = frozenset(ids[::2])
    for among in (None, half, frozenset(ids[::3]), frozenset(ids[::50])):
        found, expected = (one.search(queries, 10, among=among) for one in (index, plain))
        hits = sum(len(set(a.ids) & set(b.ids)) for a, b in zip(found, expected, strict=True))
        assert hits >= 0.99 * 10 * len(queries)
        for a, b in zip(found, expected, strict=True):
            assert len(a) == 10
            known = dict(b)
            assert [score for id, score in a if id in known] == pytest.approx(
                [known[i] for i, _ in a if i in known], rel=1e-5
            )
    place = index._now.place
    nearest = f"vector::halfvec(24) {place._operator} array_fill(1::real, ARRAY[24])::vector::halfvec(24)"
    with bench.store.server.connect() as connection:
        connection.execute("SET enable_sort = off")
        plan = connection.execute(
            f"EXPLAIN SELECT row FROM vectors_{place.number} ORDER BY {nearest} LIMIT 5"
        ).fetchall()
    assert f"graph_{place.number}" in str(plan)


def test_what_half_precision_cannot_hold_is_compared_exactly(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "EXACT", 5)
    vectors = np.random.default_rng(3).standard_normal((20, 8), np.float32) * 1e6
    ids = [f"i{n:02}" for n in range(20)]
    index, plain = bench.housed(Faiss("auto")), Faiss()
    for one in (index, plain):
        one.add(ids, vectors)
    index = bench.committed(index)
    with bench.store.server.connect() as connection:
        index.settle(connection)
    for queries in (vectors, vectors / 1e9):
        assert [r.ids for r in index.search(queries, 6)] == [r.ids for r in plain.search(queries, 6)]


def test_filters_reach_the_graph(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "EXACT", 200)
    with Collection.create(address, create("dense", model="numbered-texts")) as docs:
        docs.add(_many(1200), batch=600)
        for where, expected in (({"n": {"lt": 600}}, 600), ({"rare": True}, 12), ({"n": {"gte": 10_000}}, 0)):
            hits = docs.search("query 7", 10, where=where)
            among = [d.id for d in docs.documents(where)]
            assert len(among) == expected
            exact = docs.retriever().search(["query 7"], 10, among=among[:150])[0] if expected > 150 else None
            assert len(hits) == min(10, expected)
            assert {hit.id for hit in hits} <= set(among)
            assert exact is None or all(hit.score >= exact.scores[-1] for hit in hits)


def test_a_restart_is_not_noticed(address: str, server: Running) -> None:
    with Collection.create(address, create("bm25")) as docs:
        docs.add(_many(30))
        before = docs.search("text 7")
        server.kill()
        server.start()
        assert docs.search("text 7") == before
        assert docs.add(_many(1, first=100)).added == 1


def test_a_server_that_is_gone(address: str, server: Running) -> None:
    with Collection.create(address, create("bm25")) as docs:
        docs.add(_many(3))
        server.kill()
        try:
            for ask in (
                lambda: docs.search("text"),
                lambda: docs.add(_many(1, first=9)),
                lambda: Collection.open(address),
            ):
                with pytest.raises(StorageError, match="server runs"):
                    ask()
        finally:
            server.start()
        assert len(docs.search("text")) == 3


@pytest.mark.slow
def test_another_process_commits(address: str) -> None:
    code = (
        "import sys, ragistry as r; d = r.Collection.open(sys.argv[1]); d.add(r.Document('there', 'a cat')); d.close()"
    )
    with Collection.create(address, create("bm25")) as docs:
        docs.add(Document("here", "a cat"))
        subprocess.run([sys.executable, "-c", code, address], check=True, timeout=120)
        assert [hit.id for hit in docs.search("cat")] == ["here", "there"]


@pytest.mark.slow
def test_threads_search_while_one_adds(address: str) -> None:
    with Collection.create(address, create("bm25")) as docs:
        docs.add(_many(50))
        wrong: list[object] = []

        def ask() -> None:
            for _ in range(15):
                try:
                    count = len(docs.search("text", 1000))
                    if count % 10:
                        wrong.append(count)
                except Exception as error:
                    wrong.append(error)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for i in range(6):
            docs.add(_many(10, first=100 + 10 * i))
        for thread in threads:
            thread.join()
        assert not wrong


def test_other_versions_and_damage(address: str) -> None:
    with Collection.create(address, create("bm25")) as docs:
        docs.add(_many(5))
    server = Server(address)
    with server.connect() as connection:
        connection.execute("UPDATE documents SET text = 'changed' WHERE id = 'd00003'")
        with Collection.open(address) as docs, pytest.raises(Corrupt, match="d00003"):
            docs.check()
        connection.execute("UPDATE state SET format = 99")
        with pytest.raises(Corrupt, match="format 99"):
            Collection.open(address)
        connection.execute("""UPDATE state SET format = 1, manifest = '{"generation": 1}'""")
        with pytest.raises(Corrupt, match="damaged"):
            Collection.open(address)


def test_a_database_without_vectors_or_rights(server: Running) -> None:
    with psycopg.connect(server.address, autocommit=True) as connection:
        connection.execute("CREATE ROLE guest LOGIN")
        connection.execute("CREATE DATABASE bare")
    guest = server.address.replace("postgres@", "guest@").replace("/postgres?", "/bare?")
    with pytest.raises(StorageError, match="pgvector"):
        Collection.create(guest, create("bm25"))
    with psycopg.connect(guest.replace("guest@", "postgres@"), autocommit=True) as connection:
        connection.execute("CREATE EXTENSION vector")
    with pytest.raises(StorageError, match="permission is denied"):
        Collection.create(guest, create("bm25"))
    assert not Postgres.exists(guest)


def test_a_server_that_knows_no_others(address: str) -> None:
    with pytest.raises(StorageError, match="postgres_fdw"):
        Collection.create(f"{address}&shards=a,b", create("bm25"))
    assert not Postgres.exists(address)


@pytest.mark.parametrize("text", ["", "plain", "a\0b", "\uffff", "\uffff0\0", "\0\uffff1\uffff"])
def test_null_characters_come_back(text: str) -> None:
    assert full(bare(text)) == text
    assert "\0" not in bare(text)


def test_what_only_python_can_judge() -> None:
    assert condition({"text": "a\0b"}) is None
    assert condition({"n": 2.0}) == ("coalesce((facts -> %s::text) = %s::jsonb, false)", ["n", "2"])


def test_the_command_line(address: str, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "cat.md").write_text("# Cats\n\nA cat sat on the mat.\n")
    run = CliRunner()

    def done(*arguments: str) -> Any:
        result = run.invoke(app, [*arguments, "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    assert done("index", str(tmp_path / "notes"), "--to", address)["added"] == 1
    assert done("index", str(tmp_path / "notes"), "--to", address)["unchanged"] == 1
    assert "sat on the mat" in done("search", address, "cat")["hits"][0]["text"]
    assert done("info", address)["documents"] == 1
    assert done("copy", address, str(tmp_path / "copy"))["copied"] == 1
    assert done("search", str(tmp_path / "copy"), "cat")["hits"] == done("search", address, "cat")["hits"]
    assert run.invoke(app, ["search", f"{address}_nowhere", "cat"]).exit_code == 3


@pytest.mark.slow
def test_kills_lose_and_double_nothing(address: str, server: Running) -> None:
    """The server is killed at ten moments of an ingestion, which is repeated until it is through."""
    model, count = "numbered-texts", 2000
    acknowledged = 0
    Collection.create(
        address, create("hybrid", members={"bm25": "bm25", "dense": {"name": "dense", "model": model}})
    ).close()

    def told(done: int) -> None:
        nonlocal acknowledged
        acknowledged += done

    for kill in range(10):
        acknowledged = 0
        timer = threading.Timer(0.3 + 0.17 * kill, server.kill)
        timer.start()
        with pytest.raises(StorageError), Collection.open(address) as docs:
            while True:
                docs.add(_many(count), batch=50, progress=told)
                docs.remove([f"d{count - 1:05}"])
        timer.join()
        server.start()
        with Collection.open(address) as docs:
            assert len(docs) >= acknowledged - 1 if acknowledged < count else len(docs) >= count - 1
            assert [d.id for d in docs.documents()] == [f"d{i:05}" for i in range(len(docs))]
            docs.check()
            everything = docs.retriever().search(["text 5"], 2 * count)[0]
            assert sorted(everything.ids) == [f"d{i:05}" for i in range(len(docs))]
    with Collection.open(address) as docs:
        docs.add(_many(count), batch=500)
        assert len(docs) == count
        docs.check()


@pytest.mark.slow
def test_a_replica_is_read_and_takes_over(address: str, server: Running, replica: Replica) -> None:
    name = address.partition("collection=")[2]
    with Collection.create(address, create("hybrid", members={"bm25": "bm25", "dense": DENSE})) as docs:
        docs.add(_many(50))
        there = f"{replica.address}&collection={name}"
        _until(lambda: Postgres.exists(there))
        with Collection.open(there) as reading:
            _until(lambda: len(reading) == 50)
            assert reading.search("text 7") == docs.search("text 7")
            with pytest.raises(StorageError, match="primary"):
                reading.add(_many(1, first=90))
            docs.add(_many(10, first=50))
            _until(lambda: len(reading) == 60)
            server.kill()
            try:
                assert len(reading.search("text 7", 100)) == 60
                replica.promote()
                assert reading.add(_many(1, first=60)).added == 1
                assert len(reading.search("text 7", 100)) == 61
                reading.check()
            finally:
                server.start()


def _until(true: Callable[[], bool]) -> None:
    for _ in range(200):
        if true():
            return
        time.sleep(0.1)
    raise AssertionError("it did not come true within 20 seconds")

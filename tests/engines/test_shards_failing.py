"""Shards with graphs, and servers that are killed: nothing is lost, nothing is there twice."""

from __future__ import annotations

import re
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from ragistry import Collection, Document, create
from ragistry.engines import places
from ragistry.engines.placed import Placed, indexes
from ragistry.engines.postgres import Postgres
from ragistry.engines.shards import OPTIONS
from ragistry.errors import StorageError
from ragistry.indexes.faiss import Faiss

from .conftest import Bench, Plain, Sharded
from .test_postgres import test_a_copy_cut_short_is_continued as test_a_copy_cut_short_is_continued
from .test_postgres import test_another_encoder_is_refused as test_another_encoder_is_refused
from .test_postgres import test_copies_there_and_back as test_copies_there_and_back
from .test_postgres import test_fit_and_evaluate as test_fit_and_evaluate
from .test_postgres import test_recipes_are_the_same_in_front as test_recipes_are_the_same_in_front
from .test_postgres import test_what_fails_leaves_nothing as test_what_fails_leaves_nothing
from .test_postgres import test_what_was_learnt_is_kept_and_copied as test_what_was_learnt_is_kept_and_copied
from .test_server import DENSE, _many, _numbered, _until
from .test_server import test_filters_reach_the_graph as test_filters_reach_the_graph
from .test_server import test_threads_search_while_one_adds as test_threads_search_while_one_adds
from .test_shards import _rows
from .test_shards import address as address
from .test_shards import pair as pair
from .test_shards import server as server

pytestmark = pytest.mark.slow
HYBRID = {"name": "hybrid", "members": {"bm25": "bm25", "dense": DENSE}}


@pytest.fixture(scope="module")
def bench(sharded: Sharded) -> Any:
    """Of a collection on shards."""
    bench = Bench(f"{sharded.address}&collection=shards_graphs")
    yield bench
    bench.store.close()


@pytest.mark.parametrize(("metric", "count"), [("ip", 24_000), ("l2", 3_000)])
def test_graphs_of_shards_propose(bench: Bench, metric: Any, count: int, server: Sharded, monkeypatch: Any) -> None:
    if count < places.EXACT:
        monkeypatch.setattr(places, "EXACT", 1000)
    random = np.random.default_rng(3)
    vectors, queries = (random.standard_normal((n, 24), np.float32) for n in (count, 30))
    ids = [f"i{n:05}" for n in range(count)]
    plain = Faiss(metric=metric)
    plain.add(ids, vectors)
    index = bench.housed(Faiss("HNSW16", metric=metric))
    index.add(ids, vectors)
    index = bench.committed(index)
    with bench.store.server.connect() as connection:
        index.settle(connection)
        index.settle(connection)  # there already
    place = index._now.place
    assert all(len(rows) == 10 for rows in place._proposed(queries, 10, None))
    for among, ranked in ((None, 10), (frozenset(ids[::2]), 10), (frozenset(ids[:50]), 50), (frozenset(ids[::200]), 3)):
        found, expected = (one.search(queries, ranked, among=among) for one in (index, plain))
        hits = sum(len(set(a.ids) & set(b.ids)) for a, b in zip(found, expected, strict=True))
        assert hits >= 0.99 * sum(map(len, expected))
        for a, b in zip(found, expected, strict=True):
            assert len(a) == len(b)
            assert a.scores[0] == pytest.approx(b.scores[0], rel=1e-5)
    _check_plans(bench, place, queries[0], server)


def _plan(store: Any, sql: str, values: list[Any]) -> str:
    with store.server.connect() as connection:
        return "\n".join(line for (line,) in connection.execute(f"EXPLAIN (VERBOSE) {sql}", values).fetchall())


def _check_plans(bench: Bench, place: Any, query: Any, server: Sharded) -> None:
    """One statement asks both shards at the same time for their best, which come from their graphs."""
    plan = _plan(bench.store, *place._near(query, 10, None))
    asked = re.findall(r"Remote SQL: (.*)", plan)
    assert plan.count("Async Foreign Scan") == len(asked) == 2
    settings = "; ".join(f"SET {key} = {value}" for key, value in OPTIONS.items() if key != "hnsw.max_scan_tuples")
    for shard, statement, number in ((server.a, asked[0], 0), (server.b, asked[1], 1)):
        assert statement.endswith("LIMIT 60::bigint")
        there = statement.replace("$1::bigint", str(place.count)).replace("$2::bigint[]", "'{}'::bigint[]")
        with psycopg.connect(shard.address, autocommit=True) as connection:
            connection.execute(f"LOAD 'vector'; {settings}")
            done = str(connection.execute(f"EXPLAIN {there}").fetchall())
        assert f"Index Scan using graph_{place.number}_{number}" in done


def test_a_large_collection_on_shards(address: str, server: Sharded, tmp_path: Any) -> None:
    """Graphs are built by the writer that leaves enough vectors, and take what comes later."""
    with ExitStack() as stack:
        there, here = (
            stack.enter_context(Collection.create(at, create(HYBRID))) for at in (address, tmp_path / "docs")
        )
        for docs in (there, here):
            docs.add(_many(11_000), batch=4000)
            docs.add(_many(500, first=11_000))
            docs.remove([f"d{i:05}" for i in range(0, 11_500, 50)])
            for id in ("d00001", "d00002"):  # what was removed is deleted by the commit after the next
                docs.remove(id)
        assert sum(_rows(server, there)) <= 11_500 - 230
        schema = there._store.server.shards.schema
        for shard in (server.a, server.b):
            built = shard.ask(f"SELECT count(*) FROM pg_indexes WHERE schemaname = '{schema}' AND indexdef ~ 'hnsw'")
            assert built == [(1,)]
        asked = [f"text {i} {i + 1}" for i in range(0, 600, 20)]
        for where in (None, {"n": {"lt": 6000}}, {"n": {"gte": 11_400}}):
            hits = total = 0
            for a, b in zip(*(docs.search_many(asked, 10, where=where) for docs in (there, here)), strict=True):
                hits, total = hits + len({hit.id for hit in a} & {hit.id for hit in b}), total + len(b)
            assert hits >= 0.99 * total > 0
        words = next(i._now.place for i in indexes(there.retriever()) if i.kind == "sparse")
        frequencies = words._frequency([key for key, _ in _most(there)])
        plan = _plan(there._store, *words._arms([(key, 1.0) for key in frequencies], frequencies, None, limit=40))
        assert (
            plan.count("Async Foreign Scan")
            == plan.count("Aggregate on")
            == len(re.findall(r"LIMIT 40::bigint", plan))
            == 2
        )
        there.check()


def _most(docs: Collection) -> list[tuple[int, int]]:
    """The terms that most documents hold, as shards count them."""
    assert isinstance(docs._store, Postgres)
    select = "SELECT term, count(*) FROM postings_1 GROUP BY term ORDER BY 2 DESC LIMIT 2"
    found: list[tuple[int, int]] = docs._store.server.ask(lambda connection: connection.execute(select).fetchall())
    return found


def test_a_replica_of_the_first_reads_shards_and_takes_over(address: str, server: Sharded, tmp_path: Any) -> None:
    with (
        Collection.create(address, create(HYBRID)) as docs,
        tempfile.TemporaryDirectory(prefix="ragistry-pg-") as folder,
    ):
        docs.add(_many(100))
        replica = Plain(Path(folder) / "replica", server.first)
        try:
            with Collection.open(address.replace(server.first.address, replica.address)) as reading:
                assert reading.search("text 7", 20) == docs.search("text 7", 20)
                with pytest.raises(StorageError, match="primary"):
                    reading.add(_many(1, first=200))
                docs.add(_many(10, first=100))
                _until(lambda: len(reading) == 110)
                server.first.kill()
                assert len(reading.search("text 7", 200)) == 110
                replica.promote()
                assert reading.add(_many(1, first=110)).added == 1
                assert len(reading.search("text 7", 200)) == 111
                reading.check()
        finally:
            replica.stop()
            server.first.start()


def _killing(docs: Collection, victim: Plain) -> Callable[[], None]:
    """Have a server killed at the end of the next commit, before it counts; gives back what undoes that."""
    store: Any = docs._store
    clear = store._clear

    def last(*arguments: Any) -> None:
        clear(*arguments)
        victim.kill()

    store._clear = last
    return lambda: setattr(store, "_clear", clear)


def test_a_commit_that_some_shards_have_made_does_not_count(address: str, server: Sharded) -> None:
    left = []
    with Collection.create(address, create(HYBRID)) as docs:
        docs.add(_many(100))
        before = docs.search_many(["text 5", "text 77 3"], 20), docs.search("text 5", where={"n": {"lt": 50}})
        for victim in (server.a, server.b):
            undo = _killing(docs, victim)
            with pytest.raises(StorageError, match=r"shard cannot be reached.*what is committed is safe"):
                docs.add(_many(50, first=100))
            undo()
            with pytest.raises(StorageError, match="shard cannot be reached"):
                docs.search("text 5")
            victim.start()
            left.append(sum(_rows(server, docs)))
            assert (
                docs.search_many(["text 5", "text 77 3"], 20),
                docs.search("text 5", where={"n": {"lt": 50}}),
            ) == before
            docs.check()
            with docs._store.writer():  # the next writer
                assert sum(_rows(server, docs)) == 100
        assert max(left) > 100  # the one that commits first had made it
        assert docs.add(_many(50, first=100)).added == 50
        assert sum(_rows(server, docs)) == 150
        docs.check()


def test_a_kill_while_an_old_index_is_deleted_is_got_over(address: str, server: Sharded) -> None:
    """Its tables go from the shards at once, whether or not the commit counts."""
    with Collection.create(address, create(DENSE)) as docs:
        docs.add(_many(100))
        store: Any = docs._store
        with store.writer():
            view = store.current()
            made = store.made(view.manifest.recipe)
            made.add(list(docs.documents()))
            store.commit(view, made, [], [], view.manifest.documents)
        docs.add(_many(5, first=100))
        undo = _killing(docs, server.a)
        with pytest.raises(StorageError, match="shard cannot be reached"):
            docs.add(_many(5, first=105))
        undo()
        server.a.start()
        assert docs.add(_many(5, first=105)).added == 5
        assert len(docs.search("text 5", 200)) == 110
        docs.check()


def test_a_commit_that_arrives_late_is_waited_for(address: str, server: Sharded) -> None:
    """A shard may still be committing what a writer that died has written."""
    with Collection.create(address, create("bm25")) as docs:
        docs.add([Document(f"d{i}", f"apple {i}") for i in range(20)])
        store: Any = docs._store
        table, columns = f"{store.server.shards.schema}.postings_1_0", "term, row, count, length"
        with psycopg.connect(server.a.address) as late:
            rows = "SELECT 99999991, r, 7, 7 FROM generate_series(21, 60) r"
            late.execute(f"INSERT INTO {table} ({columns}) {rows}")
            timer = threading.Timer(0.5, late.commit)
            timer.start()
            docs.add([Document(f"n{i}", f"pear {i}") for i in range(20)])
            timer.join()
        docs.check()


def test_kills_lose_and_double_nothing(address: str, server: Sharded) -> None:
    """One of the servers is killed at each of twelve moments of an ingestion, which is repeated until it is through."""
    count = 1500
    Collection.create(address, create(HYBRID)).close()
    acknowledged = 0

    def told(done: int) -> None:
        nonlocal acknowledged
        acknowledged += done

    for kill in range(12):
        victim = (server.a, server.b, server.first)[kill % 3]
        acknowledged = 0
        timer = threading.Timer(0.4 + 0.13 * kill, victim.kill)
        timer.start()
        with pytest.raises(StorageError), Collection.open(address) as docs:
            while True:
                docs.add(_many(count), batch=50, progress=told)
                docs.remove([f"d{count - 1:05}"])
        timer.join()
        victim.start()
        with Collection.open(address) as docs:
            assert len(docs) >= acknowledged - 1 if acknowledged < count else len(docs) >= count - 1
            assert [d.id for d in docs.documents()] == [f"d{i:05}" for i in range(len(docs))]
            docs.check()
            everything = docs.retriever().search(["text 5"], 2 * count)[0]
            assert sorted(everything.ids) == [f"d{i:05}" for i in range(len(docs))]
            with docs._store.writer():
                assert len(docs) <= sum(_rows(server, docs)) <= len(docs) + 1  # one may have been removed just before
    with Collection.open(address) as docs:
        docs.add(_many(count), batch=500)
        assert len(docs) == count
        docs.check()


def test_searching_goes_on_after_kills(address: str, server: Sharded) -> None:
    """Searches while shards are killed and started: each is right, or an error that says what to do."""
    with Collection.create(address, create(HYBRID)) as docs:
        docs.add(_many(300))
        before, wrong, stop = docs.search("text 5", 20), [], threading.Event()
        failed = 0

        def ask() -> None:
            nonlocal failed
            while not stop.is_set():
                try:
                    if docs.search("text 5", 20) != before:
                        wrong.append("another answer")
                except StorageError as error:
                    failed += 1
                    if "shard" not in str(error):
                        wrong.append(str(error))
                except Exception as error:
                    wrong.append(repr(error))

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        for victim in (server.a, server.b, server.a):
            time.sleep(0.4)
            victim.kill()
            time.sleep(0.2)
            victim.start()
        time.sleep(0.4)
        stop.set()
        for thread in threads:
            thread.join()
        assert not wrong and failed
        assert docs.search("text 5", 20) == before


def test_every_answer_is_of_one_state(address: str) -> None:
    """What a document was is deleted on shards between two statements of a reader, to whom it was dead already."""
    address = address.replace("shard_a,shard_b", "shard_b")
    with Collection.create(address, create(DENSE)) as docs, Collection.open(address) as writing:
        docs.add(_many(20))
        docs.add(Document("d00005", "text 100"))
        docs.add(Document("other", "text 101"))
        (index,) = (index for index in indexes(docs.retriever()) if isinstance(index, Placed))
        place: Any = index._now.place
        first = place._exact(_numbered(["text 7"])[0].astype(np.float32), 1, None)
        again = place._exact(_numbered(["text 5"])[0].astype(np.float32), 1, None)  # which d00005 was
        later = threading.Timer(0.2, lambda: writing.remove("d00009"))
        later.start()
        found = place._ask([first, ("SELECT pg_sleep(1.5)", []), again])
        later.join()
        assert len(writing) == 20
        assert [len(rows) for rows in found] == [1, 1, 1] and found[2][0][0] != "d00005"


def test_a_place_that_was_never_committed_is_deleted(address: str, server: Sharded) -> None:
    with Collection.create(address, create(DENSE)) as docs:
        assert isinstance(docs._store, Postgres)
        undo = _killing(docs, server.b)
        with pytest.raises(StorageError, match="shard cannot be reached"):
            docs.add(_many(20))
        undo()
        server.b.start()
        schema = docs._store.server.shards.schema
        assert server.b.ask(f"SELECT count(*) FROM pg_tables WHERE schemaname = '{schema}'") == [(1,)]
        assert len(docs) == 0 and docs.search("text 5") == []
        assert docs.add(_many(30)).added == 30
        (index,) = (index for index in indexes(docs.retriever()) if isinstance(index, Placed))
        for number, shard in enumerate((server.a, server.b)):
            tables = shard.ask(f"SELECT tablename FROM pg_tables WHERE schemaname = '{schema}'")
            assert tables == [(f"vectors_{index._now.place.number}_{number}",)]
        docs.check()

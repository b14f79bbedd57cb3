"""A collection on shards behaves as one in a directory: the same tests, and what is theirs alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from ragistry import Collection, Document, create
from ragistry.engines.placed import Placed, indexes
from ragistry.engines.postgres import Postgres
from ragistry.engines.server import Server
from ragistry.errors import Corrupt, InvalidInput, StorageError

from .conftest import Sharded
from .test_postgres import DENSE, HYBRID, _alike, _answers, _documents
from .test_postgres import pair as pair
from .test_postgres import test_changes_are_alike as test_changes_are_alike
from .test_postgres import test_it_answers_as_a_directory_does as test_it_answers_as_a_directory_does

_numbers = itertools.count()


@pytest.fixture
def server(sharded: Sharded) -> Sharded:
    """The first of three."""
    return sharded


@pytest.fixture
def address(server: Sharded) -> str:
    """Of a collection that does not exist yet."""
    return f"{server.address}&collection=on_shards_{next(_numbers)}"


def _rows(server: Sharded, docs: Collection) -> list[int]:
    """How many vectors each shard holds of a collection, whoever reads them."""
    assert isinstance(docs._store, Postgres)
    schema = docs._store.server.shards.schema
    (number,) = (i._now.place.number for i in indexes(docs.retriever()) if isinstance(i, Placed) and i.kind == "dense")
    tables = ((server.a, 0), (server.b, 1))
    return [shard.ask(f"SELECT count(*) FROM {schema}.vectors_{number}_{i}")[0][0] for shard, i in tables]


def test_what_is_large_lies_on_shards(address: str, server: Sharded) -> None:
    with Collection.create(address, create(HYBRID)) as docs:
        docs.add(_documents())
        held = _rows(server, docs)
        assert sum(held) == len(_documents()) and min(held) > 10
        assert docs.info()["index_bytes"] > 0
        before = _answers(docs)
    plain = address.replace("&shards=shard_a,shard_b", "")
    with Collection.open(plain) as docs:
        _alike(_answers(docs), before)
        assert docs.remove([document.id for document in _documents(30)]) == 30
        for n in range(3):
            docs.add(Document("again", f"cat {n}"))
        assert sum(_rows(server, docs)) <= 33  # what nobody can read any more is deleted there too


def test_ties_are_broken_by_id_wherever_they_lie(address: str) -> None:
    same = [Document(f"same {i:03}", "a cat", metadata={"n": i}) for i in range(99, -1, -1)]
    with Collection.create(address, create(HYBRID, method="reciprocal-rank")) as docs:
        docs.add([*same, *_documents(20)])
        assert [hit.id for hit in docs.search("a cat", 7)] == [f"same {i:03}" for i in range(7)]
        assert [hit.id for hit in docs.search("a cat", 2, where={"n": {"gte": 50}})] == ["same 050", "same 051"]


def test_what_a_crash_leaves_is_not_read_and_then_deleted(address: str, server: Sharded) -> None:
    """Shards commit before the first server does; what they hold of a commit that failed there is put in by hand."""
    with Collection.create(address, create(HYBRID)) as docs:
        docs.add(_documents())
        before = _answers(docs, k=60), _answers(docs, {"n": {"lt": 9}})
        assert isinstance(docs._store, Postgres)
        with docs._store.server.connect() as connection:
            left = "SELECT row + 100, id, vector FROM vectors_2"
            connection.execute(f"INSERT INTO vectors_2 (row, id, vector) {left}")
            left = "SELECT row + 100, term, count, length FROM postings_1"
            connection.execute(f"INSERT INTO postings_1 (row, term, count, length) {left}")
        assert sum(_rows(server, docs)) == 120
        assert (_answers(docs, k=60), _answers(docs, {"n": {"lt": 9}})) == before
        docs.check()
        assert docs.remove("doc 059") == 1
        assert docs.add(_documents()[59]).added == 1
        assert sum(_rows(server, docs)) == 61  # one that the state before the last still reads
        _alike(_answers(docs, {"n": {"lt": 9}}), before[1])


def test_what_a_shard_has_lost_is_noticed(address: str, server: Sharded) -> None:
    with Collection.create(address, create(DENSE)) as docs:
        docs.add(_documents())
        assert isinstance(docs._store, Postgres)
        server.b.ask(f"DELETE FROM {docs._store.server.shards.schema}.vectors_1_1 WHERE row < 30")
        with pytest.raises(Corrupt, match="does not hold"):
            docs.check()


def test_a_shard_that_is_down_is_named(address: str, server: Sharded) -> None:
    with Collection.create(address, create(DENSE)) as docs:
        docs.add(_documents(20))
        before = docs.search("cat")
        server.b.kill()
        try:
            for ask in (
                lambda: docs.search("cat"),
                lambda: docs.add(Document("x", "cat")),
                lambda: docs.remove("doc 001"),
                lambda: Collection.create(f"{address}_new", create(DENSE)),
            ):
                with pytest.raises(StorageError, match=r"shard.*shard_b") as caught:
                    ask()
                assert "check that it runs" in str(caught.value)
            assert docs.get(["doc 001"])[0].id == "doc 001"
        finally:
            server.b.start()
        assert docs.search("cat") == before
        assert docs.add(Document("x", "cat")).added == 1


@pytest.mark.parametrize("given", ["shard_a", "shard_b,shard_a", "shard_a,other"])
def test_other_shards_than_it_has_are_refused(given: str, address: str) -> None:
    Collection.create(address, create("bm25")).close()
    with pytest.raises(InvalidInput, match=f"lies on the shards shard_a, shard_b, not on {given.replace(',', ', ')}"):
        Collection.open(address.replace("shard_a,shard_b", given))


def test_shards_are_not_for_one_that_has_none(address: str) -> None:
    plain = address.replace("&shards=shard_a,shard_b", "")
    Collection.create(plain, create("bm25")).close()
    with pytest.raises(InvalidInput, match="was made without shards"):
        Collection.open(address)


@pytest.mark.parametrize("given", ["", "a,,b", "a,a", "a,"])
def test_names_of_shards(given: str) -> None:
    with pytest.raises(InvalidInput, match="different ones"):
        Server(f"postgresql://localhost/books?shards={given}")


@pytest.fixture
def declared(server: Sharded) -> Iterator[Sharded]:
    """To be given foreign servers that begin with `bad`."""
    yield server
    server.first.ask("CREATE EXTENSION IF NOT EXISTS dblink")
    for (name,) in server.first.ask("SELECT srvname FROM pg_foreign_server WHERE srvname LIKE 'bad%'"):
        server.first.ask(f"DROP SERVER {name} CASCADE")


def test_what_an_administrator_has_to_do_is_said(declared: Sharded, address: str) -> None:
    first, shard = declared.first, declared.a
    for name, extensions, settings in (
        ("bad_extension", "", None),
        ("bad_settings", "extensions 'vector',", "-c hnsw.ef_search=40"),
        ("bad_host", "extensions 'vector',", "-c hnsw.ef_search=400"),
    ):
        first.ask(Sharded.declared(name, shard, extensions, settings))
    first.ask(f"ALTER SERVER bad_host OPTIONS (SET host '{shard.data}/nowhere')")
    first.ask("CREATE SERVER bad_user FOREIGN DATA WRAPPER postgres_fdw OPTIONS (dbname 'x', extensions 'vector')")
    for name, message in (
        ("bad_name", r"no foreign server 'bad_name' \(known are .*shard_a.*\).* run CREATE SERVER bad_name"),
        (
            "bad_extension",
            r"does not know the extension `vector`.* ALTER SERVER bad_extension OPTIONS \(ADD extensions",
        ),
        ("bad_user", r"no login at the foreign server 'bad_user'.* CREATE USER MAPPING"),
        ("bad_settings", r"hnsw.ef_search = 40, hnsw.iterative_scan = off.* ALTER SERVER bad_settings OPTIONS"),
        ("bad_host", r"the shard 'bad_host' is not ready .* check that it runs"),
    ):
        with pytest.raises(StorageError, match=message):
            Collection.create(address.replace("shard_b", name), create("bm25"))
    assert not Postgres.exists(address)


def test_rights_that_are_missing_are_said(declared: Sharded, address: str) -> None:
    first = declared.first
    first.ask("CREATE ROLE guest LOGIN; GRANT CREATE ON DATABASE postgres TO guest")
    first.ask(f"DROP EXTENSION IF EXISTS dblink; {Sharded.declared('bad_guest', declared.a)}")
    guest = address.replace("postgres@", "guest@").replace("shard_a,shard_b", "bad_guest")
    with pytest.raises(StorageError, match="CREATE EXTENSION dblink"):
        Collection.create(guest, create("bm25"))
    first.ask("CREATE EXTENSION dblink")
    with pytest.raises(StorageError, match="GRANT USAGE ON FOREIGN SERVER bad_guest"):
        Collection.create(guest, create("bm25"))
    first.ask("GRANT USAGE ON FOREIGN SERVER bad_guest TO guest")
    with pytest.raises(StorageError, match="no login at the foreign server"):
        Collection.create(guest, create("bm25"))
    assert not Postgres.exists(address)

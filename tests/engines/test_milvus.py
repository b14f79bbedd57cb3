"""A collection in Milvus behaves as one in a directory, or in PostgreSQL: the same tests, and what is Milvus's own."""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ragistry import Collection, Document, create
from ragistry.engines import milvus_files, milvus_lease, milvus_places, shown
from ragistry.engines.milvus import Milvus as Store
from ragistry.engines.milvus_server import Server
from ragistry.engines.placed import Placed, indexes
from ragistry.errors import InvalidInput, Locked, StorageError
from ragistry.filters import matches
from ragistry.types import Hit

from .conftest import Milvus
from .test_conditions import METADATA, VALUES
from .test_conditions import test_every_operator_on_every_value as every_operator_on_every_value
from .test_postgres import DENSE, HYBRID, _answers, _documents
from .test_postgres import pair as pair
from .test_postgres import test_a_copy_cut_short_is_continued as test_a_copy_cut_short_is_continued
from .test_postgres import test_another_encoder_is_refused as test_another_encoder_is_refused
from .test_postgres import test_changes_are_alike as test_changes_are_alike
from .test_postgres import test_copies_there_and_back as test_copies_there_and_back
from .test_postgres import test_fit_and_evaluate as test_fit_and_evaluate
from .test_postgres import test_it_answers_as_a_directory_does as test_it_answers_as_a_directory_does
from .test_postgres import test_one_writer_at_a_time as test_one_writer_at_a_time
from .test_postgres import test_recipes_are_the_same_in_front as test_recipes_are_the_same_in_front
from .test_postgres import test_what_was_learnt_is_kept_and_copied as test_what_was_learnt_is_kept_and_copied
from .test_server import test_the_command_line as test_the_command_line

_numbers = itertools.count()


def _similar(one: list[list[Hit]], other: list[list[Hit]]) -> None:
    """Alike, but that documents of which scores differ by rounding only may have changed places."""
    for a, b in zip(one, other, strict=True):
        assert [hit.score for hit in a] == pytest.approx([hit.score for hit in b], abs=1e-5)
        known = {hit.id: hit for hit in b}
        assert len({hit.id for hit in a}) == len(a)
        for hit in a:
            same = known.get(hit.id, replace(hit, score=b[-1].score))
            assert replace(hit, score=0.0) == replace(same, score=0.0)
            assert hit.score == pytest.approx(same.score, abs=1e-5)


@pytest.fixture(params=["lite", pytest.param("server", marks=pytest.mark.slow)])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Milvus:
    """Milvus Lite, or a server, whose writers wait less for each other."""
    monkeypatch.setattr(milvus_lease, "BEAT", 1.0)
    monkeypatch.setattr(milvus_lease, "PATIENCE", 0.5)
    if request.param == "server":  # it adds up in another order
        monkeypatch.setattr(sys.modules[_documents.__module__], "_alike", _similar)
    running: Milvus = request.getfixturevalue(f"milvus_{request.param}")
    return running


@pytest.fixture
def address(server: Milvus) -> str:
    """Of a collection that does not exist yet."""
    return f"{server.address}&collection=test_{next(_numbers)}"


@pytest.mark.slow
def test_every_operator_on_every_value(address: str) -> None:
    every_operator_on_every_value(address)


def test_filters_that_milvus_narrows(address: str) -> None:
    documents = [Document(f"{i:02}", "text", metadata=metadata) for i, metadata in enumerate(METADATA)]
    filters: list[dict[str, Any]] = [{"f": {"eq": value}} for value in VALUES[::3]]
    filters += [{field: {operator: 1}} for field in ("f", "f.x", "f.0") for operator in ("gt", "lte", "ne")]
    filters += [
        {"f": {"in": ["a", 1, True]}},
        {"f": {"in": []}},
        {"f": {"gte": "a"}},
        {"or": [{"f": "a"}, {"f.x": 1}]},
        {"or": [{"f": "a"}, {"not": {"f": 1}}]},
        {"f": {"gte": 0}, "other": {"exists": False}},
        {"and": [{"f": {"gte": 0}}, {"f": {"lt": 1}}]},
    ]
    with Collection.create(address, create("bm25")) as docs:
        docs.add(documents)
        for where in filters:
            expected = [d.id for d in documents if matches(where, d.metadata)]
            assert docs._store.corpus.ids(where) == expected, where


def test_dense_vectors_are_in_milvus(address: str) -> None:
    with Collection.create(address, create(HYBRID)) as docs:
        docs.add(_documents(9))
        kinds = {index.kind: type(index) for index in indexes(docs.retriever())}
        assert kinds["dense"] is Placed and kinds["sparse"] is not Placed
        info = docs.info()
        assert info["documents"] == 9 and info["index_bytes"] > 9 * 16 * 4 and info["corpus_bytes"] > 0


def test_readers_see_what_is_committed(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Collection.create(address, create(DENSE)) as writing, Collection.open(address) as reading:
        assert reading.search("cat") == []
        writing.add(_documents(10))
        assert len(reading) == 10
        assert len(reading.search("cat", 20)) == 10
        held = reading.retriever()
        writing.add(_documents(12))
        assert len(held.search(["cat"], 20)[0]) == 10
        assert len(reading.search("cat", 20)) == 12
        writing.remove(["doc 001"])
        writing.remove(["doc 002"])
        assert len(held.search(["cat"], 20)[0]) == 10  # for a time of grace
        assert len(reading.search("cat", 20)) == 10
        monkeypatch.setattr(milvus_files, "GRACE", 0.0)
        with pytest.raises(StorageError, match="cleared away"):
            held.search(["cat"], 20)
        writing.remove(["doc 003"])
        writing.remove(["doc 004"])
        assert len(reading.search("cat", 20)) == 8
        assert len(list(reading.documents())) == 8
        reading.check()


def test_what_fails_leaves_nothing(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Collection.create(address, create(HYBRID)) as docs:
        docs.add(_documents(20))
        before = _answers(docs)

        def broken() -> Iterator[Document]:
            yield Document("y", "cat")
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            docs.add(broken())
        with monkeypatch.context() as patched:
            patched.setattr(milvus_files.Objects, "commit", lambda *_: 1 / 0)  # all is written but the last row
            with pytest.raises(ZeroDivisionError):
                docs.add([Document("z", "cat"), Document("doc 003", "changed")])
        assert _answers(docs) == before
        assert len(docs) == len(list(docs.documents())) == 20
        assert docs.recovered == ""
        assert docs.add([Document("z", "another cat")]).added == 1
        assert "2 rows" in docs.recovered or "3 rows" in docs.recovered or "4 rows" in docs.recovered
        assert docs.get(["z"])[0].text == "another cat"
        docs.check()


def test_long_texts_and_strange_ids(address: str, tmp_path: Path) -> None:
    odd = [
        Document("long", "cat " * 50_000, title="é" * 20_000, metadata={"n": 1, "much": ["𝔸" * 9000, "x"]}),
        Document("other", "𝔸" * 40_000, metadata={"n": 2, "much": "y" * 70_000}),
        *(
            Document(id, f"a cat {n}", metadata={"n": n})
            for n, id in enumerate(("'", '"', "a\\", "a\0b", "% _*", "\n"))
        ),
        Document("i" * 65_535, "a cat at the end"),
    ]
    found = []
    for location in (address, tmp_path / "docs"):
        with Collection.create(location, create(DENSE)) as docs:
            docs.add(odd)
            docs.add([Document("other", "cat", metadata={"n": 2}), Document("short", "cat")])
            docs.remove("'")
            where = {"n": {"lte": 2}}
            found.append(
                (list(docs.documents()), docs.get(["long"]), docs.search("cat", 20, where=where), docs.duplicates())
            )
            if location == address:
                with pytest.raises(InvalidInput, match="65535"):
                    docs.add(Document("i" * 65_536, "a cat"))
    assert found[0][0] == found[1][0] and found[0][1] == found[1][1] and found[0][3] == found[1][3]
    _similar([found[0][2]], [found[1][2]])


def test_many_vectors_move_to_a_graph(address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {"EXACT": 60, "FEW": 10, "MANY": 40}.items():
        monkeypatch.setattr(milvus_places, name, value)
    places = []
    with Collection.create(address, create(DENSE)) as docs, Collection.create(tmp_path / "d", create(DENSE)) as here:
        for last in (50, 200):
            for one in (docs, here):
                one.add(_documents(last), batch=100)
                one.remove(["doc 007", "doc 150"])
            (index,) = indexes(docs.retriever())
            assert isinstance(index, Placed)
            places.append(index.place)
            assert index.ids() == [d.id for d in here.documents()]
            for where in (None, {"n": {"lt": 8}}, {"n": {"lt": 30}}, {"n": {"gte": 20}}, {"n": {"gte": 9000}}):
                for k in (1, 7, 300):
                    _similar(_answers(docs, where, k), _answers(here, where, k))
        assert [place.graph for place in places] == [False, True]  # type: ignore[union-attr]
        docs.check()


def test_more_than_one_answer_holds(address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(milvus_places, "MOST", 25)
    monkeypatch.setattr(milvus_places, "_BYTES", 2000)
    with Collection.create(address, create(DENSE)) as docs, Collection.create(tmp_path / "d", create(DENSE)) as here:
        for one in (docs, here):
            one.add(_documents())
        for where in (None, {"n": {"gte": 20}}):
            for k in (3, 20, 100):
                _similar(_answers(docs, where, k), _answers(here, where, k))


def test_a_writer_that_died_is_replaced(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Collection.create(address, create("bm25")) as docs:
        store: Any = docs._store
        store._objects.put("writer-somebody-0000000001", "")
        if store.server.file is None:
            monkeypatch.setattr(milvus_lease, "LEASE", 2.0)
        assert docs.add(_documents(2)).added == 2
        assert store._objects.beginning("writer-") == []


def test_a_right_that_was_lost_commits_nothing(address: str) -> None:
    with Collection.create(address, create("bm25")) as docs:
        store: Any = docs._store

        def stolen() -> Iterator[Document]:
            yield Document("a", "cat")
            store._of_process().lease._over.set()
            time.sleep(0.5)
            store._objects.drop(store._objects.beginning("writer-"))

        with pytest.raises(StorageError, match="another writer may have begun"):
            docs.add(stolen())
        assert len(docs) == 0
        assert docs.add(Document("b", "cat")).added == 1


def test_a_generation_committed_elsewhere_is_not_overwritten(address: str) -> None:
    with Collection.create(address, create("bm25")) as one, Collection.open(address) as other:
        stale = other._store.current()
        one.add(_documents(2))
        with other._store.writer(), pytest.raises(StorageError, match="has changed"):
            other._store.commit(stale, stale.retriever.fork(), _documents(1), [], 1)
        assert len(other) == 2
        assert other.add(_documents(3)).added == 1


def test_old_indexes_and_files_are_deleted(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(milvus_places, "EXACT", 5)
    with Collection.create(address, create(HYBRID)) as docs:
        store: Any = docs._store
        docs.add(_documents(4))
        docs.add(_documents(12))
        assert {"place_1", "place_2"} <= set(store.server.names())  # the old one may still be read
        monkeypatch.setattr(milvus_files, "GRACE", 0.0)
        for count in (13, 14, 15):
            docs.add(_documents(count))
        assert [name for name in store.server.names() if name.startswith("place_")] == ["place_2"]
        files = {name.split("/")[0] for name in store._objects.beginning("file-")}
        assert len(files) <= 2 * len(store.current().manifest.files) + 2
        assert len(store._objects.beginning("state-")) == 2


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("milvus://me:s3cret@localhost:1/books", "server runs"),
        ("milvus://localhost:1/books?collection=Bad Name", "cannot be a name"),
        ("milvus://localhost:1/books?password=s3cret", "has no 'password'"),
        ("milvus://localhost:1?consistency=perhaps", "consistency"),
        ("milvus://localhost:many", "the port"),
        ("milvus:///nowhere/at/all.db", "not a collection"),
        ("milvus:///tmp/file.sqlite", "ends in .db"),
    ],
)
def test_addresses_that_lead_nowhere(address: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragistry.engines.milvus_server._REACHING", 0.5)
    monkeypatch.setattr("ragistry.engines.milvus_server.PATIENCE", 0.5)
    with pytest.raises((StorageError, InvalidInput), match=message) as caught:
        Collection.open(address)
    assert "s3cret" not in str(caught.value)


def test_addresses_are_shown_without_passwords() -> None:
    address = "milvus://me:s3cret@host:19530/books?collection=docs"
    assert shown(address) == Server(address).location == "milvus://me@host:19530/books?collection=docs"
    assert shown("milvus:///data/docs.db?collection=docs") == "milvus:///data/docs.db?collection=docs"


def test_what_is_there_and_what_is_not(address: str, tmp_path: Path) -> None:
    assert not Store.exists(address)
    assert not Store.exists(f"milvus://{tmp_path}/none.db") and not list(tmp_path.iterdir())
    with pytest.raises(StorageError, match="no directory"):
        Collection.create(f"milvus://{tmp_path}/nowhere/none.db", create("bm25"))
    with pytest.raises(StorageError, match="not a collection"):
        Collection.open(address)
    Collection.create(address, create("bm25")).close()
    assert Store.exists(address)
    with pytest.raises(StorageError, match="already holds"):
        Collection.create(address, create("bm25"))
    with Collection.open(address) as docs, pytest.raises(InvalidInput, match="no directory"):
        _ = docs.path
    with pytest.raises(StorageError, match="was closed"):
        docs.search("cat")


def test_errors_of_the_server_say_what_to_do() -> None:
    server = Server("milvus://me:s3cret@localhost/books")

    def fails(error: Exception) -> Any:
        def ask(client: Any, timeout: float) -> None:
            raise error

        return ask

    server._clients = {os.getpid(): object()}
    exception = server._api.MilvusException
    for error, advice in (
        (exception(message="disk quota exhausted for s3cret"), "run out of space"),
        (exception(message="auth check failure s3cret"), "refuses the user"),
        (exception(message="can't find collection"), "no collection"),
        (ValueError("odd s3cret"), "odd"),
    ):
        with pytest.raises(StorageError, match=advice) as caught:
            server.ask(fails(error))
        assert "s3cret" not in str(caught.value)


def test_a_writer_is_told(address: str) -> None:
    with Collection.create(address, create("bm25")) as one, Collection.open(address) as other:
        with one._store.writer(), pytest.raises(Locked, match="another writer"):
            other.remove("nothing")
        assert other.remove("nothing") == 0

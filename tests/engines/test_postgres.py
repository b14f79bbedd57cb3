"""A collection in PostgreSQL behaves as one in a directory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from psycopg import errors

from ragistry import Collection, Document, create
from ragistry.encoders.functions import Function, register_encoder
from ragistry.engines import Location, is_address
from ragistry.engines.arrays import places_in
from ragistry.engines.copying import copy
from ragistry.engines.placed import Placed, indexes
from ragistry.engines.postgres import Postgres
from ragistry.engines.server import Server
from ragistry.errors import FingerprintMismatch, InvalidInput, Locked, StorageError, UnknownName
from ragistry.types import Hit

from .conftest import Running

WORDS = "cat dog mat poem sonnet line house river stone bread".split()
FILTERS: tuple[dict[str, Any] | None, ...] = (
    None,
    {"n": {"gte": 20}, "tag": "even"},
    {"tags": {"contains": "t3"}},
    {"or": [{"n": 1}, {"not": {"n": {"lt": 50}}}]},
    {"n": {"in": [1, 2.0, 3]}},
    {"nowhere": {"exists": True}},
)


def _letters(texts: Sequence[str]) -> Any:
    counts = [[text.count(letter) + 0.1 for letter in "abcdefghijklmnop"] for text in texts]
    vectors = np.array(counts, np.float32).reshape(len(texts), 16)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


register_encoder("letters-of-text", _letters)
DENSE = {"name": "dense", "model": "letters-of-text"}
HYBRID = {"name": "hybrid", "members": {"bm25": "bm25", "dense": DENSE}}


def _documents(count: int = 60) -> list[Document]:
    return [
        Document(
            f"doc {i:03}",
            " ".join(WORDS[(i * j + j + i // 7) % len(WORDS)] for j in range(3 + i % 5)) + f" {i}",
            title="Sonnet" * (i % 9 == 0),
            metadata={"n": i, "tag": ("even", "odd")[i % 2], "tags": [f"t{i % 4}"], "deep": {"x": i / 8}},
        )
        for i in range(count)
    ]


ODD = [
    Document("a\0b", "a cat\0 with nothing inside", metadata={"text": "null \0 character", "n": 5}),
    Document("🦜 /../", "cat \uffff and \uffff0", metadata={"a.b": 1, "n": 2**70}),
    Document("é", "", title="only a title, of a cat", metadata={"n": 1e300, "x": 0.1 + 0.2, "nothing": None}),
]


def _answers(docs: Collection, where: Any = None, k: int = 7) -> list[list[Hit]]:
    return docs.search_many(
        ["cat", "a sonnet of stone and bread", "river house dog 7", "nothing-like-it"], k, where=where
    )


def _alike(one: list[list[Hit]], other: list[list[Hit]]) -> None:
    for a, b in zip(one, other, strict=True):
        assert [hit.id for hit in a] == [hit.id for hit in b]
        assert [hit.score for hit in a] == pytest.approx([hit.score for hit in b], abs=1e-4)
        assert [(hit.text, hit.title, hit.metadata) for hit in a] == [(hit.text, hit.title, hit.metadata) for hit in b]


@pytest.fixture
def pair(address: str, tmp_path: Path) -> Iterator[tuple[Collection, Collection]]:
    """The same hybrid in the database and in a directory."""
    locations: tuple[Location, ...] = (address, tmp_path / "docs")
    with (
        Collection.create(locations[0], create(HYBRID)) as there,
        Collection.create(locations[1], create(HYBRID)) as here,
    ):
        for docs in (there, here):
            docs.add(_documents() + ODD, batch=25)
        yield there, here


def test_it_answers_as_a_directory_does(pair: tuple[Collection, Collection]) -> None:
    there, here = pair
    for where in FILTERS:
        _alike(_answers(there, where), _answers(here, where))
    assert list(there.documents()) == list(here.documents())
    assert list(there.documents({"n": {"lt": 9}})) == list(here.documents({"n": {"lt": 9}}))
    assert there.get(["é", "a\0b", "doc 003"]) == here.get(["é", "a\0b", "doc 003"])
    assert there.duplicates() == here.duplicates()
    assert there.recipe == here.recipe
    with pytest.raises(UnknownName):
        there.get(["nowhere"])
    there.check()


def test_changes_are_alike(pair: tuple[Collection, Collection], address: str) -> None:
    changed = [
        Document("doc 003", "a cat sat here now"),
        Document("doc 004", _documents()[4].text, metadata={"n": -1}),
        Document("new", "river of bread"),
        Document("same text as before", _documents()[5].text),
    ]
    gone = ["doc 000", "doc 001", "a\0b", "nowhere"]
    results = [(docs.add(changed), docs.remove(gone), docs.add(changed), len(docs)) for docs in pair]
    assert results[0] == results[1]
    with Collection.open(address) as again:
        for where in (*FILTERS, {"n": -1}):
            _alike(_answers(again, where), _answers(pair[1], where))
            _alike(_answers(pair[0], where), _answers(pair[1], where))
        assert list(again.documents()) == list(pair[1].documents())
        again.check()


def test_vectors_are_the_databases_own(pair: tuple[Collection, Collection]) -> None:
    there = pair[0]
    held = indexes(there.retriever())
    assert [type(index) for index in held] == [Placed, Placed]
    assert all(index._now.place is not None and not index._now.changed for index in held)
    info = there.info()
    assert info["documents"] == len(_documents()) + len(ODD)
    assert info["index_bytes"] > 0 and info["corpus_bytes"] > 0


def test_fit_and_evaluate(address: str, tmp_path: Path) -> None:
    queries = {f"q{i}": f"{WORDS[i % 10]} {WORDS[(i + 3) % 10]}" for i in range(40)}
    pairs = {query: [f"doc {(i * 7) % 60:03}"] for i, query in enumerate(queries.values())}
    found = []
    for location in (address, tmp_path / "docs"):
        with Collection.create(location, create("bm25")) as docs:
            docs.add(_documents())
            fit = docs.fit(pairs)
            qrels = {id: {pairs[query][0]: 1} for id, query in queries.items()}
            found.append((fit.to_json(), docs.recipe, docs.evaluate(queries, qrels).means))
    assert found[0][1] == found[1][1]
    assert found[0][2] == pytest.approx(found[1][2], abs=1e-6)
    assert found[0][0]["fitted"] == pytest.approx(found[1][0]["fitted"], abs=1e-6)


@pytest.mark.parametrize("name", ["rm3", "vector-prf", "query-likelihood"])
def test_recipes_are_the_same_in_front(name: str, address: str, tmp_path: Path) -> None:
    fields = {"first": DENSE} if name == "vector-prf" else {}
    found = []
    for location in (address, tmp_path / "docs"):
        with Collection.create(location, create(name, **fields)) as docs:
            docs.add(_documents())
            found.append(_answers(docs))
    _alike(*found)


@pytest.mark.parametrize("name", ["pefa-xs", pytest.param("pefa-xl", marks=pytest.mark.slow)])
def test_what_was_learnt_is_kept_and_copied(name: str, address: str, server: Running, tmp_path: Path) -> None:
    pairs = [(f"{chr(97 + j) * 8} {WORDS[v]}", f"doc {j:03}") for j in range(12) for v in range(6)]
    # The 32nd and the 33rd nearest of the pairs' queries differ for each: rounding, which differs, decides nothing.
    asked, later = ["cccccccc line", "hhhhhhhh line", "cat"], Document("later", "a later cat, hhhh")
    found = []
    for location in (address, tmp_path / "docs"):
        with Collection.create(location, create(name, model="letters-of-text")) as docs:
            docs.add(_documents())
            before = docs.search_many(asked)
            assert docs.fit(pairs, goal="seen").kept
            docs.add([later, Document("doc 003", "hhhhhhhh")])
            docs.add(Document("last", "line"))
            found.append(docs.search_many(asked))
            assert found[-1] != before
            if isinstance(docs._store, Postgres):
                state = docs._store.current().manifest.state
                kept = docs._store.server.ask(lambda c: c.execute("SELECT place FROM places").fetchall())
                assert {number for (number,) in kept} == places_in(state)  # what was there before learning is deleted
    copies = (f"{server.address}&collection=copied_{name[-2:]}", tmp_path / "copied")
    for source, target in zip((tmp_path / "docs", address), copies, strict=True):
        with Collection.open(source) as docs:
            copy(docs._store, target)
            assert copy(docs._store, target).copied == 0
    for location in (address, *copies):
        with Collection.open(location) as docs:
            found.append(docs.search_many(asked))
            docs.check()
    for one in found[1:]:
        _alike(found[0], one)


def test_readers_see_what_is_committed(address: str) -> None:
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
        with pytest.raises(StorageError, match="cleared away"):
            held.search(["cat"], 20)
        assert len(reading.search("cat", 20)) == 10


def test_one_writer_at_a_time(address: str) -> None:
    with Collection.create(address, create("bm25")) as one, Collection.open(address) as other:
        with one._store.writer(), pytest.raises(Locked, match="another writer"):
            other.add(_documents(1))
        assert other.add(_documents(1)).added == 1


def test_what_fails_leaves_nothing(address: str) -> None:
    with Collection.create(address, create(HYBRID)) as docs:
        docs.add(_documents(20))
        before = _answers(docs)
        with pytest.raises(InvalidInput, match="twice"):
            docs.add([Document("x", "cat"), Document("x", "dog")])

        def broken() -> Iterator[Document]:
            yield Document("y", "cat")
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            docs.add(broken())
        write = docs._store.corpus.write
        docs._store.corpus.write = lambda *_: 1 / 0  # after the vectors
        with pytest.raises(ZeroDivisionError):
            docs.add([Document("z", "cat")])
        docs._store.corpus.write = write
        assert _answers(docs) == before
        assert len(docs) == 20
        docs.check()
        assert docs.add([Document("z", "cat")]).added == 1


def test_another_encoder_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Collection.create(address, create(DENSE)) as docs:
        docs.add(_documents(5))
    monkeypatch.setattr(Function, "fingerprint", lambda self: "another")
    with Collection.open(address) as docs, pytest.raises(FingerprintMismatch):
        docs.search("cat")


def test_copies_there_and_back(pair: tuple[Collection, Collection], server: Running, tmp_path: Path) -> None:
    here = pair[1]
    other = f"{server.address}&collection=copied"
    calls: list[int] = []
    assert copy(here._store, other, progress=calls.append).copied == len(here)
    assert sum(calls) == len(here)
    with Collection.open(other) as docs:
        assert list(docs.documents()) == list(here.documents())
        _alike(_answers(docs), _answers(here))
        assert copy(here._store, other).copied == 0
        here.add(Document("late", "a late cat"))
        here.remove("doc 002")
        again = copy(here._store, other)
        assert (again.copied, again.removed) == (1, 1)
        _alike(_answers(docs), _answers(here))
        with pytest.raises(StorageError, match="already holds"):
            here.save(other)
        docs.save(tmp_path / "back")
    with Collection.open(tmp_path / "back") as docs:
        _alike(_answers(docs), _answers(here))
        assert docs.add(Document("later", "a cat")).added == 1
        docs.check()


def test_a_copy_cut_short_is_continued(pair: tuple[Collection, Collection], server: Running, monkeypatch: Any) -> None:
    import ragistry.engines.copying as copying

    monkeypatch.setattr(copying, "BATCH", 20)
    other = f"{server.address}&collection=cut_short"

    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy(pair[1]._store, other, progress=stop)
    done = copy(pair[1]._store, other)
    assert (done.copied, done.unchanged) == (len(pair[1]) - 20, 20)
    with Collection.open(other) as docs:
        _alike(_answers(docs), _answers(pair[1]))
        with pytest.raises(InvalidInput, match="no copy"):
            copy(pair[1]._store, f"{server.address}&collection={_another(server)}")


def _another(server: Running) -> str:
    with Collection.create(f"{server.address}&collection=another", create("bm25")) as docs:
        docs.add(_documents(3))
    return "another"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("postgresql://me:s3cret@localhost:1/books", "server runs"),
        ("postgresql://localhost:1/books?collection=Bad Name", "cannot be a name"),
        ("postgresql://localhost:1/books?password=s3cret&collection=docs", "server runs"),
        ("postgresql://localhost:1/books?nonsense=1", "nonsense"),
    ],
)
def test_addresses_that_lead_nowhere(address: str, message: str) -> None:
    with pytest.raises((StorageError, InvalidInput), match=message) as caught:
        Collection.open(address)
    assert "s3cret" not in str(caught.value)


def test_what_is_there_and_what_is_not(address: str) -> None:
    assert not Postgres.exists(address)
    with pytest.raises(StorageError, match="not a collection"):
        Collection.open(address)
    Collection.create(address, create("bm25")).close()
    assert Postgres.exists(address) and is_address(address)
    with pytest.raises(StorageError, match="already holds"):
        Collection.create(address, create("bm25"))
    with Collection.open(address) as docs, pytest.raises(InvalidInput, match="no directory"):
        _ = docs.path
    with pytest.raises(StorageError, match="was closed"):
        docs.search("cat")


def test_errors_of_the_server_say_what_to_do() -> None:
    server = Server("postgresql://me:s3cret@localhost/books")
    assert server.location == "postgresql://me@localhost/books?collection=docs"
    for error, advice in (
        (errors.DiskFull("no space for s3cret"), "run out of space"),
        (errors.SyntaxError("bad"), "bad"),
    ):
        with pytest.raises(StorageError, match=advice) as caught, server.explained("write to"):
            raise error
        assert "s3cret" not in str(caught.value)

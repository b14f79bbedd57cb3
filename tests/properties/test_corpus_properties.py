"""Filters in SQL say what filters in Python say; a corpus is a dictionary that remembers its generations."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ragistry import filters
from ragistry.corpus import Change, Corpus, digest
from ragistry.errors import StorageError
from ragistry.filters import OPERATORS, Where, matches
from ragistry.metadata import encode, normal, plain
from ragistry.types import Document

# Few keys and values, so that filters often meet what they ask for.
TAME_KEYS = st.sampled_from(["a", "b", "c d", "é", "x[0]", "$", "a'b", "#-1", "1"])
WILD_KEYS = (
    st.sampled_from(["a", "b", "a.b", "b.a", ".", "", 'a"b', "a\\b", "\n", "\0", '"']) | TAME_KEYS | st.text(max_size=3)
)
TAME_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.sampled_from([1.0, 0.0, -0.0, 0.5, 2.25, 0.1, 123456789.012345, 2**53, 2**53 + 1, 2**63 - 1, 0.30000000000001]),
    st.sampled_from(["", "a", "ab", "b", "é", "𝕏", "1", "true", "null", "a\nb", 'a"b', "%", "a\\u0041"]),
)
WILD_SCALARS = st.one_of(
    st.sampled_from([2**63, -(2**63), 2**64, 2**64 + 1, float(2**64), 1e300, 0.1 + 0.2, 5e-324, "a\0", "\0", "a\0b"]),
    TAME_SCALARS,
    st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
)


def metadata(keys: st.SearchStrategy[str], scalars: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    values = st.recursive(
        scalars, lambda held: st.lists(held, max_size=3) | st.dictionaries(keys, held, max_size=3), max_leaves=5
    )
    return st.dictionaries(keys, values, max_size=4)


def inside(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each value in metadata, with the keys that lead to it."""
    if path:
        yield path, value
    if isinstance(value, dict):
        for key, held in value.items():
            yield from inside(held, (*path, key))
    if isinstance(value, list):
        for held in value:
            yield from inside(held, path)


def is_scalar(value: Any) -> bool:
    return not isinstance(value, dict | list)


def is_comparable(value: Any) -> bool:
    return is_scalar(value) and value is not None and not isinstance(value, bool)


def operation(operands: st.SearchStrategy[Any], scalars: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    operand = {
        **dict.fromkeys(OPERATORS, operands),
        **dict.fromkeys(("in", "nin"), st.lists(operands, max_size=4)),
        **dict.fromkeys(("gt", "gte", "lt", "lte"), scalars.filter(is_comparable)),
        "exists": st.booleans(),
    }
    return st.sampled_from(OPERATORS).flatmap(lambda name: st.fixed_dictionaries({name: operand[name]}))


@st.composite
def cases(
    draw: st.DrawFn, keys: st.SearchStrategy[str], scalars: st.SearchStrategy[Any], deep: bool
) -> tuple[Where, list[dict[str, Any]]]:
    """A filter, and metadata from which most of its fields and values are taken, so that it often holds."""
    held = draw(st.lists(metadata(keys, scalars), min_size=1, max_size=4))
    found = [pair for one in held for pair in inside(one)]
    names = st.lists(keys, min_size=1, max_size=3).map(".".join)
    operands = scalars
    if found:
        names = st.sampled_from([".".join(path) for path, _ in found]) | names
        operands = st.sampled_from([value for _, value in found]) | scalars
    if not deep:
        operands = operands.filter(is_scalar)
    names = names.filter(lambda name: name not in filters.COMBINERS)
    operations = operation(operands, operands.filter(is_scalar))
    one = st.dictionaries(names, operations | operands.filter(lambda value: not isinstance(value, dict)), max_size=2)
    wheres = st.recursive(
        one,
        lambda parts: st.one_of(
            st.fixed_dictionaries({"and": st.lists(parts, max_size=3)}),
            st.fixed_dictionaries({"or": st.lists(parts, max_size=3)}),
            st.fixed_dictionaries({"not": parts}),
            st.tuples(one, parts).map(lambda two: {**two[0], **two[1]}),
        ),
        max_leaves=4,
    )
    return draw(wheres), held


def judged(connection: sqlite3.Connection, where: Where, held: Sequence[Mapping[str, Any]]) -> list[bool]:
    sql, parameters = filters.compile(where)
    judge = f"SELECT {sql} FROM (SELECT ? AS metadata, ? AS plain)"
    found = [connection.execute(judge, [*parameters, encode(normal(m, "m")), plain(m)]).fetchone()[0] for m in held]
    assert set(found) <= {0, 1}  # never NULL
    return list(map(bool, found))


@contextlib.contextmanager
def database() -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        yield connection


@settings(max_examples=200, deadline=None)
@given(cases(WILD_KEYS, WILD_SCALARS, deep=True))
def test_sql_says_what_python_says(case: tuple[Where, list[dict[str, Any]]]) -> None:
    where, held = case
    with database() as connection:
        filters.install(connection)
        assert judged(connection, where, held) == [matches(where, m) for m in held]


@settings(max_examples=200, deadline=None)
@given(cases(TAME_KEYS, TAME_SCALARS, deep=False))
def test_sql_alone_judges_plain_metadata(case: tuple[Where, list[dict[str, Any]]]) -> None:
    where, held = case
    called = []
    with database() as connection:
        connection.create_function("ragistry_matches", 2, lambda *given: called.append(given))
        assert all(map(plain, held))
        assert judged(connection, where, held) == [matches(where, m) for m in held]
    assert not called


@settings(max_examples=50, deadline=None)
@given(metadata(WILD_KEYS, WILD_SCALARS), st.text(min_size=1, max_size=5), st.text(max_size=20), st.text(max_size=20))
def test_a_document_comes_back_as_it_went_in(held: dict[str, Any], id: str, title: str, text: str) -> None:
    document = Document(id, text, title, held)
    with tempfile.TemporaryDirectory() as directory, Corpus(Path(directory) / "c.db") as corpus:
        corpus.add([document])
        assert corpus.get([id]) == [document] == list(corpus.documents())
        assert corpus.ids({"not": {}}) == []
        corpus.check()


State = dict[str, Document]
IDS = st.sampled_from(["1", "2", "3", "x y", "é\0"])
DOCUMENTS = st.builds(
    Document,
    IDS,
    st.sampled_from(["", "a", "b"]),
    st.sampled_from(["", "T"]),
    st.sampled_from([{}, {"n": 1}, {"n": 2**70}]),
)
UNIQUE = st.lists(DOCUMENTS, max_size=4, unique_by=lambda document: document.id)


class Generations(RuleBasedStateMachine):
    """A corpus against one dictionary for each generation, in order of insertion."""

    @initialize()
    def open(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.corpus = Corpus(Path(self.directory.name) / "c.db")
        self.states: dict[int, State] = {0: {}}

    def teardown(self) -> None:
        if hasattr(self, "corpus"):
            self.corpus.close()
            self.directory.cleanup()

    @property
    def latest(self) -> int:
        return max(self.states)

    @rule(ahead=st.integers(0, 2), documents=UNIQUE, gone=st.sets(IDS, max_size=3))
    def write(self, ahead: int, documents: list[Document], gone: set[str]) -> None:
        generation = self.latest + ahead
        self.corpus.write(generation, documents, gone)
        after = {id: d for id, d in self.states[self.latest].items() if id not in gone}
        for document in documents:
            after.pop(document.id, None)
            after[document.id] = document
        for between in range(self.latest + 1, generation):
            self.states[between] = self.states[self.latest]
        self.states[generation] = after

    @rule(documents=UNIQUE)
    def add(self, documents: list[Document]) -> None:
        before = self.states[self.latest]
        after, added, replaced, repeated = dict(before), 0, 0, 0
        for document in documents:
            if before.get(document.id) == document:
                continue
            replaced += document.id in before
            added += document.id not in before
            after.pop(document.id, None)
            after[document.id] = document
        contents: set[tuple[str, str]] = set()
        for document in after.values():
            changed = before.get(document.id) != document
            repeated += changed and (document.title, document.text) in contents
            contents.add((document.title, document.text))
        if added or replaced:
            self.states[self.latest + 1] = after
        assert self.corpus.add(iter(documents)) == Change(added, replaced, len(documents) - added - replaced, repeated)

    @rule(gone=st.lists(IDS, max_size=3))
    def remove(self, gone: list[str]) -> None:
        before = self.states[self.latest]
        there = set(gone) & set(before)
        if there:
            self.states[self.latest + 1] = {id: d for id, d in before.items() if id not in there}
        assert self.corpus.remove(gone) == len(there)

    @rule(back=st.integers(0, 3))
    def rollback(self, back: int) -> None:
        generation = max(min(self.states), self.latest - back)
        self.corpus.rollback(generation)
        self.states = {g: state for g, state in self.states.items() if g <= generation}

    @rule(back=st.integers(0, 2))
    def purge(self, back: int) -> None:
        generation = max(min(self.states), self.latest - back)
        self.corpus.purge(generation)
        self.states = {g: state for g, state in self.states.items() if g >= generation}

    @rule()
    def reopen(self) -> None:
        self.corpus.close()
        self.corpus = Corpus(Path(self.directory.name) / "c.db")
        self.corpus.check()

    @rule(back=st.integers(0, 2))
    def copy(self, back: int) -> None:
        generation = max(min(self.states), self.latest - back)
        with tempfile.TemporaryDirectory() as directory:
            self.corpus.copy_to(Path(directory) / "copy.db", generation)
            with Corpus(Path(directory) / "copy.db", readonly=True) as copy:
                assert list(copy.documents()) == list(self.states[generation].values())

    @precondition(lambda self: min(self.states) > 0)
    @rule()
    def read_purged(self) -> None:
        try:
            self.corpus.ids(at=min(self.states) - 1)
        except StorageError:
            return
        raise AssertionError("a purged generation was read")

    @invariant()
    def every_generation_reads_as_it_was(self) -> None:
        if not hasattr(self, "corpus"):
            return
        assert self.corpus.generation == self.latest
        for generation, state in self.states.items():
            assert list(self.corpus.documents(generation, batch=2)) == list(state.values())
            assert self.corpus.ids(at=generation) == list(state)
            assert self.corpus.count({"n": {"gt": 0}}, generation) == sum("n" in d.metadata for d in state.values())
            everything = ["1", "2", "3", "x y", "é\0"]
            assert self.corpus.find(everything, generation) == state
            assert self.corpus.digests(everything, generation) == {id: digest(d) for id, d in state.items()}
            groups: dict[tuple[str, str], list[str]] = {}
            for id, d in state.items():
                groups.setdefault((d.title, d.text), []).append(id)
            assert self.corpus.duplicates(generation) == [tuple(ids) for ids in groups.values() if len(ids) > 1]


TestGenerations = Generations.TestCase
TestGenerations.settings = settings(max_examples=40, stateful_step_count=15, deadline=None)

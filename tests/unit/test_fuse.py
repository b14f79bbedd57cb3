"""What fusion accepts, refuses and keeps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ragistry import Document, Ranking, create
from ragistry.errors import InvalidInput, UnknownName
from ragistry.protocols import Updatable
from ragistry.retrievers.fuse import Fuse
from ragistry.retrievers.remembered import Remembered
from ragistry.storage import ArrayFiles
from ragistry.types import Among


class Fixed:
    """A retriever that takes no documents."""

    def search(self, queries: Sequence[str], k: int = 10, *, among: Among = None) -> list[Ranking]:
        return [Ranking(("a",), [1.0]).head(k) for _ in queries]  # type: ignore[arg-type]


def both(**settings: Any) -> Fuse:
    fuse = Fuse({"a": create("bm25"), "b": create("query-likelihood")}, **settings)
    fuse.add([Document("1", "cat"), Document("2", "cat dog"), Document("3", "dog")])
    return fuse


@pytest.mark.parametrize(
    "settings",
    [
        {"weights": {"c": 1.0}},
        {"weights": {"a": 0.0, "b": 0.0}},
        {"weights": {"a": -1.0}},
        {"weights": {"a": float("nan")}},
        {"weights": {"a": float("inf")}},
        {"weights": {"a": "1"}},
        {"method": "sum"},
        {"normalise": "softmax"},
        {"missing": "guess"},
        {"depth": 0},
        {"depth": 1.5},
        {"rank_constant": -1.0},
        {"rank_constant": "60"},
        {"rank_constant": float("nan")},
        {"members": {}},
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        Fuse(**({"members": {"a": Fixed(), "b": Fixed()}} | settings))


@pytest.mark.parametrize(
    "asked",
    [
        {"queries": "cat"},
        {"queries": b"cat"},
        {"queries": iter(["cat"])},
        {"queries": [3]},
        {"k": "3"},
        {"k": 2.5},
        {"k": None},
        {"among": "12"},
        {"among": iter(["1"])},
        {"among": 3},
    ],
)
def test_bad_questions_are_refused(asked: dict[str, Any]) -> None:
    fuse = both()
    for retriever in (fuse, fuse.members["a"]):
        with pytest.raises(InvalidInput, match=next(iter(asked))[:4]):
            retriever.search(**({"queries": ["cat"]} | asked))


def test_weights_not_given_are_1() -> None:
    assert both(weights={"a": 0.25}).weights == {"a": 0.25, "b": 1.0}


def test_members_that_take_no_documents() -> None:
    fuse = Fuse({"fixed": Fixed(), "b": create("bm25")})
    assert fuse.search(["cat"])[0].ids == ("a",)
    for change in (lambda: fuse.add([Document("1", "cat")]), lambda: fuse.remove(["1"]), fuse.fork):
        with pytest.raises(InvalidInput, match="fixed"):
            change()


def test_a_refused_change_reaches_no_member() -> None:
    first = create("bm25")
    fuse = Fuse({"b": first, "fixed": Fixed()})
    with pytest.raises(InvalidInput):
        fuse.add([Document("1", "cat")])
    assert len(first.search(["cat"])[0]) == 0


def test_generators_reach_every_member() -> None:
    fuse = both()
    fuse.remove(name for name in ("1", "2"))
    assert [len(member.search(["cat"])[0]) for member in fuse.members.values()] == [0, 0]


def test_what_was_saved_with_other_members_is_refused(tmp_path: Path) -> None:
    files = ArrayFiles(tmp_path)
    state = both().save(files)
    other = Fuse({"a": create("bm25"), "c": create("bm25")})
    with pytest.raises(UnknownName, match="'c'"):
        other.load(state, files)


def test_forks_share_settings() -> None:
    fuse = both(weights={"a": 0.1}, method="reciprocal-rank", depth=7)
    fork = fuse.fork()
    assert isinstance(fork, Updatable)
    assert (fork.weights, fork.method, fork.depth) == (fuse.weights, "reciprocal-rank", 7)
    assert fork.members["a"] is not fuse.members["a"]


def test_duplicate_queries_and_no_queries() -> None:
    fuse = both()
    one, two = fuse.search(["cat", "cat"])
    assert one == two
    assert fuse.search([]) == []
    assert [len(ranking) for ranking in fuse.search(["cat", "dog"], 0)] == [0, 0]
    assert [len(ranking) for ranking in fuse.search(["cat"], -3)] == [0]


def test_remembered_rankings_are_the_members_own() -> None:
    asked: list[str] = []

    class Counting(Fixed):
        def search(self, queries: Sequence[str], k: int = 10, *, among: Among = None) -> list[Ranking]:
            asked.extend(queries)
            return super().search(queries, k, among=among)

    remembered = Remembered(Counting())
    assert remembered.search(["x", "y", "x"]) == Fixed().search(["x", "y", "x"])
    assert remembered.search(["y"]) == Fixed().search(["y"])
    assert asked == ["x", "y"]
    remembered.search(["y"], 3)
    remembered.search(["y"], among=["a"])
    remembered.search(["y"], among={"a"})
    assert asked == ["x", "y", "y", "y"]

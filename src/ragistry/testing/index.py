"""What every index must do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, cast, get_args

import numpy as np
from scipy.sparse import csr_array

from ..errors import InvalidInput
from ..protocols import Index
from ..types import Kind, MultiVectors, Ranking, Vectors
from .checks import (
    THREADS,
    alike,
    at_once,
    expect,
    expect_same,
    make_vectors,
    refused,
    reloaded,
    saved,
    size,
    take,
)

COUNT = 40
ODD_IDS = ("a b", "a/b", "../x", "🦜", "é", "e\u0301", "Ω" * 300, "0", "-1", "None", "a\nb", "a\0b", " ")


class IndexContract:
    """Tests that an index keeps, finds, replaces, forgets, forks and stores vectors as `ragistry.protocols.Index` says.

    Define `make`; override `vectors` if not just any vectors of its kind will do.

    Attributes:
        exact: Whether it finds the truly nearest and gives vectors back as they were added. Set it to False for indexes
            that approximate or compress: rankings are then not compared with one another.
        tolerance: How far rounding may move a score, relative to the largest.

    Example:
        >>> from ragistry.indexes.inverted import Inverted
        >>> from ragistry.indexes.weighting import Impact
        >>> class TestInverted(IndexContract):
        ...     def make(self):
        ...         return Inverted(Impact())
        >>> TestInverted().test_among()
    """

    exact: ClassVar[bool] = True
    tolerance: ClassVar[float] = 1e-4

    def make(self) -> Index:
        """A new, empty index, with the same settings each time."""
        raise InvalidInput(f"{type(self).__name__} does not say how to make the index; define `make`")

    def vectors(self, count: int, seed: int = 0) -> Vectors:
        """So many vectors that the index can hold, no two alike, each of which finds every other as a query."""
        return make_vectors(self.make().kind, count, seed)

    def filled(self, items: Sequence[int] = range(COUNT)) -> Index:
        """An index of some of the first 40 vectors, by the ids that `ids` gives."""
        index = self.make()
        index.add(self.ids(items), take(self.vectors(COUNT), items))
        return index

    @staticmethod
    def ids(items: Sequence[int]) -> list[str]:
        """Ids of vectors by their number."""
        return [f"id {item:02}" for item in items]

    def queries(self) -> Vectors:
        """Five vectors to search for."""
        return self.vectors(5, seed=1)

    def same(self, found: Sequence[Ranking], expected: Sequence[Ranking], message: str) -> None:
        """Fail unless rankings agree; of an index that is not exact, only whether there is one for each query."""
        if self.exact:
            expect_same(found, expected, self.tolerance, message)
        else:
            expect(len(found) == len(expected), f"{message}: {len(found)} rankings, {len(expected)} were expected")

    def test_is_an_index(self) -> None:
        """It has the methods, and a known kind."""
        index = self.make()
        expect(isinstance(index, Index), f"{type(index).__name__} lacks a method of ragistry.protocols.Index")
        expect(index.kind in get_args(Kind), f"kind={index.kind!r} is none of {get_args(Kind)}")

    def test_empty(self) -> None:
        """An empty index finds nothing, and can be saved, loaded and forked."""
        index = self.make()
        index.add([], take(self.vectors(1), []))
        index.remove(["nowhere"])
        with reloaded(index, self.filled()) as loaded:
            for empty in (index, index.fork(), loaded):
                expect(len(empty) == 0, f"an empty index has length {len(empty)}")
                found = empty.search(self.queries(), 3)
                expect([len(ranking) for ranking in found] == [0] * 5, "an empty index found something")
                expect(size(empty.vectors([])) == 0, "no ids gave some vectors")
        index.add(["first"], self.vectors(1))
        expect(len(index) == 1, "an index that was empty does not grow")

    def test_keeps_vectors(self) -> None:
        """`vectors` gives back what was added, in the order asked, and refuses unknown ids."""
        index, items = self.filled(), [7, 3, 21]
        found = index.vectors(self.ids(items))
        expect(size(found) == 3, f"three ids gave {size(found)} vectors")
        if self.exact:
            expect(alike(found, take(self.vectors(COUNT), items), self.tolerance), "vectors differ from those added")
        with refused("vectors() of an unknown id"):
            index.vectors(["nowhere"])

    def test_k(self) -> None:
        """At most `k` hits, fewer where there are fewer, none for 0; fewer hits are the first of more."""
        index = self.filled()
        everything = index.search(self.queries(), COUNT)
        expect([len(r) for r in index.search(self.queries(), 0)] == [0] * 5, "k=0 found something")
        self.same(index.search(self.queries(), 10 * COUNT), everything, "k beyond the size of the index")
        for k in (1, 2, 7, COUNT - 1):
            found = index.search(self.queries(), k)
            expect(all(len(ranking) <= k for ranking in found), f"k={k} found more")
            self.same(found, [ranking.head(k) for ranking in everything], f"k={k} compared with k={COUNT}")
        if self.exact:
            expect([len(r) for r in everything] == [COUNT] * 5, f"not all {COUNT} vectors were found")

    def test_one_ranking_per_query(self) -> None:
        """Queries together, in any order, find what each alone finds."""
        index, queries = self.filled(), self.queries()
        together = index.search(queries, 10)
        self.same(index.search(take(queries, range(4, -1, -1)), 10)[::-1], together, "queries backwards")
        for i in range(5):
            self.same(index.search(take(queries, [i]), 10), [together[i]], f"query {i} alone")
        expect(index.search(take(queries, []), 10) == [], "no queries gave some rankings")

    def test_among(self) -> None:
        """Only allowed ids are found, and the filter comes before the ranking."""
        index, queries = self.filled(), self.queries()
        everything = index.search(queries, COUNT)
        allowed = self.ids(range(0, COUNT, 3))
        for among in (allowed, tuple(allowed), frozenset(allowed), dict.fromkeys([*allowed, "nowhere"])):
            found = index.search(queries, 5, among=among)
            expect(all(set(ranking.ids) <= set(allowed) for ranking in found), "an id that is not allowed was found")
            expect(
                all(len(ranking) == 5 for ranking in found),
                "fewer hits than allowed documents: filter first, then rank",
            )
            if self.exact:
                kept = [[hit for hit in ranking if hit[0] in allowed] for ranking in everything]
                expected = [Ranking.of([i for i, _ in hits], [score for _, score in hits], 5) for hits in kept]
                self.same(found, expected, "among")
        for nothing in ([], frozenset[str](), ["nowhere"]):
            found = index.search(queries, 5, among=nothing)
            expect([len(ranking) for ranking in found] == [0] * 5, f"among={nothing!r} found something")

    def test_ties(self) -> None:
        """Equal scores are in the order of their ids, wherever they were added and whatever `k` cuts off."""
        index, one = self.make(), self.vectors(1)
        for name in ("m", "b", "é", "z", "a", "B", "𝔸"):
            index.add([name], one)
        found = index.search(self.vectors(1), 7)[0]
        expect(list(found.ids) == sorted(found.ids), f"equal scores are in the order {found.ids}")
        if self.exact:
            expect(
                index.search(one, 3)[0].ids == ("B", "a", "b"), "of equal scores, `k` kept others than the first ids"
            )

    def test_adding_again_replaces(self) -> None:
        """An id that is added again has only its new vector, alone or among others."""
        index, fresh = self.filled(), self.vectors(COUNT, seed=2)
        index.add(self.ids([3]), take(fresh, [3]))
        index.add(self.ids([COUNT + 1, 5, 4]), take(fresh, [1, 5, 4]))
        expect(len(index) == COUNT + 1, f"{COUNT + 1} ids were added, {len(index)} are there")
        other = self.filled([i for i in range(COUNT) if i not in {3, 4, 5}])
        other.add(self.ids([3, 4, 5, COUNT + 1]), take(fresh, [3, 4, 5, 1]))
        self.same(index.search(self.queries(), 50), other.search(self.queries(), 50), "after adding again")
        if self.exact:
            expect(
                alike(index.vectors(self.ids([3])), take(fresh, [3]), self.tolerance), "the old vector is given back"
            )

    def test_removing_is_absence(self) -> None:
        """After removing, an index answers as if what was removed had never been there."""
        index, kept = self.filled(), [i for i in range(COUNT) if i % 4]
        index.remove(i for i in [*self.ids(range(0, COUNT, 4)), "nowhere"])
        expect(len(index) == len(kept), f"{len(kept)} ids should be left, {len(index)} are")
        self.same(index.search(self.queries(), 50), self.filled(kept).search(self.queries(), 50), "after removing")
        with refused("vectors() of a removed id"):
            index.vectors(self.ids([4]))
        found = index.search(self.queries(), 5, among=self.ids([0, 4, 5]))
        expect(all(set(ranking.ids) <= set(self.ids([5])) for ranking in found), "a removed id was found")
        index.add(self.ids(range(0, COUNT, 4)), take(self.vectors(COUNT), range(0, COUNT, 4)))
        self.same(index.search(self.queries(), 50), self.filled().search(self.queries(), 50), "after adding back")
        index.remove(self.ids(range(COUNT)))
        expect([len(r) for r in index.search(self.queries(), 3)] == [0] * 5, "something is left of an emptied index")

    def test_bad_ids_are_refused(self) -> None:
        """Ids given twice, too few, or not text are refused, and leave the index as it was."""
        index: Any = self.filled()
        before = index.search(self.queries(), COUNT)
        for ids in (["a", "a", "b"], ["a", "b"], ["a", "b", "c", "d"], ["a", "b", 3], ["a", "b", None]):
            with refused(f"add({ids!r}) with three vectors"):
                index.add(ids, self.vectors(3))
        with refused("remove() of one text instead of a list"):
            index.remove("id 01")
        expect(len(index) == COUNT, f"a refused call changed the index to {len(index)} vectors")
        self.same(index.search(self.queries(), COUNT), before, "after refused calls")

    def test_bad_vectors_are_refused(self) -> None:
        """Vectors of another kind or width, or not finite, are refused, and leave the index as it was."""
        index: Any = self.filled()
        before = index.search(self.queries(), COUNT)
        bad = [make_vectors(kind, 2) for kind in get_args(Kind) if kind != index.kind]
        bad += [self._damaged(value) for value in (np.nan, np.inf)]
        bad += [self._wider()]
        for vectors in [*bad, [[1.0, 2.0], [3.0, 4.0]], None]:
            what = f"{type(vectors).__name__} {getattr(vectors, 'shape', '')}"
            with refused(f"add() of vectors that do not fit ({what})"):
                index.add(["a", "b"], vectors)
            with refused(f"search() for vectors that do not fit ({what})"):
                index.search(vectors, 3)
        expect(len(index) == COUNT, f"a refused call changed the index to {len(index)} vectors")
        self.same(index.search(self.queries(), COUNT), before, "after refused calls")

    def test_odd_ids(self) -> None:
        """Ids may hold spaces, slashes, emoji, line ends and null characters."""
        index, vectors = self.make(), self.vectors(len(ODD_IDS))
        index.add(ODD_IDS, vectors)
        with reloaded(index, self.make()) as loaded:
            found = loaded.search(vectors, len(ODD_IDS), among=ODD_IDS)
            expect(set().union(*(r.ids for r in found)) == set(ODD_IDS), "some id was changed or not found")
            expect(size(loaded.vectors(ODD_IDS)) == len(ODD_IDS), "an id names no vector after loading")

    def test_fork(self) -> None:
        """Changing a fork leaves its original as it was, and the other way round."""
        index, queries = self.filled(), self.queries()
        before = index.search(queries, 50)
        fork = index.fork()
        self.same(fork.search(queries, 50), before, "a fork")
        fork.add(self.ids([1, COUNT]), self.vectors(2, seed=3))
        fork.remove(self.ids([0, 2]))
        self.same(index.search(queries, 50), before, "an index whose fork was changed")
        expect((len(index), len(fork)) == (COUNT, COUNT - 1), "an index and its fork share their changes")
        changed = fork.search(queries, 50)
        index.remove(self.ids(range(COUNT)))
        self.same(fork.search(queries, 50), changed, "a fork whose original was changed")

    def test_saving(self) -> None:
        """What is loaded answers as what was saved; saving twice, or what was loaded, gives identical bytes."""
        index, queries = self.filled(), self.queries()
        index.remove(self.ids([1, 2]))
        state, files = saved(index)
        expect(saved(index) == (state, files), "saving twice gives different bytes")
        with reloaded(index, self.make()) as loaded:
            expect(len(loaded) == len(index), f"{len(index)} vectors were saved, {len(loaded)} loaded")
            self.same(loaded.search(queries, 50), index.search(queries, 50), "after loading")
            expect(alike(loaded.vectors(self.ids([5, 4])), index.vectors(self.ids([5, 4])), 0), "loaded vectors differ")
            expect(saved(loaded) == (state, files), "saving what was loaded gives different bytes")
            for changed in (loaded, index):
                changed.add(self.ids([0, 1]), self.vectors(2, seed=3))
                changed.remove(self.ids([9]))
            self.same(loaded.search(queries, 50), index.search(queries, 50), "changed after loading")
        self.same(
            self._made_again().search(queries, 50), self.filled().search(queries, 50), "loaded over other vectors"
        )

    def test_threads(self) -> None:
        """Searches running while one thread forks and changes, or changes in place, see one state or the other."""
        index, queries = self.filled(), self.queries()
        before = index.search(queries, 10)

        def change() -> list[list[Ranking]]:
            for i in range(10):
                fork = index.fork()
                fork.add(self.ids([COUNT + i, i]), self.vectors(2, seed=i))
                fork.remove(self.ids([30]))
            return []

        search = [lambda: [index.search(queries, 10) for _ in range(20)]] * THREADS
        for answers in at_once([*search, change]):
            for found in answers:
                self.same(found, before, "while another thread forks and adds")
        index.remove(self.ids([COUNT - 1]))
        after = index.search(queries, 10)

        def toggle() -> list[list[Ranking]]:
            for _ in range(10):
                index.add(self.ids([COUNT - 1]), take(self.vectors(COUNT), [COUNT - 1]))
                index.remove(self.ids([COUNT - 1]))
            return []

        for answers in at_once([*search, toggle]):
            for found in answers:
                expect(len(found) == len(before), "a ranking is missing while another thread adds and removes")
                if self.exact:
                    seen = [r.ids in (b.ids, a.ids) for r, b, a in zip(found, before, after, strict=True)]
                    expect(all(seen), "a search saw half of a change")

    def _made_again(self) -> Index:
        """A filled index, loaded into one that held others."""
        other = self.make()
        other.add(["other"], self.vectors(1, seed=9))
        with reloaded(self.filled(), other) as loaded:
            return loaded.fork()

    def _damaged(self, value: float) -> Vectors:
        """Two vectors, one with a component that is not finite."""
        vectors = take(self.vectors(2), [0, 1])
        flat: Any = vectors.data if isinstance(vectors, csr_array) else getattr(vectors, "values", vectors).reshape(-1)
        flat[-1] = value
        return cast(Vectors, vectors)

    def _wider(self) -> Vectors:
        """Two vectors of one dimension too many."""
        vectors = self.vectors(2)
        if isinstance(vectors, csr_array):
            return csr_array((vectors.data, vectors.indices, vectors.indptr), shape=(2, vectors.shape[1] + 1))
        if isinstance(vectors, MultiVectors):
            return MultiVectors(np.pad(vectors.values, ((0, 0), (0, 1))), vectors.offsets)
        return np.pad(vectors, ((0, 0), (0, 1)))

"""What every retriever must do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from ..errors import InvalidInput
from ..protocols import Retriever, Updatable
from ..types import Document, Query, Ranking
from .checks import THREADS, at_once, expect, expect_same, refused

WORDS = ("cat", "dog", "mat", "poem", "sonnet", "line", "house", "river", "stone", "bread")
ODD_IDS = ("a b", "a/b", "../x", "🦜", "é", "Ω" * 100, "0", "None", "a\nb", "a\0b", " ")


class RetrieverContract:
    """Tests that a retriever answers queries as `ragistry.protocols.Retriever` says.

    Define `make`. For a retriever that takes documents, use `UpdatableContract`, which adds to these tests. One that brings
    its own documents overrides `documents` and `queries` to say which.

    Attributes:
        tolerance: How far rounding may move a score, relative to the largest.

    Example:
        >>> from ragistry import Ranking
        >>> class Shortest:
        ...     ids = ("a", "ab", "abc")
        ...     def search(self, queries, k=10, *, among=None):
        ...         found = [i for i in self.ids if among is None or i in among]
        ...         return [Ranking.of(found, [-len(i) for i in found], k) for query in queries]
        >>> class TestShortest(RetrieverContract):
        ...     def make(self):
        ...         return Shortest()
        ...     def documents(self):
        ...         return [Document(i, "") for i in Shortest.ids]
        >>> TestShortest().test_among()
    """

    tolerance: ClassVar[float] = 1e-4

    def make(self) -> Retriever:
        """The retriever, with the same settings each time; empty, if it takes documents."""
        raise InvalidInput(f"{type(self).__name__} does not say how to make the retriever; define `make`")

    def documents(self) -> list[Document]:
        """What it searches: at least 3 documents, no two with equal text."""
        made = [
            Document(f"doc {i:02}", " ".join(WORDS[(i * j + j) % len(WORDS)] for j in range(3 + i % 5)) + f" {i}")
            for i in range(24)
        ]
        return [
            *made,
            Document("titled", "cat and dog", title="Sonnet 18", metadata={"year": 1609}),
            Document("empty", ""),
        ]

    def queries(self) -> list[Query]:
        """What it is asked, at least 2 queries."""
        return ["cat", "a sonnet of stone and bread", "river house dog", "poem line mat 7", "titled sonnet 18"]

    def filled(self) -> Retriever:
        """The retriever over all the documents."""
        retriever = self.make()
        if isinstance(retriever, Updatable):
            retriever.add(self.documents())
        return retriever

    def same(self, found: Sequence[Ranking], expected: Sequence[Ranking], message: str) -> None:
        """Fail unless rankings agree up to rounding."""
        expect_same(found, expected, self.tolerance, message)

    def test_is_a_retriever(self) -> None:
        """It has the method, and finds something."""
        retriever = self.filled()
        expect(isinstance(retriever, Retriever), f"{type(retriever).__name__} has no method `search`")
        expect(
            any(map(len, retriever.search(self.queries()))), "none of the queries finds anything; override `queries`"
        )

    def test_one_ranking_per_query(self) -> None:
        """Queries together, in any order or twice, find what each alone finds."""
        retriever, queries = self.filled(), self.queries()
        together = retriever.search(queries, 5)
        expect(all(isinstance(ranking, Ranking) for ranking in together), "an answer is no Ranking")
        self.same(retriever.search(queries[::-1], 5)[::-1], together, "queries backwards")
        self.same(retriever.search(queries * 2, 5), together * 2, "every query twice")
        for query, ranking in zip(queries, together, strict=True):
            self.same(retriever.search([query], 5), [ranking], f"{query!r} alone")

    def test_k(self) -> None:
        """At most `k` hits, 10 if not said, none for 0; `k` beyond the number of documents is fine."""
        retriever, queries = self.filled(), self.queries()
        count = len(self.documents())
        known = {document.id for document in self.documents()}
        everything = retriever.search(queries, count)
        for k in (0, 1, 3, 10 * count):
            found = retriever.search(queries, k)
            expect(len(found) == len(queries), f"k={k}: {len(queries)} queries gave {len(found)} rankings")
            expect(all(len(ranking) <= k for ranking in found), f"k={k} found more")
            expect(all(set(ranking.ids) <= known for ranking in found), "an id was found that no document has")
            self.same(found, [ranking.head(k) for ranking in everything], f"k={k} compared with k={count}")
        self.same(retriever.search(queries), [ranking.head(10) for ranking in everything], "k left out")

    def test_among(self) -> None:
        """Only allowed ids are found, and the filter comes before the ranking."""
        retriever, queries = self.filled(), self.queries()
        for query, everything in zip(queries, retriever.search(queries, len(self.documents())), strict=True):
            worst = everything.ids[len(everything) // 2 :]
            for among in (worst, list(worst), frozenset([*worst, "nowhere"])):
                found = retriever.search([query], 2, among=among)[0]
                expect(set(found.ids) <= set(worst), f"{query!r}: an id that is not allowed was found")
                expect(len(found) == min(2, len(worst)), f"{query!r}: documents were lost; filter first, then rank")
        for nothing in ([], frozenset[str](), ["nowhere"]):
            lengths = [len(ranking) for ranking in retriever.search(queries, 5, among=nothing)]
            expect(lengths == [0] * len(queries), f"among={nothing!r} found something")

    def test_no_queries(self) -> None:
        """No queries give no rankings."""
        expect(self.filled().search([], 5) == [], "no queries gave some rankings")

    def test_odd_queries(self) -> None:
        """Queries may be empty, blank, in any script, or a megabyte long."""
        odd = [
            "",
            " \t\n",
            "?!…",
            "\0",
            "東京 𝔘𝔫𝔦 🦜",
            "'; DROP TABLE documents; --",
            "word " * 200_000,
            "x" * 1_000_000,
        ]
        found = self.filled().search([*odd, *self.queries()], 5)
        self.same(found[len(odd) :], self.filled().search(self.queries(), 5), "among odd queries")

    def test_bad_queries_are_refused(self) -> None:
        """One text instead of a list, and queries that are no text, are refused."""
        retriever: Any = self.filled()
        for bad in ("one text", [None], [3], [b"bytes"]):
            with refused(f"search({bad!r})"):
                retriever.search(bad, 5)

    def test_asking_changes_nothing(self) -> None:
        """The same question gets the same answer."""
        retriever, queries = self.filled(), self.queries()
        before = retriever.search(queries, 5)
        retriever.search([*queries[::-1], "something else"], 7, among=["doc 01"])
        expect(retriever.search(queries, 5) == before, "asked again, the answer is another")

    def test_threads(self) -> None:
        """Several threads at once, the first call included, get what one alone gets."""
        queries = self.queries()
        expected = self.filled().search(queries, 5)
        retriever = self.filled()
        for found in at_once([lambda: retriever.search(queries, 5)] * THREADS):
            self.same(found, expected, "threads searching at once")

"""What every retriever that takes documents must do besides answering."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from ..protocols import Updatable
from ..types import Document, Ranking
from .checks import THREADS, at_once, expect, refused, reloaded, saved
from .retriever import ODD_IDS, RetrieverContract


class UpdatableContract(RetrieverContract):
    """Tests that a retriever adds, replaces, removes, forks and stores as `ragistry.protocols.Updatable` says.

    Define `make`. The tests of `RetrieverContract` are run as well.

    Example:
        >>> from ragistry import create
        >>> class TestBM25(UpdatableContract):
        ...     def make(self):
        ...         return create("bm25")
        >>> TestBM25().test_removing_is_absence()
    """

    def holding(self, documents: Sequence[Document]) -> Updatable:
        """A retriever over these documents."""
        retriever = self.make()
        expect(
            isinstance(retriever, Updatable), f"{type(retriever).__name__} takes no documents; use RetrieverContract"
        )
        updatable = cast(Updatable, retriever)
        updatable.add(documents)
        return updatable

    def answers(self, retriever: Updatable) -> list[Ranking]:
        """All that it finds."""
        return retriever.search(self.queries(), 100)

    def test_is_updatable(self) -> None:
        """It has the methods, and an empty one finds nothing."""
        empty = self.holding([])
        empty.remove(["nowhere"])
        with reloaded(empty, self.holding(self.documents())) as loaded:
            for one in (empty, empty.fork(), loaded):
                expect([len(r) for r in self.answers(one)] == [0] * len(self.queries()), "an empty one finds something")
        empty.add(self.documents())
        self.same(self.answers(empty), self.answers(self.holding(self.documents())), "filled after being empty")

    def test_batches_are_invisible(self) -> None:
        """Documents added one by one answer as all at once."""
        retriever = self.holding([])
        for document in self.documents():
            retriever.add([document])
        self.same(self.answers(retriever), self.answers(self.holding(self.documents())), "added one by one")

    def test_adding_again_replaces(self) -> None:
        """A document that is added again has only its new text."""
        documents = self.documents()
        changed = [Document(documents[i].id, documents[i + 1].text + " changed") for i in (0, 4)]
        retriever = self.holding(documents)
        retriever.add(changed)
        kept = [document for i, document in enumerate(documents) if i not in {0, 4}]
        self.same(self.answers(retriever), self.answers(self.holding([*kept, *changed])), "after adding again")
        retriever.add([documents[0], documents[4]])
        self.same(self.answers(retriever), self.answers(self.holding(documents)), "after changing back")

    def test_what_is_the_same_may_be_copied(self) -> None:
        """Told that a text is there already, it answers as if it had not been told."""
        documents = self.documents()
        copies = [Document(f"copy {i}", documents[i].text, documents[i].title) for i in (0, 4)]
        retriever = self.holding(documents)
        retriever.add(copies, same={copies[0].id: documents[0].id, copies[1].id: documents[4].id})
        self.same(self.answers(retriever), self.answers(self.holding([*documents, *copies])), "after adding copies")

    def test_removing_is_absence(self) -> None:
        """After removing, it answers as if what was removed had never been there."""
        documents = self.documents()
        retriever = self.holding(documents)
        retriever.remove(i for i in [*(document.id for document in documents[::3]), "nowhere"])
        kept = [document for i, document in enumerate(documents) if i % 3]
        self.same(self.answers(retriever), self.answers(self.holding(kept)), "after removing")
        retriever.add(documents[::3])
        self.same(self.answers(retriever), self.answers(self.holding(documents)), "after adding back")
        retriever.remove([document.id for document in documents])
        expect([len(r) for r in self.answers(retriever)] == [0] * len(self.queries()), "something is left of nothing")

    def test_bad_documents_are_refused(self) -> None:
        """Ids given twice, and what is no document, are refused, and leave the retriever as it was."""
        retriever: Any = self.holding(self.documents())
        before = self.answers(retriever)
        twice = [Document("twice", "cat"), Document("twice", "dog")]
        for bad in (twice, ["a text"], [None], [Document("new", "cat"), {"id": "a", "text": "cat"}], "a text"):
            with refused(f"add({bad!r:.60})"):
                retriever.add(bad)
        with refused("remove() of one text instead of a list"):
            retriever.remove("titled")
        self.same(self.answers(retriever), before, "after refused calls")

    def test_odd_ids(self) -> None:
        """Ids may hold spaces, slashes, emoji, line ends and null characters."""
        text = self.documents()[0].text
        retriever = self.holding([Document(name, f"{text} {'cat ' * i}") for i, name in enumerate(ODD_IDS)])
        with reloaded(retriever, self.holding([])) as loaded:
            for one in (retriever, loaded):
                found = one.search([text], 100, among=ODD_IDS)[0]
                expect(set(found.ids) == set(ODD_IDS), f"of {len(ODD_IDS)} ids, {sorted(found.ids)} were found")

    def test_fork(self) -> None:
        """Changing a fork leaves its original as it was, and the other way round."""
        documents = self.documents()
        retriever = self.holding(documents)
        before = self.answers(retriever)
        fork = retriever.fork()
        self.same(self.answers(fork), before, "a fork")
        expect(fork.recipe == retriever.recipe, "a fork has another recipe")
        fork.add([Document(documents[1].id, "sonnet"), Document("new", "cat poem river")])
        fork.remove([documents[0].id])
        changed = self.answers(fork)
        self.same(self.answers(retriever), before, "a retriever whose fork was changed")
        retriever.remove([document.id for document in documents])
        self.same(self.answers(fork), changed, "a fork whose original was changed")

    def test_saving(self) -> None:
        """What is loaded answers as what was saved; saving twice, or what was loaded, gives identical bytes."""
        documents = self.documents()
        retriever = self.holding(documents)
        retriever.remove([documents[2].id])
        before = saved(retriever)
        expect(saved(retriever) == before, "saving twice gives different bytes")
        with reloaded(retriever, self.holding([Document("other", "cat")])) as loaded:
            self.same(self.answers(loaded), self.answers(retriever), "after loading")
            expect(saved(loaded) == before, "saving what was loaded gives different bytes")
            for changed in (loaded, retriever):
                changed.add([documents[2], Document(documents[3].id, "sonnet")])
                changed.remove([documents[5].id])
            self.same(self.answers(loaded), self.answers(retriever), "changed after loading")

    def test_searching_while_changing(self) -> None:
        """Searches running while one thread forks and changes the fork see the state they started from."""
        documents, queries = self.documents(), self.queries()
        retriever = self.holding(documents)
        before = retriever.search(queries, 5)

        def change() -> list[list[Ranking]]:
            for i in range(5):
                fork = retriever.fork()
                fork.add([Document(f"new {i}", "cat sonnet"), Document(documents[i].id, "changed")])
                fork.remove([documents[-1].id])
            return []

        for answers in at_once([*[lambda: [retriever.search(queries, 5) for _ in range(5)]] * THREADS, change]):
            for found in answers:
                self.same(found, before, "while another thread forks and adds")

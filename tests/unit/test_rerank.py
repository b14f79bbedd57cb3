"""What reranking accepts, refuses and keeps, and which texts it reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest

from ragistry import Collection, Document, Ranking, create, register
from ragistry.errors import Corrupt, InvalidInput, StorageError
from ragistry.protocols import Reading, Retriever, Updatable
from ragistry.registry import Recipe
from ragistry.retrievers.fuse import Fuse
from ragistry.retrievers.rerank import RememberedScores, Rerank
from ragistry.testing import UpdatableContract
from ragistry.testing.checks import reloaded, saved
from ragistry.types import Among, Floats


class Letters:
    """Scores a document by the share of its letters that the query has too."""

    def __init__(self, watch: Callable[[], None] = lambda: None) -> None:
        self.watch, self.calls, self.asked = watch, 0, list[str]()

    def score(self, query: str, documents: Sequence[Document]) -> Floats:
        self.watch()
        self.calls += 1
        self.asked += [document.id for document in documents]
        found = [set(document.full_text) for document in documents]
        return np.array([len(set(query) & letters) / (1 + len(letters)) for letters in found], np.float32)


class Listed:
    """A retriever that takes no documents, with the same ranking for every query."""

    def __init__(self, ids: Iterable[str]) -> None:
        self.ids = tuple(ids)

    def search(self, queries: Sequence[str], k: int = 10, *, among: Among = None) -> list[Ranking]:
        found = [value for value in self.ids if among is None or value in among]
        return [Ranking(tuple(found), np.arange(len(found), 0, -1, np.float32)).head(k) for _ in queries]


class LettersRecipe(Recipe):
    """BM25 that sees no lengths, reranked by letters."""

    name: Literal["letters"] = "letters"
    weight: float = 1.0
    scorers: ClassVar[list[Letters]] = []

    def build(self) -> Retriever:
        self.scorers.append(Letters())
        return Rerank(create("bm25", b=0.0), self.scorers[-1], weight=self.weight)

    def variants(self, retriever: Any) -> Iterable[tuple[Recipe, Retriever]]:
        for tenths in range(11):
            yield self.model_copy(update={"weight": tenths / 10}), retriever.weighted(tenths / 10)


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragistry.registry._registered", {})
    register(LettersRecipe)
    LettersRecipe.scorers.clear()


class TestRerank(UpdatableContract):
    @pytest.fixture(autouse=True, params=[3, 100], ids=["few scored", "all scored"])
    def settings(self, request: pytest.FixtureRequest) -> Iterator[None]:
        self.depth = request.param
        yield

    def make(self) -> Retriever:
        return Rerank(create("bm25"), Letters(), depth=self.depth, batch=2)


POEMS = [Document("a", "cat abc"), Document("b", "cat xyz"), Document("c", "cat qqq", title="zzz")]


def filled(scorer: Any = None, **settings: Any) -> Rerank:
    made = Rerank(create("bm25"), scorer or Letters(), **({"weight": 1.0} | settings))
    made.add(POEMS)
    return made


def found(retriever: Any, query: str = "cat", k: int = 10) -> tuple[str, ...]:
    ids: tuple[str, ...] = retriever.search([query], k)[0].ids
    return ids


@pytest.mark.parametrize(
    "settings",
    [
        {"depth": 0}, {"depth": 1.5}, {"batch": 0}, {"batch": "2"}, {"weight": -0.1}, {"weight": 1.1}, {"weight": "1"},
        {"weight": float("nan")}, {"normalise": "softmax"}, {"normalise": "maximum"}, {"budget_ms": -1},
        {"budget_ms": float("inf")}, {"budget_ms": float("nan")}, {"budget_ms": "9"}, {"scorer": object()},
        {"first": Letters()},
    ],
)  # fmt: skip
def test_bad_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(
        InvalidInput, match=r"[Ss]corer|Retriever" if settings.keys() & {"first", "scorer"} else next(iter(settings))
    ):
        Rerank(**({"first": Listed("ab"), "scorer": Letters()} | settings))


@pytest.mark.parametrize("asked", [{"queries": "cat"}, {"queries": [3]}, {"k": "3"}, {"k": 2.5}, {"among": "12"}])
@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_bad_questions_are_refused(asked: dict[str, Any], weight: float) -> None:
    with pytest.raises(InvalidInput, match=next(iter(asked))[:4]):
        filled(weight=weight).search(**({"queries": ["cat"]} | asked))


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_nothing_is_found_where_nothing_may_be(weight: float) -> None:
    made = filled(scorer := Letters(), weight=weight)
    assert made.search([]) == []
    assert [len(ranking) for k in (0, -1) for ranking in made.search(["cat", "cat"], k)] == [0] * 4
    assert [len(ranking) for ranking in made.search(["cat", "unheard"], among=[])] == [0, 0]
    assert scorer.calls == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.ones((1, 3), np.float32), r"Wrong scored 3 documents with ndarray of shape \(1, 3\)"),
        (np.ones(2, np.float32), r"shape \(2,\)"),
        (1.0, r"shape \(\)"),
        (np.array([1, np.nan, 2]), "Wrong gave the document 'b' the score nan for 'cat'"),
        (np.array([1, 2, -np.inf]), "document 'c' the score -inf"),
        ([1.0, 2.0, 1e300], "document 'c' the score inf"),
        (None, "NoneType"),
        (["high", "low", "low"], "Wrong scored 3 documents with .*'high'.*; numbers are needed"),
    ],
)
def test_what_a_scorer_gives_is_checked(given: Any, message: str) -> None:
    class Wrong:
        def score(self, query: str, documents: Sequence[Document]) -> Any:
            return given

    for made in (filled(Wrong()), filled(Wrong()).weighted(0.5)):
        with pytest.raises(InvalidInput, match=message):
            made.search(["cat"])


def test_scores_are_asked_for_in_batches_in_the_first_order() -> None:
    filled(scorer := Letters(), batch=2).search(["cat", "unheard", "cat"])
    assert (scorer.calls, scorer.asked) == (4, ["a", "b", "c"] * 2)


def test_first_must_take_documents_to_be_updated() -> None:
    made = Rerank(Listed("ab"), Letters(), weight=1.0)
    for change in (lambda: made.add(POEMS), lambda: made.remove(["a"]), made.fork, lambda: saved(made)):
        with pytest.raises(InvalidInput, match="Listed"):
            change()
    made.read_from(lambda ids: [Document(value, value) for value in ids])
    assert found(made, "b") == ("b", "a")


def test_a_text_that_is_nowhere_is_named() -> None:
    made = filled()
    made.first.add([Document("beside", "cat")])  # type: ignore[attr-defined]
    with pytest.raises(InvalidInput, match="the text of 'beside' is not there"):
        made.search(["cat"])


class TestKeeping:
    def test_new_texts_count(self) -> None:
        made = filled()
        assert found(made, "cat xyz") == ("b", "a", "c")
        made.add([Document("b", "cat"), Document("c", "cat xyz")])
        assert found(made, "cat xyz") == ("c", "b", "a")
        made.remove(["c"])
        assert found(made, "cat xyz") == ("b", "a")

    def test_forks_keep_their_own(self) -> None:
        made = filled()
        fork = made.fork()
        fork.add([Document("b", "cat qqqwwweee"), Document("d", "xyz cat")])
        fork.remove(["a"])
        assert found(made, "cat xyz") == ("b", "a", "c")
        assert found(fork, "cat xyz") == ("d", "c", "b")
        made.remove(["a", "b", "c"])
        assert found(fork, "cat xyz") == ("d", "c", "b")

    def test_what_is_gone_is_not_kept(self) -> None:
        made = filled()
        made.remove(iter(["a", "c", "nowhere"]))
        assert list(made._kept) == ["b"]
        with reloaded(made, filled()) as loaded:
            assert list(loaded._kept) == ["b"]
        made.remove(["b"])
        assert "documents" not in saved(made)[0]
        with reloaded(made, filled()) as loaded:
            assert loaded._kept == {}

    def test_saved_texts_are_whole(self) -> None:
        odd = Document("🦜\0", 'é\n"\\ \u2028', title="Ω", metadata={"n": [1, None, {"é": 2.5}], "t": ()})
        made = filled()
        made.add([odd])
        with reloaded(made, Rerank(create("bm25"), Letters(), weight=1.0)) as loaded:
            assert list(loaded._kept.values()) == [
                *POEMS,
                Document(odd.id, odd.text, odd.title, {**odd.metadata, "t": []}),
            ]
            assert found(loaded, "cat xyz") == found(made, "cat xyz")

    def test_metadata_that_json_cannot_hold_is_named(self) -> None:
        made = filled()
        made.add([Document("d", "cat", metadata={"when": object()})])
        with pytest.raises(InvalidInput, match=r"'d'.*'when'"):
            saved(made)

    def test_what_is_bound_keeps_none(self) -> None:
        made = filled()
        assert "documents" in saved(made)[0]
        made.read_from(lambda ids: [Document(value, "other") for value in ids])
        made.add([Document("d", "cat")])
        assert (made._kept, sorted(saved(made)[0])) == ({}, ["first"])
        with reloaded(filled(), made) as loaded:
            assert (loaded._kept, len(found(loaded))) == ({}, 3)

    def test_reading_is_passed_down(self) -> None:
        inner = Rerank(Listed("ab"), Letters())
        plain = Listed("ab")
        outer = Rerank(Fuse({"inner": inner, "plain": plain}, missing="minimum"), Letters())
        assert isinstance(outer, Reading) and isinstance(outer.first, Reading) and not isinstance(plain, Reading)
        assert isinstance(outer, Updatable)
        outer.read_from(lambda ids: [Document(value, value) for value in ids])
        assert found(outer, "b") == ("b", "a")


class TestWeighted:
    def test_eleven_weights_cost_one_scoring(self) -> None:
        made, queries = filled(scorer := Letters(), weight=0.3), ["cat xyz", "cat"]
        expected = [filled(weight=tenths / 10).search(queries) for tenths in range(11)]
        assert [made.weighted(tenths / 10).search(queries) for tenths in range(11)] == expected
        assert sorted(scorer.asked) == sorted("abc" * 2)
        assert made.weighted(1.0).weighted(0.5).search(queries) == expected[5]
        assert sorted(scorer.asked) == sorted("abc" * 2)
        assert (made.weight, made.scorer) == (0.3, scorer)

    def test_nothing_is_remembered_of_other_texts(self) -> None:
        made = filled()
        for change in (
            lambda: made.add([Document("b", "cat")]),
            lambda: (made.remove(["a"]), made.add([Document("a", "cat xy")])),
            lambda: made.read_from(lambda ids: [Document(value, "xyz") for value in ids]),
        ):
            made.weighted(1.0).search(["cat xyz"])
            change()
            assert made.weighted(1.0).search(["cat xyz"]) == made.search(["cat xyz"])
        made = filled()
        made.weighted(1.0).search(["cat xyz"])
        fork = made.fork()
        fork.add([Document("b", "cat")])
        for one in (made, fork):
            assert one.weighted(1.0).search(["cat xyz"]) == one.search(["cat xyz"])

    def test_one_that_is_given_other_texts_forgets(self) -> None:
        changed, made = Document("b", "cat qwerty"), filled().weighted(1.0)
        texts = {document.id: document for document in [*POEMS, changed]}
        assert found(made, "cat xyz") == ("b", "a", "c")
        added, bound, other = made.fork(), made.fork(), filled()
        added.add([changed])
        bound.read_from(lambda ids: [texts[value] for value in ids])
        other.add([changed])
        with reloaded(other, made.fork()) as loaded:
            for one in (added, bound, loaded):
                assert found(one, "cat xyz") == ("a", "c", "b")
        assert found(made, "cat xyz") == ("b", "a", "c")

    def test_bad_weights_are_refused(self) -> None:
        for weight in (-1, 2, float("nan"), "1"):
            with pytest.raises(InvalidInput, match="weight"):
                filled().weighted(weight)  # type: ignore[arg-type]

    def test_a_document_given_twice(self) -> None:
        twice = RememberedScores(scorer := Letters())
        assert len(set(twice.score("cat", [POEMS[0], POEMS[0]]).tolist())) == 1
        assert scorer.asked == ["a"]
        assert twice.score("cat", []).shape == (0,)


@pytest.fixture(params=["letters", "hybrid"])
def docs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Collection]:
    settings: dict[str, Any] = {}
    if request.param == "hybrid":
        settings = {"members": {"a": "bm25", "b": "letters"}, "weights": {"a": 0.001}, "missing": "minimum"}
    with Collection.create(tmp_path / "docs", create(request.param, **settings)) as made:
        made.add(POEMS)
        yield made


def ids(docs: Collection, query: str = "cat xyz") -> list[str]:
    return [hit.id for hit in docs.search(query)]


def rerank_of(retriever: Any) -> Rerank:
    inner: Rerank = retriever.members["b"] if isinstance(retriever, Fuse) else retriever
    return inner


class TestCollection:
    def test_changes_are_read(self, docs: Collection) -> None:
        assert ids(docs) == ["b", "a", "c"]
        docs.add([Document("b", "cat"), Document("c", "cat xyz")])
        assert ids(docs) == ["c", "b", "a"]
        docs.add(Document("c", "cat xyz", metadata={"year": 1609}))  # the retriever is not told
        assert ids(docs) == ["c", "b", "a"]
        docs.remove("c")
        assert ids(docs) == ["b", "a"]
        assert [hit.id for hit in docs.search("cat", where={"year": 1609})] == []
        docs.check()

    def test_texts_are_stored_once(self, docs: Collection) -> None:
        docs.search("cat")
        assert rerank_of(docs.retriever())._kept == {}
        with Collection.open(docs.path) as again:
            assert again.search("cat xyz") == docs.search("cat xyz")
            assert rerank_of(again.retriever())._kept == {}
        state = docs._store.current().manifest.state
        assert "documents" not in str(state)

    def test_another_collection_follows(self, docs: Collection) -> None:
        with Collection.open(docs.path) as reader:
            for i in range(4):
                docs.add([Document("b", "cat"), Document("c", "cat xyz")] if i % 2 else POEMS)
                assert ids(reader) == ids(docs) == (["c", "b", "a"] if i % 2 else ["b", "a", "c"])

    def test_each_state_reads_its_own_texts(self, docs: Collection) -> None:
        before = docs.retriever()
        docs.add([Document("b", "cat"), Document("c", "cat xyz")])
        assert found(before, "cat xyz") == ("b", "a", "c")
        assert found(docs.retriever(), "cat xyz") == ("c", "b", "a")
        docs.add(Document("d", "dog"))
        with pytest.raises(StorageError, match="purged"):
            before.search(["cat xyz"])

    def test_a_state_that_shares_its_retriever(self, docs: Collection) -> None:
        view = docs._store.current()
        source = rerank_of(view.retriever)._source
        with docs._store.writer():
            docs._store.commit(view, view.retriever, [], [], view.manifest.documents)
        assert rerank_of(view.retriever)._source is source is not rerank_of(docs.retriever())._source
        assert found(view.retriever) == found(docs.retriever())

    @pytest.mark.parametrize("ask", ["search", "evaluate"])
    def test_a_state_cleared_away_while_searching_is_asked_again(self, docs: Collection, ask: str) -> None:
        with Collection.open(docs.path) as reader:
            reader.search("cat")
            left = iter(range(2))

            def commit_twice() -> None:
                if next(left, None) is not None:
                    docs.add([Document("b", "cat"), Document("c", "cat xyz")])
                    docs.remove("a")

            rerank_of(reader.retriever()).batch = 1
            LettersRecipe.scorers[-1].watch = commit_twice
            if ask == "search":
                assert ids(reader) == ["c", "b"]
            else:
                assert reader.evaluate({"1": "cat xyz"}, {"1": {"c": 1}}, ["RR@1"]).means == {"RR@1": 1.0}

    def test_a_document_that_the_corpus_lost_is_damage(self, docs: Collection) -> None:
        view = docs._store.current()
        fork = view.retriever.fork()
        with docs._store.writer():
            docs._store.commit(view, fork, [], ["b"], 2)
        with pytest.raises(Corrupt, match="'b' that the corpus does not hold"):
            docs.search("cat")

    def test_fit_chooses_a_weight(self, tmp_path: Path) -> None:
        pairs = [(f"word{i}", f"short {i}") for i in range(60)]
        with Collection.create(tmp_path / "fitted", create("letters", weight=0.0)) as docs:
            # The long text has the word twice, and letters that the query has not.
            docs.add(Document(f"short {i}", f"word{i}") for i in range(60))
            docs.add(Document(f"long {i}", f"word{i} word{i} abcxyz") for i in range(60))
            old = docs.retriever()
            result = docs.fit(pairs)
            assert result.kept and result.fitted == 1.0 and result.recipe.weight > 0
            scored = sum(len(scorer.asked) for scorer in LettersRecipe.scorers)
            assert scored == 2 * 60, "each query's two hits are scored once"
            assert docs.search("word7")[0].id == "short 7"
            assert found(old, "word7") == ("long 7", "short 7")
            assert rerank_of(docs.retriever())._kept == {}
            with Collection.open(docs.path) as again:
                assert again.search("word7") == docs.search("word7")


def test_scores_of_one_query_do_not_depend_on_others() -> None:
    made = filled(weight=0.6, normalise="z-score")
    alone: Mapping[str, list[Ranking]] = {query: made.search([query]) for query in ("cat", "cat xyz", "abc")}
    assert made.search(list(alone)) == [ranking for [ranking] in alone.values()]

"""What feedback accepts, refuses and keeps, and what its recipes build."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragistry import Collection, Document, create
from ragistry.encoders.functions import Function, register_encoder
from ragistry.errors import FingerprintMismatch, InvalidInput, UnknownName
from ragistry.indexes.faiss import Faiss
from ragistry.indexes.foreign import Foreign
from ragistry.protocols import Expander, Feedback, Reading, Retriever
from ragistry.registry import recipe
from ragistry.retrievers.expanders import RM3, VectorPRF
from ragistry.retrievers.interpolated import Interpolated
from ragistry.retrievers.prf import PRF
from ragistry.retrievers.searcher import Searcher
from ragistry.testing import UpdatableContract
from ragistry.testing.checks import reloaded
from ragistry.types import Hit

MODEL = "letters of prf"
DENSE = {"name": "dense", "model": MODEL}
SPECS: dict[str, dict[str, Any]] = {
    "vector-prf": {"name": "vector-prf", "first": DENSE},
    "average": {"name": "vector-prf", "first": DENSE, "mode": "average", "depth": 3},
    "of adder": {"name": "vector-prf", "first": {**DENSE, "name": "adder"}},
    "no feedback": {"name": "vector-prf", "first": DENSE, "depth": 0},
    "rm3": {"name": "rm3"},
    "rm3 of rare words": {"name": "rm3", "common": 0.2, "depth": 2},
    "rm3 of any word": {"name": "rm3", "common": None, "depth": 3, "terms": 4, "weight": 0.2},
    "rm3 of query likelihood": {"name": "rm3", "first": "query-likelihood", "common": 0.5},
    "before": {"name": "interpolated-prf", "dense": DENSE, "position": "before"},
    "after": {"name": "interpolated-prf", "dense": DENSE, "position": "after"},
    "both": {"name": "interpolated-prf", "dense": DENSE, "sparse": "rm3", "depth": 30},
}
POEMS = [
    Document("a", "a sonnet of love", metadata={"tenant": 1}),
    Document("b", "love and roses", metadata={"tenant": 1}),
    Document("c", "a sonnet of stone", metadata={"tenant": 2}),
    Document("d", "stone and water", metadata={"tenant": 2}),
    Document("e", "a cat", metadata={"tenant": 1}),
]


def letters(texts: list[str]) -> np.ndarray:
    return np.array([[1 + text.count(letter) for letter in "abcdemnoprst"] for text in texts], np.float32)


@pytest.fixture(autouse=True, scope="module")
def _model() -> None:
    register_encoder(MODEL, letters)


class TestPRF(UpdatableContract):
    @pytest.fixture(autouse=True, params=SPECS.values(), ids=SPECS.keys())
    def settings(self, request: pytest.FixtureRequest) -> Iterator[None]:
        self.spec = request.param
        yield

    def make(self) -> Retriever:
        return create(self.spec)


class Reader:
    """An expander that reads, and changes nothing."""

    def __init__(self) -> None:
        self.read: list[tuple[str, ...]] = []

    def expand(self, query: str, vector: Any, feedback: Feedback) -> Any:
        assert len(feedback.documents) == len(feedback.scores) == feedback.vectors.shape[0]  # type: ignore[union-attr]
        self.read.append(tuple(document.text for document in feedback.documents))
        return vector


class Store:
    """Someone else's."""

    def near(self, vector: Any, k: int, where: Any = None) -> list[Hit]:
        return []

    async def anear(self, vector: Any, k: int, where: Any = None) -> list[Hit]:
        return []

    def get(self, ids: Sequence[str]) -> list[Document]:
        return []


def near(index: Any = None) -> Searcher:
    return Searcher(Function(letters, MODEL), Faiss() if index is None else index)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"searcher": create("hybrid", members={"a": "bm25"})}, "Fuse is no Searcher"),
        ({"searcher": create("bm25")}, "VectorPRF expands dense queries, the searcher's are sparse"),
        ({"expander": RM3()}, "RM3 expands sparse queries, the searcher's are dense"),
        ({"expander": object()}, "object has no method `expand`"),
        ({"searcher": near(Foreign(Store()))}, r"someone else's \(Store\) gives none; keep the documents"),
        ({"depth": -1}, "depth=-1"),
        ({"depth": 2.5}, "depth=2.5"),
        ({"common": 0.1}, "common=0.1"),
        ({"searcher": create("bm25"), "expander": RM3(), "common": 0.0}, "common=0.0"),
        ({"searcher": create("bm25"), "expander": RM3(), "common": 1.5}, "common=1.5"),
        ({"first": "bm25"}, "str has no method `search`"),
    ],
)
def test_what_does_not_fit_together_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        PRF(**({"searcher": near(), "expander": VectorPRF()} | settings))


@pytest.mark.parametrize(
    "make",
    [
        lambda: VectorPRF("mean"),  # type: ignore[arg-type]
        lambda: VectorPRF(alpha=-1.0),
        lambda: VectorPRF(beta=float("nan")),
        lambda: VectorPRF(alpha=float("inf")),
        lambda: VectorPRF(alpha=0.0, beta=0.0),
        lambda: VectorPRF(alpha="1"),  # type: ignore[arg-type]
        lambda: RM3(terms=0),
        lambda: RM3(terms=2.5),  # type: ignore[arg-type]
        lambda: RM3(weight=1.5),
        lambda: RM3(weight=float("nan")),
        lambda: Interpolated(create("bm25"), near(), VectorPRF(), position="between"),  # type: ignore[arg-type]
        lambda: Interpolated(create("bm25"), near(), VectorPRF(), weight=1.5),
        lambda: Interpolated(create("bm25"), create("bm25"), VectorPRF()),  # type: ignore[arg-type]
        lambda: Interpolated(create("bm25"), near(), VectorPRF(), feedback=-1),
    ],
)
def test_bad_settings_are_refused(make: Any) -> None:
    with pytest.raises(InvalidInput):
        make()


@pytest.mark.parametrize("fields", [{"alpha": 0, "beta": 0}, {"beta": -1}, {"depth": -1}, {"mode": "mean"}])
def test_bad_fields_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="vector-prf"):
        recipe({"name": "vector-prf", **fields})


def test_recipes_say_what_they_cannot_look_with() -> None:
    with pytest.raises(InvalidInput, match="VectorPRF expands dense queries"):
        create("vector-prf", first="bm25")
    with pytest.raises(InvalidInput, match="known queries"):
        create("vector-prf", first={**DENSE, "name": "pefa-xl"})
    for other in (DENSE, {"name": "hybrid", "members": {"a": "bm25"}}):
        with pytest.raises(InvalidInput, match=f"'{other['name']}' searches no words"):
            create("rm3", first=other)


def test_expanders_are_expanders() -> None:
    assert isinstance(VectorPRF(), Expander)
    assert isinstance(RM3(), Expander)


def test_a_first_look_of_others_keeps_the_documents() -> None:
    looking = PRF(near(), VectorPRF(), first=create("bm25"))
    for change in (lambda: looking.add(POEMS), lambda: looking.remove(["a"]), looking.fork):
        with pytest.raises(InvalidInput, match=r"kept by the first look \(Searcher\)"):
            change()


def test_a_first_look_that_finds_what_the_searcher_lacks() -> None:
    words: Any = create("bm25")
    words.add(POEMS)
    looking = near()
    looking.add(POEMS[:1])
    with pytest.raises(UnknownName):
        PRF(looking, VectorPRF(), first=words).search(["sonnet"])


def test_another_encoder_is_noticed_behind_a_first_look() -> None:
    words: Any = create("bm25")
    words.add(POEMS)
    filled, other = near(), Searcher(Function(letters, "another"), Faiss())
    filled.add(POEMS)
    with reloaded(filled, other) as loaded, pytest.raises(FingerprintMismatch):
        PRF(loaded, VectorPRF(), first=words).search(["sonnet"])


def test_expanders_may_read_texts() -> None:
    by_id = {document.id: document for document in POEMS}
    for base in (near(), create("bm25")):
        reader = Reader()
        looking = PRF(base, reader, depth=2)  # type: ignore[arg-type]
        looking.add(POEMS)
        with pytest.raises(InvalidInput, match="none are there: call `read_from`"):
            looking.search(["a cat"])
        assert isinstance(looking, Reading)
        looking.read_from(lambda ids: [by_id[id] for id in ids])
        assert looking.search(["a cat"], 3) == looking.searcher.search(["a cat"], 3)
        assert reader.read[-1][0] == "a cat"
        assert looking.fork().search(["a cat"], 3) == looking.search(["a cat"], 3)


def test_expanders_between_fusions_may_read_texts() -> None:
    by_id, reader = {document.id: document for document in POEMS}, Reader()
    made = Interpolated(create("bm25"), near(), reader, position="before", weight=1.0, feedback=1)
    made.add(POEMS)
    made.read_from(lambda ids: [by_id[id] for id in ids])
    assert len(made.fork().search(["cat"])[0]) == len(POEMS)
    assert reader.read == [("a cat",)]


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_a_collection_keeps_them(spec: dict[str, Any], tmp_path: Path) -> None:
    expected: Any = create(spec)
    expected.add(POEMS)
    with Collection.create(tmp_path / "docs", create(spec)) as docs:
        docs.add([*POEMS, Document("gone", "a sonnet of love and cats")])
        docs.remove(["gone"])
        queries = ["sonnet", "love", "a cat of stone", "unheard"]
        rankings = expected.search(queries, 4)
        assert [[(hit.id, hit.score) for hit in hits] for hits in docs.search_many(queries, 4)] == list(
            map(list, rankings)
        )
        for hits in docs.search_many(queries, where={"tenant": 2}):
            assert {hit.id for hit in hits} <= {"c", "d"}
        assert docs.search("sonnet", 0) == []
        assert docs.search("sonnet", where={"tenant": 3}) == []
    with Collection.open(tmp_path / "docs") as docs:
        assert [[hit.id for hit in hits] for hits in docs.search_many(queries, 4)] == [list(r.ids) for r in rankings]


def test_words_of_other_tenants_do_not_reach_a_collections_filter(tmp_path: Path) -> None:
    with Collection.create(tmp_path / "docs", create("rm3")) as docs:
        docs.add(POEMS)
        assert [hit.id for hit in docs.search("sonnet")] == ["a", "c", "b", "d"]
        assert [hit.id for hit in docs.search("sonnet", where={"tenant": 1})] == ["a", "b"]
        assert [hit.id for hit in docs.search("roses", where={"tenant": 2})] == []


@pytest.mark.parametrize("name", ["vector-prf", "rm3", "both"])
def test_variants_are_what_their_recipes_build(name: str) -> None:
    documents, queries = UpdatableContract().documents(), UpdatableContract().queries()
    made: Any = create(SPECS[name])
    made.add(documents)
    variants = list(made.recipe.variants(made))
    assert len({str(other.model_dump()) for other, _ in variants}) == len(variants) > 10
    for other, candidate in variants[::5]:
        built: Any = create(other)
        built.add(documents)
        assert candidate.search(queries, 20) == built.search(queries, 20)
    assert made.search(queries, 20) != variants[0][1].search(queries, 20)


def test_no_feedback_is_among_what_fit_chooses_from() -> None:
    documents, queries = UpdatableContract().documents(), UpdatableContract().queries()
    for name in ("vector-prf", "rm3"):
        made: Any = create(SPECS[name])
        made.add(documents)
        assert next(iter(made.recipe.variants(made)))[1].search(queries, 20) == made.searcher.search(queries, 20)


@pytest.mark.parametrize(("name", "field"), [("vector-prf", "depth"), ("rm3", "depth"), ("both", "feedback")])
def test_fit_may_turn_feedback_on_again(name: str, field: str) -> None:
    made: Any = create(SPECS[name], **{field: 0})
    looked_at = [getattr(other, field) for other, _ in made.recipe.variants(made)]
    assert sum(count > 0 for count in looked_at) >= 16


def test_fit_turns_feedback_off_where_it_hurts(tmp_path: Path) -> None:
    """Each query's answer holds its word; the words beside it lead to many others."""
    documents = [Document(f"{i}", f"key{i} chaff{i} straw{i}") for i in range(60)]
    documents += [Document(f"other {i} {j}", f"chaff{i} straw{i}") for i in range(60) for j in range(3)]
    with Collection.create(tmp_path / "docs", create("rm3", weight=0.0, terms=2)) as docs:
        docs.add(documents)
        fit = docs.fit({f"key{i}": [f"{i}"] for i in range(60)}, measure="nDCG@10")
        assert fit.kept
        assert fit.fitted == 1.0
        assert docs.search("key7", 1)[0].id == "7"

"""Collections whose retriever is taught by pairs: what is kept, what is stored, and what happens to it afterwards."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from hashlib import blake2b
from itertools import combinations, count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragistry import Collection, Document, create
from ragistry.encoders import functions
from ragistry.encoders.functions import Function, register_encoder
from ragistry.encoders.projected import Projected, Projection
from ragistry.errors import FingerprintMismatch
from ragistry.evaluation.selection import Fit
from ragistry.protocols import Retriever
from ragistry.retrievers.adapted import Adapted, Memory
from ragistry.retrievers.neighbours import Neighbours
from ragistry.testing import UpdatableContract

from .test_collection import arrays

WIDTH, THINGS = 32, 16
QUICK = {"name": "adder", "epochs": 3, "learning_rate": 0.1}
"""A few steps are enough for so small a language."""
LEARNERS: dict[str, tuple[dict[str, Any], str]] = {
    "both sides": (QUICK | {"memory": False}, "balanced"),
    "memory": (QUICK, "balanced"),
    "query": (QUICK | {"side": "query"}, "balanced"),
    "shared": (QUICK | {"side": "shared", "rank": 16, "memory": False}, "unseen"),
    "softmax": (QUICK | {"form": "softmax", "rank": 16, "memory": False}, "balanced"),
    "pefa-xs": ({"name": "pefa-xs"}, "seen"),
    "pefa-xl": ({"name": "pefa-xl", "neighbours": 4}, "seen"),
}
_numbers = count()


@cache
def vector(word: str) -> np.ndarray:
    return np.random.default_rng(list(blake2b(word.encode("utf-8"), digest_size=8).digest())).standard_normal(WIDTH)


class Words:
    """The sum of a random vector for each word; counts the texts it is asked for."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        self.asked.update(texts)
        counted = [Counter(text.split()) for text in texts]
        return np.array([sum((n * vector(word) for word, n in c.items()), np.full(WIDTH, 1e-3)) for c in counted])


def chosen_things() -> list[tuple[int, ...]]:
    """80 sets of three things, each thing in about as many."""
    sets = list(combinations(range(THINGS), 3))
    return [sets[i] for i in sorted(np.random.default_rng(0).choice(len(sets), 80, replace=False))]


# Documents and queries share no word: there is a map from one language to the other, and it is linear.
SETS = chosen_things()
DOCUMENTS = [Document(f"d{i}", " ".join(f"thing{t}" for t in things)) for i, things in enumerate(SETS)]
PAIRS = [
    (" ".join(f"ask{t}" for t in things[turn:] + things[:turn]) + extra, f"d{i}")
    for i, things in enumerate(SETS)
    for turn, extra in ((0, ""), (1, " please"))
]
QUERIES = [query for query, _ in PAIRS[::7]]


def made(path: Path, spec: dict[str, Any], documents: Sequence[Document] = DOCUMENTS) -> tuple[Collection, Words]:
    """A collection over an encoder of its own."""
    words, name = Words(), f"words {next(_numbers)}"
    register_encoder(name, words)
    collection = Collection.create(path, create(spec | {"model": name}))
    collection.add(documents)
    return collection, words


def found(searcher: Any) -> list[list[tuple[str, float]]]:
    return [[(hit.id, hit.score) for hit in hits] for hits in searcher.search_many(QUERIES, 5)]


def right(collection: Collection) -> float:
    """The share of queries that find their document first."""
    hits = collection.search_many([query for query, _ in PAIRS], 1)
    return float(np.mean([hit[0].id == id for hit, (_, id) in zip(hits, PAIRS, strict=True)]))


def without_times(fit: Fit) -> dict[str, Any]:
    shown = fit.to_json() | {"seconds": 0}
    for point in shown["history"].get("points", ()):
        point["seconds"] = 0
    return shown


@pytest.mark.parametrize(("spec", "goal"), LEARNERS.values(), ids=LEARNERS)
def test_what_is_learnt_is_kept_and_stays(tmp_path: Path, spec: dict[str, Any], goal: str) -> None:
    docs, words = made(tmp_path / "docs", spec)
    tried = list[int]()
    fit = docs.fit([*PAIRS, ("nobody knows", "nowhere")], goal=goal, progress=tried.append)
    # Every text was encoded once: documents when they were added, queries now; what is nowhere, never.
    assert words.asked == Counter({document.text: 1 for document in DOCUMENTS} | {query: 1 for query, _ in PAIRS})
    assert fit.kept and fit.p < 0.05
    assert fit.base < fit.fitted <= fit.headroom == 1.0
    assert (fit.goal, fit.skipped, fit.queries[0]) == (goal, 1, len(PAIRS))
    assert set(fit.parts) == {"seen", "unseen"}
    assert fit.queries[1] == sum(part["queries"] for part in fit.parts.values())
    assert len(fit.tried) == fit.candidates and set(tried) == {1}
    assert fit.chosen and not fit.chosen.startswith("nothing")
    assert (docs.recipe, docs.info()["generation"]) == (fit.recipe.model_dump(mode="json"), 2)
    assert right(docs) > 0.3
    with Collection.open(docs.path) as again:
        assert found(again) == found(docs)
    docs.check()
    docs.save(tmp_path / "copy")
    with Collection.open(tmp_path / "copy") as copy:
        assert found(copy) == found(docs)
        copy.check()


@pytest.mark.parametrize("spec", [QUICK, {"name": "pefa-xs"}, {"name": "pefa-xl"}], ids=lambda spec: spec["name"])
def test_what_does_not_help_is_not_kept(tmp_path: Path, spec: dict[str, Any]) -> None:
    docs, _ = made(tmp_path / "docs", spec)
    before, files, hits = docs.info(), arrays(docs), found(docs)
    draw = np.random.default_rng(0)
    fit = docs.fit([(f"noise{i} word{i}", DOCUMENTS[draw.integers(80)].id) for i in range(60)])
    assert not fit.kept
    assert (docs.info(), arrays(docs), found(docs)) == (before, files, hits)
    assert found(docs) == hits


def test_what_hurts_documents_without_examples_is_kept_only_if_asked_for(tmp_path: Path) -> None:
    docs, _ = made(tmp_path / "docs", {"name": "pefa-xs"})
    fit = docs.fit(PAIRS)
    assert not fit.kept and "unseen" in fit.chosen
    assert docs.fit(PAIRS, goal="seen").parts["seen"]["fitted"] > fit.parts["seen"]["fitted"]


def test_auto_tries_several_maps(tmp_path: Path) -> None:
    docs, words = made(tmp_path / "docs", QUICK | {"rank": "auto", "memory": False, "epochs": 2})
    fit = docs.fit(PAIRS)
    assert fit.kept
    assert {"query", "both"} == {label.split(", ")[2] for label in fit.tried}
    assert {"full", "rank 32", "rank 128"} == {label.split(", ")[1] for label in fit.tried}
    assert set(words.asked.values()) == {1}


@pytest.mark.parametrize("spec", [QUICK, {"name": "pefa-xl"}], ids=lambda spec: spec["name"])
def test_fitting_again_starts_from_the_vectors_as_they_were(tmp_path: Path, spec: dict[str, Any]) -> None:
    docs, _ = made(tmp_path / "docs", spec)
    first = docs.fit(PAIRS, goal="seen")
    hits, names = found(docs), set(arrays(docs))
    second = docs.fit(PAIRS, goal="seen")
    assert without_times(second) == without_times(first)
    assert (found(docs), set(arrays(docs))) == (hits, names)  # files are named by their content


def test_a_fusion_teaches_its_members(tmp_path: Path) -> None:
    words = Words()
    register_encoder("words of a member", words)
    members = {"words": "bm25", "model": QUICK | {"model": "words of a member"}}
    with Collection.create(tmp_path / "docs", create("hybrid", members=members)) as docs:
        docs.add(DOCUMENTS)
        fit = docs.fit(PAIRS)
        assert fit.kept and fit.chosen.startswith("model: a linear map") and not fit.parts
        assert right(docs) > 0.3
        with Collection.open(docs.path) as again:
            assert found(again) == found(docs)
        docs.check()
    assert all(words.asked[document.text] == 1 for document in DOCUMENTS)


@pytest.mark.parametrize("side", ["query", "both"])
def test_documents_come_and_go_after_fitting(tmp_path: Path, side: str) -> None:
    docs, words = made(tmp_path / "docs", QUICK | {"side": side}, DOCUMENTS[:70])
    assert docs.fit(PAIRS[:140]).kept
    docs.add(DOCUMENTS[70:])
    docs.remove(["d3", "d5"])
    docs.add([Document("d4", DOCUMENTS[8].text), Document("twin", DOCUMENTS[6].text)])
    asked = Counter(words.asked)
    # As if all had been there from the start, and were taught what was learnt.
    final = list(docs.documents())
    taught: Any = docs.retriever()
    fresh: Any = create(docs.recipe)
    fresh.add(final)
    fresh = fresh.taught([document.id for document in final], taught.projection, taught.memory)
    for one, other in zip(taught.search(QUERIES, 100), fresh.search(QUERIES, 100), strict=True):
        assert dict(one) == pytest.approx(dict(other), abs=1e-5)
    assert {"d4", "d8"} <= {hit.id for hit in docs.search(PAIRS[16][0], 5)}
    assert "d79" in {hit.id for hit in docs.search(PAIRS[158][0], 10)}  # it came after fitting
    np.testing.assert_allclose(taught.encoded(["twin"]), taught.encoded(["d6"]), atol=1e-6)
    assert max(asked.values()) == 1
    with Collection.open(docs.path) as again:
        assert found(again) == found(docs)
    docs.check()


def test_known_queries_may_lose_their_documents(tmp_path: Path) -> None:
    docs, _ = made(tmp_path / "docs", {"name": "pefa-xl", "neighbours": 4})
    assert docs.fit(PAIRS, goal="seen").kept
    query, id = PAIRS[0]
    assert docs.search(query)[0].id == id
    docs.remove(id)
    assert id not in [hit.id for hit in docs.search(query, 100)]
    docs.add(Document(id, "thing1"))
    assert id in [hit.id for hit in docs.search(query, 3)]


def test_a_map_of_queries_leaves_the_index_as_it_is(tmp_path: Path) -> None:
    docs, _ = made(tmp_path / "docs", QUICK | {"side": "query"})
    before = arrays(docs)
    assert docs.fit(PAIRS).kept
    after = arrays(docs)
    assert before.items() <= after.items()
    assert len(after) == len(before) + 1  # the map


def test_vectors_of_another_encoder_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    docs, words = made(tmp_path / "docs", QUICK)
    assert docs.fit(PAIRS).kept
    docs.close()
    monkeypatch.setitem(functions._registered, docs.recipe["model"], Function(words, "another model"))
    with Collection.open(docs.path) as again:
        before = again.info()
        for attempt in (
            lambda: again.search("ask1"),
            lambda: again.add(Document("new", "thing1")),
            lambda: again.fit(PAIRS),
        ):
            with pytest.raises(FingerprintMismatch):
                attempt()
        assert again.info() == before


def test_an_adapter_is_a_file_and_needs_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("huggingface_hub", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    docs, words = made(tmp_path / "docs", QUICK | {"memory": False})
    assert docs.fit(PAIRS).kept
    retriever: Any = docs.retriever()
    adapter = retriever.adapter()
    adapter.save(tmp_path / "adapter.safetensors")
    again = Projected.load(tmp_path, Function(words, docs.recipe["model"]))
    np.testing.assert_array_equal(again.encode(QUERIES, "query"), adapter.encode(QUERIES, "query"))
    assert again.fingerprint() == adapter.fingerprint()


def test_relevance_of_zero_is_a_negative(tmp_path: Path) -> None:
    docs, _ = made(tmp_path / "docs", QUICK | {"memory": False})
    negatives = [(query, f"d{(int(id[1:]) + 1) % 80}", 0) for query, id in PAIRS]
    fit = docs.fit([*PAIRS, *negatives])
    assert fit.kept and fit.queries[0] == len(PAIRS)


class TestTaught(UpdatableContract):
    """Once taught, a retriever keeps the contract all the same."""

    @pytest.fixture(autouse=True, params=["query", "memory", "pefa-xl"])
    def settings(self, request: pytest.FixtureRequest) -> Iterator[None]:
        self.kind = request.param
        register_encoder("words of the contract", self.words)
        yield

    words = Words()

    def make(self) -> Retriever:
        draw = np.random.default_rng(0)
        weights = [draw.standard_normal((WIDTH, WIDTH)).astype(np.float32) / 8 for _ in range(2)]
        means = draw.standard_normal((3, WIDTH)).astype(np.float32)
        ids = ("doc 01", "doc 03", "titled")
        if self.kind == "pefa-xl":
            known: Any = create("pefa-xl", model="words of the contract", neighbours=2)
            assert isinstance(known, Neighbours)
            return known.knowing(means, [ids, ids[:1], ("doc 05", "nowhere")])
        untaught: Any = create("adder", model="words of the contract")
        assert isinstance(untaught, Adapted)
        maps: dict[Any, Any] = {"query": {"weight": weights[0]}}
        if self.kind != "query":
            maps["document"] = {"weight": weights[1]}
        memory = Memory(ids, means, 0.5, crowd=means[:2] / 6, damping=0.5, level=0.1) if self.kind == "memory" else None
        return untaught.taught([], Projection("linear", maps), memory)

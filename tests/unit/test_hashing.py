"""Searchers over learnt codes as users meet them: fitted, saved, opened, changed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ragistry import Collection, Document, create
from ragistry.encoders.functions import Function, register_encoder
from ragistry.encoders.projected import Projection
from ragistry.errors import InvalidInput
from ragistry.evaluation.selection import Fit
from ragistry.indexes.binary import Binary
from ragistry.indexes.faiss import Faiss
from ragistry.registry import BUILT_IN, Lesson
from ragistry.retrievers.learned_codes import Coding, LearnedCodes
from ragistry.training.hashing import Hashed
from ragistry.training.losses import Batch, Sum
from ragistry.training.losses.compression import Annealed, CodeHinge, LambdaRank
from ragistry.types import Floats

D, N = 32, 240
RECIPES = {
    "bpr": "bpr:BPRRecipe",
    "jpq": "jpq:JPQRecipe",
    "bidr": "bidr:BiDRRecipe",
    "income-bpr": "income:IncomeBPRRecipe",
    "income-jpq": "income:IncomeJPQRecipe",
}
SPECS: dict[str, dict[str, Any]] = {
    "bpr": {"name": "bpr"},
    "jpq": {"name": "jpq", "enough": 100, "parts": 8, "found": 20},
    "bidr": {"name": "bidr", "enough": 100, "parts": 8, "depth": 40, "candidates": 40, "epochs": 4},
    "income-bpr": {"name": "income-bpr", "made": 20},
    "income-jpq": {"name": "income-jpq", "enough": 100, "parts": 8, "made": 20, "labels": "genq"},
}
WORDS = [f"word{i}" for i in range(60)]
TURN = np.linalg.qr(np.random.default_rng(1).standard_normal((D, D)))[0]


def embedded(texts: Sequence[str]) -> Floats:
    """A bag of random vectors; those of questions are turned, which can be learnt."""
    found = np.zeros((len(texts), D))
    for row, text in enumerate(texts):
        for word in text.replace("?", " ?").split():
            seed = list(hashlib.sha256(word.encode()).digest()[:8])
            found[row] += np.random.default_rng(seed).standard_normal(D) * (word != "?")
        if text.endswith("?"):
            found[row] = found[row] @ TURN
    return found.astype(np.float32)


DRAW = np.random.default_rng(0)
DOCUMENTS = [Document(f"d{i}", " ".join(DRAW.choice(WORDS, 7, replace=False)) + f" n{i}") for i in range(N)]
PAIRS = {" ".join(document.text.split()[1:6]) + "?": [document.id] for document in DOCUMENTS[:160]}
ASKED = [" ".join(document.text.split()[2:7]) + "?" for document in DOCUMENTS[160:]]


@pytest.fixture(autouse=True, scope="module")
def registered() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        for name, path in RECIPES.items():
            patch.setitem(BUILT_IN, name, f"ragistry.recipes.{path}")
        register_encoder("bag of vectors for codes", embedded)
        yield


def spec(name: str, **changes: Any) -> Any:
    return {
        "model": "bag of vectors for codes",
        "epochs": 8,
        "learning_rate": 0.02,
        "size": 32,
        **SPECS[name],
        **changes,
    }


@cache
def learnt(name: str) -> tuple[Any, Any, Fit]:
    retriever: Any = create(spec(name))
    retriever.add(DOCUMENTS)
    by_id = {document.id: document for document in DOCUMENTS}
    lesson = Lesson(documents=lambda ids: [by_id[id] for id in ids])
    judged = {query: dict.fromkeys(ids, 1) for query, ids in PAIRS.items()}
    taught, fit = retriever.recipe.learn(retriever, judged, [*by_id], lesson)
    return retriever, taught, fit


@pytest.mark.parametrize("name", SPECS)
def test_a_fitted_collection_lives_on(name: str, tmp_path: Path) -> None:
    with Collection.create(tmp_path / "c", create(spec(name))) as collection:
        collection.add(DOCUMENTS)
        untaught: Any = collection.retriever()
        fit = collection.fit(PAIRS)
        assert fit.kept and fit.fitted > fit.base and fit.p < 0.05, "questions are turned, which a linear map undoes"
        taught: Any = collection.retriever()
        assert taught.coding != Coding() and untaught.coding == Coding()
        before = collection.search_many(ASKED, 5)
    with Collection.open(tmp_path / "c") as collection:
        assert collection.search_many(ASKED, 5) == before
        collection.remove([document.id for document in DOCUMENTS[:9]])
        collection.add([Document("new", DOCUMENTS[200].text)])
        alike: Any = collection.retriever()
        [both] = alike.search(ASKED[40:41], 2, among=["new", "d200"])
        assert both.ids == ("d200", "new") and both.scores[0] == both.scores[1], "it is coded as its twin is"
        collection.remove(["new"])
        collection.add(DOCUMENTS[:9])
        after = [[(hit.id, hit.score) for hit in hits] for hits in collection.search_many(ASKED, 5)]
        assert after == [[(hit.id, hit.score) for hit in hits] for hits in before]


@pytest.mark.parametrize("name", ["jpq", "bidr"])
def test_fitting_again_begins_anew(name: str) -> None:
    _, taught, fit = learnt(name)
    by_id = {document.id: document for document in DOCUMENTS}
    judged = {query: dict.fromkeys(ids, 1) for query, ids in PAIRS.items()}
    lesson = Lesson(documents=lambda ids: [by_id[id] for id in ids])
    again, second = taught.recipe.learn(taught, judged, [*by_id], lesson)
    assert replace(second, seconds=0, history={}) == replace(fit, seconds=0, history={})
    assert again.search(ASKED, 5) == taught.search(ASKED, 5)


def test_the_untaught_retriever_stays_as_it_is() -> None:
    retriever, taught, _ = learnt("jpq")
    fresh: Any = create(spec("jpq"))
    fresh.add(DOCUMENTS)
    assert retriever.search(ASKED, 5) == fresh.search(ASKED, 5) != taught.search(ASKED, 5)


def test_pairs_that_teach_nothing_are_not_kept() -> None:
    retriever: Any = create(spec("bpr"))
    retriever.add(DOCUMENTS)
    drawn = np.random.default_rng(5).permutation(N)
    judged = {query: {f"d{drawn[i]}": 1} for i, query in enumerate(PAIRS)}
    _, fit = retriever.recipe.learn(retriever, judged, [document.id for document in DOCUMENTS], Lesson())
    assert not fit.kept


def test_too_few_documents_have_no_codes_to_teach() -> None:
    retriever: Any = create(spec("jpq", enough=1000))
    retriever.add(DOCUMENTS)
    with pytest.raises(InvalidInput, match=r"240 documents .* from 1,000 on.* set `enough` lower"):
        retriever.recipe.learn(retriever, {}, [], Lesson())


@pytest.mark.parametrize("name", RECIPES)
def test_another_index_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match=r"searches codes of its own, has no index, ef"):
        create(spec(name, index="HNSW32", ef=10))


def test_what_cannot_be_coded_leaves_all_as_it_was() -> None:
    odd = Function(lambda texts: [[1.0, 2.0, float(len(text))] for text in texts], "odd")
    searcher = LearnedCodes(odd, Binary, Faiss)
    with pytest.raises(InvalidInput, match="multiple of 8"):
        searcher.add([Document("1", "text")])
    assert len(searcher.index) == 0 and len(searcher.codes) == 0


def test_a_projection_of_documents_codes_them_anew() -> None:
    searcher: Any = LearnedCodes(Function(embedded, "bag"), Binary, Faiss)
    searcher.add(DOCUMENTS)
    ids = [document.id for document in DOCUMENTS]
    flip = Projection("linear", {"document": {"weight": -2 * np.eye(D, dtype=np.float32)}})
    taught: Any = searcher.taught(ids, Coding(flip))
    np.testing.assert_array_equal(taught.codes.vectors(ids), -searcher.codes.vectors(ids))
    np.testing.assert_array_equal(taught.encoded(ids), searcher.encoded(ids))
    taught.add([Document("new", DOCUMENTS[3].text)])
    np.testing.assert_array_equal(taught.codes.vectors(["new"]), taught.codes.vectors(["d3"]))
    assert "new" not in searcher.search([DOCUMENTS[3].text], N)[0].ids


@pytest.mark.parametrize("depth", [0, -1])
def test_a_depth_of_nothing_is_refused(depth: int) -> None:
    with pytest.raises(InvalidInput, match="positive number"):
        LearnedCodes(Function(embedded, "bag"), Binary, Faiss, depth=depth)


def test_sharpness_follows_the_steps_through_a_sum() -> None:
    step = Hashed(8)
    loss = Annealed(Sum([(1.0, CodeHinge())]), growth=0.1)
    for number, wanted in ((0, 1.0), (30, 2.0), (150, 4.0)):
        loss.after_step(step, number)
        assert step.sharpness == pytest.approx(wanted)


def test_the_straight_way_has_the_value_of_a_sign_and_the_gradient_of_tanh() -> None:
    vectors = torch.randn(5, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    hard = Hashed(8, "straight-through").train()({"vector": vectors}, "query")["code"]
    soft = Hashed(8, "tanh").train()({"vector": vectors}, "query")["code"]
    assert hard.detach().abs().allclose(torch.ones(()))
    for code in (hard, soft):
        code.sum().backward(retain_graph=True)
    assert vectors.grad is not None
    [one] = torch.autograd.grad(hard.sum(), vectors, retain_graph=True)
    [other] = torch.autograd.grad(soft.sum(), vectors)
    torch.testing.assert_close(one, other)


def test_a_hinge_counts_bits_by_hand() -> None:
    asked = torch.tensor([[1.0, 1, 1, 1]])
    held = torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, -1], [-1, -1, -1, -1]])
    both = Batch({"code": asked}, {"code": held}, torch.tensor([[1.0, 0, 0]]))

    def given(features: Any, role: str) -> Any:
        return features

    # products 4, 2, -4: lacking max(0, 3 - 2) and 0; the mean of two, over 4 bits and the temperature
    assert CodeHinge(margin=3.0, temperature=0.5)(given, both).item() == pytest.approx(0.5 / 4 / 0.5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Annealed(CodeHinge(), growth=-1),
        lambda: CodeHinge(margin=-1),
        lambda: CodeHinge(temperature=0),
        lambda: LambdaRank(depth=0),
        lambda: LambdaRank(temperature=-1),
        lambda: Hashed(8, "round"),  # type: ignore[arg-type]
    ],
    ids=["growth", "margin", "temperature", "depth", "order's temperature", "smooth"],
)
def test_values_out_of_range_are_refused(make: Any) -> None:
    with pytest.raises(InvalidInput):
        make()

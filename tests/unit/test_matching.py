"""Teaching multi-vector encoders: what is learnt, what stays, what is stored, and what is refused."""

from __future__ import annotations

import random
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from ragistry import Collection, Document, create
from ragistry.encoders.multi import TokenStack, token_stack
from ragistry.errors import InvalidInput
from ragistry.indexes.maxsim import MaxSim as Index
from ragistry.recipes.colbert import ColBERTRecipe
from ragistry.recipes.crisp import CRISPRecipe
from ragistry.registry import BUILT_IN, Lesson, register
from ragistry.retrievers.searcher import Searcher
from ragistry.retrievers.token_tuned import TokenTuned
from ragistry.testing.checks import reloaded
from ragistry.training.live import Live
from ragistry.training.losses import Batch
from ragistry.training.losses.late import MaxSim
from ragistry.training.losses.ranking import InfoNCE
from ragistry.training.matching import Matching, Rankings, Texts, matched, ragged
from ragistry.training.samplers import Sampler
from ragistry.types import MultiVectors, Role

from ..tiny import tiny_model

DRAW = random.Random(3)
LETTERS = string.ascii_lowercase + string.digits
SUBJECTS = ["the", "sonnet", "poem", "line", "cat", "dog", "sat", "on", "mat", "fourteen", "has", "a"]


def word() -> str:
    return "".join(DRAW.sample(LETTERS, 3))


DOCUMENTS = [Document(f"d{i:02}", f"{word()} {word()}") for i in range(len(SUBJECTS))]
BY_ID = {document.id: document for document in DOCUMENTS}
IDS = list(BY_ID)
PAIRS = [
    (f"{DRAW.choice(LETTERS)} {subject} {DRAW.choice(LETTERS)}", document.id)
    for _ in range(9)
    for subject, document in zip(SUBJECTS, DOCUMENTS, strict=True)
]
"""Queries whose words are not in the documents, so that what answers them is to be learnt."""
QUERIES = [query for query, _ in PAIRS]
JUDGED = csr_array(
    (np.ones(len(PAIRS), np.float32), [IDS.index(id) for _, id in PAIRS], np.arange(len(PAIRS) + 1)),
    shape=(len(PAIRS), len(IDS)),
)
WEIGHTS = {"encoder.layer.1.output.dense.bias": np.arange(32, dtype=np.float32)}
FAST: dict[str, Any] = {"precision": "fp32", "learning_rate": 3e-3, "epochs": 10, "temperature": 0.3, "size": 16}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def encoder(folder: Path) -> TokenStack:
    return token_stack(folder, precision="fp32")


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    """Both recipes by name, whether they are built in or not yet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ragistry.registry._registered", {})
        for recipe in (ColBERTRecipe, CRISPRecipe):
            if recipe.model_fields["name"].default not in BUILT_IN:
                register(recipe)
        yield


def held(encoder: TokenStack) -> Index:
    index = Index()
    index.add(IDS, encoder.encode(DOCUMENTS, "document"))
    return index


def read(ids: Any) -> list[Document]:
    return [BY_ID[id] for id in ids]


@pytest.mark.parametrize("documents", [False, True], ids=["queries", "both"])
def test_training_makes_the_loss_small_and_leaves_the_encoder_alone(encoder: TokenStack, documents: bool) -> None:
    index, before = held(encoder), encoder.encode(QUERIES[:9], "query")
    source = Texts(encoder, QUERIES, IDS, index, DOCUMENTS if documents else None)
    settings = Matching(epochs=4, rate=3e-3, size=16, temperature=0.3, documents=documents)
    weights, history = matched(encoder, source, JUDGED, settings)
    losses = [point.loss for point in history.points if point.loss is not None]
    assert len(losses) == 4
    assert losses[-1] < 0.8 * losses[0]
    assert weights and "embeddings.word_embeddings.weight" not in weights
    np.testing.assert_array_equal(encoder.encode(QUERIES[:9], "query").values, before.values)
    again, _ = matched(encoder, source, JUDGED, settings)
    assert all(np.array_equal(weights[name], again[name]) for name in weights)


def test_documents_that_do_not_learn_have_no_gradient(encoder: TokenStack) -> None:
    tuned: tuple[Role, ...] = ("query",)
    live = Live(encoder, None, tuned).train()
    source = Texts(encoder, QUERIES, IDS, held(encoder))
    features = live(source.documents(np.arange(3)), "document")
    assert not features["vector"].requires_grad
    assert live(source.queries(np.arange(3)), "query")["vector"].requires_grad
    batch = next(batches_of(source))
    assert MaxSim(InfoNCE(1.0, "dot"))(live, batch).requires_grad


def batches_of(source: Texts) -> Iterator[Batch]:
    for rows in Sampler(JUDGED, negatives="in-batch", size=8).epoch(0):
        yield Batch(source.queries(rows.queries), source.documents(rows.documents), torch.from_numpy(rows.relevance))


@pytest.mark.parametrize("documents", [False, True], ids=["queries", "both"])
def test_mined_documents_are_the_nearest_wrong_ones(encoder: TokenStack, documents: bool) -> None:
    index = held(encoder)
    source = Texts(encoder, QUERIES, IDS, index, DOCUMENTS if documents else None)
    rows = np.array([3, 40, 77])
    with torch.no_grad():
        found = source.nearest(Live(encoder, None).eval(), rows, 4, JUDGED)
    for row, near in zip(rows, found, strict=True):
        ranking = index.search(encoder.encode([QUERIES[row]], "query"), 5)[0]
        assert [IDS[i] for i in near] == [id for id in ranking.ids if id != PAIRS[row][1]][:4]
    with torch.no_grad():
        few = source.nearest(Live(encoder, None).eval(), rows, 20, JUDGED)
    assert (few[:, :11] >= 0).all()
    assert (few[:, 11:] == -1).all()


def test_documents_come_from_the_index(encoder: TokenStack) -> None:
    index = held(encoder)
    rows = np.array([5, 0, 5])
    found = ragged(Texts(encoder, QUERIES, IDS, index).documents(rows))
    wanted = index.vectors([IDS[row] for row in rows])
    np.testing.assert_array_equal(found.values, wanted.values)
    np.testing.assert_array_equal(found.offsets, wanted.offsets)


def test_rankings_score_what_the_index_finds(encoder: TokenStack) -> None:
    index = held(encoder)
    rankings = Rankings(encoder, index, QUERIES, IDS, 5)
    lines = rankings(np.array([7, 2]))
    for line, row in zip(lines, (7, 2), strict=True):
        ranking = index.search(encoder.encode([QUERIES[row]], "query"), 5)[0]
        assert {IDS[i] for i in np.flatnonzero(np.isfinite(line))} == set(ranking.ids)
        np.testing.assert_array_equal(np.sort(line)[::-1][:5], ranking.scores)
    np.testing.assert_array_equal(rankings(np.array([2]))[0], lines[1])


def test_fit_keeps_what_helps_and_it_is_stored(folder: Path, tmp_path: Path) -> None:
    with Collection.create(tmp_path / "docs", create("colbert", model=str(folder), **FAST)) as collection:
        collection.add(DOCUMENTS)
        before: Any = collection.retriever()
        vectors = before.index.vectors(IDS)
        fit = collection.fit(PAIRS, goal="seen")
        assert fit.kept and fit.fitted > fit.base + 0.1
        assert fit.chosen == "10 epochs of training"
        after: Any = collection.retriever()
        assert before.search(QUERIES[:3]) != after.search(QUERIES[:3])
        np.testing.assert_array_equal(after.index.vectors(IDS).values, vectors.values)
        answers = after.search(QUERIES, 4)
        collection.add(Document("new", "the cat"))
        assert "new" in {hit.id for hit in collection.search("the cat", 20)}
    with Collection.open(tmp_path / "docs") as collection:
        collection.remove(["new"])
        loaded: Any = collection.retriever()
        assert [r.ids for r in loaded.search(QUERIES, 4)] == [r.ids for r in answers]


@pytest.mark.parametrize("documents", [False, True], ids=["queries", "both"])
def test_what_was_taught_is_stored(folder: Path, documents: bool) -> None:
    spec = {"name": "crisp", "model": str(folder), "document_size": 3, "tune_documents": documents}
    retriever: Any = create(spec)
    retriever.add(DOCUMENTS)
    taught = retriever.taught(IDS, WEIGHTS, read)
    one, other = (r.index.vectors(IDS) for r in (retriever, taught))
    assert np.array_equal(one.values, other.values) != documents
    empty: Any = create(spec)
    with reloaded(taught, empty) as loaded:
        assert loaded.search(QUERIES) == taught.search(QUERIES) != retriever.search(QUERIES)
        loaded.add([Document("new", DOCUMENTS[0].text)])  # with the weights that the others were encoded with
        found: Any = loaded.index.vectors(["new", IDS[0]])
        np.testing.assert_array_equal(found[0], found[1])


def test_without_training_fit_changes_nothing(folder: Path, tmp_path: Path) -> None:
    with Collection.create(tmp_path / "docs", create("colbert", model=str(folder), epochs=0)) as collection:
        collection.add(DOCUMENTS)
        assert not collection.fit(PAIRS).kept


def test_weights_change_what_queries_find_and_no_document(encoder: TokenStack) -> None:
    searcher = TokenTuned(encoder, Index)
    searcher.add(DOCUMENTS)
    taught = searcher.taught(IDS, WEIGHTS, read)
    assert taught.encoder is searcher.encoder
    assert taught.search(QUERIES[:5]) != searcher.search(QUERIES[:5])
    one, other = (retriever.index.vectors(IDS) for retriever in (taught, searcher))
    assert isinstance(one, MultiVectors) and isinstance(other, MultiVectors)
    np.testing.assert_array_equal(one.values, other.values)
    assert taught.taught(IDS, {}, read).search(QUERIES[:5]) == searcher.search(QUERIES[:5])
    with pytest.raises(InvalidInput, match="does not fit"):
        searcher.taught(IDS, {"no such weight": np.zeros(3, np.float32)}, read).search(["cat"])
    assert not taught.takes_vectors


def test_what_was_taught_before_is_taught_anew(folder: Path, encoder: TokenStack) -> None:
    recipe: Any = ColBERTRecipe(model=str(folder), epochs=1, size=64, negatives="in-batch")
    judged = {query: {id: 1} for query, id in PAIRS}
    searcher = TokenTuned(encoder, Index)
    searcher.add(DOCUMENTS)
    before, lesson = searcher.taught(IDS, WEIGHTS, read), Lesson(documents=read, goal="seen")
    fits = [recipe.learn(one, judged, IDS, lesson)[1] for one in (searcher, before)]
    assert fits[0].base == fits[1].base
    assert fits[0].tried == fits[1].tried
    assert before.weights == WEIGHTS


def test_a_searcher_computes_equal_texts_once_and_copies_known_ones(encoder: TokenStack) -> None:
    class Counting:
        kind = encoder.kind
        fingerprint = encoder.fingerprint
        seen = 0

        def encode(self, items: Any, role: Any) -> MultiVectors:
            self.seen += len(items)
            return encoder.encode(items, role)

    counting = Counting()
    searcher = Searcher(counting, Index("fp32"))
    searcher.add([Document("1", "the cat"), Document("2", "the cat"), Document("3", "dog")])
    assert counting.seen == 2
    searcher.add([Document("4", "the cat", metadata={"year": 1}), Document("5", "poem")], same={"4": "1"})
    assert counting.seen == 3
    found: Any = searcher.index.vectors(["1", "2", "4"])
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    first = searcher.search(["cat", "dog", "cat"])
    assert counting.seen == 5
    assert searcher.search(["dog", "cat"]) == [first[1], first[0]]
    assert counting.seen == 5


def test_what_cannot_teach_is_refused(folder: Path, encoder: TokenStack) -> None:
    recipe: Any = ColBERTRecipe(model=str(folder))
    searcher = TokenTuned(encoder, Index)
    searcher.add(DOCUMENTS)
    judged = {query: {id: 1} for query, id in PAIRS[:5]}
    with pytest.raises(InvalidInput, match="give `documents`"):
        recipe.learn(searcher, judged, IDS, Lesson())
    with pytest.raises(InvalidInput, match="at least 10"):
        recipe.learn(searcher, judged, IDS, Lesson(documents=read))


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"method": "relative"}, "share above 0"),
        ({"document_size": 2.5}, "whole number"),
        ({"method": "middle"}, "method"),
        ({"query_size": 0}, "query_size"),
        ({"dimension": 99}, "1 to 32"),
    ],
    ids=["share", "whole", "method", "zero", "dimension"],
)
def test_a_recipe_names_the_field_that_is_wrong(folder: Path, fields: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidInput, match=match):
        create("crisp", model=str(folder), **fields)


def test_a_recipe_bounds_the_vectors_of_a_text(folder: Path) -> None:
    retriever: Any = create("crisp", model=str(folder), document_size=4, query_size=None)
    retriever.add(DOCUMENTS)
    assert np.diff(retriever.index.vectors(IDS).offsets).max() == 4
    assert np.diff(retriever.encoder.encode(["poem " * 20], "query").offsets) == [22]

"""Lexicons: their encoders' contract, teaching, saving, and what is refused."""

from __future__ import annotations

import random
import string
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ragistry import Document
from ragistry.encoders.lexical import Expansion, Lexical
from ragistry.encoders.steps.lexicon import Lexicon
from ragistry.errors import FingerprintMismatch, InvalidInput
from ragistry.protocols import Encoder, Retriever
from ragistry.recipes.lexicon import LexiconRecipe
from ragistry.registry import Lesson
from ragistry.retrievers.expanded import Expanded
from ragistry.testing import EncoderContract, UpdatableContract
from ragistry.testing.checks import reloaded, saved
from ragistry.training.adapting import Problem
from ragistry.training.lexicalising import Lexicalising, expanded
from ragistry.training.losses.ranking import InfoNCE
from ragistry.training.losses.sparsity import Sparse
from ragistry.training.teaching import relevance

from ..tiny import tiny_model

DRAW = random.Random(5)
SUBJECTS = ["the", "sonnet", "poem", "line", "cat", "dog", "sat", "on", "mat", "fourteen", "has", "a"]
LETTERS = string.ascii_lowercase[10:] + string.digits
DOCUMENTS = [Document(f"d{i:02}", " ".join(DRAW.sample(LETTERS, 3))) for i in range(len(SUBJECTS))]
PAIRS = {
    f"{DRAW.choice(LETTERS)} {subject} {DRAW.choice(LETTERS)}": {document.id: 1}
    for _ in range(9)
    for subject, document in zip(SUBJECTS, DOCUMENTS, strict=True)
}
"""Queries whose telling words are not in the documents, so that what answers them is to be learnt."""
SETTINGS: dict[str, Any] = {"precision": "fp32", "epochs": 20, "learning_rate": 0.01, "made": 0, "size": 16}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models"))


def masked(folder: Path) -> Path:
    from transformers import BertConfig, BertForMaskedLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        BertForMaskedLM(BertConfig.from_pretrained(folder)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def splade(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return masked(tiny_model(tmp_path_factory.mktemp("models"), seed=1))


def lexical(folder: Path, **settings: Any) -> Lexical:
    return Lexical(folder, precision="fp32", threads=1, **settings)


def expansion(width: int, scale: float = 1.0) -> Expansion:
    idf = np.linspace(0.1, 2.0, width, dtype=np.float32)
    return Expansion(np.arange(5, 40), idf, 4.0, {"shift": np.linspace(-0.5, 0.5, 35, dtype=np.float32)}, scale=scale)


def taught(folder: Path, **settings: Any) -> Lexical:
    encoder = lexical(folder, **settings)
    return encoder.taught(expansion(encoder.width))


class TestUntaught(EncoderContract):
    @pytest.fixture(autouse=True)
    def folders(self, folder: Path, splade: Path) -> Iterator[None]:
        self.folder, self.splade = folder, splade
        yield

    def make(self) -> Encoder:
        return lexical(self.folder)

    def make_other(self) -> Encoder:
        return taught(self.folder)


class TestTaught(TestUntaught):
    def make(self) -> Encoder:
        return taught(self.folder, terms={"query": 12, "document": 20})

    def make_other(self) -> Encoder:
        return taught(self.folder, terms={"query": 12, "document": 21})


class TestPublished(TestUntaught):
    def make(self) -> Encoder:
        return lexical(self.splade, start="model")

    def make_other(self) -> Encoder:
        return lexical(self.splade, start="model", max_length=16)


class TestSearcher(UpdatableContract):
    @pytest.fixture(autouse=True, params=["untaught", "taught", "published"])
    def kind(self, request: pytest.FixtureRequest, folder: Path, splade: Path) -> Iterator[None]:
        makers: dict[str, Callable[[], Lexical]] = {
            "untaught": lambda: lexical(folder),
            "taught": lambda: taught(folder, queries="words"),
            "published": lambda: lexical(splade, start="model"),
        }
        self.encoder = makers[request.param]
        yield

    def make(self) -> Retriever:
        return Expanded(self.encoder())


# Teaching


def documents(ids: Any) -> list[Document]:
    by_id = {document.id: document for document in DOCUMENTS}
    return [by_id[id] for id in ids]


def learnt(folder: Path, judged: Any = PAIRS, **fields: Any) -> tuple[Any, Any, Any]:
    recipe = LexiconRecipe(model=str(folder), **(SETTINGS | fields))
    before: Any = recipe.build()
    before.add(DOCUMENTS)
    after, fit = recipe.learn(
        before, judged, [document.id for document in DOCUMENTS], Lesson("RR", "seen", documents=documents)
    )
    return before, after, fit


@pytest.mark.parametrize(
    "fields", [{}, {"queries": "words"}, {"tune": "full", "tuning_rate": 1e-3, "epochs": 12}], ids=str
)
def test_it_learns_words_that_documents_do_not_hold(folder: Path, fields: Any) -> None:
    before, after, fit = learnt(folder, **fields)
    assert fit.kept and fit.fitted > fit.base + 0.2, (fit.base, fit.fitted, fit.tried)
    assert "strength" in fit.chosen
    losses = [point["loss"] for point in fit.history["points"] if point["loss"] is not None]
    assert losses[-1] < losses[0]
    queries = list(PAIRS)
    answers = [next(iter(found)) for found in PAIRS.values()]
    right = [
        sum(answer in ranking.ids[:1] for answer, ranking in zip(answers, one.search(queries, 1), strict=True))
        for one in (before, after)
    ]
    assert right[1] > right[0] + len(queries) / 3
    assert bool(after.lexical.expansion.tuned) == ("tune" in fields)
    # The untaught one stays as it was, and what was learnt is saved and loaded.
    assert before.lexical.expansion is None and before.index.weighting != after.index.weighting
    assert saved(after) == saved(after)
    with reloaded(after, LexiconRecipe(model=str(folder), **(SETTINGS | fields)).build()) as loaded:  # type: ignore[type-var]
        for one, other in zip(loaded.search(queries), after.search(queries), strict=True):
            assert one.ids == other.ids and np.allclose(one.scores, other.scores, rtol=1e-5)
    # Documents that come later are weighed by what was learnt.
    more = after.fork()
    more.add([Document("new", DOCUMENTS[3].text)])
    assert "new" in more.search(["line"], 3)[0].ids
    assert "new" not in after.search(["line"], 13)[0].ids


def test_taught_again_it_is_compared_with_the_untaught(folder: Path) -> None:
    fields = SETTINGS | {"queries": "words"}
    _, after, fit = learnt(folder, **fields)
    recipe = LexiconRecipe(model=str(folder), **fields)
    again, other = recipe.learn(after, PAIRS, [d.id for d in DOCUMENTS], Lesson("RR", "seen", documents=documents))
    assert (other.base, other.fitted, other.tried) == (fit.base, fit.fitted, fit.tried)
    assert saved(again) == saved(after)


def test_what_does_not_help_is_not_kept(folder: Path) -> None:
    draw = random.Random(1)
    nonsense = {query: {draw.choice(DOCUMENTS).id: 1} for query in PAIRS}
    before, after, fit = learnt(folder, nonsense, epochs=1)
    assert not fit.kept and after is before


def test_a_published_model_learns_on_and_keeps_its_word_embeddings(splade: Path) -> None:
    recipe = LexiconRecipe(model=str(splade), start="model", precision="fp32")
    made: Any = recipe.build()
    made.add(DOCUMENTS)
    queries, ids = list(PAIRS), [document.id for document in DOCUMENTS]
    texts, held = np.empty((len(queries), 0), np.float32), np.empty((len(ids), 0), np.float32)
    problem = Problem(queries, texts, ids, held, relevance(queries, PAIRS, ids))
    settings = Lexicalising(epochs=8, rate=0.01, size=16, temperature=3.0)
    found, history = expanded(made.lexical, problem, DOCUMENTS, problem.judged, settings)
    losses = [point.loss for point in history.points if point.loss is not None]
    assert losses[-1] < 0.9 * losses[0]
    assert not len(found.idf) and len(found.columns) == made.lexical.width
    assert found.weights and not any("decoder.weight" in name for name in found.weights)
    after = made.taught(ids, found, documents)
    assert [ranking.ids for ranking in after.search(queries)] != [ranking.ids for ranking in made.search(queries)]
    with reloaded(after, recipe.build()) as loaded:  # type: ignore[type-var]
        assert [ranking.ids for ranking in loaded.search(queries)] == [ranking.ids for ranking in after.search(queries)]


# Without torch, and what is refused


def test_words_need_no_torch(folder: Path) -> None:
    code = """
import sys
import numpy as np
from ragistry import Document
from ragistry.encoders.lexical import Expansion
from ragistry.recipes.lexicon import LexiconRecipe
made = LexiconRecipe(model=sys.argv[1], queries="words").build()
made.add([Document("1", "the cat"), Document("2", "a dog")])
assert made.search(["cat"])[0].ids == ("1",)
taught = made.lexical.taught(Expansion(np.arange(9), np.ones(made.lexical.width, np.float32), 2.0))
assert taught.encode(["the cat cat"], "query").data.tolist() == [1.0, 2.0]
assert not {"torch", "transformers"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_cannot_be_is_refused(folder: Path, tmp_path: Path) -> None:
    for wrong in ({"start": "nothing"}, {"queries": "none"}, {"terms": {"query": 0}}, {"terms": {"other": 3}}):
        with pytest.raises(InvalidInput, match=r"give|use"):
            Lexical(folder, **wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="masked-LM head"):
        lexical(folder, start="model").encode(["cat"], "document")
    with pytest.raises(InvalidInput, match="importance"):
        Lexicon(nn.Identity(), 3, importance=np.array([1, -1, 1], np.float32))
    with pytest.raises(InvalidInput, match="importance"):
        Lexicon(nn.Identity(), 3, importance=np.ones(2, np.float32))
    with pytest.raises(InvalidInput, match="2 are needed"):
        Lexicon(nn.Identity(), 3).start(np.ones((1, 3), np.float32))
    with pytest.raises(InvalidInput, match="at least 0"):
        Sparse(InfoNCE(), -1, 0)
    bare = tmp_path / "bare"
    bare.mkdir()
    with pytest.raises(InvalidInput, match=r"tokenizer\.json"):
        lexical(bare).encode(["cat"], "query")
    (bare / "tokenizer.json").write_text("{")
    with pytest.raises(InvalidInput, match="restore"):
        lexical(bare).encode(["cat"], "query")


def test_a_model_may_be_asked_first_of_all(splade: Path) -> None:
    assert lexical(splade, start="model").stack().encode(["cat"], "query").shape == (1, lexical(splade).width)


def test_another_pooling_than_the_maximum_is_refused(tmp_path: Path) -> None:
    import json

    folder = masked(tiny_model(tmp_path, seed=2))
    types = {"": "MLMTransformer", "1_SpladePooling": "SpladePooling"}
    (folder / "modules.json").write_text(json.dumps([{"path": path, "type": f"x.{t}"} for path, t in types.items()]))
    (folder / "1_SpladePooling").mkdir()
    (folder / "1_SpladePooling" / "config.json").write_text('{"pooling_strategy": "sum"}')
    with pytest.raises(InvalidInput, match="pools by"):
        lexical(folder, start="model").encode(["cat"], "document")


def test_without_texts_nothing_is_learnt(folder: Path) -> None:
    recipe = LexiconRecipe(model=str(folder), **SETTINGS)
    made: Any = recipe.build()
    made.add(DOCUMENTS)
    ids = [document.id for document in DOCUMENTS]
    with pytest.raises(InvalidInput, match="documents"):
        recipe.learn(made, PAIRS, ids, Lesson())
    with pytest.raises(InvalidInput, match="at least 10"):
        recipe.learn(made, dict(list(PAIRS.items())[:9]), ids, Lesson(documents=documents))


def test_what_was_made_by_another_model_is_refused(folder: Path, splade: Path) -> None:
    made: Any = Expanded(lexical(folder))
    made.add(DOCUMENTS)
    with (
        reloaded(made, Expanded(lexical(splade))) as loaded,
        pytest.raises(FingerprintMismatch, match="another encoder"),
    ):
        loaded.search(["cat"])

"""Feedback that is read: teaching, saving, the contract, and what is refused."""

from __future__ import annotations

import random
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ragistry import Document
from ragistry.encoders.backbones import stack
from ragistry.encoders.functions import Function
from ragistry.errors import InvalidInput
from ragistry.indexes.faiss import Faiss
from ragistry.protocols import Retriever
from ragistry.recipes.ance_prf import AncePRFRecipe
from ragistry.registry import Lesson
from ragistry.retrievers.expanders import TextPRF
from ragistry.retrievers.searcher import Searcher
from ragistry.retrievers.text_feedback import Rereading, separator_of
from ragistry.testing import UpdatableContract
from ragistry.testing.checks import reloaded, saved

from ..tiny import tiny_model

DRAW = random.Random(5)
SUBJECTS = ["the", "sonnet", "poem", "line", "cat", "dog", "sat", "on", "mat", "fourteen", "has", "a"]
LETTERS = string.ascii_lowercase + string.digits
DOCUMENTS = [Document(f"d{i:02}", " ".join(DRAW.sample(LETTERS, 3))) for i in range(len(SUBJECTS))]
PAIRS = {
    f"{DRAW.choice(LETTERS)} {subject} {DRAW.choice(LETTERS)}": {document.id: 1}
    for _ in range(9)
    for subject, document in zip(SUBJECTS, DOCUMENTS, strict=True)
}
IDS = [document.id for document in DOCUMENTS]
SETTINGS: dict[str, Any] = {"precision": "fp32", "epochs": 12, "learning_rate": 3e-3, "negatives": 5, "depth": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models"))


def documents(ids: Any) -> list[Document]:
    by_id = {document.id: document for document in DOCUMENTS}
    return [by_id[id] for id in ids]


def learnt(folder: Path, judged: Any = PAIRS, **fields: Any) -> tuple[Any, Any, Any]:
    recipe = AncePRFRecipe(model=str(folder), **(SETTINGS | fields))
    before: Any = recipe.build()
    before.add(DOCUMENTS)
    before.read_from(documents)
    after, fit = recipe.learn(before, judged, IDS, Lesson("RR", "seen", documents=documents))
    return before, after, fit


def test_it_learns_to_read_and_documents_stay_as_they_are(folder: Path) -> None:
    before, after, fit = learnt(folder)
    assert fit.kept and fit.fitted > fit.base + 0.2, (fit.base, fit.fitted)
    assert "2 documents" in fit.chosen
    losses = [point["loss"] for point in fit.history["points"] if point["loss"] is not None]
    assert losses[-1] < losses[0]
    assert saved(after.searcher) == saved(before.searcher)
    queries, answers = list(PAIRS), [next(iter(found)) for found in PAIRS.values()]
    right = [
        sum(answer in ranking.ids[:1] for answer, ranking in zip(answers, one.search(queries, 1), strict=True))
        for one in (before, after)
    ]
    assert right[1] > right[0] + len(queries) / 4
    assert before.search(queries) == before.searcher.search(queries)
    # What was learnt is saved, loaded, forked, and put off by loading what was not taught.
    assert saved(after) == saved(after)
    fresh: Any = AncePRFRecipe(model=str(folder), **SETTINGS).build()
    with reloaded(after, fresh) as loaded:
        for one in (loaded, loaded.fork()):
            one.read_from(documents)
            for mine, wanted in zip(one.search(queries[:9]), after.search(queries[:9]), strict=True):
                assert mine.ids == wanted.ids and np.allclose(mine.scores, wanted.scores, atol=1e-5)
        with reloaded(before, loaded) as plain:
            assert plain.search(queries[:9]) == before.search(queries[:9])


def test_what_does_not_help_is_not_kept(folder: Path) -> None:
    draw = random.Random(1)
    nonsense = {query: {draw.choice(IDS): 1} for query in PAIRS}
    before, after, fit = learnt(folder, nonsense, epochs=1, learning_rate=1e-5)
    assert not fit.kept and after is before and fit.chosen


def test_what_cannot_be_is_refused(folder: Path) -> None:
    base = stack(folder, precision="fp32", threads=1)
    for length in (0, 1.5):
        with pytest.raises(InvalidInput, match="whole number"):
            TextPRF(base, " ", length)  # type: ignore[arg-type]
    words: Any = Function(lambda texts: [[len(text), 1] for text in texts], "length of text feedback")
    with pytest.raises(InvalidInput, match="shows no tokens"):
        Rereading(Searcher(words, Faiss())).taught({"a": np.ones(1, np.float32)}, " ")
    made = Rereading(Searcher(base, Faiss()))
    made.add(DOCUMENTS)
    taught = made.taught({"no such weight": np.ones(1, np.float32)}, separator_of(base))
    with pytest.raises(InvalidInput, match="read_from"):
        taught.search(["cat"])
    taught.read_from(documents)
    with pytest.raises(InvalidInput, match="no such weight"):
        taught.search(["cat"])
    recipe = AncePRFRecipe(model=str(folder), **(SETTINGS | {"depth": 0}))
    with pytest.raises(InvalidInput, match="depth=0"):
        recipe.learn(recipe.build(), PAIRS, IDS, Lesson(documents=documents))
    with pytest.raises(InvalidInput, match="documents"):
        recipe.learn(made, PAIRS, IDS, Lesson())


class TestContract(UpdatableContract):
    @pytest.fixture(autouse=True)
    def settings(self, folder: Path) -> Iterator[None]:
        self.recipe = AncePRFRecipe(model=str(folder), precision="fp32")
        yield

    def make(self) -> Retriever:
        return self.recipe.build()

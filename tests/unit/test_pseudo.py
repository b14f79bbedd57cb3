"""Queries made from documents, mined negatives, and a teacher's labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

from ragistry.encoders.functions import Function
from ragistry.errors import InvalidInput
from ragistry.scorers.language_model import LanguageModel
from ragistry.scorers.query_likelihood import QueryLikelihood
from ragistry.training.adapting import Problem
from ragistry.training.pseudo import Pseudo, labelled, mined, pseudo_pairs, spread_of, with_made
from ragistry.types import Document, Floats

from ..tiny import tiny_language_model

ANIMALS = "ant bee cat dog eel fox gnu hen ibis jay koi lynx".split()
PLACES = "attic barn cellar den forest".split()
DOCUMENTS = [
    Document(f"{animal} {place}", f"The {animal} sleeps in the {place}. Its number is {len(animal) * 7 + i * 31}.")
    for i, place in enumerate(PLACES)
    for animal in ANIMALS
]
IDS = [document.id for document in DOCUMENTS]
TWIN = Document("twin", DOCUMENTS[0].text)


def counted(texts: Sequence[str]) -> Floats:
    words = [*ANIMALS, *PLACES]
    return np.array(
        [[text.split().count(word) + 0.01 for word in words] for text in (t.replace(".", " ") for t in texts)]
    )


ENCODER = Function(counted, "words")


def problem(documents: Sequence[Document] = DOCUMENTS) -> Problem:
    queries = [f"{animal} {place}" for animal in ANIMALS[:4] for place in PLACES[:3]]
    ids = [document.id for document in documents]
    judged = csr_array(np.array([[float(id == query) for id in ids] for query in queries], np.float32))
    return Problem(queries, ENCODER.encode(queries, "query"), ids, ENCODER.encode(documents, "document"), judged)


class Longest:
    """A teacher that likes long ids."""

    def score(self, query: str, documents: Sequence[Document]) -> Floats:
        return np.array([len(document.id) for document in documents], np.float32)


def test_made_queries_come_after_the_pairs_and_leave_them_alone() -> None:
    before = problem()
    after = with_made(ENCODER, before, DOCUMENTS, Pseudo(made=30))
    given = len(before.queries)
    assert after.queries[:given] == before.queries and given < len(after.queries) <= given + 30
    assert len(set(after.queries)) == len(after.queries)
    np.testing.assert_array_equal(after.judged[:given].toarray(), before.judged.toarray())
    for row in range(given, len(after.queries)):
        [answer] = np.flatnonzero(after.judged[[row]].toarray()[0])
        assert set(after.queries[row].lower().strip(".").split()) & set(DOCUMENTS[answer].text.lower().split())
    assert with_made(ENCODER, before, DOCUMENTS, Pseudo(made=30)).queries == after.queries


def test_documents_of_which_nothing_can_be_asked_make_no_queries() -> None:
    assert pseudo_pairs([Document("1", "same"), Document("2", "same")], Pseudo()) == []
    assert pseudo_pairs(DOCUMENTS, Pseudo(made=0)) == []
    assert with_made(ENCODER, problem(), DOCUMENTS, Pseudo(made=0)).queries == problem().queries


def test_a_language_model_may_write_them(tmp_path: Path) -> None:
    model = LanguageModel(str(tiny_language_model(tmp_path, "llama")))
    generator = QueryLikelihood(model, prompt="{document} What is asked?", document_tokens=24)
    pairs = pseudo_pairs(DOCUMENTS, Pseudo(made=5, generator=generator, seed=1))
    assert 0 < len(pairs) <= 5 and {pair.document_id for pair in pairs} <= set(IDS)
    assert pairs == pseudo_pairs(DOCUMENTS, Pseudo(made=5, generator=generator, seed=1))
    assert len(pseudo_pairs(DOCUMENTS[:2], Pseudo(made=4, generator=generator))) <= 4


def test_mined_documents_look_like_answers_and_are_none() -> None:
    documents = [*DOCUMENTS, TWIN]
    given = problem(documents)
    found = mined(given, np.arange(4), documents, 3)
    for row, columns in enumerate(found):
        query = given.queries[row]
        assert 2 <= len(columns) <= 6 and len(set(columns.tolist())) == len(columns)
        for column in columns.tolist():
            document = documents[column]
            assert document.id not in (query, "twin") and set(query.split()) & set(
                document.text.strip(".").split(". ")[0].split()
            )


def test_labels_are_the_uncompressed_scores_in_their_own_unit() -> None:
    given = problem()
    rows = np.arange(5)
    after, labels = labelled(given, rows, DOCUMENTS, Pseudo(negatives=4))
    assert labels.nnz == after.judged[rows].nnz and np.diff(labels.indptr)[5:].sum() == 0
    np.testing.assert_array_equal(after.judged.toarray(), given.judged.toarray())  # negatives are stored zeros
    np.testing.assert_array_equal(after.judged[5:].indices, given.judged[5:].indices)
    exact = given.asked @ given.held.T
    for row in rows.tolist():
        columns = labels.indices[labels.indptr[row] : labels.indptr[row + 1]]
        assert IDS.index(given.queries[row]) in columns
        values = labels.data[labels.indptr[row] : labels.indptr[row + 1]]
        np.testing.assert_allclose(values * spread_of(given, labels), exact[row, columns], rtol=1e-4)


def test_any_scorer_may_teach() -> None:
    _, labels = labelled(problem(), np.arange(3), DOCUMENTS, Pseudo(negatives=4, teacher=Longest()))
    lengths = np.array([len(IDS[column]) for column in labels.indices], np.float32)
    np.testing.assert_allclose(labels.data, lengths / lengths.std(), rtol=1e-5)


def test_a_teacher_of_nothing_is_refused() -> None:
    class Same:
        def __init__(self, value: float) -> None:
            self.value = value

        def score(self, query: str, documents: Sequence[Document]) -> Floats:
            return np.full(len(documents), self.value, np.float32)

    with pytest.raises(InvalidInput, match="all the same"):
        labelled(problem(), np.arange(3), DOCUMENTS, Pseudo(teacher=Same(2.0)))
    with pytest.raises(InvalidInput, match="NaN"):
        labelled(problem(), np.arange(3), DOCUMENTS, Pseudo(teacher=Same(float("nan"))))


def test_nothing_to_label() -> None:
    given = problem()
    after, labels = labelled(given, np.arange(0), DOCUMENTS, Pseudo())
    assert after is given and labels.nnz == 0


@pytest.mark.parametrize(
    "change", [{"labels": "gold"}, {"made": -1}, {"negatives": 0}], ids=["labels", "made", "negatives"]
)
def test_settings_out_of_range_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match="labels are gpl or genq"):
        replace(Pseudo(), **change)  # type: ignore[arg-type]

"""Queries and labels that nobody has given: made from documents, with negatives that are mined and a teacher scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from scipy.sparse import csr_array

from ..encoders.terms import Terms
from ..errors import InvalidInput
from ..indexes.inverted import Inverted
from ..indexes.weighting import BM25
from ..protocols import Encoder, Scorer
from ..retrievers.searcher import Searcher
from ..scorers.query_likelihood import QueryLikelihood
from ..text import Analyzer
from ..types import Document, Ints
from .adapting import Problem, scores_of
from .crossfit import Judge
from .examples import Example, judgements
from .own_pairs import own_pairs
from .synthesis import synthesise
from .teaching import extended

Labels: TypeAlias = Literal["gpl", "genq"]


@dataclass(frozen=True)
class Pseudo:
    """Where queries come from and what is learnt from them; see `ragistry.recipes.income`.

    Args:
        labels: `gpl`: a teacher's scores of each query's document and of mined negatives; `genq`: that its document answers.
        made: Queries, at most; 0 makes none.
        negatives: For each query and by each of two miners, the vectors uncompressed and BM25.
        generator: Writes queries, as `synthesise` says; without, they are taken from the documents as `own_pairs` says.
        teacher: Scores documents; without, the vectors uncompressed are the teacher.
        seed: Of the draws.

    Raises:
        InvalidInput: If a value is out of range.

    Source: GenQ as BEIR has it, arXiv:2104.08663; GPL, arXiv:2112.07577; both for codes, INCOME, arXiv:2205.11498.
    Deviations: all of a query's negatives are compared in one step, not one at a time; the teacher is free, where GPL has a
    cross-encoder; two miners.
    """

    labels: Labels = "gpl"
    made: int = 2000
    negatives: int = 8
    generator: QueryLikelihood | None = None
    teacher: Scorer | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.labels not in get_args(Labels) or self.made < 0 or self.negatives < 1:
            raise InvalidInput(
                f"labels={self.labels!r}, made={self.made}, negatives={self.negatives}: labels are gpl or genq, made at "
                "least 0, negatives at least 1"
            )


def pseudo_pairs(documents: Sequence[Document], pseudo: Pseudo) -> list[Example]:
    """Queries with the documents they were made from.

    A generator writes of `made` documents drawn by the seed, of each several where there are fewer. Without one there are
    none where none can be made, as the documents are too short or too alike.

    Raises:
        InvalidInput: If a generator writes nothing that can be used.
    """
    if not pseudo.made or not documents:
        return []
    if pseudo.generator is None:
        try:
            return own_pairs(documents, queries=pseudo.made, seed=pseudo.seed)
        except InvalidInput:
            return []
    drawn = np.sort(np.random.default_rng(pseudo.seed).permutation(len(documents))[: pseudo.made])
    each = max(1, pseudo.made // len(documents))
    return synthesise(pseudo.generator, [documents[row] for row in drawn], queries=each, seed=pseudo.seed)


def with_made(encoder: Encoder, problem: Problem, documents: Sequence[Document], pseudo: Pseudo) -> Problem:
    """A problem with pseudo-queries after its own; one that was asked already is left out."""
    return extended(problem, judgements(pseudo_pairs(documents, pseudo)), encoder)


def mined(problem: Problem, rows: Ints, documents: Sequence[Document], depth: int) -> list[Ints]:
    """For some queries, rows of documents that look like answers: the nearest `depth` uncompressed, and BM25's.

    Documents that answer a query are left out, and so is one whose text is that of an answer, which leaves fewer.
    """
    lexical = Searcher(Terms(Analyzer()), Inverted(BM25()))
    lexical.add(documents)
    place = {id: row for row, id in enumerate(problem.ids)}
    twins = {id: document.full_text for id, document in zip(problem.ids, documents, strict=True)}
    answers = problem.answers()
    most = depth + int(np.diff(answers.indptr).max(initial=0))
    judge = Judge(problem.judged, problem.ids, "nDCG@10")
    near = judge.best(rows, scores_of(problem.asked, problem.held), min(most, len(problem.ids)))
    by_words = lexical.search([problem.queries[row] for row in rows], most)
    found = []
    for row, nearest, ranking in zip(rows.tolist(), near, by_words, strict=True):
        own = _own(answers, row)
        texts = {twins[problem.ids[answer]] for answer in own.tolist()}
        miners = (nearest.tolist(), [place[id] for id in ranking.ids])
        kept = [[one for one in some if twins[problem.ids[one]] not in texts][:depth] for some in miners]
        found.append(np.unique(np.array([one for some in kept for one in some], np.int64)))
    return found


def labelled(problem: Problem, rows: Ints, documents: Sequence[Document], pseudo: Pseudo) -> tuple[Problem, csr_array]:
    """Some queries with mined negatives, and the teacher's scores of these and of their answers.

    Returns:
        The problem, in which negatives are stored as 0, so that a sampler brings them; and the scores, CSR [queries,
        documents], divided by their standard deviation, so that margins of all teachers are of one size.

    Raises:
        InvalidInput: If the teacher gives a score that is not finite, or the same for all.
    """
    negatives = mined(problem, rows, documents, pseudo.negatives)
    answers = problem.answers()
    entries: list[tuple[int, Ints]] = []
    for row, found in zip(rows.tolist(), negatives, strict=True):
        entries.append((row, np.union1d(_own(answers, row), found)))
    if not entries:
        return problem, _sparse([], [], problem.judged.shape)
    values = [_taught(problem, row, columns, documents, pseudo.teacher) for row, columns in entries]
    spread = float(np.concatenate(values).std())
    if not np.isfinite(spread) or spread == 0:
        raise InvalidInput(
            "the teacher's scores are not finite, or all the same; a teacher that tells documents apart is needed"
        )
    labels = _sparse(entries, [(value / spread).astype(np.float32) for value in values], problem.judged.shape)
    listed = _sparse(entries, [np.isin(columns, _own(answers, row)) for row, columns in entries], labels.shape)
    first = problem.taught_by(np.setdiff1d(np.arange(len(problem.queries)), rows))
    return replace(problem, judged=_joined(first, listed)), labels


def spread_of(problem: Problem, labels: csr_array) -> float:
    """The standard deviation of the vectors' own inner products where there are labels: what a margin is worth in them."""
    rows = np.repeat(np.arange(labels.shape[0]), np.diff(labels.indptr))
    found = np.einsum("ij,ij->i", problem.asked[rows], problem.held[labels.indices])
    return max(float(found.std()), 1e-6)


def _own(answers: csr_array, row: int) -> Ints:
    own: Ints = answers.indices[answers.indptr[row] : answers.indptr[row + 1]]
    return own


def _taught(problem: Problem, row: int, columns: Ints, documents: Sequence[Document], teacher: Scorer | None) -> Any:
    if teacher is None:
        return problem.held[columns] @ problem.asked[row]
    found = np.asarray(teacher.score(problem.queries[row], [documents[column] for column in columns]), np.float32)
    if not np.isfinite(found).all():
        raise InvalidInput(f"the teacher scores the query {problem.queries[row]!r:.80} with NaN or infinity; check it")
    return found


def _sparse(entries: Sequence[tuple[int, Ints]], values: Sequence[Any], shape: tuple[int, int]) -> csr_array:
    """Values at some columns of some rows, zeros among them stored."""
    counts = np.zeros(shape[0], np.int64)
    for row, columns in entries:
        counts[row] = len(columns)
    data = np.concatenate([np.empty(0), *values]).astype(np.float32)
    indices = np.concatenate([np.empty(0, np.int64), *(columns for _, columns in entries)])
    return csr_array((data, indices, np.concatenate([[0], np.cumsum(counts)])), shape=shape)


def _joined(one: csr_array, other: csr_array) -> csr_array:
    """Two arrays of which no row has entries in both; a sum would drop zeros."""
    rows = [np.repeat(np.arange(part.shape[0]), np.diff(part.indptr)) for part in (one, other)]
    order = np.argsort(np.concatenate(rows), kind="stable")
    counts = np.bincount(np.concatenate(rows), minlength=one.shape[0])
    data = np.concatenate([one.data, other.data])[order].astype(np.float32)
    indices = np.concatenate([one.indices, other.indices])[order]
    return csr_array((data, indices, np.concatenate([[0], np.cumsum(counts)])), shape=one.shape)

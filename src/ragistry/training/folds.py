"""Which queries teach and which test: never a query, and for half of the tests never a document, in both roles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from ..types import Ints

FOLDS = 5
TEACHING, TESTING = 0.4, 0.05
"""Shares of the queries below which holding out documents leaves too little to teach or to test."""


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """Rows of queries: those to learn from, those to test on whose documents are `seen` by others, and those `unseen`."""

    train: Ints
    seen: Ints
    unseen: Ints


def folds(judged: csr_array, queries: Sequence[str], documents: Sequence[str], runs: int = FOLDS) -> list[Fold]:
    """Five ways to divide queries, of which the first `runs` are given.

    Each holds out a fifth of the answering documents *together with all their queries* (unseen), and of the other queries up
    to a fifth whose every answer is also that of a query that stays (seen). A query with answers on both sides of the cut
    neither teaches nor tests. Where queries share so many answers that this leaves too little to teach or to test, a fifth
    of the queries is held out, whatever their documents: seen are then those with an answer that is also that of a query
    that stays. The division follows from the texts and ids alone, whatever their order.

    Args:
        judged: Relevance, CSR [queries, documents].
        queries: Their texts.
        documents: Their ids.
        runs: From 1 to 5.
    """
    answers = csr_array((judged.data > 0, judged.indices, judged.indptr), shape=judged.shape).astype(np.int64)
    answers.eliminate_zeros()
    rows = np.flatnonzero(np.diff(answers.indptr))
    own = {row: answers.indices[answers.indptr[row] : answers.indptr[row + 1]] for row in rows.tolist()}
    found = list(_by_document(answers, own, queries, documents, runs))
    for fold in found:
        held = len(fold.seen) + len(fold.unseen)
        if len(fold.train) < TEACHING * len(rows) or held < TESTING * len(rows):
            return list(_by_query(answers, own, queries, runs))
    return found


def _by_document(
    answers: csr_array, own: Mapping[int, Ints], queries: Sequence[str], documents: Sequence[str], runs: int
) -> Iterator[Fold]:
    part = _parts(answers, queries, documents)
    rows = np.array(list(own), np.int64)
    turn = np.array([_hash(f"seen {queries[row]}") % FOLDS for row in own])
    low, high = (np.array([pick(part[found]) for found in own.values()]) for pick in (np.min, np.max))
    for fold in range(runs):
        unseen = (low == fold) & (high == fold)
        mixed = ~unseen & np.array([fold in part[found] for found in own.values()], bool)
        staying = rows[~unseen & ~mixed]
        count = np.asarray(answers[staying].sum(axis=0)).ravel()
        seen = []
        for row in sorted(rows[~unseen & ~mixed & (turn == fold)].tolist(), key=lambda row: _hash(queries[row])):
            if (count[own[row]] > 1).all():
                count[own[row]] -= 1
                seen.append(row)
        held = np.array(sorted(seen), np.int64)
        yield Fold(np.setdiff1d(staying, held), held, rows[unseen])


def _by_query(answers: csr_array, own: Mapping[int, Ints], queries: Sequence[str], runs: int) -> Iterator[Fold]:
    order = np.array(sorted(own, key=lambda row: _hash(queries[row])), np.int64)
    for fold in range(runs):
        held, train = np.sort(order[fold::FOLDS]), np.sort(np.delete(order, np.s_[fold::FOLDS]))
        taught = np.zeros(answers.shape[1], bool)
        taught[answers[train].indices] = True
        seen = np.array([taught[own[row]].any() for row in held.tolist()], bool)
        yield Fold(train, held[seen], held[~seen])


def _parts(answers: csr_array, queries: Sequence[str], documents: Sequence[str]) -> Ints:
    """Of each document, the fifth it belongs to: those with a query in common stay together where that leaves fifths."""
    n, m = answers.shape
    _, label = connected_components(
        csr_array(
            (answers.data, (np.repeat(np.arange(n), np.diff(answers.indptr)), answers.indices + n)),
            shape=(n + m, n + m),
        ),
        directed=False,
    )
    label = label[n:]
    asked = np.asarray(answers.sum(axis=0)).ravel()
    load = np.bincount(label, weights=asked)
    large = load[label] > max(1, n // FOLDS)
    label = np.where(large, label.max() + 1 + np.arange(m), label)
    groups: dict[int, list[int]] = {}
    for document in np.flatnonzero(asked).tolist():
        groups.setdefault(int(label[document]), []).append(document)
    part = np.full(m, -1, np.int64)
    filled = np.zeros(FOLDS)
    for group in sorted(groups.values(), key=lambda group: min(_hash(documents[d]) for d in group)):
        lightest = int(np.argmin(filled))
        part[group] = lightest
        filled[lightest] += asked[group].sum()
    return part


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big")

"""Pairs made from the documents themselves, where nobody has written any."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, zip_longest
from typing import TypeAlias

from ..errors import InvalidInput
from ..evaluation.occurrences import Occurrences
from ..evaluation.selection import FEWEST_QUERIES
from ..evaluation.task import check_counts
from ..evaluation.tasks import make
from ..text import Analyzer
from ..types import Document
from .examples import Example

KINDS = ("keyword-3", "first-sentence", "part-of-passage-12", "title")
"""Tasks of `ragistry.evaluation` that make the queries."""
SHARED = 3
"""The most documents that a first sentence or a title may belong to; one of more says too little about each."""
_Asked: TypeAlias = list[tuple[str, list[str]]]


def own_pairs(
    documents: Iterable[Document], *, queries: int = 1000, seed: int = 0, kinds: Sequence[str] = KINDS
) -> list[Example]:
    """Queries made from documents, each with the documents it was made from.

    Of each document asked for: its three terms of highest tf-idf, its first sentence or, for want of one, its title, and
    twelve words in a row from anywhere in it. Documents of the same text answer together. What is left out: words that
    another document holds as well, which would count as a wrong answer, and titles that many documents share.

    None of these is a user's question. Every word of them stands in the document, so that a retriever over words knows the
    answers already, and a model learns which words tell these documents apart, not which other words people use for them.
    `Collection.fit` keeps what it learns only if it helps on some of these that were held out; but a gain on them promises
    none for users. Of the kinds, mixed so that no single one decides, keywords alone taught `adder` so well that on
    Cranfield's real questions nDCG@10 fell from 0.510 to 0.472. Try real pairs first, and `evaluate` on real questions.

    Args:
        documents: In any order, which changes nothing.
        queries: At most so many.
        seed: Chooses the documents asked for, and the twelve words.
        kinds: Tasks of `ragistry.evaluation` that make the queries, others than these if wanted.

    Returns:
        Pairs of relevance 1, those of one query beside each other.

    Raises:
        InvalidInput: If fewer than 10 queries can be made, two documents have one id, or `queries` is not positive.

    Example:
        >>> forms = {"sonnet": "fourteen", "haiku": "three", "limerick": "five", "ballade": "twenty-eight", "sestina": "39"}
        >>> documents = [Document(form, f"This is a {form}. It has {lines} lines.") for form, lines in forms.items()]
        >>> [pair.query for pair in own_pairs(documents) if pair.document_id == "sonnet"]
        ['fourteen sonnet has', 'This is a sonnet.']
    """
    check_counts(queries=queries)
    held = sorted(documents, key=lambda document: document.id)
    twins: dict[str, list[str]] = {}
    for document in held:
        twins.setdefault(document.full_text, []).append(document.id)
    if len({document.id for document in held}) < len(held):
        raise InvalidInput("two documents have the same id; give every document an id of its own")
    together = {ids[0]: ids for ids in twins.values()}
    asked = _made([document for document in held if document.id in together], queries, seed, kinds)
    found: dict[str, dict[str, None]] = {}
    # In turn, so that every kind has its share. One hash orders them all, so that a document is asked for in several ways.
    for text, ids in (one for one in chain.from_iterable(zip_longest(*asked)) if one is not None):
        if text in found or len(found) < queries:
            found.setdefault(text, {}).update(dict.fromkeys(twin for id in ids for twin in together[id]))
    if len(found) < FEWEST_QUERIES:
        raise InvalidInput(
            f"{len(found)} queries can be made from the documents ({len(held):,}), at least {FEWEST_QUERIES} are needed to "
            "learn from: documents of three words and more, no two alike, give some; or write pairs of a query and the id "
            "of a document that answers it"
        )
    return [Example(text, id) for text, ids in found.items() for id in ids]


def _made(documents: Sequence[Document], queries: int, seed: int, kinds: Sequence[str]) -> list[_Asked]:
    """For each kind that the documents allow, queries with the ids that answer them, in the order of a hash."""
    occurrences = Occurrences([document.full_text for document in documents], Analyzer(identifiers=False))
    made: list[_Asked] = []
    sentences: set[str] = set()
    for kind in kinds:
        if kind == "title" and len(sentences) >= queries:
            continue
        try:
            task = make(kind, documents, queries=queries, seed=seed)
        except InvalidInput:  # no document can be asked for in this way
            continue
        found = [(text, list(task.qrels[query])) for query, text in task.queries.items()]
        if kind == "title":
            found = [(text, ids) for text, ids in found if len(ids) <= SHARED and not sentences.issuperset(ids)]
        else:
            found = [(text, ids) for text, ids in found if len(ids) <= SHARED and _only(ids, text, occurrences)]
        if kind == "first-sentence":
            sentences = {id for _, ids in found for id in ids}
        made.append(found)
    return made


def _only(ids: Sequence[str], text: str, found: Occurrences) -> bool:
    """Whether no more documents than these hold all the words of a text."""
    keys = found.keys(text)
    return bool(len(keys)) and len(found.holding(keys)) <= len(ids)

"""What a task is, and what all of them check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import InvalidInput
from ..types import Document

DEFAULT_MEASURES = ("nDCG@10", "R@100")


@dataclass(frozen=True)
class Task:
    """Documents and queries with known answers.

    Args:
        name: For tables and file names.
        documents: What is searched.
        queries: Texts by query id.
        qrels: Relevance by query id and document id.
        measures: What to report unless something else is asked for; the first one decides which retriever is best.
        notes: What a reader must know to trust the numbers: how many were left out and why, how many are unique.
        uniqueness: Share of the queries that only one document can answer, 0 to 1; None where nothing is known of it.
            Below 1 it caps what any retriever can reach.
    """

    name: str
    documents: Sequence[Document]
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]
    measures: tuple[str, ...] = DEFAULT_MEASURES
    notes: tuple[str, ...] = ()
    uniqueness: float | None = None


def corpus_of(documents: Sequence[Document]) -> Sequence[Document]:
    """The documents, if a task can be about them."""
    documents = list(documents)
    if len(documents) < 2:
        raise InvalidInput(
            f"a task needs at least two documents, for there is nothing to find among fewer; {len(documents)} was given"
        )
    again = [id for id, times in Counter(document.id for document in documents).items() if times > 1]
    if again:
        raise InvalidInput(
            f"{len(again):,} ids belong to several documents, such as {again[0]!r}; give every document an id of its own"
        )
    return documents


def check_counts(**counts: int) -> None:
    """Refuse what is no whole number of 1 or more."""
    for name, value in counts.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InvalidInput(f"{name}={value!r:.100}; a whole number of 1 or more is needed")


def agree(count: int, verb: str) -> str:
    """ "has" or "was", or what they are for several."""
    return verb if count == 1 else {"has": "have", "was": "were"}[verb]

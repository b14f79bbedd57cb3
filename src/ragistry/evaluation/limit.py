"""LIMIT: queries that pair documents in every way, which one vector for each document cannot keep apart.

Weller et al., "On the Theoretical Limitations of Embedding-Based Retrieval" (arXiv 2508.21038). Any set of k documents
may answer a query, so that documents have no few topics that a vector could stand for. Search by words has no trouble.
`free_embedding` asks how much of that trouble is the vectors' own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations, islice
from math import comb
from random import Random
from typing import Literal

import numpy as np
from scipy.sparse import csr_array

from ..errors import InvalidInput, UnknownName
from ..types import Document
from .attributes import ATTRIBUTES, PERSONS, attribute, person
from .task import Task, check_counts

Qrels = Mapping[str, Mapping[str, int]]
Sets = list[tuple[int, ...]]

FILLERS = 850
"""Attributes that no query asks for; the released set has about as many."""


def limit(
    pattern: str = "dense",
    *,
    queries: int = 1000,
    documents: int | None = None,
    relevant: int = 2,
    attributes: int = 45,
    seed: int = 0,
) -> Task:
    """People who like things, and a query for each thing that exactly `relevant` of them like.

    A query is "Who likes lampbirds?", a document "Ada Fernwood likes ..., ... and ...". Each query has an attribute and a
    set of relevant documents of its own. Documents are filled up to one number of attributes, in shuffled order, with
    attributes that no query asks for.

    Args:
        pattern: Which sets are relevant. "dense": of the fewest documents that have `queries` sets of `relevant`, the
            first sets in lexicographic order. "random": sets drawn from as many documents as there are queries. "cycle":
            neighbours among as many. "disjoint": no document twice.
        queries: How many, 2 or more.
        documents: How many there are; those that the pattern does not need are relevant to no query. By default as many
            as it needs.
        relevant: Documents for each query.
        attributes: Of each document; more if a document is relevant to more queries.
        seed: Draws names, attributes, their order, and the sets of "random".

    Raises:
        UnknownName: If there is no such pattern; the message lists those there are.
        InvalidInput: If a number is less than 1 (2 for `queries`), or `documents` is less than the pattern needs.

    Example:
        >>> task = limit("cycle", queries=3, attributes=3)
        >>> for id, text in task.queries.items():
        ...     print(text, *task.qrels[id])
        Who likes shellgates? Theo-Wincroft Thora-Vergate
        Who likes pepperships? Thora-Vergate Flora-Birchton
        Who likes desertrugs? Flora-Birchton Theo-Wincroft
        >>> print(task.documents[0].text)
        Flora Birchton likes bridgeclocks, pepperships and desertrugs.

    Source: section 5 of the paper and its released code, whose small set is "dense" with 1,000 queries: 46 documents.
    Ours differs in its names and attributes, each a made-up word, where the release has phrases such as "Joshua Trees",
    some of which share words; in that all documents have one number of attributes (45 or 46 there); and in "random",
    which the release draws from all documents.
    """
    if pattern not in PATTERNS:
        raise UnknownName(f"no pattern is called {pattern!r}; there are {', '.join(PATTERNS)}")
    check_counts(queries=queries, relevant=relevant, attributes=attributes)
    if queries < 2:
        raise InvalidInput(f"queries={queries}; LIMIT needs 2 or more, for one query pairs nothing")
    draw = Random(seed)
    needed, sets = PATTERNS[pattern](queries, relevant, draw)
    total = needed if documents is None else documents
    if total < needed:
        raise InvalidInput(
            f"documents={total}; the pattern {pattern!r} with {queries:,} queries of {relevant} needs {needed:,}; "
            "give as many or more, or fewer queries"
        )
    rows = draw.sample(range(total), needed)
    liked: list[list[int]] = [[] for _ in range(total)]
    for query, chosen in enumerate(sets):
        for place in chosen:
            liked[rows[place]].append(query)
    most = max(map(len, liked))
    size = max(attributes, most)
    wanted = queries + max(FILLERS, size)
    words = [attribute(number) for number in draw.sample(range(max(ATTRIBUTES, wanted)), wanted)]
    people = [person(number) for number in draw.sample(range(max(PERSONS, total)), total)]
    made = []
    for name, own in zip(people, liked, strict=True):
        fillers = draw.sample(range(queries, wanted), size - len(own))
        likes = [words[number] for number in draw.sample([*own, *fillers], size)]
        listed = " and ".join(filter(None, [", ".join(likes[:-1]), likes[-1]]))
        made.append(Document(_id(name), f"{name} likes {listed}."))
    notes = [
        f"Made up, by the pattern {pattern!r}: {queries:,} queries, each answered by {relevant} of {needed:,} documents."
    ]
    if total > needed:
        notes.append(f"{total - needed:,} more documents answer no query.")
    if size > attributes:
        notes.append(f"Documents have {size} attributes in place of {attributes}, for one answers {most} queries.")
    fields = {"documents": (documents, None), "relevant": (relevant, 2), "attributes": (attributes, 45)}
    changed = ",".join(f"{name}={value}" for name, (value, usual) in fields.items() if value != usual)
    return Task(
        f"limit-{pattern}" + (f":{changed}" if changed else ""),
        made,
        {words[query]: f"Who likes {words[query]}?" for query in range(queries)},
        {words[query]: {_id(people[rows[place]]): 1 for place in chosen} for query, chosen in enumerate(sets)},
        tuple(dict.fromkeys((f"R@{relevant}", "R@10", "R@20"))),
        tuple(notes),
        1.0 if relevant == 1 else None,
    )


def graph_density(qrels: Qrels, nodes: Literal["documents", "queries"] = "documents") -> float:
    """Share of all pairs that are linked, 0 to 1.

    Args:
        qrels: Relevance by query id and document id.
        nodes: "documents", linked if some query has both as relevant, or "queries", linked if they share a relevant
            document. Documents relevant to no query do not count.

    Example:
        >>> graph_density({"q1": {"a": 1, "b": 1}, "q2": {"b": 1, "c": 1}}), graph_density({"q": {"a": 1}})
        (0.6666666666666666, 0.0)

    Source: section 5 of the paper, whose text leaves open which of the two graphs its figures are of.
    """
    if nodes not in ("documents", "queries"):
        raise InvalidInput(f"nodes={nodes!r}; 'documents' or 'queries' is needed")
    matrix = _matrix(qrels)
    links = matrix.T @ matrix if nodes == "documents" else matrix @ matrix.T
    size = links.shape[0]
    return float((links.nnz - np.count_nonzero(links.diagonal())) / (size * (size - 1))) if size > 1 else 0.0


def query_strength(qrels: Qrels) -> float:
    """How much queries overlap: the mean over queries of the sum of their Jaccard similarities to all other queries.

    The similarity of two is the number of relevant documents they share, over that of those relevant to either.

    Example:
        >>> query_strength({"q1": {"a": 1, "b": 1}, "q2": {"b": 1, "c": 1}})
        0.3333333333333333

    Source: section 5 of the paper: about 28 for LIMIT, at most 0.6 for NQ, HotpotQA, SciFact and FollowIR's Core17.
    """
    matrix = _matrix(qrels)
    if not matrix.shape[0]:
        return 0.0
    sizes = matrix.sum(axis=1)
    shared = (matrix @ matrix.T).tocoo()
    other = shared.row != shared.col
    first, second, both = shared.row[other], shared.col[other], shared.data[other]
    return float((both / (sizes[first] + sizes[second] - both)).sum() / matrix.shape[0])


def _matrix(qrels: Qrels) -> csr_array:
    """Ones [queries with a relevant document, documents relevant to one]."""
    sets = [[id for id, relevance in found.items() if relevance > 0] for found in qrels.values()]
    sets = [found for found in sets if found]
    numbers: dict[str, int] = {}
    columns = [numbers.setdefault(id, len(numbers)) for found in sets for id in found]
    rows = np.repeat(np.arange(len(sets)), [len(found) for found in sets])
    return csr_array((np.ones(len(columns), np.int64), (rows, columns)), shape=(len(sets), len(numbers)))


def _dense(queries: int, relevant: int, _: Random) -> tuple[int, Sets]:
    size = _enough(queries, relevant)
    return size, list(islice(combinations(range(size), relevant), queries))


def _random(queries: int, relevant: int, draw: Random) -> tuple[int, Sets]:
    size = max(queries, _enough(queries, relevant))
    sets: dict[tuple[int, ...], None] = {}
    while len(sets) < queries:
        sets[tuple(sorted(draw.sample(range(size), relevant)))] = None
    return size, list(sets)


def _cycle(queries: int, relevant: int, _: Random) -> tuple[int, Sets]:
    size = max(queries, relevant + 1)
    return size, [tuple((first + step) % size for step in range(relevant)) for first in range(queries)]


def _disjoint(queries: int, relevant: int, _: Random) -> tuple[int, Sets]:
    return queries * relevant, [
        tuple(range(first, first + relevant)) for first in range(0, queries * relevant, relevant)
    ]


def _enough(queries: int, relevant: int) -> int:
    """The fewest documents that have as many sets."""
    size = relevant
    while comb(size, relevant) < queries:
        size += 1
    return size


def _id(name: str) -> str:
    return name.replace(" ", "-")


PATTERNS: dict[str, Callable[[int, int, Random], tuple[int, Sets]]] = {
    "dense": _dense,
    "random": _random,
    "cycle": _cycle,
    "disjoint": _disjoint,
}
"""How many documents a pattern needs, and its sets of them."""

"""What a retriever is asked to do: documents, queries, and which documents answer them.

Judgements by people are the best there is; `labelled` takes them. Without any, tasks are made from the documents
themselves. Each of them finds one weakness, and none of them says how good a retriever is for real questions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..errors import InvalidInput, UnknownName
from ..types import Document
from .corpus_tasks import first_sentence, keyword, part_of_passage, title
from .evaluate import judgements_of
from .limit import limit
from .task import DEFAULT_MEASURES, Task, agree, corpus_of

__all__ = [
    "DEFAULT_MEASURES",
    "NAMES",
    "Task",
    "first_sentence",
    "keyword",
    "labelled",
    "limit",
    "make",
    "part_of_passage",
    "title",
]


def labelled(
    name: str,
    documents: Sequence[Document],
    queries: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, int]],
    *,
    measures: Sequence[str] = DEFAULT_MEASURES,
) -> Task:
    """People's judgements as a task, checked: what cannot be measured is left out and counted in the notes.

    Args:
        name: For tables and file names.
        documents: What is searched.
        queries: Texts by query id. Those without judgements are left out.
        qrels: Relevance by query id and document id. Documents that are not in `documents` count as not found, and
            queries without a relevant document score 0, as in trec_eval.
        measures: What to report.

    Raises:
        InvalidInput: If there are fewer than two documents or two have one id, no query is judged, a judged query has no
            text, a relevance is not a whole number, or no judged document is in `documents`.

    Example:
        >>> documents = [Document("d1", "fourteen lines"), Document("d2", "seventeen syllables")]
        >>> task = labelled("poems", documents, {"q1": "sonnet", "q2": "ode"}, {"q1": {"d1": 1, "d9": 1}})
        >>> for note in task.notes:
        ...     print(note)
        1 of 2 queries has no judgements and was left out.
        1 of 2 judgements names 1 document that is not in the corpus, such as 'd9'; it counts as not found.
    """
    documents = corpus_of(documents)
    judged = {query: dict(found) for query, found in judgements_of(queries, qrels).items()}
    held = {document.id for document in documents}
    absent = [id for found in judged.values() for id in found if id not in held]
    total = sum(map(len, judged.values()))
    if len(absent) == total:
        raise InvalidInput(
            f"none of the {total:,} judgements is about one of the {len(documents):,} documents: they name ids such as "
            f"{absent[0]!r}, the documents have ids such as {documents[0].id!r}; give documents and judgements that "
            "belong together"
        )
    notes, left = [], len(queries) - len(judged)
    if left:
        notes.append(
            f"{left:,} of {len(queries):,} queries {agree(left, 'has')} no judgements and {agree(left, 'was')} left out."
        )
    if absent:
        ids, one = len(set(absent)), len(absent) == 1
        notes.append(
            f"{len(absent):,} of {total:,} judgements {'names' if one else 'name'} {ids:,} "
            f"{'document that is' if ids == 1 else 'documents that are'} not in the corpus, such as {absent[0]!r}; "
            f"{'it counts' if one else 'they count'} as not found."
        )
    if hopeless := sum(max(found.values()) < 1 for found in judged.values()):
        notes.append(
            f"{hopeless:,} of {len(judged):,} queries {agree(hopeless, 'has')} no relevant document and can only score 0."
        )
    return Task(name, documents, {query: queries[query] for query in judged}, judged, tuple(measures), tuple(notes))


NAMES = {
    "keyword": "the words that set a document apart find it: keyword, keyword:terms=8",
    "part-of-passage": "a part of a document, word for word, finds it: part-of-passage, part-of-passage:words=16",
    "title": "a title finds its text, which is searched without it",
    "first-sentence": "the first sentence of a text finds the rest",
    "limit": "any two documents may belong together (LIMIT; no corpus is needed): limit, limit:pattern=cycle,queries=100",
}
"""Tasks that `make` knows, with a line on each."""

_MAIN = {"keyword": "terms", "part-of-passage": "words", "limit": "pattern"}
"""The field that may follow a name and a dash."""

_FIELDS: dict[str, tuple[str, ...]] = {
    "keyword": ("terms",),
    "part-of-passage": ("words",),
    "title": (),
    "first-sentence": (),
    "limit": ("pattern", "documents", "relevant", "attributes"),
}


def make(spec: str, documents: Sequence[Document] | None = None, *, queries: int = 1000, seed: int = 0) -> Task:
    """The task with a name, made from a corpus.

    Args:
        spec: A name of `NAMES`, with fields if others than the usual are wanted: "keyword:terms=8,queries=100". The
            field that matters most may follow a dash: "keyword-8", "part-of-passage-16", "limit-cycle".
        documents: What is searched; "limit" makes its own.
        queries: At most so many, unless `spec` says.
        seed: Unless `spec` says.

    Raises:
        UnknownName: If no task, pattern or field has the name; the message lists those there are.
        InvalidInput: If a field is no number, or the task cannot be made from the documents.

    Example:
        >>> documents = [Document("1", "old lighthouses warn ships"), Document("2", "a bridge")]
        >>> make("part-of-passage-3", documents).queries
        {'1': 'old lighthouses warn'}
    """
    name, given = _parsed(spec)
    numbers = {"queries": queries, "seed": seed} | {
        field: _number(spec, field, value) for field, value in given.items() if field != "pattern"
    }
    if name == "limit":
        return limit(given.get("pattern", "dense"), **numbers)
    if documents is None:
        raise InvalidInput(f"the task {spec!r} is made from documents, and none were given; give some")
    makers: dict[str, Callable[..., Task]] = {
        "keyword": keyword,
        "part-of-passage": part_of_passage,
        "title": title,
        "first-sentence": first_sentence,
    }
    return makers[name](documents, **numbers)


def _parsed(spec: str) -> tuple[str, dict[str, str]]:
    """A spec's name, and its fields as they are written."""
    if not isinstance(spec, str):
        raise InvalidInput(f"{spec!r:.100} is {type(spec).__name__}; the name of a task is needed, such as 'keyword'")
    name, _, rest = (part.strip() for part in spec.partition(":"))
    given: dict[str, str] = {}
    for known, field in _MAIN.items():
        if name.startswith(f"{known}-"):
            given[field], name = name.removeprefix(f"{known}-"), known
    if name not in NAMES:
        raise UnknownName(f"no task is called {name!r}; there are {', '.join(NAMES)}")
    fields = (*_FIELDS[name], "queries", "seed")
    for part in filter(None, map(str.strip, rest.split(","))):
        field, equals, value = (piece.strip() for piece in part.partition("="))
        if field not in fields:
            raise UnknownName(f"the task {name!r} has no field {field!r}; it has {', '.join(fields)}")
        if not equals or not value:
            raise InvalidInput(f"the task {spec!r} gives {field} no value; write {field}=VALUE")
        if field in given:
            raise InvalidInput(f"the task {spec!r} gives {field} twice; give it once")
        given[field] = value
    return name, given


def _number(spec: str, field: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise InvalidInput(f"the task {spec!r} has {field}={value}; a whole number is needed") from None

"""What an encoder learns from: queries with documents that answer them, or do not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

from ..errors import InvalidInput
from ..evaluation import datasets
from ..evaluation.files import read_examples
from ..types import check_text

GIVEN: TypeAlias = "str | PathLike[str] | Mapping[str, Any] | Iterable[Any]"


@dataclass(frozen=True, slots=True)
class Example:
    """A query and how well a document answers it.

    Args:
        query: Its text.
        document_id: Of a document in the collection.
        relevance: 1 and above: it answers the query, more is better. 0: it does not, and serves as a hard negative.
    """

    query: str
    document_id: str
    relevance: int = 1


def examples_of(given: GIVEN, split: str = "train") -> list[Example]:
    """Examples from whatever holds them.

    Args:
        given: A file (JSON lines, tab-separated or CSV: query, document id, and maybe a relevance); a directory in BEIR's
            layout; a mapping from query to a document id, several of them, or relevance by document id; or an iterable of
            `Example`, (query, document id) or (query, document id, relevance).
        split: Which judgements of a BEIR directory to read.

    Returns:
        The examples, in order.

    Raises:
        StorageError: If a file cannot be read.
        InvalidInput: If there is none, or something is no example.
        UnknownName: If a directory has no such split; the message lists those there are.

    Example:
        >>> examples_of([("how many lines?", "sonnet"), ("how many lines?", "haiku", 0)])[1]
        Example(query='how many lines?', document_id='haiku', relevance=0)
    """
    if isinstance(given, str | PathLike):
        if Path(given).is_dir():
            found = datasets.load(Path(given)).split(split)
            return [
                Example(found.queries[query], document, relevance)
                for query, judged in found.qrels.items()
                for document, relevance in judged.items()
            ]
        return [Example(*values) for values in read_examples(given)]
    if isinstance(given, Mapping):
        rows = [row for query, ids in given.items() for row in _of_query(query, ids)]
    elif isinstance(given, Iterable):
        rows = [*given]
    else:
        raise InvalidInput(
            f"pairs were given as {type(given).__name__}; a file, a BEIR directory, a mapping from query to document ids, "
            "or a list of (query, document id) is needed"
        )
    if not rows:
        raise InvalidInput("no pairs were given; at least one (query, document id) is needed")
    return [_example(row, position) for position, row in enumerate(rows)]


def judgements(examples: Sequence[Example]) -> dict[str, dict[str, int]]:
    """Relevance by query and document id, each pair once.

    Raises:
        InvalidInput: If a pair comes twice with different relevance.

    Example:
        >>> judgements([Example("how many lines?", "sonnet"), Example("how many lines?", "sonnet")])
        {'how many lines?': {'sonnet': 1}}
    """
    found: dict[str, dict[str, int]] = {}
    for example in examples:
        judged = found.setdefault(example.query, {})
        before = judged.setdefault(example.document_id, example.relevance)
        if before != example.relevance:
            raise InvalidInput(
                f"document {example.document_id!r} has relevance {before} and {example.relevance} for the query "
                f"{example.query!r:.80}; one relevance for each pair is needed, so keep the right one"
            )
    return found


def _of_query(query: object, ids: object) -> list[object]:
    if isinstance(ids, Mapping):
        return [(query, id, relevance) for id, relevance in ids.items()]
    return [(query, id) for id in (ids if isinstance(ids, list | tuple | set | frozenset) else [ids])]


def _example(row: object, position: int) -> Example:
    found: Example | None = None
    match row:
        case Example(query=str(), document_id=str(), relevance=Integral()):
            found = row
        case (str(query), str(document)):
            found = Example(query, document)
        case (str(query), str(document), Integral() as relevance) if not isinstance(relevance, bool):
            found = Example(query, document, int(relevance))
    if found is None or not found.query.strip() or not found.document_id:
        raise InvalidInput(
            f"pair {position} is {row!r:.200}; (query, document id) is needed, two texts that are not empty, and maybe a "
            "relevance, a whole number"
        )
    check_text(found.query, f"pair {position}: the query")
    return replace(found, relevance=max(found.relevance, 0))

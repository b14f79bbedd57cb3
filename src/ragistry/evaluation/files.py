"""Queries, judgements, training pairs and runs in the files that people have.

| what | formats |
|---|---|
| queries | JSON lines, tab-separated (with or without header), CSV with header |
| judgements | BEIR (tab-separated with header), TREC (four columns), CSV with header, JSON lines |
| pairs | JSON lines, tab-separated or CSV, with or without header |
| runs | TREC (six columns) |

Ids may hold spaces wherever tabs or commas separate the columns, or in JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized
from os import PathLike
from pathlib import Path
from typing import TypeAlias

import numpy as np

from ..errors import InvalidInput
from ..storage import write_file
from ..types import Pair, Ranking
from .records import FilePath, Layout, records

Pairs: TypeAlias = FilePath | Mapping[str, str | Sequence[str]] | Iterable[tuple[str, str]]
"""Pairs as a file, as document ids by query, or as (query, document id) tuples."""

_QUERY_ID = ("query-id", "query_id", "qid")
_DOCUMENT_ID = ("corpus-id", "corpus_id", "document-id", "document_id", "doc-id", "doc_id", "docid", "docno")
_QUERIES = Layout(
    "a query",
    fields={"id": ("_id", "id", *_QUERY_ID), "text": ("text", "query")},
    columns={2: ("id", "text")},
    example='{"_id": "q1", "text": "who coined the term?"}',
)
_QRELS = Layout(
    "a judgement",
    fields={"query": _QUERY_ID, "document": _DOCUMENT_ID, "relevance": ("score", "relevance", "rel", "label")},
    columns={3: ("query", "document", "relevance"), 4: ("query", "", "document", "relevance")},
    example="q1 0 d1 1",
    spaced=True,
)
_PAIRS = Layout(
    "a pair",
    fields={"query": ("query", "text"), "document": (*_DOCUMENT_ID, "positive", "id")},
    columns={2: ("query", "document")},
    example='{"query": "who coined the term?", "document_id": "d1"}',
    bare_csv=True,
)
_EXAMPLES = Layout(
    "an example",
    fields=_PAIRS.fields,
    columns={2: ("query", "document"), 3: ("query", "document", "relevance")},
    example='{"query": "who coined the term?", "document_id": "d1", "relevance": 1}',
    bare_csv=True,
    optional={"relevance": ("relevance", "score", "rel", "label")},
)
_RUN = Layout(
    "a line of a run",
    fields={"query": _QUERY_ID, "document": _DOCUMENT_ID, "score": ("score",)},
    columns={6: ("query", "", "document", "", "score", "")},
    example="q1 Q0 d1 1 12.5 bm25",
    spaced=True,
)


def read_queries(path: FilePath) -> dict[str, str]:
    """Query texts by id, in the order of the file.

    Args:
        path: JSON lines with `_id` (or `id`, `query_id`) and `text` (or `query`), a tab-separated file of ids and texts,
            or a CSV file whose header names them.

    Returns:
        The text of each query by its id.

    Raises:
        StorageError: If the file cannot be read.
        InvalidInput: If it holds no query, is not UTF-8, a line does not fit, or an id has two texts.

    Example:
        >>> path = getfixture("tmp_path") / "queries.tsv"
        >>> path.write_text("q1\\thow many lines has a sonnet?\\n")
        32
        >>> read_queries(path)
        {'q1': 'how many lines has a sonnet?'}
    """
    queries: dict[str, str] = {}
    for record in records(path, _QUERIES):
        key, text = record.text("id"), record.text("text")
        if queries.setdefault(key, text) != text:
            raise record.error(
                f"query {key!r} comes a second time, with another text", "one text for each id is needed"
            )
    _check_filled(queries, path, _QUERIES)
    return queries


def read_qrels(path: FilePath) -> dict[str, dict[str, int]]:
    """Judgements: the relevance of documents to queries.

    Args:
        path: A BEIR file (tab-separated, header `query-id corpus-id score`), a TREC file (`query 0 document relevance`,
            separated by white space), or a CSV or JSON-lines file with BEIR's names.

    Returns:
        The relevance by query id and document id; 0 or less means judged and not relevant.

    Raises:
        StorageError: If the file cannot be read.
        InvalidInput: If it holds no judgement, is not UTF-8, a line does not fit, a relevance is not a whole number, or
            a document is judged twice for a query, differently.

    Example:
        >>> path = getfixture("tmp_path") / "qrels.txt"
        >>> path.write_text("q1 0 d1 2\\nq1 0 d2 0\\n")
        20
        >>> read_qrels(path)
        {'q1': {'d1': 2, 'd2': 0}}
    """
    qrels: dict[str, dict[str, int]] = {}
    for record in records(path, _QRELS):
        query, document, relevance = record.text("query"), record.text("document"), record.number("relevance")
        if not relevance.is_integer():
            raise record.error(f"the relevance is {relevance}", "a whole number is needed")
        judged = qrels.setdefault(query, {})
        if judged.setdefault(document, int(relevance)) != relevance:
            raise record.error(
                f"document {document!r} has relevance {int(relevance)} for query {query!r}, before {judged[document]}",
                "one judgement for each query and document is needed",
            )
    _check_filled(qrels, path, _QRELS)
    return qrels


def read_pairs(path: FilePath) -> list[Pair]:
    """Queries with the id of a document that answers them: what `Collection.fit` learns from.

    Args:
        path: JSON lines with `query` (or `text`) and `document_id` (or `doc_id`, `positive`, `id`), or a tab-separated
            or CSV file of two columns, or with a header that names them.

    Returns:
        One pair for each line, in order.

    Raises:
        StorageError: If the file cannot be read.
        InvalidInput: If it holds no pair, is not UTF-8, or a line does not fit.

    Example:
        >>> path = getfixture("tmp_path") / "pairs.csv"
        >>> path.write_text("query,document_id\\nfourteen lines?,sonnet\\n")
        41
        >>> read_pairs(path)
        [Pair(query='fourteen lines?', document_id='sonnet')]
    """
    pairs = [Pair(record.text("query"), record.text("document")) for record in records(path, _PAIRS)]
    _check_filled(pairs, path, _PAIRS)
    return pairs


def read_examples(path: FilePath) -> list[tuple[str, str, int]]:
    """Queries with the id and relevance of a document, 1 where the file gives none: pairs with a third column.

    Args:
        path: As for `read_pairs`, with one more field or column: `relevance` (or `score`, `label`), a whole number, above
            0 for a document that answers the query.

    Raises:
        StorageError: If the file cannot be read.
        InvalidInput: If it holds none, is not UTF-8, a line does not fit, or a relevance is not a whole number.

    Example:
        >>> path = getfixture("tmp_path") / "pairs.tsv"
        >>> path.write_text("fourteen lines?\\tsonnet\\t2\\n")
        25
        >>> read_examples(path)
        [('fourteen lines?', 'sonnet', 2)]
    """
    found = []
    for record in records(path, _EXAMPLES):
        relevance = record.number("relevance") if record.values.get("relevance") is not None else 1.0
        if not relevance.is_integer():
            raise record.error(f"the relevance is {relevance}", "a whole number is needed")
        found.append((record.text("query"), record.text("document"), int(relevance)))
    _check_filled(found, path, _EXAMPLES)
    return found


def pairs_of(value: Pairs) -> list[Pair]:
    """Pairs from whatever holds them.

    Args:
        value: The path of a file for `read_pairs`, a mapping from query to document id or ids, or (query,
            document id) tuples in any iterable.

    Returns:
        The pairs, in order.

    Raises:
        StorageError: If the file cannot be read.
        InvalidInput: If there is no pair, or one is not two texts.

    Example:
        >>> pairs_of({"how many lines?": ["sonnet", "villanelle"]})[1]
        Pair(query='how many lines?', document_id='villanelle')
    """
    if isinstance(value, str | PathLike):
        return read_pairs(value)
    if isinstance(value, Mapping):
        several = {query: ids if isinstance(ids, list | tuple | set) else [ids] for query, ids in value.items()}
        found = [(query, id) for query, ids in several.items() for id in ids]
    elif isinstance(value, Iterable):
        found = [*value]
    else:
        raise InvalidInput(
            f"pairs were given as {type(value).__name__}; a file, a mapping from query to document ids, or a list of "
            "(query, document id) is needed"
        )
    if not found:
        raise InvalidInput("no pairs were given; at least one (query, document id) is needed")
    return [_pair(pair, position) for position, pair in enumerate(found)]


def write_run(path: FilePath, run: Mapping[str, Ranking], *, tag: str = "ragistry", apart: bool = False) -> None:
    """Write rankings as a TREC run: query, `Q0`, document, rank from 1, score, tag.

    Columns are separated by tabs, which trec_eval reads like spaces, so that ids may hold spaces. The format has no
    line for a query without hits: `read_run` will not know of it.

    Args:
        path: The file to write; one that is there is replaced.
        run: A ranking for each query id.
        tag: Names the run, in the last column.
        apart: Whether scores that are equal are written the least float32 step apart. Tools order equal scores each
            its own way, trec_eval by falling id; so written, all of them keep this order and give the same values.

    Raises:
        StorageError: If the file cannot be written.
        InvalidInput: If an id or the tag is empty or holds a tab or a line break.

    Example:
        >>> path = getfixture("tmp_path") / "run.txt"
        >>> write_run(path, {"q1": Ranking.of(["d2", "d1"], [1.0, 2.5])}, tag="bm25")
        >>> path.read_text().split()[:6]
        ['q1', 'Q0', 'd1', '1', '2.5', 'bm25']
    """
    lines = []
    for query, ranking in run.items():
        below = np.float32(np.inf)
        for rank, (document, score) in enumerate(ranking, 1):
            if apart:
                below = min(np.float32(score), np.nextafter(below, np.float32(-np.inf)))
                score = float(below)
            lines.append(_line(query, "Q0", document, str(rank), f"{score:.9g}", tag))
    write_file(Path(path), "".join(lines).encode())


def write_qrels(path: FilePath, qrels: Mapping[str, Mapping[str, int]]) -> None:
    """Write judgements as TREC does: query, 0, document, relevance, with tabs between them.

    Args:
        path: The file to write; one that is there is replaced.
        qrels: Relevance by query id and document id.

    Raises:
        StorageError: If the file cannot be written.
        InvalidInput: If an id is empty or holds a tab or a line break.

    Example:
        >>> path = getfixture("tmp_path") / "qrels.txt"
        >>> write_qrels(path, {"q1": {"d1": 2}})
        >>> read_qrels(path)
        {'q1': {'d1': 2}}
    """
    lines = [
        _line(query, "0", document, str(relevance))
        for query, judged in qrels.items()
        for document, relevance in judged.items()
    ]
    write_file(Path(path), "".join(lines).encode())


def _line(*cells: str) -> str:
    """Cells of a line of a run or of judgements, tabs between them."""
    if not all(cell.strip() for cell in cells) or any(set("\t\r\n") & set(cell) for cell in cells):
        raise InvalidInput(
            f"query {cells[0]!r}, document {cells[2]!r}, {', '.join(map(repr, cells[3:]))} cannot stand in a line of TREC's "
            "format: each needs some text without tabs or line breaks"
        )
    return "\t".join(cells) + "\n"


def read_run(path: FilePath) -> dict[str, Ranking]:
    """Read rankings from a TREC run; their order is by score, then id, whatever the ranks say.

    Args:
        path: A file of six columns, separated by tabs or by white space.

    Returns:
        A ranking for each query id.

    Raises:
        StorageError: If the file cannot be read.
        InvalidInput: If it is empty, is not UTF-8, a line does not fit, or a query has a document twice.

    Example:
        >>> path = getfixture("tmp_path") / "run.txt"
        >>> path.write_text("q1 Q0 d1 1 2.5 bm25\\n")
        20
        >>> list(read_run(path)["q1"])
        [('d1', 2.5)]
    """
    found: dict[str, dict[str, float]] = {}
    for record in records(path, _RUN):
        query, document = record.text("query"), record.text("document")
        scores = found.setdefault(query, {})
        if document in scores:
            raise record.error(f"document {document!r} comes twice for query {query!r}", "once is needed")
        scores[document] = record.number("score")
    return {query: Ranking.of(list(scores), list(scores.values())) for query, scores in found.items()}


def _pair(pair: object, position: int) -> Pair:
    match pair:
        case (str(query), str(document)) if query.strip() and document:
            return Pair(query, document)
    raise InvalidInput(f"pair {position} is {pair!r}; (query, document id), two texts that are not empty, is needed")


def _check_filled(found: Sized, path: FilePath, layout: Layout) -> None:
    if not found:
        raise InvalidInput(f"{str(path)!r} holds only a header; {layout.needed()}")

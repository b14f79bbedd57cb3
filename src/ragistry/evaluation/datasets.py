"""Data sets to measure retrievers with: directories in several layouts, ir_datasets, and one made from Python itself.

| name | what it is |
|---|---|
| `DIR`, `beir:DIR` | a directory in BEIR's layout |
| `trec:DIR` | a classic TREC collection: SGML documents, topics, judgements |
| `csv:DIR` | tables of documents, queries and judgements |
| `ir_datasets:NAME` | a data set of the package ir_datasets, which downloads it |
| `python-docs` | the documentation of the running Python |

A directory in BEIR's layout holds `corpus.jsonl` (`_id`, `title`, `text`), `queries.jsonl` (`_id`, `text`) and
judgements for each split in `qrels/<split>.tsv`, or for a single split "test" in `qrels.tsv` or `qrels.jsonl` (Thakur
et al., BEIR, 2021). Directories are found by name in the one that the environment variable `RAGISTRY_DATA` gives, by
default `../shared/data`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, partial
from itertools import islice
from os import PathLike
from pathlib import Path

from ..errors import InvalidInput, UnknownName
from ..types import Document, Pair
from .files import read_qrels, read_queries
from .records import Record, json_objects, text_lines

PYTHON_DOCS = "python-docs"
SCHEMES = ("beir", "csv", "ir_datasets", "trec")
# One letter before a colon is a drive of Windows.
_SCHEME = re.compile(r"([A-Za-z][\w+-]+):(.*)", re.DOTALL)
_CORPUS, _QUERIES = "corpus.jsonl", "queries.jsonl"


@dataclass(frozen=True)
class Split:
    """Queries and their judgements, all of them about the same documents.

    Args:
        queries: Texts by query id: those that are judged.
        qrels: Relevance by query id and document id.
        notes: What was left out or changed on reading, with counts, as sentences.
    """

    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]
    notes: tuple[str, ...] = ()

    def pairs(self) -> list[Pair]:
        """Each query with each of its relevant documents: what `Collection.fit` learns from.

        Example:
            >>> Split({"q": "why?"}, {"q": {"d1": 1, "d2": 0}}).pairs()
            [Pair(query='why?', document_id='d1')]
        """
        return [
            Pair(self.queries[query], document)
            for query, judged in self.qrels.items()
            for document, relevance in judged.items()
            if relevance > 0
        ]


class Dataset:
    """Documents, and splits of queries with judgements; each is read when first asked for.

    Args:
        name: For tables.
        documents: Makes the list of documents.
        splits: Makes each split.
    """

    def __init__(
        self, name: str, documents: Callable[[], list[Document]], splits: Mapping[str, Callable[[], Split]]
    ) -> None:
        self.name = name
        self._documents = documents
        self._splits = {split: cache(make) for split, make in splits.items()}

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}, splits={self.splits})"

    @cached_property
    def documents(self) -> list[Document]:
        """All documents: every split searches all of them."""
        return self._documents()

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""
        return tuple(self._splits)

    def split(self, name: str = "test") -> Split:
        """The queries and judgements of a split.

        Raises:
            UnknownName: If there is no such split; the message lists those there are.
        """
        if name not in self._splits:
            raise UnknownName(f"{self.name!r} has no split {name!r}; it has {', '.join(self._splits)}")
        return self._splits[name]()


def available() -> list[str]:
    """Names that `load` knows: the built-in data set, and directories where `RAGISTRY_DATA` points."""
    try:
        found = sorted(path.name for path in _data().iterdir() if (path / _CORPUS).is_file())
    except OSError:
        found = []
    return [PYTHON_DOCS, *found]


def load(name: str | PathLike[str]) -> Dataset:
    """A data set by its name or directory.

    A path that exists is a path, also where it holds a colon. What a layout needs is told when a file lacks.

    Args:
        name: "python-docs", a directory in BEIR's layout (also as "beir:DIR"), or one of these. Instead of a directory,
            the name of one where `RAGISTRY_DATA` points will do.

            - "trec:DIR": `docs*`, `corpus*` or `documents*` (files or folders) with <DOC> elements, `topics*` or
              `queries*`, and `qrels*`. Files of documents and topics may be compressed with gzip.
            - "csv:DIR": `documents.csv` or `corpus.csv` with columns id, text and title, the others being metadata,
              `queries.csv`, and `qrels.csv` or `qrels/<split>.csv`; each may be `.tsv`.
            - "ir_datasets:NAME": a data set that the package ir_datasets knows; its one split is "test".

    Returns:
        The data set; documents and splits are read when first asked for. `Split.notes` tells what was left out.

    Raises:
        UnknownName: If there is no such data set or scheme; the message lists those there are.
        InvalidInput: If a directory lacks a file of its layout; on reading, if a line of its files does not fit.
        StorageError: On reading, if a file cannot be read, or ir_datasets cannot give what is asked of it.
        MissingExtra: If ir_datasets is needed and not installed.

    Example:
        >>> directory = getfixture("tmp_path")
        >>> (directory / "qrels").mkdir()
        >>> _ = (directory / "corpus.jsonl").write_text('{"_id": "d1", "title": "", "text": "fourteen lines"}')
        >>> _ = (directory / "queries.jsonl").write_text('{"_id": "q1", "text": "how long is a sonnet?"}')
        >>> _ = (directory / "qrels/test.tsv").write_text("query-id\\tcorpus-id\\tscore\\nq1\\td1\\t1\\n")
        >>> dataset = load(directory)
        >>> dataset.documents[0].text, dataset.split("test").queries
        ('fourteen lines', {'q1': 'how long is a sonnet?'})
    """
    if not isinstance(name, str | PathLike):
        raise InvalidInput(f"a data set was given as {type(name).__name__}; its name or its directory is needed")
    if name == PYTHON_DOCS:
        from .python_docs import documents, split

        return Dataset(PYTHON_DOCS, documents, {part: partial(split, part) for part in ("train", "dev", "test")})
    path, given = _directory(name), _SCHEME.fullmatch(name) if isinstance(name, str) else None
    if path.is_dir() or not given or path.exists():
        return _beir(_existing(path, name))
    scheme, rest = given.groups()
    if scheme not in SCHEMES:
        raise UnknownName(
            f"{str(name)!r} begins with an unknown scheme, {scheme!r}; there are {', '.join(f'{s}:' for s in SCHEMES)}; a "
            "directory is given by its path alone, or after one of these"
        )
    if not rest:
        raise InvalidInput(f"{name!r} names nothing; {scheme}:{'NAME' if scheme == 'ir_datasets' else 'DIR'} is needed")
    if scheme == "ir_datasets":
        from .formats import from_ir_datasets

        return from_ir_datasets(rest)
    path = _existing(_directory(rest), rest)
    if scheme == "trec":
        from .trec import from_trec

        return from_trec(path)
    if scheme == "csv":
        from .formats import from_csv

        return from_csv(path)
    return _beir(path)


def usable(queries: Mapping[str, str], qrels: Mapping[str, dict[str, int]], source: str) -> Split:
    """The judged queries that have text; notes count what is left out.

    Args:
        queries: Texts by query id; they may be blank.
        qrels: Relevance by query id and document id.
        source: Names the judgements, for the message.

    Returns:
        A split whose queries and judgements belong together.

    Raises:
        InvalidInput: If no judged query has text.

    Example:
        >>> usable({"q1": "why?", "q2": ""}, {"q1": {"d1": 1}, "q2": {"d1": 1}}, "qrels.txt").notes
        ("1 judged query has no text and was left out: 'q2'",)
    """
    found = {query: text for query in qrels if (text := queries.get(query, "")).strip()}
    if not found:
        raise InvalidInput(
            f"{source}: none of {len(qrels)} judged queries has text; they are judged as {_some(qrels)}, the "
            f"queries are {_some(queries)}; use files that belong together"
        )
    notes = []
    if without := [query for query in qrels if query not in found]:
        verbs = ("query has", "was") if len(without) == 1 else ("queries have", "were")
        notes.append(f"{len(without)} judged {verbs[0]} no text and {verbs[1]} left out: {_some(without)}")
    if unjudged := [query for query in queries if query not in qrels]:
        verbs = ("query has", "was") if len(unjudged) == 1 else ("queries have", "were")
        notes.append(f"{len(unjudged)} {verbs[0]} no judgements and {verbs[1]} left out: {_some(unjudged)}")
    return Split(found, {query: dict(qrels[query]) for query in found}, tuple(notes))


def judged(queries: Mapping[str, str], qrels: dict[str, dict[str, int]], path: Path, file: str) -> Split:
    """The judged queries, all of which must be there.

    Args:
        queries: Texts by query id.
        qrels: Relevance by query id and document id.
        path: The file of judgements, for the message.
        file: Name of the file of queries, for the message.

    Returns:
        A split of the judged queries.

    Raises:
        InvalidInput: If a judged query is not among the queries.

    Example:
        >>> judged({"q1": "why?", "q2": "who?"}, {"q2": {"d1": 1}}, Path("qrels/test.tsv"), "queries.jsonl").queries
        {'q2': 'who?'}
    """
    without = [query for query in qrels if query not in queries]
    if without:
        raise InvalidInput(
            f"{str(path)!r} judges {len(without)} queries that {file} does not have, such as {without[0]!r}; "
            "use files that belong together"
        )
    return Split({query: queries[query] for query in qrels}, qrels)


def _some(ids: Iterable[str]) -> str:
    """The first ids, for messages."""
    first = [*islice(ids, 4)]
    return ", ".join(map(repr, first[:3])) + (", …" if len(first) > 3 else "") or "none"


def _directory(name: str | PathLike[str]) -> Path:
    path = Path(name)
    return _data() / path if not path.is_dir() and isinstance(name, str) and path.name == name else path


def _existing(path: Path, name: str | PathLike[str]) -> Path:
    if not path.is_dir():
        raise UnknownName(
            f"there is no data set or directory {str(name)!r}; there are {', '.join(available())}; set RAGISTRY_DATA to "
            "the directory that holds others"
        )
    return path


def _data() -> Path:
    return Path(os.environ.get("RAGISTRY_DATA") or "../shared/data")


def _beir(directory: Path) -> Dataset:
    """A directory in BEIR's layout."""
    qrels = {path.stem: path for path in sorted((directory / "qrels").glob("*.tsv"))}
    for single in (directory / "qrels.tsv", directory / "qrels.jsonl"):
        if not qrels and single.is_file():
            qrels["test"] = single
    missing = [file for file in (_CORPUS, _QUERIES) if not (directory / file).is_file()]
    missing += [] if qrels else ["qrels/test.tsv"]
    if missing:
        raise InvalidInput(f"{str(directory)!r} is not in BEIR's layout: it has no {', '.join(missing)}")
    texts = cache(partial(read_queries, directory / _QUERIES))
    splits = {split: partial(_split, texts, path) for split, path in qrels.items()}
    return Dataset(directory.resolve().name, partial(_corpus, directory / _CORPUS), splits)


def _split(texts: Callable[[], dict[str, str]], path: Path) -> Split:
    return judged(texts(), read_qrels(path), path, _QUERIES)


def _corpus(path: Path) -> list[Document]:
    documents: dict[str, Document] = {}
    filled = (line for line in text_lines(path) if line[1].strip())
    for number, found in json_objects(path, filled):
        record = Record(path, number, found)
        id = record.text("_id") if "_id" in found else None
        if id is None or id in documents:
            problem = "`_id` is missing" if id is None else f"document {id!r} comes a second time"
            raise record.error(problem, "an `_id` of its own for each document is needed")
        try:
            title, metadata = found.get("title") or "", found.get("metadata") or {}
            documents[id] = Document(id, found.get("text") or "", title, metadata)
        except InvalidInput as error:
            raise record.error(str(error), "BEIR's fields are needed: _id, title, text") from None
    if not documents:
        raise InvalidInput(f"{str(path)!r} holds no documents; one JSON object a line is needed, with _id, title, text")
    return list(documents.values())

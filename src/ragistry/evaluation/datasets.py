"""Data sets to measure retrievers with: directories in BEIR's layout, and one made from the running Python.

A directory holds `corpus.jsonl` (`_id`, `title`, `text`), `queries.jsonl` (`_id`, `text`) and judgements for each
split in `qrels/<split>.tsv`, or for a single split "test" in `qrels.tsv` or `qrels.jsonl` (Thakur et al., BEIR, 2021).
Directories are found by name in the one that the environment variable `RAGISTRY_DATA` gives, by default
`../shared/data`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, partial
from os import PathLike
from pathlib import Path

from ..errors import InvalidInput, UnknownName
from ..types import Document, Pair
from .files import read_qrels, read_queries
from .records import Record, json_objects, text_lines

PYTHON_DOCS = "python-docs"
_CORPUS, _QUERIES = "corpus.jsonl", "queries.jsonl"


@dataclass(frozen=True)
class Split:
    """Queries and their judgements, all of them about the same documents.

    Args:
        queries: Texts by query id: those that are judged.
        qrels: Relevance by query id and document id.
    """

    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]

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

    Args:
        name: "python-docs", a directory in BEIR's layout, or the name of one where `RAGISTRY_DATA` points.

    Returns:
        The data set; documents and splits are read when first asked for.

    Raises:
        UnknownName: If there is no such data set; the message lists those there are.
        InvalidInput: If the directory is not in BEIR's layout; on reading, if a line of its files does not fit.
        StorageError: On reading, if a file cannot be read.

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
    if name == PYTHON_DOCS:
        from .python_docs import documents, split

        return Dataset(PYTHON_DOCS, documents, {part: partial(split, part) for part in ("train", "dev", "test")})
    path = Path(name)
    if not path.is_dir() and isinstance(name, str) and path.name == name:
        path = _data() / name
    if not path.is_dir():
        raise UnknownName(
            f"there is no data set or directory {str(name)!r}; there are {', '.join(available())}; set RAGISTRY_DATA to "
            "the directory that holds others"
        )
    return _beir(path)


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
    qrels, queries = read_qrels(path), texts()
    without = [query for query in qrels if query not in queries]
    if without:
        raise InvalidInput(
            f"{str(path)!r} judges {len(without)} queries that {_QUERIES} does not have, such as {without[0]!r}; "
            "use files that belong together"
        )
    return Split({query: queries[query] for query in qrels}, qrels)


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

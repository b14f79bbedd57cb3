"""Data sets of the package ir_datasets, and directories of CSV or tab-separated tables."""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from functools import cache, partial
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

from ..errors import InvalidInput, MissingExtra, RagistryError, StorageError, UnknownName
from ..readers.files import encoding_of, tidy
from ..readers.records import read_table
from ..registry import require
from ..storage import explained
from ..types import Document
from .datasets import Dataset, Split, judged, usable
from .files import read_qrels, read_queries
from .records import shortened

_T = TypeVar("_T")
_PARTS = {"docs": "documents", "queries": "queries", "qrels": "judgements"}
_TITLES = ("title", "headline", "document_title", "page_title")
_TEXTS = tuple("text body contents content passage abstract summary description detailed_description code".split())
_QUERY_TEXTS = ("text", "query", "title", "question", "description")
# The text once more, with its markup.
_COPIES = {"html", "marked_up_doc", "marked_up_text", "source_xml"}


def from_ir_datasets(name: str) -> Dataset:
    """A data set of the package ir_datasets, which downloads what is asked of it.

    A document's text is what the package calls its default text, without the title at its beginning, which becomes
    `Document.title`; without a default text it is all of the usual fields (text, body, abstract, ...). Other
    fields become metadata where JSON can hold them.

    Args:
        name: As the package lists it, such as "cranfield".

    Returns:
        The data set, with one split, "test"; nothing is read or downloaded before it is asked for.

    Raises:
        MissingExtra: If the package is not installed.
        UnknownName: If it knows no such data set; the message lists similar names.
        InvalidInput: If the data set lacks documents, queries or judgements; on reading, if one cannot be used.
        StorageError: If the package fails, on reading for example because a download is refused.

    Example:
        >>> dataset = from_ir_datasets("cranfield")  # doctest: +SKIP
        >>> dataset.documents[0].title  # doctest: +SKIP
        'experimental investigation of the aerodynamics of a\\nwing in a slipstream .'
    """
    try:
        package = require("ir_datasets", "ir-datasets")
    except MissingExtra:
        raise
    except Exception as error:
        raise _failed("be imported", error) from None
    try:
        found = package.load(name)
        lacking = [what for part, what in _PARTS.items() if not getattr(found, f"has_{part}")()]
    except KeyError:
        near = get_close_matches(name, [*package.registry], n=3)
        raise UnknownName(
            f"ir_datasets has no data set {name!r}"
            + (f"; did you mean {' or '.join(map(repr, near))}?" if near else "")
            + "; https://ir-datasets.com lists all names"
        ) from None
    except Exception as error:
        raise _failed(f"give {name!r}", error) from None
    if lacking:
        whole = [other for other in package.registry if other.startswith(f"{name}/") and _is_whole(package, other)][:5]
        raise InvalidInput(
            f"'ir_datasets:{name}' has no {' and no '.join(lacking)}; documents, queries and judgements are needed"
            + (f"; use one of {', '.join(whole)}" if whole else "")
        )
    return Dataset(name, partial(_documents, name, found), {"test": partial(_test, name, found)})


def from_csv(directory: Path) -> Dataset:
    """A directory of tables, each `.csv` or `.tsv`, with columns named in the first line.

    Args:
        directory: Holds `documents.csv` or `corpus.csv` (id, text and, if there is one, title; other columns become
            metadata), `queries.csv` (id, text), and `qrels.csv` (query-id, corpus-id, score), which is the split
            "test", or `qrels/<split>.csv`.

    Returns:
        The data set; documents and splits are read when first asked for.

    Raises:
        InvalidInput: If a table is missing or there twice; on reading, if a line does not fit.
        StorageError: If a table cannot be read.

    Example:
        >>> directory = getfixture("tmp_path")
        >>> _ = (directory / "documents.csv").write_text("id,text,year\\nd1,fourteen lines,1609\\n")
        >>> _ = (directory / "queries.csv").write_text("id,text\\nq1,how long is a sonnet?\\n")
        >>> _ = (directory / "qrels.csv").write_text("query-id,corpus-id,score\\nq1,d1,1\\n")
        >>> dataset = from_csv(directory)
        >>> dataset.documents, dataset.split().qrels
        ([Document(id='d1', text='fourteen lines', title='', metadata={'year': 1609})], {'q1': {'d1': 1}})
    """
    with explained("read", directory):
        corpus, queries = _tables(directory, "documents", "corpus"), _tables(directory, "queries")
        single = _tables(directory, "qrels")
        inside = sorted((directory / "qrels").iterdir()) if (directory / "qrels").is_dir() else []
    several = [path for path in inside if path.suffix.lower() in {".csv", ".tsv"}]
    needed = {"documents.csv": corpus, "queries.csv": queries, "qrels.csv (or qrels/test.csv)": [*single, *several]}
    missing = [file for file, found in needed.items() if not found]
    if missing:
        raise InvalidInput(
            f"{str(directory)!r} is not a directory of tables: it has no {', no '.join(missing)}; each may also be .tsv"
        )
    splits: dict[str, Path] = {}
    for path in several:
        if path.stem in splits:
            raise _twice(directory, [splits[path.stem], path])
        splits[path.stem] = path
    for tables in (corpus, queries, [*single, *several[:1]] if single else []):
        if len(tables) > 1:
            raise _twice(directory, tables)
    splits = splits or {"test": single[0]}
    texts = cache(partial(read_queries, queries[0]))
    return Dataset(
        directory.resolve().name,
        partial(_rows, corpus[0]),
        {split: partial(_split, texts, path, queries[0].name) for split, path in splits.items()},
    )


def _is_whole(package: Any, name: str) -> bool:
    try:
        found = package.load(name)
        return all(getattr(found, f"has_{part}")() for part in _PARTS)
    except Exception:  # it is only a suggestion
        return False


def _failed(what: str, error: Exception) -> StorageError:
    return StorageError(f"ir_datasets could not {what}: {type(error).__name__}: {error}")


def _given(name: str, found: Any, part: str, convert: Callable[[Any], _T]) -> Iterator[_T]:
    """What the package yields, converted; its failures are told as ours."""
    try:
        yield from map(convert, getattr(found, f"{part}_iter")())
    except RagistryError as error:
        raise type(error)(f"'ir_datasets:{name}': {error}") from None
    except Exception as error:
        raise _failed(f"give the {_PARTS[part]} of {name!r}", error) from None


def _documents(name: str, found: Any) -> list[Document]:
    documents: dict[str, Document] = {}
    for document in _given(name, found, "docs", _document):
        if documents.setdefault(document.id, document) != document:
            raise InvalidInput(
                f"'ir_datasets:{name}': document {document.id!r} comes a second time, with other content; one document "
                "for each id is needed"
            )
    if not documents:
        raise InvalidInput(f"'ir_datasets:{name}' holds no documents; at least one is needed")
    return [*documents.values()]


def _test(name: str, found: Any) -> Split:
    source = f"'ir_datasets:{name}'"
    queries: dict[str, str] = {}
    for query, text in _given(name, found, "queries", _query):
        if queries.setdefault(query, text) != text:
            raise InvalidInput(f"{source}: query {query!r} comes a second time, with another text; one text is needed")
    qrels: dict[str, dict[str, int]] = {}
    for query, document, relevance in _given(name, found, "qrels", _judgement):
        before = qrels.setdefault(query, {}).setdefault(document, relevance)
        if before != relevance:
            raise InvalidInput(
                f"{source}: document {document!r} has relevance {relevance} for query {query!r}, before {before}; one "
                "judgement is needed, and judgements of subtopics cannot be used"
            )
    if not qrels:
        raise InvalidInput(f"{source} holds no judgements; at least one is needed")
    return usable(queries, qrels, source)


def _document(found: Any) -> Document:
    found, fields = _filled(found)
    id = str(_required(fields, "doc_id"))
    name = _first(fields, _TITLES)
    title = tidy(fields.pop(name).strip()) if name else ""
    text = _default_text(found)
    if text is None:
        given = (fields.get(field) for field in _TEXTS)
        text = "\n".join(value for value in given if isinstance(value, str) and value.strip())
    # A text that is one field is not made of title and text, though it may begin as the title does.
    elif not any(text == fields.get(field) for field in _TEXTS):
        text = text.strip()
        rest = tidy(text)[len(title) :]
        if title and tidy(text).startswith(title) and (not rest or rest[0].isspace()):
            text = rest.strip()
    own = fields.pop("metadata", None)
    fields = {**fields, **own} if isinstance(own, Mapping) else fields
    metadata = {
        str(field): value
        for field, given in fields.items()
        if field not in _COPIES
        and not (field in _TEXTS and isinstance(given, str) and given.strip() in text)
        and (value := _plain(given)) is not None
    }
    return Document(id, tidy(text), title, metadata)


def _query(found: Any) -> tuple[str, str]:
    found, fields = _filled(found)
    text = _default_text(found)
    if text is None:
        text = fields.get(_first(fields, _QUERY_TEXTS), "")
    return str(_required(fields, "query_id")), tidy(text.strip())


def _judgement(found: Any) -> tuple[str, str, int]:
    _, fields = _filled(found)
    query, document = str(_required(fields, "query_id")), str(_required(fields, "doc_id"))
    given = _required(fields, "relevance")
    try:
        relevance = int(given)
        whole = not isinstance(given, bool) and relevance == float(given)
    except (TypeError, ValueError, OverflowError):
        whole = False
    if not whole:
        raise InvalidInput(
            f"the relevance of document {document!r} for query {query!r} is {given!r}; a whole number is needed"
        )
    return query, document, relevance


def _filled(found: Any) -> tuple[Any, dict[str, Any]]:
    """A record with its missing texts made empty, which its default text would write as "None"; and its fields."""
    if hasattr(found, "_asdict"):
        missing = [name for name, value in found._asdict().items() if value is None]
        found = found._replace(**dict.fromkeys(missing, "")) if missing else found
        return found, dict(found._asdict())
    if isinstance(found, Mapping):
        return found, dict(found)
    return found, dict(getattr(found, "__dict__", {}))


def _required(fields: dict[str, Any], name: str) -> Any:
    value = fields.pop(name, None)
    if value is None or value == "":
        raise InvalidInput(f"a record has no `{name}`, only {', '.join(map(str, fields)) or 'nothing'}; one is needed")
    return value


def _default_text(found: Any) -> str | None:
    method = getattr(found, "default_text", None)
    if not callable(method):
        return None
    text = method()
    return "" if text is None else str(text)


def _first(fields: Mapping[str, Any], names: tuple[str, ...]) -> str:
    """The first of the fields that holds text; empty if none does."""
    return next((name for name in names if isinstance(fields.get(name), str) and fields[name].strip()), "")


def _plain(value: Any) -> Any:
    """A value that JSON can hold and that says something, else None."""
    if isinstance(value, str):
        return tidy(value) or None
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, bool | int):
        return value
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        several = [_plain(one) for one in value]
        return several if several and all(isinstance(one, str | int | float) for one in several) else None
    return None


def _tables(directory: Path, *stems: str) -> list[Path]:
    """The tables with one of these names."""
    files = [directory / f"{stem}{extension}" for stem in stems for extension in (".csv", ".tsv")]
    return [file for file in files if file.is_file()]


def _twice(directory: Path, files: list[Path]) -> InvalidInput:
    names = " and ".join(file.relative_to(directory).as_posix() for file in files)
    return InvalidInput(f"{str(directory)!r} holds {names}, which are for the same; keep one of them")


def _split(texts: Callable[[], dict[str, str]], path: Path, file: str) -> Split:
    queries, qrels = texts(), read_qrels(path)
    judged(queries, qrels, path, file)
    return usable(queries, qrels, repr(str(path)))


def _rows(path: Path) -> list[Document]:
    source = repr(str(path))
    documents: dict[str, Document] = {}
    with explained("read", path):
        columns = _columns(path)
        lower = {column.lower() for column in columns}
        missing = [name for name, known in {"id": {"id", "_id"}, "text": {"text"}}.items() if not known & lower]
        if missing:
            raise InvalidInput(
                f"{source}, line 1: the columns are {shortened(', '.join(columns), 200)}; {' and '.join(missing)} "
                f"{'is' if len(missing) == 1 else 'are'} needed in the first line, and title if there is one"
            )
        for found in read_table(path, source, logging.getLogger("ragistry").warning):
            metadata = dict(found.metadata)
            line = metadata.pop("line")
            del metadata["source"]
            # The reader had put its own values in the place of these.
            for name in {"source", "line"} & set(columns):
                if f"{name}_" in metadata:
                    metadata[name] = metadata.pop(f"{name}_")
            where = f"{source}, line {line}"
            if found.id.startswith(f"{source}#"):
                raise InvalidInput(f"{where}: the id is empty; an id of its own for each document is needed")
            if found.id in documents:
                raise InvalidInput(
                    f"{where}: document {found.id!r} comes a second time; an id of its own for each document is needed"
                )
            documents[found.id] = Document(found.id, found.text, found.title, metadata)
    if not documents:
        raise InvalidInput(f"{source} holds no documents; a row for each is needed, below the names of the columns")
    return [*documents.values()]


def _columns(path: Path) -> list[str]:
    """The names in the first line, as the reader of tables sees them."""
    with path.open("rb") as stream:
        encoding = encoding_of(stream.read(4))
    with path.open(encoding=encoding, errors="replace", newline="") as text:
        first = text.readline()
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=re.sub(r'"[^"]*"', "", first).count)
    try:
        return [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
    except csv.Error:
        return []

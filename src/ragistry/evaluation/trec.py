"""Classic TREC collections: documents in SGML, topics, judgements, all in one directory."""

from __future__ import annotations

import codecs
import gzip
import logging
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from html import unescape
from pathlib import Path

from ..errors import InvalidInput, StorageError
from ..storage import explained
from ..types import Document
from .datasets import Dataset, Split, usable
from .files import read_qrels, read_queries
from .records import shortened

_DOCUMENTS, _TOPICS, _QRELS = ("docs", "corpus", "documents"), ("topics", "queries"), ("qrels",)
_DOC = re.compile(rb"<(/?)DOC(?:\s[^>]*)?>", re.IGNORECASE)
_DOCNO = re.compile(r"<DOCNO(?:\s[^>]*)?>([^<]*)", re.IGNORECASE)
# The first alternative is an element that is closed before another of its kind opens, the second an unclosed one.
_TITLE = {
    kind: re.compile(
        rf"<{kind}(?:\s[^>]*)?>((?:(?!<{kind}[\s>]).)*?)</{kind}\s*>|<{kind}(?:\s[^>]*)?>([^<]*)", re.I | re.S
    )
    for kind in ("TITLE", "HEADLINE", "HL", "HEAD")
}
# The lead paragraph of some newspapers stands beside their text.
_TEXT = re.compile(r"<(TEXT|LP|LEADPARA)(?:\s[^>]*)?>(.*?)(?=</\1\s*>|<TEXT[\s>]|\Z)", re.IGNORECASE | re.DOTALL)
_NOT_TEXT = re.compile(
    r"<!--.*?-->|<(DOCNO|DOCID|DOCOLDNO|DOCHDR|script|style)(?:\s[^>]*)?>.*?</\1\s*>|<DOCNO(?:\s[^>]*)?>[^<]*",
    re.I | re.S,
)
_TAG = re.compile(r"</?[A-Za-z][\w:.-]*(?:\s[^<>]*)?/?>|<[!?][^<>]*>")
# Entities of TREC's own that HTML does not know.
_ENTITIES = {"&blank;": " ", "&hyph;": "-"}
_TOPIC = re.compile(r"<(top|topic)(?=[\s>])([^>]*)>(.*?)(?=</\1\s*>|<\1[\s>]|\Z)", re.IGNORECASE | re.DOTALL)
_FIELD = re.compile(r"<(num|number|title|query)(?:\s[^>]*)?>(.*?)(?=</?[A-Za-z][^<>]*>|\Z)", re.IGNORECASE | re.DOTALL)
_ATTRIBUTE = re.compile(r"""\b(?:number|num|id)\s*=\s*["']([^"']*)["']""", re.IGNORECASE)
_LABEL = {"number": re.compile(r"\s*Number\s*:", re.IGNORECASE), "title": re.compile(r"\s*Topic\s*:", re.IGNORECASE)}
_EXTENSIONS = {".txt", ".tsv", ".csv", ".jsonl", ".ndjson", ".json", ".qrel", ".qrels", ".trec", ".text"}
_NAMED = {"train", "training", "dev", "development", "val", "valid", "validation"}


def from_trec(directory: Path) -> Dataset:
    """A directory that holds a classic TREC collection.

    The title of a document is its <TITLE>, else <HEADLINE>, <HL> or <HEAD>. Its text is what <TEXT> holds (with the lead
    paragraphs <LP> and <LEADPARA>), or, without any, all that is left. A query is the title of its topic. Bytes that
    are not UTF-8 are read as Latin-1.

    Args:
        directory: Holds `docs*`, `corpus*` or `documents*` (files or folders, plain or gzip), `topics*` or `queries*`
            (classic <top>, <topic> in XML, or what `read_queries` reads), and `qrels*`. A single file of judgements is
            the split "test", unless it is named for training or development; of several each is named by what stands
            after "qrels".

    Returns:
        The data set; documents and splits are read when first asked for. One file is in memory at a time.

    Raises:
        InvalidInput: If a part is missing; on reading, if a document or topic cannot be used.
        StorageError: If a file cannot be read or uncompressed.

    Example:
        >>> directory = getfixture("tmp_path")
        >>> _ = (directory / "docs.sgml").write_text("<DOC><DOCNO> d1 </DOCNO><TEXT>fourteen lines</TEXT></DOC>")
        >>> _ = (directory / "topics.txt").write_text("<top><num> Number: 301 <title> sonnets <desc> ... </top>")
        >>> _ = (directory / "qrels.txt").write_text("301 0 d1 1")
        >>> dataset = from_trec(directory)
        >>> dataset.documents[0].text, dataset.split().queries
        ('fourteen lines', {'301': 'sonnets'})
    """
    found = {}
    for part, stems in {"documents": _DOCUMENTS, "topics": _TOPICS, "qrels": _QRELS}.items():
        found[part] = _named(directory, stems)
        if not found[part]:
            raise InvalidInput(
                f"{str(directory)!r} is not a TREC collection: it has no {' or '.join(f'{stem}*' for stem in stems)}; "
                "documents, topics and qrels are needed"
            )
    texts = cache(partial(_topics, [file for path in found["topics"] for file in _inside(path)]))
    splits: dict[str, Path] = {}
    files = [file for path in found["qrels"] for file in _inside(path)]
    for file in files:
        split = _split_of(file, alone=len(files) == 1)
        if split in splits:
            raise InvalidInput(
                f"{str(splits[split])!r} and {str(file)!r} are both the split {split!r}; name them differently, such as "
                "qrels.train.txt, or keep one"
            )
        splits[split] = file
    if not splits:
        raise InvalidInput(f"{str(found['qrels'][0])!r} holds no file; judgements are needed")
    return Dataset(
        directory.resolve().name,
        partial(_documents, found["documents"]),
        {split: partial(_split, texts, file) for split, file in splits.items()},
    )


def _named(directory: Path, stems: tuple[str, ...]) -> list[Path]:
    """Files and folders whose names begin with one of these."""
    with explained("read", directory):
        return sorted(path for path in directory.iterdir() if path.name.lower().startswith(stems))


def _inside(path: Path) -> list[Path]:
    """A file, or the files at any depth of a folder, without hidden ones."""
    with explained("read", path):
        if not path.is_dir():
            return [path]
        below = sorted(child for child in path.iterdir() if not child.name.startswith("."))
    return [file for child in below for file in _inside(child)]


def _split_of(file: Path, *, alone: bool) -> str:
    stem = file.name
    while Path(stem).suffix.lower() in _EXTENSIONS:
        stem = Path(stem).stem
    name = re.sub(r"^qrels[._-]*", "", stem, flags=re.IGNORECASE)
    return "test" if not name or (alone and name.lower() not in _NAMED) else name


def _split(texts: Callable[[], dict[str, str]], file: Path) -> Split:
    qrels = read_qrels(file)
    topics = texts()
    numbers: dict[str, str] = {}
    by_value: dict[str, list[str]] = {}
    for topic in topics:
        if topic not in qrels:
            by_value.setdefault(_value(topic), []).append(topic)
    for query in qrels:
        meant = by_value.get(_value(query), []) if query not in topics else []
        if len(meant) > 1 or (meant and meant[0] in numbers.values()):
            raise InvalidInput(
                f"{str(file)!r} judges query {query!r}; without leading zeros it could be several of the topics or "
                f"judged queries, such as {meant[0]!r}; write the numbers as the topics do"
            )
        if meant:
            numbers[query] = meant[0]
    split = usable(topics, {numbers.get(query, query): judged for query, judged in qrels.items()}, repr(str(file)))
    if not numbers:
        return split
    query, topic = next(iter(numbers.items()))
    note = (
        f"{len(numbers)} judged {'query has' if len(numbers) == 1 else 'queries have'} other leading zeros than the "
        f"topics, such as {query!r} for {topic!r}; the numbers of the topics are used"
    )
    return replace(split, notes=(*split.notes, note))


def _value(number: str) -> str:
    return number.lstrip("0") or "0" if number.isascii() and number.isdigit() else number


def _topics(files: list[Path]) -> dict[str, str]:
    """The titles of topics by their numbers; those without a title are blank."""
    topics: dict[str, str] = {}
    for file in files:
        content = _content(file)
        if content.removeprefix(codecs.BOM_UTF8).lstrip()[:1] == b"<":
            found = _sgml_topics(file, _decoded(content))
        elif file.suffix.lower() == ".gz":
            raise InvalidInput(f"{str(file)!r} holds no topics in SGML or XML; for other formats uncompress it first")
        else:
            found = ((1, number, title) for number, title in read_queries(file).items())
        for line, number, title in found:
            if topics.setdefault(number, title) != title:
                raise InvalidInput(
                    f"{str(file)!r}, line {line}: topic {number!r} comes a second time, with another title; one is needed"
                )
    return topics


def _sgml_topics(file: Path, content: str) -> Iterator[tuple[int, str, str]]:
    """Line, number and title of each topic."""
    line, counted, found = 1, 0, None
    for found in _TOPIC.finditer(content):
        line, counted = line + content.count("\n", counted, found.start()), found.start()
        attributes, body = found[2], found[3]
        fields: dict[str, str] = {}
        for field in _FIELD.finditer(body):
            kind = {"num": "number"}.get(name := field[1].lower(), name)
            label = _LABEL.get(kind)
            text = field[2] if label is None else label.sub("", field[2], count=1)
            if not fields.get(kind):
                fields[kind] = " ".join(unescape(text).split())
        attribute = _ATTRIBUTE.search(attributes)
        number = (attribute and unescape(attribute[1]).strip()) or fields.get("number", "")
        if not number:
            raise InvalidInput(
                f'{str(file)!r}, line {line}: a topic has no number; <num> Number: 301, or <topic number="301"> is needed'
            )
        bare = "" if _TAG.search(body) else " ".join(unescape(body).split())
        yield line, number, fields.get("title") or fields.get("query") or bare
    if not found:
        raise InvalidInput(f"{str(file)!r} holds no topics; <top> or <topic> elements are needed")


def _documents(paths: list[Path]) -> list[Document]:
    documents: dict[str, Document] = {}
    for path in paths:
        for file in _inside(path):
            found = False
            for line, document in _parsed(file, _content(file)):
                found = True
                if document.id in documents:
                    raise InvalidInput(
                        f"{str(file)!r}, line {line}: document {document.id!r} comes a second time; a DOCNO of its own "
                        "for each document is needed"
                    )
                documents[document.id] = document
            if not found and file == path:
                raise InvalidInput(f"{str(file)!r} holds no <DOC> elements; a TREC collection needs them")
            if not found:
                logging.getLogger("ragistry").warning("%r holds no <DOC> elements; skipped", str(file))
    if not documents:
        raise InvalidInput(
            f"{' and '.join(repr(str(path)) for path in paths)} holds no documents; files with <DOC> elements are needed"
        )
    return [*documents.values()]


def _parsed(file: Path, content: bytes) -> Iterator[tuple[int, Document]]:
    """Each document with the line where it begins."""
    line, counted, opened, end = 1, 0, None, 0
    for tag in _DOC.finditer(content):
        line, counted = line + content.count(b"\n", counted, tag.start()), tag.start()
        closes = tag[1] == b"/"
        if closes == (opened is None):
            what = "</DOC> closes nothing" if opened is None else f"the <DOC> of line {opened} is not closed"
            raise InvalidInput(f"{str(file)!r}, line {line}: {what}; <DOC> and </DOC> around each document are needed")
        if opened is not None:
            yield opened, _document(file, opened, _decoded(content[end : tag.start()]))
            opened = None
        else:
            _check_blank(file, line, content[end : tag.start()])
            opened = line
        end = tag.end()
    if opened is not None:
        raise InvalidInput(
            f"{str(file)!r}, line {opened}: the <DOC> is not closed before the file ends; the file may be cut short"
        )
    if end:
        _check_blank(file, line, content[end:])


def _check_blank(file: Path, line: int, between: bytes) -> None:
    left = _TAG.sub("", _decoded(between)).strip("\ufeff\0\x1a \t\r\n\f")
    if left:
        raise InvalidInput(
            f"{str(file)!r}, about line {line}: {shortened(left)} stands outside of the <DOC> elements; remove it, or put "
            "it into one"
        )


def _document(file: Path, line: int, sgml: str) -> Document:
    number = _DOCNO.search(sgml)
    id = unescape(number[1]).strip() if number else ""
    if not id:
        raise InvalidInput(
            f"{str(file)!r}, line {line}: the document has no DOCNO; <DOCNO> with an id of its own is needed in each"
        )
    body, title = _NOT_TEXT.sub(" ", sgml), ""
    for kind in _TITLE.values():
        title = " ".join(_plain(" ".join(found[1] or found[2] or "" for found in kind.finditer(body))).split())
        if title:
            body = kind.sub(" ", body)
            break
    elements = [*_TEXT.finditer(body)]
    if any(found[1].upper() == "TEXT" for found in elements):
        body = "\n".join(found[2] for found in elements)
    return Document(id, _plain(body), title)


def _plain(sgml: str) -> str:
    """Without tags, entities decoded, spaces tidied; lines and single blank lines stay."""
    text = _TAG.sub(" ", sgml)
    for entity, meaning in _ENTITIES.items():
        text = text.replace(entity, meaning)
    lines = (" ".join(line.split()) for line in unescape(text).splitlines())
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _decoded(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _content(file: Path) -> bytes:
    """The bytes of a file, uncompressed."""
    with explained("read", file):
        content = file.read_bytes()
    if content.startswith(b"\x1f\x9d"):
        raise InvalidInput(f"{str(file)!r} is compressed by `compress`, which cannot be read; run gunzip on it first")
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise StorageError(
            f"cannot uncompress {str(file)!r}: {error}; it is cut short or damaged, so copy it again"
        ) from error

"""The data set "python-docs": find a function of the standard library from the first sentence of its documentation.

It needs no download: the running Python's own library is read, so that numbers compare only within a version of Python.
As in CodeSearchNet (Husain et al. 2019) the documentation is the query and the code the document; the sentence is taken
out of the document that it describes.
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from functools import cache
from hashlib import blake2b

from ..types import Document
from .datasets import Split
from .sentences import first_sentence, has_words
from .standard_library import Definition, definitions

LENGTH = 4000
"""Characters of a document's text that are kept."""

_UNUSABLE = re.compile(
    r"->|>>>|\.\. |^(?:see|alias|deprecated|internal|obsolete|todo|undocumented|xxx|not implemented)\b", re.I
)


def documents() -> list[Document]:
    """All public functions, classes and methods of the standard library, by name.

    Returns:
        Documents with the qualified name as id and title; signature, documentation less its first sentence, and source
        as text, cut at `LENGTH`; `module`, `kind` ("function", "class" or "method") and, unless written in C, `line` as
        metadata. A class has the signatures of its methods in place of its source.

    Raises:
        StorageError: If this Python is installed without the library's source.
    """
    return list(_read()[0])


def split(name: str) -> Split:
    """The queries of a split: 60 % "train", 20 % "dev", 20 % "test", told by a hash of the id.

    Left out are sentences of fewer than three words, those that only refer elsewhere, those that several definitions
    share, and those that the document repeats.

    Raises:
        StorageError: If this Python is installed without the library's source.
    """
    chosen = {id: sentence for id, sentence in _read()[1].items() if _split_of(id) == name}
    return Split({f"q:{id}": text for id, text in chosen.items()}, {f"q:{id}": {id: 1} for id in chosen})


@cache
def _read() -> tuple[tuple[Document, ...], dict[str, str]]:
    """Documents, and queries by the id of the document that each is about."""
    made = [_document(definition) for definition in definitions()]
    times = Counter(_plain(sentence) for _, sentence in made)
    queries = {
        document.id: sentence
        for document, sentence in made
        if _usable(sentence) and times[_plain(sentence)] == 1 and _plain(sentence) not in _plain(document.full_text)
    }
    return tuple(document for document, _ in made), queries


def _document(definition: Definition) -> tuple[Document, str]:
    """A document, and the sentence taken out of it."""
    signatures, sentence, rest = _parts(definition.doc, definition.name.rpartition(".")[2])
    doc = "\n".join(filter(None, [signatures, rest]))
    if definition.line is not None and doc:
        doc = textwrap.indent(f'"""{doc}"""', "    ")
    text = "\n".join(filter(None, [definition.head, doc, definition.body]))
    metadata: dict[str, str | int] = {"module": definition.module, "kind": definition.kind}
    if definition.line is not None:
        metadata["line"] = definition.line
    return Document(definition.name, text[:LENGTH], definition.name, metadata), sentence


def _parts(doc: str, name: str) -> tuple[str, str, str]:
    """A documentation's signatures, with which some begin, its first sentence on one line, and the rest."""
    lines = doc.split("\n")
    start = next((at for at, line in enumerate(lines) if line.strip() and not _signature(line, name)), len(lines))
    return "\n".join(lines[:start]).strip(), *first_sentence("\n".join(lines[start:]))


def _signature(line: str, name: str) -> bool:
    return re.match(rf"(?:\w+\.)*{re.escape(name)}\(", line) is not None


def _usable(sentence: str) -> bool:
    """Whether a sentence says enough to search by."""
    return has_words(sentence) and len(sentence) <= 400 and not _UNUSABLE.search(sentence)


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def _split_of(id: str) -> str:
    part = int.from_bytes(blake2b(id.encode(), digest_size=8).digest()) % 100
    return "train" if part < 60 else "dev" if part < 80 else "test"

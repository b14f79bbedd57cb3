"""Files and folders as documents: text, Markdown, HTML, PDF, CSV, JSON Lines and source code.

`read` streams documents one file at a time; `find` lists the files it would read. Prose and code are cut along their
structure into chunks of a token budget, records (CSV rows, JSON objects) are taken whole.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ..errors import InvalidInput
from ..types import Document
from . import records
from .chunking import Chunker, Ids, Passage
from .files import Report, checked, format_of, read_text, relative, unreadable, walk
from .html import read_html
from .markdown import read_markdown
from .pdf import read_pdf
from .python import read_python

__all__ = ["find", "read"]


def find(path: str | os.PathLike[str]) -> list[Path]:
    """The files that `read` would read.

    Left out are hidden files and folders, folders of version control, virtual environments, `node_modules`,
    `__pycache__`, folders that `ragistry compare` works in, and files with an unknown extension whose first 64 KiB are not
    UTF-8 text. Links to folders are not followed. A path that names a file is that file, whatever it is called.

    Args:
        path: A file or a folder.

    Returns:
        Paths in the order of their parts, the same on every run.

    Raises:
        InvalidInput: If `path` is empty or not a path.
        StorageError: If it does not exist or cannot be listed.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("b.txt", "a.md", ".hidden"):
        ...     _ = (folder / name).write_text("Fourteen lines.")
        >>> [file.name for file in find(folder)]
        ['a.md', 'b.txt']
    """
    return walk(checked(path), lambda message: None)


def read(
    path: str | os.PathLike[str],
    *,
    tokens: int = 200,
    overlap: int = 0,
    count: Callable[[str], int] | None = None,
    report: Report | None = None,
) -> Iterator[Document]:
    """Read a file, or every file of a folder, as documents.

    Text, Markdown, HTML, PDF and source code become chunks, cut along their structure. A chunk's id is
    `<relative path>#<hash of its text>`, so chunks that an edit leaves alone keep their ids; a chunk that repeats
    within a file gets `-2`, `-3`... Its title is the trail of headings above it (Markdown, and HTML below the page's
    title), the functions or classes it belongs to (Python), or empty. Its metadata hold `source` (the relative path),
    `line` (from 1), and `start` and `end`, character offsets such that `decoded[start:end] == text`. *Decoded* is the
    file's text without its byte order mark and with its newlines as they are; for PDF it is the text of the page, whose
    number is in `page`, and `line` counts within it; for HTML it is the Markdown-like text extracted from the page,
    while `line` is the line in the HTML.

    Each CSV or TSV row, JSON Lines object, and object of a JSON list is one document, never cut: `_id` or `id`, `text`
    (or `contents`, `content`, `body`, `passage`), `title`, and `metadata` (an object); all else joins the metadata.
    Without a text column the text is a line `name: value` for each column. Cells become int or float where that keeps
    their value. `source` and `line` are added; a row's own values of these names move to `source_` and `line_`. Ids in
    records are taken as they are: two files that use the same ids clash.

    Args:
        path: A file or a folder.
        tokens: The most tokens in a chunk, at least 1.
        overlap: The most tokens that neighbouring chunks share; less than `tokens`.
        count: Tokens in a text, never fewer than in a part of it. By default every punctuation mark, ideograph and
            run of up to 7 letters or digits counts as one: on English prose about as many as BERT's word pieces.
        report: Called with a line about each file that was skipped or damaged; logs a warning by default.

    Returns:
        An iterator; one file at a time is in memory, and of CSV and JSON Lines files one record.

    Raises:
        InvalidInput: If an argument cannot be used; while reading, if a record cannot: the message names file and line.
        StorageError: If `path` does not exist or cannot be read.

        Inside a folder, a file that cannot be read, or from its first bad record on, is reported and skipped.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp(), "guide.md")
        >>> _ = file.write_text("# Guide\\n\\n## Install\\n\\nUse pip.\\n")
        >>> [(d.title, d.text) for d in read(file, tokens=6)]
        [('Guide', '# Guide'), ('Guide > Install', '## Install\\n\\nUse pip.')]
    """
    chunker = Chunker(tokens, overlap, count)
    root = checked(path)
    return _documents(root, chunker, report or logging.getLogger("ragistry").warning)


def _documents(root: Path, chunker: Chunker, report: Report) -> Iterator[Document]:
    for file in walk(root, report):
        source = relative(file, root)
        try:
            yield from _read(file, source, chunker, report)
        except OSError as error:
            if file == root:
                raise unreadable(file, error) from error
            report(f"{source}: cannot be read ({error.strerror or error}); skipped")
        except InvalidInput as error:
            if file == root:
                raise
            report(f"{error}; the rest of the file is skipped")


def _read(file: Path, source: str, chunker: Chunker, report: Report) -> Iterator[Document]:
    """The documents of one file."""
    form = format_of(file)
    if form == "table":
        return records.read_table(file, source, report)
    if form == "lines":
        return records.read_lines(file, source, report)
    if form == "pdf":
        return _named(source, read_pdf(file.read_bytes(), source, chunker, report))
    if form == "html":
        return _named(source, read_html(file.read_bytes(), source, chunker, report))
    text = read_text(file, source, report)
    if form == "json" and records.is_list(text):
        return records.read_list(text, source)
    if form == "markdown":
        return _named(source, read_markdown(text, chunker))
    if form == "python":
        return _named(source, read_python(text, chunker))
    return _named(source, chunker.passages(text))


def _named(source: str, passages: Iterable[Passage]) -> Iterator[Document]:
    """Passages as documents with ids and metadata."""
    ids = Ids(source)
    for passage in passages:
        where = {"source": source, "start": passage.start, "end": passage.end, "line": passage.line}
        if passage.page is not None:
            where["page"] = passage.page
        yield Document(ids.of(passage.text), passage.text, passage.title, where)

"""HTML: the text of a page, written like Markdown so that its structure guides the cutting."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

from .chunking import Chunker, Passage
from .files import Report, decode, tidy
from .markdown import Heading, Outline

# The declared encodings that are followed; by the web's rule the first group means its Windows superset.
_LATIN = re.compile(r"iso-?8859-?1|latin-?1|(us-)?ascii", re.IGNORECASE)
_LEGACY = re.compile(
    r"windows-\d+|cp125\d|iso-8859-\d+|koi8-[ru]|gbk|gb2312|gb18030|big5|euc-jp|euc-kr|shift_jis|iso-2022-jp",
    re.IGNORECASE,
)
_HEADING = re.compile("h[1-6]")
_BLOCKS = frozenset(
    "address article aside blockquote body dd details dialog div dl dt fieldset figcaption figure footer form h1 h2 h3 "
    "h4 h5 h6 header hr main nav ol p pre section summary table ul".split()
)
_ROWS = frozenset("br caption li option tr".split())
_FENCE = "```\n"


def _decode(data: bytes, source: str, report: Report) -> str:
    """A page as text, in the encoding that its byte order mark or `<meta>` declares, else UTF-8."""
    from bs4.dammit import EncodingDetector

    declared = EncodingDetector.find_declared_encoding(data, is_html=True) or ""
    encoding = "cp1252" if _LATIN.fullmatch(declared) else declared if _LEGACY.fullmatch(declared) else "utf-8"
    try:
        return decode(data, source, report, encoding)
    except LookupError:  # a name like those known, of an encoding that does not exist
        return decode(data, source, report)


def read_html(data: bytes, source: str, chunker: Chunker, report: Report) -> Iterator[Passage]:
    """The chunks of a page, titled by `<title>` and headings; offsets are those in the text extracted from it."""
    from bs4 import BeautifulSoup
    from bs4.exceptions import ParserRejectedMarkup

    text = re.sub(r"\r\n?", "\n", _decode(data, source, report))
    try:
        soup = BeautifulSoup(text, "html.parser")
    except ParserRejectedMarkup as error:
        report(f"{source}: is not HTML that can be parsed ({error}); skipped")
        return
    page = _Page(soup)
    title = tidy(" ".join(soup.title.get_text().split())) if soup.title else ""
    for passage in chunker.passages("".join(page.parts), "markdown", Outline(page.headings, title).title):
        yield replace(passage, line=page.line_at(passage.start))


class _Page:
    """Walks a parsed page and gathers its text in parts, its headings, and the source line of every part."""

    def __init__(self, soup: Any) -> None:
        from bs4 import NavigableString, Tag

        self.parts: list[str] = []
        self.headings: list[Heading] = []
        self._length = 0
        self._line = 1
        self._offsets: list[int] = []
        self._lines: list[int] = []
        self._gap = 0  # newlines owed before the next words
        self._space = False  # a space owed before the next words
        self._mark = ""  # what the next words are marked with: a heading, an item, a cell, a fence
        self._raw = False  # inside <pre>
        self._fenced = False  # the fence of the open <pre> is written
        self._level = 0  # of the open heading
        self._heading_at = 0  # where it starts
        self._begun = 0  # the number of parts when its words began; 0 before that
        opened: list[Any] = []
        for node in chain(soup.descendants, [None]):
            while opened and (node is None or opened[-1] is not node.parent):
                self._close(opened.pop().name)
            if isinstance(node, Tag):
                self._line = node.sourceline or self._line
                self._open(node.name)
                opened.append(node)
            # Subclasses are comments, scripts and styles: no text, but lines.
            elif type(node) is NavigableString and not (opened and opened[-1].name == "title"):
                self._write(tidy(str(node)))
            elif node is not None:
                self._line += node.count("\n")

    def line_at(self, offset: int) -> int:
        """The line of the HTML source that an offset of the text comes from."""
        return self._lines[bisect_right(self._offsets, offset) - 1]

    def _open(self, name: str) -> None:
        self._break(name)
        if _HEADING.fullmatch(name):
            self._level, self._mark = int(name[1]), "#" * int(name[1]) + " "
        elif name == "pre" and not self._raw:
            self._raw, self._mark = True, _FENCE
        elif name == "li":
            self._mark = "- "
        elif name in {"td", "th"} and not self._gap:
            self._mark = " | "

    def _close(self, name: str) -> None:
        if name == "pre" and self._raw:
            if self._fenced:
                self._append("```" if self.parts[-1].endswith("\n") else "\n```")
            self._raw, self._fenced, self._mark = False, False, ""
        self._break(name)

    def _break(self, name: str) -> None:
        """Owe the newlines that an element has around it; after its first words, a block ends a heading."""
        if name in _BLOCKS:
            if self._begun:
                text = " ".join("".join(self.parts[self._begun :]).split())
                self.headings.append(Heading(self._heading_at, self._level, text))
                self._level = self._begun = 0
            self._gap = 2
        elif name in _ROWS:
            self._gap = max(self._gap, 1)

    def _write(self, text: str) -> None:
        for number, piece in enumerate(text.split("\n")):
            if number:
                self._line += 1
                self._space = True
                if self._raw and not self._mark:
                    self._append("\n")
            words = piece if self._raw else " ".join(piece.split())
            self._space = self._space or piece[:1].isspace()
            if words:
                self._lead()
                self._append(words)
                self._space = piece[-1].isspace()

    def _lead(self) -> None:
        """Write what is owed before words."""
        if self._gap and self.parts and not self._begun:
            self._append("\n" * self._gap)
        elif (self._gap or self._space) and self.parts and not self._mark and not self._raw:
            self._append(" ")
        if self._mark:
            at = self._length
            self._append(self._mark)
            self._fenced = self._fenced or self._mark == _FENCE
            if self._level and not self._begun:
                self._heading_at, self._begun = at, len(self.parts)
        self._gap, self._space, self._mark = 0, False, ""

    def _append(self, text: str) -> None:
        self._offsets.append(self._length)
        self._lines.append(self._line)
        self.parts.append(text)
        self._length += len(text)

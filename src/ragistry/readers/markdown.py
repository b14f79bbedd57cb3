"""Markdown: chunks that know the headings they stand under."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import pairwise, takewhile
from typing import TYPE_CHECKING, NamedTuple

from .chunking import Chunker, Lines, Passage

if TYPE_CHECKING:
    from markdown_it.token import Token

_FRONT_MATTER = re.compile(r"---[ \t]*\r?\n.*?^(?:---|\.\.\.)[ \t]*\r?$", re.DOTALL | re.MULTILINE)


class Heading(NamedTuple):
    """A heading: where it starts, its level (1 is the highest) and its text."""

    start: int
    level: int
    text: str


class Outline:
    """The headings of a text, below a root that may be empty."""

    def __init__(self, headings: Iterable[Heading], root: str = "") -> None:
        self._starts: list[int] = []
        self._trails: list[tuple[str, ...]] = []
        self._root = (root,) if root else ()
        above: list[Heading] = []
        for heading in headings:
            while above and above[-1].level >= heading.level:
                above.pop()
            above.append(heading)
            self._starts.append(heading.start)
            self._trails.append(tuple(h.text for h in above if h.text and (h.text,) != self._root))

    def title(self, start: int, end: int) -> str:
        """The headings that all of a span stands under, highest first; text before the first heading is passed over."""
        first, last = bisect_right(self._starts, start) - 1, bisect_left(self._starts, end)
        trails = self._trails[max(first, 0) : last]
        shared = tuple(level[0] for level in takewhile(lambda level: len(set(level)) == 1, zip(*trails, strict=False)))
        return " > ".join(self._root + shared)


def read_markdown(text: str, chunker: Chunker) -> Iterator[Passage]:
    """The chunks of a Markdown text (CommonMark), titled by their headings."""
    return chunker.passages(text, "markdown", Outline(_headings(text)).title)


def _headings(text: str) -> Iterator[Heading]:
    from markdown_it import MarkdownIt

    starts = Lines(text).starts
    front = _FRONT_MATTER.match(text)
    body = front.end() if front else 0  # CommonMark takes the last line of front matter for a heading
    parser = MarkdownIt("commonmark").disable("inline")  # inline markup matters in headings only
    tokens = parser.parse(text)
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open" and opening.map and starts[opening.map[0]] >= body:
            children: list[Token] = []
            parser.inline.parse(inline.content, parser, {}, children)
            yield Heading(starts[opening.map[0]], int(opening.tag[1]), _plain(children))


def _plain(tokens: Iterable[Token]) -> str:
    """The words of inline Markdown, without its marks."""
    words = (
        _plain(token.children) if token.children else " " if token.type.endswith("break") else token.content
        for token in tokens
        if token.type != "html_inline"
    )
    return " ".join("".join(words).split())

"""Cutting text along its structure into chunks of a token budget, and naming the chunks."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Literal, TypeAlias

from ..errors import InvalidInput

if TYPE_CHECKING:
    from semantic_text_splitter import CodeSplitter, MarkdownSplitter, TextSplitter

Structure: TypeAlias = Literal["text", "markdown", "python"]

# Scripts written without spaces: a sentence would be one word.
_IDEOGRAPHS = "\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
_TOKEN = re.compile(rf"[{_IDEOGRAPHS}]|[^\W_{_IDEOGRAPHS}]{{1,7}}|[^\w\s]|_")
_SOLID = re.compile(r"\S")
_NEWLINE = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk of a file: its text, where it is (character offsets, line and page from 1), what it stands under."""

    text: str
    start: int
    end: int
    line: int
    title: str = ""
    page: int | None = None


class Lines:
    """The lines of a text, from offsets; lines end with CRLF, CR or LF."""

    def __init__(self, text: str) -> None:
        self.starts = [0, *(match.end() for match in _NEWLINE.finditer(text))]

    def at(self, offset: int) -> int:
        """The line, from 1, that holds an offset."""
        return bisect_right(self.starts, offset)


class Ids:
    """Ids for the texts of one file: its path and a hash of the text, numbered when the text repeats."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._seen: Counter[str] = Counter()

    def of(self, text: str) -> str:
        """The id of the next text."""
        digest = blake2b(text.encode(), digest_size=6).hexdigest()
        self._seen[digest] += 1
        repeated = self._seen[digest]
        return f"{self.source}#{digest}" + (f"-{repeated}" if repeated > 1 else "")


class Chunker:
    """Cuts text into chunks of at most `tokens` tokens by `count`, neighbours sharing at most `overlap`."""

    def __init__(self, tokens: int, overlap: int, count: Callable[[str], int] | None) -> None:
        for name, value in (("tokens", tokens), ("overlap", overlap)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise InvalidInput(f"`{name}` must be a whole number; given {value!r}")
        if tokens < 1 or not 0 <= overlap < tokens:
            raise InvalidInput(
                f"a chunk needs at least 1 token, and an overlap of at least 0 and less than `tokens`; given "
                f"tokens={tokens}, overlap={overlap}"
            )
        if count is not None:
            _check_count(count)
        self._tokens, self._overlap, self._count = tokens, overlap, count or count_tokens
        # The splitter's time grows with the square of what it is given, so it gets stretches of at most this many
        # characters: up to a heading, else a blank line before unindented text, a line, a word, or anywhere.
        self._longest = most = max(20_000, 40 * tokens)
        some = f".{{{most // 2},{most}}}"
        ends = (r"(?<=\n)(?=#)", r"(?:(?<=\n\n)|(?<=\n\r\n))(?=\S)", r"(?<=\n)", r"(?<=[\s.!?。！？])")
        self._stretch = re.compile("|".join([*(some + end for end in ends), f".{{{most}}}"]), re.DOTALL)

    def passages(
        self, text: str, structure: Structure = "text", title: Callable[[int, int], str] = lambda start, end: ""
    ) -> Iterator[Passage]:
        """The chunks of a text, each with the title of its span."""
        lines = Lines(text)
        for start, chunk in self._chunks(text, structure):
            end = start + len(chunk)
            yield Passage(chunk, start, end, lines.at(start), title(start, end))

    def _chunks(self, text: str, structure: Structure) -> Iterator[tuple[int, str]]:
        splitter = self._splitter(structure)
        start = 0
        while solid := _SOLID.search(text, start):
            start = solid.start()
            stretch = self._stretch.match(text, start) if len(text) - start > self._longest else None
            end = stretch.end() if stretch else len(text)
            for offset, chunk in splitter.chunk_indices(text[start:end]):
                if chunk.strip():
                    yield start + offset, chunk
            start = end

    def _splitter(self, structure: Structure) -> TextSplitter | MarkdownSplitter | CodeSplitter:
        import semantic_text_splitter as splitters

        if structure == "python":
            import tree_sitter_python

            language = tree_sitter_python.language()
            return splitters.CodeSplitter.from_callback(language, self._count, self._tokens, self._overlap)
        kind = splitters.MarkdownSplitter if structure == "markdown" else splitters.TextSplitter
        return kind.from_callback(self._count, self._tokens, self._overlap)


def count_tokens(text: str) -> int:
    """About how many word pieces a text has: punctuation marks, ideographs, and runs of up to 7 letters or digits."""
    return len(_TOKEN.findall(text))


def _check_count(count: Callable[[str], int]) -> None:
    """Refuse a counter whose answers the splitter cannot take."""
    found = count("a text, counted") if callable(count) else None
    if isinstance(found, bool) or not isinstance(found, int) or found < 0:
        raise InvalidInput(
            f"`count` must be a function from a text to its number of tokens, an int; {count!r} gave {found!r}"
        )

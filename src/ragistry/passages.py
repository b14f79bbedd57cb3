"""The passage of a text that fits a query best, with the words that match: what search results show."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .text import Analyzer, Token

LENGTH = 300
"""Characters of a document that are shown."""

COMMANDS = "\x7f-\x9f\u202a-\u202e\u2066-\u2069"
"""C1 controls and characters that reorder text, as a range of a regular expression: terminals and browsers obey them."""

_SEARCHED = 200_000  # characters of a document in which the passage is looked for
_UNSAFE = re.compile(f"[\0-\x1f{COMMANDS}]")
_ANALYSIS = ("stemmer", "stop_words", "identifiers")


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a text.

    Args:
        text: What is shown, on one line.
        marks: Start and end, in `text`, of every word that matches, in the order of their terms.
        before: Whether something before it was cut.
        after: Whether something after it was cut.
    """

    text: str
    marks: tuple[tuple[int, int], ...]
    before: bool
    after: bool


def find(text: str, terms: Iterable[str], analyzer: Analyzer, length: int = LENGTH) -> Passage:
    """The part of a text that holds most of the terms, with the words that match.

    Args:
        text: Any; what would be taken for commands is replaced. Its first 200,000 characters are looked at.
        terms: What to look for, as the analyzer gives them.
        analyzer: Turns the text into terms.
        length: About how many characters to show.

    Example:
        >>> from ragistry import Analyzer
        >>> found = find("Sonnets have [14] lines.", {"sonnet", "line"}, Analyzer())
        >>> found.text, [found.text[start:end] for start, end in found.marks]
        ('Sonnets have [14] lines.', ['Sonnets', 'lines'])
    """
    flat, wanted = printable(text[:_SEARCHED]), frozenset(terms)
    found = [token for token in analyzer.tokens(flat) if token.term in wanted]
    start, end = _window(flat, found, length)
    marks = tuple((t.start - start, t.end - start) for t in found if start <= t.start and t.end <= end)
    return Passage(flat[start:end], marks, start > 0, end < len(flat) or len(text) > _SEARCHED)


def printable(text: str) -> str:
    """Text on one line, without characters that a terminal or browser would take for commands.

    Example:
        >>> printable("two\\n lines \\x1b[31m")
        'two lines �[31m'
    """
    return _UNSAFE.sub("\ufffd", re.sub(r"\s+", " ", text)).strip()


def analyzer_of(recipe: Mapping[str, Any]) -> Analyzer:
    """The analyzer that a recipe, or the first of its members that has one, describes; else the default one.

    Example:
        >>> analyzer_of({"stemmer": "german", "stop_words": None, "identifiers": True}).stemmer
        'german'
    """
    from .text import Analyzer

    described = _analysis(recipe)
    return Analyzer() if described is None else Analyzer(*(described[field] for field in _ANALYSIS))


def _analysis(recipe: Any) -> Mapping[str, Any] | None:
    if not isinstance(recipe, Mapping):
        return None
    if all(field in recipe for field in _ANALYSIS):
        return recipe
    return next((found for member in recipe.values() if (found := _analysis(member))), None)


def _window(text: str, found: Sequence[Token], length: int) -> tuple[int, int]:
    """Where the passage starts and ends: as many different terms as possible, then as many matches, the earliest."""
    held: Counter[str] = Counter()
    best, start, end, first = (0, 0), 0, 0, 0
    found = sorted(found, key=lambda token: token.start)
    for last, token in enumerate(found):
        held[token.term] += 1
        while token.end - found[first].start > length:
            held[found[first].term] -= 1
            first += 1
        value = (sum(count > 0 for count in held.values()), last - first)
        if value > best:
            best, start, end = value, found[first].start, token.end
    # A third of the room that is left goes before the matches, and both ends fall between words where there are any.
    left = max(0, min(start - (length - (end - start)) // 3, len(text) - length))
    right = min(len(text), left + length)
    if left and (space := text.find(" ", left, start)) >= 0:
        left = space + 1
    if right < len(text) and (space := text.rfind(" ", end, right)) > left:
        right = space
    return left, right

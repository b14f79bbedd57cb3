"""The first sentence of a text, for tasks and data sets that ask by it."""

from __future__ import annotations

import re
from itertools import islice

# A stop that ends a sentence, before a capital or at the end; else a blank line ends it. Both begin with characters, and
# not with a condition, so that the search can skip to them.
_END = re.compile(
    r"([.!?])(?<!e\.g[.!?])(?<!i\.e[.!?])(?<!etc[.!?])(?<!vs[.!?])(?=\s+[A-Z\"'`(\[*<]|\s*\Z|\s*\n\s*\n)|\n(?=\s*\n)"
)
_WORD = re.compile(r"\S*[^\W\d_]\S*")


def first_sentence(text: str) -> tuple[str, str]:
    """A text's first sentence on one line, and the rest.

    A sentence ends at a full stop, exclamation or question mark before a capital, or at a blank line.

    Example:
        >>> first_sentence("A sonnet has\\nfourteen lines, e.g. these. Most rhyme.")
        ('A sonnet has fourteen lines, e.g. these.', 'Most rhyme.')
    """
    text = text.lstrip()
    found = _END.search(text)
    end = len(text) if found is None else found.end() if found[1] else found.start()
    return " ".join(text[:end].split()), text[end:].strip()


def has_words(text: str, count: int = 3) -> bool:
    """Whether so many of a text's words have a letter: what a sentence needs to say anything."""
    return sum(1 for _ in islice(_WORD.finditer(text), count)) == count

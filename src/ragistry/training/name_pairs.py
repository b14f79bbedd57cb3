"""Pairs of a query and a name, made of names and texts themselves where nobody has written any."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple, TypeAlias

import numpy as np

from ..evaluation.task import check_counts
from ..retrievers.namer import Marked
from ..types import Document, Query

PASSAGE = 24
"""Words of a document's text that stand for a question about it."""
OTHER = 1 / 3
"""Share of the copies that are in another form."""
TELLING = 20
"""Names that may end in a word, at most, for it to stand for one of them."""
LONGEST = 6
"""Words of a name that is looked for in texts."""
_WORD = re.compile(r"\w+(?:['’.&-]\w+)*", re.UNICODE)
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n\s*\n")
_LAST = re.compile(r"[.:/\\_]+")


Linked: TypeAlias = tuple[str, Sequence[tuple[int, int, str]]]
"""A text, and where mentions begin and end in it, with the names they mean."""


class Pair(NamedTuple):
    """What is asked, and the name that answers it."""

    query: Query
    name: str


def forms_of(name: str, telling: bool = True) -> list[str]:
    """Other ways in which a text may speak of what has a name: in order, without the name itself.

    What is left without a part in parentheses at its end; without what follows a comma; the last word, where it is
    `telling`; the last part of an identifier, and its parts as words; the plural in s.

    Example:
        >>> forms_of("Tissue (biology)"), forms_of("os.path.join"), forms_of("Niels Bohr")
        (['Tissue', 'Tissues'], ['join', 'os path join'], ['Bohr', 'Niels Bohrs'])
    """
    bare = re.sub(r"\s*\([^()]*\)$", "", name) or name
    words, parts = bare.split(), [part for part in _LAST.split(bare) if part]
    found = {bare, bare.split(",")[0] or bare}
    if len(words) == 1 and len(parts) > 1:
        found |= {parts[-1], " ".join(parts)}
    else:
        found.add(f"{bare}s")
    if telling and len(words) > 1:
        found.add(words[-1])
    return sorted(found - {name})


def copies(names: Sequence[str], *, pairs: int, marked: bool = False, seed: int = 0) -> list[Pair]:
    """Names with themselves as queries, a third of them in another form: from these a model learns to repeat.

    Args:
        names: Drawn with equal chances. The last word of one stands for it only where few others end so.
        pairs: How many; a name may come again, in another form.
        marked: Whether the forms stand between the markers of a mention.
        seed: Of the draws.

    Raises:
        InvalidInput: If `pairs` is not positive.

    Example:
        >>> copies(["Sonnet"], pairs=1, marked=True)
        [Pair(query='[START_ENT] Sonnet [END_ENT]', name='Sonnet')]
    """
    check_counts(pairs=pairs)
    random = np.random.default_rng(seed)
    last = Counter(name.split()[-1] for name in names if name.split())
    found = []
    for row in random.integers(len(names), size=pairs).tolist() if names else ():
        name = names[row]
        telling = last["".join(name.split()[-1:])] <= TELLING
        ways = forms_of(name, telling) if random.random() < OTHER else []
        form = ways[int(random.integers(len(ways)))] if ways else name
        found.append(Pair(Marked("", form, "").query if marked else form, name))
    return found


def passages(documents: Sequence[Document], *, pairs: int, seed: int = 0) -> list[Pair]:
    """Titles with the first words of the texts under them, and with words from anywhere in them, in turn.

    Args:
        documents: Those without a title are passed over.
        pairs: At most so many.
        seed: Of the draws.

    Raises:
        InvalidInput: If `pairs` is not positive.

    Example:
        >>> passages([Document("1", "It has fourteen lines.", title="Sonnet")], pairs=2)
        [Pair(query='It has fourteen lines.', name='Sonnet')]
    """
    check_counts(pairs=pairs)
    random = np.random.default_rng(seed)
    titled = [(document.title, document.text.split()) for document in documents if document.title]
    titled = [titled[row] for row in random.permutation(len(titled)).tolist() if titled[row][1]]
    found = dict.fromkeys(Pair(" ".join(words[:PASSAGE]), title) for title, words in titled[:pairs])
    for title, words in titled:
        if len(found) >= pairs:
            break
        if len(words) > PASSAGE:
            first = int(random.integers(1, len(words) - PASSAGE + 1))
            found[Pair(" ".join(words[first : first + PASSAGE]), title)] = None
    return list(found)[:pairs]


def mentions(documents: Sequence[Document], *, pairs: int, seed: int = 0) -> list[Pair]:
    """Titles with places in the texts of other documents where they stand, between markers: links that nobody made.

    Args:
        documents: Their titles are the names.
        pairs: At most so many, from documents drawn by chance.
        seed: Of the draws.

    Raises:
        InvalidInput: If `pairs` is not positive.

    Example:
        >>> documents = [Document("1", "A poem.", title="Sonnet"), Document("2", "He wrote a sonnet.", title="Shakespeare")]
        >>> mentions(documents, pairs=5)
        [Pair(query='He wrote a [START_ENT] sonnet [END_ENT] .', name='Sonnet')]
    """
    check_counts(pairs=pairs)
    found = (
        Pair(Marked(text[:start], text[start:end], text[end:]).query, name)
        for text, spans in _linked(documents, seed)
        for start, end, name in spans
    )
    return list(islice(found, pairs))


def linked(documents: Sequence[Document], *, texts: int, seed: int = 0) -> list[Linked]:
    """Sentences of documents' texts with all places where titles of others stand: what to learn linking from.

    Args:
        documents: Their titles are the names. Sentences without any count as well.
        texts: At most so many, from documents drawn by chance.
        seed: Of the draws.

    Raises:
        InvalidInput: If `texts` is not positive.

    Example:
        >>> documents = [Document("1", "A poem.", title="Sonnet"), Document("2", "He wrote a sonnet.", title="Shakespeare")]
        >>> linked(documents, texts=5)[1]
        ('He wrote a sonnet.', [(11, 17, 'Sonnet')])
    """
    check_counts(texts=texts)
    found = list[Linked]()
    for text, spans in _linked(documents, seed):
        first = 0
        for end in [*(match.end() for match in _SENTENCE.finditer(text)), len(text)]:
            inside = [
                (start - first, stop - first, name) for start, stop, name in spans if first <= start < stop <= end
            ]
            if text[first:end].strip():
                found.append((text[first:end], inside))
            first = end
        if len(found) >= texts:
            break
    return found[:texts]


def _linked(documents: Sequence[Document], seed: int) -> Iterator[Linked]:
    """Texts of documents, in an order of chance, with where titles of others stand in them: the longest at each place."""
    known: dict[tuple[str, ...], str] = {}
    for document in documents:
        words = tuple(word.casefold() for word in _WORD.findall(document.title))
        if 0 < len(words) <= LONGEST and max(map(len, words)) > 3:
            known.setdefault(words, document.title)
    for row in np.random.default_rng(seed).permutation(len(documents)).tolist():
        text, title = documents[row].text, documents[row].title
        places = [(match.start(), match.end()) for match in _WORD.finditer(text)]
        words = tuple(text[start:end].casefold() for start, end in places)
        spans, at = list[tuple[int, int, str]](), 0
        while at < len(words):
            sizes = [n for n in range(min(LONGEST, len(words) - at), 0, -1) if words[at : at + n] in known]
            if sizes and (name := known[words[at : at + sizes[0]]]) != title:
                spans.append((places[at][0], places[at + sizes[0] - 1][1], name))
            at += sizes[0] if sizes else 1
        yield text, spans

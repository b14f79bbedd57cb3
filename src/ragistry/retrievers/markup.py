"""Texts whose mentions are marked with names: for models that read and write them, and for people."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple, TypeAlias

from ..errors import InvalidInput
from ..types import check_text
from .namer import Namer

Span: TypeAlias = tuple[int, int]
"""Where characters of a text begin and end."""
NamedSpan: TypeAlias = tuple[int, int, str]
"""Where a mention begins and ends, and the name of what it means."""

BRACKETS = (" {", " } [", " ]")
"""What stands before a mention, between it and the name, and after that, as GENRE's published models were taught."""
SPARE = (("[unused2]", "[unused3]", "[unused4]"), ("<extra_id_2>", "<extra_id_3>", "<extra_id_4>"))
"""Tokens that stand for these in vocabularies that keep some for such uses: one each."""

_SPACES = dict.fromkeys(map(ord, "\u00a0\u2007\u202f"), " ")
_ROUND = dict.fromkeys(map(ord, "{[\uff5b\uff3b\ufe5b\ufe37\ufe47"), "(") | dict.fromkeys(
    map(ord, "}]\uff5d\uff3d\ufe5c\ufe38\ufe48"), ")"
)  # the wide and small ones are the same to some tokenizers
_SCRIPTS = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")  # written without spaces between words
_SENTENCE = re.compile(r"[.!?\u2026][\"'\u201d\u2019)\]]*\s+(?![a-z])|[\u3002\uff01\uff1f]|\n\s*\n")
_PLAIN = r"(?:[^\\{}\[\]]|\\[\\{}\[\]])"
# Not possessive, though it never needs to go back: Python before 3.11.4 takes such groups for matched when they are not.
_MARKED = re.compile(rf"({_PLAIN}*)(?:\{{({_PLAIN}+)\}}\[({_PLAIN}*)\])?", re.DOTALL)


class Markup:
    """How a language model is given a text, and writes it again with its mentions marked and named.

    It reads the tokens of the text, and writes the same tokens, but before a mention those of `opening`, and after it those
    of `between`, the name, and `closing`. The prompt of the namer is not used: it asks for a name alone.

    The tokens are [unused2], [unused3] and [unused4] where a vocabulary has them, or T5's <extra_id_2> and so on; else those
    of " {", " } [" and " ]". In that case brackets of these kinds in a text are read as round ones, so that they are not
    taken for markup. What looks like a special token, such as "</s>", is read with round brackets around it as well, and
    non-breaking spaces are read as spaces. All that keeps the number of characters, so that places are those of the text.

    Args:
        namer: The model, and how names become its tokens.

    Raises:
        InvalidInput: From the first use, if the vocabulary can write none of that, or a text is no text.

    Example:
        >>> from ragistry.scorers.language_model import LanguageModel
        >>> markup = Markup(Namer(LanguageModel("all-MiniLM-L6-v2", grow="seq2seq")))
        >>> markup.read("The Bard wrote")
        ([1996, 22759, 2626], [(0, 3), (4, 8), (9, 14)])
        >>> markup.target("The Bard wrote", [(4, 8, "Shakespeare")])
        [1996, 3, 22759, 4, 8101, 5, 2626, 102]

    Source: GENRE, arXiv:2010.00904 (2021), section 3 and its released code. Deviations: tokens of their own for the markup
    where there are some; the tokens of the text are copied as they are, whatever the markup between them.
    """

    def __init__(self, namer: Namer) -> None:
        self.namer = namer

    @property
    def opening(self) -> list[int]:
        """What is written before a mention."""
        return list(self._tokens.opening)

    @property
    def between(self) -> list[int]:
        """What is written between a mention and its name."""
        return list(self._tokens.between)

    @property
    def closing(self) -> list[int]:
        """What is written after a name."""
        return list(self._tokens.closing)

    def read(self, text: str) -> tuple[list[int], list[Span]]:
        """The tokens of a text without special ones, and the characters that each stands for: unknown ones too."""
        if not isinstance(text, str):
            raise InvalidInput(f"a text is {type(text).__name__}, a str is needed: {text!r:.100}")
        check_text(text, "a text")
        tokens, model = self._tokens, self.namer.model
        plain = text.translate(_SPACES if tokens.spare else _SPACES | _ROUND)
        lead = " " if model.spaced and plain and not plain[0].isspace() else ""
        while True:
            ids, spans = model.pieces(lead + plain)
            spans = [(max(0, start - len(lead)), max(0, end - len(lead))) for start, end in spans]
            before, special = plain, (span for token, span in zip(ids, spans, strict=True) if token in tokens.special)
            for start, end in special:
                inside = plain[start + 1 : end - 1]
                plain = plain[:start] + f"({inside})"[: end - start] + plain[end:]
            if plain == before:
                return list(ids), spans

    def source(self, text: str) -> list[int]:
        """What the model reads of a text, special tokens included.

        Raises:
            InvalidInput: If it is longer than the model can read.
        """
        return self._fitting(self.prompt(self.read(text)[0]), 0, "a text")

    def prompt(self, ids: Sequence[int]) -> list[int]:
        """Tokens of a text, with the special ones that the model wants around them."""
        before, after = self._tokens.around
        return [*before, *ids, *after] or [self.namer.end]

    def target(self, text: str, spans: Sequence[NamedSpan]) -> list[int]:
        """What the model should write of a text with these mentions, the end token included, but not what it starts from.

        Args:
            text: As given to `source`.
            spans: Mentions with their names, in any order. One that begins or ends inside a token is widened to the whole.

        Raises:
            InvalidInput: If mentions share a token or have none, a name has none, or all is longer than the model can write.
        """
        ids, places = self.read(text)
        bare, named = borders(text, places).spans, _ordered(text, spans)
        written, done = list[int](), 0
        for (start, end, name), tokens in zip(named, self.names([name for *_, name in named]), strict=True):
            own = [i for i, (first, last) in enumerate(bare) if first < end and last > start and last > first]
            if not own or not tokens:
                what = f"the name {name!r:.100}" if own else f"the mention at {start} to {end}"
                raise InvalidInput(f"{what} has no token that the model knows; leave it out")
            if own[0] < done:
                raise InvalidInput(
                    f"the mention at {start} to {end} shares the token {text[slice(*bare[own[0]])]!r} with the one before; "
                    "give mentions that lie apart"
                )
            mention = ids[own[0] : own[-1] + 1]
            written += [*ids[done : own[0]], *self.opening, *mention, *self.between, *tokens, *self.closing]
            done = own[-1] + 1
        before = self.prompt(ids) if self.namer.model.causal else self.namer.start
        return self._fitting([*written, *ids[done:], self.namer.end], len(before) - 1, "a text with its names")

    def names(self, names: Sequence[str]) -> list[list[int]]:
        """The tokens of each name inside a text: after a space, where that makes other tokens. None of a name without."""
        return self.moved(self.namer.names(names))

    def moved(self, names: Sequence[Sequence[int]]) -> list[list[int]]:
        """The tokens inside a text of names that are given as the tokens of texts of their own, as tries hold them."""
        namer = self.namer
        if not namer.model.spaced:
            return [list(ids) for ids in names]
        texts = [f" {text}" if (text := namer.model.text(ids)) else "" for ids in names]
        found = namer.model.tokens(texts, namer.name_tokens)
        return [[token for token in ids if token not in self._tokens.special] for ids in found]

    def _fitting(self, ids: list[int], before: int, what: str) -> list[int]:
        """Tokens that the model can read after so many."""
        model = self.namer.model
        if before + len(ids) > model.limit:
            raise InvalidInput(
                f"{what} has {len(ids)} tokens after {before}, the model {model.name!r} reads {model.limit}; cut it up"
            )
        return ids

    @cached_property
    def _tokens(self) -> _Tokens:
        model, end = self.namer.model, self.namer.end
        before, after = model.around
        if model.causal and end not in after:
            after = [*after, end]
        special = {end, *self.namer.start, *before, *after}
        for three in SPARE:
            one, two, last = map(model.place, three)
            if one is not None and two is not None and last is not None:
                return _Tokens([one], [two], [last], True, frozenset({*special, one, two, last}), (before, after))
        opening, between, closing = (model.pieces(part)[0] for part in BRACKETS)
        if not (opening and between and closing):
            raise InvalidInput(f"the model {model.name!r} cannot write brackets; use another one")
        return _Tokens(opening, between, closing, False, frozenset(special), (before, after))


class _Tokens(NamedTuple):
    """The tokens of markup, whether they are spare ones, special tokens, and those before and after a text."""

    opening: list[int]
    between: list[int]
    closing: list[int]
    spare: bool
    special: frozenset[int]
    around: tuple[list[int], list[int]]


def marked(text: str, links: Sequence[NamedSpan]) -> str:
    r"""A text with its links written into it, for people to read: {mention}[name].

    Brackets of these kinds and backslashes in the text and in names get a backslash, so that `unmarked` gives back exactly
    what was marked.

    Args:
        text: Any.
        links: Where mentions begin and end, and what they mean, in any order.

    Raises:
        InvalidInput: If mentions overlap, are empty, or lie outside the text.

    Example:
        >>> marked("The Bard [sic] wrote", [(4, 8, "Shakespeare")])
        'The {Bard}[Shakespeare] \\[sic\\] wrote'
    """
    parts, done = list[str](), 0
    for start, end, name in _ordered(text, links):
        if start < done:
            raise InvalidInput(f"the mention at {start} to {end} overlaps the one before it, which ends at {done}")
        parts += [_escaped(text[done:start]), f"{{{_escaped(text[start:end])}}}[{_escaped(name)}]"]
        done = end
    return "".join([*parts, _escaped(text[done:])])


def unmarked(marked: str) -> tuple[str, list[NamedSpan]]:
    r"""What `marked` was given: the text, and its links in order.

    Raises:
        InvalidInput: If a bracket or backslash stands where `marked` puts none.

    Example:
        >>> unmarked(r"The {Bard}[Shakespeare] \[sic\] wrote")
        ('The Bard [sic] wrote', [(4, 8, 'Shakespeare')])
    """
    parts, links, place, length = list[str](), list[NamedSpan](), 0, 0
    while found := _MARKED.match(marked, place):
        between, mention, name = found.groups()
        parts.append(_plain(between))
        length += len(parts[-1])
        if mention is not None:
            parts.append(_plain(mention))
            links.append((length, length + len(parts[-1]), _plain(name)))
            length += len(parts[-1])
        if found.end() == place:
            break
        place = found.end()
    if place < len(marked):
        raise InvalidInput(
            f"{marked[place : place + 20]!r} at character {place} is no {{mention}}[name]; put a backslash before brackets "
            "and backslashes that are text"
        )
    return "".join(parts), links


class Borders(NamedTuple):
    """Tokens of a text: their characters without spaces around them, of some none; whether each begins where no word is cut;
    and whether it ends so."""

    spans: list[Span]
    begins: list[bool]
    ends: list[bool]


def borders(text: str, spans: Sequence[Span]) -> Borders:
    """Where mentions may begin and end, so that no word is cut.

    Args:
        text: Any.
        spans: Of its tokens.

    Example:
        >>> borders("cats, dogs", [(0, 3), (3, 4), (4, 5), (5, 10)])[1:]
        ([True, False, True, True], [False, True, True, True])
    """
    bare = list[Span]()
    for start, end in spans:
        piece = text[start:end]
        start += len(piece) - len(piece.lstrip())
        bare.append((start, max(start, end - len(piece) + len(piece.rstrip()))))
    begins, ends, reached = list[bool](), list[bool](), 0
    for start, end in bare:
        begins.append(end > start >= reached and not _inside(text, start))
        reached = max(reached, end)
    following = len(text)
    for start, end in reversed(bare):
        ends.append(start < end <= following and not _inside(text, end))
        following = min(following, start)
    return Borders(bare, begins, ends[::-1])


def parts(text: str, bare: Sequence[Span], size: int) -> list[Span]:
    """Divide tokens into runs of at most `size`: at the last end of a sentence, else at a space, else between characters.

    Args:
        text: Any.
        bare: The characters of its tokens, without spaces at their ends.
        size: The most tokens of a run.

    Example:
        >>> parts("A cat. A dog sat", [(0, 1), (2, 5), (5, 6), (7, 8), (9, 12), (13, 16)], 4)
        [(0, 3), (3, 6)]
    """
    over = {found.end() for found in _SENTENCE.finditer(text)} if len(bare) > size else set[int]()
    runs, first = list[Span](), 0
    while len(bare) - first > size:
        # before a token of nothing but a space, which belongs to what follows
        places = [i for i in range(first + size, first, -1) if bare[i - 1][0] < bare[i - 1][1]]
        sentence = (i for i in places if bare[i][0] in over)
        space = (i for i in places if bare[i][0] and text[bare[i][0] - 1].isspace())
        apart = (i for i in places if bare[i - 1][1] <= bare[i][0])
        last = next((i for found in (sentence, space, apart) for i in found), first + size)
        runs.append((first, last))
        first = last
    return [*runs, (first, len(bare))]


def _inside(text: str, place: int) -> bool:
    """Whether a place lies between two characters of one word, or of what is shown as one character."""
    if not 0 < place < len(text):
        return False
    one, other = text[place - 1], text[place]
    if unicodedata.category(other)[0] == "M" or "\u200d" in (one, other):
        return True
    return _worded(one) and _worded(other)


def _worded(letter: str) -> bool:
    """Whether a character joins others in a word."""
    if letter.isascii():
        return letter.isalnum() or letter == "_"
    kind = unicodedata.category(letter)[0]
    return kind in "LNM" and not unicodedata.name(letter, "").startswith(_SCRIPTS)


def _ordered(text: str, spans: Sequence[NamedSpan]) -> list[NamedSpan]:
    """Mentions in order, each a part of the text."""
    for start, end, name in spans:
        check_span(text, start, end)
        if not isinstance(name, str):
            raise InvalidInput(f"the name of the mention at {start} is {type(name).__name__}, a str is needed")
    return sorted(spans)


def check_span(text: str, start: int, end: int) -> None:
    """Refuse what is no mention in a text."""
    whole = all(hasattr(place, "__index__") for place in (start, end))
    if not whole or not 0 <= start < end <= len(text):
        raise InvalidInput(
            f"a mention from {start!r} to {end!r} in a text of {len(text)} characters; give whole numbers, 0 <= start < end "
            f"<= {len(text)}"
        )


def _escaped(text: str) -> str:
    return re.sub(r"[\\{}\[\]]", r"\\\g<0>", text)


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)

"""Mentions found in a text and linked to documents by the names that a language model writes beside them."""

from __future__ import annotations

import math
import threading
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from functools import cached_property
from typing import NamedTuple, Protocol, Self, TypeAlias

import numpy as np

from ..errors import InvalidInput
from ..protocols import Retriever
from ..types import Query, Ranking
from .decoding import Decoding
from .marking import MarkupSearch, Part
from .markup import Borders, Markup, Span, borders, check_span, parts
from .namer import MARKERS, Marked, Namer
from .trie import Trie

Candidates: TypeAlias = Mapping[str, Sequence[str]]
"""For texts of mentions, in any case and with any spaces, the ids of the documents they may mean."""

SIDE = 8
"""Parts of a text that are linked side by side."""
WINDOW = 64
"""Characters around a mention that are given to be read, for each token that will be: more than it can be of."""


class Link(NamedTuple):
    """A mention in a text and the documents it was linked to.

    Args:
        start: The character of the text with which the mention begins.
        end: That before which it ends.
        mention: The text between.
        ids: Of the documents with the name that was chosen; several, in the order in which they were added, share one.
        score: Log-probability of the name and its end, given all that was written before.
        mention_score: Log-probability that a mention begins and ends there, given all that was written before.
    """

    start: int
    end: int
    mention: str
    ids: tuple[str, ...]
    score: float
    mention_score: float


class Naming(Retriever, Protocol):
    """A retriever that answers with documents by their names, such as `Generative`."""

    @property
    def namer(self) -> Namer:
        """The language model."""

    @property
    def names(self) -> Trie:
        """The names of documents, which are numbers in it."""

    def ids(self, numbers: Sequence[int]) -> Sequence[str]:
        """The ids of documents."""

    def numbers(self, ids: Sequence[str]) -> Iterable[int]:
        """Their numbers; ids that are not there are passed over."""

    def fork(self) -> Self:
        """A copy that stays as it is."""


class Linker:
    """Finds mentions in a text and links them to documents, in one pass of beam search over the text.

    The model writes the text again and may do nothing else than copy its next token, begin or end a mention where no word is
    cut, and name the mention with a name that exists: see `Markup`. At the beginning of a mention punctuation is skipped.
    Beams compete when they are equally long, wherever in the text they are. The best is the one with the highest sum of
    log-probabilities, divided by a power of its length in tokens; one of probability zero is none.

    A long text is cut where sentences end, or else at spaces, and each part is linked by itself. Any number of threads may
    use one linker. What is added to the retriever during a call changes nothing in it.

    Args:
        retriever: Holds the names, and the model.
        beams: Hypotheses followed for each part of a text.
        mention_tokens: Of a mention, at most.
        chunk_tokens: Of a part of a text, at most; fewer where the model reads less.
        candidates: If given, nothing but these texts is a mention, and it is linked to no other document than these.
        length_penalty: Exponent of the length that divides sums. 0 ranks by probability, which is what decides whether a
            mention is worth its name: dividing by the length, as GENRE's released code does (1), favours mentions, for they
            make a text longer.

    Raises:
        InvalidInput: If a setting cannot be used. From `link`, if the text is no text, the model is in training mode, or the
            names are too long for it.

    Example:
        >>> from ragistry import Document
        >>> from ragistry.retrievers.generative import Generative
        >>> from ragistry.scorers.language_model import LanguageModel
        >>> retriever = Generative(Namer(LanguageModel("all-MiniLM-L6-v2", grow="seq2seq")))  # not taught to link
        >>> retriever.add([Document("1", "An English poet.", title="Shakespeare")])
        >>> links = Linker(retriever, candidates={"the Bard": ["1"]}).link("A sonnet by the Bard, not a haiku.")
        >>> {(link.mention, link.ids) for link in links} <= {("the Bard", ("1",))}
        True

    Source: GENRE, arXiv:2010.00904 (2021), section 3, end-to-end entity linking. Deviations: each hypothesis keeps its own
    state, which is not counted from the markup it has written; parts of a text do not see each other; sums are not divided
    by lengths unless asked.
    """

    def __init__(
        self,
        retriever: Naming,
        *,
        beams: int = 4,
        mention_tokens: int = 12,
        chunk_tokens: int = 96,
        candidates: Candidates | None = None,
        length_penalty: float = 0.0,
    ) -> None:
        settings = {"beams": beams, "mention_tokens": mention_tokens, "chunk_tokens": chunk_tokens}
        for name, value in settings.items():
            if not hasattr(value, "__index__") or value < 1:
                raise InvalidInput(f"{name}={value!r:.100}; give a whole number, 1 or more")
        if not (math.isfinite(length_penalty) and length_penalty >= 0):
            raise InvalidInput(f"length_penalty={length_penalty}; give 0, for probabilities, or more")
        self.retriever, self.candidates, self.beams = retriever, candidates, beams
        self.mention_tokens, self.chunk_tokens, self.length_penalty = mention_tokens, chunk_tokens, length_penalty
        self._lock = threading.Lock()
        self._inner: tuple[Trie, Trie] | None = None

    def link(self, text: str) -> list[Link]:
        """The mentions in a text that are linked, in order; they do not overlap."""
        held = self.retriever.fork()
        markup, names = Markup(held.namer), held.names.fork()
        ids, spans = markup.read(text)
        surfaces = self._surfaces
        if not ids or not len(names):
            return []
        names = self._spaced(markup, names)
        model, start = held.namer.model, held.namer.start
        run = Decoding(model.model, start)
        longest = len(markup.opening) + len(markup.between) + len(markup.closing) + names.depth
        room = model.limit - len(markup.prompt([]) if model.causal else start)  # a causal model writes where it reads
        size = (room - longest) // (3 if model.causal else 2)
        if size < 1:
            raise InvalidInput(
                f"names of up to {names.depth} tokens do not fit the {model.limit} that the model {model.name!r} reads; "
                "lower name_tokens"
            )
        where, options, found = borders(text, spans), _Options(names, held, surfaces), list[Link]()
        runs = parts(text, where.spans, min(size, self.chunk_tokens))
        for place in range(0, len(runs), SIDE):
            works = list[tuple[int, Part]]()
            for first, last in runs[place : place + SIDE]:
                mentions = self._mentions(text, where, first, last, options)
                if mentions:  # else there is nothing but copying
                    free = room - (last - first if model.causal else 0)
                    works.append((first, Part(ids[first:last], mentions, free, longest)))
            found += self._linked(text, where.spans, works, run, markup, held)
        return found

    def _linked(
        self,
        text: str,
        spans: Sequence[Span],
        works: Sequence[tuple[int, Part]],
        run: Decoding,
        markup: Markup,
        held: Naming,
    ) -> list[Link]:
        """The links of parts of a text, each given with its first token."""
        prompts = [np.array(markup.prompt(part.ids), np.int64) for _, part in works]
        found = list[Link]()
        for chunk in run.batches(range(len(works)), prompts, SIDE):
            search = MarkupSearch(copy(run), markup, [works[row][1] for row in chunk], self.beams, self.length_penalty)
            for row, best in zip(chunk, search.best([prompts[row] for row in chunk]), strict=True):
                for mark in best.marks if best else ():
                    tokens = spans[works[row][0] + mark.begin : works[row][0] + mark.end]
                    start, end = tokens[0][0], tokens[-1][1]
                    ids = held.ids(mark.names.entities([mark.node]).values.tolist())
                    found.append(Link(start, end, text[start:end], tuple(ids), mark.score, mark.mention_score))
        return found

    def _mentions(
        self,
        text: str,
        where: Borders,
        first: int,
        last: int,
        options: _Options,
    ) -> dict[int, dict[int, Trie]]:
        """Where in a part of a text mentions may begin, where those may end, and the names they may have."""
        found = dict[int, dict[int, Trie]]()
        for begin in range(first, last):
            start = where.spans[begin][0]
            if not where.begins[begin] or (self.candidates is None and unicodedata.category(text[start])[0] == "P"):
                continue
            for end in range(begin, min(begin + self.mention_tokens, last)):
                if where.ends[end] and len(names := options.of(text[start : where.spans[end][1]])):
                    found.setdefault(begin - first, {})[end + 1 - first] = names
        return found

    @cached_property
    def _surfaces(self) -> dict[str, list[str]] | None:
        return None if self.candidates is None else _surfaces(self.candidates)

    def _spaced(self, markup: Markup, names: Trie) -> Trie:
        """The names as they are written inside a text, made anew when they have changed."""
        if not markup.namer.model.spaced:
            return names
        with self._lock:
            if self._inner is None or self._inner[0]._segments is not names._segments:
                listed, numbers = zip(*_listed(names), strict=True)
                inner, written = Trie(names.end), markup.moved(listed)
                kept = [place for place, tokens in enumerate(written) if tokens]
                inner.add([written[place] for place in kept], [numbers[place] for place in kept])
                self._inner = names, inner
            return self._inner[1]


class _Options:
    """The names that mentions may have: all, or those of a mention's candidates."""

    def __init__(self, names: Trie, held: Naming, surfaces: Mapping[str, Sequence[str]] | None) -> None:
        self.names, self.held, self.surfaces = names, held, surfaces
        self.none, self.views = Trie(names.end), dict[str, Trie]()

    def of(self, mention: str) -> Trie:
        if self.surfaces is None:
            return self.names
        surface = _surface(mention)
        if surface not in self.surfaces:
            return self.none
        if surface not in self.views:
            self.views[surface] = self.names.among(self.held.numbers(self.surfaces[surface]))
        return self.views[surface]


def _listed(names: Trie) -> Iterator[tuple[list[int], int]]:
    """Each name without its end, with each entity that has it."""
    said, found = np.zeros((1, 0), np.int32), names.children([0])
    while len(found.tokens):
        said, over = np.repeat(said, np.diff(found.offsets), axis=0), found.tokens == names.end
        owners, offsets = names.entities(found.nodes[over])
        yield from zip(np.repeat(said[over], np.diff(offsets), axis=0).tolist(), owners.tolist(), strict=True)
        said = np.column_stack((said[~over], found.tokens[~over].astype(np.int32)))
        found = names.children(found.nodes[~over])


def _surface(text: str) -> str:
    """A mention's text as candidates are looked up by it."""
    return " ".join(text.casefold().split())


def _surfaces(candidates: Candidates) -> dict[str, list[str]]:
    """Candidates by what they are looked up by, of which several texts may have the same."""
    if not isinstance(candidates, Mapping):
        raise InvalidInput(
            f"candidates are {type(candidates).__name__}; give a mapping of mentions' texts to lists of document ids"
        )
    found = dict[str, list[str]]()
    for text, ids in candidates.items():
        if isinstance(ids, str) or not all(isinstance(id_, str) for id_ in (text, *ids)):
            raise InvalidInput(
                f"the candidates of {text!r:.100} are {ids!r:.100}; give texts with lists of document ids"
            )
        found.setdefault(_surface(text), []).extend(ids)
    return found


def disambiguate(
    retriever: Retriever,
    text: str,
    spans: Sequence[Span],
    k: int = 1,
    candidates: Candidates | None = None,
) -> list[Ranking]:
    """The documents that mentions in a text most likely mean, where it is known what the mentions are.

    Args:
        retriever: Answers queries that have a mention in them: see `Namer`.
        text: Any; the retriever reads so much around each mention as it can.
        spans: Where each mention begins and ends. They may overlap.
        k: Documents for each, at most.
        candidates: If given, a mention is one of these documents; one whose text is not there is none.

    Raises:
        InvalidInput: If a mention is empty or not in the text.

    Example:
        >>> class Shouting:
        ...     def search(self, queries, k=10, *, among=None):
        ...         return [Ranking((query.upper(),), [1.0]) for query in queries]
        >>> disambiguate(Shouting(), "by the Bard.", [(3, 11)])[0].ids
        ('BY [START_ENT] THE BARD [END_ENT] .',)

    Source: GENRE, arXiv:2010.00904 (2021), section 4.1.
    """
    if not isinstance(text, str):
        raise InvalidInput(f"a text is {type(text).__name__}, a str is needed: {text!r:.100}")
    surfaces = None if candidates is None else _surfaces(candidates)
    namer = getattr(retriever, "namer", None)
    window = WINDOW * namer.query_tokens if isinstance(namer, Namer) else len(text)
    groups: dict[frozenset[str] | None, list[int]] = {}
    queries = list[Query]()
    for start, end in spans:
        check_span(text, start, end)
        allowed = None if surfaces is None else frozenset(surfaces.get(_surface(text[start:end]), ()))
        groups.setdefault(allowed, []).append(len(queries))
        around = (text[max(0, start - window) : start], text[start:end], text[end : end + window])
        queries.append(Marked(*map(_unmarked, around)).query)
    found = [Ranking((), np.zeros(0, np.float32))] * len(queries)
    for among, places in groups.items():
        rankings = retriever.search([queries[place] for place in places], k, among=among)
        for place, ranking in zip(places, rankings, strict=True):
            found[place] = ranking
    return found


def _unmarked(text: str) -> str:
    """A text in which nothing looks like the marks around a mention."""
    for marker in MARKERS:
        text = text.replace(marker, f"({marker[1:-1]})")
    return text

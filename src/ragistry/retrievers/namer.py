"""A language model that answers queries with names: how both become its tokens."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from copy import copy
from functools import cached_property
from typing import NamedTuple, Self

from ..errors import InvalidInput
from ..models import find_model, load_tokenizer
from ..scorers.growing import speaks
from ..scorers.language_model import LanguageModel
from ..scorers.likelihood import start_of
from ..types import Floats, Query

MARKERS = ("[START_ENT]", "[END_ENT]")
"""What stands around a mention in a query, as GENRE's models were taught."""
SPARE = ("[unused0]", "[unused1]")
"""Tokens that stand for the markers in vocabularies that keep some for such uses: one each, where else there are many."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Marked(NamedTuple):
    """A text with a mention in it."""

    left: str
    mention: str
    right: str

    @property
    def query(self) -> Query:
        """As one text, with the markers around the mention."""
        start, end = MARKERS
        return " ".join(
            part for part in (self.left.rstrip(), start, self.mention.strip(), end, self.right.lstrip()) if part
        )

    @classmethod
    def of(cls, query: Query) -> Marked | None:
        """From a text with markers around its first mention; none where there are none.

        Example:
            >>> Marked.of("in [START_ENT] Paris [END_ENT] , Texas")
            Marked(left='in', mention='Paris', right=', Texas')
        """
        start, end = MARKERS
        left, opened, rest = query.partition(start)
        mention, closed, right = rest.partition(end)
        return cls(left.strip(), mention.strip(), right.strip()) if opened and closed else None


class Namer:
    """A language model with the way queries and names are put to it.

    A query may have a mention in it, between `[START_ENT]` and `[END_ENT]`: then so much of the text around it is read as
    there is room for, half of it on either side. A longer query without is cut at its end.

    Args:
        model: An encoder-decoder, or causal.
        prompt: What is read, with the query for `{query}`.
        query_tokens: Tokens read of a query, special ones and those of the prompt included.
        name_tokens: Tokens of a name; longer ones are cut, and may then be the same.
        mention_first: Whether a mention is read once more, before all of the text: a small model finds it there more easily.
            By default for models that are grown, as others were taught without.

    Raises:
        InvalidInput: If the prompt does not hold `{query}` once, or a number is not positive. From the first use, if the
            model cannot read so many tokens, the prompt leaves none for a query, or there is no token to end a name with.

    Example:
        >>> namer = Namer(LanguageModel("all-MiniLM-L6-v2", grow="seq2seq"))
        >>> namer.names(["Fourteen lines"])
        [[7426, 3210]]

    Source: GENRE, arXiv:2010.00904 (2021), section 3 and appendix A.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        prompt: str = "{query}",
        query_tokens: int = 128,
        name_tokens: int = 32,
        mention_first: bool | None = None,
    ) -> None:
        if prompt.count("{query}") != 1:
            raise InvalidInput(
                f"the prompt {prompt!r:.100} must say where the query belongs; put {{query}} there, once"
            )
        if min(query_tokens, name_tokens) < 1:
            raise InvalidInput(f"query_tokens={query_tokens}, name_tokens={name_tokens}; give 1 or more of each")
        self.model, self.prompt = model, prompt
        self.query_tokens, self.name_tokens, self.mention_first = query_tokens, name_tokens, mention_first

    def tuned(self, weights: Mapping[str, Floats]) -> Self:
        """The same with other values for some of the model's weights: see `LanguageModel.tuned`."""
        twin = copy(self)
        twin.model = self.model.tuned(weights)
        return twin

    def fingerprint(self) -> str:
        """Differs between namers to which a name is other tokens. The model's weights do not count."""
        return self._fingerprint

    @property
    def end(self) -> int:
        """The token that ends a name."""
        return self._whole.end

    @property
    def start(self) -> list[int]:
        """What a decoder beside an encoder reads before a name, as transformers generates; nothing for a causal model."""
        return list(self._whole.start)

    def prompts(self, queries: Sequence[Query]) -> list[list[int]]:
        """The tokens that the model reads of each query, special ones included."""
        whole = self._whole
        room = self.query_tokens - len(whole.head) - len(whole.tail)
        found, space = list[list[int]](), " " if whole.follows and self.model.spaced else ""
        plain = self.model.tokens([f"{space}{text}" if (text := query.lstrip()) else text for query in queries], room)
        for query, ids in zip(queries, plain, strict=True):
            marked = Marked.of(query)
            own = ids if marked is None else self._marked(marked, room, space)
            found.append([*whole.head, *own, *whole.tail] or [self.end])
        return found

    def names(self, names: Sequence[str]) -> list[list[int]]:
        """The tokens of each name without its end; none of a name that has none. Control characters are read as spaces."""
        special = self._whole.special
        plain = [" ".join(_CONTROL.sub(" ", name).split()) for name in names]
        return [
            [token for token in ids if token not in special][: self.name_tokens]
            for ids in self.model.tokens(plain, self.name_tokens)
        ]

    def _marked(self, marked: Marked, room: int, before: str) -> list[int]:
        """A mention, maybe, and a mention with what is around it."""
        if not self._whole.twice:
            return self._around(marked, room, before)
        own = self.model.tokens([f"{before}{marked.mention}"], room // 3)[0]
        inside = " " if self.model.spaced else before
        return [*own, *self._around(marked, room - len(own), inside)]

    def _around(self, marked: Marked, room: int, before: str) -> list[int]:
        """A mention with as much around it as there is room for, after what comes before it in the prompt."""
        start, end = self._whole.markers
        space = " " if self.model.spaced and marked.left else before
        if start is None or end is None:
            opened, closed = MARKERS
            mention = self.model.tokens([f"{space}{opened} {marked.mention} {closed}"], room)[0]
        else:
            mention = [start, *self.model.tokens([marked.mention], max(1, room - 2))[0], end]
        window = 16 * room  # characters
        left = marked.left[-window:]
        if len(left) < len(marked.left):
            left = left.partition(" ")[2] or left  # the window may begin inside a word, where there are spaces
        right = f" {marked.right[:window]}" if self.model.spaced and marked.right else marked.right[:window]
        own, after = self.model.tokens([f"{before}{left}" if left else "", right], window)
        free = max(0, room - len(mention))
        ahead = min(len(after), max(free // 2, free - len(own)))
        behind = free - ahead
        return [*own[len(own) - min(behind, len(own)) :], *mention, *after[:ahead]]

    @cached_property
    def _whole(self) -> _Frame:
        model = self.model
        end = model.end
        if end is None:
            raise InvalidInput(
                f"the model {model.name!r} has no token that ends a text; give one whose tokenizer has one"
            )
        before, after = model.around
        special = {*before, *after, end}
        head, tail = (part.strip() for part in self.prompt.split("{query}"))
        own = model.tokens([head, f" {tail}" if tail and model.spaced else tail], model.limit)
        longest = self.query_tokens + self.name_tokens if model.causal else max(self.query_tokens, self.name_tokens + 2)
        if longest > model.limit:
            raise InvalidInput(
                f"query_tokens={self.query_tokens} and name_tokens={self.name_tokens} do not fit the {model.limit} tokens "
                f"that the model {model.name!r} reads; lower them"
            )
        start = list[int]()
        if model.causal:
            after = after if end in after else [*after, end]  # what says that the name begins
        else:
            forced = getattr(getattr(model.model, "generation_config", None), "forced_bos_token_id", None)
            start = [start_of(model.model.config), *([] if forced is None else [forced])]
        before, after = [*before, *own[0]], [*own[1], *after]
        if len(before) + len(after) >= self.query_tokens:
            raise InvalidInput(
                f"query_tokens={self.query_tokens} leaves nothing for a query: the prompt {self.prompt!r:.100} takes "
                f"{len(before) + len(after)} tokens, special ones included; shorten it, or give more"
            )
        spare = (model.place(SPARE[0]), model.place(SPARE[1]))
        twice = self.mention_first
        if twice is None:
            twice = model.grow is not None and not speaks(find_model(model.name))
        return _Frame(before, after, bool(own[0]), start, end, special.union(start), spare, twice)

    @cached_property
    def _fingerprint(self) -> str:
        tokenizer, _ = load_tokenizer(find_model(self.model.name))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        whole = f"{self.name_tokens} {self.end} {self.start} {tokenizer.to_str()}"
        return hashlib.sha256(whole.encode()).hexdigest()


class _Frame(NamedTuple):
    """The tokens around a query and a name."""

    head: list[int]  # special ones and the prompt's
    tail: list[int]
    follows: bool  # whether a query comes after words of the prompt
    start: list[int]
    end: int
    special: set[int]  # no part of a name
    markers: tuple[int | None, int | None]
    twice: bool  # whether mentions are read twice

"""A dense searcher whose second look is by a query encoder that has read what the first one found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Self, cast

from ..errors import InvalidInput
from ..models import special_tokens
from ..protocols import Encoder, Files, State
from ..types import Among, Floats, Query, Ranking
from .expanders import TextPRF
from .prf import PRF
from .searcher import Searcher

if TYPE_CHECKING:
    from ..encoders.stack import Stack


class Rereading(PRF):
    """Looks twice, the second time by a copy of the query encoder that was taught to read query and documents together.

    Untaught it is the searcher, exactly, and looks once. Vectors of documents are never touched, whatever it is taught.

    Args:
        searcher: A dense searcher whose encoder is a stack over a transformer, maybe with a cache.
        depth: How many documents of the first look are read; 0 for none.
        length: Characters of each document that are read.

    Raises:
        InvalidInput: If the searcher is not dense, or a number is out of range.

    Example:
        >>> from ragistry import Document
        >>> from ragistry.encoders.backbones import stack
        >>> from ragistry.indexes.faiss import Faiss
        >>> searcher = Rereading(Searcher(stack("all-MiniLM-L6-v2"), Faiss()))
        >>> searcher.add([Document("1", "fourteen lines"), Document("2", "a cat")])
        >>> searcher.search(["how long is a sonnet?"], k=1)[0].ids
        ('1',)
    """

    def __init__(self, searcher: Searcher, *, depth: int = 3, length: int = 400) -> None:
        super().__init__(searcher, TextPRF(searcher.encoder, "", length), depth=depth)
        self.weights: Mapping[str, Floats] = {}
        self.separator = ""
        self.length = length

    def search(self, queries: Sequence[Query], k: int = 10, *, among: Among = None) -> list[Ranking]:
        """One ranking per query, at most `k` long, of ids in `among`.

        Raises:
            InvalidInput: If `queries` is no sequence of texts, `k` no whole number, or `among` no collection; or, taught, if
                there are no texts to read.
        """
        if not self.weights:
            return self.searcher.search(queries, k, among=among)
        return super().search(queries, k, among=among)

    @property
    def encoder(self) -> Encoder:
        """What encodes documents, and queries before feedback."""
        return self.searcher.encoder

    def encoded(self, ids: Sequence[str]) -> Floats:
        """Vectors of documents, float32 [len(ids), d].

        Raises:
            UnknownName: If an id is not there.
        """
        return cast(Floats, self.searcher.index.vectors(ids))

    def taught(self, weights: Mapping[str, Floats], separator: str) -> Self:
        """The same documents, their index shared, searched with these weights of the query encoder; this one stays as it is.

        Args:
            weights: By their names in the model; none is untaught.
            separator: See `TextPRF`.

        Raises:
            InvalidInput: If the encoder is no such stack; from `search`, if its model has no such weight.
        """
        twin = self.fork()
        twin._use(weights, separator)
        return twin

    def save(self, files: Files) -> State:
        """Store arrays in `files` and return the rest."""
        state = super().save(files)
        if self.weights:
            state["separator"] = self.separator
            state["weights"] = {name: files.put(value) for name, value in sorted(self.weights.items())}
        return state

    def load(self, state: State, files: Files) -> None:
        """Become what was saved."""
        super().load(state, files)
        weights = {name: files.get(file) for name, file in state.get("weights", {}).items()}
        self._use(weights, state.get("separator", ""))

    def _use(self, weights: Mapping[str, Floats], separator: str) -> None:
        self.weights, self.separator = weights, separator
        reads = self.encoder
        if weights:
            from ..encoders.token_aware import stack_of  # loads torch

            reads = tower(stack_of(self.encoder), weights)
        self.expander = TextPRF(reads, separator, self.length)

    def _check(self) -> None:
        self.searcher._check()


def tower(base: Stack, weights: Mapping[str, Floats]) -> Stack:
    """A query encoder with these weights in the model of another."""
    from ..encoders.tuned import Tuned

    return base.over(Tuned(base.backbone, weights), base.steps)


def separator_of(base: Stack) -> str:
    """The token that ends texts, as a model spells it, with spaces around it.

    Raises:
        InvalidInput: If its tokenizer has none.
    """
    _, end = special_tokens(base.backbone.layout().folder)
    token = None if end is None else base.loaded().tokenizer.id_to_token(end)
    if token is None:
        raise InvalidInput(
            f"the tokenizer of {base.backbone.name!r} has no token that ends a text (sep_token, eos_token)"
        )
    return f" {token} "

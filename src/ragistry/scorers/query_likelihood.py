"""Query likelihood: a document is as good as the query is likely to be asked of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInput
from ..types import Document, Query, check_text
from .language_model import LanguageModel, Prefix
from .prefixes import Prefixes
from .prompts import Prompt, prompt_of

Reduce: TypeAlias = Literal["sum", "mean"]
Attention: TypeAlias = Literal["full", "stop"]


class QueryLikelihood:
    """Scores documents by log p(query | document) under a language model: a `Scorer`.

    The model reads [begin] before, document, after [end], then the query and, if asked, [end] again; the query's own tokens
    are what counts. Where one part ends and the next begins there is a border between tokens: parts are tokenised apart, so
    that no token belongs to two of them and none of the query's is lost. Where a model's tokens hold the space before a word
    the query gets one. Documents are cut, never the words around them.

    A document is read once, and queries go on from what was kept of it: in memory for one call, or on disk for as long as
    there is room.

    Args:
        model: Causal or encoder-decoder.
        prompt: A name of `prompts.PROMPTS`, a text that holds `{document}`, or a `Prompt`.
        reduce: `sum` of the tokens' log-probabilities, or their `mean`; both order documents alike.
        attention: `full`, or `stop`: the query sees only the token that ends the document's part, so that a document is
            kept as one position in each layer. For causal models, and worth something only for those that learnt so.
        ends: Whether the query's own end counts as one of its tokens.
        document_tokens: Of a document that are read, at most.
        query_tokens: Of a query that count, at most.
        kept: Where documents are kept between calls; none keeps them for one call.

    Raises:
        InvalidInput: If a name is not known; from `score`, if the words around a document leave no room for it.

    Example:
        >>> from ragistry.scorers.language_model import LanguageModel
        >>> scorer = QueryLikelihood(LanguageModel("a-folder"), prompt="upr")
        >>> scorer.prompt.before
        'Passage: '

    Source: Ponte and Croft (SIGIR 1998) for the idea; UPR, arXiv:2204.07496, and arXiv:2310.13243 for language models;
    LLM-QL, arXiv:2504.05216, for `attention="stop"`. Deviations: the border above (llm-qlm's code counts a token of the
    prompt as well); a document is cut so that the words after it stay.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        prompt: str | Prompt = "plain",
        reduce: Reduce = "mean",
        attention: Attention = "full",
        ends: bool = False,
        document_tokens: int = 512,
        query_tokens: int = 64,
        kept: Prefixes | None = None,
    ) -> None:
        for what, given, known in (("reduce", reduce, Reduce), ("attention", attention, Attention)):
            if given not in get_args(known):
                raise InvalidInput(f"{what}={given!r} is not known; use one of {', '.join(get_args(known))}")
        if document_tokens < 1 or query_tokens < 1:
            raise InvalidInput(
                f"document_tokens={document_tokens} and query_tokens={query_tokens}; both must be at least 1"
            )
        self.model = model
        self.prompt = prompt_of(prompt) if isinstance(prompt, str) else prompt
        self.reduce, self.attention, self.ends = reduce, attention, ends
        self.document_tokens, self.query_tokens = document_tokens, query_tokens
        self.kept = kept

    def score(self, query: Query, documents: Sequence[Document]) -> npt.NDArray[np.float32]:
        """log p(query | document), its sum or mean over tokens: float32 [len(documents)], higher is better.

        An empty query scores 0 everywhere.

        Raises:
            InvalidInput: If the query is no text, or the words around a document leave no room for it.
        """
        if not isinstance(query, str):
            raise InvalidInput(f"the query is {type(query).__name__}; a str is needed")
        check_text(query, "the query")
        target = self.target(query)
        if not target or not documents:
            return np.zeros(len(documents), np.float32)
        found = self.model.log_likelihoods(self.read(documents), target)
        return np.asarray(found.sum(axis=1) if self.reduce == "sum" else found.mean(axis=1), np.float32)

    def target(self, query: Query) -> list[int]:
        """The tokens of a query that count."""
        lead = " " if self.model.spaced and query and not query[0].isspace() else ""
        tokens = self.model.tokens([lead + query], self.query_tokens)[0]
        ending = [self.model.end] if self.ends and tokens and self.model.end is not None else []
        return [*tokens, *ending]

    def prefixes(self, documents: Sequence[Document]) -> list[list[int]]:
        """The tokens that are read of each document, with those around it.

        Raises:
            InvalidInput: If these leave no room for it.
        """
        model = self.model
        before, after = model.tokens([self.prompt.before, self.prompt.after], model.limit)
        first = [] if model.begin is None else [model.begin]
        ending = self.prompt.ending or self.attention == "stop" or not model.causal
        last = [model.end] if ending and model.end is not None else []
        around = len(first) + len(before) + len(after) + len(last)
        following = self.query_tokens + self.ends if model.causal else 0
        room = min(self.document_tokens, model.limit - around - following)
        if room < 1:
            raise InvalidInput(
                f"the prompt takes {around} tokens and the query up to {following}, which leaves no room for a document in "
                f"the {model.limit} that {model.name!r} reads; give a shorter prompt, or a smaller query_tokens"
            )
        texts = model.tokens([document.full_text for document in documents], room)
        found = [[*first, *before, *text, *after, *last] for text in texts]
        # Nothing at all to read: what ends a text stands for it, or the token that is always there.
        nothing = [model.end if model.end is not None else 0]
        return [ids or nothing for ids in found]

    def read(self, documents: Sequence[Document]) -> list[Prefix]:
        """What the model keeps of each document, from disk where it is there."""
        stop, rows = self.attention == "stop", self.prefixes(documents)
        if self.kept is None:
            distinct = list(dict.fromkeys(map(tuple, rows)))
            by_row = dict(zip(distinct, self.model.read(distinct, stop=stop), strict=True))
            return [by_row[tuple(row)] for row in rows]
        keys = [self._key(row) for row in rows]
        found = {key: self.kept.get(key) for key in dict.fromkeys(keys)}
        missing = {key: row for key, row in zip(keys, rows, strict=True) if found[key] is None}
        if missing:
            for key, prefix in zip(missing, self.model.read(list(missing.values()), stop=stop), strict=True):
                found[key] = prefix = self.kept.rounded(prefix)
                self.kept.put(key, prefix)
        return [prefix for prefix in (found[key] for key in keys) if prefix is not None]

    def _key(self, tokens: Sequence[int]) -> str:
        about = f"1 {self.model.fingerprint()} {self.attention} ".encode()
        return hashlib.sha256(about + np.asarray(tokens, "<i8").tobytes()).hexdigest()[:40]

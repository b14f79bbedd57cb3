"""Queries that a language model asks of documents, where nobody has written any: the ground for GenQ and GPL."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch

from ..errors import InvalidInput
from ..evaluation.task import check_counts
from ..protocols import Retriever
from ..scorers.query_likelihood import QueryLikelihood
from ..types import Document
from .examples import Example
from .writing import Sampling, continued

ROWS = 64
"""Queries that are written side by side; what comes out does not depend on it beyond rounding."""
ASKED = 256
"""Queries that a judge is asked at a time."""
BROKEN = "\N{REPLACEMENT CHARACTER}"
"""What bytes that are no text are read as, such as half a letter where a query was cut."""


def synthesise(
    scorer: QueryLikelihood,
    documents: Sequence[Document],
    *,
    queries: int = 1,
    temperature: float = 1.0,
    top_p: float = 0.95,
    most_tokens: int = 32,
    seed: int = 0,
    judge: Retriever | None = None,
    keep: int = 10,
) -> list[Example]:
    """Queries that a scorer's language model writes after each document, in the words it scores documents with.

    What it writes follows from the seed and the document's own text: others beside it change it no more than rounding does.
    Documents of the same text answer together. What is left out: what was written before of the same text, in whatever
    case; what was written of two texts, as it does not tell them apart; and what a judge does not find its document by.

    Args:
        scorer: Its model, prompt and attention; one whose model has learnt to ask, as `ragistry.training.language.speaker`
            teaches it.
        documents: With ids of their own.
        queries: Written of each document. Fewer may be left.
        temperature: Above 1 more varied, below 1 more likely ones; 0 takes the likeliest token each time.
        top_p: Tokens are drawn from the likeliest that have this share of the probability together.
        most_tokens: Of a query; one that has not ended by then is cut.
        seed: Of the draws.
        judge: A retriever that holds the documents: queries are kept for which it finds theirs (a round trip).
        keep: Among so many of the judge's best.

    Returns:
        Pairs of relevance 1, in the order of the documents.

    Raises:
        InvalidInput: If a value is out of range, there are no documents, or no query is left.

    Example:
        >>> import tempfile
        >>> from ragistry.scorers.language_model import LanguageModel
        >>> from ragistry.scorers.growing import grow
        >>> model = LanguageModel(grow(tempfile.mkdtemp(), layers=1))
        >>> scorer = QueryLikelihood(model, prompt="{document} What is asked?")
        >>> [pair] = synthesise(scorer, [Document("1", "A sonnet has fourteen lines.")], temperature=0, most_tokens=4)
        >>> pair.document_id, pair.relevance
        ('1', 1)

    Source: GenQ as BEIR has it, arXiv:2104.08663; GPL, arXiv:2112.07577; nucleus sampling, arXiv:1904.09751; the round trip
    of Promptagator, arXiv:2209.11755.
    """
    check_counts(queries=queries, most_tokens=most_tokens, keep=keep)
    if not 0 <= temperature < math.inf or not 0 < top_p <= 1:
        raise InvalidInput(
            f"temperature={temperature}, top_p={top_p}: the temperature must be 0 or more, top_p above 0 and at most 1"
        )
    if not documents:
        raise InvalidInput("no documents were given to ask about; give at least one")
    # The likeliest tokens are the same each time.
    how = Sampling(queries if temperature else 1, temperature, top_p, most_tokens, seed)
    distinct = list({document.full_text: document for document in documents}.values())
    written = dict(_written(scorer, distinct, how))
    texts: dict[str, dict[str, str]] = {document.full_text: {} for document in distinct}
    found = 0
    for text, own in texts.items():
        said = [" ".join(query.replace(BROKEN, " ").split()) for query in written[text]]
        found += sum(map(bool, said))
        for query in filter(None, said):
            own.setdefault(query.casefold(), query)
    owners: dict[str, list[str]] = {}
    for text, own in texts.items():
        for key in own:
            owners.setdefault(key, []).append(text)
    alone = {text: [query for key, query in own.items() if len(owners[key]) == 1] for text, own in texts.items()}
    once = sum(map(len, alone.values()))
    if judge is not None:
        alone = _returned(judge, documents, alone, keep)
    left = sum(map(len, alone.values()))
    if not left:
        total = len(distinct) * how.queries
        raise InvalidInput(
            f"of {total} queries that were generated none is left: {total - found} were empty, {found - once} duplicates, "
            f"and {once - left} failed the round trip; use a model that has learnt to ask, more queries, a higher "
            "temperature, or a judge that holds the documents"
        )
    return [Example(query, document.id) for document in documents for query in alone[document.full_text]]


def _returned(
    judge: Retriever, documents: Sequence[Document], asked: dict[str, list[str]], keep: int
) -> dict[str, list[str]]:
    """Of each text's queries those by which a judge finds it."""
    text_of = {document.id: document.full_text for document in documents}
    pairs = [(text, query) for text, found in asked.items() for query in found]
    kept: dict[str, list[str]] = {text: [] for text in asked}
    for first in range(0, len(pairs), ASKED):
        some = pairs[first : first + ASKED]
        for (text, query), ranking in zip(some, judge.search([query for _, query in some], keep), strict=True):
            if any(text_of.get(id) == text for id in ranking.ids):
                kept[text].append(query)
    return kept


def _written(scorer: QueryLikelihood, documents: Sequence[Document], how: Sampling) -> Iterator[tuple[str, list[str]]]:
    """Each document's text, with what the model writes after it."""
    model, rows = scorer.model, scorer.prefixes(documents)
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
    size = max(1, ROWS // how.queries)
    for first in range(0, len(order), size):
        some = order[first : first + size]
        prefixes = model.read([rows[i] for i in some], stop=scorer.attention == "stop")
        texts = [documents[i].full_text for i in some]
        draws = torch.cat([how.draws(text) for text in texts])
        repeated = [prefix for prefix in prefixes for _ in range(how.queries)]
        with torch.inference_mode():
            said = [model.text(tokens) for tokens in continued(model, repeated, draws, how)]
        for place, text in enumerate(texts):
            yield text, said[place * how.queries : (place + 1) * how.queries]

"""Documents that nearly are others, as distractors: the same text with its rarest words exchanged."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from math import log

import numpy as np

from ragistry import Document
from ragistry.evaluation.tasks import Task

EXCHANGED = 5
"""Words of a document that its twin does not share."""
_WORD = re.compile(r"[^\W\d_]{4,}")


def with_twins(
    documents: Sequence[Document], asked: Sequence[Document], spans: Sequence[int], queries: int, seed: int = 7
) -> tuple[list[Document], list[Task]]:
    """Documents with a twin for some of them, and parts of those that hold a word which the twin has not.

    Args:
        documents: All that are searched.
        asked: Those that get a twin and are asked for.
        spans: Words of the queries of each task.
        queries: At most so many in a task, and twins.
        seed: Of the words that take the place of others, and of where queries are cut.

    Returns:
        The documents with twins behind them, and a task for each span: its queries fit a twin but for one word or more.
    """
    random = np.random.default_rng(seed)
    found = {document.id: Counter(word.lower() for word in _WORD.findall(document.full_text)) for document in documents}
    holding = Counter(word for words in found.values() for word in words)
    rare = sorted(word for word, count in holding.items() if count <= max(3, len(documents) // 500))
    twins: list[Document] = []
    asking: dict[int, dict[str, str]] = {span: {} for span in spans}
    for place in random.permutation(len(asked)):
        document = asked[int(place)]
        worth = {word: n * log(len(documents) / holding[word]) for word, n in found[document.id].items()}
        words = sorted(worth, key=lambda word: (-worth[word], word))[:EXCHANGED]
        cut = {span: _span(document.text, set(words), span, random) for span in spans}
        if len(words) < EXCHANGED or not all(cut.values()):
            continue
        others = dict(zip(words, random.choice(rare, EXCHANGED, replace=False).tolist(), strict=True))

        def exchanged(text: str, others: dict[str, str] = others) -> str:
            return _WORD.sub(lambda match: others.get(match[0].lower(), match[0]), text)

        title = document.title and exchanged(document.title)
        twins.append(replace(document, id=f"{document.id} twin", text=exchanged(document.text), title=title))
        for span, text in cut.items():
            asking[span][document.id] = text
        if len(twins) == queries:
            break
    every = [*documents, *twins]
    return every, [
        Task(f"near-duplicates-{span}", every, texts, {id: {id: 1} for id in texts}) for span, texts in asking.items()
    ]


def _span(text: str, words: set[str], length: int, random: np.random.Generator) -> str:
    """So many words in a row of which one at least is among `words`; nothing if there is no such place."""
    pieces = text.split()
    held = [any(word.lower() in words for word in _WORD.findall(piece)) for piece in pieces]
    starts = [i for i in range(len(pieces) - length + 1) if any(held[i : i + length])]
    if not starts:
        return ""
    first = int(random.choice(starts))
    return " ".join(pieces[first : first + length])

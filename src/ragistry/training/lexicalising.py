"""Teaching a lexicon: which words a text could have held, from pairs and from the documents themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from time import perf_counter
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from ..encoders.lexical import Expansion, Lexical
from ..encoders.masked import Masked, bare, step_of
from ..encoders.stack import Stack
from ..encoders.steps import Features
from ..encoders.steps.lexicon import Lexicon
from ..encoders.steps.token_bridge import Statistics
from ..errors import InvalidInput
from ..evaluation.selection import Fit
from ..registry import Lesson, Recipe
from ..retrievers.expanded import Expanded
from ..types import Document, Floats, Ints, Role
from .adapting import Problem, capped
from .bridging import Bridging, Tuning, with_made
from .crossfit import Candidate, Judge, Scores, crossfit
from .folds import Fold, folds
from .live import BATCH, Live, Tokens, changed
from .losses.ranking import InfoNCE
from .losses.sparsity import Sparse
from .samplers import Sampler
from .teaching import problem_of, relevance, report_of
from .trainer import History, Trainer

STRENGTHS = (0.25, 0.5, 1.0)
"""Tried of what the model adds, as shares of what it was trained with."""
SAMPLE = 256
"""Documents that say how loud terms are before training."""
WARMUP = 1 / 3
"""Of the steps, in which the weights of FLOPS rise."""


@dataclass(frozen=True, slots=True)
class Lexicalising:
    """What is trained, and how; see `ragistry.recipes.lexicon`."""

    candidates: int = 4096
    tune: Tuning = "none"
    rank: int = 16
    negatives: int = 2
    length: int = 128
    size: int = 32
    temperature: float = 1.0
    query_flops: float = 1e-3
    document_flops: float = 1e-3
    epochs: int = 3
    rate: float = 1e-3
    tune_rate: float = 5e-5
    made: int = 1000
    seed: int = 0


class Adding(nn.Module):
    """Weights of a text's own words, which come as the feature `words` [b, V], and those that a step hears, as `vector`.

    Args:
        step: What hears.
        columns: Of the terms it hears, int64 [C].
        hears: Whether it is asked about queries.
    """

    def __init__(self, step: Lexicon, columns: Ints, hears: bool) -> None:
        super().__init__()
        self.step, self.hears = step, hears
        self.columns = torch.from_numpy(np.array(columns))

    def forward(self, features: Features, role: Role) -> Features:
        """Features with `vector` float32 [b, V]."""
        words: Tensor = features["words"]
        if role == "query" and not self.hears:
            return features | {"vector": words}
        return features | {"vector": words.index_add(1, self.columns, self.step(features, role)["vector"])}


class Worded(Tokens):
    """Token ids of texts, and the weights of their own words, as the source of features.

    Args:
        asked: Token ids of each query, as the model reads them.
        held: Token ids of each document.
        words: Weights of their own words, by role, float32 CSR [n, V].
        hears: Whether the model reads queries; otherwise it is not asked about them.
    """

    def __init__(
        self,
        asked: Sequence[Sequence[int]],
        held: Sequence[Sequence[int]],
        words: Mapping[Role, csr_array],
        hears: bool,
    ) -> None:
        super().__init__(asked, held, None if hears else np.zeros((len(asked), 1), np.float32))
        self._words = words

    def _features(self, tokens: Sequence[Sequence[int]], rows: Ints, role: Role) -> Features:
        own = self._words[role][rows].toarray().astype(np.float32)
        return super()._features(tokens, rows, role) | {"words": torch.from_numpy(own)}


def expanded(
    encoder: Lexical, problem: Problem, documents: Sequence[Document], judged: csr_array, settings: Lexicalising
) -> tuple[Expansion, History]:
    """Train an untaught encoder's expansion.

    Args:
        encoder: Untaught; it stays so.
        problem: Queries and documents.
        documents: Those of the problem, in its order.
        judged: What to learn from, CSR [queries, documents]; a stored 0 is a hard negative of its query.
        settings: What and how.
    """
    found = _begun(encoder, problem, documents, judged, settings.candidates)
    mine = encoder.taught(found)
    backbone = Masked(encoder.model)
    base = bare(encoder, backbone)
    grown = bool(len(found.idf))
    step = step_of(backbone, base.loaded(), found.columns, found.idf if grown else None)
    fresh = {name: value.detach().clone() for name, value in step.state_dict().items()}
    hears = mine.hears("query")
    loaded = base.loaded()
    held = [_cut(ids, settings.length) for ids in loaded.tokenise([document.full_text for document in documents])]
    if grown:
        step.start(_loudest(base, step, held))
    roles: tuple[Role, ...] = ("query", "document") if hears else ("document",)
    tuned = roles if settings.tune != "none" else ()
    rank = settings.rank if settings.tune == "lora" else None
    live = Live(base, Adding(step, found.columns, hears), tuned, rank, settings.seed)
    history = History()
    if settings.epochs:
        asked = loaded.tokenise(list(problem.queries))
        words: dict[Role, csr_array] = {
            "query": mine.words(problem.queries, "query"),
            "document": mine.words(documents, "document"),
        }
        sampler = Sampler(judged, negatives="in-batch", size=settings.size, seed=settings.seed)
        loss = Sparse(
            InfoNCE(settings.temperature, "dot"),
            settings.query_flops if hears else 0.0,
            settings.document_flops,
            int(WARMUP * settings.epochs * len(sampler)),
        )
        trainer = Trainer(
            epochs=settings.epochs,
            rate=settings.rate,
            looks=settings.epochs,
            seed=settings.seed,
            slower={"model.": settings.tune_rate / settings.rate},
        )
        history = trainer.fit(live, loss, sampler, Worded(asked, held, words, hears))
    return replace(found, weights=changed(step, fresh), tuned=live.weights()), history


def teach(
    retriever: Expanded,
    recipe: Recipe,
    settings: Lexicalising,
    judged: Mapping[str, Mapping[str, int]],
    ids: Sequence[str],
    lesson: Lesson,
) -> tuple[Expanded, Fit]:
    """A taught copy of an `Expanded` searcher, and what that brought on pairs held out, a fifth of them.

    What is learnt from are the pairs and queries made from the documents, each with the nearest documents that do not
    answer it; what is chosen is how strongly the model adds. The base, untaught, is kept unless that is better beyond chance
    and documents without pairs do not lose. Only if it is kept are all documents encoded again; the model reads them twice.

    Raises:
        InvalidInput: If fewer than 10 queries have an answer, or the lesson has no documents.
    """
    began = perf_counter()
    if lesson.documents is None:
        raise InvalidInput("a lexicon learns from the documents' texts; give `documents` with the lesson")
    # One taught before knows the pairs that are to be held out: what it is compared with is the untaught one.
    trained_before = retriever.lexical.expansion is not None
    untaught = retriever.taught(ids, None, lesson.documents) if trained_before else retriever
    encoder = untaught.lexical
    texts = _Texts(untaught)
    problem = problem_of(texts, judged, ids)
    documents = lesson.documents(problem.ids)
    given = np.arange(len(problem.queries))
    making = Bridging(made=settings.made, epochs=settings.epochs, seed=settings.seed)
    problem = with_made(texts, problem, documents, making)
    made = np.arange(len(given), len(problem.queries))
    lessons = _with_negatives(untaught, problem, settings.negatives)
    pairs = problem.taught_by(given)
    judge = Judge(pairs, problem.ids, lesson.measure)
    divided = [capped(fold) for fold in folds(pairs, problem.queries, problem.ids, 1)]
    histories: list[History] = []

    def propose(fold: Fold) -> Iterator[Candidate]:
        learnt = lessons.taught_by(np.concatenate([fold.train, made]))
        expansion, history = expanded(encoder, problem, documents, learnt, settings)
        histories.append(history)
        mine = encoder.taught(expansion)
        rows = np.concatenate([fold.seen, fold.unseen])
        queries = [problem.queries[row] for row in rows.tolist()]
        asked, words = mine.words(queries, "query"), mine.words(documents, "document")
        heard = mine.heard(documents, "document")
        asked_heard = mine.heard(queries, "query") if mine.hears("query") else None
        for strength in STRENGTHS if encoder.start == "words" else (1.0,):
            found = asked if asked_heard is None else mine.mixed(asked, asked_heard, "query", strength)
            scores = _scores(rows, found, mine.mixed(words, heard, "document", strength))
            yield Candidate(f"strength {strength:g}", {"strength": strength}, scores)
        if lesson.progress is not None:
            lesson.progress(1)

    goal: Any = lesson.goal
    choice = crossfit(judge, divided, _untaught_scores(untaught, problem, documents, given), propose, goal)
    strength = float(choice.settings[0].get("strength", 1.0))
    tuned = "" if settings.tune == "none" else f", the model tuned ({settings.tune})"
    chosen = f"words that a model adds, {settings.epochs} epochs{tuned}; strength {strength:g}"
    fit = report_of(choice, recipe, lesson, len(given), chosen, histories[0].to_json())
    if fit.kept:
        expansion, _ = expanded(encoder, problem, documents, lessons.judged, settings)
        retriever = retriever.taught(ids, replace(expansion, scale=strength), lesson.documents)
    return retriever, replace(fit, seconds=round(perf_counter() - began, 2))


class _Texts:
    """What `problem_of` and `with_made` ask, where texts are learnt from: vectors of no dimensions."""

    def __init__(self, retriever: Expanded) -> None:
        self.encoder, self.search, self._check = self, retriever.search, retriever._check

    def encode(self, items: Sequence[str], role: Role) -> Floats:
        return self.encoded(items)

    def encoded(self, ids: Sequence[str]) -> Floats:
        return np.empty((len(ids), 0), np.float32)


def _begun(
    encoder: Lexical, problem: Problem, documents: Sequence[Document], judged: csr_array, most: int
) -> Expansion:
    """The documents' statistics and the terms to hear: those of the queries that teach, then those most documents hold."""
    if encoder.start == "model":
        return Expansion(encoder.columns, np.empty(0, np.float32), 1.0)
    tokens = encoder.tokens([document.full_text for document in documents])
    statistics = Statistics.of(tokens, encoder.width)
    queries = encoder.tokens([problem.queries[row] for row in np.flatnonzero(np.diff(judged.indptr)).tolist()])
    asked = Statistics.of(queries, encoder.width).idf
    held = np.array(sorted({*chain.from_iterable(tokens), *chain.from_iterable(queries)}), np.int64)
    order = held[np.lexsort((statistics.idf[held], asked[held]))]
    return Expansion(np.sort(order[:most]), statistics.idf, statistics.length)


def _loudest(base: Stack, step: Lexicon, held: Sequence[Sequence[int]]) -> Floats:
    """What a step hears in some documents, spread over all of them, before it is started."""
    rows = np.unique(np.linspace(0, len(held) - 1, min(SAMPLE, len(held))).astype(int)).tolist()
    loaded = base.loaded()
    with torch.inference_mode():
        parts = [
            step.loudest(loaded.embed([held[row] for row in rows[first : first + BATCH]])).numpy()
            for first in range(0, len(rows), BATCH)
        ]
    return np.concatenate(parts)


def _with_negatives(retriever: Expanded, problem: Problem, count: int) -> Problem:
    """A problem whose queries have the nearest documents that do not answer them as hard negatives."""
    if not count:
        return problem
    place, judged = set(problem.ids), dict[str, dict[str, int]]()
    most = count + int(np.diff(problem.judged.indptr).max(initial=0))
    for row, (query, near) in enumerate(zip(problem.queries, retriever.search(problem.queries, most), strict=True)):
        own = slice(*problem.judged.indptr[row : row + 2])
        columns, values = problem.judged.indices[own].tolist(), problem.judged.data[own].tolist()
        judged[query] = {problem.ids[column]: int(value) for column, value in zip(columns, values, strict=True)}
        wrong = [id for id in near.ids if id not in judged[query] and id in place]
        judged[query] |= dict.fromkeys(wrong[:count], 0)
    return replace(problem, judged=relevance(problem.queries, judged, problem.ids))


def _untaught_scores(retriever: Expanded, problem: Problem, documents: Sequence[Document], rows: Ints) -> Scores:
    """Scores of all documents as they are found untaught."""
    encoder, queries = retriever.lexical, [problem.queries[row] for row in rows.tolist()]
    if encoder.start == "model":
        return _scores(rows, encoder.encode(queries, "query"), retriever.index.vectors(problem.ids))
    weighed = encoder.taught(_begun(encoder, problem, documents, problem.judged, 0))
    return _scores(rows, weighed.words(queries, "query"), weighed.words(documents, "document"))


def _scores(rows: Ints, asked: Any, held: Any) -> Scores:
    """Inner products of sparse vectors of the queries of these rows with those of all documents."""
    place = {row: i for i, row in enumerate(rows.tolist())}
    turned = held.T.tocsr()
    return lambda some: (asked[[place[row] for row in some.tolist()]] @ turned).toarray().astype(np.float32)


def _cut(ids: Sequence[int], length: int) -> Sequence[int]:
    """At most so many tokens, the last of all among them, which ends a text."""
    return ids if len(ids) <= length else [*ids[: length - 1], ids[-1]]

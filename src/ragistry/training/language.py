"""Teaching a language model what documents are asked, and then to give questions the vectors of their answers."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from scipy.sparse import csr_array, eye_array

from ..encoders.stack import Stack
from ..encoders.token_aware import stack_of
from ..encoders.tuned import Tuned
from ..errors import InvalidInput
from ..evaluation.selection import Fit
from ..evaluation.task import check_counts
from ..evaluation.tasks import make
from ..models import find_model
from ..registry import Lesson, Recipe
from ..scorers.growing import grown, saved
from ..scorers.likelihood import limit_of
from ..scorers.query_likelihood import QueryLikelihood
from ..types import Document, Floats, Ints
from .adapting import capped, scores_of
from .crossfit import Candidate, Judge, crossfit
from .folds import Fold, folds
from .live import Tokens
from .losses.likelihood import Likelihood
from .losses.ranking import InfoNCE
from .samplers import Negatives, Sampler
from .speaking import Speaking
from .teaching import problem_of, report_of
from .trainer import History, Point, Trainer

Tuning: TypeAlias = Literal["auto", "full", "lora"]
Pair: TypeAlias = tuple[str, str]
"""A query, and the text of a document that answers it."""
Tokenise: TypeAlias = Callable[[Sequence[str]], list[list[int]]]
Progress: TypeAlias = Callable[[Point], None] | None
LARGE = 300_000_000
"""Weights above which a model is tuned by LoRA unless something else is asked for."""
KINDS = ("first-sentence", "title")
_WORD = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class Schooling:
    """What is taught, and how; see `ragistry.recipes.llm_ql`."""

    made: int = 2000
    likelihood_epochs: int = 1
    likelihood_rate: float = 2e-4
    stop: bool = True
    corruption: float = 0.45
    length: int = 128
    epochs: int = 3
    rate: float = 5e-5
    size: int = 32
    temperature: float = 0.05
    negatives: Negatives = "in-batch"
    tune: Tuning = "auto"
    rank: int = 32
    seed: int = 0


class Corrupted(Tokens):
    """Queries with documents some of whose words are hidden, others each time, so that a model cannot copy them.

    Args:
        asked: Token ids of each query.
        texts: Of each document.
        tokenise: From texts to token ids.
        share: Of the words, from 0 to 1.
        seed: Of the words hidden.
    """

    def __init__(
        self,
        asked: Sequence[Sequence[int]],
        texts: Sequence[str],
        tokenise: Tokenise,
        share: float,
        seed: int,
    ) -> None:
        super().__init__(asked, tokenise(texts))
        self._texts, self._tokenise, self._share = texts, tokenise, share
        self._random = np.random.default_rng(seed)

    def documents(self, rows: Ints) -> Any:
        """Their token ids and mask, with other words hidden each time."""
        if not self._share:
            return super().documents(rows)
        found = self._tokenise([hidden(self._texts[row], self._share, self._random) for row in rows.tolist()])
        return Tokens([], found).documents(np.arange(len(found)))


def hidden(text: str, share: float, random: np.random.Generator) -> str:
    """A text with a share of its words, those between white space, as "_" (Input Corruption).

    Example:
        >>> hidden("fourteen lines of verse", 1.0, np.random.default_rng(0))
        '_ _ _ _'

    Source: LLM-QL, arXiv:2504.05216, section 3.
    """
    return _WORD.sub(lambda match: "_" if random.random() < share else match[0], text)


def text_pairs(documents: Sequence[Document], *, pairs: int, seed: int = 0) -> list[Pair]:
    """What documents give without labels: first sentences with the rest, and titles with texts, in turn.

    Args:
        documents: In any order.
        pairs: At most so many.
        seed: Chooses them.

    Returns:
        None, where no document has a title, or a sentence and more.

    Example:
        >>> text_pairs([Document("1", "It has fourteen lines.", title="Sonnet"), Document("2", "A cat.")], pairs=10)
        [('Sonnet', 'It has fourteen lines.')]
    """
    found: list[list[Pair]] = []
    for kind in KINDS:
        try:
            task = make(kind, documents, queries=max(1, pairs), seed=seed)
        except InvalidInput:  # no document can be asked for in this way
            continue
        texts = {document.id: document.full_text for document in task.documents}
        found.append([(task.queries[query], texts[min(answers)]) for query, answers in task.qrels.items()])
    turns = [pair for place in range(max(map(len, found), default=0)) for pairs in found for pair in pairs[place:][:1]]
    return turns[:pairs]


def spoken(stack: Stack, rank: int | None = None, seed: int = 0) -> Speaking:
    """The model of a stack over a `Causal` backbone, with its output layer, as a module to train."""
    return Speaking(grown(stack.backbone.layout().folder), stack.steps, rank, seed)


def learn_likelihood(
    module: Speaking,
    read: Tokenise,
    ask: Tokenise,
    pairs: Sequence[Pair],
    settings: Schooling,
    progress: Progress = None,
) -> History:
    """Stage 1: teach it to say how likely each query is, given its document.

    Args:
        module: To train, in place.
        read: From the texts of documents to the tokens that are read.
        ask: From queries to the tokens that are to be likely.
        pairs: Queries with documents' texts.
        settings: What and how.
        progress: See `Trainer.fit`.
    """
    if not pairs or not settings.likelihood_epochs:
        return History()
    source = Corrupted(
        ask([query for query, _ in pairs]), [text for _, text in pairs], read, settings.corruption, settings.seed
    )
    judged = csr_array(eye_array(len(pairs), format="csr", dtype=np.float32))
    trainer = Trainer(
        epochs=settings.likelihood_epochs,
        rate=settings.likelihood_rate,
        warmup=0.1,
        looks=settings.likelihood_epochs,
        seed=settings.seed,
    )
    sampler = Sampler(judged, negatives="in-batch", size=settings.size, seed=settings.seed)
    return trainer.fit(module, Likelihood(settings.stop), sampler, source, progress=progress)


def speaker(
    scorer: QueryLikelihood,
    path: str | os.PathLike[str],
    pairs: Sequence[Pair],
    settings: Schooling | None = None,
    progress: Progress = None,
) -> Path:
    """Teach a scorer's language model what documents are asked, and save it to a folder, for `ql-rerank` and others.

    It is taught with the words around documents, the lengths and the attention that the scorer asks it with. An
    encoder-decoder's encoder stays as it is, and documents are read without gradients.

    Args:
        scorer: Over the model to begin with, which stays as it is.
        path: The folder to write.
        pairs: Queries with documents' texts, such as `text_pairs` and `chunks` give; real ones are better.
        settings: Of the first stage; those of the second play no part. `stop` is the scorer's own.
        progress: See `Trainer.fit`.

    Returns:
        The folder.
    """
    settings = replace(settings or Schooling(), stop=scorer.attention == "stop")
    module = Speaking(scorer.model.model)
    if not scorer.model.causal:
        module.language.get_encoder().requires_grad_(False)

    def read(texts: Sequence[str]) -> list[list[int]]:
        return scorer.prefixes([Document(str(number), text) for number, text in enumerate(texts)])

    def ask(texts: Sequence[str]) -> list[list[int]]:
        return [scorer.target(text) for text in texts]

    learn_likelihood(module, read, ask, pairs, settings, progress)
    return saved(module.language, find_model(scorer.model.name), Path(path))


def chunks(documents: Sequence[Document], words: int = 48) -> list[Pair]:
    """Parts of documents as queries of no document: what a model learns a corpus's language from.

    Raises:
        InvalidInput: If `words` is not positive.

    Example:
        >>> chunks([Document("1", "one two three")], words=2)
        [('one two', ''), ('three', '')]
    """
    check_counts(words=words)
    texts = [document.full_text.split() for document in documents]
    return [(" ".join(text[first : first + words]), "") for text in texts for first in range(0, len(text), words)]


def learn_vectors(
    module: Speaking,
    stack: Stack,
    queries: Sequence[str],
    documents: Sequence[Document],
    judged: csr_array,
    settings: Schooling,
) -> History:
    """Stage 2: teach it to put queries near the documents that answer them."""
    if not settings.epochs:
        return History()
    source = Tokens(stack.tokens(queries, "query"), stack.tokens(documents, "document"))
    trainer = Trainer(epochs=settings.epochs, rate=settings.rate, warmup=0.1, looks=settings.epochs, seed=settings.seed)
    sampler = Sampler(judged, negatives=settings.negatives, size=settings.size, seed=settings.seed)
    return trainer.fit(module, InfoNCE(settings.temperature), sampler, source)


def schooled(
    stack: Stack,
    queries: Sequence[str],
    documents: Sequence[Document],
    judged: csr_array,
    settings: Schooling,
) -> tuple[dict[str, Floats], History]:
    """Both stages: the weights of the model that changed, and the history of the second.

    Args:
        stack: Over a `Causal` backbone.
        queries: To learn from.
        documents: All of them.
        judged: Relevance, CSR [queries, documents]; queries without an answer are not learnt from.
        settings: What and how.
    """
    size = sum(weight.numel() for weight in stack.loaded().model.parameters())
    lora = settings.tune == "lora" or (settings.tune == "auto" and size > LARGE)
    module = spoken(stack, settings.rank if lora else None, settings.seed)
    rows = np.repeat(np.arange(judged.shape[0]), np.diff(judged.indptr))
    given = [
        (queries[row], documents[column].full_text)
        for row, column, value in zip(rows.tolist(), judged.indices.tolist(), judged.data.tolist(), strict=True)
        if value > 0
    ]
    made = text_pairs(documents, pairs=settings.made, seed=settings.seed) if settings.made else []
    tokenizer = stack.loaded().tokenizer
    end = tokenizer.encode("").ids[-1:]
    most = min(settings.length, limit_of(module.language.config) // 2)  # a document and a query are read together

    def read(texts: Sequence[str]) -> list[list[int]]:
        return [[*ids[:-1][: most - 1], ids[-1]] for ids in stack.tokens(texts, "document")]

    def ask(texts: Sequence[str]) -> list[list[int]]:
        found = tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [[*encoding.ids[: most - 1], *end] for encoding in found]

    learn_likelihood(module, read, ask, [*given, *made], settings)
    history = learn_vectors(module, stack, queries, documents, judged, settings)
    # In bf16 every weight is another than the one it was rounded from.
    before = stack.backbone.load(torch.float32, stack.max_length).model.state_dict()
    return module.weights(before), history


def teach(
    retriever: Any,
    recipe: Recipe,
    settings: Schooling,
    judged: Mapping[str, Mapping[str, int]],
    ids: Sequence[str],
    lesson: Lesson,
) -> tuple[Any, Fit]:
    """A taught copy of a `Retrained` searcher, and what that brought on pairs held out, a fifth of them.

    The second stage alone and both are tried: over a model that is one of embeddings already the first may not pay.

    Raises:
        InvalidInput: As `problem_of`, or if the lesson has no documents.
    """
    began = perf_counter()
    if lesson.documents is None:
        raise InvalidInput("a language model learns from the documents' texts; give `documents` with the lesson")
    base = stack_of(retriever.base)
    # A model taught before knows the pairs that are to be held out: what it is compared with is the untaught one.
    untaught = retriever.taught(ids, {}, lesson.documents) if retriever.weights else retriever
    problem = problem_of(untaught, judged, ids)
    documents = lesson.documents(problem.ids)
    judge = Judge(problem.judged, problem.ids, lesson.measure)
    divided = [capped(fold) for fold in folds(problem.judged, problem.queries, problem.ids, 1)]
    first, second = f"query likelihood, {settings.likelihood_epochs} epochs", f"nearness, {settings.epochs} epochs"
    tried = {second: replace(settings, likelihood_epochs=0)} if settings.epochs else {}
    if settings.likelihood_epochs:
        tried[f"{first}, then {second}"] = settings

    def propose(fold: Fold) -> Iterator[Candidate]:
        rows = np.concatenate([fold.seen, fold.unseen])
        for label, one in tried.items():
            weights, _ = schooled(base, problem.queries, documents, problem.taught_by(fold.train), one)
            other = base.over(Tuned(base.backbone, weights), base.steps)
            asked = np.zeros((len(problem.queries), problem.held.shape[1]), np.float32)
            asked[rows] = other.encode([problem.queries[row] for row in rows.tolist()], "query")
            held = other.encode(documents, "document")
            yield Candidate(label, {}, scores_of(asked, np.asarray(held, np.float32)))
            if lesson.progress is not None:
                lesson.progress(1)

    goal: Any = lesson.goal
    choice = crossfit(judge, divided, scores_of(problem.asked, problem.held), propose, goal)
    taught, history = retriever, History()
    if choice.label:
        weights, history = schooled(base, problem.queries, documents, problem.judged, tried[choice.label])
        taught = retriever.taught(ids, weights, lesson.documents)
    fit = report_of(choice, recipe, lesson, len(problem.queries), choice.label, history.to_json())
    return taught, replace(fit, seconds=round(perf_counter() - began, 2))

"""Teaching a language model to answer with names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import zip_longest
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np
from scipy.sparse import csr_array, eye_array

from ..errors import InvalidInput
from ..evaluation.selection import Fit
from ..registry import Lesson, Recipe
from ..retrievers.generative import Generative
from ..retrievers.markup import Markup
from ..retrievers.namer import MARKERS, Namer
from ..types import Document, Floats, Ints
from .adapting import capped
from .crossfit import Candidate, Judge, Scores, crossfit
from .folds import Fold, folds
from .live import Tokens, changed
from .losses.likelihood import Likelihood
from .name_pairs import LONGEST, Linked, Pair, copies, linked, mentions, passages
from .samplers import Sampler
from .speaking import Speaking
from .teaching import relevance, report_of
from .trainer import History, Point, Trainer

Spoken: TypeAlias = tuple[Sequence[int], Sequence[int]]
"""What a model reads, and what it is to write, as token ids."""
Progress: TypeAlias = Callable[[Point], None] | None
MISSED = np.float32(-1e9)
"""What a document gets that was not among the best."""
DEPTH = 100
"""Documents looked at for each held-out query."""


@dataclass(frozen=True, slots=True)
class Naming:
    """What is taught, and how; see `ragistry.recipes.genre`."""

    copies: int = 20_000
    copy_rate: float = 2e-3
    made: int = 4000
    links: int = 0
    epochs: int = 4
    rate: float = 1e-3
    encoder: float = 0.2
    size: int = 32
    smoothing: float = 0.1
    seed: int = 0


def lessons(
    documents: Sequence[Document], queries: Sequence[str], aliases: str, settings: Naming
) -> tuple[list[Pair], list[Pair]]:
    """Pairs made without labels, for both stages: names to repeat, and what texts say of them.

    Args:
        documents: Whose names are to be answers.
        queries: Of the kind that will be asked: if mentions are marked in some, they are in what is made.
        aliases: The metadata field with further names.
        settings: How many to make.
    """
    marked = any(MARKERS[0] in query for query in queries)
    names = [name for document in documents for name in names_of(document, aliases) if name.strip()]
    first = copies(names, pairs=settings.copies, marked=marked, seed=settings.seed) if settings.copies else []
    if not settings.made:
        return first, []
    kinds = [passages(documents, pairs=settings.made, seed=settings.seed)]
    if marked:
        kinds.insert(0, mentions(documents, pairs=settings.made, seed=settings.seed))
    turns = [pair for some in zip_longest(*kinds) for pair in some if pair is not None]
    return first, turns[: settings.made]


def names_of(document: Document, aliases: str) -> list[str]:
    """A document's title, or for want of one its first words, and its other names."""
    found = document.metadata.get(aliases) or ()
    return [
        document.title or " ".join(document.text.split()[:LONGEST]),
        *([found] if isinstance(found, str) else found),
    ]


def said(namer: Namer, pairs: Sequence[Pair]) -> list[Spoken]:
    """What a model reads of each query, and what it is to write: the name with its end; not of names without a token."""
    prompts, names = namer.prompts([pair.query for pair in pairs]), namer.names([pair.name for pair in pairs])
    return [
        (prompt, [*namer.start[1:], *tokens, namer.end])
        for prompt, tokens in zip(prompts, names, strict=True)
        if tokens
    ]


def written(markup: Markup, texts: Sequence[Linked]) -> list[Spoken]:
    """What a model reads of each text, and what it is to write: the text with its mentions marked and named.

    Texts that are too long for the model, or cannot be written (see `Markup.target`), are left out.
    """
    found = list[Spoken]()
    for text, spans in texts:
        with suppress(InvalidInput):
            found.append((markup.source(text), [*markup.namer.start[1:], *markup.target(text, spans)]))
    return found


def learn(
    module: Speaking,
    spoken: Sequence[Spoken],
    settings: Naming,
    *,
    epochs: int = 1,
    rate: float = 1e-3,
    progress: Progress = None,
) -> History:
    """Teach a model to write each target, given its prompt, in place.

    Args:
        module: Around the model.
        spoken: Token ids of prompts and targets, as `said` and `written` give them.
        settings: `size`, `smoothing`, `seed`, and `encoder`, the share of the rate at which an encoder learns: with 0 it
            stays as it is, and is passed without gradients.
        epochs: How often each is seen.
        rate: The highest learning rate.
        progress: See `Trainer.fit`.
    """
    if not spoken or not epochs:
        return History()
    source = Tokens([target for _, target in spoken], [prompt for prompt, _ in spoken])
    slower = _slower(module, settings.encoder)
    trainer = Trainer(epochs=epochs, rate=rate, warmup=0.05, looks=epochs, seed=settings.seed, slower=slower)
    judged = csr_array(eye_array(len(spoken), format="csr", dtype=np.float32))
    sampler = Sampler(judged, negatives="in-batch", size=settings.size, seed=settings.seed)
    return trainer.fit(module, Likelihood(smoothing=settings.smoothing), sampler, source, progress=progress)


def _slower(module: Speaking, share: float) -> dict[str, float]:
    """What an encoder learns with; where that is nothing, its weights are closed to gradients."""
    if not module.language.config.is_encoder_decoder:
        return {}
    encoder = module.language.get_encoder()
    inside = {id(weight) for weight in encoder.parameters()} - {
        id(weight) for weight in module.language.get_decoder().parameters()
    }
    if not share:
        encoder.requires_grad_(False)
        return {}
    return {name: share for name, weight in module.named_parameters() if id(weight) in inside}


def stages(
    model: Any, first: Sequence[Spoken], then: Sequence[Sequence[Spoken]], settings: Naming
) -> Iterator[tuple[dict[str, Floats], History]]:
    """The weights that teaching changes, by their names in the model, which stays as it is.

    Args:
        model: Of transformers, to begin with.
        first: The first stage, which is passed once, with the encoder as it is.
        then: Several second stages; each goes on from the end of the first.
        settings: How.

    Returns:
        For each of these lists the weights, and the history of the second stage.
    """
    module = Speaking(model)
    before = {name: value.clone() for name, value in module.language.state_dict().items()}
    learn(module, first, replace(settings, encoder=0.0), rate=settings.copy_rate)
    begun = {name: value.clone() for name, value in module.language.state_dict().items()}
    for spoken in then:
        module = Speaking(module.language)  # its encoder open again
        module.language.load_state_dict(begun)
        history = learn(module, spoken, settings, epochs=settings.epochs, rate=settings.rate)
        yield changed(module.language, before), history


def teach(
    retriever: Generative,
    recipe: Recipe,
    settings: Naming,
    judged: Mapping[str, Mapping[str, int]],
    ids: Sequence[str],
    lesson: Lesson,
) -> tuple[Generative, Fit]:
    """A taught copy of a retriever, and what that brought on pairs held out, a fifth of them.

    The first stage is passed once, for both.

    Raises:
        InvalidInput: If the lesson has no documents.
    """
    began = perf_counter()
    if lesson.documents is None:
        raise InvalidInput("a language model learns names from documents; give `documents` with the lesson")
    queries = [query for query, found in judged.items() if any(value > 0 for value in found.values())]
    documents = list(lesson.documents(ids))
    names = {document.id: names_of(document, retriever.aliases)[0] for document in documents}
    place = {id: row for row, id in enumerate(ids)}
    matrix = relevance(queries, judged, ids)
    [fold] = [capped(fold) for fold in folds(matrix, queries, ids, 1)]

    base = retriever.tuned({}) if retriever.weights else retriever  # what was taught before knows what is held out
    namer = base.namer
    first, made = lessons(documents, queries, retriever.aliases, settings)
    texts = linked(documents, texts=settings.links, seed=settings.seed) if settings.links else []
    also = [*said(namer, made), *written(Markup(namer), texts)]

    def given(some: Sequence[int]) -> list[Spoken]:
        every = ((queries[row], id, value) for row in some for id, value in judged[queries[row]].items())
        own = [Pair(query, names[id]) for query, id, value in every if value > 0 and names[id].strip()]
        return [*said(namer, own), *also]

    then = [given(fold.train.tolist()), given(range(len(queries)))]
    learning = stages(namer.model.model, said(namer, first), then, settings)
    found = dict[str, tuple[Recipe, float]]()

    def propose(fold: Fold) -> Iterator[Candidate]:
        tuned = base.tuned(next(learning)[0])
        variants: list[tuple[Recipe, Any]] = [(recipe, tuned), *recipe.variants(tuned)]
        for other, variant in variants:
            penalty = variant.length_penalty
            label = f"names, {settings.epochs} epochs, length penalty {penalty:g}"
            found[label] = other, penalty
            yield Candidate(label, {}, _scores(variant, queries, place))
        if lesson.progress is not None:
            lesson.progress(1)

    goal: Any = lesson.goal
    judge = Judge(matrix, ids, lesson.measure)
    choice = crossfit(judge, [fold], _scores(base, queries, place), propose, goal)
    taught, history, chosen = retriever, History(), recipe
    if choice.label:
        weights, history = next(learning)
        chosen, penalty = found[choice.label]
        taught = base.tuned(weights).penalised(penalty)
        taught.recipe = chosen
    fit = report_of(choice, chosen, lesson, len(queries), choice.label, history.to_json())
    return taught, replace(fit, seconds=round(perf_counter() - began, 2))


def _scores(retriever: Any, queries: Sequence[str], place: Mapping[str, int]) -> Scores:
    """Of all documents, for queries by row; far below all others where they are not among the best."""

    def scores(rows: Ints) -> Floats:
        found = np.full((len(rows), len(place)), MISSED, np.float32)
        for row, ranking in enumerate(retriever.search([queries[i] for i in rows.tolist()], DEPTH)):
            found[row, [place[id] for id in ranking.ids]] = ranking.scores
        return found

    return scores

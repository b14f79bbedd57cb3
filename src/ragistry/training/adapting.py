"""Teaching a searcher from pairs over vectors that are already there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import nn

from ..encoders.projected import Form, Projection, unit
from ..encoders.steps.residual import Residual, Side
from ..errors import InvalidInput
from ..retrievers.adapted import Memory, crowding
from ..types import Bools, Floats, Ints
from ..workers import workers
from .crossfit import Candidate, Choice, Goal, Judge, Scores, crossfit
from .folds import FOLDS, Fold, folds
from .losses import Loss, Sum
from .losses.ranking import InfoNCE, PairwiseLogistic, Triplet
from .losses.regularisers import Prediction, Recovery
from .samplers import Negatives, Sampler
from .trainer import History, Stored, Trainer

LossName: TypeAlias = Literal["softmax", "triplet", "logistic"]
SHARES = (1.0, 0.8, 0.65, 0.5)
"""Of a document itself against the queries it answered."""
DAMPINGS = (0.0, 0.75)
"""Of documents that are near to many queries."""
CROWD = 1000
"""Queries by which that is seen: few of them are any one document's own."""
SCALES = tuple(1 - 0.025 * step for step in range(17))
MOST = 600
"""Queries of a kind that a fold measures."""
STEPS = 80
"""Fewer steps than these hardly move a residual."""
FEWEST = 10
FEW, MANY = 150, 3000
NEAR = 10
LOOKS = 6


@dataclass(frozen=True, slots=True)
class Settings:
    """What is trained, and how; see `ragistry.recipes.adder`."""

    form: Form = "linear"
    rank: int | None = None
    side: Side = "both"
    loss: LossName = "softmax"
    temperature: float = 0.05
    margin: float = 0.1
    negatives: Negatives = "judged"
    recovery: float = 0.0
    prediction: float = 0.0
    remember: bool = True
    epochs: int | None = None
    rate: float = 1e-3
    seed: int = 0

    def label(self) -> str:
        """What sets it apart, for people."""
        rank = "full" if self.rank is None else f"rank {self.rank}"
        sharp = f"margin {self.margin:g}" if self.loss == "triplet" else f"temperature {self.temperature:g}"
        return f"{self.form}, {rank}, {self.side}, {self.loss}, {sharp}"


@dataclass(frozen=True)
class Problem:
    """Pairs over vectors.

    Args:
        queries: Texts.
        asked: Their vectors as encoded, float32 [n, d].
        ids: Of documents.
        held: Their vectors as encoded, float32 [m, d].
        judged: Relevance, CSR [n, m].
    """

    queries: Sequence[str]
    asked: Floats
    ids: Sequence[str]
    held: Floats
    judged: csr_array

    def __post_init__(self) -> None:
        answered = int((np.bincount(self._rows()[self.judged.data > 0], minlength=len(self.queries)) > 0).sum())
        if answered < FEWEST:
            raise InvalidInput(
                f"{answered} queries have an answer; at least {FEWEST} are needed to learn from: add pairs"
            )
        for what, vectors in (("queries", self.asked), ("documents", self.held)):
            if not np.isfinite(vectors).all():
                raise InvalidInput(f"the encoder gave {what} vectors with NaN or infinity; check the model")
        if self.asked.shape[1] != self.held.shape[1]:
            raise InvalidInput(
                f"queries have {self.asked.shape[1]} dimensions, documents {self.held.shape[1]}; use the encoder that the "
                "documents were encoded with"
            )

    def _rows(self) -> Ints:
        return np.repeat(np.arange(len(self.queries)), np.diff(self.judged.indptr))

    def answers(self, rows: Ints | None = None) -> csr_array:
        """1 where a document answers one of the queries, all of them or some: CSR [n, m]."""
        kept = self.judged.data > 0
        if rows is not None:
            kept &= np.isin(self._rows(), rows)
        found = csr_array((kept.astype(np.float32), self.judged.indices, self.judged.indptr), shape=self.judged.shape)
        found = found.copy()
        found.eliminate_zeros()
        return found

    def taught_by(self, rows: Ints) -> csr_array:
        """The judgements of some queries, none of others: CSR [n, m]."""
        kept = np.isin(self._rows(), rows)
        indptr = np.concatenate([[0], np.cumsum(np.bincount(self._rows()[kept], minlength=len(self.queries)))])
        return csr_array((self.judged.data[kept], self.judged.indices[kept], indptr), shape=self.judged.shape)


@dataclass(frozen=True)
class Learnt:
    """What was learnt and what it brought: a projection and a memory for `Adapted.taught`, or neither."""

    projection: Projection | None
    memory: Memory | None
    choice: Choice
    settings: Settings | None
    epoch: int
    history: History


def runs_of(queries: int) -> int:
    """How many folds: the fewer pairs, the more of them must test."""
    return FOLDS if queries <= FEW else 3 if queries <= MANY else 2


def adapt(
    problem: Problem,
    tried: Sequence[Settings],
    *,
    measure: str = "nDCG@10",
    goal: Goal = "balanced",
    shares: Sequence[float] = SHARES,
    progress: Callable[[int], None] | None = None,
) -> Learnt:
    """Choose by cross-fitting among settings, lengths of training and shares of memory, then learn from all pairs.

    Args:
        problem: Pairs over vectors.
        tried: Settings to choose from.
        measure: What to improve.
        goal: See `crossfit`.
        shares: Of memory, where the settings remember and change documents.
        progress: Called with 1 after each look at a model in training.
    """
    divided = [
        capped(fold) for fold in folds(problem.judged, problem.queries, problem.ids, runs_of(len(problem.queries)))
    ]
    judge = Judge(problem.judged, problem.ids, measure)
    histories: dict[Settings, History] = {}
    # Every fold has a core of its own; that is faster than sharing one, and much faster beside other programs.
    pool = workers()

    def propose(fold: Fold) -> Iterator[Candidate]:
        for settings in tried if len(fold.train) else ():
            watching = judge if fold is divided[0] else None  # one curve is enough to look at
            looks, history = trained(problem, settings, fold.train, watching, fold, goal, progress)
            if watching is not None:
                histories[settings] = history
            yield from _candidates(problem, settings, fold, looks, goal, shares)

    choice = crossfit(judge, divided, scores_of(problem.asked, problem.held), propose, goal, pool)
    if not choice.label:
        return Learnt(None, None, choice, None, 0, next(iter(histories.values()), History()))
    first: Mapping[str, Any] = choice.settings[0]
    settings, epoch = cast(Settings, first["settings"]), int(first["epoch"])
    rows = np.flatnonzero(np.diff(problem.answers().indptr)).astype(np.int64)
    looks, _ = pool.submit(trained, problem, settings, rows, None, None, goal, progress, until=epoch).result()
    projection = looks[epoch] if epoch else None
    memory = None
    scale = float(np.mean([found["scale"] for found in choice.settings]))
    share, damping = float(first["share"]), float(first["damping"])
    if settings.side != "query" and (share < 1 or scale < 1 or damping):
        memory = remembered(problem, projection, rows, share, scale=scale, damping=damping)
    histories[settings].best = epoch
    return Learnt(projection, memory, choice, settings, epoch, histories[settings])


def remembered(
    problem: Problem,
    projection: Projection | None,
    rows: Ints,
    share: float,
    *,
    scale: float = 1.0,
    damping: float = 0.0,
    keep_length: bool = True,
) -> Memory:
    """The memory of documents that some queries teach; where lengths are not kept, of sums in place of directions."""
    answers = problem.answers(rows)
    asked = problem.asked if projection is None else projection(problem.asked, "query")
    warm = np.unique(answers.indices)
    sums: Floats = np.asarray((answers.T @ asked)[warm], np.float32)
    if keep_length:
        sums = unit(sums)
    memory = Memory(tuple(problem.ids[row] for row in warm), sums, share, 1.0, keep_length)
    if damping:
        crowd = unit(asked[rows[np.linspace(0, len(rows) - 1, min(CROWD, len(rows))).astype(int)]])
        held = problem.held if projection is None else projection(problem.held, "document")
        level = float(crowding(memory(problem.ids, held), crowd).mean())
        memory = replace(memory, crowd=crowd, damping=damping, level=level)
    return replace(memory, scale=scale)


def loss_of(settings: Settings, dimension: int) -> Loss:
    """The ranking loss with its regularisers."""
    loss: Loss = InfoNCE(settings.temperature)
    if settings.loss == "triplet":
        loss = Triplet(settings.margin)
    elif settings.loss == "logistic":
        loss = PairwiseLogistic(settings.temperature)
    parts = [(1.0, loss)]
    parts += [(settings.recovery, Recovery())] if settings.recovery else []
    parts += [(settings.prediction, Prediction(dimension))] if settings.prediction else []
    return loss if len(parts) == 1 else Sum(parts)


def trained(
    problem: Problem,
    settings: Settings,
    rows: Ints,
    judge: Judge | None,
    fold: Fold | None,
    goal: Goal,
    progress: Callable[[int], None] | None,
    until: int | None = None,
) -> tuple[dict[int, Projection], History]:
    """Projections by epoch. The schedule depends on the number of all queries, so that it is the same in every fold."""
    dimension = problem.held.shape[1]
    sampler = Sampler(problem.taught_by(rows), negatives=settings.negatives, seed=settings.seed)
    per_epoch = max(1, -(-len(problem.queries) // sampler.size))
    epochs = settings.epochs or max(10, -(-STEPS // per_epoch))
    step = Residual(dimension, settings.form, settings.rank, settings.side, settings.seed)
    step.start("query", problem.asked[rows])
    step.start("document", problem.held[sampler.answers])
    looks: dict[int, Projection] = {}

    def measure(encoder: nn.Module, epoch: int) -> dict[str, float]:
        projection = looks[epoch] = cast(Residual, encoder).projection()
        if progress is not None:
            progress(1)
        if judge is None or fold is None:
            return {}
        scores = scores_of(projection(problem.asked, "query"), projection(problem.held, "document"))
        held_out = {"seen": fold.seen[:200], "unseen": fold.unseen[:200]}
        found = {part: float(judge.values(some, scores).mean()) for part, some in held_out.items() if len(some)}
        wanted = [value for part, value in found.items() if goal in (part, "balanced")] or list(found.values())
        return {"goal": float(np.mean(wanted))} | found

    trainer = Trainer(epochs=epochs, rate=settings.rate, looks=LOOKS, seed=settings.seed)
    loss = loss_of(settings, dimension)
    history = trainer.fit(step, loss, sampler, Stored(problem.asked, problem.held), measure=measure, until=until)
    return looks, history


def _candidates(
    problem: Problem,
    settings: Settings,
    fold: Fold,
    looks: Mapping[int, Projection],
    goal: Goal,
    shares: Sequence[float],
) -> Iterator[Candidate]:
    """Every look, and those at both ends with every share of memory and damping."""
    changes = settings.side != "query"
    warm = np.zeros(len(problem.ids), bool)
    warm[problem.answers(fold.train).indices] = True
    sample = fold.unseen[:300]
    fair = _warm_share(_products(problem.asked[sample], problem.held), warm) if len(sample) else 1.0
    last = max(looks)
    for epoch, found in looks.items():
        projection = found if epoch else None
        asked = problem.asked if projection is None else projection(problem.asked, "query")
        plain = problem.held if projection is None else projection(problem.held, "document")
        many = changes and settings.remember and epoch in (0, last)
        for share, damping in product(shares if many else (1.0,), DAMPINGS if many else (0.0,)):
            if not epoch and share == 1:
                continue
            held, scale = plain, 1.0
            if changes:
                held = remembered(problem, projection, fold.train, share, damping=damping)(problem.ids, plain)
                if goal != "seen" and len(sample):
                    scale = _fair_scale(_products(asked[sample], held), warm, fair)
                    held = np.where(warm[:, None], held * np.float32(scale), held)
            chosen = {"settings": settings, "epoch": epoch, "share": share, "damping": damping, "scale": scale}
            label = f"{settings.label()}; epoch {epoch}; memory {1 - share:.2f}; damping {damping:g}"
            yield Candidate(label, chosen, scores_of(asked, held))


def _fair_scale(scores: Floats, warm: Bools, fair: float) -> float:
    """The largest scale with which documents with examples come up no more often than they did untaught.

    Asked are queries that none of them answers: documents with examples have been drawn towards queries in general, and
    would hide those without. No more is taken back than was given, since then documents would profit from having none.
    """
    for step, scale in enumerate(SCALES):
        scaled = np.where(warm, scores * np.float32(scale), scores)
        if _warm_share(scaled, warm) <= fair:
            # One step more than was seen to be needed, since the shares are estimates.
            return SCALES[min(step + 1, len(SCALES) - 1)] if step else scale
    return SCALES[-1]


def _warm_share(scores: Floats, warm: Bools) -> float:
    """Among the nearest 10 of each query, how many have examples."""
    k = min(NEAR, scores.shape[1])
    near = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    return float(warm[near].mean())


def scores_of(asked: Floats, held: Floats) -> Scores:
    """Inner products of queries by row with all documents."""
    return lambda rows: _products(asked[rows], held)


def _products(queries: Floats, documents: Floats) -> Floats:
    """Inner products [n, m], by torch, which keeps to the cores of the worker that asks."""
    found: Floats = (torch.from_numpy(queries) @ torch.from_numpy(documents).T).numpy()
    return found


def capped(fold: Fold) -> Fold:
    """A fold that measures no more queries of a kind than are needed."""
    return replace(fold, seen=fold.seen[:MOST], unseen=fold.unseen[:MOST])


def described(settings: Settings) -> dict[str, Any]:
    """As JSON can hold it."""
    return asdict(settings)

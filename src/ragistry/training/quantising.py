"""Learning to quantise: centroids and a map of queries, learnt for the order that an index of codes gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from ..encoders.steps import Features, Step
from ..encoders.steps.residual import Residual
from ..errors import InvalidInput
from ..indexes.coded import Bytes
from ..indexes.quantised import Codec, Quantised
from ..retrievers.learned_codes import Coding, LearnedCodes
from ..types import Floats, Ints, Role
from .adapting import Problem, scores_of
from .compressing import Lessons, Schedule, Watch, best_of, trained
from .crossfit import Scores
from .losses import Loss, Sum
from .losses.compression import Distortion, LambdaRank, Unquantised
from .losses.distillation import Divided, MarginMSE
from .losses.ranking import InfoNCE
from .pseudo import spread_of
from .samplers import Sampler
from .trainer import History
from .walks import GraphWalk, Order

CENTROIDS = 0.1
"""Share of the learning rate for centroids, whose numbers are small."""
MISSED = np.float32(-1e9)
"""What a document gets that codes do not propose."""
CHUNK = 4096
"""Documents coded at a time outside training, which bounds memory."""


class Quantise(Step):
    """Queries mapped and rotated, and documents as their codes name them; the centroids can be trained.

    With `codes` documents keep them, whatever is learnt, and are known by the feature `row`. Without, a document's parts
    are the nearest centroids, and in training the gradient takes the straight way through a softmax of distances, in units
    of the centroids' mean square. Both are inner products' sides in the rotated space: `vector`; `rotated` is the document
    before it is quantised. It starts at the codec, and at the identity for queries.

    Args:
        codec: To begin with. Its rotation stays.
        codes: Of all documents by row, uint8 [m, parts], if they are to stay.

    Source: with codes, JPQ, arXiv:2108.00644, section 4; without, BiDR, arXiv:2201.05409, section 3.2. Deviations: a linear
    map of stored query vectors, in place of an encoder in training; the unit of distances.
    """

    needs = frozenset({"vector"})
    gives = frozenset({"vector", "rotated"})
    rotation: Tensor | None
    codes: Tensor | None

    def __init__(self, codec: Codec, codes: Bytes | None = None) -> None:
        super().__init__()
        self.turn = Residual(codec.dimension, "linear", None, "query")
        self.centroids = nn.Parameter(torch.from_numpy(np.array(codec.centroids, np.float32)))
        self._rotation = codec.rotation
        turned = None if codec.rotation is None else torch.from_numpy(np.array(codec.rotation))
        kept = None if codes is None else torch.from_numpy(np.array(codes))
        self.register_buffer("rotation", turned, persistent=False)
        self.register_buffer("codes", kept, persistent=False)
        self.unit = max(float(np.square(codec.centroids).sum(axis=2).mean()), 1e-12)

    def forward(self, features: Features, role: Role) -> Features:
        """Replace `vector`, and add `rotated`."""
        mapped = self.turn(features, role)["vector"]
        rotated = mapped if self.rotation is None else mapped @ self.rotation.T
        if role == "query":
            return features | {"vector": rotated, "rotated": rotated}
        if self.codes is not None:
            vector = self._named(self.codes[features["row"]].long())
        elif self.training:
            vector = self._straight_through(rotated)
        else:
            vector = torch.cat([self._named(self._distances(some).argmin(-1)) for some in rotated.split(CHUNK)])
        return features | {"vector": vector, "rotated": rotated}

    def codec(self) -> Codec:
        """The same in numpy."""
        return Codec(self._rotation, self.centroids.detach().numpy().copy())

    def _named(self, codes: Tensor) -> Tensor:
        parts = torch.arange(codes.shape[1])
        named: Tensor = self.centroids[parts, codes].flatten(1)
        return named

    def _distances(self, rotated: Tensor) -> Tensor:
        """Squared, but for what all centroids have in common: [n, parts, 256]."""
        pieces = rotated.view(len(rotated), len(self.centroids), -1)
        found: Tensor = self.centroids.pow(2).sum(-1) - 2 * torch.einsum("nms,mks->nmk", pieces, self.centroids)
        return found

    def _straight_through(self, rotated: Tensor) -> Tensor:
        distances = self._distances(rotated)
        soft = torch.softmax(-distances / self.unit, dim=-1)
        hard = nn.functional.one_hot(distances.argmin(-1), distances.shape[-1]).to(soft.dtype)
        chosen = hard + soft - soft.detach()
        named: Tensor = torch.einsum("nmk,mks->nms", chosen, self.centroids).flatten(1)
        return named


@dataclass(frozen=True)
class Quantising:
    """Centroids learnt under codes that stay; see `ragistry.recipes.jpq`.

    Args:
        codec: What documents are coded with.
        temperature: For vectors of length 1; others count by their mean length.
        depth: The index's best, by the centroids as they were when the epoch began, that a query learns from.
        cutoff: See `LambdaRank`.
        schedule: How long.
    """

    codec: Codec
    temperature: float = 0.05
    depth: int = 200
    cutoff: int = 200
    schedule: Schedule = field(default_factory=lambda: Schedule(size=32))

    def base(self, problem: Problem) -> Scores:
        """Scores by the codec as it is."""
        return self.scores(problem, Coding(codec=self.codec))

    def scores(self, problem: Problem, coding: Coding) -> Scores:
        """Scores by the same codes, read with other centroids."""
        read = coding.codec or self.codec
        return scores_of(coding.queries(problem.asked), read.decode(self.codec.encode(problem.held)))

    def train(
        self,
        lessons: Lessons,
        rows: Ints,
        *,
        watch: Watch | None = None,
        progress: Callable[[int], None] | None = None,
        until: int | None = None,
    ) -> tuple[dict[int, Coding], History]:
        """Centroids and a map of queries, by epoch."""
        problem, schedule = lessons.problem, self.schedule
        step = Quantise(self.codec, self.codec.encode(problem.held))
        sampler = Sampler(
            problem.taught_by(rows), negatives="mined", depth=self.depth, size=schedule.size, seed=schedule.seed
        )
        return trained(
            step,
            self._loss(lessons),
            sampler,
            lessons,
            schedule,
            lambda: Coding(step.turn.projection(), step.codec()),
            slower={"centroids": CENTROIDS},
            watch=watch,
            progress=progress,
            until=until,
        )

    def taught(self, retriever: LearnedCodes, ids: Sequence[str], coding: Coding) -> LearnedCodes:
        """The retriever with the same codes, read with other centroids."""
        return retriever.taught(ids, coding)

    def _loss(self, lessons: Lessons) -> Loss:
        plain = LambdaRank(self.temperature * length(lessons.problem), self.depth, self.cutoff)
        if lessons.labels is None:
            return plain
        distil = MarginMSE(lessons.labels, 1 / spread_of(lessons.problem, lessons.labels))
        return Divided(np.diff(lessons.labels.indptr) > 0, distil, plain)


@dataclass(frozen=True)
class TwoStage:
    """Codes to find candidates and vectors to put them in order, taught one after the other; see `ragistry.recipes.bidr`.

    First centroids and a map of queries, contrastively, documents being coded anew as the centroids move; then, over what
    these codes find, another map of queries for the vectors themselves.

    Args:
        codec: What documents are coded with before.
        temperature: For vectors of length 1; others count by their mean length.
        distortion: Weight of |v - Q(v)|^2.
        candidates: Of each query that codes find in training; hard negatives are of their first half, and the second half
            leads from query to query.
        order: Of the walk.
        depth: Candidates in a search.
        weight: Of the codes' scores there.
        coarse: How long the first is trained.
        fine: And the second.
    """

    codec: Codec
    temperature: float = 0.05
    distortion: float = 0.0
    candidates: int = 400
    order: Order = "snow"
    depth: int = 1000
    weight: float = 0.3
    coarse: Schedule = field(default_factory=Schedule)
    fine: Schedule = field(default_factory=Schedule)

    def base(self, problem: Problem) -> Scores:
        """Scores by the codec, and of its candidates by their vectors."""
        return self.scores(problem, Coding())

    def scores(self, problem: Problem, coding: Coding) -> Scores:
        """The same by what was learnt."""
        coded = self._by_code(problem, coding)
        exact = scores_of(coding.compared(problem.asked), problem.held)

        def of(rows: Ints) -> Floats:
            rough = coded(rows)
            both = exact(rows) + np.float32(self.weight) * rough
            if self.depth < rough.shape[1]:
                proposed = np.zeros_like(rough, bool)
                np.put_along_axis(proposed, best_of(rough, self.depth), True, axis=1)
                both = np.where(proposed, both, MISSED)
            return both

        return of

    def train(
        self,
        lessons: Lessons,
        rows: Ints,
        *,
        watch: Watch | None = None,
        progress: Callable[[int], None] | None = None,
        until: int | None = None,
    ) -> tuple[dict[int, Coding], History]:
        """What is learnt by epoch of the second stage, counted from 1, which is the first stage alone."""
        problem = lessons.problem
        codes = self._coarse(lessons, rows, progress)
        rough = self._by_code(problem, codes)
        found = np.full((len(problem.queries), self.candidates), -1, np.int64)
        for first in range(0, len(rows), 256):
            some = rows[first : first + 256]
            best = best_of(rough(some), self.candidates)
            found[some, : best.shape[1]] = best
        half = max(1, min(self.candidates, len(problem.ids)) // 2)
        schedule, dimension = self.fine, problem.held.shape[1]
        step = Residual(dimension, "linear", None, "query")
        sampler = GraphWalk(
            problem.taught_by(rows),
            found,
            near=(0, half),
            far=(half, 2 * half),
            order=self.order,
            size=schedule.size,
            seed=schedule.seed,
        )
        looks, history = trained(
            step,
            InfoNCE(self.temperature * length(problem), "dot"),
            sampler,
            lessons,
            schedule,
            lambda: replace(codes, fine=step.projection()),
            watch=watch,
            progress=progress,
            until=None if until is None else until - 1,
        )
        return {epoch + 1: coding for epoch, coding in looks.items()}, history

    def taught(self, retriever: LearnedCodes, ids: Sequence[str], coding: Coding) -> LearnedCodes:
        """The retriever with all documents coded anew, once for all."""
        return retriever.taught(ids, replace(coding, codec=None), Quantised(codec=coding.codec))

    def _by_code(self, problem: Problem, coding: Coding) -> Scores:
        codec = coding.codec or self.codec
        return scores_of(coding.queries(problem.asked), codec.decode(codec.encode(problem.held)))

    def _coarse(self, lessons: Lessons, rows: Ints, progress: Callable[[int], None] | None) -> Coding:
        """Centroids and a map of queries, as the last epoch leaves them."""
        problem, schedule = lessons.problem, self.coarse
        step = Quantise(self.codec)
        sampler = Sampler(problem.taught_by(rows), negatives="mined", depth=1, size=schedule.size, seed=schedule.seed)
        contrast = InfoNCE(self.temperature * length(problem), "dot")
        parts: list[tuple[float, Loss]] = [(1.0, contrast), (1.0, Unquantised(contrast))]
        parts += [(self.distortion, Distortion())] if self.distortion else []
        looks, _ = trained(
            step,
            Sum(parts),
            sampler,
            lessons,
            schedule,
            lambda: Coding(step.turn.projection(), step.codec()),
            slower={"centroids": CENTROIDS},
            progress=progress,
        )
        return looks[max(looks)]


def codec_of(retriever: LearnedCodes) -> Codec:
    """What a retriever's documents are coded with untaught.

    Raises:
        InvalidInput: If it holds too few documents to have codes.
    """
    codes = retriever.codes
    codec = retriever.first or (codes.codec if isinstance(codes, Quantised) else None)
    if codec is None:
        enough = codes.enough if isinstance(codes, Quantised) else 0
        raise InvalidInput(
            f"{len(codes)} documents are held, and vectors are quantised from {enough:,} on; until then they are searched "
            "as they are, and there are no codes to improve: add documents, set `enough` lower and index again, or teach "
            "`adder`, which learns on the vectors themselves"
        )
    return codec


def length(problem: Problem) -> float:
    """The mean length of queries times that of documents: what an inner product is in units of a cosine."""
    asked, held = (np.linalg.norm(vectors, axis=1).mean() for vectors in (problem.asked, problem.held))
    return max(float(asked * held), 1e-12)

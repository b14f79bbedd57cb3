"""Learning to hash: a map of queries and another of documents whose signs are the code, learnt over stored vectors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor

from ..encoders.steps import Features, Step
from ..encoders.steps.residual import Residual
from ..errors import InvalidInput
from ..retrievers.learned_codes import Coding, LearnedCodes
from ..types import Floats, Ints, Role
from .adapting import Problem, scores_of
from .compressing import Lessons, Schedule, Watch, trained
from .crossfit import Scores
from .losses import Sum
from .losses.compression import Annealed, CodeHinge
from .losses.distillation import Divided, MarginMSE
from .losses.ranking import InfoNCE
from .pseudo import spread_of
from .samplers import Negatives, Sampler
from .trainer import History

Smooth: TypeAlias = Literal["tanh", "straight-through"]


class Hashed(Step):
    """Maps of queries and of documents that are to be told by their signs.

    `code` is, in training, tanh(sharpness x) of the mapped vector x scaled to components of 1 on average, and otherwise its
    sign, +1 for 0 as in the index. `vector` is the mapped query, or the document's code: what an index of bits compares. It
    starts at the identity.

    Args:
        dimension: Of the vectors, and of the code.
        smooth: `tanh`, which grows harder with `sharpness`; or `straight-through`: the sign, with the gradient of tanh.

    Raises:
        InvalidInput: If `smooth` is not known.

    Example:
        >>> import torch
        >>> step = Hashed(3).eval()
        >>> step({"vector": torch.tensor([[0.5, 0.0, -2.0]])}, "document")["vector"].tolist()
        [[1.0, 1.0, -1.0]]

    Source: BPR, arXiv:2106.00882, section 3.1. Deviations: a linear map over the vectors of an encoder that stays as it is,
    in place of training it; components are scaled, as those of unit vectors are so small that tanh would not bend.
    """

    needs = frozenset({"vector"})
    gives = frozenset({"vector", "code"})

    def __init__(self, dimension: int, smooth: Smooth = "tanh") -> None:
        super().__init__()
        if smooth not in get_args(Smooth):
            raise InvalidInput(f"smooth={smooth!r}; one of {', '.join(get_args(Smooth))} is needed")
        self.turn = Residual(dimension, "linear", None, "both")
        self.smooth: Smooth = smooth
        self.sharpness = 1.0

    def forward(self, features: Features, role: Role) -> Features:
        """Add `code`, and replace `vector`."""
        found: Features = self.turn(features, role)
        code = self.code(found["vector"])
        return found | {"code": code} | ({"vector": code} if role == "document" else {})

    def code(self, vectors: Tensor) -> Tensor:
        """Of mapped vectors."""
        hard = torch.where(vectors >= 0, 1.0, -1.0)
        if not self.training:
            return hard
        scaled = vectors * math.sqrt(vectors.shape[-1]) / vectors.norm(dim=-1, keepdim=True).clamp(min=1e-12)
        soft = torch.tanh(self.sharpness * scaled)
        return soft if self.smooth == "tanh" else soft + (hard - soft).detach()

    def extra_repr(self) -> str:
        """Every setting."""
        return f"smooth={self.smooth!r}"


@dataclass(frozen=True)
class Hashing:
    """Bits learnt with float queries against codes and codes against codes; see `ragistry.recipes.bpr`.

    The two parts of the loss weigh the same. Queries with a teacher's labels have `MarginMSE` in place of `InfoNCE`.
    Scores for choosing are those of all documents: what the first look by Hamming distance misses is not counted.
    """

    temperature: float = 0.05
    margin: float = 2.0
    growth: float = 0.1
    smooth: Smooth = "tanh"
    negatives: Negatives = "judged"
    schedule: Schedule = field(default_factory=Schedule)

    def base(self, problem: Problem) -> Scores:
        """Scores by the signs of the vectors as they are."""
        return scores_of(problem.asked, signs(problem.held))

    def scores(self, problem: Problem, coding: Coding) -> Scores:
        """Scores by the signs of the mapped vectors."""
        return scores_of(coding.queries(problem.asked), signs(coding.documents(problem.held)))

    def train(
        self,
        lessons: Lessons,
        rows: Ints,
        *,
        watch: Watch | None = None,
        progress: Callable[[int], None] | None = None,
        until: int | None = None,
    ) -> tuple[dict[int, Coding], History]:
        """Both maps, by epoch."""
        problem, schedule = lessons.problem, self.schedule
        step = Hashed(problem.held.shape[1], self.smooth)
        sampler = Sampler(problem.taught_by(rows), negatives=self.negatives, size=schedule.size, seed=schedule.seed)
        return trained(
            step,
            self._loss(lessons),
            sampler,
            lessons,
            schedule,
            lambda: Coding(projection=step.turn.projection()),
            watch=watch,
            progress=progress,
            until=until,
        )

    def taught(self, retriever: LearnedCodes, ids: Sequence[str], coding: Coding) -> LearnedCodes:
        """The retriever with new codes of all documents."""
        return retriever.taught(ids, coding)

    def _loss(self, lessons: Lessons) -> Annealed:
        hinge = CodeHinge(self.margin, self.temperature)
        native = Sum([(1.0, InfoNCE(self.temperature)), (1.0, hinge)])
        if lessons.labels is None:
            return Annealed(native, self.growth)
        problem, labels = lessons.problem, lessons.labels
        # A cosine with a code is smaller than that with the vector itself, by the mean of |x| for components x of rms 1.
        length = float(np.linalg.norm(problem.held, axis=1).mean() * np.linalg.norm(problem.asked, axis=1).mean())
        shrunk = float(np.abs(problem.held).mean() / np.sqrt(np.square(problem.held).mean()))
        distil = MarginMSE(labels, length / (shrunk * spread_of(problem, labels)), "cosine")
        return Annealed(Divided(np.diff(labels.indptr) > 0, Sum([(1.0, distil), (1.0, hinge)]), native), self.growth)


def signs(vectors: Floats) -> Floats:
    """+1 where a component is 0 or above, -1 elsewhere, float32."""
    found: Floats = np.where(vectors >= 0, np.float32(1), np.float32(-1))
    return found

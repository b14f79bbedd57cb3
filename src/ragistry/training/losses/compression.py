"""Losses for codes: bits and quantised vectors, and the order that an index of them gives."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...encoders.steps import Features
from ...errors import InvalidInput
from ...types import Role
from . import Batch, Loss


class Annealed(Loss):
    """A loss of an encoder whose codes become harder while it learns: after each step its `sharpness` is sqrt(1 + growth t).

    Args:
        loss: Any.
        growth: How fast; 0 leaves the sharpness at 1.

    Raises:
        InvalidInput: If the growth is below 0.

    Source: HashNet, arXiv:1702.00758, as BPR uses it, arXiv:2106.00882, section 3.1 (growth 0.1).
    """

    def __init__(self, loss: Loss, growth: float = 0.1) -> None:
        super().__init__()
        if not growth >= 0:
            raise InvalidInput(f"growth={growth}; a number of at least 0 is needed")
        self.loss, self.growth = loss, growth

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        """That of the loss."""
        value: Tensor = self.loss(encoder, batch)
        return value

    def after_step(self, encoder: nn.Module, step: int) -> None:
        """Sharpen the codes."""
        encoder.sharpness = math.sqrt(1 + self.growth * step)  # type: ignore[assignment]  # a number, no weight
        self.loss.after_step(encoder, step)


class CodeHinge(Loss):
    """The code of an answer must agree with the query's code in more places than any other document's, by a margin.

    max(0, margin - (h_q . h_p - h_q . h_j)) over answers p and others j, for codes h of `bits` numbers from -1 to 1, which
    the encoder gives as `code`. It is divided by bits and by a temperature, so that it counts beside an `InfoNCE` of cosines
    with that temperature whatever the number of bits.

    Args:
        margin: In units of the inner product, which changes by 2 with each bit.
        temperature: That of the loss it is added to.

    Raises:
        InvalidInput: If the margin is below 0 or the temperature not above it.

    Source: BPR, arXiv:2106.00882, equation 5 (margin 2). Deviation: the division, above.
    """

    def __init__(self, margin: float = 2.0, temperature: float = 0.05) -> None:
        super().__init__()
        if not margin >= 0 or not temperature > 0:
            raise InvalidInput(f"margin={margin}, temperature={temperature}; at least 0 and above 0 are needed")
        self.margin, self.temperature = margin, temperature

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        """The mean over pairs of an answer and another document."""
        asked, held = encoder(batch.queries, "query")["code"], encoder(batch.documents, "document")["code"]
        scale = asked.shape[1] * self.temperature
        products = asked @ held.T
        rows, columns = torch.nonzero(batch.relevance > 0, as_tuple=True)
        others = batch.relevance[rows] <= 0
        lacking = torch.relu(self.margin - products[rows, columns][:, None] + products[rows])
        mean: Tensor = (lacking * others).sum() / others.sum().clamp(min=1) / scale
        return mean


class LambdaRank(Loss):
    """Answers before others, each pair weighted by what its exchange would change: |1 / rank_i - 1 / rank_j|.

    log(1 + exp((s_j - s_i) / temperature)) for answers i and others j, ranked by the scores as they are, among the batch's
    candidates. Ranks beyond `depth` count as depth + 1: what an index did not find has no other. Ranks beyond `cutoff` count
    as endless, so that pairs of which both are there weigh nothing.

    Args:
        temperature: Divides the scores, which are inner products.
        depth: See above.
        cutoff: See above.

    Raises:
        InvalidInput: If one of them is not positive.

    Example:
        >>> import torch
        >>> vectors = {"vector": torch.eye(2)}
        >>> first_is_right = Batch(vectors, vectors, torch.eye(2))
        >>> round(LambdaRank(temperature=1.0)(lambda features, role: features, first_is_right).item(), 4)
        0.1566

    Source: JPQ, arXiv:2108.00644, equations 5 and 6, after LambdaRank (Burges, 2010), with reciprocal ranks. Deviations:
    the sum over others is not divided by their number, which is that of the batch; a temperature.
    """

    def __init__(self, temperature: float = 0.05, depth: int = 200, cutoff: int = 200) -> None:
        super().__init__()
        if not temperature > 0 or depth < 1 or cutoff < 1:
            raise InvalidInput(f"temperature={temperature}, depth={depth}, cutoff={cutoff}; all must be positive")
        self.temperature, self.depth, self.cutoff = temperature, depth, cutoff

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        """The sum over others, averaged over answers."""
        asked, held = encoder(batch.queries, "query")["vector"], encoder(batch.documents, "document")["vector"]
        scores = asked @ held.T / self.temperature
        ranks = scores.detach().argsort(dim=1, descending=True, stable=True).argsort(dim=1) + 1
        ranks = ranks.clamp(max=self.depth + 1)
        worth = torch.where(ranks <= self.cutoff, 1 / ranks, torch.zeros(()))
        rows, columns = torch.nonzero(batch.relevance > 0, as_tuple=True)
        weights = (worth[rows, columns][:, None] - worth[rows]).abs() * (batch.relevance[rows] <= 0)
        pairs = functional.softplus(scores[rows] - scores[rows, columns][:, None])
        mean: Tensor = (pairs * weights).sum() / max(1, len(rows))
        return mean


class Distortion(Loss):
    """How far documents are from what they are quantised to: mean |v - Q(v)|^2, of rotated vectors v.

    The encoder gives documents' v as `rotated` and Q(v) as `vector`.

    Source: BiDR, arXiv:2201.05409, section 3.2; its code compares the vector before the rotation with one after it.
    """

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        """The mean over documents."""
        found = encoder(batch.documents, "document")
        mean: Tensor = (found["rotated"] - found["vector"]).pow(2).sum(dim=1).mean()
        return mean


class Unquantised(Loss):
    """A loss of the vectors before they are quantised, which the encoder gives as `rotated`.

    Args:
        loss: Of `vector`.
    """

    def __init__(self, loss: Loss) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        """That of the loss."""

        class Before(nn.Module):
            def forward(self, features: Features, role: Role) -> Features:
                found: Features = encoder(features, role)
                return found | {"vector": found["rotated"]}

        value: Tensor = self.loss(Before(), batch)
        return value

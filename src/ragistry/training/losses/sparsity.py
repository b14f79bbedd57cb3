"""What keeps weights over a vocabulary few: postings cost memory, and time to read."""

from __future__ import annotations

from torch import Tensor, nn

from ...encoders.steps import Features
from ...errors import InvalidInput
from ...types import Role
from . import Batch, Loss


def flops(weights: Tensor) -> Tensor:
    """sum_v (mean_i |w_iv|)^2: about how many products a search of such texts among such texts takes. A scalar.

    Less for weights spread over many terms than for as much weight on few, so that no term is in every text.

    Args:
        weights: float32 [b, V].

    Example:
        >>> import torch
        >>> flops(torch.eye(2)).item(), flops(torch.tensor([[1.0, 0.0], [1.0, 0.0]])).item()
        (0.5, 1.0)

    Source: Paria et al., arXiv:2004.05665 (ICLR 2020), equation 4.
    """
    total: Tensor = weights.abs().mean(dim=0).square().sum()
    return total


class Sparse(Loss):
    """A ranking loss, and FLOPS of queries and of documents, each with a weight that rises with the square of the steps.

    Were the weights whole from the beginning, a lexicon would fall silent before it has learnt anything. Queries and
    documents are encoded once for all of them.

    Args:
        loss: Of the ranking.
        queries: Weight of FLOPS of queries, at last.
        documents: The same of documents.
        warmup: Steps in which the weights rise; 0 for none.

    Raises:
        InvalidInput: If a number is negative.

    Source: SPLADE, arXiv:2107.05720, section 3, with its quadratic schedule.
    """

    def __init__(self, loss: Loss, queries: float, documents: float, warmup: int = 0) -> None:
        super().__init__()
        if min(queries, documents, warmup) < 0:
            raise InvalidInput(
                f"queries={queries}, documents={documents}, warmup={warmup} were given; numbers of at least 0 are needed"
            )
        self.loss, self.queries, self.documents, self.warmup = loss, queries, documents, warmup
        self.steps = 0

    def share(self) -> float:
        """Of the weights, from 0 to 1, that counts now."""
        return min(1.0, self.steps / self.warmup) ** 2 if self.warmup else 1.0

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        """A scalar."""
        queries, documents = encoder(batch.queries, "query")["vector"], encoder(batch.documents, "document")["vector"]
        ranking: Tensor = self.loss(_Same(), Batch({"vector": queries}, {"vector": documents}, batch.relevance))
        return ranking + self.share() * (self.queries * flops(queries) + self.documents * flops(documents))

    def after_step(self, encoder: nn.Module, step: int) -> None:
        """Let the weights rise."""
        self.steps = step
        self.loss.after_step(encoder, step)


class _Same(nn.Module):
    def forward(self, features: Features, role: Role) -> Features:
        return features

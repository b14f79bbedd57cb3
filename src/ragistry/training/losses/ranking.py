"""Losses that put documents that answer a query before those that do not."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import InvalidInput
from . import Batch, Loss, Similarity, similarities

_NEVER = -1e9
"""A logit or score that no other is below: unlike infinity it has a gradient, 0."""


class InfoNCE(Loss):
    """Each document that answers a query against all that do not, by cross-entropy over their softmax.

    With a batch's own documents as candidates it is InfoNCE with in-batch negatives (multiple-negatives ranking); with all
    documents it is the softmax over the whole corpus. Other documents known to answer the query are no negatives of it, and
    a document is one candidate however many queries bring it. A better answer weighs more, by its share of the query's best.

    Args:
        temperature: Divides the similarities. Lower looks at the hardest negatives only.
        similarity: Of the vectors.

    Raises:
        InvalidInput: If the temperature is not above 0.

    Example:
        >>> import torch
        >>> batch = Batch({"vector": torch.eye(2)}, {"vector": torch.eye(2)}, torch.eye(2))
        >>> class Identity(torch.nn.Module):
        ...     def forward(self, features, role):
        ...         return features
        >>> round(InfoNCE(temperature=1.0)(Identity(), batch).item(), 4)  # log(1 + exp(0 - 1))
        0.3133

    Source: van den Oord, Li and Vinyals, arXiv:1807.03748 (2018), equation 4. Deviation: several positives, as above.
    """

    def __init__(self, temperature: float = 0.05, similarity: Similarity = "cosine") -> None:
        super().__init__()
        if not temperature > 0:
            raise InvalidInput(f"temperature={temperature}; a number above 0 is needed")
        self.temperature = temperature
        self.similarity: Similarity = similarity

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        """The mean over answers, weighted by relevance."""
        logits = similarities(encoder, batch, self.similarity) / self.temperature
        positive = batch.relevance > 0
        negatives = torch.logsumexp(logits.masked_fill(positive, _NEVER), dim=1, keepdim=True)
        weights = _weights(batch.relevance)
        # -log(e^p / (e^p + sum e^n)), for each positive p alone
        return (functional.softplus(negatives - logits) * weights).sum() / weights.sum().clamp(min=1e-12)


class Triplet(Loss):
    """A hinge: the hardest candidate that does not answer must be further than the one that does by a margin.

    With all documents as candidates the hardest one is the global hard negative under the current encoder. Nothing is
    learnt from a query that is already answered with the margin, so that training ends by itself.

    Args:
        margin: In units of similarity.
        similarity: Of the vectors: more is nearer (a distance in its place would learn the reverse).

    Raises:
        InvalidInput: If the margin is below 0.

    Source: ADDER, arXiv:2310.05380 (2023), whose reviews describe it; no text states a formula or margin.
    """

    def __init__(self, margin: float = 0.1, similarity: Similarity = "cosine") -> None:
        super().__init__()
        if not margin >= 0:
            raise InvalidInput(f"margin={margin}; a number of at least 0 is needed")
        self.margin = margin
        self.similarity: Similarity = similarity

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        """The mean over answers, weighted by relevance."""
        scores = similarities(encoder, batch, self.similarity)
        hardest = scores.masked_fill(batch.relevance > 0, _NEVER).max(dim=1, keepdim=True).values
        weights = _weights(batch.relevance)
        return (torch.relu(self.margin + hardest - scores) * weights).sum() / weights.sum().clamp(min=1e-12)


class PairwiseLogistic(Loss):
    """Every better document against every worse one: (y_j - y_k) log(1 + exp((s_k - s_j) / temperature)).

    The only one that learns an order among answers of different relevance.

    Args:
        temperature: Divides the similarities.
        similarity: Of the vectors.

    Raises:
        InvalidInput: If the temperature is not above 0.

    Source: Search-Adaptor, arXiv:2310.08750 (ACL 2024), section 3, L_rank. Deviations: a mean in place of a sum, and a
    temperature (1 in the paper, with which cosines hardly differ).
    """

    def __init__(self, temperature: float = 0.05, similarity: Similarity = "cosine") -> None:
        super().__init__()
        if not temperature > 0:
            raise InvalidInput(f"temperature={temperature}; a number above 0 is needed")
        self.temperature = temperature
        self.similarity: Similarity = similarity

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        """The mean over ordered pairs, weighted by the difference of their relevance."""
        logits = similarities(encoder, batch, self.similarity) / self.temperature
        rows, columns = torch.nonzero(batch.relevance > 0, as_tuple=True)
        better = (batch.relevance[rows, columns][:, None] - batch.relevance[rows]).clamp(min=0)
        losses = functional.softplus(logits[rows] - logits[rows, columns][:, None])
        return (losses * better).sum() / better.sum().clamp(min=1e-12)


def _weights(relevance: Tensor) -> Tensor:
    """Relevance as a share of the query's best, 0 where nothing is relevant."""
    relevance = relevance.clamp(min=0)
    return relevance / relevance.amax(dim=1, keepdim=True).clamp(min=1e-12)

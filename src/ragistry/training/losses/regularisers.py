"""What keeps a learnt map near the embedding it started from."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...types import Role
from . import Batch, Loss


class Recovery(Loss):
    """How far vectors were moved: the mean L1 distance between what goes in and what comes out, both sides added.

    0 for the identity.

    Source: Search-Adaptor, arXiv:2310.08750 (ACL 2024), section 3, L_rec.
    """

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        """A scalar; `batch` must hold base vectors as features."""
        roles: tuple[Role, ...] = ("query", "document")
        pairs = zip((batch.queries, batch.documents), roles, strict=True)
        moved: list[Tensor] = [
            (encoder(features, role)["vector"] - features["vector"]).abs().sum(dim=-1).mean()
            for features, role in pairs
        ]
        return torch.stack(moved).sum()


class Prediction(Loss):
    """How well a query can be predicted from a document that answers it, by a linear map that is dropped after training.

    Args:
        dimension: Of the vectors.

    Source: Search-Adaptor, arXiv:2310.08750 (ACL 2024), section 3, L_pred. The paper does not say what the predictor is;
    here it is linear and starts at the identity.
    """

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.predictor = nn.Linear(dimension, dimension)
        with torch.no_grad():
            self.predictor.weight.copy_(torch.eye(dimension))
            self.predictor.bias.zero_()

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        """The mean L1 distance over answers, weighted by relevance."""
        queries, documents = encoder(batch.queries, "query")["vector"], encoder(batch.documents, "document")["vector"]
        rows, columns = torch.nonzero(batch.relevance > 0, as_tuple=True)
        distances = (queries[rows] - self.predictor(documents)[columns]).abs().sum(dim=-1)
        weights = batch.relevance[rows, columns]
        mean: Tensor = (distances * weights).sum() / weights.sum().clamp(min=1e-12)
        return mean

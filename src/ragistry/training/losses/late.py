"""Ranking losses over late interaction: queries and documents of several vectors each."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...encoders.steps import Features
from ...types import Role
from . import Batch, Loss

TOGETHER = 16
"""Documents compared at a time, which bounds memory."""
_NEVER = -1e9
"""Nothing that counts is less similar; unlike minus infinity it can be added up."""


def maxsim(queries: Features, documents: Features) -> Tensor:
    """Of each of a query's vectors the largest inner product with any of a document's, summed: float32 [b, m].

    It is neither averaged nor made symmetric. Vectors that do not count are passed over, not taken as zeros: the largest of
    negative products is no zero.

    Args:
        queries: `vector`, float32 [b, t, d], and `kept`, bool [b, t].
        documents: `vector`, float32 [m, s, d], and `kept`, bool [m, s].

    Example:
        >>> query = {"vector": torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), "kept": torch.tensor([[True, True]])}
        >>> document = {"vector": torch.tensor([[[-1.0, 2.0], [0.0, 0.0]]]), "kept": torch.tensor([[True, False]])}
        >>> maxsim(query, document)
        tensor([[1.]])

    Source: ColBERT, arXiv:2004.12832 (SIGIR 2020), section 3.3; CRISP, arXiv:2505.11471, calls it Chamfer similarity.
    """
    kept = queries["kept"]
    asked = queries["vector"][kept]
    found = []
    for vectors, counts in zip(
        torch.split(documents["vector"], TOGETHER), torch.split(documents["kept"], TOGETHER), strict=True
    ):
        products = (asked @ vectors.flatten(0, 1).T).reshape(len(asked), *vectors.shape[:2])
        found.append(products.masked_fill(~counts, _NEVER).max(dim=-1).values)
    largest = torch.cat(found, dim=1)
    rows = torch.nonzero(kept)[:, 0]
    return torch.zeros(len(kept), largest.shape[1], dtype=largest.dtype).index_add(0, rows, largest)


class MaxSim(Loss):
    """A ranking loss whose scores are those of `maxsim`.

    Args:
        ranking: A loss that compares scores, such as `InfoNCE`, with the similarity `dot`.

    Example:
        >>> from ragistry.training.losses.ranking import InfoNCE
        >>> class Identity(torch.nn.Module):
        ...     def forward(self, features, role):
        ...         return features
        >>> one = {"vector": torch.eye(2).unsqueeze(1), "kept": torch.ones(2, 1, dtype=torch.bool)}
        >>> round(MaxSim(InfoNCE(1.0, "dot"))(Identity(), Batch(one, one, torch.eye(2))).item(), 4)  # as of one vector
        0.3133
    """

    def __init__(self, ranking: Loss) -> None:
        super().__init__()
        self.ranking = ranking

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        """What the ranking loss says of the scores."""
        scores = maxsim(encoder(batch.queries, "query"), encoder(batch.documents, "document"))
        # Rows of scores are vectors whose inner products with unit vectors they are themselves.
        units = torch.eye(scores.shape[1], dtype=scores.dtype)
        found: Tensor = self.ranking(_AsGiven(), Batch({"vector": scores}, {"vector": units}, batch.relevance))
        return found


class _AsGiven(nn.Module):
    def forward(self, features: Features, role: Role) -> Features:
        return features

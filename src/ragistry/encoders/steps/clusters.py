"""Fewer vectors for a text, alike in training and in serving."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn import functional

from ...types import Role
from ..reducing import Reducer
from . import Features, Step


class Clusters(Step):
    """Joins the vectors of a text's tokens by a reducer, or leaves some out, before they are compared.

    Which tokens go together is a constant for training: the gradient of a group's mean goes to its tokens in equal parts.

    Args:
        reducers: By role; the texts of a role without one keep their tokens.

    Example:
        >>> step = Clusters({"document": Reducer("fixed", 1)})
        >>> features = {"vector": torch.tensor([[[2.0], [4.0], [9.0]]]), "kept": torch.tensor([[True, True, False]])}
        >>> step(features, "document")["vector"]
        tensor([[[3.]]])

    Source: CRISP, arXiv:2505.11471 (2025): see `ragistry.encoders.reducing`.
    """

    needs = frozenset({"vector", "kept"})
    gives = frozenset({"vector", "kept"})

    def __init__(self, reducers: Mapping[Role, Reducer]) -> None:
        super().__init__()
        self.reducers = dict(reducers)

    def forward(self, features: Features, role: Role) -> Features:
        """Replace `vector` by float32 [b, g, d], and `kept` by bool [b, g]."""
        if role not in self.reducers:
            return features
        vector, kept = features["vector"], features["kept"]
        groups = torch.full(kept.shape, -1)
        for row, (tokens, real) in enumerate(zip(vector.detach(), kept, strict=True)):
            groups[row, real] = torch.from_numpy(self.reducers[role].groups(tokens[real].numpy()))
        count = int(groups.max()) + 1 if groups.numel() else 0
        members = functional.one_hot(groups + 1, count + 1)[..., 1:].to(vector.dtype)
        sizes = members.sum(dim=1)
        means = members.transpose(1, 2) @ vector / sizes.clamp(min=1).unsqueeze(-1)
        return features | {"vector": means, "kept": sizes > 0}

    def extra_repr(self) -> str:
        """The reducers."""
        return ", ".join(f"{role}: {reducer!r}" for role, reducer in sorted(self.reducers.items()))

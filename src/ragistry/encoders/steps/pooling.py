"""One vector from the vectors of a text's tokens."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor
from torch.nn import functional

from ...errors import InvalidInput
from ...types import Role
from . import Features, Step

PoolingMode: TypeAlias = Literal["mean", "cls", "last"]


class Pooling(Step):
    """Token embeddings to one vector.

    Args:
        mode: `mean` of all real tokens, `cls` for the first real token, or `last` for the last one (as for models that
            read from left to right). Padding may be on either side.

    Raises:
        InvalidInput: If the mode is none of these.

    Example:
        >>> import torch
        >>> embedding = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]]])
        >>> mask = torch.tensor([[1, 1, 0]])
        >>> Pooling("mean")({"embedding": embedding, "attention_mask": mask}, "query")["vector"]
        tensor([[2., 3.]])
    """

    needs = frozenset({"embedding", "attention_mask"})
    gives = frozenset({"vector"})

    def __init__(self, mode: PoolingMode = "mean") -> None:
        super().__init__()
        if mode not in get_args(PoolingMode):
            raise InvalidInput(f"the pooling {mode!r} is not known; use one of {', '.join(get_args(PoolingMode))}")
        self.mode = mode

    def forward(self, features: Features, role: Role) -> Features:
        """Add `vector`, float32 [b, d]."""
        embedding, mask = features["embedding"], features["attention_mask"]
        if self.mode == "mean":
            weights = mask.unsqueeze(-1).to(embedding.dtype)
            vector = (embedding * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
        else:
            vector = embedding[torch.arange(len(mask), device=mask.device), self._position(mask)]
        return features | {"vector": vector}

    def _position(self, mask: Tensor) -> Tensor:
        if self.mode == "cls":
            return mask.argmax(dim=1)
        return mask.shape[1] - 1 - mask.flip(dims=[1]).argmax(dim=1)

    def extra_repr(self) -> str:
        """The mode, which is all there is to set."""
        return self.mode


class Normalise(Step):
    """Vectors of unit length, so that a dot product is a cosine. A zero vector stays zero.

    Example:
        >>> import torch
        >>> Normalise()({"vector": torch.tensor([[3.0, 4.0]])}, "query")["vector"]
        tensor([[0.6000, 0.8000]])
    """

    needs = frozenset({"vector"})
    gives = frozenset({"vector"})

    def forward(self, features: Features, role: Role) -> Features:
        """Replace `vector` by its unit vector."""
        return features | {"vector": functional.normalize(features["vector"], dim=-1)}

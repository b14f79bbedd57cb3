"""Steps: the stages that turn a backbone's token embeddings into what an encoder returns."""

from __future__ import annotations

from typing import TypeAlias

from torch import Tensor, nn

from ...types import Role

Features: TypeAlias = dict[str, Tensor]
"""A batch on its way through an encoder.

The backbone gives `input_ids` int64 [b, t], `attention_mask` int64 [b, t] (1 for real tokens) and `embedding`
float32 [b, t, d]; steps add to these. What the last step leaves under `vector`, float32 [b, d], is the result.
"""


class Step(nn.Module):
    """One stage inside an encoder.

    A subclass says which features it reads (`needs`) and which it writes (`gives`), so that a stack with a step missing
    is refused when it is built. `extra_repr` must show every setting that changes the output: it enters the fingerprint,
    as the weights do.
    """

    needs: frozenset[str] = frozenset()
    gives: frozenset[str] = frozenset()

    def forward(self, features: Features, role: Role) -> Features:
        """The features with this step's own added or replaced."""
        raise NotImplementedError(f"{type(self).__name__} must define forward")


def lengthened(turned: Tensor, vector: Tensor) -> Tensor:
    """A changed vector turned back to the length that it had; exactly as it is where nothing changed."""
    ratio: Tensor = vector.norm(dim=-1, keepdim=True) / turned.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    return turned * ratio

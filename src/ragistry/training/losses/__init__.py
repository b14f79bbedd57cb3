"""Losses: what training makes small."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from torch import Tensor, nn
from torch.nn import functional

from ...encoders.steps import Features
from ...errors import InvalidInput

Similarity: TypeAlias = Literal["cosine", "dot"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Queries against candidates.

    Args:
        queries: Features of b queries.
        documents: Features of m documents, each once.
        relevance: float32 [b, m]: above 0 where the document answers the query, more for better; 0 elsewhere.
    """

    queries: Features
    documents: Features
    relevance: Tensor


class Loss(nn.Module):
    """One number for an encoder on a batch. An encoder is a module from features and role to features with `vector`.

    A loss may have weights of its own, which are trained with the encoder's and then dropped.
    """

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        """A scalar."""
        raise NotImplementedError(f"{type(self).__name__} must define forward")

    def after_step(self, encoder: nn.Module, step: int) -> None:
        """Called after each step of the optimiser."""


class Sum(Loss):
    """Several losses added up, each with a weight: a ranking loss and what keeps it from overfitting.

    Args:
        parts: Losses with their weights.

    Raises:
        InvalidInput: If there is none.
    """

    def __init__(self, parts: Sequence[tuple[float, Loss]]) -> None:
        super().__init__()
        if not parts:
            raise InvalidInput("no losses were given to add up; give at least one with its weight")
        self.weights = [weight for weight, _ in parts]
        self.parts = nn.ModuleList(part for _, part in parts)

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        """The weighted sum."""
        total: Tensor = sum(
            weight * part(encoder, batch) for weight, part in zip(self.weights, self.parts, strict=True)
        )
        return total

    def after_step(self, encoder: nn.Module, step: int) -> None:
        """Tell every part."""
        for part in self.parts:
            if isinstance(part, Loss):
                part.after_step(encoder, step)


def similarities(encoder: nn.Module, batch: Batch, similarity: Similarity) -> Tensor:
    """float32 [b, m].

    Raises:
        InvalidInput: If the similarity is not known.
    """
    if similarity not in get_args(Similarity):
        raise InvalidInput(f"the similarity {similarity!r} is not known; use one of {', '.join(get_args(Similarity))}")
    queries, documents = encoder(batch.queries, "query")["vector"], encoder(batch.documents, "document")["vector"]
    if similarity == "cosine":
        queries, documents = functional.normalize(queries, dim=-1), functional.normalize(documents, dim=-1)
    scores: Tensor = queries @ documents.T
    return scores

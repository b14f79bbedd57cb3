"""Embeddings that look twice, fused with words."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from ..protocols import Retriever
from ..registry import Nested, Recipe, create, recipe
from .vector_prf import Rocchio


class InterpolatedPRFRecipe(Rocchio):
    """Feedback between two fusions: words help to find what embeddings learn from, and are added to what they then find.

    Source: "To interpolate or not to interpolate", arXiv:2205.00235 (SIGIR 2022).
    """

    summary: ClassVar[str] = "words and embeddings that look twice, fused before feedback, after it, or both"
    name: Literal["interpolated-prf"] = "interpolated-prf"
    sparse: Annotated[Nested, Field(description="the retriever of words")] = Field(
        default_factory=lambda: recipe("bm25")
    )
    dense: Annotated[Nested, Field(description="the dense retriever that looks twice")] = Field(
        default_factory=lambda: recipe("dense")
    )
    position: Annotated[
        Literal["before", "after", "both"],
        Field(description="of the fusion: before feedback, with embeddings alone behind it; after it; or both"),
    ] = "both"
    weight: Annotated[float, Field(ge=0, le=1, description="of the words")] = 0.5
    feedback: Annotated[int, Field(ge=0, description="documents of the first look that count; 0: no feedback")] = 5
    depth: Annotated[int, Field(gt=0, description="how many documents of each list are fused")] = 100

    @property
    def batch(self) -> int:
        """That of the slower member."""
        return min(self.sparse.batch, self.dense.batch)

    def build(self) -> Retriever:
        """An arrangement of the members, each built by its own recipe."""
        return self._over(create(self.sparse), create(self.dense))

    def variants(self, retriever: Any) -> Iterable[tuple[Recipe, Retriever]]:
        """Every position with other weights and shares of feedback, and the fusion without feedback."""
        from ..retrievers.remembered import Remembered

        sparse, dense = Remembered(retriever.members["sparse"]), retriever.members["dense"]
        weights, feedback = (0.2, 0.4, 0.6, 0.8), self.feedback or 5  # `fit` may have turned it off before
        for weight in weights:
            yield self._with(sparse, dense, weight=weight, position="after", feedback=0)
        for position, weight, tenths in product(("before", "after", "both"), weights, (2, 4, 6)):
            change = {"position": position, "weight": weight, "feedback": feedback}
            yield self._with(sparse, dense, alpha=1 - tenths / 10, beta=tenths / 10, **change)

    def _with(self, sparse: Any, dense: Any, **change: Any) -> tuple[Recipe, Retriever]:
        other = self.model_copy(update={"mode": "rocchio", **change})
        return other, other._over(sparse, dense)

    def _over(self, sparse: Any, dense: Any) -> Retriever:
        from ..retrievers.interpolated import Interpolated

        return Interpolated(
            sparse,
            dense,
            self.expander(),
            position=self.position,
            weight=self.weight,
            feedback=self.feedback,
            depth=self.depth,
        )

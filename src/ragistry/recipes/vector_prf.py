"""Dense retrieval that looks twice."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ..protocols import Retriever
from ..registry import Nested, Recipe, create, recipe


class Rocchio(Recipe):
    """The fields that say how a query vector moves towards what was found."""

    mode: Annotated[
        Literal["rocchio", "average"],
        Field(description="average: the mean of query and documents, whatever alpha and beta"),
    ] = "rocchio"
    alpha: Annotated[float, Field(ge=0, description="of the query")] = 0.4
    beta: Annotated[float, Field(ge=0, description="of the mean of the documents; 0: no feedback")] = 0.6

    @model_validator(mode="after")
    def _something_counts(self) -> Self:
        if self.alpha == self.beta == 0:
            raise ValueError("alpha and beta are both 0, which leaves no query; give one of them")
        return self

    def expander(self) -> Any:
        """What these fields describe."""
        from ..retrievers.expanders import VectorPRF

        return VectorPRF(self.mode, self.alpha, self.beta)


class VectorPRFRecipe(Rocchio):
    """The vectors of the best documents of a first look are mixed into the query's, which is then searched with again.

    No training, and no more encoding than before: it costs one more search. It helps recall where the first documents are
    mostly right, and hurts where they are not; `fit` chooses depth and beta, no feedback being among the choices.

    Source: Vector-PRF, arXiv:2108.11044 (TOIS 41(3), 2023), with its defaults for Rocchio; for its average, `mode: average`
    and `depth: 3`.
    """

    summary: ClassVar[str] = "embeddings that look twice: the best documents found say more of what is meant"
    name: Literal["vector-prf"] = "vector-prf"
    first: Annotated[Nested, Field(description="the dense retriever that looks twice")] = Field(
        default_factory=lambda: recipe("dense")
    )
    depth: Annotated[int, Field(ge=0, description="documents of the first look that count; 0: no feedback")] = 5

    @property
    def batch(self) -> int:
        """That of the retriever that looks twice."""
        return self.first.batch

    def build(self) -> Retriever:
        """Feedback over the retriever that `first` describes."""
        return self._over(create(self.first), None)

    def variants(self, retriever: Any) -> Iterable[tuple[Recipe, Retriever]]:
        """No feedback, and other depths and shares of feedback; every first look is taken once."""
        from ..retrievers.remembered import Remembered

        none = self.model_copy(update={"depth": 0})
        yield none, none._over(retriever.searcher, None)
        looks = Remembered(retriever.searcher)
        for depth in (1, 3, 5, 10):
            for tenths in (2, 4, 6, 8):
                change = {"mode": "rocchio", "alpha": 1 - tenths / 10, "beta": tenths / 10, "depth": depth}
                other = self.model_copy(update=change)
                yield other, other._over(retriever.searcher, looks)

    def _over(self, searcher: Any, first: Any) -> Retriever:
        from ..retrievers.prf import PRF

        return PRF(searcher, self.expander(), depth=self.depth, first=first)

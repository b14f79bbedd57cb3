"""Word-based query likelihood."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from ..protocols import Retriever
from ..registry import Recipe
from .analysis import Analysed

if TYPE_CHECKING:
    from ..indexes.weighting import Weighting


class QueryLikelihoodRecipe(Analysed):
    """How likely a document's words are to produce the query, smoothed by the collection's words."""

    summary: ClassVar[str] = "how likely a document's words are to produce the query"
    name: Literal["query-likelihood"] = "query-likelihood"
    smoothing: Literal["dirichlet", "jelinek-mercer"] = "dirichlet"
    mu: Annotated[float, Field(gt=0, description="Dirichlet: weight of the collection, in words")] = 1000.0
    weight: Annotated[float, Field(gt=0, lt=1, description="Jelinek-Mercer: weight of the collection")] = 0.5

    def build(self) -> Retriever:
        """A searcher over term counts."""
        from ..indexes.inverted import Inverted
        from ..retrievers.searcher import Searcher

        return Searcher(self.terms(), Inverted(self.weighting()))

    def weighting(self) -> Weighting:
        """The weighting these fields describe."""
        from ..indexes.weighting import Dirichlet, JelinekMercer

        return Dirichlet(self.mu) if self.smoothing == "dirichlet" else JelinekMercer(self.weight)

    def variants(self, retriever: Any) -> Iterable[tuple[Recipe, Retriever]]:
        """Both smoothings at other strengths, over the same counts."""
        changes: list[dict[str, Any]] = [
            {"smoothing": "dirichlet", "mu": mu} for mu in (50.0, 200.0, 500.0, 1000.0, 2500.0)
        ]
        changes += [{"smoothing": "jelinek-mercer", "weight": weight} for weight in (0.1, 0.3, 0.5, 0.7, 0.9)]
        for change in changes:
            other = self.model_copy(update=change)
            yield other, retriever.over(retriever.index.weighted(other.weighting()))

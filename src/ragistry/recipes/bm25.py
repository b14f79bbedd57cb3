"""BM25."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from ..protocols import Retriever
from ..registry import Recipe
from .analysis import Analysed

if TYPE_CHECKING:
    from ..indexes.weighting import BM25


class BM25Recipe(Analysed):
    """Words in common, weighted by rarity: exact identifiers, names and jargon; no model, no training."""

    summary: ClassVar[str] = "words in common, weighted by rarity"
    name: Literal["bm25"] = "bm25"
    k1: Annotated[float, Field(ge=0, description="how soon repeated words stop counting")] = 1.2
    b: Annotated[float, Field(ge=0, le=1, description="how much long documents are held against")] = 0.75
    variant: Literal["robertson", "lucene", "atire", "bm25l", "bm25+"] = "lucene"
    delta: Annotated[float, Field(ge=0, description='lower bound of "bm25l" and "bm25+"')] = 0.5

    def build(self) -> Retriever:
        """A searcher over term counts."""
        from ..indexes.inverted import Inverted
        from ..retrievers.searcher import Searcher

        return Searcher(self.terms(), Inverted(self.weighting()))

    def weighting(self) -> BM25:
        """The weighting these fields describe."""
        from ..indexes.weighting import BM25

        return BM25(self.k1, self.b, self.variant, self.delta)

    def variants(self, retriever: Any) -> Iterable[tuple[Recipe, Retriever]]:
        """Other values of k1 and b, over the same counts."""
        for k1, b in product((0.6, 0.9, 1.2, 1.6, 2.0), (0.2, 0.4, 0.6, 0.75, 0.9)):
            other = self.model_copy(update={"k1": k1, "b": b})
            yield other, retriever.over(retriever.index.weighted(other.weighting()))

"""Word-based retrieval that looks twice."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from ..errors import InvalidInput
from ..protocols import Retriever
from ..registry import Nested, Recipe, create, recipe


class RM3Recipe(Recipe):
    """The words that the best documents of a first look have in common are added to the query, which is asked again.

    No model and no training. It helps recall where the first documents are mostly right, and hurts where they are not; `fit`
    chooses how much the new words count, none of them being among the choices.

    Source: relevance models, Lavrenko and Croft (SIGIR 2001), mixed with the query as in Abdul-Jaleel et al. (TREC 2004);
    the defaults are Anserini's.
    """

    summary: ClassVar[str] = "words in common that look twice: those of the best documents found are added"
    name: Literal["rm3"] = "rm3"
    first: Annotated[Nested, Field(description="bm25 or query-likelihood")] = Field(
        default_factory=lambda: recipe("bm25")
    )
    depth: Annotated[int, Field(ge=0, description="documents of the first look that count; 0: no feedback")] = 10
    terms: Annotated[int, Field(gt=0, description="words that are added")] = 10
    weight: Annotated[float, Field(ge=0, le=1, description="of the query's own words; 1: no feedback")] = 0.5
    common: Annotated[
        float | None,
        Field(
            gt=0,
            le=1,
            description="words that more than this share of documents hold (and more than `depth`) are left out; null: none",
        ),
    ] = 0.1

    def build(self) -> Retriever:
        """Feedback over the retriever that `first` describes."""
        return self._over(create(self.first), None)

    def variants(self, retriever: Any) -> Iterable[tuple[Recipe, Retriever]]:
        """No feedback, and other weights, numbers of words and depths; every first look is taken once."""
        from ..retrievers.remembered import Remembered

        none = self.model_copy(update={"depth": 0})
        yield none, none._over(retriever.searcher, None)
        looks = Remembered(retriever.searcher)
        for depth, terms, weight in product((5, 10, 20), (10, 20, 40), (0.3, 0.5, 0.7, 0.9)):
            other = self.model_copy(update={"depth": depth, "terms": terms, "weight": weight})
            yield other, other._over(retriever.searcher, looks)

    def _over(self, searcher: Any, first: Any) -> Retriever:
        from ..indexes.inverted import Inverted
        from ..indexes.weighting import LOGARITHMIC
        from ..retrievers.expanders import RM3
        from ..retrievers.prf import PRF

        index = getattr(searcher, "index", None)
        if not isinstance(index, Inverted):
            raise InvalidInput(
                f"rm3 adds words, and {self.first.name!r} searches no words; give bm25 or query-likelihood"
            )
        expander = RM3(self.terms, self.weight, likelihood=index.weighting.form == LOGARITHMIC)
        return PRF(searcher, expander, depth=self.depth, common=self.common, first=first)

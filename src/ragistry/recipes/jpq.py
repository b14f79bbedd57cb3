"""Dense retrieval by product-quantised codes whose centroids are learnt, 32 times smaller than the vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from ..protocols import Retriever
from ..registry import Lesson
from .bpr import kept
from .embedding import EmbeddingRecipe


class LearnedCentroids(EmbeddingRecipe):
    """What recipes share whose documents are product-quantised codes."""

    parts: Annotated[int | None, Field(gt=0, description="bytes for a document; null: an eighth of the dimensions")] = (
        None
    )
    rotate: Annotated[bool, Field(description="whether vectors are rotated first, which loses less")] = True
    enough: Annotated[
        int, Field(gt=0, description="documents from which on vectors are coded; fewer are searched as they are")
    ] = 9984
    temperature: Annotated[float, Field(gt=0)] = 0.05
    found: Annotated[int, Field(gt=0, description="the best by code that a query learns from")] = 200
    cutoff: Annotated[int, Field(gt=0, description="the last place whose exchange counts")] = 200
    epochs: Annotated[int | None, Field(gt=0, description="at most; null: 10, or what makes 80 steps")] = None
    learning_rate: Annotated[float, Field(gt=0, description="of the map of queries; centroids have a tenth")] = 1e-4
    size: Annotated[int, Field(gt=0, description="queries in a batch")] = 32
    seed: int = 0

    def build(self) -> Retriever:
        """A searcher over codes, with the vectors beside them to be taught from."""
        encoder = self.encoder()
        from ..indexes.quantised import Quantised
        from ..retrievers.learned_codes import LearnedCodes

        def codes() -> Quantised:
            return Quantised(self.parts, self.rotate, seed=self.seed, enough=self.enough)

        return LearnedCodes(encoder, codes, kept(self))

    def learn(self, retriever: Any, judged: Mapping[str, Mapping[str, int]], ids: Sequence[str], lesson: Lesson) -> Any:
        """Learn centroids and a map of queries, documents' codes staying as they are."""
        from ..training.compressing import Schedule, teach
        from ..training.quantising import Quantising, codec_of

        method = Quantising(
            codec_of(retriever),
            temperature=self.temperature,
            depth=self.found,
            cutoff=self.cutoff,
            schedule=Schedule(self.epochs, self.learning_rate, self.size, self.seed),
        )
        return teach(retriever, self, method, judged, ids, lesson, self.pseudo())

    def pseudo(self) -> Any:
        """What is learnt from besides pairs: nothing."""
        return None


class JPQRecipe(LearnedCentroids):
    """Documents as a few bytes, each the number of a centroid. `fit` moves the centroids, for the order they give.

    Until it is fitted it is optimised product quantisation. What `fit` learns changes no document's code. Memory holds the
    codes, 1/32 of float32; the vectors stay on disk, for `fit` alone.

    Source: JPQ, arXiv:2108.00644 (CIKM 2021). Deviations: a linear map of query vectors, in place of an encoder in training;
    what the index finds is looked up once an epoch, not at every step; see `ragistry.training.quantising`.
    """

    summary: ClassVar[str] = "an embedding model whose documents are quantised, 32 times smaller; learns from pairs"
    name: Literal["jpq"] = "jpq"

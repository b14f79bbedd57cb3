"""Dense retrieval in two steps: codes in memory find candidates, vectors on disk put them in order; both are learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from ..protocols import Retriever
from ..registry import Lesson
from .bpr import kept
from .embedding import EmbeddingRecipe


class BiDRRecipe(EmbeddingRecipe):
    """Codes find candidates and vectors, read from disk for these alone, decide. `fit` teaches one after the other.

    First the codes, by contrast; then the comparison with vectors, among what these codes find, in batches of queries that
    are near each other. Until it is fitted it is optimised product quantisation whose candidates are compared exactly.
    Memory holds the codes, 1/32 of float32.

    Source: BiDR, arXiv:2201.05409 (WWW 2022). Deviations: linear maps of query vectors, in place of two encoders in
    training, so that documents' vectors are stored once; see `ragistry.training.quantising`.
    """

    summary: ClassVar[str] = "codes in memory find candidates, vectors on disk decide; both learn from pairs"
    name: Literal["bidr"] = "bidr"
    parts: Annotated[int | None, Field(gt=0, description="bytes for a document; null: an eighth of the dimensions")] = (
        None
    )
    rotate: Annotated[bool, Field(description="whether vectors are rotated first, which loses less")] = True
    enough: Annotated[
        int, Field(gt=0, description="documents from which on vectors are coded; fewer are searched as they are")
    ] = 9984
    depth: Annotated[int, Field(gt=0, description="candidates that codes find")] = 1000
    weight: Annotated[float, Field(ge=0, description="of the codes' scores beside the vectors'")] = 0.3
    temperature: Annotated[float, Field(gt=0)] = 0.05
    distortion: Annotated[float, Field(ge=0, description="weight of how far vectors are from their codes")] = 0.0
    candidates: Annotated[
        int, Field(gt=1, description="in training; the first half are hard negatives, the others lead to near queries")
    ] = 400
    walk: Annotated[
        Literal["snow", "walk"], Field(description="snow: nearest queries first; walk: away from the beginning")
    ] = "snow"
    epochs: Annotated[int | None, Field(gt=0, description="of each stage; null: 10, or what makes 80 steps")] = None
    learning_rate: Annotated[float, Field(gt=0, description="centroids have a tenth")] = 1e-4
    size: Annotated[int, Field(gt=0, description="queries in a batch")] = 128
    seed: int = 0

    def build(self) -> Retriever:
        """A searcher over codes that compares candidates with their vectors."""
        encoder = self.encoder()
        from ..indexes.quantised import Quantised
        from ..retrievers.learned_codes import LearnedCodes

        def codes() -> Quantised:
            return Quantised(self.parts, self.rotate, seed=self.seed, enough=self.enough)

        return LearnedCodes(encoder, codes, kept(self), depth=self.depth, weight=self.weight)

    def learn(self, retriever: Any, judged: Mapping[str, Mapping[str, int]], ids: Sequence[str], lesson: Lesson) -> Any:
        """Both stages."""
        from ..training.compressing import Schedule, teach
        from ..training.quantising import TwoStage, codec_of

        schedule = Schedule(self.epochs, self.learning_rate, self.size, self.seed)
        method = TwoStage(
            codec_of(retriever),
            temperature=self.temperature,
            distortion=self.distortion,
            candidates=self.candidates,
            order=self.walk,
            depth=self.depth,
            weight=self.weight,
            coarse=schedule,
            fine=schedule,
        )
        return teach(retriever, self, method, judged, ids, lesson)

"""Dense retrieval that looks twice, with a query encoder that reads what the first look found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from ..protocols import Retriever
from ..registry import Lesson, require
from .embedding import EmbeddingRecipe


class AncePRFRecipe(EmbeddingRecipe):
    """The query is encoded again with the text of the best documents behind it, by an encoder that `fit` teaches to.

    Until it is fitted it ranks as `dense` does, exactly, and looks once. Then every query costs a second encoding, of a text
    some times as long, and a second search. Documents are never encoded again: `fit` trains a copy of the query's encoder
    alone, towards the vectors that are there, and keeps it only if held-out queries are better for it.

    Source: ANCE-PRF, arXiv:2108.13454 (CIKM 2021). Deviations: fewer epochs at a higher rate, and negatives from the nearest
    200 in place of 1,000, as there are hundreds of pairs and not hundreds of thousands. `tests/reproduction/prf.py` measures
    it.
    """

    summary: ClassVar[str] = "embeddings that look twice: the query is read again with the best documents found"
    name: Literal["ance-prf"] = "ance-prf"
    depth: Annotated[int, Field(ge=0, description="documents of the first look that are read; 0: none")] = 3
    length: Annotated[int, Field(gt=0, description="characters of each of them")] = 400
    negatives: Annotated[int, Field(gt=0, description="wrong documents that a query learns from in an epoch")] = 20
    pool: Annotated[int, Field(gt=0, description="nearest wrong documents that they are drawn from")] = 200
    size: Annotated[int, Field(gt=0, description="queries in a batch")] = 16
    temperature: Annotated[float, Field(gt=0)] = 0.05
    epochs: Annotated[int, Field(gt=0)] = 3
    learning_rate: Annotated[float, Field(gt=0)] = 2e-5
    tune: Annotated[Literal["full", "lora"], Field(description="what of the query's encoder is trained")] = "full"
    rank: Annotated[int, Field(gt=0, description="of LoRA")] = 16
    seed: int = 0

    def build(self) -> Retriever:
        """A searcher over embeddings that can be taught to read feedback."""
        encoder = self.encoder()  # first: it says which extra is missing
        from ..retrievers.searcher import Searcher
        from ..retrievers.text_feedback import Rereading

        return Rereading(Searcher(encoder, self.empty()), depth=self.depth, length=self.length)

    def learn(self, retriever: Any, judged: Mapping[str, Mapping[str, int]], ids: Sequence[str], lesson: Lesson) -> Any:
        """Teach the query's encoder, from pairs."""
        require("torch", "dense")
        require("transformers", "dense")
        from ..training.feedback import Feeding, teach

        settings = Feeding(
            negatives=self.negatives,
            pool=self.pool,
            size=self.size,
            temperature=self.temperature,
            epochs=self.epochs,
            rate=self.learning_rate,
            tune=self.tune,
            rank=self.rank,
            seed=self.seed,
        )
        return teach(retriever, self, settings, judged, ids, lesson)

"""Dense retrieval by a language model that was taught what documents are asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from ..protocols import Encoder, Retriever
from ..registry import Lesson, require
from ..types import Role
from .embedding import EmbeddingRecipe


class LLMQLRecipe(EmbeddingRecipe):
    """A language model as an embedding model: the place of a text's last token is its vector.

    `fit` teaches it in two stages: first to say how likely each query is, given what the last place of its document holds
    and nothing else of it (Attention Stop), with some words of the document hidden (Input Corruption); then to put queries
    near their documents. The second stage alone is tried beside both, and all documents are encoded again: minutes on a
    laptop for some hundreds of pairs. Until it is fitted a model that is none of embeddings ranks badly. A model that
    reads in both directions, as the default one, is made to read from left to right.

    Source: LLM-QL, arXiv:2504.05216 (2025); `tests/reproduction/llm_ql.py` measures its parts.
    """

    summary: ClassVar[str] = "a language model taught what documents are asked, as an embedding model"
    name: Literal["llm-ql"] = "llm-ql"
    made: Annotated[
        int, Field(ge=0, description="pairs made of the documents' titles and first sentences, for the first stage")
    ] = 2000
    likelihood_epochs: Annotated[int, Field(ge=0, description="of the first stage; 0: none")] = 1
    likelihood_rate: Annotated[float, Field(gt=0, description="the learning rate of the first stage")] = 2e-4
    stop: Annotated[bool, Field(description="Attention Stop: queries see a document's last place only")] = True
    corruption: Annotated[
        float, Field(ge=0, le=1, description="share of a document's words hidden in the first stage")
    ] = 0.45
    length: Annotated[int, Field(gt=1, description="tokens of a document that the first stage reads")] = 128
    epochs: Annotated[int, Field(ge=0, description="of the second stage")] = 3
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    size: Annotated[int, Field(gt=0, description="queries in a batch")] = 32
    temperature: Annotated[float, Field(gt=0)] = 0.05
    negatives: Annotated[
        Literal["in-batch", "judged", "mined", "corpus"],
        Field(description="in-batch: answers of the batch's other queries; mined: besides, the nearest wrong ones"),
    ] = "in-batch"
    tune: Annotated[Literal["auto", "full", "lora"], Field(description="auto: lora above 300 million weights")] = "auto"
    rank: Annotated[int, Field(gt=0, description="of LoRA")] = 32
    seed: int = 0

    def encoder(self) -> Encoder:
        """The model, reading from left to right, with a cache if there is a file for it."""
        require("faiss", "dense")
        require("torch", "dense")
        require("transformers", "dense")
        from ..encoders.cached import Cached
        from ..encoders.causal import Causal
        from ..encoders.named import WITHOUT_TORCH, refuse
        from ..encoders.stack import Stack
        from ..encoders.steps.pooling import Normalise, Pooling

        given = {"url": self.url is not None, "dimensions": self.dimensions is not None}
        given |= {"runtime": self.runtime in WITHOUT_TORCH}
        given |= {"requests_per_minute": self.requests_per_minute is not None, "pooling": self.pooling is not None}
        refuse(given, f"the retriever {self.name!r}, whose model is trained here,")
        backbone = Causal(self.model)
        layout = backbone.layout()
        prompts: dict[Role, str] = dict(layout.prompts)
        if self.query_prompt is not None:
            prompts["query"] = self.query_prompt
        if self.document_prompt is not None:
            prompts["document"] = self.document_prompt
        stack = Stack(
            backbone,
            [Pooling("last"), Normalise()],
            prompts=prompts,
            max_length=self.max_length or layout.max_length,
            precision=self.precision,
        )
        return Cached(stack, self.cache) if self.cache else stack

    def build(self) -> Retriever:
        """A searcher over embeddings whose model can be trained."""
        require("torch", "dense")
        from ..retrievers.retrained import Retrained

        return Retrained(self.encoder(), self.empty)

    def learn(self, retriever: Any, judged: Mapping[str, Mapping[str, int]], ids: Sequence[str], lesson: Lesson) -> Any:
        """Both stages, from pairs and documents."""
        from ..training.language import Schooling, teach

        settings = Schooling(
            made=self.made,
            likelihood_epochs=self.likelihood_epochs,
            likelihood_rate=self.likelihood_rate,
            stop=self.stop,
            corruption=self.corruption,
            length=self.length,
            epochs=self.epochs,
            rate=self.learning_rate,
            size=self.size,
            temperature=self.temperature,
            negatives=self.negatives,
            tune=self.tune,
            rank=self.rank,
            seed=self.seed,
        )
        return teach(retriever, self, settings, judged, ids, lesson)

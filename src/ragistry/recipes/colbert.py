"""Retrieval by late interaction: every word of a question looks for its like in a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from ..protocols import Encoder, Index, Retriever
from ..registry import Lesson, Recipe, require
from ..types import Role

if TYPE_CHECKING:
    from ..encoders.reducing import Reducer


class LateInteraction(Recipe):
    """A model that gives texts a vector for each token, and an index for them."""

    model: Annotated[
        str, Field(description="a multi-vector model, or any transformer: its name, or the path of a local folder")
    ] = "all-MiniLM-L6-v2"
    dimension: Annotated[
        int | None, Field(gt=0, description="of a vector; less is smaller and coarser; null: the model's own")
    ] = None
    query_prompt: Annotated[str | None, Field(description="put before queries; null: the model's own")] = None
    document_prompt: Annotated[str | None, Field(description="put before documents; null: the model's own")] = None
    query_length: Annotated[int | None, Field(gt=0, description="in tokens; null: the model's own")] = None
    document_length: Annotated[int | None, Field(gt=0, description="in tokens; null: the model's own")] = None
    expansion: Annotated[
        int | None,
        Field(ge=0, description="tokens to which mask tokens lengthen queries; 0: none; null: the model's own"),
    ] = None
    skip_punctuation: Annotated[
        bool | None, Field(description="whether marks in documents have no vectors; null: the model's own")
    ] = None
    precision: Annotated[
        Literal["auto", "fp32", "bf16"], Field(description="auto: bf16 where the processor is faster with it")
    ] = "auto"
    stored: Annotated[Literal["fp32", "fp16", "int8"], Field(description="the precision of vectors in the index")] = (
        "fp16"
    )
    epochs: Annotated[int, Field(ge=0, description="of training by `fit`; 0: never trained")] = 3
    learning_rate: Annotated[float, Field(gt=0)] = 2e-5
    size: Annotated[int, Field(gt=0, description="queries in a batch")] = 32
    temperature: Annotated[float, Field(gt=0)] = 1.0
    negatives: Annotated[
        Literal["in-batch", "judged", "mined"],
        Field(description="judged: documents that answer other queries; mined: the nearest wrong ones"),
    ] = "mined"
    tune_documents: Annotated[bool, Field(description="documents learn as well, and are encoded again")] = False
    tune: Annotated[Literal["full", "lora"], Field(description="lora: fewer weights, for large models")] = "full"
    rank: Annotated[int, Field(gt=0, description="of LoRA")] = 16
    seed: int = 0

    @property
    def batch(self) -> int:
        """A few seconds' work for a model on a laptop, and some hundred megabytes of vectors."""
        return 256

    def reducers(self) -> Mapping[Role, Reducer]:
        """What leaves fewer vectors of a text, by role; nothing here."""
        return {}

    def encoder(self) -> Encoder:
        """The model."""
        require("faiss", "dense")
        require("torch", "dense")
        require("transformers", "dense")
        from ..encoders.multi import token_stack
        from ..encoders.token_layout import PUNCTUATION

        given: dict[Role, str | None] = {"query": self.query_prompt, "document": self.document_prompt}
        skipped = None if self.skip_punctuation is None else PUNCTUATION if self.skip_punctuation else ()
        return token_stack(
            self.model,
            dimension=self.dimension,
            reducers=self.reducers(),
            prompts={role: prompt for role, prompt in given.items() if prompt is not None},
            query_length=self.query_length,
            document_length=self.document_length,
            expansion=self.expansion,
            skipped=skipped,
            precision=self.precision,
            seed=self.seed,
        )

    def empty(self) -> Index:
        """An index without vectors."""
        from ..indexes.maxsim import MaxSim

        return MaxSim(precision=self.stored)

    def build(self) -> Retriever:
        """A searcher over vectors of tokens, whose model can be trained."""
        encoder = self.encoder()
        from ..retrievers.token_tuned import TokenTuned

        return TokenTuned(encoder, self.empty, documents=self.tune_documents)

    def learn(self, retriever: Any, judged: Mapping[str, Mapping[str, int]], ids: Sequence[str], lesson: Lesson) -> Any:
        """Train the model on pairs, if it is to be trained at all."""
        if not self.epochs:
            return None
        from ..training.matching import Matching, teach

        settings = Matching(
            epochs=self.epochs,
            rate=self.learning_rate,
            size=self.size,
            temperature=self.temperature,
            negatives=self.negatives,
            documents=self.tune_documents,
            tune=self.tune,
            rank=self.rank,
            seed=self.seed,
        )
        return teach(retriever, self, settings, judged, ids, lesson)


class ColBERTRecipe(LateInteraction):
    """Retrieval by late interaction: a text has a vector for each token, and each of a query's looks for its nearest.

    Finer than one vector for a text, where several conditions must meet in one document, at many times the memory. Any
    embedding model will do untrained; a multi-vector model saved by sentence-transformers or PyLate is used as its makers
    meant it. `fit` trains the model for queries alone, so that no document is encoded again; `tune_documents` trains it for
    both.

    Source: ColBERT, arXiv:2004.12832 (SIGIR 2020). Deviations: what `fit` leaves alone, as above; no expansion of queries
    and no projection, unless the model has them or they are asked for; a projection is not trained.
    """

    summary: ClassVar[str] = "every word of a question looks for its like in a document (late interaction)"
    name: Literal["colbert"] = "colbert"

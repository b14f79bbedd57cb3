"""Dense retrieval with a text-embedding model."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ..protocols import Encoder, Retriever
from ..registry import Recipe, require
from ..types import Role


class DenseRecipe(Recipe):
    """Nearness of meaning, by an embedding model: paraphrases and questions that share no word with their answer."""

    summary: ClassVar[str] = "nearness of meaning, by an embedding model"
    name: Literal["dense"] = "dense"
    model: Annotated[str, Field(description="a model's name, or the path of a local folder")] = "all-MiniLM-L6-v2"
    pooling: Annotated[
        Literal["mean", "cls", "last"] | None, Field(description="null: as the model's own configuration says")
    ] = None
    query_prompt: Annotated[str | None, Field(description="put before queries; null: the model's own")] = None
    document_prompt: Annotated[str | None, Field(description="put before documents; null: the model's own")] = None
    max_length: Annotated[int | None, Field(gt=0, description="in tokens; null: the model's own")] = None
    precision: Annotated[
        Literal["auto", "fp32", "bf16"], Field(description="auto: bf16 where the processor is faster with it")
    ] = "auto"
    index: Annotated[str, Field(description="a faiss factory string: Flat, HNSW32, IVF256,Flat, SQ8, PQ48, ...")] = (
        "Flat"
    )
    probes: Annotated[int | None, Field(gt=0, description="lists an IVF index looks into")] = None
    ef: Annotated[int | None, Field(gt=0, description="candidates an HNSW index keeps while searching")] = None
    cache: Annotated[
        str | None, Field(description="a file that keeps embeddings by content, to be shared between collections")
    ] = None

    @property
    def batch(self) -> int:
        """A few seconds' work for a model on a laptop."""
        return 512

    def build(self) -> Retriever:
        """A searcher over embeddings."""
        require("torch", "dense")
        require("transformers", "dense")
        require("faiss", "dense")
        from ..encoders.backbones import stack
        from ..encoders.cached import Cached
        from ..indexes.faiss import Faiss
        from ..retrievers.searcher import Searcher

        prompts: dict[Role, str | None] = {"query": self.query_prompt, "document": self.document_prompt}
        encoder: Encoder = stack(
            self.model,
            pooling=self.pooling,
            prompts={role: prompt for role, prompt in prompts.items() if prompt is not None},
            max_length=self.max_length,
            precision=self.precision,
        )
        if self.cache:
            encoder = Cached(encoder, self.cache)
        return Searcher(encoder, Faiss(self.index, probes=self.probes, ef=self.ef))

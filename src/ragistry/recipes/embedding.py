"""What recipes over a text-embedding model share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ..protocols import Encoder, Index
from ..registry import Recipe, require


class EmbeddingRecipe(Recipe):
    """An embedding model and an index for its vectors."""

    model: Annotated[
        str, Field(description="a model's name, the path of a local folder, or a name given to `register_encoder`")
    ] = "all-MiniLM-L6-v2"
    url: Annotated[
        str | None, Field(description="of a service that speaks OpenAI's protocol; `model` is then its name there")
    ] = None
    dimensions: Annotated[int | None, Field(gt=0, description="asked of the service; null: the model's own")] = None
    requests_per_minute: Annotated[float | None, Field(gt=0, description="the most that the service allows")] = None
    pooling: Annotated[
        Literal["mean", "cls", "last"] | None, Field(description="null: as the model's own configuration says")
    ] = None
    query_prompt: Annotated[str | None, Field(description="put before queries; null: the model's own")] = None
    document_prompt: Annotated[str | None, Field(description="put before documents; null: the model's own")] = None
    max_length: Annotated[int | None, Field(gt=0, description="in tokens; null: the model's own")] = None
    precision: Annotated[
        Literal["auto", "fp32", "bf16"], Field(description="auto: bf16 where the processor is faster with it")
    ] = "auto"
    runtime: Annotated[
        Literal["auto", "torch", "onnx", "onnx-int8", "openvino"],
        Field(
            description="auto: without torch where the model was exported and is faster so; onnx-int8: other vectors"
        ),
    ] = "auto"
    index: Annotated[
        str,
        Field(description="auto; Flat, exact; or another faiss factory string: HNSW32, IVF256,Flat, SQ8, PQ48, ..."),
    ] = "auto"
    probes: Annotated[int | None, Field(gt=0, description="lists an IVF index looks into")] = None
    ef: Annotated[int | None, Field(gt=0, description="candidates an HNSW index keeps while searching")] = None
    cache: Annotated[
        str | None, Field(description="a file that keeps embeddings by content, to be shared between collections")
    ] = None

    @property
    def batch(self) -> int:
        """A few seconds' work for a model on a laptop."""
        return 512

    def encoder(self) -> Encoder:
        """The embedding model, with a cache if there is a file for it."""
        require("faiss", "dense")
        from ..encoders.cached import Cached
        from ..encoders.named import encoder

        found = encoder(
            self.model,
            url=self.url,
            dimensions=self.dimensions,
            requests_per_minute=self.requests_per_minute,
            pooling=self.pooling,
            query_prompt=self.query_prompt,
            document_prompt=self.document_prompt,
            max_length=self.max_length,
            precision=self.precision,
            runtime=self.runtime,
        )
        return Cached(found, self.cache) if self.cache else found

    def empty(self) -> Index:
        """An index without vectors."""
        from ..indexes.faiss import Faiss

        return Faiss(self.index, probes=self.probes, ef=self.ef)

"""An encoder of Ragistry as an embedding model of LlamaIndex."""

from __future__ import annotations

import asyncio
from typing import Any, Self, cast

from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding
from llama_index.core.bridge.pydantic import BaseModel, Field
from llama_index.core.callbacks.base import CallbackManager

from ragistry.errors import InvalidInput
from ragistry.protocols import Encoder, Searchable
from ragistry.types import Floats, Role

from .vectors import encoder_of


class RagistryEmbedding(BaseEmbedding):
    """Embeds with any dense encoder: queries as queries, texts as documents, many at a time, and off the event loop.

    Serialised (`to_dict`, `to_payload`), it is its name and settings, without the model. Pickled, it takes the encoder with
    it, which not every encoder allows.

    An `embeddings_cache` of LlamaIndex goes by text alone: do not give one where the encoder treats queries in another way,
    and do not share one between models.

    Args:
        encoder: Dense; also one of yours, or what `Collection.fit` learnt.
        model_name: Tells the model from others, also to LlamaIndex's ingestion cache; by default the encoder's name and
            fingerprint.
        embed_batch_size: The most texts that the encoder is given at once, up to 2,048; it has batches of its own within.
        callback_manager, num_workers, embeddings_cache, rate_limiter: LlamaIndex's.

    Raises:
        InvalidInput: If the encoder is none, or not dense.

    Example:
        >>> from ragistry.encoders.functions import Function
        >>> embedding = RagistryEmbedding(Function(lambda texts: [[3.0, 4.0] for _ in texts], "constant"))
        >>> [round(value, 2) for value in embedding.get_query_embedding("anything")]
        [0.6, 0.8]
    """

    encoder: Any = Field(exclude=True, repr=False)

    def __init__(
        self,
        encoder: Encoder,
        *,
        model_name: str | None = None,
        embed_batch_size: int = 256,
        callback_manager: CallbackManager | None = None,
        num_workers: int | None = None,
        embeddings_cache: Any = None,
        rate_limiter: Any = None,
    ) -> None:
        if not isinstance(encoder, Encoder) or encoder.kind != "dense":
            given = f"{type(encoder).__name__} of kind {getattr(encoder, 'kind', None)!r}"
            raise InvalidInput(f"{given} was given; an encoder of kind 'dense' is needed")
        settings: dict[str, Any] = {
            "encoder": encoder,
            "model_name": _name(encoder) if model_name is None else model_name,
            "embed_batch_size": embed_batch_size,
            "callback_manager": callback_manager or CallbackManager([]),
            "num_workers": num_workers,
            "embeddings_cache": embeddings_cache,
            "rate_limiter": rate_limiter,
        }
        super().__init__(**settings)

    @classmethod
    def of(cls, collection: Searchable) -> Self:
        """What encodes a collection's queries and texts, with what it was taught, for an index of your own.

        What a collection remembers of single documents (`ragistry.retrievers.adapted.Memory`) is no part of it. Its vectors
        are not to be given to a `RagistryRetriever` of a taught collection, which would turn them twice.

        Raises:
            InvalidInput: If the collection is not searched with one dense vector.
        """
        return cls(encoder_of(collection))

    @classmethod
    def class_name(cls) -> str:
        """The name in serialised forms."""
        return "RagistryEmbedding"

    def __getstate__(self) -> dict[str, Any]:
        """What pydantic pickles. LlamaIndex would first pickle every part to see whether it can, and drop what cannot."""
        return BaseModel.__getstate__(self)

    def __setstate__(self, state: dict[Any, Any]) -> None:
        BaseModel.__setstate__(self, state)

    def _encoded(self, texts: list[str], role: Role) -> list[Embedding]:
        vectors: list[Embedding] = cast(Floats, self.encoder.encode(texts, role)).tolist()
        return vectors

    def _get_query_embedding(self, query: str) -> Embedding:
        return self._encoded([query], "query")[0]

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return await asyncio.to_thread(self._get_query_embedding, query)

    def _get_text_embedding(self, text: str) -> Embedding:
        return self._encoded([text], "document")[0]

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return await asyncio.to_thread(self._get_text_embedding, text)

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return self._encoded(texts, "document")

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)


def _name(encoder: Encoder) -> str:
    name = getattr(encoder, "name", None)
    return f"{name if isinstance(name, str) else type(encoder).__name__} {encoder.fingerprint()[:12]}"

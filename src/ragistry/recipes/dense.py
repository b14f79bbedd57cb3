"""Dense retrieval with a text-embedding model."""

from __future__ import annotations

from typing import ClassVar, Literal

from ..protocols import Retriever
from .embedding import EmbeddingRecipe


class DenseRecipe(EmbeddingRecipe):
    """Nearness of meaning, by an embedding model: paraphrases and questions that share no word with their answer."""

    summary: ClassVar[str] = "nearness of meaning, by an embedding model"
    name: Literal["dense"] = "dense"

    def build(self) -> Retriever:
        """A searcher over embeddings."""
        from ..retrievers.searcher import Searcher

        return Searcher(self.encoder(), self.empty())

"""Adaptation without training: documents, or a second index, remember the queries that they answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from ..protocols import Retriever
from ..registry import Lesson
from .embedding import EmbeddingRecipe


class PefaXSRecipe(EmbeddingRecipe):
    """One index: each document moves towards the mean of the queries it answered. `fit` fills it and trains nothing.

    Source: PEFA-XS, arXiv:2312.02429 (WSDM 2024). Deviation: documents keep their length (`keep_length=False` is the
    paper's, in which documents without examples shrink).
    """

    summary: ClassVar[str] = "an embedding model whose documents remember the queries they answered; no training"
    name: Literal["pefa-xs"] = "pefa-xs"
    share: Annotated[float, Field(gt=0, le=1, description="of the document itself, lambda in the paper")] = 0.5
    keep_length: Annotated[bool, Field(description="false: as in the paper")] = True

    def build(self) -> Retriever:
        """A searcher over embeddings that can be taught."""
        from ..indexes.faiss import Faiss
        from ..retrievers.adapted import Adapted

        return Adapted(self.encoder(), self.empty, Faiss)

    def learn(self, retriever: Any, judged: Mapping[str, Mapping[str, int]], ids: Sequence[str], lesson: Lesson) -> Any:
        """Move documents towards their queries."""
        from ..training.remembering import move_documents

        return move_documents(retriever, self, judged, ids, lesson, share=self.share, keep_length=self.keep_length)


class PefaXLRecipe(EmbeddingRecipe):
    """Two indexes: of documents, and of the queries that `fit` was given, whose answers lend their score; no training.

    Source: PEFA-XL, arXiv:2312.02429 (WSDM 2024).
    """

    summary: ClassVar[str] = "an embedding model beside an index of queries with known answers; no training"
    name: Literal["pefa-xl"] = "pefa-xl"
    share: Annotated[float, Field(ge=0, le=1, description="of the document's own score, lambda in the paper")] = 0.5
    neighbours: Annotated[int, Field(gt=0, description="how many known queries are looked at")] = 32

    def build(self) -> Retriever:
        """A searcher that also asks the queries it knows."""
        from ..indexes.faiss import Faiss
        from ..retrievers.neighbours import Neighbours

        return Neighbours(self.encoder(), self.empty(), Faiss(), share=self.share, neighbours=self.neighbours)

    def learn(self, retriever: Any, judged: Mapping[str, Mapping[str, int]], ids: Sequence[str], lesson: Lesson) -> Any:
        """Keep the queries with their answers."""
        from ..training.remembering import keep_queries

        return keep_queries(retriever, self, judged, ids, lesson)

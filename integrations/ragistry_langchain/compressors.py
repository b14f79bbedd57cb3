"""A scorer as LangChain's document compressor."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict, Field, field_validator

from ragistry.errors import InvalidInput
from ragistry.protocols import Scorer
from ragistry.retrievers.rerank import scores_of

from .documents import taken


class RagistryReranker(BaseDocumentCompressor):
    """Puts documents in the order that a scorer gives them for the query; of equal ones the first stays first.

    Args:
        scorer: Such as `ragistry.scorers.query_likelihood.QueryLikelihood`. It reads `page_content`; a document without an
            id goes by its position.
        top_n: How many are kept; by default all.
        score_key: The key of the metadata under which documents get their scores; by default they get none.

    Raises:
        pydantic.ValidationError: If there is no such field, or a value does not fit.
        InvalidInput: From calls, if the scorer does not give one finite score for each document.

    Example:
        >>> class Brevity:
        ...     def score(self, query, documents):
        ...         return np.array([-len(document.text) for document in documents], np.float32)
        >>> reranker = RagistryReranker(scorer=Brevity(), top_n=1, score_key="relevance_score")
        >>> reranker.compress_documents([Document("fourteen lines"), Document("three")], "how many?")
        [Document(metadata={'relevance_score': -5.0}, page_content='three')]
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    scorer: Any = Field(exclude=True)
    top_n: int | None = Field(None, ge=1)
    score_key: str | None = None

    @field_validator("scorer", mode="before")
    @classmethod
    def _scores(cls, scorer: Any) -> Any:
        if isinstance(scorer, type) or not isinstance(scorer, Scorer):
            raise InvalidInput(f"{scorer!r:.100} was given; an object with a method `score` is needed")
        return scorer

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Copies of the documents, best first; `acompress_documents` does the same in a thread."""
        if not documents:
            return []
        items = [
            taken(document, str(number) if document.id is None else document.id)
            for number, document in enumerate(documents)
        ]
        scores = scores_of(self.scorer, query, items)
        order = np.argsort(-scores, kind="stable").tolist()[: self.top_n]
        return [self._scored(documents[place], float(scores[place])) for place in order]

    def _scored(self, document: Document, score: float) -> Document:
        metadata = deepcopy(document.metadata)
        if self.score_key is not None:
            metadata[self.score_key] = score
        return document.model_copy(update={"metadata": metadata})

"""A scorer of Ragistry as a node postprocessor of LlamaIndex."""

from __future__ import annotations

from typing import Any

import numpy as np
from llama_index.core.bridge.pydantic import BaseModel, Field
from llama_index.core.callbacks.base import CallbackManager
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle

from ragistry.errors import InvalidInput
from ragistry.protocols import Scorer
from ragistry.retrievers.rerank import scores_of

from .documents import document_of


class RagistryRerank(BaseNodePostprocessor):
    """Orders nodes by a scorer that reads query and text together, and keeps the best.

    Titles (`metadata["title"]`) and texts are read. Scores are the scorer's own; equal ones keep the order of before. The
    nodes that were given stay as they are: what comes back are others, around the same texts.

    Args:
        scorer: Such as `ragistry.scorers.query_likelihood.QueryLikelihood`.
        top_n: How many nodes at most.
        callback_manager: LlamaIndex's.

    Raises:
        InvalidInput: If it is no scorer, or `top_n` below 1. From a call, if there is no query, or a score is not finite.

    Example:
        >>> from llama_index.core.schema import TextNode
        >>> class Brevity:
        ...     def score(self, query, documents):
        ...         return np.array([-len(document.text) for document in documents], np.float32)
        >>> nodes = [NodeWithScore(node=TextNode(text="a sonnet, a sonnet")), NodeWithScore(node=TextNode(text="a sonnet"))]
        >>> [found.text for found in RagistryRerank(Brevity(), top_n=1).postprocess_nodes(nodes, query_str="sonnet")]
        ['a sonnet']
    """

    scorer: Any = Field(exclude=True, repr=False)
    top_n: int

    def __init__(self, scorer: Scorer, *, top_n: int = 5, callback_manager: CallbackManager | None = None) -> None:
        if not isinstance(scorer, Scorer):
            raise InvalidInput(f"{type(scorer).__name__} has no method `score`; give a Scorer")
        if not isinstance(top_n, int) or top_n < 1:
            raise InvalidInput(f"top_n={top_n!r:.100}; give a whole number of 1 or more")
        settings: dict[str, Any] = {"scorer": scorer, "top_n": top_n}
        super().__init__(callback_manager=callback_manager or CallbackManager([]), **settings)

    @classmethod
    def class_name(cls) -> str:
        """The name in serialised forms."""
        return "RagistryRerank"

    def __getstate__(self) -> dict[str, Any]:
        """What pydantic pickles. LlamaIndex would first pickle every part to see whether it can, and drop what cannot."""
        return BaseModel.__getstate__(self)

    def __setstate__(self, state: dict[Any, Any]) -> None:
        BaseModel.__setstate__(self, state)

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise InvalidInput("no query was given; nodes are scored for one: give query_str or query_bundle")
        if not nodes:
            return []
        scores = scores_of(self.scorer, query_bundle.query_str, [document_of(node) for node in nodes])
        best = np.argsort(-scores, kind="stable")[: self.top_n].tolist()
        return [NodeWithScore(node=nodes[i].node, score=float(scores[i])) for i in best]

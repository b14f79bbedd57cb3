"""Hits put in order by how likely a language model finds the query, given each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from ..protocols import Retriever
from ..registry import Nested, Recipe, create, recipe, require


class QLRerankRecipe(Recipe):
    """The best hits of another retriever, read by a language model: how likely is it that this text is asked this?

    Each document is read once, and kept on disk if there is a folder for it; a query then costs only its own few tokens for
    each hit. `fit` chooses from pairs how much the language model counts. With one that was taught what documents are asked
    (`ragistry.training.language`) it says more than with one that was not.

    Source: UPR, arXiv:2204.07496; arXiv:2310.13243; LLM-QL, arXiv:2504.05216, for `attention: stop`.
    """

    summary: ClassVar[str] = "hits put in order by how likely a language model finds the query, given each"
    name: Literal["ql-rerank"] = "ql-rerank"
    first: Annotated[Nested, Field(description="the retriever whose hits are put in order")] = Field(
        default_factory=lambda: recipe("bm25")
    )
    model: Annotated[
        str, Field(description="a causal or encoder-decoder language model: a folder, or a name on the hub")
    ] = "google/flan-t5-small"
    prompt: Annotated[
        str, Field(description="upr, llm-qlm, llm-ql, plain, or a text that holds {document} where it belongs")
    ] = "upr"
    reduce: Literal["mean", "sum"] = "mean"
    attention: Annotated[
        Literal["full", "stop"],
        Field(description="stop: queries see one position of a document; for causal models that learnt so"),
    ] = "full"
    ends: Annotated[bool, Field(description="whether the end of a query counts as one of its tokens")] = False
    depth: Annotated[int, Field(gt=0, description="hits that are read")] = 100
    weight: Annotated[
        float,
        Field(ge=0, le=1, description="of the language model; 0.8 suits large ones, and `fit` chooses it"),
    ] = 0.5
    budget_ms: Annotated[
        float | None, Field(ge=0, description="for each query; hits not read by then follow in their own order")
    ] = None
    document_tokens: Annotated[int, Field(gt=0, description="of a document that are read, at most")] = 256
    query_tokens: Annotated[int, Field(gt=0, description="of a query that count, at most")] = 64
    cache: Annotated[str | None, Field(description="a folder that keeps what was read of documents")] = None
    cache_mb: Annotated[float, Field(gt=0, description="the most that folder takes, in millions of bytes")] = 1000.0
    precision: Annotated[
        Literal["auto", "fp32", "bf16"], Field(description="auto: bf16 where the processor is faster with it")
    ] = "auto"

    @property
    def batch(self) -> int:
        """That of the retriever it puts in order."""
        return self.first.batch

    def build(self) -> Retriever:
        """A reranker over the retriever that `first` describes."""
        require("torch", "dense")
        require("transformers", "dense")
        from ..retrievers.rerank import Rerank
        from ..scorers.language_model import LanguageModel
        from ..scorers.prefixes import Prefixes
        from ..scorers.query_likelihood import QueryLikelihood

        scorer = QueryLikelihood(
            LanguageModel(self.model, precision=self.precision),
            prompt=self.prompt,
            reduce=self.reduce,
            attention=self.attention,
            ends=self.ends,
            document_tokens=self.document_tokens,
            query_tokens=self.query_tokens,
            kept=None if self.cache is None else Prefixes(self.cache, megabytes=self.cache_mb),
        )
        return Rerank(create(self.first), scorer, depth=self.depth, weight=self.weight, budget_ms=self.budget_ms)

    def variants(self, retriever: Any) -> Iterable[tuple[Recipe, Retriever]]:
        """Other weights, from the first retriever alone to the language model alone; every pair is scored once."""
        for tenths in range(11):
            yield self.model_copy(update={"weight": tenths / 10}), retriever.weighted(tenths / 10)

"""Learned sparse retrieval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from ..protocols import Retriever
from ..registry import Lesson, Recipe, require


class LexiconRecipe(Recipe):
    """Words in common, to which a model that `fit` teaches adds words that a text could have held.

    Until it is fitted it is BM25 over the word pieces of the model, exactly, and needs no model to index or search. `fit`
    learns from pairs, and from queries made of the documents, which words to add to documents and queries and with what
    weight; an inverted index serves them as before. All documents are encoded again, by the model: minutes on a laptop for
    some thousands. With `queries="words"` the model is asked about documents alone, so that no query waits for it.

    A published SPLADE model, by its name on the hub or its folder, is used as it is with `start="model"`.

    Source: SPLADE, arXiv:2107.05720 (2021); LexLIP, arXiv:2302.02908 (2023), for the text side of the same;
    `tests/reproduction/lexicon.py` measures it.
    """

    summary: ClassVar[str] = "words in common, and words that a model learns to add, in an inverted index"
    name: Literal["lexicon"] = "lexicon"
    model: Annotated[
        str, Field(description="a model's name or the path of a local folder; with start=model, a SPLADE model")
    ] = "all-MiniLM-L6-v2"
    start: Annotated[
        Literal["words", "model"],
        Field(description="words: BM25 until `fit`; model: the weights that the model's own masked-LM head gives"),
    ] = "words"
    queries: Annotated[
        Literal["model", "words"],
        Field(description="words: the model is asked about documents only, and a query is its own words"),
    ] = "model"
    terms: Annotated[int | None, Field(gt=0, description="the most that a document keeps; null: all")] = 256
    query_terms: Annotated[int | None, Field(gt=0, description="the most that a query keeps; null: all")] = 64
    max_length: Annotated[int | None, Field(gt=0, description="in tokens; null: the model's own")] = None
    precision: Annotated[
        Literal["auto", "fp32", "bf16"], Field(description="auto: bf16 where the processor is faster with it")
    ] = "auto"
    candidates: Annotated[int, Field(gt=0, description="terms that may be added; with start=model all may")] = 4096
    tune: Annotated[
        Literal["none", "lora", "full"], Field(description="whether the model itself is trained beside its head")
    ] = "none"
    rank: Annotated[int, Field(gt=0, description="of LoRA")] = 16
    negatives: Annotated[int, Field(ge=0, description="nearest wrong documents that each query learns from")] = 2
    length: Annotated[int, Field(gt=2, description="tokens of a document that are read in training")] = 128
    size: Annotated[int, Field(gt=0, description="queries in a batch")] = 32
    temperature: Annotated[float, Field(gt=0)] = 1.0
    query_flops: Annotated[float, Field(ge=0, description="how much it costs that queries have many terms")] = 1e-3
    document_flops: Annotated[float, Field(ge=0, description="the same of documents")] = 1e-3
    epochs: Annotated[int, Field(gt=0)] = 3
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    tuning_rate: Annotated[float, Field(gt=0, description="of the model's own weights")] = 5e-5
    made: Annotated[int, Field(ge=0, description="queries made from the documents, to learn from beside the pairs")] = (
        1000
    )
    seed: int = 0

    @property
    def batch(self) -> int:
        """A few seconds' work for a model on a laptop, or for none."""
        return 512

    def build(self) -> Retriever:
        """A searcher over word pieces."""
        require("safetensors", "dense")
        from ..encoders.lexical import Lexical
        from ..retrievers.expanded import Expanded

        return Expanded(
            Lexical(
                self.model,
                start=self.start,
                queries=self.queries,
                terms={"query": self.query_terms, "document": self.terms},
                max_length=self.max_length,
                precision=self.precision,
            )
        )

    def learn(self, retriever: Any, judged: Mapping[str, Mapping[str, int]], ids: Sequence[str], lesson: Lesson) -> Any:
        """Learn which words to add, from pairs and documents."""
        require("torch", "dense")
        require("transformers", "dense")
        from ..training.lexicalising import Lexicalising, teach

        settings = Lexicalising(
            candidates=self.candidates,
            tune=self.tune,
            rank=self.rank,
            negatives=self.negatives,
            length=self.length,
            size=self.size,
            temperature=self.temperature,
            query_flops=self.query_flops,
            document_flops=self.document_flops,
            epochs=self.epochs,
            rate=self.learning_rate,
            tune_rate=self.tuning_rate,
            made=self.made,
            seed=self.seed,
        )
        return teach(retriever, self, settings, judged, ids, lesson)

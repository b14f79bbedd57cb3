"""Adapted dense retrieval: an embedding model's vectors, turned by what a few hundred pairs teach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from ..protocols import Retriever
from ..registry import Lesson
from .embedding import EmbeddingRecipe

RANKS = (32, 128)
"""Tried by `rank="auto"`, besides the full map."""
ENOUGH = 3000
"""Queries from which on the harder temperature is better (nl2bash dev, held-out parts of conala's train)."""


class AdderRecipe(EmbeddingRecipe):
    """Dense retrieval that `fit` teaches your task: a small map over frozen vectors, nothing is encoded again.

    Until it is fitted it ranks as `dense` does, exactly. Source: ADDER, arXiv:2310.05380 (2023), with `form="softmax"` and
    `loss="triplet"`, `negatives="corpus"`. The defaults are what did better on held-out training data: a full linear map on
    both sides, a softmax over documents that have examples, a memory of the queries that documents answered, and no
    advantage for documents with examples over those without (`tests/reproduction/adder.py` measures them).
    """

    summary: ClassVar[str] = "an embedding model that learns your task from pairs, in seconds"
    name: Literal["adder"] = "adder"
    form: Annotated[
        Literal["linear", "softmax"], Field(description="v + BAv (or v + Wv), or v + softmax(Kv)'V, a small dictionary")
    ] = "linear"
    rank: Annotated[
        int | Literal["full", "auto"],
        Field(description="of the map; full: W; auto: rank, form, side, loss are chosen by cross-validation"),
    ] = "full"
    side: Annotated[
        Literal["query", "both", "shared"],
        Field(description="query: documents stay as they are; both: a map for each; shared: one map for both"),
    ] = "both"
    loss: Literal["softmax", "triplet", "logistic"] = "softmax"
    temperature: Annotated[
        float | None,
        Field(gt=0, description="of softmax and logistic; null: 0.1 for few queries, 0.05 for 3,000 and more"),
    ] = None
    margin: Annotated[float, Field(ge=0, description="of triplet")] = 0.1
    negatives: Annotated[
        Literal["judged", "corpus", "mined", "in-batch"],
        Field(description="judged: documents that answer other queries; corpus: all; mined: the nearest wrong ones"),
    ] = "judged"
    recovery: Annotated[float, Field(ge=0, description="weight of staying near the embedding (Search-Adaptor)")] = 0.0
    prediction: Annotated[float, Field(ge=0, description="weight of predicting queries (Search-Adaptor)")] = 0.0
    memory: Annotated[
        bool, Field(description="whether documents may move towards the queries they answered; not with side=query")
    ] = True
    epochs: Annotated[int | None, Field(gt=0, description="at most; null: 10, or what makes 80 steps")] = None
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    seed: int = 0

    @model_validator(mode="after")
    def _rank_suits(self) -> AdderRecipe:
        if isinstance(self.rank, int) and self.rank < 1:
            raise ValueError(f"rank is {self.rank}; a positive number, full or auto is needed")
        if self.form == "softmax" and self.rank == "full":
            raise ValueError("form=softmax needs a rank, the size of its dictionary, such as 64")
        return self

    def build(self) -> Retriever:
        """A searcher over embeddings that can be taught."""
        from ..indexes.faiss import Faiss
        from ..retrievers.adapted import Adapted

        return Adapted(self.encoder(), self.empty, Faiss)

    def learn(self, retriever: Any, judged: Mapping[str, Mapping[str, int]], ids: Sequence[str], lesson: Lesson) -> Any:
        """Learn a map and a memory from pairs."""
        from ..training.teaching import teach

        return teach(retriever, self, self.settings(len(judged)), judged, ids, lesson)

    def settings(self, queries: int) -> list[Any]:
        """What is tried for so many queries: one, or with `rank="auto"` several."""
        from ..training.adapting import Settings

        temperature = self.temperature or (0.05 if queries >= ENOUGH else 0.1)
        given = Settings(
            form=self.form,
            rank=self.rank if isinstance(self.rank, int) else None,
            side=self.side,
            loss=self.loss,
            temperature=temperature,
            margin=self.margin,
            negatives=self.negatives,
            recovery=self.recovery,
            prediction=self.prediction,
            remember=self.memory,
            epochs=self.epochs,
            rate=self.learning_rate,
            seed=self.seed,
        )
        if self.rank != "auto":
            return [given]
        from dataclasses import replace

        linear = replace(given, form="linear", rank=None)
        return [
            replace(linear, side="both"),
            replace(linear, side="query"),
            *(replace(linear, side="both", rank=rank) for rank in RANKS),
            replace(linear, side="both", loss="triplet"),
            replace(linear, side="both", form="softmax", rank=128),
        ]

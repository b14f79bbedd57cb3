"""Token-aware augmentation: dense retrieval that keeps its keywords."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from ..protocols import Retriever
from ..registry import Lesson
from .embedding import EmbeddingRecipe


class LexSemBridgeRecipe(EmbeddingRecipe):
    """Dense retrieval that `fit` teaches to see the words of a text: rare terms, identifiers, parts word for word.

    Until it is fitted it ranks as `dense` does, exactly. By default vectors of queries and documents get a projection of
    their own tokens, weighted by rarity, added to them: a hybrid of words and meaning in one vector of the same size, for
    which no document is encoded again; the pairs choose how strongly. Training the projection as well (`epochs`) found
    unseen documents no better. `form="gate"`, `side="query"` is the paper's: the query's vector times a gate.

    Source: LexSemBridge, arXiv:2508.17858 (2025); `tests/reproduction/lexsembridge.py` measures all of them.
    """

    summary: ClassVar[str] = "an embedding model that keeps the keywords of texts, in vectors of the same size"
    name: Literal["lexsembridge"] = "lexsembridge"
    paradigm: Annotated[
        Literal["slr", "llr", "clr"],
        Field(description="weights of a query's tokens: statistical; learnt; contextual, by a masked-LM head"),
    ] = "slr"
    form: Annotated[
        Literal["sum", "gate"], Field(description="sum: tokens are added to the vector; gate: they multiply it")
    ] = "sum"
    side: Annotated[
        Literal["query", "document", "both", "shared"],
        Field(description="whose vectors change; shared: both, by one matrix; query: documents stay bit for bit"),
    ] = "shared"
    strength: Annotated[
        float, Field(gt=0, description="of a sum before training; shares of it from 0.5 to 1 are tried")
    ] = 0.7
    tune: Annotated[
        Literal["none", "lora", "full"], Field(description="whether the model that encodes queries is trained as well")
    ] = "none"
    tune_documents: Annotated[bool, Field(description="with tune: documents learn as well, and are encoded again")] = (
        False
    )
    rank: Annotated[int, Field(gt=0, description="of LoRA")] = 16
    negatives: Annotated[
        Literal["judged", "in-batch", "mined", "corpus"],
        Field(description="judged: documents that answer other queries; mined: the nearest wrong ones; corpus: all"),
    ] = "judged"
    temperature: Annotated[float, Field(gt=0)] = 0.02
    epochs: Annotated[
        int | None,
        Field(ge=0, description="0: from the documents' statistics alone; null: 0 for a sum with tune=none, else 3"),
    ] = None
    learning_rate: Annotated[float, Field(gt=0)] = 3e-3
    tuning_rate: Annotated[float, Field(gt=0, description="of the model's own weights")] = 1e-4
    made: Annotated[int, Field(ge=0, description="queries made from the documents, to learn from beside the pairs")] = (
        4000
    )
    seed: int = 0

    def build(self) -> Retriever:
        """A searcher over embeddings that can be taught."""
        from ..indexes.faiss import Faiss
        from ..retrievers.augmented import Augmented

        return Augmented(self.encoder(), self.empty, Faiss)

    def learn(self, retriever: Any, judged: Mapping[str, Mapping[str, int]], ids: Sequence[str], lesson: Lesson) -> Any:
        """Learn a bridge from pairs and documents."""
        from ..training.bridging import Bridging, teach

        untrained = self.form == "sum" and self.tune == "none"
        settings = Bridging(
            paradigm=self.paradigm,
            form=self.form,
            side=self.side,
            strength=self.strength,
            tune=self.tune,
            tune_documents=self.tune_documents,
            rank=self.rank,
            negatives=self.negatives,
            temperature=self.temperature,
            epochs=self.epochs if self.epochs is not None else 0 if untrained else 3,
            rate=self.learning_rate,
            tune_rate=self.tuning_rate,
            made=self.made,
            seed=self.seed,
        )
        return teach(retriever, self, settings, judged, ids, lesson)

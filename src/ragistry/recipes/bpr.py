"""Dense retrieval by learnt bits, 32 times smaller than the vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from ..protocols import Index, Retriever
from ..registry import Lesson
from .embedding import EmbeddingRecipe


def kept(recipe: EmbeddingRecipe) -> Callable[[], Index]:
    """Makes the index that keeps vectors as encoded beside their codes.

    Raises:
        InvalidInput: If the recipe asks for another index: that of its codes is its own.
    """
    from ..encoders.named import refuse
    from ..indexes.faiss import Faiss

    given = {"index": recipe.index != "auto", "probes": recipe.probes is not None, "ef": recipe.ef is not None}
    refuse(given, f"the retriever {recipe.name!r}, which searches codes of its own,")
    return Faiss


class LearnedBits(EmbeddingRecipe):
    """What recipes share whose documents are bits: one for each dimension of the embedding, a multiple of 8."""

    depth: Annotated[
        int, Field(gt=0, description="documents that bits alone propose; the query's numbers put them in order")
    ] = 1000
    temperature: Annotated[float, Field(gt=0)] = 0.05
    margin: Annotated[float, Field(ge=0, description="between codes, in which a bit counts 2")] = 2.0
    growth: Annotated[float, Field(ge=0, description="how fast tanh grows into a sign")] = 0.1
    smooth: Annotated[Literal["tanh", "straight-through"], Field(description="what is trained in place of a sign")] = (
        "tanh"
    )
    negatives: Annotated[
        Literal["judged", "corpus", "mined", "in-batch"],
        Field(description="judged: documents that answer other queries; corpus: all; mined: the nearest wrong ones"),
    ] = "judged"
    epochs: Annotated[int | None, Field(gt=0, description="at most; null: 10, or what makes 80 steps")] = None
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    size: Annotated[int, Field(gt=0, description="queries in a batch")] = 128
    seed: int = 0

    def build(self) -> Retriever:
        """A searcher over bits, with the vectors beside them to be taught from."""
        encoder = self.encoder()
        from ..indexes.binary import Binary
        from ..retrievers.learned_codes import LearnedCodes

        return LearnedCodes(encoder, lambda: Binary(self.depth), kept(self))

    def learn(self, retriever: Any, judged: Mapping[str, Mapping[str, int]], ids: Sequence[str], lesson: Lesson) -> Any:
        """Learn a map of queries and one of documents whose signs are the bits."""
        from ..training.compressing import Schedule, teach
        from ..training.hashing import Hashing

        method = Hashing(
            temperature=self.temperature,
            margin=self.margin,
            growth=self.growth,
            smooth=self.smooth,
            negatives=self.negatives,
            schedule=Schedule(self.epochs, self.learning_rate, self.size, self.seed),
        )
        return teach(retriever, self, method, judged, ids, lesson, self.pseudo())

    def pseudo(self) -> Any:
        """What is learnt from besides pairs: nothing."""
        return None


class BPRRecipe(LearnedBits):
    """Documents as bits: Hamming distance proposes, the query's own numbers decide. `fit` learns which bits.

    Until it is fitted the bits are the signs of the embedding. Memory holds the bits, 1/32 of float32; the vectors stay on
    disk, for `fit` alone.

    Source: BPR, arXiv:2106.00882 (ACL 2021). Deviations: linear maps over the vectors of an encoder that stays as it is, so
    that nothing is encoded again; see `ragistry.training.hashing`.
    """

    summary: ClassVar[str] = "an embedding model whose documents are bits, 32 times smaller; learns which from pairs"
    name: Literal["bpr"] = "bpr"

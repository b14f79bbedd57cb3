"""Dense retrieval with vectors kept as short codes, which nothing is trained for."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from ..protocols import Index, Retriever
from .embedding import EmbeddingRecipe


class CompressedRecipe(EmbeddingRecipe):
    """Dense retrieval in a fraction of the memory: codes of vectors, and with `rescore` the vectors themselves on disk.

    With `rescore` the ranking is nearly that of `dense`, as the codes only choose a shortlist, the vectors of which are read
    from disk. Without, nothing of the vectors is kept but codes. `opq`, `pq` and `pca` learn their codes from the first
    documents; as long as there are fewer than `enough`, vectors stay whole, in memory.

    Source: the baselines that BPR (arXiv:2106.00882), JPQ (arXiv:2108.00644) and INCOME (arXiv:2205.11498) compare with;
    coarse-to-fine as in BiDR (arXiv:2201.05409).
    """

    summary: ClassVar[str] = "dense in a 32nd of the memory: codes find a shortlist, vectors on disk decide"
    name: Literal["compressed"] = "compressed"
    codes: Annotated[
        Literal["opq", "pq", "sign", "pca", "fp16"],
        Field(
            description="opq: a byte for several dimensions, after a rotation; pq: without one; sign: a bit a dimension; "
            "pca: principal dimensions in half precision; fp16: all of them"
        ),
    ] = "opq"
    bytes: Annotated[
        int | None,
        Field(
            gt=0, description="for a vector; opq, pq: a divisor of its dimension, null: an eighth; pca: even, needed"
        ),
    ] = None
    rescore: Annotated[bool, Field(description="whether vectors on disk decide the order of the shortlist")] = True
    depth: Annotated[
        int, Field(gt=0, description="of the shortlist; for sign without rescore: how many are ranked")
    ] = 1000
    weight: Annotated[float, Field(description="of the codes' score, added to the vectors' own by rescore")] = 0.0
    enough: Annotated[int, Field(gt=0, description="documents that opq, pq and pca learn from, at least")] = 9_984
    seed: Annotated[int, Field(ge=0, description="of opq and pq")] = 0
    index: Annotated[Literal["auto"], Field(description="not to be set: it is said by `codes`")] = "auto"
    probes: Annotated[None, Field(description="not to be set")] = None
    ef: Annotated[None, Field(description="not to be set")] = None

    @model_validator(mode="after")
    def _bytes_suit(self) -> CompressedRecipe:
        if self.codes in ("sign", "fp16") and self.bytes is not None:
            raise ValueError(f"codes={self.codes} has its own size, by the dimension; leave bytes out")
        if self.codes == "pca" and (self.bytes is None or self.bytes % 2):
            raise ValueError("codes=pca needs bytes, two for each dimension that is kept, such as 48")
        return self

    def build(self) -> Retriever:
        """A searcher over embeddings."""
        from ..retrievers.searcher import Searcher

        return Searcher(self.encoder(), self.empty())

    def empty(self) -> Index:
        """An index without vectors."""
        if not self.rescore:
            return self.coarse()
        from ..indexes.faiss import Faiss
        from ..indexes.tiered import Tiered

        return Tiered(self.coarse(), Faiss("Flat"), self.depth, self.weight)

    def coarse(self) -> Index:
        """An empty index of codes."""
        from ..indexes.binary import Binary
        from ..indexes.quantised import Quantised
        from ..indexes.reduced import Reduced

        if self.codes == "sign":
            # Hamming distance is rougher than the score by which the shortlist is then chosen.
            return Binary(4 * self.depth if self.rescore else self.depth)
        if self.codes in ("pca", "fp16"):
            return Reduced(self.bytes // 2 if self.bytes else None, enough=self.enough)
        return Quantised(self.bytes, rotate=self.codes == "opq", seed=self.seed, enough=self.enough)

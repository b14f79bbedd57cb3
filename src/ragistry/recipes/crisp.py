"""Late interaction with fewer vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from ..types import Role
from .colbert import LateInteraction

if TYPE_CHECKING:
    from ..encoders.reducing import Reducer


class CRISPRecipe(LateInteraction):
    """Late interaction whose texts have fewer vectors: means of clusters of their tokens.

    Several times smaller and faster than `colbert`, and coarser: of MiniLM as it is, 32 vectors in place of 176 kept 90 % of
    nDCG@10 on Cranfield, and two thirds of recall on LIMIT, where every word counts. The clusters are there while the model
    is trained, just as they are afterwards; with `epochs=0` they reduce what a model gives as it is.

    Source: CRISP, arXiv:2505.11471 (2025), whose best is 8 clusters of a query and 32 of a document;
    `tests/reproduction/crisp.py` measures its reducers. Deviations: by default queries keep their tokens, as they are not
    stored; there, a model is trained without clusters first: give the folder of one as `model` for that.
    """

    summary: ClassVar[str] = "late interaction with a few vectors for each text, means of clusters of its tokens"
    name: Literal["crisp"] = "crisp"
    method: Annotated[
        Literal["fixed", "relative", "tail", "spacing"],
        Field(
            description="fixed: so many clusters; relative: a share of the tokens; tail: the last; spacing: every n-th"
        ),
    ] = "fixed"
    query_size: Annotated[
        float | None, Field(gt=0, description="of the method, for queries; null: all their tokens")
    ] = None
    document_size: Annotated[
        float | None, Field(gt=0, description="of the method, for documents; null: all their tokens")
    ] = 32

    def reducers(self) -> Mapping[Role, Reducer]:
        """One for each role with a size."""
        from ..encoders.reducing import Reducer

        sizes: dict[Role, float | None] = {"query": self.query_size, "document": self.document_size}
        return {role: Reducer(self.method, size, self.seed) for role, size in sizes.items() if size is not None}

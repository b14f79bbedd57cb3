"""Learnt codes for documents that nobody has asked about: queries are made from them, and a teacher scores answers."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from ..registry import Recipe, require
from .bpr import LearnedBits
from .jpq import LearnedCentroids


class FromDocuments(Recipe):
    """What recipes share that also learn from queries made from documents."""

    labels: Annotated[
        Literal["gpl", "genq"],
        Field(description="gpl: of made queries, a teacher's scores are learnt; genq: that their document answers"),
    ] = "gpl"
    made: Annotated[int, Field(ge=0, description="queries made from documents, at most")] = 2000
    mined: Annotated[int, Field(gt=0, description="wrong answers for each, by the embedding and by BM25 each")] = 8
    generator: Annotated[
        str | None,
        Field(
            description="a language model that has learnt to ask, and writes the queries: a folder, or a name on the hub; "
            "null: they are taken from the documents' own words"
        ),
    ] = None
    teacher: Annotated[
        str | None,
        Field(
            description="a language model by whose query likelihood answers are scored; null: the embedding itself, "
            "uncompressed"
        ),
    ] = None
    prompt: Annotated[
        str, Field(description="of both: upr, llm-qlm, llm-ql, plain, or a text that holds {document} where it belongs")
    ] = "upr"
    seed: int = 0

    def pseudo(self) -> Any:
        """What is learnt from besides pairs."""
        from ..training.pseudo import Pseudo

        return Pseudo(
            labels=self.labels,
            made=self.made,
            negatives=self.mined,
            generator=self._likelihood(self.generator),
            teacher=self._likelihood(self.teacher),
            seed=self.seed,
        )

    def _likelihood(self, model: str | None) -> Any:
        if model is None:
            return None
        require("transformers", "dense")
        from ..scorers.language_model import LanguageModel
        from ..scorers.query_likelihood import QueryLikelihood

        return QueryLikelihood(LanguageModel(model), prompt=self.prompt)


class IncomeBPRRecipe(FromDocuments, LearnedBits):
    """`bpr` that also learns from the documents themselves, which a model trained on others' questions has never seen.

    Source: INCOME, arXiv:2205.11498: BPR with GenQ or GPL. Deviations: see `ragistry.training.pseudo`.
    """

    summary: ClassVar[str] = "documents as bits that also learn from the documents themselves"
    name: Literal["income-bpr"] = "income-bpr"


class IncomeJPQRecipe(FromDocuments, LearnedCentroids):
    """`jpq` that also learns from the documents themselves, which a model trained on others' questions has never seen.

    Source: INCOME, arXiv:2205.11498: JPQ with GenQ or GPL. Deviations: see `ragistry.training.pseudo`.
    """

    summary: ClassVar[str] = "quantised documents that also learn from the documents themselves"
    name: Literal["income-jpq"] = "income-jpq"

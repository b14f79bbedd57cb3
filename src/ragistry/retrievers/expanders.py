"""What a first look at the best documents makes of a query: Rocchio's vectors, RM3's words, or a text that is read again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast, get_args

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInput
from ..protocols import Encoder, Feedback
from ..types import Document, Floats, Ints, Kind, Query, Vectors

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Mode: TypeAlias = Literal["rocchio", "average"]


class VectorPRF:
    """Moves a dense query vector towards the documents found: alpha q + beta mean(d), or with "average" the mean of all.

    The average over k documents is Rocchio's with alpha = 1 / (k + 1) and beta = k / (k + 1). Nothing is trained, and the
    result is not scaled to unit length, which would change scores but no order. Without feedback, and with beta = 0, the
    query stays as it was.

    Args:
        mode: "rocchio" or "average"; the latter ignores alpha and beta.
        alpha: Of the query, >= 0.
        beta: Of the mean of the documents, >= 0.

    Raises:
        InvalidInput: If the mode is not known, a number is out of range, or both numbers are 0.

    Example:
        >>> found = Feedback([], np.array([[0, 1], [0, 3]], np.float32), np.array([2, 1], np.float32))
        >>> VectorPRF(alpha=1.0, beta=0.5).expand("any", np.array([[1, 0]], np.float32), found)
        array([[1., 1.]], dtype=float32)

    Source: Vector-PRF, arXiv:2108.11044 (TOIS 41(3), 2023); Rocchio (1971), without his term of documents that are wrong.
    """

    kind: Kind = "dense"

    def __init__(self, mode: Mode = "rocchio", alpha: float = 0.4, beta: float = 0.6) -> None:
        if mode not in get_args(Mode):
            raise InvalidInput(f"mode={mode!r:.100} is not known; known: {', '.join(get_args(Mode))}")
        if not all(isinstance(n, int | float) and 0 <= n < float("inf") for n in (alpha, beta)) or alpha + beta == 0:
            raise InvalidInput(f"alpha={alpha!r:.100}, beta={beta!r:.100}; give finite numbers >= 0, not both 0")
        self.mode, self.alpha, self.beta = mode, float(alpha), float(beta)

    def expand(self, query: Query, vector: Vectors, feedback: Feedback) -> Floats:
        """The query vector [1, d] to search with next, float32 [1, d]."""
        own, found = cast(Floats, vector), cast(Floats, feedback.vectors)
        if not len(found) or (self.mode == "rocchio" and self.beta == 0):
            return own
        if self.mode == "average":
            alpha, beta = 1 / (len(found) + 1), len(found) / (len(found) + 1)
        else:
            alpha, beta = self.alpha, self.beta
        mean = found.mean(axis=0, dtype=np.float64)
        moved: Floats = (alpha * own.astype(np.float64) + beta * mean).astype(np.float32)
        return moved


class TextPRF:
    """Has the query encoded again, with the documents found behind it: what the words of all of them ask for together.

    The encoder must have learnt to read such texts (see `ragistry.training.feedback`): an untaught one makes them vectors of
    the documents more than of the query. Without feedback the text is the query's own. An encoder cuts texts at their end,
    so what does not fit is of the last documents, and never of the query.

    Args:
        encoder: Of queries with feedback; the documents' vectors stay those of the index.
        separator: Put between query and documents: a token that ends texts, in the model's own spelling.
        length: Characters of each document that are read.

    Raises:
        InvalidInput: If the encoder is not dense, or the length is not positive.

    Example:
        >>> from ragistry.encoders.functions import Function
        >>> from ragistry.types import Document
        >>> longer = TextPRF(Function(lambda texts: [[len(text), 1] for text in texts], "length"), " [SEP] ", length=8)
        >>> longer.text("lines", [Document("1", "fourteen lines"), Document("2", "cat")])
        'lines [SEP] fourteen [SEP] cat'

    Source: ANCE-PRF, arXiv:2108.13454 (CIKM 2021), section 3. Deviation: documents are cut at a number of characters, so
    that the first one leaves room for others (there, passages are short).
    """

    kind: Kind = "dense"

    def __init__(self, encoder: Encoder, separator: str, length: int = 400) -> None:
        if encoder.kind != "dense":
            raise InvalidInput(f"{type(encoder).__name__} makes {encoder.kind} vectors; give a dense encoder")
        if not isinstance(length, int) or length < 1:
            raise InvalidInput(f"length={length!r:.100}; give a whole number of 1 or more")
        self.encoder, self.separator, self.length = encoder, separator, length

    def expand(self, query: Query, vector: Vectors, feedback: Feedback) -> Floats:
        """The vector [1, d] of query and documents together, float32 [1, d]."""
        if not len(feedback.documents):
            return cast(Floats, vector)
        return cast(Floats, self.encoder.encode([self.text(query, feedback.documents)], "query"))

    def text(self, query: Query, documents: Sequence[Document]) -> str:
        """What is encoded."""
        return self.separator.join([query, *(document.full_text[: self.length] for document in documents)])


class RM3:
    """Adds the words of the documents found to a query of words: a relevance model, mixed with the query.

    The model gives a word the sum over documents of its share in the document times the document's weight; its best
    `terms` are kept. Query and model, each made to sum to 1, are mixed. Without feedback, and with weight = 1, the query
    stays as it was.

    Args:
        terms: How many words the model keeps.
        weight: Of the query itself, from 0 (the model alone) to 1 (the query alone).
        likelihood: Whether scores are logarithms of P(query | document), as those of query likelihood are up to a constant:
            a document then weighs as much as it is likely to be meant. Otherwise it weighs its score.

    Raises:
        InvalidInput: If a number is out of range.

    Example:
        >>> from scipy.sparse import csr_array
        >>> query, found = csr_array([[1.0, 0.0, 0.0]]), csr_array([[2.0, 0.0, 6.0], [0.0, 1.0, 1.0]])
        >>> RM3(terms=2).expand("any", query, Feedback([], found, np.array([3, 1], np.float32))).toarray()
        array([[0.60714287, 0.        , 0.39285713]], dtype=float32)

    Source: Lavrenko and Croft, "Relevance-based language models" (SIGIR 2001), model 1; Abdul-Jaleel et al. (TREC 2004) for
    the mixture, with Anserini's defaults. Deviations: documents' words are not smoothed by the collection's, and all of
    them count for a word's share, where Anserini keeps the `terms` most frequent of each document.
    """

    kind: Kind = "sparse"

    def __init__(self, terms: int = 10, weight: float = 0.5, likelihood: bool = False) -> None:
        if not isinstance(terms, int) or terms < 1:
            raise InvalidInput(f"terms={terms!r:.100}; give a whole number of 1 or more")
        if not isinstance(weight, int | float) or not 0 <= weight <= 1:
            raise InvalidInput(f"weight={weight!r:.100}; give a number from 0 (feedback alone) to 1 (the query alone)")
        self.terms, self.weight, self.likelihood = terms, float(weight), likelihood

    def expand(self, query: Query, vector: Vectors, feedback: Feedback) -> csr_array:
        """The query [1, columns] to search with next, a CSR array of the same shape."""
        from scipy.sparse import csr_array

        own: Any = vector
        columns, weights = self._model(feedback)
        if self.weight == 1 or not len(columns):
            return own
        amounts = own.data.astype(np.float64)
        amounts *= self.weight / (amounts.sum() or 1.0)
        every, places = np.unique(np.concatenate([own.indices, columns]), return_inverse=True)
        mixed = np.bincount(places, np.concatenate([amounts, (1 - self.weight) * weights])).astype(np.float32)
        return csr_array((mixed, every, np.array([0, len(every)])), shape=own.shape)

    def _model(self, feedback: Feedback) -> tuple[Ints, npt.NDArray[np.float64]]:
        """The words with the largest weight, and their weights, which sum to 1; equal ones in the order of columns."""
        found: Any = feedback.vectors
        rows = np.repeat(np.arange(found.shape[0]), np.diff(found.indptr))
        counts = found.data.astype(np.float64)
        lengths = np.bincount(rows, counts, minlength=found.shape[0])
        columns, places = np.unique(found.indices, return_inverse=True)
        shares = counts * self._documents(feedback.scores)[rows] / np.where(lengths > 0, lengths, 1.0)[rows]
        weights = np.bincount(places, shares, minlength=len(columns))
        best = np.lexsort((columns, -weights))[: self.terms]
        best = best[weights[best] > 0]
        return columns[best], weights[best] / (weights[best].sum() or 1.0)

    def _documents(self, scores: Floats) -> npt.NDArray[np.float64]:
        """What each document weighs."""
        given = scores.astype(np.float64)
        if self.likelihood:
            return np.exp(given - given.max(initial=-np.inf)) if len(given) else given
        positive = np.maximum(given, 0.0)
        return positive if positive.any() else np.ones_like(positive)

"""Losses that learn from a teacher's scores."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from ...errors import InvalidInput
from . import Batch, Loss, Similarity, similarities


class MarginMSE(Loss):
    """By how much a teacher prefers an answer to another document, so much shall the encoder: the squared difference.

    ((s_p - s_n) - (t_p - t_n))^2 over the documents that the teacher scored for a query: p answers it, n does not. What is
    added to all of a query's labels changes nothing.

    Args:
        labels: The teacher's scores by row, CSR [queries, documents]: what is not stored is unknown, a stored 0 is a score.
            Batches say with the feature `row`, int64, which queries and documents they hold.
        scale: Multiplies the encoder's similarities, so that they have the teacher's unit.
        similarity: Of the vectors.

    Raises:
        InvalidInput: If a label is not finite, or the scale not above 0.

    Source: Hofstätter et al., arXiv:2010.02666, equation 2; GPL, arXiv:2112.07577, equation 3. Deviation: the scale.
    """

    def __init__(self, labels: csr_array, scale: float = 1.0, similarity: Similarity = "dot") -> None:
        super().__init__()
        if not np.isfinite(labels.data).all() or not 0 < scale < math.inf:
            raise InvalidInput("a teacher's score or the scale is not finite and above 0; check the teacher")
        self.labels = csr_array(labels, dtype=np.float32)
        known = np.ones_like(self.labels.data)
        self.known = csr_array((known, self.labels.indices, self.labels.indptr), shape=self.labels.shape)
        self.scale = scale
        self.similarity: Similarity = similarity

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        """The mean over pairs that the teacher scored; 0 where it scored none."""
        scores = self.scale * similarities(encoder, batch, self.similarity)
        queries, documents = batch.queries["row"].numpy(), batch.documents["row"].numpy()
        taught, known = (
            torch.from_numpy(found[queries][:, documents].toarray()) for found in (self.labels, self.known)
        )
        rows, columns = torch.nonzero((known > 0) & (batch.relevance > 0), as_tuple=True)
        others = known[rows] * (batch.relevance[rows] <= 0)
        wanted = taught[rows, columns][:, None] - taught[rows]
        found = scores[rows, columns][:, None] - scores[rows]
        mean: Tensor = ((found - wanted).pow(2) * others).sum() / others.sum().clamp(min=1)
        return mean


class Divided(Loss):
    """One loss for the queries that a teacher has labelled, another for those that have nothing but their pairs.

    Args:
        labelled: Rows of queries, bool [queries]; batches say with the feature `row` which they hold.
        taught: For those that are labelled.
        plain: For the others.
    """

    def __init__(self, labelled: np.typing.NDArray[np.bool_], taught: Loss, plain: Loss) -> None:
        super().__init__()
        self.labelled, self.taught, self.plain = torch.from_numpy(labelled), taught, plain

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        """Their mean, by the number of queries."""
        mine = self.labelled[batch.queries["row"]]
        total = torch.zeros(())
        for loss, chosen in ((self.taught, mine), (self.plain, ~mine)):
            if chosen.any():
                some = {name: value[chosen] for name, value in batch.queries.items()}
                part = loss(encoder, Batch(some, batch.documents, batch.relevance[chosen]))
                total = total + part * chosen.float().mean()
        return total

    def after_step(self, encoder: nn.Module, step: int) -> None:
        """Tell both."""
        self.taught.after_step(encoder, step)
        self.plain.after_step(encoder, step)

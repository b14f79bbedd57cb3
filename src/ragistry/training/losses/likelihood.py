"""The loss of a language model that is taught what documents are asked."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from . import Batch, Loss


class Likelihood(Loss):
    """-log p(query | document), the mean over the tokens of queries, each with its best document of the batch.

    Nothing of the document and no padding counts, whatever token is used for it.

    Args:
        stop: Whether a query sees only the token that ends its document's part (Attention Stop).
        smoothing: Share of each token that is not asked of it, but of all tokens alike.

    Source: LLM-QL, arXiv:2504.05216, section 3. Deviation: its code has the document's own tokens in the sum as well.
    """

    def __init__(self, stop: bool = False, smoothing: float = 0.0) -> None:
        super().__init__()
        self.stop, self.smoothing = stop, smoothing

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        """A scalar; `encoder` must have `log_likelihoods`, as `Speaking` has."""
        best, columns = batch.relevance.max(dim=1)
        rows = torch.nonzero(best > 0)[:, 0].tolist()
        prefixes = [_tokens(batch.documents, int(columns[row])) for row in rows]
        targets = [_tokens(batch.queries, row) for row in rows]
        kept = [i for i, target in enumerate(targets) if target]
        if not kept:
            return torch.zeros((), requires_grad=True)
        found = cast(Any, encoder).log_likelihoods(
            [prefixes[i] for i in kept], [targets[i] for i in kept], stop=self.stop, smoothing=self.smoothing
        )
        return -torch.cat(found).mean()


def _tokens(features: Any, row: int) -> list[int]:
    ids, mask = features["input_ids"][row], features["attention_mask"][row]
    return cast("list[int]", ids[mask > 0].tolist())

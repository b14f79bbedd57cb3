"""Weights over a vocabulary, by a masked-LM head: a text as the words that it holds or could have held."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...errors import InvalidInput
from ...types import Floats, Role
from . import Features, Step

CELLS = 1 << 24
"""Logits that are there at once: the places of some texts times the vocabulary."""
QUIET = 2.0
"""After `start`, a term is heard where it is so many standard deviations louder than in the mean document."""
SLOPE = 0.1
"""Of the gradient that a silent term gets, beside that of one that is heard: without any, it would never be learnt."""
_NEVER = -1e4
"""A logit below any that is heard; unlike infinity, it can be multiplied."""


class Lexicon(Step):
    """w_v = log(1 + ReLU(z_v)), z_v = g_v max_l head(h_l)_v + s_v: how loud a term v is at its loudest place l of a text.

    Gain g and shift s are 1 and 0, until `start` or training. Padding is never heard, and no tensor of batch, length and
    vocabulary is made: logits are computed for some texts and places at a time, and only the loudest are kept. Its `vector`
    are these weights, those of queries times `importance` (1, if not given).

    Args:
        head: From embeddings [..., hidden] to logits [..., C]. It is trained as well.
        width: How many terms there are, C.
        ignored: Token ids at whose places nothing is heard, such as those a tokenizer puts around each text.
        importance: Of each term in queries, float32 [C].
        rounds: Whether the head multiplies in bfloat16.

    Raises:
        InvalidInput: If the importance is of other terms, negative or not finite.

    Example:
        >>> step = Lexicon(nn.Identity(), 2)
        >>> features = {"embedding": torch.tensor([[[0.0, -1.0], [1.0, -2.0], [9.0, 9.0]]])}
        >>> features |= {"input_ids": torch.tensor([[5, 6, 0]]), "attention_mask": torch.tensor([[1, 1, 0]])}
        >>> step(features, "document")["vector"].detach()  # log(1 + 1), and nothing
        tensor([[0.6931, 0.0000]])

    Source: SPLADE, arXiv:2107.05720 and, for the maximum, arXiv:2109.10086; LexLIP, arXiv:2302.02908, section 3. Deviations:
    gain, shift and importance are ours, as is the gradient of terms that are not heard; unlike LexLIP's, weights are not
    brought to unit length.
    """

    needs = frozenset({"embedding", "input_ids", "attention_mask"})
    gives = frozenset({"vector"})
    importance: Tensor

    def __init__(
        self,
        head: nn.Module,
        width: int,
        *,
        ignored: Sequence[int] = (),
        importance: Floats | None = None,
        rounds: bool = False,
    ) -> None:
        super().__init__()
        given = torch.ones(width) if importance is None else torch.tensor(importance, dtype=torch.float32)
        if given.shape != (width,) or not (torch.isfinite(given) & (given >= 0)).all():
            raise InvalidInput(
                f"the importance of {width} terms was given as an array of shape {tuple(given.shape)}, or holds a number "
                "that is negative or not finite; give a finite number of at least 0 for each"
            )
        self.head, self.width, self.rounds = head, width, rounds
        self.ignored = tuple(sorted(set(ignored)))
        # Not stored: who makes the step knows it.
        self.register_buffer("importance", given, persistent=False)
        self.gain = nn.Parameter(torch.ones(width))
        self.shift = nn.Parameter(torch.zeros(width))

    def start(self, loudest: Floats) -> None:
        """Set gain and shift so that every term is as loud as others, and heard in few documents.

        A head whose logits mean nothing yet would else hear half of the vocabulary in every text.

        Args:
            loudest: What `loudest` gives for some documents, float32 [n, C].

        Raises:
            InvalidInput: If there are fewer than 2 documents.
        """
        if len(loudest) < 2:
            raise InvalidInput(f"a lexicon starts from some documents; {len(loudest)} were given, 2 are needed")
        mean, spread = loudest.mean(axis=0), loudest.std(axis=0)
        gain = 1 / (
            spread + 1e-3 * max(float(spread.mean()), 1e-6)
        )  # a term that is loud everywhere alike stays finite
        with torch.no_grad():
            self.gain.copy_(torch.from_numpy(gain))
            self.shift.copy_(torch.from_numpy(-mean * gain - QUIET))

    def forward(self, features: Features, role: Role) -> Features:
        """Add `vector`, float32 [b, C]."""
        loudest = self.loudest(features)
        heard = loudest * self.gain + self.shift
        silent = heard.clamp(max=0) * (loudest > _NEVER / 2)  # of nothing at all, nothing is to be learnt
        weights = torch.log1p(torch.relu(heard)) + SLOPE * (silent - silent.detach())  # the latter is 0
        return features | {"vector": weights * self.importance if role == "query" else weights}

    def loudest(self, features: Features) -> Tensor:
        """The head's largest logit of each term among the places that count, float32 [b, C]."""
        embedding, mask = features["embedding"], features["attention_mask"] > 0
        for token in self.ignored:
            mask = mask & (features["input_ids"] != token)
        texts, length, _ = embedding.shape
        places = max(1, min(length, CELLS // self.width))
        some = max(1, CELLS // (self.width * places))
        parts = []
        for i in range(0, texts, some):
            best = None
            for j in range(0, length, places):
                logits = self._logits(embedding[i : i + some, j : j + places])
                logits = logits.masked_fill(~mask[i : i + some, j : j + places, None], _NEVER)
                found = logits.max(dim=1).values.float()  # keeps places alone for the way back, not logits
                best = found if best is None else torch.maximum(best, found)
            assert best is not None  # a batch has at least one place
            parts.append(best)
        return torch.cat(parts)

    def _logits(self, embedding: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.rounds):
            logits: Tensor = self.head(embedding)
        return logits

    def extra_repr(self) -> str:
        """Every setting."""
        return f"{self.width}, ignored={self.ignored}"

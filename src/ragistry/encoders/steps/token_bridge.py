"""Token-aware augmentation: a vector that keeps the keywords of its text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ...errors import InvalidInput
from ...types import Floats, Role
from ..token_table import LENGTH, SATURATION
from . import Features, Step, lengthened

Paradigm: TypeAlias = Literal["slr", "llr", "clr"]
Form: TypeAlias = Literal["gate", "sum"]
BridgeSide: TypeAlias = Literal["query", "document", "both", "shared"]
CONTEXT = 256
"""Tokens that `clr` keeps of the vocabulary, those of most weight: all of them would read all of W."""
CANDIDATES = 4096
"""Tokens that a head is asked about after `start`, those of most documents: all of them would read all word embeddings."""
_FLOOR = 1e-4
"""Added to variances before they divide: below it a direction of the vectors is rounding."""


@dataclass(frozen=True)
class Statistics:
    """What a corpus says about tokens.

    Args:
        idf: Of each token of the vocabulary, float32 [V]: log(1 + (n - df + 0.5) / (df + 0.5)).
        length: Mean number of tokens of a document.
    """

    idf: Floats
    length: float

    @classmethod
    def of(cls, tokens: Sequence[Sequence[int]], vocabulary: int) -> Statistics:
        """Count the documents that hold each token.

        Example:
            >>> Statistics.of([[1, 1, 2], [2]], vocabulary=3).idf.round(2)
            array([1.79, 0.69, 0.18], dtype=float32)
        """
        found = np.zeros(vocabulary, np.int64)
        for ids in tokens:
            found[np.unique(np.asarray(ids, np.int64))] += 1
        idf = np.log1p((len(tokens) - found + 0.5) / (found + 0.5)).astype(np.float32)
        return cls(idf, max(1.0, float(np.mean([len(ids) for ids in tokens])) if len(tokens) else 1.0))


class TokenBridge(Step):
    """A vector v is changed by weights x over the vocabulary, which its text's own tokens give, and a matrix W [V, d].

    | form | the new vector, turned back to the length of v |
    |---|---|
    | `gate` | softmax(x W + b) * v, element by element |
    | `sum` | v + abs(v) x W |

    | paradigm | x of a query |
    |---|---|
    | `slr` | statistical: scale for each token that is there; after `start`, scale times idf |
    | `llr` | learned: the same times the largest ReLU(a h + c) among the token's places, with h its embedding there |
    | `clr` | contextual: log(1 + ReLU(z)), with z a masked-LM head's logits at the first token; after `start`, times idf |

    After `start` a head is asked about the 4,096 tokens that most documents hold, not all: that is what makes `clr` cheap.

    Documents' weights are always statistical (after `start`, idf times a saturated count, as in BM25), so that vectors of
    documents that were computed before are reused. After `start` the weights of a text have length `scale`.

    It starts at the identity, bit for bit: W and b are zero. Only tokens that are there touch W (with `clr` the 256 of most
    weight), and no tensor of batch, length and vocabulary is made. What a text gets does not depend on its batch.

    A gate keeps every sign of v, so that it can stress and mute what v says but adds nothing. A sum adds: with W as `start`
    sets it, x W is a random projection of the weighted tokens (Johnson and Lindenstrauss), its inner product with that of
    another text an estimate of how many rare tokens they share, and the sum of both a hybrid search in the dimensions that
    are already there.

    Args:
        dimension: Of the vectors, d.
        vocabulary: Number of token ids, V.
        paradigm: See the table.
        form: See the table.
        side: Whose vectors change; `both` has a W for queries and one for documents, `shared` one for both.
        ignored: Token ids that count as absent, such as those a tokenizer puts around each text.
        hidden: Width of the token embeddings, for `llr` and `clr`; that of the vectors by default.
        head: For `clr`: from embeddings [b, hidden] to logits [b, V]. It is trained as well.

    Raises:
        InvalidInput: If a name is not known, or `clr` has no head.

    Example:
        >>> import torch
        >>> step = TokenBridge(4, vocabulary=100, form="sum", side="shared")
        >>> features = {"vector": torch.eye(2, 4), "input_ids": torch.tensor([[7, 8], [9, 0]])}
        >>> features["attention_mask"] = torch.tensor([[1, 1], [1, 0]])
        >>> bool((step(features, "query")["vector"] == features["vector"]).all())
        True

    Source: LexSemBridge, arXiv:2508.17858 (2025), section 3, and its code. Deviations: `sum`, `start` and the document's
    weights are ours; W starts at zero (there, at random, which is nearly the identity); tokens of one text never depend on
    another's (there, a filter of the vocabulary does); the length of v is kept, where the paper divides by it.
    """

    gives = frozenset({"vector"})
    idf: Tensor
    length: Tensor
    candidates: Tensor

    def __init__(
        self,
        dimension: int,
        vocabulary: int,
        *,
        paradigm: Paradigm = "slr",
        form: Form = "gate",
        side: BridgeSide = "query",
        ignored: Sequence[int] = (),
        hidden: int | None = None,
        head: nn.Module | None = None,
    ) -> None:
        super().__init__()
        for what, given, known in (("paradigm", paradigm, Paradigm), ("form", form, Form), ("side", side, BridgeSide)):
            if given not in get_args(known):
                raise InvalidInput(f"the {what} {given!r} is not known; use one of {', '.join(get_args(known))}")
        if wrong := [token for token in ignored if not 0 <= token < vocabulary]:
            raise InvalidInput(f"the tokens {wrong[:5]} are to be ignored, but ids go from 0 to {vocabulary - 1}")
        if paradigm == "clr" and head is None:
            raise InvalidInput("the paradigm 'clr' needs a masked-LM head; give one, such as `masked_lm_head` makes")
        self.dimension, self.vocabulary = dimension, vocabulary
        self.paradigm: Paradigm = paradigm
        self.form: Form = form
        self.side: BridgeSide = side
        self.ignored = tuple(sorted(set(ignored)))
        own = {"vector", "input_ids", "attention_mask"}
        self.needs = frozenset(own if paradigm == "slr" or side == "document" else own | {"embedding"})
        names = {"both": ("query", "document"), "document": ("document",)}.get(side, ("query",))
        self.maps = nn.ParameterDict({name: torch.zeros(vocabulary, dimension) for name in names})
        self.bias = nn.ParameterDict({name: torch.zeros(dimension) for name in names if form == "gate"})
        self.scale = nn.Parameter(torch.ones(()))
        self.attend = nn.Linear(hidden or dimension, 1) if paradigm == "llr" else None
        if self.attend is not None:
            nn.init.zeros_(self.attend.weight)
            nn.init.ones_(self.attend.bias)
        self.head = head if paradigm == "clr" else None
        present = torch.ones(vocabulary)
        present[list(self.ignored)] = 0
        self.register_buffer("idf", present)
        self.register_buffer("length", torch.zeros(()))
        # Not stored: `idf` says which they are.
        self.register_buffer("candidates", torch.arange(vocabulary), persistent=False)

    def start(
        self, statistics: Statistics, vectors: Floats | None = None, strength: float = 0.0, seed: int = 0
    ) -> None:
        """Set the statistics and, unless the strength is 0, W to a random projection.

        Its directions are scaled by how little the vectors vary in them (to the power -1/2), where the sum disturbs least.

        Args:
            statistics: Of the documents. The first ones given say what a head is asked about.
            vectors: Of documents, float32 [n, d].
            strength: Length of x W beside that of v, about.
            seed: Of the projection.

        Raises:
            InvalidInput: If the statistics are of another vocabulary, or a strength is given without vectors.
        """
        if statistics.idf.shape != (self.vocabulary,) or not statistics.length > 0:
            raise InvalidInput(
                f"statistics of {statistics.idf.shape} tokens and a mean length of {statistics.length} do not suit a bridge "
                f"over {self.vocabulary}; make them by `Statistics.of` from documents with this vocabulary"
            )
        if strength and vectors is None:
            raise InvalidInput(f"a strength of {strength} was given without vectors; give those of documents")
        with torch.no_grad():
            self.idf.copy_(torch.from_numpy(np.array(statistics.idf)))
            self.idf[list(self.ignored)] = 0
            self.length.fill_(statistics.length)
            self.narrow()
            if strength and vectors is not None:
                draw = torch.Generator().manual_seed(seed)
                random = torch.randn(self.vocabulary, self.dimension, generator=draw)
                random = random @ _calm(torch.from_numpy(np.array(vectors, np.float32)))
                for weight in self.maps.values():
                    weight.copy_(random * (strength / self.dimension**0.5))

    def narrow(self) -> None:
        """Ask the head, if there is one, from now on about the tokens of lowest idf alone; a second call does nothing."""
        if self.head is None or len(self.candidates) < self.vocabulary or self.vocabulary <= CANDIDATES:
            return
        order = torch.argsort(torch.where(self.idf > 0, self.idf, torch.inf), stable=True)
        candidates = order[:CANDIDATES].sort().values
        if _narrowed(self.head, candidates, self.vocabulary):
            self.candidates = candidates

    def forward(self, features: Features, role: Role) -> Features:
        """Replace `vector`, where this role has a map."""
        name = "query" if self.side == "shared" else role
        if name not in self.maps:
            return features
        vector = features["vector"]
        added = self._projected(features, role, self.maps[name])
        if self.form == "sum":
            turned = vector + vector.norm(dim=-1, keepdim=True) * added
        else:
            logits = added + self.bias[name]
            turned = vector * torch.exp(logits - logits.amax(dim=-1, keepdim=True))
        return features | {"vector": lengthened(turned, vector)}

    def weights(self, features: Features, role: Role) -> tuple[Tensor, Tensor, Tensor]:
        """The tokens of each text, each once: row int64 [n], token int64 [n] and weight float32 [n], by row and token.

        Not for queries with `clr`, where every token of the vocabulary has a weight.
        """
        ids = features["input_ids"]
        if ids.numel() and int(ids.max()) >= self.vocabulary:
            raise InvalidInput(
                f"token id {int(ids.max())} was given to a bridge over {self.vocabulary} tokens; make it for this tokenizer"
            )
        mask = (features["attention_mask"] > 0) & (self.idf[ids] > 0)
        rows, places = torch.nonzero(mask, as_tuple=True)
        keys, inverse, counts = torch.unique(
            rows * self.vocabulary + ids[rows, places], return_inverse=True, return_counts=True
        )
        row, token = keys // self.vocabulary, keys % self.vocabulary
        weight = self.idf[token]
        if role == "document" and self.length > 0:
            count = counts.to(weight.dtype)
            norm = 1 - LENGTH + LENGTH * mask.sum(dim=1).to(weight.dtype)[row] / self.length
            weight = weight * count * (SATURATION + 1) / (count + SATURATION * norm)
        if self.attend is not None and role == "query":
            heard = torch.relu(self.attend(features["embedding"][rows, places])).squeeze(-1)
            loudest = torch.zeros_like(weight).scatter_reduce(0, inverse, heard, "amax", include_self=True)
            weight = weight * loudest
        if self.length > 0:
            squares = torch.zeros(len(ids), dtype=weight.dtype, device=weight.device).index_add(0, row, weight * weight)
            weight = weight / squares.clamp(min=1e-12).sqrt()[row]
        return row, token, weight * self.scale

    def _projected(self, features: Features, role: Role, table: Tensor) -> Tensor:
        """x W, [b, d]."""
        if self.head is not None and role == "query":
            mask = features["attention_mask"]
            first = features["embedding"][torch.arange(len(mask), device=mask.device), mask.argmax(dim=1)]
            every = torch.log1p(torch.relu(self.head(first))) * self.idf[self.candidates]
            weight, place = torch.topk(every, min(CONTEXT, len(self.candidates)), dim=-1)
            token = self.candidates[place]
            if self.length > 0:
                weight = functional.normalize(weight, dim=-1)
            contextual: Tensor = functional.embedding_bag(
                token, table, mode="sum", per_sample_weights=self.scale * weight
            )
            return contextual
        row, token, weight = self.weights(features, role)
        starts = torch.searchsorted(row, torch.arange(len(features["input_ids"]), device=row.device))
        summed: Tensor = functional.embedding_bag(token, table, starts, mode="sum", per_sample_weights=weight)
        return summed

    def extra_repr(self) -> str:
        """Every setting."""
        return (
            f"{self.dimension}, {self.vocabulary}, paradigm={self.paradigm!r}, form={self.form!r}, side={self.side!r}, "
            f"ignored={self.ignored}"
        )


class MaskedLMHead(nn.Module):
    """Logits over the vocabulary from an embedding, by the model's own word embeddings: a head for a model without one.

    A map that starts at the identity, then inner products with word embeddings, which stay as they are, over the root of
    their width, so that they begin small.

    Args:
        words: Word embeddings, float32 [V, hidden].
    """

    words: Tensor

    def __init__(self, words: Tensor) -> None:
        super().__init__()
        self.transform = nn.Linear(words.shape[1], words.shape[1])
        nn.init.eye_(self.transform.weight)
        nn.init.zeros_(self.transform.bias)
        self.bias = nn.Parameter(torch.zeros(words.shape[0]))
        # Not stored: they are the model's own.
        self.register_buffer("words", words.detach(), persistent=False)

    def forward(self, embedding: Tensor) -> Tensor:
        """float32 [b, V] from [b, hidden]."""
        logits: Tensor = self.transform(embedding) @ self.words.T / embedding.shape[-1] ** 0.5 + self.bias
        return logits


def _narrowed(head: nn.Module, tokens: Tensor, vocabulary: int) -> bool:
    """Leave a head's outputs for some tokens only; whether that could be done."""
    if isinstance(head, MaskedLMHead):
        head.words, head.bias = head.words[tokens], nn.Parameter(head.bias.detach()[tokens])
        return True
    found = [
        (part, name, layer)
        for part in head.modules()
        for name, layer in part.named_children()
        if isinstance(layer, nn.Linear) and layer.out_features == vocabulary
    ]
    if len(found) != 1:
        return False
    part, name, layer = found[0]
    less = nn.Linear(layer.in_features, len(tokens), bias=layer.bias is not None)
    less.weight = nn.Parameter(layer.weight.detach()[tokens])
    if layer.bias is not None:
        less.bias = nn.Parameter(layer.bias.detach()[tokens])
    setattr(part, name, less)
    return True


def _calm(vectors: Tensor) -> Tensor:
    """[d, d]: the second moments of vectors to the power -1/2, scaled to keep lengths on average."""
    values, directions = torch.linalg.eigh((vectors.T @ vectors / max(1, len(vectors))).double())
    turned = (directions * (values.clamp(min=0) + _FLOOR) ** -0.5) @ directions.T
    scaled: Tensor = turned * (len(turned) ** 0.5 / turned.norm())
    return scaled.float()

"""Training an encoder through its model: token ids as the source of features, and the model with its steps as a module."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from ..encoders.stack import Stack
from ..encoders.steps import Features
from ..encoders.token_aware import padded
from ..registry import require
from ..types import Floats, Ints, Role
from .trainer import Stored

BATCH = 64
GROUP = 16
"""Texts that go through a model in training together."""


class Live(nn.Module):
    """A stack's model and steps, and what comes after them, as one module to train.

    Features that hold a `vector` come from a frozen model, which is not asked again. Dropout stays off: documents that are
    not encoded again have been encoded without. Where the stack's model is in bfloat16, the copy keeps float32 weights and
    multiplies in bfloat16 (several times the speed where the processor has instructions for it).

    Args:
        stack: What gives vectors. Its model is copied if any role is `tuned`, so that the stack stays as it is.
        after: A step over the vectors; none for the model alone.
        tuned: Roles whose vectors the model's weights are trained for; of other roles they are not.
        rank: Of LoRA on every linear layer; none trains all weights but the word embeddings.
    """

    def __init__(
        self,
        stack: Stack,
        after: nn.Module | None,
        tuned: Collection[Role] = (),
        rank: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.tuned = frozenset(tuned)
        self.steps = nn.ModuleList(stack.steps)
        self.after = after
        self._before: dict[str, Any] = {}
        model = stack.loaded().model
        self._rounds = bool(self.tuned) and next(model.parameters()).dtype == torch.bfloat16
        if self.tuned:
            model, self._before = _trainable(model, rank, seed), model.state_dict()
            self.model = model
        else:
            object.__setattr__(self, "model", model)  # no child: nothing of it is trained, stored or copied

    def forward(self, features: Features, role: Role) -> Features:
        """Features with `vector`."""
        if "vector" not in features or role in self.tuned:
            with torch.set_grad_enabled(torch.is_grad_enabled() and role in self.tuned):
                features = features | {"embedding": self._embedding(features["input_ids"], features["attention_mask"])}
                for step in self.steps:
                    features = step(features, role)
        return features if self.after is None else self.after(features, role)

    def _embedding(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Token embeddings, float32 [b, t, d]; texts of like length go through the model together, with little padding."""
        longest = mask.sum(dim=1)
        order = torch.argsort(longest, stable=True)
        config: Any = self.model.config
        found = torch.zeros(*ids.shape, config.hidden_size)
        with torch.autocast("cpu", torch.bfloat16, enabled=self._rounds):
            for rows in torch.split(order, GROUP):
                width = max(1, int(longest[rows[-1]]))
                output = self.model(input_ids=ids[rows, :width], attention_mask=mask[rows, :width])
                part = output.last_hidden_state.float()
                found = found.index_put((rows[:, None], torch.arange(width)[None, :]), part)
        return found

    def train(self, mode: bool = True) -> Self:
        """Everything but the model, whose dropout stays off."""
        super().train(mode)
        self.model.eval()
        return self

    def weights(self) -> dict[str, Floats]:
        """The model's weights that are no longer what they were, LoRA's merged into them."""
        if not self.tuned:
            return {}
        model = self.model
        if hasattr(model, "merge_and_unload"):
            model = copy.deepcopy(model).merge_and_unload()
        return changed(model, self._before)


class Tokens:
    """Token ids of queries and documents, with vectors that were computed before, as the source of features.

    Args:
        asked: Token ids of each query.
        held: Token ids of each document.
        asked_vectors: float32 [n, d]; none where the model is to make them.
        held_vectors: float32 [m, d], likewise.
        embeddings: Of each query's tokens, float32 [t, hidden], where a step reads them.
    """

    def __init__(
        self,
        asked: Sequence[Sequence[int]],
        held: Sequence[Sequence[int]],
        asked_vectors: Floats | None = None,
        held_vectors: Floats | None = None,
        embeddings: Sequence[Floats] | None = None,
    ) -> None:
        self._asked, self._held, self._embeddings = asked, held, embeddings
        self._vectors = {"query": asked_vectors, "document": held_vectors}

    def queries(self, rows: Ints) -> Features:
        """Their token ids, mask, and what was computed before."""
        features = self._features(self._asked, rows, "query")
        if self._embeddings is not None:
            filled = torch.zeros(*features["input_ids"].shape, self._embeddings[0].shape[1])
            for i, row in enumerate(rows.tolist()):
                filled[i, : len(self._embeddings[row])] = torch.from_numpy(self._embeddings[row])
            features["embedding"] = filled
        return features

    def documents(self, rows: Ints) -> Features:
        """Their token ids, mask, and vectors if computed before."""
        return self._features(self._held, rows, "document")

    def nearest(self, encoder: nn.Module, rows: Ints, k: int, answers: Any) -> Ints:
        """By brute force over all documents."""
        queries = np.zeros((len(self._asked), 1), np.float32)
        for some in np.array_split(rows, max(1, len(rows) // BATCH)):
            found = encoder(self.queries(some), "query")["vector"].numpy()
            if queries.shape[1] != found.shape[1]:
                queries = np.zeros((len(self._asked), found.shape[1]), np.float32)
            queries[some] = found
        every = np.array_split(np.arange(len(self._held)), max(1, len(self._held) // BATCH))
        documents = np.concatenate([encoder(self.documents(some), "document")["vector"].numpy() for some in every])
        return Stored(queries, documents).nearest(_Same(), rows, k, answers)

    def _features(self, tokens: Sequence[Sequence[int]], rows: Ints, role: Role) -> Features:
        features = padded([tokens[row] for row in rows.tolist()])
        vectors = self._vectors[role]
        return features if vectors is None else features | {"vector": torch.from_numpy(vectors[rows])}


class _Same(nn.Module):
    def forward(self, features: Features, role: Role) -> Features:
        return features


def changed(model: nn.Module, before: Mapping[str, Tensor]) -> dict[str, Floats]:
    """The weights of a model that have another value than those of the same name before, float32."""
    return {
        name: np.array(value.detach().float().numpy(), np.float32)
        for name, value in model.state_dict().items()
        if name in before and not torch.equal(value.float(), before[name].float())
    }


def _trainable(model: Any, rank: int | None, seed: int) -> Any:
    """A copy whose weights can be trained: all but the word embeddings, or LoRA's beside them."""
    copied = copy.deepcopy(model).float()
    copied.set_attn_implementation("eager")  # the fused kernel is slow backwards in bfloat16
    if rank is None:
        copied.requires_grad_(True)
        copied.get_input_embeddings().requires_grad_(False)
        return copied
    return adapted(copied, rank, seed)


def adapted(model: nn.Module, rank: int, seed: int) -> Any:
    """A model with LoRA on every linear layer; nothing else of it is trained.

    Raises:
        MissingExtra: If peft is not installed.
    """
    peft = require("peft", "tune")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return peft.get_peft_model(model, peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=_linear(model)))


def _linear(model: nn.Module) -> list[str]:
    """Names of the linear layers inside the model's blocks."""
    return [name for name, part in model.named_modules() if isinstance(part, nn.Linear) and "pooler" not in name]


def embeddings_of(stack: Stack, tokens: Sequence[Sequence[int]]) -> list[Floats]:
    """The token embeddings of texts, each float32 [t, hidden]."""
    order = sorted(range(len(tokens)), key=lambda i: -len(tokens[i]))
    found: dict[int, Floats] = {}
    loaded = stack.loaded()
    with torch.inference_mode():
        for first in range(0, len(order), BATCH):
            some = order[first : first + BATCH]
            embedding = loaded.embed([tokens[i] for i in some])["embedding"].numpy()
            found |= {i: np.array(embedding[j, : len(tokens[i])]) for j, i in enumerate(some)}
    return [found[i] for i in range(len(tokens))]


def vectors_of(module: nn.Module, source: Tokens, rows: Ints, role: Role) -> Floats:
    """float32 [len(rows), d], in batches."""
    give: Mapping[str, Any] = {"query": source.queries, "document": source.documents}
    size = BATCH if role == "query" else 16 * BATCH
    module.eval()
    with torch.no_grad():
        parts = [
            module(give[role](rows[first : first + size]), role)["vector"].numpy()
            for first in range(0, len(rows), size)
        ]
    return np.concatenate(parts) if parts else np.empty((0, 1), np.float32)

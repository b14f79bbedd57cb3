"""A language model as a module to train: it says how likely queries are, and gives vectors."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..encoders.steps import Features, Step
from ..models import native_bf16
from ..scorers.likelihood import joint_log_likelihoods, layers_of
from ..types import Floats, Role
from .live import adapted, changed


class Speaking(nn.Module):
    """A language model with the steps that make a vector of what its layers give. Dropout stays off, as in `Live`.

    Args:
        model: Causal or encoder-decoder, of transformers. It is copied, so that the one given stays as it is.
        steps: From token embeddings to a `vector`; none where only likelihoods are wanted.
        rank: Of LoRA on every linear layer; none trains all weights but the word embeddings.
        seed: Of LoRA's weights.
        rounds: Whether products are in bfloat16, weights and sums staying float32; by default where the processor has
            instructions for it, which makes training several times faster.
    """

    def __init__(
        self,
        model: Any,
        steps: Sequence[Step] = (),
        rank: int | None = None,
        seed: int = 0,
        rounds: bool | None = None,
    ) -> None:
        super().__init__()
        self.rounds = native_bf16() if rounds is None else rounds
        self.language = copy.deepcopy(model).float()
        if self.rounds:
            _use_eager_attention(self.language)
        self.language.requires_grad_(True)
        for words in _word_embeddings(self.language):
            words.requires_grad_(False)
        if rank is not None:
            layers_of(self.language).requires_grad_(False)
            with_lora = adapted(layers_of(self.language), rank, seed)
            setattr(self.language, self.language.base_model_prefix, with_lora)
        self.steps = nn.ModuleList(steps)

    def forward(self, features: Features, role: Role) -> Features:
        """Features with `vector`."""
        mask = features["attention_mask"]
        with self._rounding():
            hidden = layers_of(self.language)(input_ids=features["input_ids"], attention_mask=mask).last_hidden_state
        features = features | {"embedding": hidden.float()}
        for step in self.steps:
            features = step(features, role)
        return features

    def train(self, mode: bool = True) -> Self:
        """Everything but the model, whose dropout stays off."""
        super().train(mode)
        self.language.eval()
        return self

    def log_likelihoods(
        self,
        prefixes: Sequence[Sequence[int]],
        targets: Sequence[Sequence[int]],
        *,
        stop: bool = False,
        smoothing: float = 0.0,
    ) -> list[Tensor]:
        """See `ragistry.scorers.likelihood.joint_log_likelihoods`."""
        with self._rounding():
            return joint_log_likelihoods(self.language, prefixes, targets, stop=stop, smoothing=smoothing)

    def weights(self, before: Mapping[str, Tensor]) -> dict[str, Floats]:
        """The layers' weights that are no longer what they were in `before`, LoRA's merged into them."""
        layers = layers_of(self.language)
        if hasattr(layers, "merge_and_unload"):
            layers = copy.deepcopy(layers).merge_and_unload()
        return changed(layers, before)

    def _rounding(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.rounds)


def _word_embeddings(model: Any) -> list[nn.Parameter]:
    parts = [model, getattr(model, "encoder", None), getattr(model, "decoder", None)]
    return [
        part.get_input_embeddings().weight
        for part in parts
        if part is not None and hasattr(part, "get_input_embeddings")
    ]


def _use_eager_attention(model: Any) -> None:
    """The fused kernel is slow backwards in bfloat16.

    The layers of an encoder-decoder made of two models hold configurations that its own method does not reach.
    """
    for part in model.modules():
        if hasattr(part, "config"):
            part.config._attn_implementation = "eager"

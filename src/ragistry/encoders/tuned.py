"""A backbone some of whose weights were trained further."""

from __future__ import annotations

import copy
import hashlib
import json
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..models import put_weights, quiet
from ..types import Floats
from .backbones import Backbone, Loaded
from .steps.token_bridge import MaskedLMHead


class Tuned(Backbone):
    """A backbone with other values for some of its weights.

    Args:
        backbone: As it was; it stays so.
        weights: By their names in the model, float32, each of the shape it has there.

    Raises:
        InvalidInput: From `load`, if the model has no such weight, or of another shape.

    Example:
        >>> base = Backbone("all-MiniLM-L6-v2")
        >>> name = "encoder.layer.5.output.dense.bias"
        >>> Tuned(base, {name: np.zeros(384, np.float32)}).fingerprint() == base.fingerprint()
        False
    """

    def __init__(self, backbone: Backbone, weights: Mapping[str, Floats]) -> None:
        super().__init__(backbone.name)
        self.backbone = backbone
        self.weights = dict(weights)
        self._tuning = threading.Lock()
        self._tuned: dict[torch.dtype, Any] = {}

    def fingerprint(self) -> str:
        """Of the backbone and the weights."""
        digest = hashlib.sha256(self.backbone.fingerprint().encode())
        for name, value in sorted(self.weights.items()):
            digest.update(json.dumps([name, value.shape]).encode())
            digest.update(np.ascontiguousarray(value, "<f4").tobytes())
        return digest.hexdigest()

    def load(self, dtype: torch.dtype, max_length: int | None = None) -> Loaded:
        """As `Backbone.load` does it, with the weights put in."""
        found = self.backbone.load(dtype, max_length)
        with self._tuning:
            if dtype not in self._tuned:
                model = copy.deepcopy(found.model)
                put_weights(model, self.weights, self.name)
                self._tuned[dtype] = model
        return Loaded(self._tuned[dtype], found.tokenizer, found.max_length, found.padding)


def around(loaded: Loaded) -> tuple[int, ...]:
    """The token ids that say nothing about a text: those put around each, and padding."""
    return tuple(sorted({*loaded.tokenizer.encode("").ids, loaded.padding}))


def masked_lm_head(backbone: Backbone, loaded: Loaded) -> torch.nn.Module:
    """The masked-LM head of a model's folder, or one grown from its word embeddings where the folder holds none.

    The model's own is used where transformers keeps it as one module, `cls` or `lm_head`.
    """
    from transformers import AutoModelForMaskedLM

    folder = backbone.layout().folder
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            whole, found = AutoModelForMaskedLM.from_pretrained(
                folder, use_safetensors=True, local_files_only=True, trust_remote_code=False, output_loading_info=True
            )
    except (OSError, ValueError, KeyError):
        return MaskedLMHead(loaded.model.get_input_embeddings().weight.float())
    own = next((getattr(whole, name) for name in ("cls", "lm_head") if hasattr(whole, name)), None)
    if own is None or any("pooler" not in key and "decoder" not in key for key in found["missing_keys"]):
        return MaskedLMHead(loaded.model.get_input_embeddings().weight.float())
    head: torch.nn.Module = own
    return head

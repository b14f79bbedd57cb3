"""Transformers with a masked-LM head, as what hears terms in texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from ..errors import InvalidInput
from ..models import find_model, put_weights, read_json
from ..types import Floats, Ints
from .backbones import DEFAULT_LENGTH, Backbone, Layout, Loaded
from .stack import Stack
from .steps.lexicon import Lexicon
from .steps.token_bridge import MaskedLMHead
from .tuned import Tuned, around, masked_lm_head

if TYPE_CHECKING:
    from .lexical import Lexical

SPLADE = {"MLMTransformer", "SpladePooling"}
"""What sentence-transformers makes a published SPLADE model of."""


class Masked(Backbone):
    """A backbone that may also be laid out as sentence-transformers lays out SPLADE models.

    Example:
        >>> Masked("all-MiniLM-L6-v2").layout().max_length
        256
    """

    def layout(self) -> Layout:
        """As the model's folder gives it.

        Raises:
            InvalidInput: If terms are not the largest ReLU of their logits there.
        """
        root = find_model(self.name)
        modules = {
            str(module.get("type", "")).rpartition(".")[2]: root / str(module.get("path", ""))
            for module in read_json(root / "modules.json", [])
        }
        if set(modules) != SPLADE:
            return super().layout()
        pooling = read_json(modules["SpladePooling"] / "config.json", {})
        how = (pooling.get("pooling_strategy", "max"), pooling.get("activation_function", "relu"))
        if how != ("max", "relu"):
            raise InvalidInput(f"the model in {str(root)!r} pools by {how}; the largest ReLU (max, relu) is supported")
        folder = modules["MLMTransformer"]
        sizes = [
            int(read_json(folder / file, {}).get(name) or 10**9)
            for file, name in (
                ("tokenizer_config.json", "model_max_length"),
                ("config.json", "max_position_embeddings"),
                ("sentence_bert_config.json", "max_seq_length"),
            )
        ]
        limit = min(sizes[:2]) if min(sizes[:2]) < 10**9 else DEFAULT_LENGTH
        return Layout(folder, "mean", min(limit, sizes[2]), limit, {"query": "", "document": ""})


def hearing(encoder: Lexical) -> Stack:
    """The stack under a `Lexical` encoder: its model, tuned if it was, and a `Lexicon` step with what was learnt."""
    found = encoder.expansion
    backbone = Masked(encoder.model)
    served = Tuned(backbone, found.tuned) if found is not None and found.tuned else backbone
    base = bare(encoder, served)
    step = step_of(backbone, base.loaded(), encoder.columns, None if found is None or not len(found.idf) else found.idf)
    if found is not None:
        put_weights(step, found.weights, encoder.model)
    return base.over(served, [step])


def bare(encoder: Lexical, backbone: Backbone) -> Stack:
    """A stack with the settings of a `Lexical` encoder that hears nothing yet: its vector is the first token's."""
    from .steps.pooling import Pooling

    return Stack(
        backbone,
        [Pooling("cls")],
        max_length=encoder.max_length or backbone.layout().max_length,
        precision=encoder.precision,
        threads=encoder.threads,
    )


def step_of(backbone: Backbone, loaded: Loaded, columns: Ints, idf: Floats | None) -> Lexicon:
    """A step that hears terms in what a model gives, untrained.

    Args:
        backbone: The model as it is stored.
        loaded: The same, or one tuned.
        columns: Of the terms to hear, int64 [C].
        idf: Of all terms, float32 [V]: a head is grown from the word embeddings of the model. Without, it is the model's
            own, with what it hears around a text, as it was trained.

    Raises:
        InvalidInput: If the model has no head of its own.
    """
    rounds = next(loaded.model.parameters()).dtype == torch.bfloat16
    if idf is not None:
        words = loaded.model.get_input_embeddings().weight.detach().float()
        head: nn.Module = MaskedLMHead(words[torch.from_numpy(np.array(columns))])
        return Lexicon(head, len(columns), ignored=around(loaded), importance=idf[columns], rounds=rounds)
    head = masked_lm_head(backbone, loaded)
    if isinstance(head, MaskedLMHead):
        raise InvalidInput(
            f"the model {backbone.name!r} has no masked-LM head of its own, as `cls` or `lm_head`; give a SPLADE model, or "
            "start from words (start='words')"
        )
    for layer in head.modules():  # as the word embeddings, which they are
        if isinstance(layer, nn.Linear) and layer.out_features == len(columns):
            layer.weight.requires_grad_(False)
    return Lexicon(head.eval(), len(columns), rounds=rounds)

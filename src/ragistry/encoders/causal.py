"""A transformer that reads from left to right, and ends each text with the token whose place becomes its vector."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import torch
from tokenizers.processors import Sequence as Processors
from tokenizers.processors import TemplateProcessing

from ..errors import InvalidInput
from ..models import MINILM, special_tokens
from .backbones import Backbone, Layout, Loaded, load_model


class Causal(Backbone):
    """A backbone each place of which sees only what comes before it, so that the last one has read all of a text.

    A model that reads in both directions is made to read in one, with the weights it has; one that does so already stays
    as it is. Where the model's tokenizer ends texts with no token of its own, its end token is put there.

    Args:
        name: As of `Backbone`.

    Raises:
        InvalidInput: From `load`, if the model's tokenizer has no token that ends a text, or transformers cannot make the
            model read from left to right.

    Example:
        >>> Causal("all-MiniLM-L6-v2").layout().pooling
        'last'
    """

    def __init__(self, name: str | os.PathLike[str] = MINILM) -> None:
        super().__init__(name)

    def layout(self) -> Layout:
        """That of the model's folder, but for the pooling."""
        return replace(super().layout(), pooling="last")

    def fingerprint(self) -> str:
        """That of the model's files, and that it is read so."""
        return f"causal {super().fingerprint()}"

    def load(self, dtype: torch.dtype, max_length: int | None = None) -> Loaded:
        """As `Backbone.load` does it, with attention to what comes before alone."""
        found = super().load(dtype, max_length)
        _, end = special_tokens(self.layout().folder)
        if end is None:
            raise InvalidInput(f"the tokenizer of {self.name!r} has no token that ends a text; give it one (eos_token)")
        tokenizer = found.tokenizer
        if tokenizer.encode("a").ids[-1] != end:
            ending = TemplateProcessing(
                single="$A E", pair="$A E $B E", special_tokens=[("E", end)]
            )  # "E" is a name here, the id is what counts
            before = tokenizer.post_processor
            tokenizer.post_processor = ending if before is None else Processors([before, ending])
        return found

    def _read(self, dtype: torch.dtype) -> Any:
        model = load_model(self.layout().folder, dtype, causal=True)
        with torch.inference_mode():
            pairs = (model(input_ids=torch.tensor([[1, last]])).last_hidden_state[0, 0] for last in (1, 2))
            one, other = (first.float() for first in pairs)
        if not torch.allclose(one, other, atol=1e-5):
            raise InvalidInput(
                f"{type(model).__name__} of {self.name!r} reads in both directions, and transformers cannot make it read in "
                "one; give a language model, or one like BERT"
            )
        return model

"""A dense encoder: a backbone followed by steps."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np
import torch

from ..errors import InvalidInput
from ..models import native_bf16
from ..types import Floats, Item, Kind, Role
from ..workers import workers
from .steps import Features, Step
from .texts import batches, digest, prompted, side_by_side

if TYPE_CHECKING:
    from .backbones import Backbone, Loaded

Precision: TypeAlias = Literal["auto", "fp32", "bf16"]
NO_PROMPTS: Mapping[Role, str] = MappingProxyType({"query": "", "document": ""})
FROM_BACKBONE = frozenset({"input_ids", "attention_mask", "embedding"})
CHUNK = 4096
"""Texts tokenised and sorted at a time, which bounds memory."""


class Stack:
    """A dense encoder: a backbone's token embeddings, turned into one vector by steps.

    Texts are sorted by their number of tokens and batched under a budget of tokens, so little is spent on padding; the
    result does not depend on order or batches beyond rounding. Batches run side by side, one processor core each, which
    is faster than sharing every operation between cores and does not stall when another process is busy. Any number of
    threads may encode at once. The model is loaded by the first call that needs it.

    Args:
        backbone: Where the token embeddings come from.
        steps: Applied in order; the last must leave a `vector`.
        prompts: Text put before each item, by role; a role left out has none.
        max_length: Tokens of a text that are read, special tokens included; the model's own limit by default.
        batch_tokens: Tokens in a batch, padding included. Vectors do not depend on it.
        precision: `fp32`, `bf16` (half the memory, and several times the speed where the processor has instructions for
            it; cosine to fp32 about 0.9999), or `auto`: bf16 where such instructions are found, else fp32.
        threads: Processor cores to use; as many as torch is set to use by default.

    Raises:
        InvalidInput: If a step needs what no step before it gives, no step gives `vector`, or a value is out of range.

    Example:
        >>> from ragistry.encoders.backbones import stack
        >>> encoder = stack("all-MiniLM-L6-v2")
        >>> vectors = encoder.encode(["a poem of fourteen lines", "sonnet", "brake disc"], "document")
        >>> vectors.shape
        (3, 384)
        >>> bool(vectors[0] @ vectors[1] > vectors[0] @ vectors[2])
        True
    """

    kind: Kind = "dense"

    def __init__(
        self,
        backbone: Backbone,
        steps: Sequence[Step],
        *,
        prompts: Mapping[Role, str] = NO_PROMPTS,
        max_length: int | None = None,
        batch_tokens: int = 1024,
        precision: Precision = "auto",
        threads: int | None = None,
    ) -> None:
        for name, value in (("max_length", max_length), ("batch_tokens", batch_tokens), ("threads", threads)):
            if value is not None and value < 1:
                raise InvalidInput(f"{name}={value} was given; a positive number is needed")
        if precision not in get_args(Precision):
            raise InvalidInput(f"the precision {precision!r} is not known; use {', '.join(get_args(Precision))}")
        if unknown := set(prompts) - set(get_args(Role)):
            raise InvalidInput(f"prompts were given for {sorted(unknown)}; the roles are {', '.join(get_args(Role))}")
        check_flow(steps)
        self.backbone = backbone
        self.steps = tuple(steps)
        self.prompts = {role: prompts.get(role, "") for role in get_args(Role)}
        self.max_length = max_length
        self.batch_tokens = batch_tokens
        self.precision = precision
        self.threads = threads
        self._lock = threading.Lock()
        self._loaded: Loaded | None = None

    def encode(self, items: Sequence[Item], role: Role) -> Floats:
        """One vector per item, in order.

        Args:
            items: Texts, or documents (whose title and text are read). They may be empty.
            role: Which prompt to use.

        Returns:
            float32 [len(items), dimensions].

        Raises:
            InvalidInput: If an item is not text that UTF-8 can hold, or the role is not known.
            ModelNotFound: If the model is nowhere to be found.
            Corrupt: If its files are damaged.
        """
        texts = prompted(items, role, self.prompts)
        if not texts:
            return self.encode([""], role)[:0]
        loaded = self.loaded()
        parts = [self._encode_chunk(loaded, texts[i : i + CHUNK], role) for i in range(0, len(texts), CHUNK)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def tokens(self, items: Sequence[Item], role: Role) -> list[list[int]]:
        """The token ids of each item as the model reads it, with its prompt.

        Raises:
            InvalidInput: As `encode`.
        """
        return self.loaded().tokenise(prompted(items, role, self.prompts))

    def over(self, backbone: Backbone, steps: Sequence[Step]) -> Stack:
        """The same settings over another backbone, or with other steps."""
        return Stack(
            backbone,
            steps,
            prompts=self.prompts,
            max_length=self.max_length,
            batch_tokens=self.batch_tokens,
            precision=self.precision,
            threads=self.threads,
        )

    def fingerprint(self) -> str:
        """A hash of the model's files, the steps with their weights, the prompts and the length.

        Batch size, threads and precision are left out: the first two change nothing, and rounding to bf16 moves a vector
        less than 0.001 in cosine, so an index built on one machine can be searched on another.
        """
        found = digest(
            self.prompts,
            self.max_length or self.backbone.layout().max_length,
            [repr(step) for step in self.steps],
            self.backbone.fingerprint(),
        )
        for number, step in enumerate(self.steps):
            for name, value in sorted(step.state_dict().items()):
                found.update(f"{number}.{name}{tuple(value.shape)}{value.dtype}".encode())
                found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return found.hexdigest()

    def loaded(self) -> Loaded:
        """The model and its tokenizer."""
        if self._loaded is None:
            with self._lock:
                if self._loaded is None:
                    bf16 = self.precision == "bf16" or (self.precision == "auto" and native_bf16())
                    for step in self.steps:
                        step.eval()
                    self._loaded = self.backbone.load(torch.bfloat16 if bf16 else torch.float32, self.max_length)
        return self._loaded

    def _encode_chunk(self, loaded: Loaded, texts: Sequence[str], role: Role) -> Floats:
        tokens = loaded.tokenise(texts)
        shares = list(batches([len(ids) for ids in tokens], self.batch_tokens))
        pool = workers(self.threads)
        return side_by_side(tokens, shares, lambda some: pool.submit(self._forward, loaded, some, role))

    def _forward(self, loaded: Loaded, tokens: Sequence[Sequence[int]], role: Role) -> Floats:
        with torch.inference_mode():
            features: Features = loaded.embed(tokens)
            for step in self.steps:
                features = step(features, role)
            return np.asarray(features["vector"].float().numpy(), dtype=np.float32)


def check_flow(steps: Sequence[Step]) -> None:
    """Refuse steps that need what no step before them gives, or of which none gives `vector`."""
    there = set(FROM_BACKBONE)
    for step in steps:
        if missing := step.needs - there:
            raise InvalidInput(
                f"the step {type(step).__name__} needs {sorted(missing)}, but at its place there are only "
                f"{sorted(there)}; put a step that gives what is missing before it"
            )
        there |= step.gives
    if "vector" not in there:
        raise InvalidInput("no step gives `vector`; add Pooling, which turns token embeddings into one vector")

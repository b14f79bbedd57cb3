"""A language model that reads prompts and goes on from them, row by row, in any order."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from copy import copy, deepcopy
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import InvalidInput
from ..types import Ints

Doubles: TypeAlias = npt.NDArray[np.float64]


class Decoding:
    """A model that reads prompts, and then goes on from any of the rows it has read."""

    def __init__(self, model: Any, start: Sequence[int] | None) -> None:
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # adapters hide what is taken
        self.taken = inspect.signature(inner.forward).parameters
        self.model, self.config, self.two = model, model.config, bool(model.config.is_encoder_decoder)
        self.vocabulary = int(model.get_input_embeddings().weight.shape[0])
        if model.training:
            raise InvalidInput("the model is in training mode, where dropout changes answers; call model.eval() first")
        first = getattr(self.config, "decoder_start_token_id", None) if self.two else None
        self.cache: Any = None
        self.start = list(start) if start is not None else [first] if first is not None else []
        if self.two != bool(self.start):
            raise InvalidInput(
                f"start={start}; a decoder beside an encoder needs a token to start from, a causal model takes none: end "
                "its prompts with these tokens"
            )

    def checked(self, prompt: Sequence[int], row: int) -> Ints:
        ids = np.asarray(prompt)
        if ids.ndim != 1 or not ids.size or ids.dtype.kind not in "iu":
            raise InvalidInput(f"prompt {row} is {prompt!r:.100}; give a list of token ids, at least one")
        if ids.min() < 0 or ids.max() >= self.vocabulary:
            known = f"the model knows {self.vocabulary}; use its tokenizer"
            raise InvalidInput(f"prompt {row} holds tokens from {ids.min()} to {ids.max()}, {known}")
        return ids.astype(np.int64)

    def check_room(self, prompt: int, name: int) -> None:
        """Refuse what goes past the model's last position: all but the end token is read."""
        parts = (self.config, getattr(self.config, "encoder", None), getattr(self.config, "decoder", None))
        rooms = [getattr(part, "max_position_embeddings", None) for part in parts]
        room = min((room for room in rooms if room), default=None)
        if room and (max(prompt, len(self.start) + name - 1) if self.two else prompt + name - 1) > room:
            raise InvalidInput(
                f"a prompt of {prompt} tokens and names of up to {name} do not fit the model's {room} positions; shorten "
                "the prompt, or leave the longest names out"
            )

    def batches(self, rows: Sequence[int], prompts: Sequence[Ints], size: int) -> Iterator[list[int]]:
        """Divide rows. A causal model that is not told positions gets prompts of one length."""
        chunk: list[int] = []
        for row in rows:
            mixed = (
                chunk and len(prompts[row]) != len(prompts[chunk[0]]) and not (self.two or "position_ids" in self.taken)
            )
            if len(chunk) == size or mixed:
                yield chunk
                chunk = []
            chunk.append(row)
        if chunk:
            yield chunk

    def begin(self, prompts: Sequence[Ints]) -> Tensor:
        """Read prompts, filled up on the left for a causal model: logits [prompts, vocabulary] of what comes next."""
        width, self.query = max(map(len, prompts)), np.arange(len(prompts))
        gaps = [(0, width - len(prompt)) if self.two else (width - len(prompt), 0) for prompt in prompts]
        ids = self._tensor(np.stack([np.pad(prompt, gap) for prompt, gap in zip(prompts, gaps, strict=True)]))
        self.mask = self._tensor(np.stack([np.pad(np.ones_like(p), gap) for p, gap in zip(prompts, gaps, strict=True)]))
        if self.two:
            self.states = self.model.get_encoder()(input_ids=ids, attention_mask=self.mask)[0]
            return self._decoded(np.tile(self.start, (len(prompts), 1)))[:, -1]
        places = self.mask.cumsum(1).sub(1).clamp(min=0)
        return self._read({"input_ids": ids, "position_ids": places, "logits_to_keep": 1})[:, -1]

    def go(self, rows: Ints, tokens: Ints) -> Tensor:
        """Go on from rows, which are the rows from now on, with tokens [rows, n]: logits [rows, n, vocabulary]."""
        query = self.query[rows]
        if not np.array_equal(rows, np.arange(len(self.query))):
            index, moved = self._tensor(rows), not np.array_equal(query, self.query)
            (self.cache if moved or not self.two else self.cache.self_attention_cache).reorder_cache(index)
            if moved:  # else what belongs to the queries may stay where it is
                self.mask, self.states = self.mask[index], self.states[index] if self.two else None
        self.query = query
        if self.two:
            return self._decoded(tokens)
        ids = self._tensor(tokens)
        places = self.mask.sum(1, keepdim=True) + torch.arange(ids.shape[1], device=ids.device)
        self.mask = torch.cat((self.mask, torch.ones_like(ids)), 1)
        return self._read({"input_ids": ids, "position_ids": places})

    def branch(self) -> Decoding:
        """A copy that goes on by itself."""
        twin = copy(self)
        twin.cache = deepcopy(self.cache)
        return twin

    def _decoded(self, tokens: Ints) -> Tensor:
        return self._read({"decoder_input_ids": self._tensor(tokens), "encoder_outputs": (self.states,)})

    def _read(self, inputs: dict[str, Any]) -> Tensor:
        name = "cache" if "cache" in self.taken else "past_key_values"  # its older name
        given = inputs | {"attention_mask": self.mask} | ({} if self.cache is None else {name: self.cache})
        answer = self.model(
            **{key: v for key, v in given.items() if key in self.taken}, use_cache=True, return_dict=True
        )
        self.cache = getattr(answer, name, None)
        if not hasattr(self.cache, "reorder_cache") or not self.cache.get_seq_length():
            kind = type(self.model).__name__
            raise InvalidInput(
                f"{kind} keeps no cache that beams can share; use another model, or a newer transformers"
            )
        logits: Tensor = answer.logits
        return logits

    def _tensor(self, values: Ints) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.model.device)


def log_probabilities(logits: Tensor, rows: Ints, tokens: Ints) -> Doubles:
    """Of tokens, each in a row of logits [rows, vocabulary], normalised over the vocabulary."""
    check_tokens(logits, tokens)
    whole = logits.float()
    row, token = (torch.from_numpy(places).to(whole.device) for places in (rows, tokens))
    # Several times faster than an index of two numbers.
    said = whole.flatten().index_select(0, row * whole.shape[-1] + token)
    found: Doubles = (said - torch.logsumexp(whole, -1).index_select(0, row)).double().cpu().numpy()
    if np.isnan(found).any():
        raise InvalidInput("the model's logits are NaN; load it in float32 or bfloat16, or check its weights")
    return found


def check_tokens(logits: Tensor, tokens: Ints) -> None:
    """Refuse tokens of names that the model does not know."""
    if len(tokens) and tokens.max() >= logits.shape[-1]:
        raise InvalidInput(f"a name holds token {tokens.max()}, the model knows {logits.shape[-1]}; use its tokenizer")

"""What a language model writes after texts it has read, token by token."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..scorers.language_model import LanguageModel, Prefix
from ..scorers.likelihood import caching, first_place, head_of, layers_of, start_of


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen; see `ragistry.training.synthesis.synthesise`."""

    queries: int
    temperature: float
    top_p: float
    most_tokens: int
    seed: int

    def draws(self, text: str) -> Tensor:
        """A document's own numbers from 0 to 1, one for each token of each query."""
        key = hashlib.sha256(f"{self.seed} {text}".encode()).digest()
        source = torch.Generator().manual_seed(int.from_bytes(key[:7], "little"))
        return torch.rand(self.queries, self.most_tokens, generator=source, dtype=torch.float64)

    def chosen(self, logits: Tensor, draws: Tensor) -> Tensor:
        """One token of each row, int64 [b], from logits [b, V] and a number from 0 to 1 for each."""
        if self.temperature == 0:
            return logits.argmax(dim=-1)
        logits = logits.double()
        scaled = (logits - logits.max(dim=-1, keepdim=True).values) / self.temperature
        likely, tokens = scaled.softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
        upto = likely.cumsum(dim=-1)
        inside = (upto - likely < self.top_p).sum(dim=-1, keepdim=True)
        mass = upto.gather(1, inside - 1)
        place = torch.searchsorted(upto, draws[:, None] * mass, right=True)
        return tokens.gather(1, torch.minimum(place, inside - 1))[:, 0]


def continued(model: LanguageModel, prefixes: Sequence[Prefix], draws: Tensor, how: Sampling) -> list[list[int]]:
    """The tokens that follow each prefix, up to the one that ends a text, or as many as there is room for."""
    room = [min(how.most_tokens, model.limit - prefix.length * model.causal) for prefix in prefixes]
    following = _Following(model, prefixes)
    found: list[list[int]] = [[] for _ in prefixes]
    going = list(range(len(prefixes)))
    for step in range(max(room)):
        tokens = how.chosen(following.logits, draws[going, step])
        stay = []
        for place, (row, token) in enumerate(zip(going, tokens.tolist(), strict=True)):
            if token != model.end:
                found[row].append(token)
                if len(found[row]) < room[row]:
                    stay.append(place)
        if not stay:
            break
        going = [going[place] for place in stay]
        following.go_on(tokens, stay)
    return found


class _Following:
    """Texts that a model goes on from, side by side, and its `logits` for what comes next, [b, V]."""

    def __init__(self, model: LanguageModel, prefixes: Sequence[Prefix]) -> None:
        from transformers import DynamicCache

        self._model, self._causal, states = model.model, model.causal, [prefix.states for prefix in prefixes]
        longest = max(kept.shape[-2] for kept in states)
        self._mask = torch.zeros(len(states), longest, dtype=torch.long)
        filled = states[0].new_zeros(len(states), *states[0].shape[:-2], longest, states[0].shape[-1])
        for row, kept in enumerate(states):
            # A decoder sees its encoder's output from the left; a causal model's new tokens join on the right.
            own = slice(longest - kept.shape[-2], longest) if self._causal else slice(0, kept.shape[-2])
            filled[row, ..., own, :], self._mask[row, own] = kept, 1
        if self._causal:
            self._cache: Any = DynamicCache()
            for layer in range(filled.shape[1]):
                self._cache.update(*(filled[:, layer, part].contiguous() for part in (0, 1)), layer)
            read = torch.tensor([prefix.length for prefix in prefixes])
            self._place = first_place(self._model.config) + read
            self.logits = head_of(self._model)(torch.stack([prefix.last for prefix in prefixes])).float()
        else:
            self._cache, self._given = None, filled
            self._decode(torch.full((len(states),), start_of(self._model.config)))

    def go_on(self, tokens: Tensor, stay: list[int]) -> None:
        """Read a next token of some of the rows, and forget the others."""
        if len(stay) < len(tokens):
            self._cache.batch_select_indices(torch.tensor(stay))
            self._mask, tokens = self._mask[stay], tokens[stay]
            if self._causal:
                self._place = self._place[stay]
            else:
                self._given = self._given[stay]
        if not self._causal:
            self._decode(tokens)
            return
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)
        layers = layers_of(self._model)
        hidden = layers(
            input_ids=tokens[:, None],
            attention_mask=self._mask,
            position_ids=self._place[:, None],
            **caching(layers, self._cache),
        ).last_hidden_state[:, -1]
        self._place = self._place + 1
        self.logits = head_of(self._model)(hidden).float()

    def _decode(self, tokens: Tensor) -> None:
        from transformers.modeling_outputs import BaseModelOutput

        output = self._model(
            encoder_outputs=BaseModelOutput(last_hidden_state=self._given),
            attention_mask=self._mask,
            decoder_input_ids=tokens[:, None],
            **caching(self._model, self._cache),
        )
        self._cache, self.logits = output.past_key_values, output.logits[:, -1].float()

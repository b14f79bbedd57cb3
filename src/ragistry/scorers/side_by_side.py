"""Keys and values of several texts as one cache of transformers, which this module imports: import it when it is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


def side_by_side(states: Sequence[Tensor]) -> Any:
    """A cache of texts, [layers, 2, heads, n, width] each, padded on the left."""
    cache = DynamicCache()
    cache.layers = [_Layer([text[layer] for text in states]) for layer in range(len(states[0]))]
    return cache


class _Layer(DynamicLayer):  # type: ignore[misc]
    """A layer, whose texts are copied when it is their turn: all layers at once would be twice the memory, and slow."""

    def __init__(self, texts: Sequence[Tensor]) -> None:
        super().__init__()
        self.texts, self.is_initialized = texts, True
        self.length = max(text.shape[2] for text in texts)

    def update(self, key_states: Tensor, value_states: Tensor, *rest: Any, **more: Any) -> tuple[Tensor, Tensor]:
        found = self._followed(0, key_states), self._followed(1, value_states)
        self.length += key_states.shape[2]
        return found

    def _followed(self, part: int, new: Tensor) -> Tensor:
        rows, heads, steps, width = new.shape
        found = new.new_empty(rows, heads, self.length + steps, width)
        for place, text in zip(found, self.texts, strict=True):
            first = self.length - text.shape[2]
            place[:, :first] = 0
            place[:, first : self.length] = text[part]
        found[:, :, self.length :] = new
        return found

    def get_seq_length(self) -> int:
        return self.length

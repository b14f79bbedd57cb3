"""What every runtime of a model does alike with texts: prompts, batches, and the fingerprint.

Nothing here needs torch, so that a query can be encoded without it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future

import numpy as np

from ..types import Floats, Item, Role
from .functions import texts_of


def prompted(items: Sequence[Item], role: Role, prompts: Mapping[Role, str]) -> list[str]:
    """The text of each item, after the prompt of its role.

    Raises:
        InvalidInput: If an item is not text that UTF-8 can hold, or the role is not known.

    Example:
        >>> from ragistry import Document
        >>> prompted(["cat", Document("1", "dog")], "query", {"query": "about: ", "document": ""})
        ['about: cat', 'about: dog']
    """
    prompt = prompts.get(role, "")
    return [prompt + text for text in texts_of(items, role)]


def batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Positions of the items of each batch, longest items first; a batch has at most `budget` tokens, padding included.

    Example:
        >>> list(batches([1, 9, 2, 8], budget=20))
        [[1, 3], [2, 0]]
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    start = 0
    while start < len(order):
        size = max(1, budget // lengths[order[start]])
        yield order[start : start + size]
        start += size


def side_by_side(
    tokens: Sequence[Sequence[int]], parts: Sequence[list[int]], submit: Callable[[list[Sequence[int]]], Future[Floats]]
) -> Floats:
    """Vectors of texts, float32 [len(tokens), d], in their order, computed batch by batch.

    Args:
        tokens: Of each text.
        parts: Positions of the texts of each batch: see `batches`.
        submit: Begins to compute the vectors of a batch. Once one batch has failed, those not begun are not.
    """
    futures = [submit([tokens[i] for i in part]) for part in parts]
    try:
        vectors = np.concatenate([future.result() for future in futures])
    finally:
        for future in futures:
            future.cancel()
    result = np.empty_like(vectors)
    result[np.concatenate(parts)] = vectors
    return result


def digest(prompts: Mapping[Role, str], max_length: int, steps: Sequence[str], backbone: str) -> hashlib._Hash:
    """What a fingerprint begins with: the settings, then the fingerprint of the backbone.

    It says nothing about the runtime, so that what one has indexed another can search.
    """
    settings = {"prompts": dict(prompts), "max_length": max_length, "steps": list(steps)}
    found = hashlib.sha256(json.dumps(["stack", 1, settings], sort_keys=True).encode())
    found.update(backbone.encode())
    return found

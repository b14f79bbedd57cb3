"""What every runtime of a model does alike with texts: prompts, batches, and the fingerprint.

Nothing here needs torch, so that a query can be encoded without it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence

from ..errors import InvalidInput
from ..types import Document, Item, Role, check_text


def prompted(items: Sequence[Item], role: Role, prompts: Mapping[Role, str]) -> list[str]:
    """The text of each item, after the prompt of its role.

    Raises:
        InvalidInput: If an item is not text that UTF-8 can hold, or the role is not known.

    Example:
        >>> prompted(["cat", Document("1", "dog")], "query", {"query": "about: ", "document": ""})
        ['about: cat', 'about: dog']
    """
    if role not in prompts:
        raise InvalidInput(f"the role {role!r} is not known; use {' or '.join(prompts)}")
    if isinstance(items, str | Document):
        raise InvalidInput(f"one {type(items).__name__} was given; a list of items is needed: put it in brackets")
    prompt = prompts[role]
    texts = []
    for number, item in enumerate(items):
        text = item.full_text if isinstance(item, Document) else item
        if not isinstance(text, str):
            raise InvalidInput(f"item {number} is {type(text).__name__}; a str or a Document is needed")
        if text is item:
            check_text(text, f"item {number}")
        texts.append(prompt + text)
    return texts


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


def digest(prompts: Mapping[Role, str], max_length: int, steps: Sequence[str], backbone: str) -> hashlib._Hash:
    """What a fingerprint begins with: the settings, then the fingerprint of the backbone.

    It says nothing about the runtime, so that what one has indexed another can search.
    """
    settings = {"prompts": dict(prompts), "max_length": max_length, "steps": list(steps)}
    found = hashlib.sha256(json.dumps(["stack", 1, settings], sort_keys=True).encode())
    found.update(backbone.encode())
    return found

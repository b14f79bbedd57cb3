"""Metadata as JSON: what it may hold, and what every SQLite reads alike."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from .errors import InvalidInput
from .types import check_text

MAX_NESTING = 100
MAX_BITS = 4096
DIGITS = 15  # significant ones that every double keeps


def normal(value: Any, what: str, depth: int = 0) -> Any:
    """A value as JSON gives it back: mappings become dicts and tuples lists.

    Args:
        value: The value to normalise.
        what: What it is, for the message of an error.
        depth: How many lists and objects it is inside of.

    Returns:
        A copy made of dict, list, str, int, float, bool and None only.

    Raises:
        InvalidInput: If JSON cannot hold it; the message says where it is, what it is and what to do.

    Example:
        >>> normal({"size": (3, 4)}, "metadata")
        {'size': [3, 4]}
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        check_text(value, what)
        return str(value)
    if isinstance(value, int):
        if value.bit_length() > MAX_BITS:
            raise InvalidInput(f"{what} is an integer of {value.bit_length()} bits, over {MAX_BITS}; give it as text")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidInput(f"{what} is {value}, which JSON cannot hold; give a finite number or None")
        return float(value)
    if depth > MAX_NESTING:
        raise InvalidInput(f"{what[:200]} is nested more than {MAX_NESTING} deep, or holds itself; flatten it")
    if isinstance(value, Mapping):
        return {_key(key, what): normal(held, f"{what}[{key!r}]", depth + 1) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [normal(held, f"{what}[{i}]", depth + 1) for i, held in enumerate(value)]
    raise InvalidInput(
        f"{what} is {type(value).__name__}, which JSON cannot hold; convert it, say to a list, a number or text"
    )


def encode(value: Any) -> str:
    """Normal values as JSON text, keys in the order given, characters as they are."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def plain(metadata: Mapping[str, Any]) -> bool:
    """Whether every SQLite reads normal metadata as Python does, so that SQL may judge it.

    Not plain are integers beyond 64 bits, floats of more than 15 digits, null characters, keys that JSON must escape,
    and keys that a dotted field name could mean.

    Example:
        >>> plain({"year": 2024, "score": 0.25}), plain({"serial": 2**64}), plain({"dc.title": "Sonnets"})
        (True, False, False)
    """
    return not any("." in key for key in metadata) and plain_value(metadata)


def plain_value(value: Any) -> bool:
    """Whether every SQLite reads a normal value as Python does."""
    if isinstance(value, str):
        return "\0" not in value
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, int):
        return -(2**63) < value < 2**63
    if isinstance(value, float):
        # Numbers of so few digits lie so far apart that reading them a unit off neither merges nor reorders any.
        digits = repr(value)
        return "e" not in digits and len(digits.replace(".", "").lstrip("-0")) <= DIGITS
    if isinstance(value, dict):
        return all(map(plain_key, value)) and all(map(plain_value, value.values()))
    return all(map(plain_value, value))


def plain_key(key: str) -> bool:
    """Whether a key stands unescaped in JSON text and can be quoted in a JSON path."""
    return key != "" and '"' not in key and "\\" not in key and min(key) >= " "


def _key(key: Any, what: str) -> str:
    if not isinstance(key, str):
        raise InvalidInput(
            f"{what} has the key {key!r} of type {type(key).__name__}; keys must be text, so use str(key)"
        )
    check_text(key, f"{what}: the key {key!r}")
    return str(key)

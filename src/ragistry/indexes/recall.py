"""What is known of the recall of a saved index."""

from __future__ import annotations

from typing import Any

OF_A_PART = {"margin", "points"}
"""What a part of an index keeps beside its recall, by which it is told from other states."""


def measured(state: Any) -> float | None:
    """The least recall@10 that was measured when parts of a saved index were built.

    See `ragistry.indexes.fastscan` and `ragistry.indexes.centroids`.

    Example:
        >>> measured({"segments": [{"margin": 0.1, "recall": 0.9996}, {"margin": None, "recall": 1.0}]})
        0.9996
        >>> measured({"segments": []}) is None
        True
    """
    if isinstance(state, dict):
        found = [float(state["recall"])] if "recall" in state and OF_A_PART & set(state) else []
        found += [recall for value in state.values() if (recall := measured(value)) is not None]
    else:
        parts = state if isinstance(state, list) else []
        found = [recall for part in parts if (recall := measured(part)) is not None]
    return min(found, default=None)

"""Compiled loops over the nodes of tries; see `trie` for how they are stored."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import float32, int64, types

from ..compiled import B1, I32, I64, U8, compiled, readonly

_Children = types.Tuple((int64[::1], int64[::1], int64[::1]))


@compiled([_Children(tokens, U8, I64, B1, I64) for tokens in (readonly(types.uint16), I32)])
def children(tokens: Any, low: Any, steps: Any, opened: Any, nodes: Any) -> Any:
    """The tokens after each node, the nodes they lead to, and their offsets: open ones only, or all if none is given. No
    offsets at all if there is no such node: checked here, where it costs least."""
    begins, offsets = np.empty(len(nodes), np.int64), np.zeros(len(nodes) + 1, np.int64)
    for i in range(len(nodes)):
        node = nodes[i]
        if node < 0 or node >= len(low) - 1:
            return begins[:0], begins[:0], begins[:0]
        step = np.searchsorted(steps, node, "right")
        begins[i] = low[node] + (step << 8)
        while step < len(steps) and steps[step] <= node + 1:
            step += 1
        count = low[node + 1] + (step << 8) - begins[i]
        if len(opened):
            count = np.count_nonzero(opened[begins[i] + 1 : begins[i] + 1 + count])
        offsets[i + 1] = offsets[i] + count
    found, kids = np.empty(offsets[-1], np.int64), np.empty(offsets[-1], np.int64)
    for i in range(len(nodes)):
        edge = begins[i]
        for at in range(offsets[i], offsets[i + 1]):
            while len(opened) and not opened[edge + 1]:
                edge += 1
            found[at], kids[at] = tokens[edge], edge + 1
            edge += 1
    return found, kids, offsets


@compiled(_Children(I64, I64, I64, int64, I64, I64, I64, int64))
def merged(tokens: Any, kids: Any, offsets: Any, none: int, tokens2: Any, kids2: Any, offsets2: Any, none2: int) -> Any:
    """What follows the same nodes in two tries: the numbers of children are added, `none` standing for those not there."""
    most = len(tokens) + len(tokens2)
    found, sums, edges = np.empty(most, np.int64), np.empty(most, np.int64), np.zeros(len(offsets), np.int64)
    at = 0
    for i in range(len(offsets) - 1):
        one, two = offsets[i], offsets2[i]
        while one < offsets[i + 1] or two < offsets2[i + 1]:
            here = one < offsets[i + 1] and (two == offsets2[i + 1] or tokens[one] <= tokens2[two])
            there = two < offsets2[i + 1] and (one == offsets[i + 1] or tokens2[two] <= tokens[one])
            found[at] = tokens[one] if here else tokens2[two]
            sums[at] = (kids[one] if here else none) + (kids2[two] if there else none2)
            one, two, at = one + here, two + there, at + 1
        edges[i + 1] = at
    return found[:at].copy(), sums[:at].copy(), edges


@compiled(int64[::1](types.Array(float32, 2, "C", readonly=True), I64, I64, I64, I64))
def likely(logits: Any, tokens: Any, offsets: Any, most: Any, ends: Any) -> Any:
    """The places of so many tokens of each row as have the highest logits, of all that tie with the last of them, and of
    end tokens. What is not a number counts as high."""
    chosen, at = np.empty(len(tokens), np.int64), 0
    best = np.empty(min(most.max(), len(tokens)), np.float32)
    for row in range(len(most)):
        first, stop, size = offsets[row], offsets[row + 1], most[row]
        least = np.float32(-np.inf)
        if stop - first > size:
            best[:size] = -np.inf  # falling
            for place in range(first, stop):
                value = logits[row, tokens[place]]
                if value > least and tokens[place] != ends[row]:
                    rank = size - 1
                    while rank > 0 and best[rank - 1] < value:
                        best[rank] = best[rank - 1]
                        rank -= 1
                    best[rank] = value
                    least = best[size - 1]
        for place in range(first, stop):
            if not logits[row, tokens[place]] < least or tokens[place] == ends[row]:
                chosen[at] = place
                at += 1
    return chosen[:at].copy()

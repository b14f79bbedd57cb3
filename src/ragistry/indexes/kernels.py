"""Compiled loops over postings; see `inverted` for what they are for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import boolean, float32, float64, int32, int64, types

from ..compiled import B1, F32, I32, I64, compiled
from .weighting import LOGARITHMIC, SATURATING

_BLOCK = 8192
_Inverted = types.Tuple((int64[::1], int64[::1], int32[::1], float32[::1], float32[::1]))


@compiled(_Inverted(I64, I64, F32))
def invert(columns: Any, starts: Any, data: Any) -> Any:
    """Rows to postings: sorted terms, their starts, rows, values, and the sum of each row. Zeros are left out."""
    size = 16
    while size < 2 * len(columns):
        size *= 2
    table, mask = np.full(size, -1, np.int64), np.uint64(size - 1)
    numbers = np.empty(len(columns), np.int32)
    terms, found = np.empty(len(columns), np.int64), 0
    for i in range(len(columns)):
        slot = (np.uint64(columns[i]) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(20)) & mask
        while table[slot] >= 0 and terms[table[slot]] != columns[i]:
            slot = (slot + np.uint64(1)) & mask
        if table[slot] < 0:
            table[slot] = found
            terms[found] = columns[i]
            found += 1
        numbers[i] = table[slot]
    order = np.argsort(terms[:found])
    ranks = np.empty(found, np.int64)
    for i in range(found):
        ranks[order[i]] = i
    counts = np.zeros(found + 1, np.int64)
    for i in range(len(columns)):
        if data[i] != 0:
            counts[ranks[numbers[i]] + 1] += 1
    firsts = np.cumsum(counts)
    cursor = firsts[:-1].copy()
    rows, values = np.empty(firsts[-1], np.int32), np.empty(firsts[-1], np.float32)
    lengths = np.zeros(len(starts) - 1, np.float32)
    for row in range(len(starts) - 1):
        length = 0.0
        for i in range(starts[row], starts[row + 1]):
            if data[i] != 0:
                at = cursor[ranks[numbers[i]]]
                rows[at], values[at] = row, data[i]
                cursor[ranks[numbers[i]]] = at + 1
                length += data[i]
        lengths[row] = length
    return terms[order], firsts, rows, values, lengths


@compiled(int64[::1](I64, I64))
def find(terms: Any, wanted: Any) -> Any:
    """The position of each wanted term in the sorted terms, -1 where it is not."""
    found = np.searchsorted(terms, wanted)
    for i in range(len(wanted)):
        if found[i] == len(terms) or terms[found[i]] != wanted[i]:
            found[i] = -1
    return found


@compiled(types.void(I64, I32, F32, B1, int64[::1], float64[::1]))
def count_alive(starts: Any, rows: Any, values: Any, alive: Any, documents: Any, occurrences: Any) -> None:
    """Document and term frequencies over alive rows."""
    for term in range(len(starts) - 1):
        n, total = 0, 0.0
        for i in range(starts[term], starts[term + 1]):
            if alive[rows[i]]:
                n += 1
                total += values[i]
        documents[term], occurrences[term] = n, total


@compiled(types.void(I64, I32, I32, I64, int64[::1]))
def count_kept(starts: Any, rows: Any, renumbered: Any, where: Any, counts: Any) -> None:
    """Add, per merged term, the postings whose rows are kept."""
    for term in range(len(starts) - 1):
        for i in range(starts[term], starts[term + 1]):
            counts[where[term] + 1] += renumbered[rows[i]] >= 0


@compiled(types.void(I64, I32, F32, I32, I64, int64[::1], int32[::1], float32[::1]))
def copy_kept(
    starts: Any, rows: Any, values: Any, renumbered: Any, where: Any, cursor: Any, new_rows: Any, new_values: Any
) -> None:
    """Append the postings whose rows are kept to those of the merged terms."""
    for term in range(len(starts) - 1):
        at = cursor[where[term]]
        for i in range(starts[term], starts[term + 1]):
            row = renumbered[rows[i]]
            if row >= 0:
                new_rows[at], new_values[at] = row, values[i]
                at += 1
        cursor[where[term]] = at


@compiled(types.void(int64[::1], float32[::1], int64, int64, float32, I32))
def _rise(best: Any, scores: Any, at: int, row: int, score: float, ranks: Any) -> None:
    """Add to the bottom of the heap and restore its order."""
    while at > 0:
        parent = (at - 1) // 2
        if scores[parent] < score or (scores[parent] == score and ranks[best[parent]] > ranks[row]):
            break
        scores[at], best[at] = scores[parent], best[parent]
        at = parent
    scores[at], best[at] = score, row


@compiled(types.void(int64[::1], float32[::1], int64, int64, float32, I32))
def _sink(best: Any, scores: Any, size: int, row: int, score: float, ranks: Any) -> None:
    """Replace the top of the heap and restore its order."""
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        right = child + 1
        if right < size and (
            scores[right] < scores[child]
            or (scores[right] == scores[child] and ranks[best[right]] > ranks[best[child]])
        ):
            child = right
        if score < scores[child] or (score == scores[child] and ranks[row] > ranks[best[child]]):
            break
        scores[at], best[at] = scores[child], best[child]
        at = child
    scores[at], best[at] = score, row


@compiled(types.void(I32, F32, F32, int64, float64, float64, float64, float32[::1]))
def weigh(rows: Any, values: Any, lengths: Any, form: int, a: float, c0: float, c1: float, weights: Any) -> None:
    """What each posting of a term adds to a score; see `weighting` for the forms."""
    # Unsigned numbers of rows spare the compiler the wrapping of negative ones, and let it work on several at once.
    if form == SATURATING:
        for i in range(len(rows)):
            f = np.float64(values[i])
            weights[i] = a * f / (f + c0 + c1 * lengths[np.uint32(rows[i])])
    elif form == LOGARITHMIC:
        for i in range(len(rows)):
            f = np.float64(values[i])
            weights[i] = np.log1p(a * f / lengths[np.uint32(rows[i])]) if c0 > 0 else np.log1p(a * f)
    else:
        for i in range(len(rows)):
            weights[i] = a * values[i]


@compiled(
    types.Tuple((int64[::1], float32[::1]))(
        I64, I32, F32, F32, I64, F32, float64, float64, float64, B1, boolean, I32, int64,
    )
)  # fmt: skip
def search(
    starts: Any, rows: Any, weights: Any, lengths: Any, places: Any, amounts: Any,
    base: float, prior: float, mass: float, allowed: Any, whole: bool, ranks: Any, k: int,
) -> Any:  # fmt: skip
    """Add up the query's terms, one after another for each block of rows that the cache holds, and keep the best `k`."""
    cursors, stops = np.zeros(len(places), np.int64), np.zeros(len(places), np.int64)
    for j in range(len(places)):
        if places[j] >= 0:
            cursors[j], stops[j] = starts[places[j]], starts[places[j] + 1]
    sums, touched = np.full(_BLOCK, -np.inf, np.float32), np.empty(_BLOCK + 1, np.int32)
    # A heap of the best so far, its worst on top: lower score, then later id.
    best, scores, size = np.empty(k, np.int64), np.empty(k, np.float32), 0
    while True:
        first = len(ranks)
        for j in range(len(places)):
            if cursors[j] < stops[j]:
                first = min(first, rows[cursors[j]])
        if first == len(ranks):
            break
        used = 0
        for j in range(len(places)):
            # Unsigned numbers spare the wrapping of negative ones.
            i, stop = np.uint64(cursors[j]), np.uint64(stops[j])
            while i < stop and rows[i] - first < _BLOCK:
                # Weights are never negative. No branch here: it would be mispredicted half of the time.
                at = np.uint32(rows[i] - first)
                touched[np.uint32(used)] = at
                used += sums[at] == -np.inf
                sums[at] = max(sums[at], np.float32(0)) + amounts[j] * weights[i]
                i += np.uint64(1)
            cursors[j] = i
        for t in range(used):
            at = np.uint32(touched[t])
            row, score = first + touched[t], sums[at] + np.float32(base)
            sums[at] = -np.inf
            if not (whole or allowed[row]):
                continue
            if prior > 0:
                score += np.float32(mass * np.log(prior / (prior + lengths[row])))
            if size < k:
                _rise(best, scores, size, row, score, ranks)
                size += 1
            elif score > scores[0] or (score == scores[0] and ranks[row] < ranks[best[0]]):
                _sink(best, scores, size, row, score, ranks)
    for last in range(size - 1, 0, -1):
        row, score = best[last], scores[last]
        best[last], scores[last] = best[0], scores[0]
        _sink(best, scores, last, row, score, ranks)
    return best[:size].copy(), scores[:size].copy()

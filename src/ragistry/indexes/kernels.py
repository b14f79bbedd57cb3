"""Compiled loops over postings; see `inverted` for what they are for."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..compiled import compiled
from .weighting import LOGARITHMIC, SATURATING

_BLOCK = 8192
_NEAR = 32  # what a document costs that gets near, in postings that could be added up meanwhile


@compiled("Tuple((int64[::1], int64[::1], int32[::1], float32[::1], float32[::1]))(I64, I64, F32)")
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


@compiled("int64[::1](I64, I64)")
def union(one: Any, other: Any) -> Any:
    """What either of two sorted arrays without repetitions holds, sorted."""
    found = np.empty(len(one) + len(other), np.int64)
    used, i, j = 0, 0, 0
    while i < len(one) or j < len(other):
        if j == len(other) or (i < len(one) and one[i] < other[j]):
            found[used] = one[i]
            i += 1
        else:
            if i < len(one) and one[i] == other[j]:
                i += 1
            found[used] = other[j]
            j += 1
        used += 1
    return found[:used].copy()


@compiled("int64[::1](I64, I64)")
def find(terms: Any, wanted: Any) -> Any:
    """The position of each wanted term in the sorted terms, -1 where it is not."""
    found = np.searchsorted(terms, wanted)
    for i in range(len(wanted)):
        if found[i] == len(terms) or terms[found[i]] != wanted[i]:
            found[i] = -1
    return found


@compiled("void(I64, I32, I32, I64, int64[::1])")
def count_kept(starts: Any, rows: Any, renumbered: Any, where: Any, counts: Any) -> None:
    """Add, per merged term, the postings whose rows are kept."""
    for term in range(len(starts) - 1):
        for i in range(starts[term], starts[term + 1]):
            counts[where[term] + 1] += renumbered[rows[i]] >= 0


@compiled("void(I64, I32, F32, I32, I64, int64[::1], int32[::1], float32[::1])")
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


@compiled("void(int64[::1], float32[::1], int64, int64, float32, I32)")
def _rise(best: Any, scores: Any, at: int, row: int, score: float, ranks: Any) -> None:
    """Add to the bottom of the heap and restore its order."""
    while at > 0:
        parent = (at - 1) // 2
        if scores[parent] < score or (scores[parent] == score and ranks[best[parent]] > ranks[row]):
            break
        scores[at], best[at] = scores[parent], best[parent]
        at = parent
    scores[at], best[at] = score, row


@compiled("void(int64[::1], float32[::1], int64, int64, float32, I32)")
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


@compiled("void(I32, F32, F32, int64, float64, float64, float64, float32[::1])")
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


@compiled("int64(I32, int64, int64, int64)")
def _seek(rows: Any, low: int, stop: int, row: int) -> int:
    """Where a row is, or would be, in rising rows from `low` on: probably near."""
    step, high = 1, low
    while high < stop and rows[np.uint64(high)] < row:
        low = high + 1
        high += step
        step *= 2
    high = min(high, stop)
    while low < high:
        middle = (low + high) // 2
        if rows[np.uint64(middle)] < row:
            low = middle + 1
        else:
            high = middle
    return low


@compiled("boolean(I32, F32, F32, int64[::1], int64[::1], float64[::1], int64[::1], int64, float64, float64)")
def _hopeful(
    rows: Any, weights: Any, amounts: Any, cursors: Any, stops: Any, bounds: Any, passed: Any,
    row: int, hope: float, needed: float,
) -> bool:  # fmt: skip
    """Whether a document may get there, once it is known which of the terms passed over it has, the greatest first."""
    for t in range(len(passed) - 1, -1, -1):
        j = passed[t]
        at = _seek(rows, cursors[j], stops[j], row)
        hope -= bounds[j]
        if at < stops[j] and rows[at] == row:
            hope += amounts[j] * weights[at]
        if hope < needed:
            return False
    return True


@compiled("float32(I32, F32, F32, int64[::1], int64[::1], int64)")
def _total(rows: Any, weights: Any, amounts: Any, cursors: Any, stops: Any, row: int) -> Any:
    """The sum of all terms of one document, in their order."""
    total = np.float32(0)
    for j in range(len(cursors)):
        at = _seek(rows, cursors[j], stops[j], row)
        if at < stops[j] and rows[at] == row:
            total = total + amounts[j] * weights[at]
    return total


@compiled(
    "Tuple((int64[::1], float32[::1]))"
    "(I64, I32, F32, F32, I64, F32, F32, float64, float64, float64, B1, boolean, I32, int64)"
)
def search(
    starts: Any, rows: Any, weights: Any, lengths: Any, places: Any, amounts: Any, tops: Any,
    base: float, prior: float, mass: float, allowed: Any, whole: bool, ranks: Any, k: int,
) -> Any:  # fmt: skip
    """Add up the query's terms, one after another for each block of rows that the cache holds, and keep the best `k`.

    Terms that cannot, even together, bring a document among the best so far are passed over: no document is looked for
    in their postings but those that other terms have brought so near that they may get there (MaxScore: Turtle and Flood,
    "Query evaluation: strategies and optimizations", 1995). Such a document's score is added up again from all of its
    terms in their order, so that nothing but time depends on what was passed over. Where too many documents get so near,
    the block is added up in full after all, and the next ones too: of every failure twice as many as of the one before.
    """
    n = len(places)
    cursors, stops, ends = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.int64)
    bounds = np.zeros(n, np.float64)
    for j in range(n):
        if places[j] >= 0:
            cursors[j], stops[j] = starts[places[j]], starts[places[j] + 1]
            bounds[j] = np.float64(amounts[j]) * tops[j]
    counts = (stops - cursors) * (_BLOCK / max(len(ranks), 1))  # of a term's postings in a block, about
    order = np.argsort(bounds)
    passed = np.zeros(n, np.bool_)
    # Rounding may make a sum a little larger than what it is made of.
    slack, least = 1 + (n + 4) * 2.4e-7, base + abs(base) * 1e-6 + 1e-37
    sums, touched = np.full(_BLOCK, -np.inf, np.float32), np.empty(_BLOCK + 1, np.int32)
    # A heap of the best so far, its worst on top: lower score, then later id.
    best, scores, size = np.empty(k, np.int64), np.empty(k, np.float32), 0
    first, again, waiting, penalty = 0, False, 0, 1
    while True:
        # The first `m` terms in order are passed over in this block: they add `rest` at most. Of the sum of the others,
        # `floor` is the least that is near.
        rest, spared, m = 0.0, 0.0, 0
        needed = floor = -np.inf
        passed[:] = False
        if size == k and n > 0:
            needed = (np.float64(scores[0]) - least) / slack
            floor = needed
            if waiting == 0:
                while m < n and rest + bounds[order[m]] < needed:
                    rest += bounds[order[m]]
                    spared += counts[order[m]]
                    passed[order[m]] = True
                    m += 1
                if m == n:
                    break
                floor = needed - rest
        if not again:
            start = first
            first = len(ranks)
            for j in range(n):
                if not passed[j]:
                    if cursors[j] < stops[j] and rows[cursors[j]] < start:
                        cursors[j] = _seek(rows, cursors[j], stops[j], start)
                    if cursors[j] < stops[j]:
                        first = min(first, rows[cursors[j]])
            if first == len(ranks):
                break
        used = 0
        for j in range(n):
            if passed[j]:
                continue
            if again:
                cursors[j] = _seek(rows, cursors[j], stops[j], first)
            # Unsigned numbers spare the wrapping of negative ones.
            i, stop = np.uint64(cursors[j]), np.uint64(stops[j])
            while i < stop and rows[i] - first < _BLOCK:
                # Weights are never negative. No branch here: it would be mispredicted half of the time.
                at = np.uint32(rows[i] - first)
                touched[np.uint32(used)] = at
                used += sums[at] == -np.inf
                sums[at] = max(sums[at], np.float32(0)) + amounts[j] * weights[i]
                i += np.uint64(1)
            ends[j] = i
        again = False
        near = 0
        for t in range(used):
            at = np.uint32(touched[t])
            touched[np.uint32(near)] = at
            if sums[at] >= floor and (whole or allowed[first + touched[t]]):
                near += 1
            else:
                sums[at] = -np.inf
        if m > 0 and near > 0:
            if near * _NEAR > spared:
                for t in range(near):
                    sums[np.uint32(touched[t])] = -np.inf
                again, waiting, penalty = True, penalty, 2 * penalty
                continue
            for j in range(n):
                if passed[j]:
                    cursors[j] = _seek(rows, cursors[j], stops[j], first)
        for t in range(near):
            at = np.uint32(touched[t])
            row, total = first + touched[t], sums[at]
            sums[at] = -np.inf
            if m > 0:
                if not _hopeful(rows, weights, amounts, cursors, stops, bounds, order[:m], row, total + rest, needed):
                    continue
                total = _total(rows, weights, amounts, cursors, stops, row)
            score = total + np.float32(base)
            if prior > 0:
                score += np.float32(mass * np.log(prior / (prior + lengths[row])))
            if size < k:
                _rise(best, scores, size, row, score, ranks)
                size += 1
            elif score > scores[0] or (score == scores[0] and ranks[row] < ranks[best[0]]):
                _sink(best, scores, size, row, score, ranks)
                needed = (np.float64(scores[0]) - least) / slack
        for j in range(n):
            if not passed[j]:
                cursors[j] = ends[j]
        first += _BLOCK
        waiting = max(waiting - 1, 0)
    for last in range(size - 1, 0, -1):
        row, score = best[last], scores[last]
        best[last], scores[last] = best[0], scores[0]
        _sink(best, scores, last, row, score, ranks)
    return best[:size].copy(), scores[:size].copy()

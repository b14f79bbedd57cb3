"""Postings added up by numpy, for a few queries of a process that has not loaded compiled code: see `ragistry.compiled`.

The same operations on the same numbers in the same order as in `kernels`, so that scores are equal bit for bit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..types import Bools, Floats, Ints
from .weighting import LINEAR, SATURATING

FORMS = (SATURATING, LINEAR)
"""Of weights. Logarithms are left to `kernels`, for no two libraries round them alike."""

_Rows = npt.NDArray[np.int32]


def weigh(
    rows: _Rows, values: Floats, lengths: Floats, form: int, a: float, c0: float, c1: float, weights: Floats
) -> None:
    """What each posting of a term adds to a score, put into `weights`; see `weighting` for the forms."""
    f = values.astype(np.float64)
    weights[:] = a * f / (f + c0 + c1 * lengths[rows].astype(np.float64)) if form == SATURATING else a * f


def search(
    starts: Ints, rows: _Rows, weights: Floats, lengths: Floats, places: Ints, amounts: Floats, tops: Floats,
    base: float, prior: float, mass: float, allowed: Bools, whole: bool, ranks: _Rows, k: int,
) -> tuple[Ints, Floats]:  # fmt: skip
    """The best `k` rows and their scores, for weightings without a prior."""
    sums, held = np.zeros(len(ranks), np.float32), np.zeros(len(ranks), np.bool_)
    for place, amount in zip(places.tolist(), amounts, strict=True):
        if place >= 0:
            first, last = starts[place : place + 2].tolist()
            mine = rows[first:last]
            sums[mine] += amount * weights[first:last]
            held[mine] = True
    found = np.flatnonzero(held if whole else held & allowed)
    scores = sums[found] + np.float32(base)
    if len(found) > k:
        enough = scores >= np.partition(scores, len(found) - k)[len(found) - k]
        found, scores = found[enough], scores[enough]
    order = np.lexsort((ranks[found], -scores))[:k]
    return found[order], scores[order]

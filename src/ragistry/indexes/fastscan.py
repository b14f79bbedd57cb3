"""The fast scan: every vector's 4-bit codes are looked at, and the exact scores of those that the codes favour.

The codes (product quantisation: one of 16 points for every two dimensions, or for each if there are few) estimate scores
within a few hundredths. How far an estimate may be trusted is measured when the index is built: its `margin` is how far
below the k-th best score the codes rank one of the true best `k`, relative to the query's length. A search takes
candidates, scores them exactly, and is content if the estimate of the last one is below the k-th score by more than the
margin; else it takes four times as many, and in the end scans all vectors. So a query that is hard for the codes costs time
and not recall, and neither `k` nor a filter needs rules of its own.

Nothing is proved by that, as another query may be further off than all that were measured. Therefore the recall of the
search itself is measured too, with 200 other queries, and kept beside the margin.

There are no queries when an index is built. Those measured with are documents drawn at random and turned away from by noise
in all directions until their cosine with the document is 0.6, about what real queries have with documents that answer them.
The codes are off by up to a quarter more for people's questions (25,000 passages and commands, MiniLM), so the margin is
1.25 times what was measured.

Source: André, Kermarrec and Le Scouarnec, "Quicker ADC" (TPAMI 2021), arXiv:1812.09162.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..types import Bools, Floats
from .factory import Built, Trust, faiss, selection

if TYPE_CHECKING:
    from .block import Block, Hits

WHOLE = 20_000  # vectors in an index below which all are scanned
GOAL = 0.999  # of recall@10; where codes do not reach it, all vectors are scanned
_DEPTH, _MORE = (16, 240), 4  # candidates fetched at first are 16 k + 240, of which a quarter is scored, then all
_TOGETHER = 256  # queries at once
_SHARE = 8  # as candidates, at most one in so many of the allowed
_QUERIES, _K = 400, 10  # measured with
_CAUTION = 1.25  # real queries are harder than those
_COSINE = 0.6
_DEEPEST = 4_000  # estimates looked at while measuring


def nearest(
    block: Block, built: Built, queries: Floats, k: int, mask: Bools, allowed: int, ranks: npt.NDArray[np.int32]
) -> list[Hits]:
    """The best `k` allowed rows of a block for each query, as `block.exact` finds them, but for what the codes miss."""
    hits: dict[int, Hits] = {}
    left = list(range(len(queries)))
    depth = _DEPTH[0] * k + _DEPTH[1]
    if built.trust is not None and built.trust.margin is not None:
        lengths = np.linalg.norm(queries.astype(np.float64), axis=1)
        tolerance = np.where(lengths > 0, built.trust.margin * lengths, np.inf)
        selector = selection(None if allowed == len(mask) else mask)
        parameters = faiss.SearchParametersIVF(sel=selector, nprobe=1)
        while left and _SHARE * depth <= allowed:
            for first in range(0, len(left), _TOGETHER):
                asked = left[first : first + _TOGETHER]
                estimates, rows = built.index.search(queries[asked], depth, params=parameters)
                for i, estimate, some in zip(asked, estimates, rows, strict=True):
                    for count in (depth // _MORE, depth):  # to fetch more is cheap, to score them is not
                        found = block.best(queries[i], some[:count], k, ranks)
                        if found[1][-1] - estimate[count - 1] > tolerance[i]:
                            hits[i] = found
                            break
            left = [i for i in left if i not in hits]
            depth *= _MORE
    if left:
        hits.update(zip(left, block.exact(queries[left], k, mask, ranks), strict=True))
    return [hits[i] for i in range(len(queries))]


def measure(block: Block, built: Built) -> Trust:
    """The margin of a block's codes, from half of the queries, and the recall@10 of the search with it, from the others."""
    queries = perturbed(block.vectors, _QUERIES, block.factory.seed)
    count = len(block.vectors)
    every, ranks = np.ones(count, np.bool_), np.arange(count, dtype=np.int32)
    exact = block.exact(queries, _K, every, ranks)
    half = _QUERIES // 2
    estimates, rows = built.index.search(queries[:half], min(_DEEPEST, count))
    gaps = [_gaps(*found) for found in zip(exact, estimates, rows, strict=False)]
    lengths = np.linalg.norm(queries[:half].astype(np.float64), axis=1)[:, None]
    # The largest gap of all would do as well, were it not for the odd vector that is like no other.
    margin = _CAUTION * max(0.0, float(np.quantile(np.stack(gaps) / lengths, 1 - (1 - GOAL) / 2, method="higher")))
    if math.isfinite(margin):
        built.trust = Trust(margin, 0.0)
        found = nearest(block, built, queries[half:], _K, every, count, ranks)
        reached = [scores >= wanted[-1] for (_, scores), (_, wanted) in zip(found, exact[half:], strict=True)]
        recall = float(np.mean(reached))
        if recall >= GOAL:
            return Trust(margin, recall)
    return Trust(None, 1.0)


def perturbed(vectors: Floats, count: int, seed: int) -> Floats:
    """Queries float32 [count, dimensions] of length 1: documents turned away from in a random direction."""
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(len(vectors), count, replace=len(vectors) < count))
    noise = _unit(rng.standard_normal((count, vectors.shape[1])))
    made = _COSINE * _unit(vectors[rows].astype(np.float64)) + math.sqrt(1 - _COSINE**2) * noise
    return _unit(made).astype(np.float32)


def _gaps(exact: Hits, estimates: Floats, rows: npt.NDArray[np.int64]) -> Floats:
    """How far below the k-th score the best k are estimated; infinite where the codes do not rank one at all."""
    where = rows == exact[0][:, None]
    known = np.where(where.any(axis=1), estimates[where.argmax(axis=1)], -np.inf)
    gaps: Floats = exact[1][-1] - known
    return gaps


def _unit(vectors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    made: npt.NDArray[np.float64] = vectors / np.where(lengths > 0, lengths, 1)
    return made

"""How many documents can free vectors tell apart? LIMIT's experiment without any text.

Weller et al., "On the Theoretical Limitations of Embedding-Based Retrieval" (arXiv 2508.21038, section 4), optimise
vectors of documents and queries directly, one query for every set of k documents, and call the most documents for which
all queries come out right the critical n of that many dimensions.

What it measures: from four dimensions on, critical n for a fixed k is a limit of the optimisation, its margins and its
precision, and not of what the vectors can represent. `witness` gives vectors in 4 dimensions that return every pair of any
number of documents (2k dimensions are enough for sets of k, for cyclic polytopes are neighbourly: Gale 1963). Their margins
fall with about the fourth power of the number of documents, so that noise, short floats, and training that does not find
them set the limit in practice. Proven for unit vectors and pairs are critical_n(2) = 3, since on a circle only neighbours
can be returned, and critical_n(3) = 4, since the graph of a polytope in space is planar and five points would need K5.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInput
from ..types import Bools, Ints
from .task import check_counts

Doubles = npt.NDArray[np.float64]
Floating = npt.NDArray[np.floating]
Loss = Literal["per-pair", "joint"]

CHECKED, PATIENCE, LEAST = 50, 1000, 1e-5
"""Iterations between checks; those without the loss improving by `LEAST` after which to stop."""

ROUNDING = 1e-12
"""What scores must differ by, so that rounding settles nothing."""


@dataclass(frozen=True)
class FreeEmbedding:
    """What optimising free vectors reached.

    Args:
        solved: Whether every query has exactly its own documents on top.
        accuracy: Share of the queries that have.
        iterations: Steps taken.
        loss: At the end.
        document_vectors: float64 [documents, dimensions], unit rows.
        query_vectors: float64 [queries, dimensions], unit rows, queries in lexicographic order of their documents.
    """

    solved: bool
    accuracy: float
    iterations: int
    loss: float
    document_vectors: Doubles = field(repr=False)
    query_vectors: Doubles = field(repr=False)


@dataclass(frozen=True)
class Witness:
    """Vectors of which each query's has its two documents on top.

    Args:
        document_vectors: Unit rows [documents, 4].
        query_vectors: Unit rows [pairs, 4].
        pairs: The two documents of each query.
        margin: The least, over queries, of its lesser relevant score minus its greatest other; not above 0 if some query
            fails.
        accuracy: Share of the queries that have exactly their two documents on top.
    """

    document_vectors: Floating = field(repr=False)
    query_vectors: Floating = field(repr=False)
    pairs: Ints = field(repr=False)
    margin: float
    accuracy: float

    @property
    def exact(self) -> bool:
        """Whether every query has."""
        return self.margin > 0


def free_embedding(
    documents: int,
    dimensions: int,
    *,
    relevant: int = 2,
    loss: Loss = "per-pair",
    rate: float = 0.01,
    temperature: float = 0.1,
    seed: int = 42,
    most: int = 100_000,
) -> FreeEmbedding:
    """Optimise vectors for every set of `relevant` documents, until each query has its own on top or nothing improves.

    All queries at once, Adam, rows made unit length after each step. It stops when all are right (checked every 50
    steps), or after 1,000 steps without the loss improving by 1e-5.

    Args:
        documents: How many; more than `relevant`.
        dimensions: Of each vector.
        relevant: Documents for each query.
        loss: "per-pair": the mean over queries and their documents of -log softmax. "joint": the mean over queries of
            -log of the sum of the softmax over their documents. It is content if one of them has it all, and so mostly
            leaves the others where they are: hardly anything is solved by it.
        rate: Of Adam.
        temperature: Divides dot products.
        seed: Of the vectors at first, normal and then made unit length.
        most: Steps at the most.

    Raises:
        InvalidInput: If a number is out of range, or the loss is neither of the two.

    Example:
        >>> free_embedding(3, 2, seed=44).solved, free_embedding(4, 2, seed=44, most=200).solved
        (True, False)

    Source: section 4 of the paper. "per-pair" is the loss of its released code, "joint" the one that it writes down.
    Ours differs in float64 for float32, and in Adam's draw of first vectors.
    """
    check_counts(documents=documents, dimensions=dimensions, relevant=relevant, most=most)
    if documents <= relevant:
        raise InvalidInput(f"documents={documents}; more than the {relevant} of each query are needed")
    if loss not in ("per-pair", "joint"):
        raise InvalidInput(f"loss={loss!r:.100}; 'per-pair' or 'joint' is needed")
    if not rate > 0 or not temperature > 0:
        raise InvalidInput(f"rate={rate} and temperature={temperature}; both must be above 0")
    sets = np.array(list(combinations(range(documents), relevant)))
    wanted = np.zeros((len(sets), documents), np.bool_)
    wanted[np.arange(len(sets))[:, None], sets] = True
    # Documents and queries in one array: one step of Adam for both.
    vectors = np.random.default_rng(seed).standard_normal((documents + len(sets), dimensions))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    first, second = np.zeros_like(vectors), np.zeros_like(vectors)
    best, since, accuracy, value, step = np.inf, 0, 0.0, np.inf, 0
    while step < most and since < PATIENCE:
        step += 1
        value, slopes = loss_and_slopes(vectors, wanted, loss, temperature)
        first = 0.9 * first + 0.1 * slopes
        second = 0.999 * second + 0.001 * slopes * slopes
        vectors = vectors - rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        if step % CHECKED == 0 and (accuracy := _accuracy(vectors, wanted)) == 1.0:
            break
        best, since = (value, 0) if value < best - LEAST else (best, since + 1)
    accuracy = _accuracy(vectors, wanted)
    return FreeEmbedding(accuracy == 1.0, accuracy, step, float(value), vectors[:documents], vectors[documents:])


def critical_n(
    dimensions: int,
    *,
    relevant: int = 2,
    loss: Loss = "per-pair",
    rate: float = 0.01,
    temperature: float = 0.1,
    seeds: tuple[int, ...] = (42, 43, 44),
    most: int = 100_000,
) -> int:
    """The most documents for which `free_embedding` gets every query right, with the best of several seeds.

    A lower bound of what the vectors can represent, and from four dimensions on a loose one: see above. Sizes are doubled
    until one fails, halved between, and those from 4 below to 5 above are tried too. Seconds for 2 or 3 dimensions,
    minutes for 4, and soon hours.

    Args:
        dimensions: Of each vector; 2 or more.
        relevant: Documents for each query.
        loss: As in `free_embedding`; so are `rate`, `temperature` and `most`.
        rate: See there.
        temperature: See there.
        seeds: To try; a size is solved if one of them solves it.
        most: See there.

    Raises:
        InvalidInput: As in `free_embedding`, or if there are fewer than two dimensions or no seed.

    Example:
        >>> critical_n(2, seeds=(44,), most=500)
        3

    Source: section 4 of the paper, which has one seed.
    """
    check_counts(dimensions=dimensions, relevant=relevant)
    if dimensions < 2 or not seeds:
        raise InvalidInput(f"dimensions={dimensions} and seeds={seeds}; 2 dimensions and one seed at least are needed")
    known: dict[int, bool] = {}

    def solved(size: int) -> bool:
        if size <= relevant:
            return True
        if size not in known:
            known[size] = any(
                free_embedding(
                    size,
                    dimensions,
                    relevant=relevant,
                    loss=loss,
                    rate=rate,
                    temperature=temperature,
                    seed=seed,
                    most=most,
                ).solved
                for seed in seeds
            )
        return known[size]

    low, high = relevant, relevant + 1
    while solved(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if solved(middle) else (low, middle)
    return max(size for size in range(low - 4, low + 6) if solved(size))


def witness(documents: int, *, dtype: npt.DTypeLike = np.float64) -> Witness:
    """Vectors in 4 dimensions, in closed form, that return every pair of documents.

    Documents are points of the trigonometric moment curve, (cos t, sin t, cos 2t, sin 2t) / sqrt 2, at even steps of t.
    The query of documents at a and b is in the direction of
    (cos a + cos b, sin a + sin b, -cos(a + b) / 2, -sin(a + b) / 2). Its score at t is, but for constants,
    -(cos(t - m) - cos h)^2 with m = (a + b) / 2 and h = (a - b) / 2: greatest at a and b, and only there.

    Args:
        documents: How many, 3 or more.
        dtype: np.float64, or a shorter one to see what precision does: vectors and scores are rounded to it.

    Raises:
        InvalidInput: If there are fewer than 3 documents or the type is no float.

    Example:
        >>> witness(46).exact
        True

    Source: Gale, "Neighborly and cyclic polytopes" (1963); not in the LIMIT paper.
    """
    check_counts(documents=documents)
    if documents < 3 or not np.issubdtype(dtype, np.floating):
        raise InvalidInput(f"documents={documents} and dtype={dtype!r}; 3 documents or more and a float are needed")
    angles = 2 * np.pi * np.arange(documents) / documents
    curve = np.stack([np.cos(angles), np.sin(angles), np.cos(2 * angles), np.sin(2 * angles)], axis=1) / np.sqrt(2)
    pairs = np.stack(np.triu_indices(documents, 1), axis=1)
    a, b = angles[pairs[:, 0]], angles[pairs[:, 1]]
    asked = np.stack([np.cos(a) + np.cos(b), np.sin(a) + np.sin(b), -np.cos(a + b) / 2, -np.sin(a + b) / 2], axis=1)
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    vectors, queries = curve.astype(dtype), asked.astype(dtype)
    margins = np.concatenate(
        [
            _margins(vectors, queries[start : start + 4096], pairs[start : start + 4096])
            for start in range(0, len(pairs), 4096)
        ]
    )
    return Witness(vectors, queries, pairs, float(margins.min()), float((margins > 0).mean()))


def loss_and_slopes(vectors: Doubles, wanted: Bools, loss: Loss, temperature: float) -> tuple[float, Doubles]:
    """A loss of `free_embedding` and its gradient.

    Args:
        vectors: Documents, then queries [documents + queries, dimensions].
        wanted: Which documents each query wants [queries, documents], the same number for each.
        loss: "per-pair" or "joint".
        temperature: Divides dot products.

    Returns:
        The loss, and its gradient by `vectors`.

    Example:
        >>> value, _ = loss_and_slopes(np.zeros((4, 2)), np.array([[True, False, False]]), "joint", 0.1)
        >>> bool(np.isclose(value, np.log(3)))
        True
    """
    count, size = wanted.shape
    documents, queries = vectors[:size], vectors[size:]
    scores = queries @ documents.T / temperature
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares = powers / powers.sum(axis=1, keepdims=True)
    own = np.where(wanted, shares, 0.0)
    total = own.sum(axis=1, keepdims=True)
    if loss == "joint":
        value, target = -np.log(total).mean(), own / total
    else:
        value, target = -np.log(shares[wanted]).mean(), wanted / wanted.sum(axis=1, keepdims=True)
    slopes = (shares - target) / (count * temperature)
    return float(value), np.concatenate([slopes.T @ queries, slopes @ documents])


def _accuracy(vectors: Doubles, wanted: Bools) -> float:
    """Share of the queries whose own documents are above all others."""
    size = wanted.shape[1]
    scores = vectors[size:] @ vectors[:size].T
    least = np.where(wanted, scores, np.inf).min(axis=1)
    return float((least - np.where(wanted, -np.inf, scores).max(axis=1) > ROUNDING).mean())


def _margins(vectors: Floating, queries: Floating, pairs: Ints) -> Floating:
    scores = queries @ vectors.T
    rows = np.arange(len(pairs))[:, None]
    least = scores[rows, pairs].min(axis=1)
    scores[rows, pairs] = -np.inf
    margins: Floating = least - scores.max(axis=1)
    return margins

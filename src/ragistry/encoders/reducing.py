"""Fewer vectors for a text of many: clusters of its tokens, its last ones, or every n-th.

A reducer puts each token into a group, or leaves it out, and a group's vector is the plain mean of its tokens: not
normalised, so that no query vector meets a mean that is nearer than the nearest of its tokens, and MaxSim never grows.

Source: Veneroso et al., "CRISP: Clustering Multi-Vector Representations for Denoising and Pruning" (2025),
arXiv:2505.11471. The paper does not say how its k-means starts and stops. Here it starts as k-means++ (Arthur and
Vassilvitskii, SODA 2007), stops when nothing changes or after 20 rounds, and leaves no cluster empty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInput
from ..types import Floats, Ints, MultiVectors

Method: TypeAlias = Literal["fixed", "relative", "tail", "spacing"]
"""How tokens are chosen or joined: see `Reducer`."""

Wide: TypeAlias = npt.NDArray[np.float64]

_ROUNDS = 20


@dataclass(frozen=True, slots=True)
class Reducer:
    """Reduces the vectors of each text to fewer. A text without tokens keeps none, any other at least one.

    Args:
        method: `"fixed"`, `size` clusters of tokens by k-means; `"relative"`, `size` of a text's tokens as clusters, such
            as 0.25, rounded down; `"tail"`, the last `size` tokens; `"spacing"`, every `size`-th token, from the first.
        size: A whole number of 1 or more; for `"relative"`, a share above 0 and at most 1. What asks for as many
            vectors as there are tokens, or more, changes nothing.
        seed: For k-means. A text's clusters depend on nothing else but its tokens.

    Raises:
        InvalidInput: If the method is unknown or the size is none of these.

    Example:
        >>> tokens = MultiVectors(np.array([[0, 1], [4, 0], [0, 3]], np.float32), np.array([0, 3]))
        >>> Reducer("fixed", 2).reduce(tokens).values.tolist()
        [[0.0, 2.0], [4.0, 0.0]]
        >>> Reducer("tail", 2).reduce(tokens).values.tolist()
        [[4.0, 0.0], [0.0, 3.0]]
    """

    method: Method
    size: float
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise InvalidInput(f"the method {self.method!r} is not known; give one of {', '.join(get_args(Method))}")
        if not isinstance(self.size, int | float) or isinstance(self.size, bool):
            raise InvalidInput(f"size={self.size!r:.100} is {type(self.size).__name__}; a number is needed")
        if self.method == "relative":
            if not 0 < self.size <= 1:
                raise InvalidInput(f"size={self.size} with 'relative': a share above 0 and at most 1 is needed")
        elif not (self.size >= 1 and float(self.size).is_integer()):
            raise InvalidInput(f"size={self.size} with {self.method!r}: a whole number of 1 or more is needed")

    def groups(self, tokens: Floats) -> Ints:
        """The group of each token, int64 [tokens], numbered from 0, none empty; -1 for tokens that are left out.

        Raises:
            InvalidInput: If tokens are not [tokens, dimensions], or are to be clustered and not finite.
        """
        count = len(_checked(tokens))
        if self.method == "fixed":
            return assign(tokens, int(self.size), self.seed)
        if self.method == "relative":
            return assign(tokens, max(1, math.floor(self.size * count + 1e-9)), self.seed)
        places = np.arange(count, dtype=np.int64)
        if self.method == "tail":
            return np.maximum(places - max(0, count - int(self.size)), -1)
        return np.where(places % int(self.size) == 0, places // int(self.size), -1)

    def reduce(self, vectors: MultiVectors) -> MultiVectors:
        """The vectors of each text, reduced.

        Raises:
            InvalidInput: If they are no `MultiVectors`, or are to be clustered and not finite.
        """
        if not isinstance(vectors, MultiVectors):
            raise InvalidInput(
                f"vectors are {type(vectors).__name__}; a reducer needs MultiVectors, several for each text"
            )
        parts = [means(vectors[item], self.groups(vectors[item])) for item in range(len(vectors))]
        offsets = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        return MultiVectors(np.concatenate([vectors.values[:0], *parts]), offsets)


def means(tokens: Floats, groups: Ints) -> Floats:
    """The mean of each group's tokens, float32 [groups, dimensions]; a token alone in its group stays as it is.

    Example:
        >>> means(np.array([[1], [2], [6]], np.float32), np.array([0, -1, 0])).tolist()
        [[3.5]]
    """
    kept = groups >= 0
    if not kept.any():
        return tokens[:0]
    sums = _sums(tokens[kept].astype(np.float64), groups[kept])
    made: Floats = (sums / np.bincount(groups[kept])[:, None]).astype(np.float32)
    return made


def assign(tokens: Floats, clusters: int, seed: int = 0) -> Ints:
    """Cluster the tokens of one text by k-means.

    Args:
        tokens: float32 [tokens, dimensions].
        clusters: How many; of fewer tokens, each is a cluster.
        seed: For the tokens that clusters start from.

    Returns:
        The cluster of each token, int64 [tokens]: 0 to min(tokens, clusters) - 1 in the order of their first tokens, none
        empty.

    Raises:
        InvalidInput: If tokens are not [tokens, dimensions] or not finite, or `clusters` is below 1.

    Example:
        >>> assign(np.array([[0, 0], [9, 9], [0, 1], [9, 8]], np.float32), 2).tolist()
        [0, 1, 0, 1]
    """
    if clusters < 1:
        raise InvalidInput(f"clusters={clusters}: at least 1 is needed")
    count = len(_checked(tokens))
    if clusters >= count:
        return np.arange(count, dtype=np.int64)
    wide = np.asarray(tokens, np.float64)
    if not np.isfinite(wide).all():
        raise InvalidInput("tokens to be clustered hold NaN or infinity; only finite vectors have means")
    wide = wide - wide.mean(axis=0)  # or rounding would show where tokens are far from the origin
    squares = np.einsum("ij,ij->i", wide, wide)
    groups = _start(wide, squares, clusters, np.random.default_rng(seed))
    for _ in range(_ROUNDS):
        centres = _sums(wide, groups) / np.bincount(groups)[:, None]
        distances = np.einsum("ij,ij->i", centres, centres) - 2 * (wide @ centres.T)  # but for the token's own square
        found = _filled(distances.argmin(axis=1), distances.min(axis=1) + squares, clusters)
        if np.array_equal(found, groups):
            break
        groups = found
    _, firsts, inverse = np.unique(groups, return_index=True, return_inverse=True)
    ordered: Ints = np.argsort(np.argsort(firsts))[inverse].astype(np.int64)
    return ordered


def _start(tokens: Wide, squares: Wide, clusters: int, rng: np.random.Generator) -> Ints:
    """Clusters around tokens drawn one after another, each by its squared distance to the nearest before (k-means++)."""
    nearest = np.full(len(tokens), np.inf)
    groups = np.zeros(len(tokens), np.int64)
    for cluster in range(clusters):
        weights = nearest if cluster else np.ones(len(tokens))
        total = weights.cumsum()
        drawn = min(int(np.searchsorted(total, rng.random() * total[-1], side="right")), len(tokens) - 1)
        distances = np.maximum(squares - 2 * (tokens @ tokens[drawn]) + squares[drawn], 0)
        distances[drawn] = 0
        groups[distances < nearest] = cluster
        nearest = np.minimum(nearest, distances)
    return _filled(groups, nearest, clusters)


def _sums(tokens: Wide, groups: Ints) -> Wide:
    """The sum of each group's tokens, no group being empty."""
    sizes = np.bincount(groups)
    sums: Wide = np.add.reduceat(tokens[np.argsort(groups, kind="stable")], np.cumsum(sizes) - sizes)
    return sums


def _filled(groups: Ints, distances: Wide, clusters: int) -> Ints:
    """The same groups, but that each empty one gets the token farthest from its mean that is not alone there."""
    sizes = np.bincount(groups, minlength=clusters)
    if sizes.all():
        return groups
    groups, far = groups.copy(), iter(np.argsort(-distances, kind="stable").tolist())
    for empty in np.flatnonzero(sizes == 0).tolist():
        token = next(token for token in far if sizes[groups[token]] > 1)
        sizes[groups[token]] -= 1
        sizes[empty] += 1
        groups[token] = empty
    return groups


def _checked(tokens: Floats) -> Floats:
    if getattr(tokens, "ndim", 0) != 2:
        raise InvalidInput(f"the tokens are of shape {np.shape(tokens)}; an array [tokens, dimensions] is needed")
    return tokens

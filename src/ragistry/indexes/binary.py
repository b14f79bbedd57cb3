"""Dense vectors as one bit a dimension, 32 times smaller: Hamming distance proposes, the float query decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InvalidInput
from ..protocols import Files, State
from ..types import Floats, Ints
from .coded import Bytes, Coded, Codes, Compressed, looked_up
from .segments import Segment

# [256, 8]: the signs that a byte stands for.
_SIGNS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float32) * 2 - 1


@dataclass(frozen=True, eq=False)
class Signs:
    """Whether each number reaches a threshold: +1 if so, -1 if not, eight of them in a byte.

    Args:
        threshold: float32 [d], or one number for all dimensions, float32 [].
    """

    threshold: Floats

    def encode(self, vectors: Floats) -> Bytes:
        """Bits of vectors [n, d], uint8 [n, d / 8].

        Raises:
            InvalidInput: If d is no multiple of 8, or not that of the threshold.
        """
        dimension = vectors.shape[1]
        if dimension % 8 or self.threshold.shape not in ((), (dimension,)):
            shape = f" and a threshold of shape {self.threshold.shape}" if self.threshold.shape else ""
            raise InvalidInput(
                f"vectors of {dimension} dimensions{shape}: bits fill bytes, so that the number of dimensions must be a "
                "multiple of 8, and there is one threshold, or one for each; choose another model, or other codes"
            )
        return np.packbits(vectors >= self.threshold, axis=1)

    def decode(self, codes: Codes) -> Floats:
        """+1 and -1, float32 [n, d]."""
        return _SIGNS[codes].reshape(len(codes), -1)

    def scores(self, query: Floats, codes: Codes, rows: Ints) -> Floats:
        """Inner products of a float query [d] with the signs of some rows."""
        return looked_up(query.reshape(-1, 8) @ _SIGNS.T, codes, rows)

    def save(self, files: Files) -> State:
        """Store the threshold."""
        return {"threshold": files.put(self.threshold)}


class Binary(Compressed):
    """Signs of vectors, an eighth of a byte a dimension; no float of a document is kept.

    The nearest by Hamming distance between the signs of query and documents, ties by id, are ranked by the inner product of
    the float query with the documents' signs. Their ranking is not that of the vectors: only floats kept elsewhere give that
    back (see `Tiered`).

    Args:
        depth: How many are ranked; `k` if that is more. As many as there are: all, exhaustively.
        threshold: What counts as +1: numbers of at least so much, in queries and documents alike; one for all dimensions, or
            an array [d]. Above -1 and at most 1, so that signs, coded again, are the same.

    Raises:
        InvalidInput: If `depth` is not positive, or a threshold out of range.

    Example:
        >>> index = Binary()
        >>> index.add(["a", "b"], np.array([[1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4, -5, -6, -7, -8]], np.float32))
        >>> [(id, round(score, 2)) for id, score in index.search(np.full((1, 8), 0.1, np.float32), k=2)[0]]
        [('a', 0.8), ('b', 0.0)]

    Source: BPR, arXiv:2106.00882 (ACL 2021). Deviation: 0 is +1 in queries and documents alike.
    """

    def __init__(self, depth: int = 1000, threshold: Floats | float = 0.0) -> None:
        limit = np.array(threshold, np.float32)
        if depth < 1 or limit.ndim > 1 or not ((limit > -1) & (limit <= 1)).all():
            raise InvalidInput(
                f"depth={depth} and a threshold of shape {limit.shape}; a positive depth is needed, and a threshold for all "
                "dimensions, or one for each, above -1 and at most 1"
            )
        super().__init__(Signs(limit))
        self.depth = depth

    def _read_coder(self, state: State, files: Files) -> Signs:
        return Signs(files.get(state["threshold"]))

    def _candidates(
        self, segments: Sequence[Segment[Coded]], allowed: Sequence[Ints], query: Floats, k: int
    ) -> Sequence[Ints]:
        wanted = max(self.depth, k)
        if sum(map(len, allowed)) <= wanted:
            return allowed
        code = segments[0].content.coder.encode(query[None])[0]
        distances = [
            hamming(code, segment.content.codes, rows) for segment, rows in zip(segments, allowed, strict=True)
        ]
        within = np.cumsum(sum(np.bincount(some, minlength=8 * len(code) + 1) for some in distances))
        limit = int(np.searchsorted(within, wanted))  # the distance of the last of them
        spare = wanted - (int(within[limit - 1]) if limit else 0)
        border = []
        for number, (segment, rows, some) in enumerate(zip(segments, allowed, distances, strict=True)):
            tied = rows[some == limit]
            tied = tied[np.argsort(segment.ids.ranks[tied])[:spare]]
            border += [(id, number, row) for id, row in zip(segment.ids.at(tied.tolist()), tied.tolist(), strict=True)]
        found = [rows[some < limit].tolist() for rows, some in zip(allowed, distances, strict=True)]
        for _, number, row in sorted(border)[:spare]:
            found[number].append(row)
        return [np.array(rows, np.int64) for rows in found]


def hamming(code: Bytes, codes: Bytes, rows: Ints) -> Ints:
    """In how many bits a code [width] differs from those of some rows, in ascending order: int64 [len(rows)].

    Example:
        >>> hamming(np.array([7], np.uint8), np.array([[0], [255], [7]], np.uint8), np.arange(3)).tolist()
        [3, 5, 0]
    """
    width = len(code)
    word = next(kind for kind in (np.uint64, np.uint32, np.uint16, np.uint8) if width % kind().itemsize == 0)
    some = codes if len(rows) == len(codes) else codes[rows]
    differing = np.bitwise_count(some.view(word) ^ code.view(word))
    found = np.zeros(len(rows), np.int64)
    for column in differing.T:  # they are few: faster than a sum along the short side
        found += column
    return found

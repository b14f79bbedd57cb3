"""Dense vectors as product-quantised codes, one byte for several dimensions, searched by table look-up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self, cast

import numpy as np

from ..errors import InvalidInput
from ..protocols import Files, State
from ..types import Floats, Ints
from .coded import ENOUGH, Bytes, Codes, Compressed, checked, chunks, looked_up
from .factory import faiss, one_thread

CENTROIDS = 256
"""Of each part: as many as a byte can number."""
SAMPLE = 128 * CENTROIDS
"""Vectors that a codec is trained on, at most."""
DIVISION = 8
"""Dimensions to a byte by default, at least: 32 times smaller than float32."""
_ROUNDS = 25  # of k-means


@dataclass(frozen=True, eq=False)
class Codec:
    """A product quantiser: vectors are rotated and cut into parts, and each part becomes the number of its nearest centroid.

    Args:
        rotation: Orthogonal R, float32 [d, d], of which R x is what is cut; none: x itself.
        centroids: float32 [parts, 256, d / parts].

    Raises:
        InvalidInput: If the shapes do not fit, or a centroid is not finite.

    Example:
        >>> codec = Codec.train(np.eye(8, dtype=np.float32), parts=2, rotate=False)
        >>> codes = codec.encode(np.eye(8, dtype=np.float32))
        >>> codes.shape, bool((codec.decode(codes) == np.eye(8)).all())
        ((8, 2), True)

    Source: Jegou et al., "Product quantization for nearest neighbor search" (TPAMI 2011); the rotation is the parametric one
    of Ge et al., "Optimized product quantization" (CVPR 2013): in closed form. The iterative one of that paper, as faiss has
    it, took ten times as long over embeddings of scientific abstracts and left a third more distortion.
    """

    rotation: Floats | None
    centroids: Floats

    def __post_init__(self) -> None:
        shape, turned = self.centroids.shape, None if self.rotation is None else self.rotation.shape
        if len(shape) != 3 or shape[1] != CENTROIDS or not all(shape):
            raise InvalidInput(
                f"centroids have the shape {shape}; [parts, {CENTROIDS}, dimensions of a part] is needed"
            )
        if not np.isfinite(self.centroids).all():
            raise InvalidInput("a centroid is NaN or infinite; learn them from smaller vectors, or with smaller steps")
        if turned not in (None, (self.dimension, self.dimension)):
            raise InvalidInput(
                f"the rotation has the shape {turned}; centroids of shape {shape} are of vectors with {self.dimension} "
                "dimensions, and so must it be, in rows and columns"
            )

    @classmethod
    def train(cls, vectors: Floats, parts: int, *, rotate: bool = True, seed: int = 0) -> Codec:
        """Learn a codec by k-means in each part, and if wished the rotation that loses least.

        Any number of vectors will do. Where a part takes no more than 256 different values, they are its centroids, and
        codes lose nothing of it; no rotation is learnt from no more vectors than that. Of more than 32,768 vectors so many
        are drawn. One thread, so that it can be repeated.

        Args:
            vectors: float32 [n, d].
            parts: How many codes a vector gets; a divisor of d.
            rotate: Whether to learn a rotation.
            seed: Of the draws.

        Raises:
            InvalidInput: If there are no vectors, one holds NaN or infinity, or `parts` does not divide their dimension.
        """
        vectors = checked(vectors, "vectors", None)
        if not len(vectors):
            raise InvalidInput("there are no vectors; a codec is learnt from at least one")
        check_parts(parts, vectors.shape[1])
        if len(vectors) > SAMPLE:
            drawn = np.random.default_rng(seed).choice(len(vectors), SAMPLE, replace=False)
            vectors = vectors[np.sort(drawn)]
        with one_thread():
            rotation = _rotation(vectors, parts) if rotate and len(vectors) > CENTROIDS else None
            turned = vectors if rotation is None else vectors @ rotation.T
            pieces = np.split(turned, parts, axis=1)
            return cls(rotation, np.stack([_clusters(piece, seed) for piece in pieces]))

    @property
    def parts(self) -> int:
        """How many bytes a vector takes."""
        return len(self.centroids)

    @property
    def dimension(self) -> int:
        """Of the vectors."""
        return int(len(self.centroids) * self.centroids.shape[2])

    def encode(self, vectors: Floats) -> Bytes:
        """The numbers of the nearest centroids, uint8 [n, parts], of vectors [n, d]; of equally near ones, the first.

        Raises:
            InvalidInput: If the vectors have other dimensions.
        """
        if vectors.shape[1] != self.dimension:
            raise InvalidInput(
                f"vectors of {vectors.shape[1]} dimensions were given to codes for {self.dimension}; use the encoder that "
                "the codes were learnt with"
            )
        found = np.empty((len(vectors), self.parts), np.uint8)
        halves = np.square(self.centroids).sum(axis=2) / 2
        for some in chunks(len(vectors)):
            pieces = self.rotated(vectors[some]).reshape(-1, *self.centroids.shape[::2])
            for part, (centroids, half) in enumerate(zip(self.centroids, halves, strict=True)):
                found[some, part] = (half - pieces[:, part] @ centroids.T).argmin(axis=1)
        return found

    def decode(self, codes: Codes) -> Floats:
        """The centroids that codes name, turned back, float32 [n, d]."""
        named = self.centroids[np.arange(self.parts), codes].reshape(len(codes), -1)
        return named if self.rotation is None else named @ self.rotation

    def rotated(self, vectors: Floats) -> Floats:
        """R x for vectors [n, d]."""
        return vectors if self.rotation is None else vectors @ self.rotation.T

    def scores(self, query: Floats, codes: Codes, rows: Ints) -> Floats:
        """Inner products of a float query [d] with what some rows stand for: a sum over parts of what a table holds."""
        pieces = self.rotated(query[None]).reshape(self.parts, -1, 1)
        return looked_up((self.centroids @ pieces)[:, :, 0], codes, rows)

    def save(self, files: Files) -> State:
        """Store rotation and centroids."""
        rotation = None if self.rotation is None else files.put(self.rotation)
        return {"rotation": rotation, "centroids": files.put(self.centroids)}

    @classmethod
    def read(cls, state: State, files: Files) -> Codec:
        """What `save` wrote."""
        rotation = None if state["rotation"] is None else files.get(state["rotation"])
        return cls(rotation, files.get(state["centroids"]))


class Quantised(Compressed):
    """Vectors as codes of one byte for several dimensions; scores are inner products with what the codes stand for.

    Vectors stay whole, and scores exact, until there are `enough` to learn the one codec from that serves the whole index.
    From then on codes stay as they are, and later vectors are coded in the same way. Every search looks at all codes.

    Args:
        parts: Bytes for a vector, a divisor of its dimension; by default an eighth of the dimension, which is 32 times
            smaller than float32, or the largest divisor below.
        rotate: Whether to learn a rotation that spreads what counts evenly over the parts.
        codec: One that is there already: vectors are coded from the first.
        seed: For k-means.
        enough: How many vectors a codec is learnt from, at least.

    Raises:
        InvalidInput: If `parts` is not that of the codec, or a number is not positive.

    Example:
        >>> vectors = np.random.default_rng(0).standard_normal((300, 16), np.float32)
        >>> index = Quantised(parts=4, rotate=False, enough=300)
        >>> index.add([str(number) for number in range(300)], vectors)
        >>> index.codes(["7", "8"]).shape
        (2, 4)

    Source: the asymmetric distance of Jegou et al. (TPAMI 2011), here an inner product, as in JPQ, arXiv:2108.00644 (CIKM
    2021).
    """

    def __init__(
        self,
        parts: int | None = None,
        rotate: bool = True,
        codec: Codec | None = None,
        seed: int = 0,
        *,
        enough: int = ENOUGH,
    ) -> None:
        super().__init__(codec, enough)
        if parts is not None and (parts < 1 or (codec is not None and parts != codec.parts)):
            has = "a positive number" if codec is None else f"{codec.parts}, as the codec has them,"
            raise InvalidInput(f"parts={parts}; {has} is needed")
        self.parts, self.rotate, self.seed = parts, rotate, seed

    @property
    def codec(self) -> Codec | None:
        """How vectors are coded; none as long as they are whole."""
        return cast(Codec | None, self._coder)

    def with_codec(self, codec: Codec) -> Self:
        """A copy in which the same codes are read with another codec; vectors that are whole are coded by it.

        Raises:
            InvalidInput: If it has other parts or dimensions.
        """
        known = self.codec
        if known is not None and known.centroids.shape != codec.centroids.shape:
            raise InvalidInput(
                f"the codec has centroids of shape {codec.centroids.shape}; the codes were made with ones of shape "
                f"{known.centroids.shape}, and so must it have"
            )
        twin = self.fork()
        twin._use(codec)
        return twin

    def _check(self, vectors: Floats) -> None:
        check_parts(self._parts(vectors.shape[1]), vectors.shape[1])

    def _parts(self, dimension: int) -> int:
        most = max(1, dimension // DIVISION)
        return self.parts or max(parts for parts in range(1, most + 1) if dimension % parts == 0)

    def _learn(self, vectors: Floats) -> Codec:
        return Codec.train(vectors, self._parts(vectors.shape[1]), rotate=self.rotate, seed=self.seed)

    def _read_coder(self, state: State, files: Files) -> Codec:
        return Codec.read(state, files)


def check_parts(parts: int, dimension: int) -> None:
    """Refuse numbers of parts that vectors of some dimension cannot be cut into."""
    if parts < 1 or dimension % parts:
        near = [number for number in range(1, dimension + 1) if dimension % number == 0]
        raise InvalidInput(
            f"vectors of {dimension} dimensions cannot be cut into {parts} equal parts; give one of "
            f"{', '.join(map(str, near))}"
        )


def _clusters(piece: Floats, seed: int) -> Floats:
    """Centroids [256, d] of one part."""
    different = np.unique(piece, axis=0)
    if len(different) <= CENTROIDS:
        return np.concatenate([different, np.repeat(different[-1:], CENTROIDS - len(different), axis=0)])
    means = faiss.Kmeans(piece.shape[1], CENTROIDS, niter=_ROUNDS, seed=seed, min_points_per_centroid=1)
    means.train(np.ascontiguousarray(piece))
    return cast(Floats, means.centroids)


def _rotation(vectors: Floats, parts: int) -> Floats:
    """Principal axes, dealt out from the greatest to the part whose variances have the smallest product so far.

    Products, as logarithms, are of variances relative to the smallest, so that more axes never count less.
    """
    dimension = vectors.shape[1]
    wide = vectors.astype(np.float64)
    wide -= wide.mean(axis=0)
    variances, axes = np.linalg.eigh(wide.T @ wide)
    floor = max(float(variances[-1]), 1e-30) * 1e-9
    loads = np.log(np.maximum(variances, floor))
    loads -= loads[0]
    dealt: list[list[int]] = [[] for _ in range(parts)]
    for axis in range(dimension - 1, -1, -1):
        open_parts = (part for part in range(parts) if len(dealt[part]) < dimension // parts)
        dealt[min(open_parts, key=lambda part: sum(loads[dealt[part]]))].append(axis)
    return np.ascontiguousarray(axes.T[np.concatenate(dealt)], np.float32)

"""Dense vectors in half precision, of all their dimensions or of the principal ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInput
from ..protocols import Files, State
from ..types import Floats, Ints
from .coded import ENOUGH, Codes, Compressed, products

LARGEST = 65_504
"""The largest number that half precision holds."""


@dataclass(frozen=True, eq=False)
class Axes:
    """Coordinates on some orthogonal axes, in half precision.

    Args:
        axes: float32 [r, d], orthonormal rows; none: vectors as they are.
    """

    axes: Floats | None

    @classmethod
    def principal(cls, vectors: Floats, dimensions: int) -> Axes:
        """Those that hold most of the squared length of vectors [n, d], with which inner products lose least.

        Vectors are not centred, so that inner products need no correction.
        """
        wide = vectors.astype(np.float64)
        _, axes = np.linalg.eigh(wide.T @ wide)
        return cls(np.ascontiguousarray(axes[:, : -dimensions - 1 : -1].T, np.float32))

    def encode(self, vectors: Floats) -> npt.NDArray[np.float16]:
        """Coordinates of vectors [n, d], float16 [n, r].

        Raises:
            InvalidInput: If one is too large for half precision, or d is not that of the axes.
        """
        if self.axes is not None and vectors.shape[1] != self.axes.shape[1]:
            raise InvalidInput(
                f"vectors of {vectors.shape[1]} dimensions were given to axes of {self.axes.shape[1]}; use the encoder that "
                "the axes were learnt with"
            )
        turned = vectors if self.axes is None else vectors @ self.axes.T
        _check_size(np.abs(turned))
        return turned.astype(np.float16)

    def decode(self, codes: Codes) -> Floats:
        """The points that coordinates stand for, float32 [n, d]."""
        wide: Floats = codes.astype(np.float32)
        return wide if self.axes is None else wide @ self.axes

    def scores(self, query: Floats, codes: Codes, rows: Ints) -> Floats:
        """Inner products of a query [d] with the points of some rows."""
        return products(query if self.axes is None else self.axes @ query, codes, rows)

    def save(self, files: Files) -> State:
        """Store the axes."""
        return {"axes": None if self.axes is None else files.put(self.axes)}


class Reduced(Compressed):
    """Vectors in half precision: two bytes for each dimension, or for each of the principal ones.

    Every search widens the numbers to float32 again, which takes several times as long as multiplying them.

    Args:
        dimensions: How many principal axes are kept, learnt from the first `enough` vectors, which stay whole until then;
            none: all dimensions as they are.
        enough: How many vectors axes are learnt from, at least.

    Raises:
        InvalidInput: If a number is not positive.

    Example:
        >>> index = Reduced()
        >>> index.add(["a", "b"], np.array([[1.0, 0.0], [0.6, 0.8]], np.float32))
        >>> index.search(np.array([[0.0, 1.0]], np.float32), k=1)[0].ids
        ('b',)
    """

    def __init__(self, dimensions: int | None = None, *, enough: int = ENOUGH) -> None:
        super().__init__(Axes(None) if dimensions is None else None, enough)
        if dimensions is not None and dimensions < 1:
            raise InvalidInput(f"dimensions={dimensions}; a positive number is needed, or None for all")
        self.dimensions = dimensions

    def _check(self, vectors: Floats) -> None:
        dimension = vectors.shape[1]
        if self.dimensions is not None and self.dimensions > dimension:
            raise InvalidInput(
                f"vectors have {dimension} dimensions, of which {self.dimensions} are to be kept; keep at most all"
            )
        # On no axis does a vector reach further than it is long.
        _check_size(np.sqrt(np.square(vectors, dtype=np.float64).sum(axis=1)))

    def _learn(self, vectors: Floats) -> Axes:
        return Axes.principal(vectors, self.dimensions or vectors.shape[1])

    def _read_coder(self, state: State, files: Files) -> Axes:
        return Axes(None if state["axes"] is None else files.get(state["axes"]))


def _check_size(sizes: npt.NDArray[Any]) -> None:
    if sizes.max(initial=0) > LARGEST:
        raise InvalidInput(
            f"a vector reaches {sizes.max():g}, and half precision no further than {LARGEST:,}; scale the vectors, or use "
            "codes of another kind"
        )

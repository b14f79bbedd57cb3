"""Token vectors as they are stored: float32, float16, or bytes with a scale for each token.

Compiled code and numpy read the same bits; see `ragistry.compiled` for when which of them works.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from ..compiled import compiled, worth_loading
from ..errors import InvalidInput
from ..types import Floats

Precision: TypeAlias = Literal["fp32", "fp16", "int8"]
Codes: TypeAlias = npt.NDArray[np.float32] | npt.NDArray[np.float16] | npt.NDArray[np.int8]

TYPES: dict[Precision, type[np.number[Any]]] = {"fp32": np.float32, "fp16": np.float16, "int8": np.int8}
_TOGETHER = 1 << 22  # numbers encoded at once
_A_STEP = 256  # numbers that numpy reads in what a step of the interpreter takes


def encode(values: Floats, precision: Precision) -> tuple[Codes, Floats]:
    """Codes [tokens, dimensions] in a precision, and float32 [tokens] to multiply them with, or [0] if there is no need.

    A token's scale for `int8` is its largest number / 127.

    Raises:
        InvalidInput: If a number is too large for `fp16`.
    """
    codes = np.empty(values.shape, TYPES[precision])
    scales = np.empty(len(values) if precision == "int8" else 0, np.float32)
    step = max(1, _TOGETHER // values.shape[1])
    for first in range(0, len(values), step):
        some = values[first : first + step]
        if len(scales):
            largest = np.abs(some).max(axis=1).astype(np.float64)[:, None] / 127
            scales[first : first + step] = largest[:, 0]
            some = np.rint(some / np.where(largest > 0, largest, 1))
        with np.errstate(over="ignore"):
            codes[first : first + step] = some
        bad = np.flatnonzero(~np.isfinite(codes[first : first + step]).all(axis=1))
        if len(bad):
            raise InvalidInput(
                f"row {first + bad[0]} of the vectors holds a number beyond 65,504, the largest that 'fp16' stores; scale "
                "the vectors or give precision='fp32'"
            )
    return codes, scales


def decode(codes: Codes, scales: Floats) -> Floats:
    """Vectors float32 [tokens, dimensions]: the given ones if they are that already."""
    if codes.dtype == np.float32:
        return np.asarray(codes, np.float32)
    if not worth_loading(codes.size // _A_STEP):
        return codes.astype(np.float32) * scales[:, None] if len(scales) else codes.astype(np.float32)
    found = np.empty(codes.shape, np.float32)
    flat = found.reshape(-1)
    if codes.dtype == np.float16:
        _widened(np.ascontiguousarray(codes).reshape(-1).view(np.uint16), flat.view(np.uint32), flat)
    else:
        _scaled(np.ascontiguousarray(codes).reshape(-1), np.ascontiguousarray(scales), flat)
    return found


@compiled("void(Array(uint16, 1, 'C', readonly=True), uint32[::1], float32[::1])")
def _widened(halves: Any, bits: Any, floats: Any) -> None:
    """Float16 to float32, as `bits` and `floats` share their memory: move exponent and fraction, then mend the exponent."""
    for i in range(len(halves)):
        half = np.uint32(halves[i])
        bits[i] = (half & np.uint32(0x8000)) << np.uint32(16) | (half & np.uint32(0x7FFF)) << np.uint32(13)
    for i in range(len(floats)):
        floats[i] *= np.float32(2.0**112)


@compiled("void(Array(int8, 1, 'C', readonly=True), F32, float32[::1])")
def _scaled(codes: Any, scales: Any, floats: Any) -> None:
    """Bytes times the scale of their token."""
    width = len(codes) // max(len(scales), 1)
    for i in range(len(scales)):
        for j in range(i * width, (i + 1) * width):
            floats[j] = codes[j] * scales[i]

"""Kernels compiled by numba: one decorator, and the argument types that accept memory-mapped (read-only) arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit, types

F = TypeVar("F", bound=Callable[..., Any])


def readonly(dtype: Any) -> Any:
    """The numba type of a 1-D array that a kernel only reads: writable and read-only arrays both convert to it."""
    return types.Array(dtype, 1, "C", readonly=True)


I64, I32, U64, U32, U8, F32, B1 = (
    readonly(t) for t in (types.int64, types.int32, types.uint64, types.uint32, types.uint8, types.float32, types.bool_)
)
"""Arrays that a kernel reads."""


def compiled(signature: Any) -> Callable[[F], F]:
    """Compile a function for one signature, releasing the interpreter lock; kept on disk where that is possible."""

    def wrap(function: F) -> F:
        try:
            made: F = njit(signature, cache=True, nogil=True)(function)
        except RuntimeError:  # neither the package's folder nor the home directory can be written
            made = njit(signature, nogil=True)(function)
        return made

    return wrap

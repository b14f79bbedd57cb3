"""Kernels compiled by numba: one decorator, and the argument types that accept memory-mapped (read-only) arrays.

Loading numba and its kernels takes about a second, many times what one query needs. A kernel whose signature is text is
therefore loaded when it is first called, and small work may be done without: `worth_loading` says when.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from functools import cache, update_wrapper
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    I64 = I32 = U64 = U32 = U8 = F32 = B1 = Any  # made by `__getattr__`

F = TypeVar("F", bound=Callable[..., Any])

# What is read, by the name it has in signatures.
_READ = {
    "I64": "int64", "I32": "int32", "U64": "uint64", "U32": "uint32", "U8": "uint8", "F32": "float32", "B1": "bool_",
}  # fmt: skip
_PATIENCE = 500_000  # steps of the interpreter, about as long as loading takes
# By process: a lock held while another thread forks would stay locked in the child for ever.
_loading: dict[int, threading.RLock] = {}
_loaded = False
_steps = 0
_later: list[_Later] = []


def readonly(dtype: Any) -> Any:
    """The numba type of a 1-D array that a kernel only reads: writable and read-only arrays both convert to it."""
    from numba import types

    return types.Array(dtype, 1, "C", readonly=True)


@cache
def __getattr__(name: str) -> Any:
    """`I64`, `I32`, `U64`, `U32`, `U8`, `F32`, `B1`: arrays that a kernel reads."""
    if name not in _READ:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from numba import types

    return readonly(getattr(types, _READ[name]))


def compiled(signature: Any) -> Callable[[F], F]:
    """Compile a function for one signature, releasing the interpreter lock; kept on disk where that is possible.

    Args:
        signature: A numba signature, compiled at once; or one as text, such as `"int64(I64, float32[::1])"`, compiled
            when the function, or one that calls it, is first called. In text, `I64` and the like are arrays that are
            only read, and the other names are those of `numba.types`.
    """

    def wrap(function: F) -> F:
        made: Any = _Later(function, signature) if isinstance(signature, str) else _made(function, signature)
        return made  # type: ignore[no-any-return]

    return wrap


def worth_loading(steps: int) -> bool:
    """Whether work is for compiled kernels: they are loaded already, or without them it has become too much.

    Args:
        steps: How many steps the interpreter would take for what is to be done now. A process is patient for half a
            million of them, all its work taken together.
    """
    global _steps
    _steps += steps  # threads that count at the same time may lose some, which does no harm
    return _loaded or _steps > _PATIENCE


def ready() -> None:
    """Load every kernel of the modules that were imported: for those who time what follows.

    Example:
        >>> ready()
        >>> worth_loading(0)
        True
    """
    for one in _later:
        one.made()


class _Later:
    """A function that is compiled when it is first called, and takes its own place in its module then."""

    def __init__(self, function: Callable[..., Any], signature: str) -> None:
        update_wrapper(self, function)
        self._function, self._signature = function, signature
        self._made: Any = None
        _later.append(self)

    def __call__(self, *arguments: Any) -> Any:
        return (self._made or self.made())(*arguments)

    def made(self) -> Any:
        """The compiled function. Those that it calls are compiled first."""
        with _loading.setdefault(os.getpid(), threading.RLock()):
            if self._made is None:
                there = self._function.__globals__
                for name in self._function.__code__.co_names:
                    if isinstance(called := there.get(name), _Later):
                        called.made()
                self._made = _made(self._function, _spelt(self._signature))
                if there.get(self._function.__name__) is self:
                    there[self._function.__name__] = self._made
        return self._made


def _made(function: Callable[..., Any], signature: Any) -> Any:
    global _loaded
    from numba import njit

    _loaded = True
    try:
        return njit(signature, cache=True, nogil=True)(function)
    except RuntimeError:  # neither the package's folder nor the home directory can be written
        return njit(signature, nogil=True)(function)


def _spelt(signature: str) -> str:
    """A signature as numba reads it."""
    return re.sub(
        rf"\b({'|'.join(_READ)})\b", lambda found: f"Array({_READ[found[0]]}, 1, 'C', readonly=True)", signature
    )

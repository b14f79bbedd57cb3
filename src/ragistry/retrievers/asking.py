"""What retrievers check before they search."""

from __future__ import annotations

import operator
from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInput
from ..types import Among, Floats, Query


def check_search(queries: Sequence[Query], k: int, among: Among) -> None:
    """Refuse what would end in silence or deep below: an iterator of queries is empty after one look, a text is a
    collection of letters.

    Args:
        queries: What is asked.
        k: How many hits at most.
        among: The ids allowed.

    Raises:
        InvalidInput: If `queries` is no sequence of texts, `k` no whole number, or `among` no collection.

    Example:
        >>> check_search(["fourteen lines"], 10, among="sonnet 18")
        Traceback (most recent call last):
        ...
        ragistry.errors.InvalidInput: among is given as str; give a list or set of ids, or None for all
    """
    if isinstance(queries, str | bytes) or not isinstance(queries, Sequence):
        raise InvalidInput(f"queries are given as {type(queries).__name__}; give a list of texts")
    for query in queries:
        if not isinstance(query, str):
            raise InvalidInput(f"a query is {type(query).__name__}, a str is needed: {query!r:.100}")
    whole("k", k)
    if among is not None and (isinstance(among, str) or not isinstance(among, Collection)):
        raise InvalidInput(f"among is given as {type(among).__name__}; give a list or set of ids, or None for all")


def whole(name: str, value: int) -> int:
    """A number, if it is a whole one.

    Raises:
        InvalidInput: If it is not.

    Example:
        >>> whole("k", 2.5)
        Traceback (most recent call last):
        ...
        ragistry.errors.InvalidInput: k=2.5 is float; give a whole number
    """
    try:
        return operator.index(value)
    except TypeError:
        raise InvalidInput(f"{name}={value!r:.100} is {type(value).__name__}; give a whole number") from None


def query_vectors(vectors: npt.ArrayLike) -> Floats:
    """Vectors of queries, float32 [n, d].

    Raises:
        InvalidInput: If they are no numbers of that shape, or not finite.

    Example:
        >>> query_vectors([[1, 2]])
        array([[1., 2.]], dtype=float32)
    """
    try:
        found = np.asarray(vectors, np.float32)
    except (TypeError, ValueError):
        raise InvalidInput(
            f"the vectors are {type(vectors).__name__}; numbers [queries, dimensions] are needed"
        ) from None
    if found.ndim != 2 or not np.isfinite(found).all():
        raise InvalidInput(f"the vectors are of shape {found.shape}; finite numbers [queries, dimensions] are needed")
    return found

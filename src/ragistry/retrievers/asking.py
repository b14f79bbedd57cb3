"""What retrievers check before they search."""

from __future__ import annotations

import operator
from collections.abc import Collection, Sequence

from ..errors import InvalidInput
from ..types import Among, Query


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
    try:
        operator.index(k)
    except TypeError:
        raise InvalidInput(f"k={k!r:.100} is {type(k).__name__}; give a whole number") from None
    if among is not None and (isinstance(among, str) or not isinstance(among, Collection)):
        raise InvalidInput(f"among is given as {type(among).__name__}; give a list or set of ids, or None for all")

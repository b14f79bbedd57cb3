"""Which documents hold given terms: what makes tasks, and tells how many of their queries fit one document only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..text import Analyzer
from ..types import Ints


class Occurrences:
    """The documents of each term, by the numbers that `Analyzer.keys` gives.

    Args:
        texts: One for each document.
        analyzer: Turns them into terms.

    Example:
        >>> found = Occurrences(["red fox", "red deer"], Analyzer())
        >>> found.holding(found.keys("the red deer")), found.distinct
        (array([1]), array([2, 2]))
    """

    def __init__(self, texts: Sequence[str], analyzer: Analyzer) -> None:
        self.analyzer = analyzer
        keys, offsets = analyzer.keys(texts)
        self._terms = _distinct(keys)
        size = max(len(texts), 1)
        rows = np.repeat(np.arange(len(texts)), np.diff(offsets))
        pairs = _distinct(np.searchsorted(self._terms, keys) * size + rows)
        self._documents = pairs % size
        self._starts = np.searchsorted(pairs // size, np.arange(len(self._terms) + 1))
        self.distinct: Ints = np.bincount(self._documents, minlength=len(texts))

    def keys(self, text: str) -> Ints:
        """The distinct terms of a text, as numbers in rising order."""
        return _distinct(self.analyzer.keys([text])[0])

    def frequencies(self, keys: Ints) -> Ints:
        """How many documents have each term."""
        if not len(self._terms):
            return np.zeros(len(keys), np.int64)
        at = np.minimum(np.searchsorted(self._terms, keys), len(self._terms) - 1)
        return np.where(self._terms[at] == keys, self._starts[at + 1] - self._starts[at], 0)

    def holding(self, keys: Ints) -> Ints:
        """The rows of the documents that have all of these terms, at least one, in rising order."""
        frequencies = self.frequencies(keys)
        order = np.argsort(frequencies, kind="stable")
        if not frequencies[order[0]]:
            return np.empty(0, np.int64)
        found = self._rows(keys[order[0]])
        for key in keys[order[1:]]:
            rows = self._rows(key)
            found = found[rows[np.minimum(np.searchsorted(rows, found), len(rows) - 1)] == found]
        return found

    def _rows(self, key: int) -> Ints:
        at = np.searchsorted(self._terms, key)
        return self._documents[self._starts[at] : self._starts[at + 1]]


def _distinct(numbers: Ints) -> Ints:
    """Each number once, in rising order; many times as fast as `np.unique` for millions of them."""
    numbers = np.sort(numbers)
    distinct: Ints = numbers[np.diff(numbers, prepend=-1) != 0]
    return distinct

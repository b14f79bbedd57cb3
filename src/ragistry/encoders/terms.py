"""Term counts: the encoder under BM25 and word-based query likelihood."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ..compiled import compiled, worth_loading
from ..errors import InvalidInput
from ..machine import cores
from ..text import Analyzer
from ..types import Counts, Document, Item, Kind, Role

if TYPE_CHECKING:
    from scipy.sparse import csr_array

COLUMNS = 2**63 - 1
APART = 512
"""Texts that are worth a processor core of their own."""


class Terms:
    """Counts the terms of each item.

    Columns are 63-bit hashes of terms (see `ragistry.text.term_key`), so there is no vocabulary to build, share or keep.

    Args:
        analyzer: How text becomes terms.

    Example:
        >>> sorted(Terms(Analyzer()).encode(["to code or to decode code"], "query").data.tolist())
        [1.0, 2.0]
    """

    kind: Kind = "sparse"

    def __init__(self, analyzer: Analyzer) -> None:
        self.analyzer = analyzer

    def encode(self, items: Sequence[Item], role: Role) -> csr_array:
        """float32 CSR array [len(items), 2^63 - 1] with sorted columns; the role changes nothing.

        Raises:
            InvalidInput: If an item is neither text nor a document.
        """
        from scipy.sparse import csr_array

        counts = self.counts(items)
        return csr_array((counts.data, counts.indices, counts.indptr), shape=counts.shape)

    def counts(self, items: Sequence[Item]) -> Counts:
        """What `encode` gives, without scipy.

        Raises:
            InvalidInput: If an item is neither text nor a document.

        Example:
            >>> Terms(Analyzer()).counts(["fourteen lines", ""]).indptr.tolist()
            [0, 2, 2]
        """
        texts = _texts(items)
        side_by_side = min(cores(), len(texts) // APART)
        if side_by_side < 2:
            return self._counted(texts)
        firsts = [len(texts) * part // side_by_side for part in range(side_by_side + 1)]
        with ThreadPoolExecutor(side_by_side) as pool:  # what is compiled runs side by side
            parts = list(pool.map(self._counted, [texts[a:b] for a, b in pairwise(firsts)]))
        before = np.cumsum([0, *(len(part.data) for part in parts[:-1])])
        starts = [part.indptr[1:] + shift for part, shift in zip(parts, before, strict=True)]
        return Counts(
            np.concatenate([part.data for part in parts]),
            np.concatenate([part.indices for part in parts]),
            np.concatenate([np.zeros(1, np.int64), *starts]),
            (len(texts), COLUMNS),
        )

    def _counted(self, texts: Sequence[str]) -> Counts:
        keys, offsets = self.analyzer.keys(texts)
        columns, counts = np.empty_like(keys), np.empty(len(keys), np.float32)
        starts = np.empty_like(offsets)
        count = _count if worth_loading(len(keys)) else _count.__wrapped__  # type: ignore[attr-defined]
        used = count(keys, offsets, columns, counts, starts)
        return Counts(counts[:used], columns[:used], starts, (len(texts), COLUMNS))

    def fingerprint(self) -> str:
        """Differs between analyzers that give different terms."""
        settings = [self.analyzer.stemmer, self.analyzer.stop_words, self.analyzer.identifiers]
        return hashlib.sha256(f"terms 1 {json.dumps(settings)}".encode()).hexdigest()


def _texts(items: Sequence[Item]) -> list[str]:
    if isinstance(items, str | Document):
        raise InvalidInput(f"one {type(items).__name__} was given; a list of items is needed: put it in brackets")
    texts = [item.full_text if isinstance(item, Document) else item for item in items]
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidInput(f"item {number} is {type(text).__name__}; a str or a Document is needed")
    return texts


@compiled("int64(I64, I64, int64[::1], float32[::1], int64[::1])")
def _count(keys: Any, offsets: Any, columns: Any, counts: Any, starts: Any) -> int:
    """Sort and count the keys of each text, and say how many are left. It also runs uncompiled."""
    used = 0
    starts[0] = 0
    for i in range(len(offsets) - 1):
        row = np.sort(keys[offsets[i] : offsets[i + 1]])
        for j in range(len(row)):
            if j > 0 and row[j] == row[j - 1]:
                counts[used - 1] += np.float32(1)
            else:
                columns[used], counts[used] = row[j], np.float32(1)
                used += 1
        starts[i + 1] = used
    return used

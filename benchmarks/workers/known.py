"""An encoder whose vectors are known: those of documents are rows of an array, as encoding a million would take hours."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ragistry.protocols import Encoder
from ragistry.types import Floats, Kind, Role


class Known:
    """Vectors of documents by their number, of queries by their text or by an encoder.

    Args:
        encoder: Of the other queries, and whose fingerprint this one has; none by default.
        documents: float32 [documents, dimensions]; a document's id is its row.
        queries: Vectors by text.

    Attributes:
        seconds: What encoding queries has taken.
    """

    kind: Kind = "dense"

    def __init__(
        self,
        encoder: Encoder | None = None,
        documents: Floats | None = None,
        queries: Mapping[str, Floats] | None = None,
    ) -> None:
        self.encoder, self.documents, self.queries = encoder, documents, queries or {}
        self.seconds = 0.0

    def encode(self, items: Sequence[Any], role: Role) -> Floats:
        """float32 [len(items), dimensions]."""
        if role == "document":
            assert self.documents is not None
            return np.asarray(self.documents[[int(item.id) for item in items]])
        if self.encoder is None:
            return np.stack([self.queries[item] for item in items])
        began = time.perf_counter()
        found = np.asarray(self.encoder.encode(items, role), np.float32)
        self.seconds += time.perf_counter() - began
        return found

    def fingerprint(self) -> str:
        """The encoder's."""
        return self.encoder.fingerprint() if self.encoder else "known"

"""Where documents are encoded: in this process, unless workers were brought in for a while.

An index asks here for its documents' vectors, so that no retriever needs to know of workers (see `ragistry.spreading`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from ..protocols import Encoder
from ..types import Document, MultiVectors, Vectors

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Elsewhere: TypeAlias = Callable[[Encoder, Sequence[str]], list[Vectors]]
"""Takes an encoder and the texts of documents; gives their vectors in order, in one part or several."""

_elsewhere: ContextVar[Elsewhere | None] = ContextVar("elsewhere", default=None)


@contextlib.contextmanager
def elsewhere(encode: Elsewhere) -> Iterator[None]:
    """Have what this thread encodes of documents encoded by `encode` meanwhile.

    Example:
        >>> from ragistry.encoders.terms import Terms
        >>> from ragistry.text import Analyzer
        >>> def halves(encoder, texts):
        ...     return [encoder.encode(some, "document") for some in (texts[:1], texts[1:])]
        >>> with elsewhere(halves):
        ...     encode_documents(Terms(Analyzer()), [Document("1", "fourteen lines"), Document("2", "a sonnet")]).shape[0]
        2
    """
    before = _elsewhere.set(encode)
    try:
        yield
    finally:
        _elsewhere.reset(before)


def encode_documents(encoder: Encoder, documents: Sequence[Document] | Sequence[str]) -> Vectors:
    """One vector per document, in order: what `encoder.encode` gives, whoever computes it."""
    away = _elsewhere.get()
    if away is None or not documents or _waits(encoder):
        return encoder.encode(documents, "document")
    return _joined(away(encoder, [d.full_text if isinstance(d, Document) else d for d in documents]))


def _waits(encoder: Encoder) -> bool:
    """Whether an encoder, maybe with a cache, is behind HTTP: it computes nothing, and keeps to a rate of its own."""
    from .remote import Remote

    return isinstance(getattr(encoder, "encoder", encoder), Remote)


def _joined(parts: Sequence[Vectors]) -> Vectors:
    first = parts[0]
    if len(parts) == 1:
        return first
    if isinstance(first, np.ndarray):
        return np.concatenate(cast(Any, parts))
    if isinstance(first, MultiVectors):
        several = cast(Sequence[MultiVectors], parts)
        lengths = np.concatenate([[0], *(np.diff(part.offsets) for part in several)])
        return MultiVectors(np.concatenate([part.values for part in several]), np.cumsum(lengths, dtype=np.int64))
    return _stacked(cast("Sequence[csr_array]", parts))


def _stacked(parts: Sequence[csr_array]) -> csr_array:
    from scipy.sparse import vstack

    return vstack(parts, format="csr")

"""What every encoder must do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, get_args

import numpy as np
from scipy.sparse import csr_array

from ..errors import InvalidInput
from ..protocols import Encoder
from ..types import Document, Item, Kind, MultiVectors, Role
from .checks import THREADS, alike, at_once, expect, refused, size, take

TEXTS = (
    "the cat sat on the mat", "", "a sonnet has fourteen lines", "dog", "Ünïcödé, 東京都 and 🦜", "poem " * 60,
    "tab\tand\nline", "the cat sat on the mat",
)  # fmt: skip


class EncoderContract:
    """Tests that an encoder's vectors depend on the item alone, and that it can be told from others.

    Define `make`, and `make_other`.

    Attributes:
        tolerance: How far rounding may move a vector's components, relative to the largest.

    Example:
        >>> from ragistry import Analyzer
        >>> from ragistry.encoders.terms import Terms
        >>> class TestTerms(EncoderContract):
        ...     def make(self):
        ...         return Terms(Analyzer())
        ...     def make_other(self):
        ...         return Terms(Analyzer(stemmer=None))
        >>> TestTerms().test_order_is_invisible()
    """

    tolerance: ClassVar[float] = 1e-4

    def make(self) -> Encoder:
        """The encoder, with the same settings each time."""
        raise InvalidInput(f"{type(self).__name__} does not say how to make the encoder; define `make`")

    def make_other(self) -> Encoder:
        """An encoder with settings that give other vectors."""
        raise InvalidInput(f"{type(self).__name__} makes no encoder with other settings; define `make_other`")

    def items(self) -> Sequence[Item]:
        """What is encoded, at least two items; override it where texts are of no use."""
        return TEXTS

    def test_is_an_encoder(self) -> None:
        """It has the methods, and a known kind."""
        encoder = self.make()
        expect(isinstance(encoder, Encoder), f"{type(encoder).__name__} lacks a method of ragistry.protocols.Encoder")
        expect(encoder.kind in get_args(Kind), f"kind={encoder.kind!r} is none of {get_args(Kind)}")

    def test_shape_and_type(self) -> None:
        """One vector per item, float32, finite, of the kind it says, for both roles."""
        encoder, items = self.make(), self.items()
        for role in get_args(Role):
            vectors: Any = encoder.encode(items, role)
            wanted = {"dense": np.ndarray, "sparse": csr_array, "multi": MultiVectors}[encoder.kind]
            expect(isinstance(vectors, wanted), f"{encoder.kind} vectors are {type(vectors).__name__}, not {wanted}")
            expect(size(vectors) == len(items), f"{len(items)} items gave {size(vectors)} vectors")
            values = {"dense": lambda v: v, "sparse": lambda v: v.data, "multi": lambda v: v.values}[encoder.kind](
                vectors
            )
            expect(values.dtype == np.float32, f"vectors are {values.dtype}; float32 is needed")
            expect(np.isfinite(values).all(), "a vector has a component that is NaN or infinite")
            if encoder.kind != "multi":
                expect(vectors.ndim == 2, f"vectors have shape {vectors.shape}; [items, dimensions] is needed")

    def test_width_is_constant(self) -> None:
        """Every call gives vectors of the same number of dimensions, also for no items."""
        encoder, items = self.make(), self.items()
        widths = {self._width(encoder.encode(some, role)) for some in (items, items[:1], []) for role in get_args(Role)}
        expect(len(widths) == 1, f"vectors have {sorted(widths)} dimensions; the number must not change")

    def test_order_is_invisible(self) -> None:
        """Items in another order give the same vectors in that order."""
        encoder, items = self.make(), self.items()
        for role in get_args(Role):
            vectors = encoder.encode(items, role)
            backwards = range(len(items) - 1, -1, -1)
            again = encoder.encode([items[i] for i in backwards], role)
            expect(alike(again, take(vectors, backwards), self.tolerance), "vectors depend on the order of the items")

    def test_batches_are_invisible(self) -> None:
        """An item alone gives the vector that it gives among others."""
        encoder, items = self.make(), self.items()
        for role in get_args(Role):
            vectors = encoder.encode(items, role)
            for i, item in enumerate(items):
                alone = encoder.encode([item], role)
                expect(alike(alone, take(vectors, [i]), self.tolerance), f"{item!r:.50} alone gives another vector")

    def test_no_items(self) -> None:
        """No items give no vectors."""
        for role in get_args(Role):
            expect(size(self.make().encode([], role)) == 0, "no items gave some vectors")

    def test_document_is_its_full_text(self) -> None:
        """A document gives the vector of its title and text."""
        encoder = self.make()
        document = Document("id", "the cat sat", title="On mats", metadata={"year": 2024})
        found, expected = encoder.encode([document], "document"), encoder.encode([document.full_text], "document")
        expect(alike(found, expected, self.tolerance), "a document and its full_text give different vectors")

    def test_long_text(self) -> None:
        """A megabyte of text gives a vector, with or without spaces."""
        found = self.make().encode(["word " * 200_000, "x" * 1_000_000], "document")
        expect(size(found) == 2, f"two long texts gave {size(found)} vectors")

    def test_bad_items_are_refused(self) -> None:
        """One text instead of a list, and items that are no text, are refused."""
        encoder: Any = self.make()
        for bad in ("one text", [None], [3], [b"bytes"], [["a list"]]):
            with refused(f"encode({bad!r})"):
                encoder.encode(bad, "query")

    def test_fingerprint(self) -> None:
        """The fingerprint stays the same for the same settings, and differs for others."""
        encoder = self.make()
        before = encoder.fingerprint()
        encoder.encode(self.items(), "query")
        expect(isinstance(before, str) and before, f"the fingerprint is {before!r}; text is needed")
        expect(encoder.fingerprint() == before, "encoding changed the fingerprint")
        expect(self.make().fingerprint() == before, "an encoder made the same way has another fingerprint")
        expect(self.make_other().fingerprint() != before, "an encoder with other settings has the same fingerprint")

    def test_threads(self) -> None:
        """Several threads at once, the first call included, get what one alone gets."""
        items = self.items()
        expected = self.make().encode(items, "document")
        encoder = self.make()
        for found in at_once([lambda: encoder.encode(items, "document")] * THREADS):
            expect(alike(found, expected, self.tolerance), "threads encoding at once got other vectors than one alone")

    @staticmethod
    def _width(vectors: Any) -> int:
        return int((vectors.values if isinstance(vectors, MultiVectors) else vectors).shape[1])

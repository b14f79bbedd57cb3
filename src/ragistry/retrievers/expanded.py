"""A searcher over word pieces, to which a model that was taught adds others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

from ..encoders.lexical import Expansion, Lexical
from ..encoders.token_table import LENGTH, SATURATION
from ..indexes.inverted import Inverted
from ..indexes.weighting import BM25, Impact
from ..protocols import Files, State
from ..types import Document
from .searcher import Searcher

CHUNK = 4096
"""Documents encoded at a time, which bounds memory."""


class Expanded(Searcher):
    """A lexical encoder over an inverted index: BM25 over word pieces until it is taught, then inner products of weights.

    Taught, it holds the statistics of the documents as they were then; those added later are weighed by the same.

    Args:
        encoder: Untaught, or taught before.

    Example:
        >>> searcher = Expanded(Lexical("all-MiniLM-L6-v2"))
        >>> searcher.add([Document("1", "fourteen lines"), Document("2", "three lines")])
        >>> searcher.search(["fourteen"])[0].ids
        ('1',)
    """

    def __init__(self, encoder: Lexical) -> None:
        super().__init__(encoder, _empty(encoder))
        self.lexical = encoder

    def taught(
        self,
        ids: Sequence[str],
        expansion: Expansion | None,
        documents: Callable[[Sequence[str]], Sequence[Document]],
    ) -> Self:
        """The same documents, encoded again and searched with what was learnt; this one stays as it is.

        Args:
            ids: Of all that are held.
            expansion: What was learnt; none is untaught.
            documents: Gives those with some ids; asked for some thousands at a time.
        """
        twin = self._twin(self.index)
        twin._use(expansion)
        for first in range(0, len(ids), CHUNK):
            twin.add(documents(list(ids[first : first + CHUNK])))
        return twin

    def save(self, files: Files) -> State:
        """Store arrays in `files` and return the rest."""
        state = super().save(files)
        if (found := self.lexical.expansion) is not None:
            state["expansion"] = {
                "columns": files.put(found.columns),
                "idf": files.put(found.idf),
                "length": found.length,
                "scale": found.scale,
                "weights": {name: files.put(value) for name, value in sorted(found.weights.items())},
                "tuned": {name: files.put(value) for name, value in sorted(found.tuned.items())},
            }
        return state

    def load(self, state: State, files: Files) -> None:
        """Become what was saved."""
        found: Any = state.get("expansion")
        expansion = None
        if found is not None:
            arrays = {part: {n: files.get(file) for n, file in found[part].items()} for part in ("weights", "tuned")}
            expansion = Expansion(
                files.get(found["columns"]), files.get(found["idf"]), found["length"], scale=found["scale"], **arrays
            )
        self._use(expansion)
        super().load(state, files)

    def _use(self, expansion: Expansion | None) -> None:
        self.lexical = self.encoder = self.lexical.taught(expansion)
        self.index = _empty(self.lexical)
        self._expected = ""


def _empty(encoder: Lexical) -> Inverted:
    return Inverted(BM25(SATURATION, LENGTH) if encoder.counting else Impact())

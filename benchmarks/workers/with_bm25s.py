"""bm25s with its numba backend and its own tokenizer, a stemmer that keeps no cache, and one thread for a query."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import bm25s
import Stemmer
from serve import serve

WARM = ["compile once", "compile the second time"]


class Bm25s:
    """An index in memory, or one loaded from a folder."""

    def __init__(self) -> None:
        self.stemmer = Stemmer.Stemmer("english", 0)
        self._index(WARM)  # numba compiles
        self.search("compile", 1)

    def build(self, texts: str, folder: str) -> None:
        """Index a file of texts, one a line."""
        self._index(Path(texts).read_text("utf-8").splitlines())

    def save(self, folder: str) -> None:
        """Write the index."""
        self.engine.save(folder)

    def open(self, folder: str) -> None:
        """Load it."""
        self.engine = bm25s.BM25.load(folder)
        self.engine.backend = "numba"

    def search(self, query: str, k: int) -> list[int]:
        """The best documents' numbers."""
        found, scores = self.engine.retrieve(
            self._tokens([query], return_ids=False), k=k, show_progress=False, n_threads=1
        )
        return [int(number) for number, score in zip(found[0], scores[0], strict=True) if score > 0]

    def _index(self, texts: list[str]) -> None:
        self.engine = bm25s.BM25(method="lucene", k1=1.2, b=0.75, backend="numba")
        self.engine.index(self._tokens(texts), show_progress=False)

    def _tokens(self, texts: list[str], *, return_ids: bool = True) -> Any:
        return bm25s.tokenize(texts, stopwords="en", stemmer=self.stemmer, show_progress=False, return_ids=return_ids)


if __name__ == "__main__":
    serve(Bm25s())

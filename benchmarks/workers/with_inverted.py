"""Ragistry's lexical index alone, in memory: `Terms` and `Inverted`, filled in batches as a collection does it."""

from __future__ import annotations

from itertools import islice
from tempfile import TemporaryDirectory

from serve import serve

from ragistry import Analyzer
from ragistry.encoders.terms import Terms
from ragistry.indexes.inverted import Inverted
from ragistry.indexes.weighting import BM25

BATCH = 4096


class Lexical:
    """An index in memory."""

    def __init__(self) -> None:
        self.encoder = Terms(Analyzer())
        with TemporaryDirectory() as folder:  # numba loads what it compiled
            texts = f"{folder}/texts"
            with open(texts, "w", encoding="utf-8") as file:
                file.write("compile once\ncompile the second time\n")
            self.build(texts, folder)
            self.search("compile", 1)

    def build(self, texts: str, folder: str) -> None:
        """Index a file of texts, one a line."""
        self.index, first = Inverted(BM25(1.2, 0.75)), 0
        with open(texts, encoding="utf-8") as lines:
            while some := list(islice(lines, BATCH)):
                ids = [str(first + i) for i in range(len(some))]
                self.index.add(ids, self.encoder.encode(some, "document"))
                first += len(some)
        self.search("compile", 1)

    def search(self, query: str, k: int) -> list[int]:
        """The best documents' numbers."""
        return [int(id) for id in self.index.search(self.encoder.counts([query]), k)[0].ids]


if __name__ == "__main__":
    serve(Lexical())

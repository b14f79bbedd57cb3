"""Collections of Ragistry on disk, whose documents' vectors are given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from known import Known
from serve import serve

from ragistry import Collection, Document, create

BATCH = 8192  # documents a commit, where the recipe's would be small because models are slow


class Collections:
    """One collection, made or opened."""

    known: Known | None = None

    def warm(self, kind: str, vectors: bool = False) -> None:
        """Load what building needs, such as what numba compiled, so that its time is that of the documents."""
        with TemporaryDirectory() as directory:
            folder = Path(directory)
            (folder / "texts").write_text("compile once\ncompile the second time\n", "utf-8")
            np.save(folder / "vectors.npy", np.eye(2, 384, dtype=np.float32))
            given = {"vectors": str(folder / "vectors.npy")} if vectors else {}
            self.build(kind, str(folder / "texts"), str(folder / "collection"), **given)

    def build(self, kind: str, texts: str, folder: str, vectors: str | None = None, model: bool = False) -> None:
        """Fill a new collection with a file of texts, one a line, and an array of vectors, [texts, dimensions].

        With `model`, the vectors are taken to be those of the recipe's own model, which then encodes queries.
        """
        with Collection.create(folder, create(kind)) as collection:
            if vectors is not None:
                self._encoder(collection, model, documents=np.load(vectors, mmap_mode="r"))
            with open(texts, encoding="utf-8") as lines:
                documents = (Document(str(number), line.rstrip("\n")) for number, line in enumerate(lines))
                collection.add(documents, batch=None if vectors is None else BATCH)

    def open(self, folder: str, queries: Sequence[str] = (), vectors: str | None = None) -> None:
        """Open a collection. Queries are encoded by its model, unless their vectors are given, [queries, dimensions]."""
        self.collection = Collection.open(folder)
        given = {} if vectors is None else dict(zip(queries, np.load(vectors), strict=True))
        self.known = self._encoder(self.collection, vectors is None, queries=given)

    def search(self, query: str, k: int) -> dict[str, Any]:
        """The best documents' numbers, and the seconds of it that encoding took."""
        before = self.known.seconds if self.known else 0.0
        hits = self.collection.search(query, k)
        return {"ids": [int(hit.id) for hit in hits], "encoding": (self.known.seconds if self.known else 0.0) - before}

    def size(self) -> dict[str, int]:
        """Bytes on disk."""
        info = self.collection.info()
        return {"index": info["index_bytes"], "corpus": info["corpus_bytes"]}

    def _encoder(self, collection: Collection, model: bool, **given: Any) -> Known | None:
        """Put known vectors in the place of the model."""
        retriever: Any = collection.retriever()
        searcher = getattr(retriever, "members", {"dense": retriever})["dense"]
        if searcher.encoder.kind != "dense":
            return None
        known = searcher.encoder = Known(searcher.encoder if model else None, **given)
        return known


if __name__ == "__main__":
    serve(Collections())

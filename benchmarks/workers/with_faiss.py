"""faiss Flat with inner products, one thread, as two wait for each other on a busy machine."""

from __future__ import annotations

import faiss
import numpy as np
from serve import serve


class Flat:
    """An index in memory."""

    def build(self, vectors: str, count: int, path: str) -> None:
        """Index the first rows of an array [vectors, dimensions], and save it."""
        rows = np.load(vectors, mmap_mode="r")[:count]
        index = faiss.IndexFlatIP(rows.shape[1])
        for first in range(0, len(rows), 8192):
            index.add(np.ascontiguousarray(rows[first : first + 8192]))
        faiss.write_index(index, path)

    def open(self, path: str, vectors: str) -> None:
        """Load it, and the vectors of queries, [queries, dimensions]."""
        faiss.omp_set_num_threads(1)
        self.index, self.queries = faiss.read_index(path), np.load(vectors)

    def search(self, number: int, k: int) -> list[int]:
        """The nearest vectors' numbers to a query."""
        return self.index.search(self.queries[number : number + 1], k)[1][0].tolist()  # type: ignore[no-any-return]


if __name__ == "__main__":
    serve(Flat())

"""LanceDB, exact (no vector index), its filter a column with a bitmap index, applied before ranking."""

from __future__ import annotations

from collections.abc import Mapping

import lancedb
import numpy as np
import pyarrow as pa
from serve import serve


class Lance:
    """A table in a folder."""

    def load(self, folder: str, vectors: str, masks: Mapping[str, str], queries: str) -> None:
        """Fill it with an array [vectors, dimensions], and columns of masks [vectors] by name; read queries."""
        rows = np.load(vectors)
        columns = {
            "number": pa.array(np.arange(len(rows))),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1]),
        }
        columns |= {name: pa.array(np.load(path)) for name, path in masks.items()}
        self.table = lancedb.connect(folder).create_table("vectors", pa.table(columns))
        for name in masks:
            self.table.create_scalar_index(name, index_type="BITMAP")
        self.queries = np.load(queries)

    def search(self, number: int, k: int, mask: str | None = None) -> list[int]:
        """The nearest vectors' numbers to a query, among those of a mask."""
        asked = self.table.search(self.queries[number]).distance_type("dot").select(["number"]).limit(k)
        if mask is not None:
            asked = asked.where(f"{mask} = true", prefilter=True)
        return asked.to_arrow()["number"].to_pylist()  # type: ignore[no-any-return]


if __name__ == "__main__":
    serve(Lance())

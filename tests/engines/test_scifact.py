"""Rankings of real data are those of the embedded indexes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ragistry import Collection, create
from ragistry.errors import UnknownName
from ragistry.evaluation import load

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["bm25", "query-likelihood", "dense"])
def test_scifact_is_answered_alike(name: str, address: str, tmp_path: Path) -> None:
    try:
        scifact = load("scifact")
    except UnknownName:
        pytest.skip("the data set SciFact is not where RAGISTRY_DATA points")
    # By one runtime: which one is quickest, an encoder finds out on its way.
    fields = (
        {"cache": str(tmp_path / "embeddings.sqlite"), "index": "Flat", "runtime": "torch"} if name == "dense" else {}
    )
    test, found, rankings = scifact.split(), [], []
    for location in (tmp_path / "docs", address):
        with Collection.create(location, create(name, **fields)) as docs:
            docs.add(scifact.documents)
            found.append(docs.evaluate(test.queries, test.qrels, ["nDCG@10", "R@100"]).means)
            searcher: Any = docs.retriever()
            # Encoded all at once: in half precision the company that a query is encoded in makes a difference.
            rankings.append(searcher.index.search(searcher.encoder.encode(list(test.queries.values()), "query"), 10))
    assert found[1]["nDCG@10"] == pytest.approx(found[0]["nDCG@10"], abs=0.002)
    same = [one.ids == other.ids for one, other in zip(*rankings, strict=True)]
    assert sum(same) >= 0.98 * len(same)

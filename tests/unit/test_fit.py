"""Collections learn from pairs, and keep only what helps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ragistry import Collection, Document, create
from ragistry.errors import InvalidInput

from .test_collection import arrays


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "bm25", "b": 0.0},
        {"name": "query-likelihood", "mu": 1e6},
        {
            "name": "hybrid",
            "members": {"good": "bm25", "bad": {"name": "bm25", "b": 0.0}},
            "weights": {"good": 0.0},
        },
    ],
    ids=["bm25", "query-likelihood", "hybrid"],
)
def test_fit_keeps_what_helps(tmp_path: Path, spec: dict[str, Any]) -> None:
    # The answer names the word once in a short text, another text names it twice in a long one: length must count.
    documents, pairs = [], []
    for i in range(80):
        documents += [
            Document(f"short {i}", f"word{i} here"),
            Document(f"long {i}", f"word{i} word{i} " + "filler " * 60),
        ]
        pairs.append((f"word{i}", f"short {i}"))
    with Collection.create(tmp_path / "docs", create(spec)) as docs:
        docs.add(documents)
        files, tried = arrays(docs), list[int]()
        result = docs.fit([*pairs, ("word1", "nowhere")], progress=tried.append)
        assert result.kept
        assert result.fitted > result.base
        assert result.fitted <= result.headroom == 1.0
        assert (sum(tried), result.skipped) == (result.candidates, 1)
        assert sum(result.queries) == 80
        assert docs.recipe == result.recipe.model_dump(mode="json") != create(spec).recipe.model_dump(mode="json")  # type: ignore[attr-defined]
        assert arrays(docs) == files
        assert docs.search("word7")[0].id == "short 7"
        with Collection.open(docs.path) as again:
            assert again.search("word7 here") == docs.search("word7 here")
        docs.check()
        assert not docs.fit(pairs).kept  # nothing is left to gain


def test_fit_keeps_nothing_that_does_not_help(tmp_path: Path) -> None:
    with Collection.create(tmp_path / "docs", create("bm25")) as docs:
        docs.add(Document(str(i), f"word{i}") for i in range(30))
        before = docs.info()
        result = docs.fit((f"word{i}", str(i)) for i in range(30))
        assert (result.kept, result.base, result.fitted) == (False, 1.0, 1.0)
        assert docs.info() == before


def test_a_hybrid_of_one_member_has_nothing_to_fit(tmp_path: Path) -> None:
    with Collection.create(tmp_path / "docs", create("hybrid", members={"only": "bm25"})) as docs:
        docs.add(Document(str(i), f"word{i}") for i in range(30))
        assert not docs.fit((f"word{i}", str(i)) for i in range(30)).kept


def test_too_few_or_unknown_pairs_are_refused(tmp_path: Path) -> None:
    with Collection.create(tmp_path / "docs", create("bm25")) as docs:
        docs.add(Document("1", "a frog jumps into an old pond"))
        with pytest.raises(InvalidInput, match="at least 10"):
            docs.fit([("pond", "1")])
        with pytest.raises(InvalidInput, match="20 of 20 pairs"):
            docs.fit([(f"query {i}", "nowhere") for i in range(20)])

"""A fresh process that answers one query loads neither the compiler nor what it does not need."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ragistry import Collection, Document, create

SLOW = ("numba", "scipy", "torch", "faiss", "transformers")
SEARCH = """
import sys
from ragistry.cli import app
try:
    app(sys.argv[1:], prog_name="ragistry")
finally:
    print(*(name for name in {slow} if name in sys.modules), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hundred documents in several segments, some replaced, some removed."""
    path = tmp_path_factory.mktemp("cold") / "docs"
    with Collection.create(path, create("bm25")) as collection:
        texts = [f"The sonnet number {i} has fourteen lines, and {i % 7} of them rhyme." for i in range(200)]
        collection.add([Document(str(i), text, metadata={"odd": i % 2}) for i, text in enumerate(texts)], batch=150)
        collection.add(Document("7", "Nothing here rhymes with orange \u2014 \u6771\u4eac\u90fd."))
        collection.remove(["8", "9"])
    return path


def searched(docs: Path, *arguments: str, given: str = "") -> tuple[str, list[str]]:
    """What a fresh process prints, and what it loaded."""
    command = [sys.executable, "-c", SEARCH.format(slow=SLOW), "search", str(docs), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, input=given)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr.split()


@pytest.mark.parametrize(
    "arguments",
    [["sonnet lines"], ["orange \u6771\u4eac"], ["rhyme 5", "--where", '{"odd": 1}'], ["number 12", "-k", "3"]],
)
def test_one_query_is_answered_without_the_compiler(docs: Path, arguments: list[str]) -> None:
    shown, loaded = searched(docs, *arguments)
    assert loaded == []
    as_json, loaded = searched(docs, *arguments, "--json")
    assert loaded == []
    hits = json.loads(as_json)["hits"]
    assert hits and all(hit["id"] in shown for hit in hits)
    where = {"odd": 1} if "--where" in arguments else None
    with Collection.open(docs) as collection:
        k = 3 if "-k" in arguments else 10
        collection.search_many([arguments[0]] * 2_000 + ["sonnet"])  # loads the compiler
        warm = collection.search(arguments[0], k, where=where)
    assert [(hit["id"], hit["score"]) for hit in hits] == [(hit.id, hit.score) for hit in warm]


def test_much_work_loads_the_compiler(docs: Path) -> None:
    _, loaded = searched(docs, "-", "--json", given="sonnet " * 90_000)
    assert "numba" in loaded

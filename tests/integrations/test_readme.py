"""What the README tells people to paste works as it stands, and is short."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ragistry import Collection, Document, create

from ..unit.test_borrowed import encode, questions

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
SECTION = README.split("## In the framework you use\n")[1].split("\n## ")[0]
BLOCKS = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with Collection.create(tmp_path / "my-docs", create("bm25")) as docs:
        docs.add(Document("1", "The term was coined by Calvin Mooers in 1950."))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    yield tmp_path


def pasted(name: str, capsys: pytest.CaptureFixture[str], **given: Any) -> str:
    """What the block that holds some text prints."""
    (block,) = (block for block in BLOCKS if name in block)
    exec(compile(block, "README.md", "exec"), given)
    return capsys.readouterr().out


def test_blocks_are_short() -> None:
    assert len(BLOCKS) == 4
    assert all(len([line for line in block.splitlines() if line.strip()]) <= 10 for block in BLOCKS)


def test_langchain(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("langchain_core")
    from langchain_core.runnables import RunnableLambda

    repeats = RunnableLambda(lambda prompt: prompt.to_string())
    assert "Calvin Mooers" in pasted("RunnablePassthrough", capsys, model=repeats)


def test_llama_index(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("llama_index.core")
    from llama_index.core.llms import MockLLM

    assert "Calvin Mooers" in pasted("RetrieverQueryEngine", capsys, llm=MockLLM())


def test_mcp(here: Path) -> None:
    pytest.importorskip("mcp")
    block = next(block for block in BLOCKS if "StdioServerParameters" in block)
    done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, check=False)
    assert "Calvin Mooers" in done.stdout, done.stderr


def test_a_store_that_is_there_already(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("langchain_core")
    pytest.importorskip("torch")
    from langchain_core.vectorstores import InMemoryVectorStore

    from ragistry.encoders.functions import Function
    from ragistry_langchain import RagistryEmbeddings, borrow

    store = InMemoryVectorStore(RagistryEmbeddings(Function(encode, "turned away")))
    topics = [f"d{topic}" for topic in range(90)]
    store.add_texts([f"tell {topic[1:]}" for topic in topics], ids=topics)
    lines = [json.dumps({"query": query, "document_id": id}) for query, id in questions(range(90))]
    (here / "pairs.jsonl").write_text("\n".join(lines), encoding="utf-8")
    block = next(block for block in BLOCKS if "borrow(vector_store)" in block).replace(
        "who coined the term?", "ask 7 70"
    )
    found: dict[str, Any] = {"vector_store": store}
    exec(compile(block, "README.md", "exec"), found)
    assert found["hits"] == found["mine"].search("ask 7 70") != borrow(store).search("ask 7 70")
    assert (here / "adapter.safetensors").stat().st_size > 0

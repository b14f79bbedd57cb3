"""The rules of the house that a machine can check."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ragistry

ROOT = Path(__file__).parents[2]
SOURCE = Path(ragistry.__file__).parent
ADAPTERS = ROOT / "integrations"
FILES = sorted([*SOURCE.rglob("*.py"), *ADAPTERS.rglob("*.py")])
HEAVY = {
    "torch", "transformers", "faiss", "numba", "langchain", "langchain_core", "llama_index", "mcp", "peft",
    "httpx", "tenacity", "matplotlib", "dspy", "haystack", "ragistry_mcp",
}  # fmt: skip
PICKLING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
LINES = 400

every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())


def loaded_after(code: str) -> set[str]:
    """The packages that a fresh interpreter has loaded after running some code."""
    program = f"import sys\n{code}\nprint(*sys.modules, sep='\\n', file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(SOURCE.parent)},
    )
    return {name.split(".")[0] for name in done.stderr.splitlines()}


def test_import_is_light() -> None:
    loaded = loaded_after("import ragistry")
    assert "ragistry" in loaded
    assert not loaded & HEAVY


def test_listing_retrievers_is_light() -> None:
    loaded = loaded_after(
        "import ragistry; ragistry.names(); ragistry.schema('dense'); ragistry.recipe('hybrid'); ragistry.schema('adder'); "
        "ragistry.recipe('pefa-xl')"
    )
    assert "pydantic" in loaded
    assert not loaded & HEAVY


def test_searching_words_needs_no_model() -> None:
    code = "import ragistry as r; b = r.create('bm25'); b.add([r.Document('1', 'a cat')]); assert len(b.search(['cat'])[0])"
    loaded = loaded_after(code)
    assert "numba" in loaded
    assert not loaded & (HEAVY - {"numba"})


def test_public_names_resolve_and_are_documented() -> None:
    assert ragistry.__all__ == sorted(set(ragistry.__all__)) == dir(ragistry)
    for name in ragistry.__all__:
        value = getattr(ragistry, name)
        if name != "__version__":
            assert (inspect.getdoc(value) or "").strip(), f"ragistry.{name} has no docstring"
    with pytest.raises(AttributeError, match="Collection"):
        ragistry.nonsense  # noqa: B018


def test_type_checkers_see_the_public_names() -> None:
    tree = ast.parse((SOURCE / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.asname for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen | {"__version__"} == set(ragistry.__all__)


@pytest.mark.parametrize("name", [n for n in ragistry.__all__ if n != "__version__"])
def test_methods_of_public_classes_are_documented(name: str) -> None:
    value = getattr(ragistry, name)
    if inspect.isclass(value):
        own = [
            attribute for attribute in vars(value) if not attribute.startswith("_") and callable(vars(value)[attribute])
        ]
        assert [attribute for attribute in own if not inspect.getdoc(getattr(value, attribute))] == []


@every_file
def test_public_classes_and_functions_are_documented(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "the module has no docstring"
    public = [node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)]
    assert [n.name for n in public if not n.name.startswith("_") and not ast.get_docstring(n)] == []


@every_file
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES


@every_file
def test_nothing_stored_is_ever_executed(path: Path) -> None:
    assert list(dangers(ast.parse(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from joblib import load", "np.load(path, allow_pickle=True)", "f(allow_pickle=asked)",
        "torch.load(path)", "from torch import load", "Model.from_pretrained(name, trust_remote_code=True)",
        "yaml.load(text)", "eval(text)", "f(**{'trust_remote_code': True})",
    ],
)  # fmt: skip
def test_dangers_are_seen(code: str) -> None:
    assert list(dangers(ast.parse(code)))


def dangers(tree: ast.AST) -> Iterator[str]:
    """Whatever would run code from a file or a hub."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in PICKLING)
        elif isinstance(node, ast.ImportFrom):
            module = (node.module or "").split(".")[0]
            if module in PICKLING or (
                module in {"torch", "yaml"} and any(alias.name == "load" for alias in node.names)
            ):
                yield str(node.module)
        elif isinstance(node, ast.keyword) and node.arg in {"allow_pickle", "trust_remote_code"}:
            if not (isinstance(node.value, ast.Constant) and node.value.value is False):
                yield node.arg
        elif isinstance(node, ast.Constant) and node.value in {"allow_pickle", "trust_remote_code"}:
            yield str(node.value)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {"torch.load", "yaml.load", "eval", "exec"}:
            yield ast.unparse(node.func)


def test_imports_run_down_only() -> None:
    pytest.importorskip("importlinter")
    # A process of its own: the linter reconfigures logging.
    command = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

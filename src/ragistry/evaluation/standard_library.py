"""What the running Python's standard library defines: public functions, classes and methods, with their documentation.

Modules written in Python are parsed, not imported, for importing some of them does things. Those written in C have no
source; a fixed list of them is imported.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import re
import sys
import sysconfig
import tokenize
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ..errors import StorageError

Kind: TypeAlias = Literal["function", "class", "method"]
Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef

# Not for users (idlelib, ...), about to go (distutils, lib2to3), or tables of hundreds of like functions (encodings).
_LEFT_OUT = """
antigravity distutils encodings ensurepip idlelib lib2to3 pydoc_data test this turtledemo venv
"""
_IN_C = """
builtins array atexit binascii cmath collections csv datetime decimal errno faulthandler fcntl functools gc grp hashlib
io itertools marshal math mmap operator os pwd random re select signal struct sys syslog time unicodedata zlib
"""
_SELF = re.compile(r"\$\w+(?:, /)?(?:, )?")


@dataclass(frozen=True, slots=True)
class Definition:
    """A function, class or method.

    Args:
        name: Qualified with its module, such as `json.dumps`.
        kind: What it is.
        module: Where it is defined.
        line: Of its source, or None if it is written in C.
        head: Its signature, with decorators.
        doc: Its documentation, without indentation; "" if there is none.
        body: Its source after the documentation; for a class the signatures of its methods.
    """

    name: str
    kind: Kind
    module: str
    line: int | None
    head: str
    doc: str
    body: str


def definitions() -> list[Definition]:
    """All public definitions, by name; where one is made twice, the first that is documented."""
    found: dict[str, Definition] = {}
    for module, path in _sources():
        for made in _parsed(module, path):
            if made.name not in found or (made.doc and not found[made.name].doc):
                found[made.name] = made
    for module in _IN_C.split():
        with suppress(ImportError):
            for made in _imported(module):
                found.setdefault(made.name, made)
    return [found[name] for name in sorted(found)]


def _sources() -> Iterator[tuple[str, Path]]:
    """Public modules written in Python, with their files."""
    root = Path(sysconfig.get_path("stdlib"))
    if not (root / "os.py").is_file():
        raise StorageError(f"{str(root)!r} does not hold the standard library's source; use a Python installed with it")
    for top in sorted(sys.stdlib_module_names - set(_LEFT_OUT.split())):
        if not top.startswith("_"):
            folder, file = root / top, root / f"{top}.py"
            for path in [file] if file.is_file() else sorted(folder.rglob("*.py")):
                parts = path.relative_to(root).with_suffix("").parts
                parts = parts[:-1] if parts[-1] == "__init__" else parts
                if not any(part.startswith("_") or part in {"test", "tests"} for part in parts):
                    yield ".".join(parts), path


def _parsed(module: str, path: Path) -> Iterator[Definition]:
    with tokenize.open(path) as file:
        source = file.read()
    yield from _Source(module, source).walk(ast.parse(source).body, module)


class _Source:
    """One module's source, cut by the byte offsets that `ast` gives."""

    def __init__(self, module: str, source: str) -> None:
        self.module = module
        self.bytes = source.encode()
        self.starts = [0, 0]
        for line in self.bytes.split(b"\n"):
            self.starts.append(self.starts[-1] + len(line) + 1)

    def walk(self, body: list[ast.stmt], owner: str, kind: Kind = "function") -> Iterator[Definition]:
        """Public definitions in a body, and in its branches."""
        for node in body:
            if isinstance(node, ast.If | ast.Try):
                handled = [inner for handler in getattr(node, "handlers", []) for inner in handler.body]
                yield from self.walk([*node.body, *handled, *node.orelse], owner, kind)
            elif isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
                name = f"{owner}.{node.name}"
                if isinstance(node, ast.ClassDef):
                    yield self.class_(node, name)
                    yield from self.walk(node.body, name, "method")
                else:
                    yield self.function(node, name, kind)

    def function(self, node: Function, name: str, kind: Kind) -> Definition:
        """A function with its source."""
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        start, end = self.starts[first], self.offset(node.end_lineno, node.end_col_offset)
        documented = ast.get_docstring(node, clean=False) is not None
        doc = node.body[0]
        cut = self.offset(doc.lineno, doc.col_offset)
        rest = self.offset(doc.end_lineno, doc.end_col_offset) if documented else cut
        indent = b" " * doc.col_offset if not documented else b""
        head, body = self.bytes[start:cut].decode().rstrip(), (indent + self.bytes[rest:end]).decode().strip("\n")
        margin = node.col_offset
        return Definition(
            name,
            kind,
            self.module,
            node.lineno,
            _moved(head, margin),
            ast.get_docstring(node) or "",
            _moved(body, margin),
        )

    def class_(self, node: ast.ClassDef, name: str) -> Definition:
        """A class with the signatures of its methods; their sources are documents of their own."""
        bases = ", ".join(map(ast.unparse, [*node.bases, *node.keywords]))
        head = f"class {node.name}({bases}):" if bases else f"class {node.name}:"
        methods = [
            f"    def {inner.name}({ast.unparse(inner.args)})"
            for inner in node.body
            if isinstance(inner, Function) and (inner.name == "__init__" or not inner.name.startswith("_"))
        ]
        doc = ast.get_docstring(node) or ""
        return Definition(name, "class", self.module, node.lineno, head, doc, "\n".join(methods))

    def offset(self, line: int | None, column: int | None) -> int:
        """Of a position in the module's bytes."""
        return self.starts[line or 1] + (column or 0)


def _imported(module: str) -> Iterator[Definition]:
    """Public definitions in C that a module offers."""
    for name, value in sorted(vars(importlib.import_module(module)).items()):
        # Test runners and shells put their own in place of sys.excepthook and its like.
        if name.startswith("_") or name.endswith("hook"):
            continue
        if inspect.isbuiltin(value) and (module == "builtins" or vars(builtins).get(name) is not value):
            yield _in_c(value, f"{module}.{name}", "function", module)
        elif inspect.isclass(value) and not any(map(inspect.isfunction, vars(value).values())):
            if (value.__module__.lstrip("_"), value.__name__) != (module, name):
                continue  # an alias, or another module's
            yield _in_c(value, f"{module}.{name}", "class", module)
            for inner, method in sorted(vars(value).items()):
                if not inner.startswith("_") and inspect.isroutine(method):
                    yield _in_c(method, f"{module}.{name}.{inner}", "method", module)


def _in_c(value: Any, name: str, kind: Kind, module: str) -> Definition:
    doc = inspect.cleandoc(value.__doc__ or "")
    signature = _SELF.sub("", getattr(value, "__text_signature__", None) or "")
    return Definition(name, kind, module, None, name + signature, doc, "")


def _moved(text: str, margin: int) -> str:
    """Source moved left by a margin."""
    return re.sub(rf"(?m)^ {{{margin}}}", "", text) if margin else text

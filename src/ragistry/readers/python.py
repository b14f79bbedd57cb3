"""Python source: chunks that know the functions and classes they belong to."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .chunking import Chunker, Lines, Passage


@dataclass(frozen=True, slots=True)
class _Definition:
    name: str
    first: int
    last: int
    inner: tuple[_Definition, ...]


def read_python(text: str, chunker: Chunker) -> Iterator[Passage]:
    """The chunks of a module, titled by the qualified names of what they define, if it parses."""
    definitions = _definitions(text)
    lines = Lines(text)

    def title(start: int, end: int) -> str:
        return ", ".join(dict.fromkeys(_names(definitions, lines.at(start), lines.at(end - 1))))

    return chunker.passages(text, "python", title)


def _definitions(text: str) -> tuple[_Definition, ...]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an invalid escape in the module read is not for our user to mend
            return _inside(ast.parse(text), "")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()


def _inside(node: ast.AST, prefix: str) -> tuple[_Definition, ...]:
    """The functions and classes below a node, those under `if` and `try` included."""
    found: list[_Definition] = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            first = min([child.lineno, *(decorator.lineno for decorator in child.decorator_list)])
            name = f"{prefix}{child.name}"
            found.append(_Definition(name, first, child.end_lineno or first, _inside(child, f"{name}.")))
        elif not isinstance(child, ast.expr):
            found.extend(_inside(child, prefix))
    return tuple(found)


def _names(definitions: Iterable[_Definition], first: int, last: int) -> Iterator[str]:
    """What the lines define: a definition whose head is among them, else what they hold of its inside, else itself."""
    for definition in definitions:
        if definition.first <= last and first <= definition.last:
            inside = [] if definition.first >= first else list(_names(definition.inner, first, last))
            yield from inside or [definition.name]

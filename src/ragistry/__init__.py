"""Retrievers that learn from their user's own data, behind one registry.

Example:
    >>> import tempfile
    >>> from ragistry import Collection, Document, create
    >>> docs = Collection.create(tempfile.mkdtemp() + "/docs", create("bm25"))
    >>> docs.add(Document("1", "The sonnet has fourteen lines.")).added
    1
    >>> [hit.id for hit in docs.search("how many lines has a sonnet?")]
    ['1']
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    "Collection": "collection",
    "Document": "types",
    "Hit": "types",
    "Ranking": "types",
    "Pair": "types",
    "MultiVectors": "types",
    "Corpus": "corpus",
    "Analyzer": "text",
    "Recipe": "registry",
    "create": "registry",
    "names": "registry",
    "recipe": "registry",
    "register": "registry",
    "schema": "registry",
    "load": "storage",
    "save": "storage",
    "read": "readers",
    "RagistryError": "errors",
}
__all__ = sorted([*_WHERE, "__version__"])

if TYPE_CHECKING:
    from .collection import Collection as Collection
    from .corpus import Corpus as Corpus
    from .errors import RagistryError as RagistryError
    from .readers import read as read
    from .registry import Recipe as Recipe
    from .registry import create as create
    from .registry import names as names
    from .registry import recipe as recipe
    from .registry import register as register
    from .registry import schema as schema
    from .storage import load as load
    from .storage import save as save
    from .text import Analyzer as Analyzer
    from .types import Document as Document
    from .types import Hit as Hit
    from .types import MultiVectors as MultiVectors
    from .types import Pair as Pair
    from .types import Ranking as Ranking


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'ragistry' has no attribute {name!r}; it has {', '.join(__all__)}")
    from importlib import import_module

    value = getattr(import_module(f".{_WHERE[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__

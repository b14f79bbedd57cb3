"""Contracts: what every encoder, index and retriever must do, as tests that plug-in authors inherit.

Subclass a contract in a test file, say how to make the object, and pytest finds the tests (a class's name must begin with
`Test`). Nothing here needs pytest itself: any runner that calls methods named `test_...` will do.

    from ragistry.testing import IndexContract

    class TestMyIndex(IndexContract):
        def make(self):
            return MyIndex()

| contract | for |
|---|---|
| `EncoderContract` | anything with `encode` |
| `IndexContract` | anything that holds vectors |
| `RetrieverContract` | anything that answers queries |
| `UpdatableContract` | retrievers that take documents, as a `Collection` needs: the same and more |
"""

from __future__ import annotations

from .encoder import EncoderContract
from .index import IndexContract
from .retriever import RetrieverContract
from .updatable import UpdatableContract

__all__ = ["EncoderContract", "IndexContract", "RetrieverContract", "UpdatableContract"]

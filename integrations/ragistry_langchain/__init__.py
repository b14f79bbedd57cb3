"""Ragistry in LangChain: retrievers, an index, embeddings, a reranker, a tool for agents, and other stores taught.

| name | is LangChain's | over |
|---|---|---|
| `RagistryRetriever` | `BaseRetriever` | a collection, or a borrowed store |
| `RagistryIndex` | `DocumentIndex`, for `index()` and `aindex()` | a collection |
| `RagistryEmbeddings` | `Embeddings`, for any `VectorStore` | an encoder, or what a collection has learnt |
| `RagistryReranker` | `BaseDocumentCompressor` | a scorer |
| `search_tool` | `StructuredTool`, for agents | a collection, or a borrowed store |
| `borrow`, `VectorStoreSource` | - | any `VectorStore`, which is only read |

`page_content` is a document's text, and all of it that is searched; a title is given out as `metadata["title"]`.

Example:
    >>> import tempfile
    >>> from ragistry import Collection, Document, create
    >>> docs = Collection.create(tempfile.mkdtemp() + "/docs", create("bm25"))
    >>> docs.add(Document("1", "The sonnet has fourteen lines.")).added
    1
    >>> from ragistry_langchain import RagistryRetriever
    >>> RagistryRetriever(collection=docs, k=3).invoke("lines of a sonnet")
    [Document(id='1', metadata={}, page_content='The sonnet has fourteen lines.')]
"""

from __future__ import annotations

from .compressors import RagistryReranker
from .embeddings import RagistryEmbeddings
from .index import RagistryIndex
from .retrievers import RagistryRetriever
from .tools import search_tool
from .vectorstores import VectorStoreSource, borrow

__all__ = [
    "RagistryEmbeddings",
    "RagistryIndex",
    "RagistryReranker",
    "RagistryRetriever",
    "VectorStoreSource",
    "borrow",
    "search_tool",
]

"""Ragistry in LlamaIndex: retriever, reranker, embeddings, a tool for agents, and vector stores searched better.

Example:
    >>> import tempfile
    >>> from llama_index.core.schema import TextNode
    >>> nodes = [TextNode(id_="1", text="Fourteen lines."), TextNode(id_="2", text="Three lines.")]
    >>> docs = from_nodes(tempfile.mkdtemp() + "/docs", nodes, "bm25")
    >>> RagistryRetriever(docs).retrieve("three")[0].text
    'Three lines.'
"""

from .documents import documents_of, from_nodes
from .embeddings import RagistryEmbedding
from .filters import filters_of, where_of
from .postprocessor import RagistryRerank
from .retrievers import RagistryRetriever
from .tools import search_tool
from .vector_stores import VectorStoreSource, borrow

__all__ = [
    "RagistryEmbedding",
    "RagistryRerank",
    "RagistryRetriever",
    "VectorStoreSource",
    "borrow",
    "documents_of",
    "filters_of",
    "from_nodes",
    "search_tool",
    "where_of",
]

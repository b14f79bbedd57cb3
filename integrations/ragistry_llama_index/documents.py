"""Nodes and documents: LlamaIndex's become Ragistry's, and hits become nodes.

A node's id and metadata are kept, and its `metadata["title"]`, if that is text, is the document's title. So text nodes that
went into a collection come out with the same `hash`, by which LlamaIndex tells duplicates. Links to other nodes, and which
metadata prompts are not to show, are not kept: for the latter see `RagistryRetriever`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from typing import Any

from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, TextNode

from ragistry import Collection, Document, Hit, create
from ragistry.errors import InvalidInput
from ragistry.protocols import Retriever


def documents_of(nodes: Iterable[BaseNode | NodeWithScore]) -> Iterator[Document]:
    """Ragistry's documents from what readers and node parsers make, one by one.

    The text is the node's own, without the metadata that LlamaIndex writes before it for embedding models; metadata is there
    to be filtered by. Of a node without text, such as a picture, the text is empty.

    Args:
        nodes: Documents or nodes, in any iterable.

    Raises:
        InvalidInput: When the first thing that is no node is reached, or one whose id or text cannot be stored.

    Example:
        >>> from llama_index.core.schema import TextNode
        >>> list(documents_of([TextNode(id_="1", text="Fourteen lines.", metadata={"title": "Sonnet"})]))
        [Document(id='1', text='Fourteen lines.', title='Sonnet', metadata={'title': 'Sonnet'})]
    """
    if isinstance(nodes, BaseNode | NodeWithScore):
        raise InvalidInput(f"one {type(nodes).__name__} was given; a list of nodes is needed: put it in brackets")
    for node in nodes:
        yield document_of(node)


def document_of(node: BaseNode | NodeWithScore, mode: MetadataMode = MetadataMode.NONE) -> Document:
    """One node as a document: see `documents_of`.

    Args:
        node: A node, maybe with a score, which is left out.
        mode: Which metadata is written into the text; if any is, the document has no title beside.
    """
    node = node.node if isinstance(node, NodeWithScore) else node
    if not isinstance(node, BaseNode):
        raise InvalidInput(f"{node!r:.100} is {type(node).__name__}; a node or document of LlamaIndex is needed")
    title = node.metadata.get("title")
    shown = title if isinstance(title, str) and mode == MetadataMode.NONE else ""
    return Document(node.node_id, node.get_content(metadata_mode=mode), title=shown, metadata=deepcopy(node.metadata))


def node_of(hit: Hit, *, excluded: Sequence[str] = ()) -> TextNode:
    """A hit as a node of its own, which may be changed. Its score is not in it: that is `NodeWithScore`'s.

    Args:
        hit: What was found.
        excluded: Names of metadata that neither prompts nor embedding models are to see.

    Example:
        >>> node_of(Hit("1", 0.5, "Fourteen lines.", title="Sonnet")).get_content("llm")
        'title: Sonnet\\n\\nFourteen lines.'
    """
    metadata: dict[str, Any] = deepcopy(dict(hit.metadata))
    if hit.title:
        metadata.setdefault("title", hit.title)
    return TextNode(
        id_=hit.id,
        text=hit.text,
        metadata=metadata,
        excluded_embed_metadata_keys=list(excluded),
        excluded_llm_metadata_keys=list(excluded),
    )


def from_nodes(
    path: str | os.PathLike[str], nodes: Iterable[BaseNode | NodeWithScore], retriever: str | Retriever = "hybrid"
) -> Collection:
    """A new collection with these nodes. To add more, later: `collection.add(documents_of(nodes))`.

    Args:
        path: A directory that does not exist yet, or is empty.
        nodes: Documents or nodes, in any iterable; they are streamed.
        retriever: The name of a recipe, or a retriever made by `ragistry.create`.

    Raises:
        InvalidInput: If something is no node, or cannot be stored: metadata that JSON cannot hold, an id twice. What came
            long before it is in the collection by then.
        StorageError: If there is something there already, or the directory cannot be written.

    Example:
        >>> import tempfile
        >>> from llama_index.core.schema import TextNode
        >>> nodes = [TextNode(id_="1", text="Fourteen lines."), TextNode(id_="2", text="Three lines.")]
        >>> [hit.id for hit in from_nodes(tempfile.mkdtemp() + "/docs", nodes, "bm25").search("three")]
        ['2']
    """
    made = create(retriever) if isinstance(retriever, str) else retriever
    collection = Collection.create(path, made)
    try:
        collection.add(documents_of(nodes))
    except BaseException:
        collection.close()
        raise
    return collection

"""A collection as a tool that agents of LlamaIndex call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llama_index.core.tools import FunctionTool

from ragistry.protocols import Searchable
from ragistry.tools import CHARACTERS, DESCRIPTION, SearchResult, SearchTool

from .filters import Filters, filter_for


def search_tool(
    collection: Searchable,
    *,
    name: str = "search",
    description: str = DESCRIPTION,
    where: Filters | None = None,
    k: int = 5,
    fields: Mapping[str, str] | None = None,
    characters: int = CHARACTERS,
) -> FunctionTool:
    """A tool that searches a collection. The model reads numbered texts with their ids; `raw_output` is a `SearchResult`.

    LlamaIndex's own `RetrieverTool` takes no filter and writes `input is` before the query, which lexical search then looks
    for; this one searches for what the model wrote.

    Args:
        collection: A `ragistry.Collection`, or whatever else has its `search_many`.
        name: Letters, digits, `_` and `-`, at most 64.
        description: Tells the model what is there to be found; at most 1,024 characters.
        where: A filter of either language that every search is held to, such as a tenant's; the model does not see it.
        k: How many hits if the model does not say.
        fields: Metadata fields that the model may filter by, with what they hold; `None` allows any, an empty mapping none.
        characters: The most that the texts of one result take.

    Raises:
        InvalidInput: If one of these is out of range. From a call, if the arguments cannot be used: LlamaIndex's agents, and
            its `call_tool`, hand the message to the model, marked as an error.

    Example:
        >>> import tempfile
        >>> from ragistry import Collection, Document, create
        >>> docs = Collection.create(tempfile.mkdtemp() + "/docs", create("bm25"))
        >>> docs.add(Document("1", "The sonnet has fourteen lines.")).added
        1
        >>> print(search_tool(docs)(query="sonnet").content)
        [1] id: 1
        The sonnet has fourteen lines.
    """
    tool = SearchTool(
        collection,
        name=name,
        description=description,
        where=filter_for(collection, where),
        k=k,
        fields=fields,
        characters=characters,
    )

    # Arguments are taken as the model wrote them, and checked by the tool: LlamaIndex checks none.
    def search(**arguments: Any) -> SearchResult:
        return tool(arguments)

    async def asearch(**arguments: Any) -> SearchResult:
        return await tool.acall(arguments)

    return FunctionTool.from_defaults(
        fn=search,
        async_fn=asearch,
        name=name,
        description=description,
        fn_schema=tool.args,
        callback=SearchResult.cited,  # the content: what the model reads
    )

"""A collection as a tool for LangChain's agents."""

# No `from __future__ import annotations`: LangChain looks for injected arguments among annotations that are no text.

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from langchain_core.documents import Document
from langchain_core.tools import InjectedToolArg, StructuredTool, ToolException
from pydantic import Field, PlainSerializer, ValidationError, create_model
from pydantic.json_schema import SkipJsonSchema

from ragistry.borrowed import Borrowed
from ragistry.errors import InvalidInput
from ragistry.protocols import Searchable
from ragistry.tools import CHARACTERS, DESCRIPTION, Condition, SearchArgs, SearchTool, explained, result_of, searched
from ragistry.types import Hit

from .documents import checked, given, held

Runtime = Annotated[Any, InjectedToolArg]
"""LangChain's `ToolRuntime`, which agents put under this name; `langchain`, where it comes from, is not needed here."""

Answer = tuple[str, list[Document]]
"""What the model reads, and the artifact."""

Tenant = Callable[[Any], Any]
"""From the context that an agent was called with to a filter."""


def search_tool(
    collection: Searchable,
    *,
    name: str = "search",
    description: str = DESCRIPTION,
    where: Any = None,
    k: int = 5,
    fields: Mapping[str, str] | None = None,
    characters: int = CHARACTERS,
    tenant: Tenant | None = None,
) -> StructuredTool:
    """A tool that searches: the model reads numbered passages, and the message's artifact holds LangChain's documents.

    Arguments that the model got wrong are explained to it, so that it can try again.

    Args:
        collection: A `ragistry.Collection`, or a `ragistry.borrowed.Borrowed`, whose filters no model can write.
        name: Letters, digits, `_` and `-`, at most 64.
        description: Tells the model what is there to be found.
        where: A filter that every search is held to; the model neither sees nor changes it.
        k: How many hits if the model does not say.
        fields: Metadata fields that the model may filter by, with what they hold; `None` allows any, an empty mapping none.
        characters: The most that the texts of one result take; documents in the artifact are whole.
        tenant: Makes a further filter of the `context` that the agent was called with (`create_agent(...,
            context_schema=...)`). Without a context, or if it gives no filter, nothing is searched.

    Raises:
        InvalidInput: If one of these is out of range. From a call, if there is no context or no filter for the tenant.

    Example:
        >>> import tempfile
        >>> import ragistry
        >>> docs = ragistry.Collection.create(tempfile.mkdtemp() + "/docs", ragistry.create("bm25"))
        >>> docs.add(ragistry.Document("1", "The sonnet has fourteen lines.")).added
        1
        >>> tool = search_tool(docs, description="Search the handbook of poetry.")
        >>> print(tool.invoke({"query": "how many lines has a sonnet?"}))
        [1] id: 1
        The sonnet has fourteen lines.
    """
    if isinstance(collection, Borrowed):
        several = [one for one in (collection.where, where, tenant) if one]
        if fields or len(several) > 1:
            raise InvalidInput(
                "a borrowed store takes filters in its own language, which no model writes, and only the store knows how to "
                "join them: give no `fields`, and one filter at most (the store's own, `where` or `tenant`)"
            )
        fields = {}
    tool = SearchTool(collection, name=name, description=description, k=k, fields=fields, characters=characters)
    search = _Search(tool, checked(collection, where), tenant)
    args = tool.args
    return StructuredTool(
        name=name,
        description=description,
        args_schema=args if tenant is None else _with_runtime(args),
        func=search.shared if tenant is None else search.run,
        coroutine=search.ashared if tenant is None else search.arun,
        response_format="content_and_artifact",
        handle_tool_error=True,
        handle_validation_error=_told,
    )


class _Search:
    """What the tool does: `run` and `arun` for tenants, of which agents are asked for their `runtime`, else `shared`."""

    def __init__(self, tool: SearchTool, where: Any, tenant: Tenant | None) -> None:
        self.tool, self.where, self.tenant = tool, where, tenant

    def run(
        self, query: str, k: int | None = None, filters: list[Condition] | None = None, runtime: Runtime = None
    ) -> Answer:
        own = self._own(runtime)
        try:
            args, where = self._asked(query, k, filters, own)
            return self._answer(args, self.tool.collection.search_many([args.query], args.k, where=where)[0])
        except InvalidInput as error:
            raise ToolException(str(error)) from error

    async def arun(
        self, query: str, k: int | None = None, filters: list[Condition] | None = None, runtime: Runtime = None
    ) -> Answer:
        own = self._own(runtime)
        try:
            args, where = self._asked(query, k, filters, own)
            return self._answer(args, (await searched(self.tool.collection, [args.query], args.k, where=where))[0])
        except InvalidInput as error:
            raise ToolException(str(error)) from error

    def shared(self, query: str, k: int | None = None, filters: list[Condition] | None = None) -> Answer:
        return self.run(query, k, filters)

    async def ashared(self, query: str, k: int | None = None, filters: list[Condition] | None = None) -> Answer:
        return await self.arun(query, k, filters)

    def _own(self, runtime: Any) -> Any:
        """The tenant's filter. What goes wrong here is not the model's to mend, and is raised."""
        if self.tenant is None:
            return None
        context = getattr(runtime, "context", None)  # a model that writes a `runtime` writes a dict, which has none
        if context is None:
            raise InvalidInput(
                f"the tool {self.tool.name!r} was called without a context, which says whose documents may be searched; "
                "call it through an agent, with `context=...`"
            )
        own = self.tenant(context)
        if not own:
            raise InvalidInput(
                f"`tenant` gave the tool {self.tool.name!r} the filter {own!r}; one that holds is needed"
            )
        return checked(self.tool.collection, own)

    def _asked(self, query: str, k: int | None, filters: list[Condition] | None, own: Any) -> tuple[SearchArgs, Any]:
        args = self.tool.read({"query": query, "k": k, "filters": filters})
        return args, held(self.tool.collection, self.where, own, args.where())

    def _answer(self, args: SearchArgs, hits: list[Hit]) -> Answer:
        return result_of(args, hits, self.tool.characters).cited(), [given(hit) for hit in hits]


def _with_runtime(args: type[SearchArgs]) -> type[SearchArgs]:
    """The same arguments, with room for what an agent adds and no model sees."""
    unseen = SkipJsonSchema()  # type: ignore[type-arg]  # to type checkers it is an alias
    undumped = PlainSerializer(
        lambda runtime: None
    )  # LangChain dumps arguments; this one holds the agent's whole state
    hidden: Any = (Annotated[Any, InjectedToolArg, unseen, undumped], Field(None, repr=False))
    return create_model("SearchArgs", __base__=args, runtime=hidden)


def _told(error: Any) -> str:
    """What is wrong with arguments, for the model that wrote them."""
    return explained(error) if isinstance(error, ValidationError) else str(error)

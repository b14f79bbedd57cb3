"""How a method of `Served` becomes a tool: its arguments and answers are models, its errors are words for the model."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Literal, TypeVar

from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp.server.mcpserver.utilities.func_metadata import ArgModelBase, FuncMetadata
from mcp.types import CallToolResult, TextContent, ToolAnnotations
from pydantic import BaseModel, Field, create_model

from ragistry.errors import RagistryError, StorageError
from ragistry.tools import Arguments, described

from .answers import Answer
from .served import Served

READ_ONLY = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)
_Args = TypeVar("_Args", bound=Arguments)
_log = logging.getLogger(__name__)


def asking(
    name: str,
    description: str,
    args: type[_Args],
    answer: type[BaseModel],
    method: Callable[[Served, _Args], Awaitable[Answer]],
    held: Mapping[str, Served],
) -> Tool:
    """A tool that asks one collection, which the model names; where there is one only, it need not."""
    names = tuple(held)
    kind: Any = Annotated[Literal[names], Field(description="which collection")]
    collection: dict[str, Any] = {"collection": (kind, names[0] if len(names) == 1 else ...)}
    model: Any = create_model(args.__name__, __base__=(args, ArgModelBase), **collection)

    async def run(collection: str, **given: Any) -> Answer:
        return await method(held[collection], args(**given))

    return tool(name, description, model, answer, run)


def tool(
    name: str,
    description: str,
    args: type[ArgModelBase],
    answer: type[BaseModel],
    run: Callable[..., Awaitable[Answer]],
) -> Tool:
    """A tool that calls `run` with the fields of `args`, and gives its answer as text and as fields."""

    async def call(**given: Any) -> CallToolResult:
        with told(ToolError):
            found = await run(**given)
        text = TextContent(type="text", text=found.cited())
        return CallToolResult(content=[text], structured_content=found.model_dump(mode="json"))

    said = described(name, description, args, "mcp", output=answer)
    return Tool(
        fn=call,
        name=name,
        title=name.replace("_", " ").capitalize(),
        description=description,
        parameters=said["inputSchema"],
        fn_metadata=FuncMetadata(arg_model=args, output_model=answer, output_schema=said["outputSchema"]),
        is_async=True,
        context_kwarg=None,
        annotations=READ_ONLY,
    )


@contextmanager
def told(error: type[Exception]) -> Iterator[None]:
    """Hand our errors to the model, as `error`. Others stay with the server, which logs them."""
    try:
        yield
    except StorageError as problem:  # names directories, which are nobody's business over the network
        _log.error("%s", problem)
        raise error(
            "the collection cannot be read at present; whoever runs the server finds the reason in its log"
        ) from None
    except RagistryError as problem:
        raise error(str(problem)) from None

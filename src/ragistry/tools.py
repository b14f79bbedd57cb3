"""A collection as a tool that a language model may call: one model of arguments and one of results, for every framework.

Example:
    >>> import tempfile
    >>> from ragistry import Collection, Document, create
    >>> docs = Collection.create(tempfile.mkdtemp() + "/docs", create("bm25"))
    >>> docs.add(Document("1", "The sonnet has fourteen lines.", title="Sonnet")).added
    1
    >>> tool = SearchTool(docs, description="Search the handbook of poetry.")
    >>> print(tool({"query": "how many lines has a sonnet?"}).cited())
    [1] id: 1 | title: Sonnet
    The sonnet has fourteen lines.
    >>> tool.schema("openai")["function"]["parameters"]["required"]
    ['query', 'k', 'filters']
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator, model_validator

from .errors import InvalidInput
from .metadata import encode, normal
from .protocols import Searchable
from .types import Hit, Query

MOST = 50
"""The most hits that a model may ask for."""
CHARACTERS = 12_000
"""Of all texts in one result, by default: about 3,000 tokens of English."""
_METADATA = 1000  # characters of a hit's metadata

Form: TypeAlias = Literal["openai", "openai-responses", "anthropic", "mcp"]
Operator: TypeAlias = Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin", "exists", "contains"]
Scalar: TypeAlias = str | bool | int | float

DESCRIPTION = "Search the documents. Returns the best passages with their ids, to be cited by number."


class Arguments(BaseModel):
    """What a model says to a tool. `null` stands for a default: strict schemas have models say every field."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        needed = {name for name, field in cls.model_fields.items() if field.is_required()}
        return {key: value for key, value in given.items() if value is not None or key in needed}


class Condition(Arguments):
    """One condition on a field of documents' metadata."""

    field: Annotated[str, Field(description="name of a metadata field; dots step into nested ones")]
    op: Annotated[
        Operator,
        Field(description="in and nin take a list; exists takes true or false; contains looks into a text or a list"),
    ] = "eq"
    value: Annotated[Scalar | list[Scalar], Field(description="what the field is compared with")]


class SearchArgs(Arguments):
    """What a model says to search."""

    query: Annotated[str, Field(min_length=1, description="what to look for, in the words of the question")]
    k: Annotated[int, Field(ge=1, le=MOST, description="how many documents to return at most")] = 5
    filters: Annotated[
        list[Condition] | None, Field(description="only documents whose metadata meets all of these conditions")
    ] = None

    @field_validator("query")
    @classmethod
    def _said(cls, query: str) -> str:
        if not query.strip():
            raise ValueError("the query is blank; say what to look for")
        return query

    def where(self) -> dict[str, Any] | None:
        """The filter, as `Collection.search` takes it."""
        conditions = [{found.field: {found.op: found.value}} for found in self.filters or ()]
        return {"and": conditions} if conditions else None


class Found(BaseModel):
    """A hit, as a model sees it."""

    id: str
    score: float
    title: str = ""
    text: str
    metadata: dict[str, Any] = Field(default_factory=dict)
    shortened: Annotated[bool, Field(description="whether text or metadata was cut; the document holds more")] = False


class SearchResult(BaseModel):
    """What a search found, best first, with a word to the model where there is something to say."""

    query: str
    hits: list[Found]
    note: str = ""

    def cited(self) -> str:
        """Compact text for a prompt: each hit with a number, its id, and its text.

        Ids and titles keep to their line; an id that would not is written as JSON, so that it can still be read off.
        """
        parts = []
        for number, hit in enumerate(self.hits, 1):
            title = f" | title: {one_line(hit.title)}" if hit.title else ""
            id = hit.id if hit.id == one_line(hit.id) else json.dumps(hit.id)
            parts.append(f"[{number}] id: {id}{title}\n{hit.text}")
        return "\n\n".join([*parts, *([self.note] if self.note else [])])


class SearchTool:
    """Searches a collection with arguments that a model wrote.

    Args:
        collection: A `ragistry.Collection`, or whatever else has its `search_many`.
        name: Letters, digits, `_` and `-`, at most 64: what every provider allows.
        description: Tells the model what is there to be found; at most 1,024 characters.
        where: A filter that every search is held to, such as a tenant's; the model neither sees nor changes it.
        k: How many hits if the model does not say.
        fields: Metadata fields that the model may filter by, with what they hold; `None` allows any, an empty mapping none.
            None are allowed where filters are in a store's own language (`ragistry.borrowed`).
        characters: The most that the texts of one result take; what is cut says so.

    Raises:
        InvalidInput: If one of these is out of range. From a call, if the arguments cannot be used: the message is meant
            for the model.
    """

    def __init__(
        self,
        collection: Searchable,
        *,
        name: str = "search",
        description: str = DESCRIPTION,
        where: Any = None,
        k: int = 5,
        fields: Mapping[str, str] | None = None,
        characters: int = CHARACTERS,
    ) -> None:
        if not isinstance(collection, Searchable):
            raise InvalidInput(f"{type(collection).__name__} has no method `search_many`; give a Collection")
        check_name(name)
        if not 0 < len(description) <= 1024:
            raise InvalidInput(f"the description has {len(description)} characters; from 1 to 1,024 are needed")
        if not 1 <= k <= MOST:
            raise InvalidInput(f"k={k}; from 1 to {MOST} is needed")
        if characters < 1:
            raise InvalidInput(f"characters={characters}; at least 1 is needed")
        self.collection, self._foreign = collection, bool(getattr(collection, "foreign_filters", False))
        fields = {} if self._foreign else fields
        self.name, self.description = name, description
        self.fixed, self.fields, self.characters = where, fields, characters
        self.args: type[SearchArgs] = _args_model(k, None if fields is None else tuple(fields.items()))
        """The model of arguments: what LangChain calls `args_schema`, LlamaIndex `fn_schema`."""

    def __call__(self, arguments: SearchArgs | Mapping[str, Any] | str, *, where: Any = None) -> SearchResult:
        """Search.

        Args:
            arguments: `SearchArgs`, a mapping, or JSON text, as providers hand it over.
            where: A further filter that the caller knows of, not the model.
        """
        args = self.read(arguments)
        held = self._held(where, args)
        return result_of(args, self.collection.search_many([args.query], args.k, where=held)[0], self.characters)

    async def acall(self, arguments: SearchArgs | Mapping[str, Any] | str, *, where: Any = None) -> SearchResult:
        """The same, the event loop running on meanwhile."""
        args = self.read(arguments)
        held = self._held(where, args)
        found = await searched(self.collection, [args.query], args.k, where=held)
        return result_of(args, found[0], self.characters)

    def read(self, arguments: SearchArgs | Mapping[str, Any] | str) -> SearchArgs:
        """Arguments, checked.

        Raises:
            InvalidInput: If they cannot be used; the message says which, and what is needed.
        """
        try:
            if isinstance(arguments, str):
                found = self.args.model_validate_json(arguments)
            elif isinstance(arguments, SearchArgs):
                found = arguments
            else:
                found = self.args.model_validate(arguments)
        except ValidationError as error:
            raise InvalidInput(explained(error)) from None
        if self.fields is not None:
            for condition in found.filters or ():
                if condition.field not in self.fields:
                    known = ", ".join(self.fields) or "none"
                    raise InvalidInput(f"filters: the field {condition.field!r} is not known; known fields: {known}")
        return found

    def _held(self, where: Any, args: SearchArgs) -> Any:
        if not self._foreign:
            return joined(self.fixed, where, args.where())
        if where and self.fixed:
            raise InvalidInput(
                "two filters were given for a store of someone else's; only the store knows how to join them: give one "
                "that says both"
            )
        return where or self.fixed

    def schema(self, form: Form, *, strict: bool = True) -> dict[str, Any]:
        """The tool as a provider wants it described.

        Args:
            form: "openai" (chat completions), "openai-responses", "anthropic" or "mcp".
            strict: For OpenAI: the model's arguments are then sure to fit.
        """
        return described(self.name, self.description, self.args, form, strict=strict, output=SearchResult)


async def searched(collection: Searchable, queries: Sequence[Query], k: int, *, where: Any = None) -> list[list[Hit]]:
    """`search_many` without blocking the event loop: the collection's own `asearch_many` if it has one, else in a thread."""
    own = getattr(collection, "asearch_many", None)
    if own is not None:
        hits: list[list[Hit]] = await own(queries, k, where=where)
        return hits
    return await asyncio.to_thread(collection.search_many, queries, k, where=where)


def described(
    name: str,
    description: str,
    args: type[BaseModel],
    form: Form,
    *,
    strict: bool = True,
    output: type[BaseModel] | None = None,
) -> dict[str, Any]:
    """A tool's schema from a pydantic model of its arguments: see `SearchTool.schema`.

    Raises:
        InvalidInput: If the form is not known.
    """
    plain = _tidy(args.model_json_schema())
    if form == "anthropic":
        return {"name": name, "description": description, "input_schema": plain}
    if form == "mcp":
        found = {"name": name, "description": description, "inputSchema": plain}
        return found if output is None else {**found, "outputSchema": _tidy(output.model_json_schema())}
    if form not in get_args(Form):
        raise InvalidInput(f"the form {form!r} is not known; known: {', '.join(get_args(Form))}")
    function: dict[str, Any] = {
        "name": name,
        "description": description,
        "parameters": _strict(plain) if strict else plain,
    }
    if strict:
        function["strict"] = True
    return {"type": "function", "function": function} if form == "openai" else {"type": "function", **function}


def result_of(args: SearchArgs, hits: Sequence[Hit], characters: int = CHARACTERS) -> SearchResult:
    """Hits as a model sees them, their texts cut to a number of characters in all."""
    shares = _shares([len(hit.text) for hit in hits], characters)
    found = [_found(hit, share) for hit, share in zip(hits, shares, strict=True)]
    note = ""
    if not found:
        note = "Nothing found" + (" that meets the filters; try without them" if args.filters else "; try other words")
    elif any(hit.shortened for hit in found):
        note = "Documents marked as shortened hold more than is shown."
    return SearchResult(query=args.query, hits=found, note=note)


def joined(*filters: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A filter that all of these let pass."""
    given = [dict(found) for found in filters if found]
    return None if not given else given[0] if len(given) == 1 else {"and": given}


def explained(error: ValidationError) -> str:
    """What is wrong with arguments, for the model that wrote them."""
    lines = []
    for problem in error.errors(include_url=False):
        where = ".".join(str(part) for part in problem["loc"]) or "arguments"
        given = "" if problem["type"] == "missing" else f"; given {problem['input']!r:.100}"
        lines.append(f"{where}: {problem['msg']}{given}")
    return "the arguments cannot be used: " + "; ".join(dict.fromkeys(lines))


def one_line(text: str) -> str:
    """Text without line breaks or control characters, so that an id or a title cannot pass for a line of its own."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def check_name(name: str) -> None:
    """Refuse a name of a tool that some provider does not take."""
    if not (name.isascii() and name.replace("_", "a").replace("-", "a").isalnum() and len(name) <= 64):
        raise InvalidInput(f"the name {name!r:.100} was given to a tool; 1 to 64 of a-z, A-Z, 0-9, _ and - are needed")


@lru_cache(maxsize=64)
def _args_model(k: int, fields: tuple[tuple[str, str], ...] | None) -> type[SearchArgs]:
    plain = SearchArgs.model_fields
    changed: dict[str, Any] = {}
    if k != plain["k"].default:
        changed["k"] = (Annotated[int, Field(ge=1, le=MOST, description=plain["k"].description)], k)
    if fields is not None:
        known = "; ".join(f"{name}: {meaning}" for name, meaning in fields) or "none"
        text = f"{plain['filters'].description}. Fields: {known}"
        changed["filters"] = (Annotated[list[Condition] | None, Field(description=text)], None)
    return create_model("SearchArgs", __base__=SearchArgs, **changed) if changed else SearchArgs


def _shares(lengths: Sequence[int], characters: int) -> list[int]:
    """How much of each text is shown: all alike as far as it goes, what short ones leave going to longer ones."""
    shares, left = [0] * len(lengths), characters
    for done, place in enumerate(sorted(range(len(lengths)), key=lambda i: lengths[i])):
        shares[place] = min(lengths[place], left // (len(lengths) - done))
        left -= shares[place]
    return shares


def _found(hit: Hit, share: int) -> Found:
    text = hit.text if len(hit.text) <= share else hit.text[: share - 1].rstrip() + "…" if share else ""
    metadata, left = {}, _METADATA
    for key, given in hit.metadata.items():
        try:
            value = normal(given, "metadata")
        except InvalidInput:  # a store of someone else's may hold a date
            value = str(given)[:_METADATA].encode("utf-8", "replace").decode()
        size = len(encode({key: value}))
        if size <= left:
            metadata[key], left = value, left - size
    cut = text != hit.text or len(metadata) < len(hit.metadata)
    return Found(id=hit.id, score=hit.score, title=hit.title[:300], text=text, metadata=metadata, shortened=cut)


def _tidy(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without the titles that pydantic derives from names: they cost a model's context and say nothing."""
    copied: dict[str, Any] = json.loads(json.dumps(schema))
    for node in _nodes(copied):
        node.pop("title", None)
    copied.pop("description", None)
    return copied


def _strict(schema: dict[str, Any]) -> dict[str, Any]:
    """What OpenAI's strict mode takes: every property required, `null` for those that may be left out."""
    strict: dict[str, Any] = json.loads(json.dumps(schema))
    for node in _nodes(strict):
        for unsupported in ("minLength", "maxLength"):
            node.pop(unsupported, None)
        if node.get("type") != "object":
            continue
        needed = set(node.get("required", ()))
        for name, value in node["properties"].items():
            value.pop("default", None)
            if name not in needed and {"type": "null"} not in value.get("anyOf", ()):
                about = {key: value.pop(key) for key in ("description",) if key in value}
                node["properties"][name] = {"anyOf": [dict(value), {"type": "null"}], **about}
        node["required"], node["additionalProperties"] = list(node["properties"]), False
    return strict


def _nodes(schema: Any) -> list[dict[str, Any]]:
    """Every schema within a schema, itself first; the names of properties are no schemas."""
    if isinstance(schema, list):
        return [node for part in schema for node in _nodes(part)]
    if not isinstance(schema, dict):
        return []
    found = [schema]
    for key, value in schema.items():
        inside = list(value.values()) if key in {"properties", "$defs"} else value
        found += _nodes(inside) if key not in {"default", "enum", "const", "required"} else []
    return found

"""Names for retrievers: `create("bm25", k1=0.9)` builds one, from a name, a dict or a YAML file.

A *recipe* is a pydantic model whose fields are a retriever's parameters and whose `build` makes it. Built-in recipes live
in `ragistry.recipes`; other packages add theirs through the entry-point group `ragistry.retrievers`, each entry naming a
`Recipe` subclass. A plug-in that cannot be loaded is listed as broken and harms nothing else.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import entry_points
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, SerializeAsAny, ValidationError, WithJsonSchema

from .errors import InvalidInput, MissingExtra, RagistryError, UnknownName
from .protocols import Retriever
from .types import Document

GROUP = "ragistry.retrievers"
BUILT_IN = {
    "bm25": "ragistry.recipes.bm25:BM25Recipe",
    "query-likelihood": "ragistry.recipes.query_likelihood:QueryLikelihoodRecipe",
    "dense": "ragistry.recipes.dense:DenseRecipe",
    "hybrid": "ragistry.recipes.hybrid:HybridRecipe",
    "adder": "ragistry.recipes.adder:AdderRecipe",
    "lexsembridge": "ragistry.recipes.lexsembridge:LexSemBridgeRecipe",
    "genre": "ragistry.recipes.genre:GENRERecipe",
    "llm-ql": "ragistry.recipes.llm_ql:LLMQLRecipe",
    "ql-rerank": "ragistry.recipes.ql_rerank:QLRerankRecipe",
    "vector-prf": "ragistry.recipes.vector_prf:VectorPRFRecipe",
    "rm3": "ragistry.recipes.rm3:RM3Recipe",
    "interpolated-prf": "ragistry.recipes.interpolated_prf:InterpolatedPRFRecipe",
    "ance-prf": "ragistry.recipes.ance_prf:AncePRFRecipe",
    "lexicon": "ragistry.recipes.lexicon:LexiconRecipe",
    "colbert": "ragistry.recipes.colbert:ColBERTRecipe",
    "crisp": "ragistry.recipes.crisp:CRISPRecipe",
    "compressed": "ragistry.recipes.compressed:CompressedRecipe",
    "bpr": "ragistry.recipes.bpr:BPRRecipe",
    "jpq": "ragistry.recipes.jpq:JPQRecipe",
    "bidr": "ragistry.recipes.bidr:BiDRRecipe",
    "income-bpr": "ragistry.recipes.income:IncomeBPRRecipe",
    "income-jpq": "ragistry.recipes.income:IncomeJPQRecipe",
    "pefa-xs": "ragistry.recipes.pefa:PefaXSRecipe",
    "pefa-xl": "ragistry.recipes.pefa:PefaXLRecipe",
}
_registered: dict[str, type[Recipe]] = {}


class Recipe(BaseModel):
    """A named retriever and its parameters. Subclass it, set `name` and `summary`, add typed fields, write `build`."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)
    summary: ClassVar[str] = ""
    name: str

    @property
    def batch(self) -> int:
        """Documents per commit when many are added: fewer where adding takes long, so that little is lost."""
        return 4096

    def build(self) -> Retriever:
        """A new, empty retriever with these parameters."""
        raise InvalidInput(f"the recipe {self.name!r} does not say how to build its retriever; define `build`")

    def variants(self, retriever: Any) -> Iterable[tuple[Recipe, Retriever]]:
        """Other settings of a built retriever that `fit` may choose from, sharing what is stored; none by default."""
        return ()

    def learn(self, retriever: Any, judged: Mapping[str, Mapping[str, int]], ids: Sequence[str], lesson: Lesson) -> Any:
        """What `fit` learns beyond settings; none where settings are all there is.

        Args:
            retriever: Built by this recipe, and filled. It must stay as it is.
            judged: Relevance by query text and document id.
            ids: Of all documents.
            lesson: What to improve, and how to tell of progress.

        Returns:
            The taught retriever and a `ragistry.evaluation.selection.Fit`, or None.
        """
        return None


@dataclass(frozen=True, slots=True)
class Lesson:
    """What `fit` was asked for: see `Collection.fit`.

    `skipped` counts pairs whose documents are not there; `documents` gives those with some ids, in the order asked.
    """

    measure: str = "nDCG@10"
    goal: str = "balanced"
    skipped: int = 0
    progress: Callable[[int], None] | None = None
    documents: Callable[[Sequence[str]], Sequence[Document]] | None = None


@dataclass(frozen=True, slots=True)
class Description:
    """One line of `ragistry list`: a name, what it is, where it comes from, and what is wrong with it if anything."""

    name: str
    summary: str
    origin: str
    problem: str = ""


def register(recipe: type[Recipe]) -> type[Recipe]:
    """Add a recipe of your own to this process's registry (a class decorator). Built-in names cannot be replaced.

    Raises:
        InvalidInput: If the recipe has no name, or one that is already taken.
    """
    name = _name_of(recipe)
    taken = name in BUILT_IN or _registered.get(name, recipe) is not recipe
    if taken:
        raise InvalidInput(f"the name {name!r} is already taken by another retriever; choose another name")
    _registered[name] = recipe
    return recipe


def names() -> list[str]:
    """Every name that can be given to `create`, built-in ones first."""
    return [d.name for d in describe_all() if not d.problem]


def describe_all() -> list[Description]:
    """Every registered retriever, broken plug-ins included."""
    found = [Description(name, _load(path).summary, "ragistry") for name, path in BUILT_IN.items()]
    found += [Description(name, recipe.summary, recipe.__module__) for name, recipe in sorted(_registered.items())]
    seen = {d.name for d in found}
    for entry in sorted(_plugins(), key=lambda e: e.name):
        if entry.name in seen:
            problem = "the name is already taken, so this plug-in is never used"
            found.append(Description(entry.name, "", entry.value, problem))
            continue
        seen.add(entry.name)
        try:
            found.append(Description(entry.name, _plugin(entry).summary, entry.value))
        except RagistryError as error:
            found.append(Description(entry.name, "", entry.value, str(error)))
    return found


def recipe_class(name: str) -> type[Recipe]:
    """The recipe registered under a name.

    Raises:
        UnknownName: If there is none; the message lists the known names.
    """
    if name in BUILT_IN:
        return _load(BUILT_IN[name])
    if name in _registered:
        return _registered[name]
    for entry in _plugins():
        if entry.name == name:
            return _plugin(entry)
    close = get_close_matches(name, names(), n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise UnknownName(f"no retriever is named {name!r}.{hint} Known: {', '.join(names())}.")


def schema(name: str) -> dict[str, Any]:
    """The JSON schema of a recipe's fields."""
    return recipe_class(name).model_json_schema()


Spec: TypeAlias = str | Mapping[str, Any] | PathLike[str] | Recipe


def recipe(spec: Spec, fields: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe from a name, a mapping with a `name`, a YAML file, or a recipe, and change some fields.

    Raises:
        UnknownName: If the name is not known.
        InvalidInput: If a field is unknown or has a value it cannot take; the message names the field.
    """
    if isinstance(spec, Recipe):
        given: dict[str, Any] = spec.model_dump()
    elif isinstance(spec, Mapping):
        given = dict(spec)
    elif isinstance(spec, PathLike) or (isinstance(spec, str) and Path(spec).suffix in {".yaml", ".yml"}):
        given = _read_yaml(Path(spec))
    elif isinstance(spec, str):
        given = {"name": spec}
    else:
        raise InvalidInput(
            f"a retriever was given as {type(spec).__name__}; a name, a mapping with a `name`, the path of a YAML file or "
            "a recipe is needed"
        )
    given |= fields or {}
    name = given.get("name")
    if not isinstance(name, str):
        raise InvalidInput(f"a retriever needs a `name`; given the fields {list(given)}. Known: {', '.join(names())}.")
    wanted = recipe_class(name)
    try:
        return wanted.model_validate(given)
    except ValidationError as error:
        raise InvalidInput(_explain(wanted, error)) from None
    except RecursionError:  # a YAML anchor can hold itself
        raise InvalidInput(f"the recipe {name!r} holds itself, or nests too deep; write its members out") from None


def create(spec: Spec, /, **fields: Any) -> Retriever:
    """Build a retriever.

    Args:
        spec: A name, a mapping with a `name`, or the path of a YAML file with the same fields.
        fields: Parameters of the recipe; they win over those in `spec`.

    Returns:
        A new, empty retriever that remembers its `recipe`.

    Raises:
        UnknownName: If the name is not known; the message lists the known names.
        InvalidInput: If a field is unknown or has a value it cannot take.
        MissingExtra: If a package is missing; the message gives the `pip install` line.

    Example:
        >>> create("bm25", k1=0.9).recipe.k1
        0.9
    """
    wanted = recipe(spec, fields)
    retriever = wanted.build()
    retriever.recipe = wanted  # type: ignore[attr-defined]  # a Retriever need not declare it; an Updatable does
    return retriever


def _nested(value: Any) -> Any:
    return value if isinstance(value, Recipe) else recipe(value)


_NESTED_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "description": "a name, or the path of a YAML file"},
        {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    ],
    "description": "a retriever: its name, or its `name` with fields",
}
Nested = Annotated[SerializeAsAny[Recipe], BeforeValidator(_nested), WithJsonSchema(_NESTED_SCHEMA)]
"""A field that holds another recipe: given by name, mapping, or recipe."""


def require(module: str, extra: str) -> Any:
    """Import a package that an extra brings.

    Raises:
        MissingExtra: If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtra(
            f"this needs the package {module.split('.')[0]!r}, which is not installed: pip install 'ragistry[{extra}]'"
        ) from None


def _name_of(recipe: type[Recipe]) -> str:
    default = recipe.model_fields["name"].default
    if not isinstance(default, str) or not default:
        raise InvalidInput(f'{recipe.__name__} has no default for `name`; write `name: Literal["..."] = "..."`')
    return default


def _load(path: str) -> type[Recipe]:
    module, _, attribute = path.partition(":")
    loaded: type[Recipe] = getattr(importlib.import_module(module), attribute)
    return loaded


def _plugins() -> Iterable[Any]:
    return entry_points(group=GROUP)


def _plugin(entry: Any) -> type[Recipe]:
    try:
        loaded = entry.load()
    except Exception as error:  # whatever a foreign module does at import must not reach the user as a traceback
        raise InvalidInput(
            f"the plug-in {entry.name!r} ({entry.value}) cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    if not (isinstance(loaded, type) and issubclass(loaded, Recipe)):
        raise InvalidInput(f"the plug-in {entry.name!r} ({entry.value}) does not name a subclass of ragistry.Recipe")
    if _name_of(loaded) != entry.name:
        raise InvalidInput(
            f"the plug-in {entry.name!r} ({entry.value}) names a recipe whose own name is {_name_of(loaded)!r}; give both "
            "the same name"
        )
    return loaded


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInput(f"the recipe file {str(path)!r} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise InvalidInput(f"the recipe file {str(path)!r} must hold a mapping with a `name` and fields")
    return content


def _explain(wanted: type[Recipe], error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            known = ", ".join(wanted.model_fields)
            lines.append(f"unknown field {where!r} (known: {known})")
        else:
            lines.append(f"field {where!r}: {problem['msg']}; given {problem['input']!r}")
    return f"the recipe {_name_of(wanted)!r} cannot be used: " + "; ".join(lines)

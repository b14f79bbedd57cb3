"""Names, recipes, YAML files and plug-ins."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

import pytest
from pydantic import ValidationError

import ragistry
from ragistry import Document, Recipe, create, names, recipe, register, schema
from ragistry.errors import InvalidInput, MissingExtra, UnknownName
from ragistry.protocols import Retriever, Updatable
from ragistry.recipes.bm25 import BM25Recipe
from ragistry.recipes.hybrid import HybridRecipe
from ragistry.recipes.query_likelihood import QueryLikelihoodRecipe
from ragistry.registry import BUILT_IN, GROUP, describe_all, recipe_class, require
from ragistry.retrievers.fuse import Fuse

PLUG_IN = '''
from typing import ClassVar, Literal
from ragistry import Recipe, create

class Plugged(Recipe):
    """A plug-in."""
    summary: ClassVar[str] = "from elsewhere"
    name: Literal["plugged"] = "plugged"
    k1: float = 0.3

    def build(self):
        return create("bm25", k1=self.k1)

class Taken(Recipe):
    name: Literal["bm25"] = "bm25"

not_a_recipe = 3
'''


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragistry.registry._registered", {})


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put a distribution with entry points on the path."""

    def installed(**entries: str) -> None:
        (tmp_path / "plugged_in.py").write_text(PLUG_IN)
        (tmp_path / "broken_module.py").write_text("import nonsense_that_is_not_installed")
        info = tmp_path / "plugged-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged\nVersion: 1.0\n")
        lines = [f"[{GROUP}]", *(f"{name} = {value}" for name, value in entries.items())]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "plugged_in", raising=False)

    return installed


class TestCreate:
    def test_from_a_name(self) -> None:
        made = cast(Updatable, create("bm25"))
        assert made.recipe == BM25Recipe()
        assert made.search(["anything"])[0].ids == ()

    @pytest.mark.parametrize("name", BUILT_IN)
    def test_every_built_in_name_has_a_recipe_of_that_name(self, name: str) -> None:
        assert recipe(name).name == name
        assert recipe_class(name).summary

    def test_fields_win(self) -> None:
        assert recipe({"name": "bm25", "k1": 0.5, "b": 0.1}, {"k1": 0.7}) == BM25Recipe(k1=0.7, b=0.1)
        assert cast(Updatable, create(BM25Recipe(b=0.1), k1=0.7)).recipe == BM25Recipe(k1=0.7, b=0.1)

    def test_a_recipe_stays_as_it_is(self) -> None:
        given = HybridRecipe(members={"a": BM25Recipe(k1=0.2), "b": QueryLikelihoodRecipe(mu=7)}, weights={"a": 0.1})
        assert recipe(given) == given
        assert recipe(given.model_dump()) == given
        assert recipe(json.loads(json.dumps(given.model_dump(mode="json")))) == given

    def test_hybrids_nest(self) -> None:
        inner = {"name": "hybrid", "members": {"c": {"name": "bm25", "k1": 0.4}, "d": "query-likelihood"}}
        made = create("hybrid", members={"a": "bm25", "b": inner}, weights={"b": 0.3})
        assert isinstance(made, Fuse)
        assert isinstance(made.members["b"], Fuse)
        assert made.members["b"].members["c"].recipe.k1 == 0.4  # type: ignore[attr-defined]
        assert made.recipe.members["b"].members["c"].k1 == 0.4
        made.add([Document("1", "cat")])
        assert made.search(["cat"])[0].ids == ("1",)

    def test_members_are_not_shared(self) -> None:
        one, two = (
            cast(Any, create("hybrid", members={"a": "bm25"})),
            cast(Any, create("hybrid", members={"a": "bm25"})),
        )
        one.add([Document("1", "cat")])
        assert len(two.search(["cat"])[0]) == 0


class TestYaml:
    def test_a_file_gives_the_same_fields(self, tmp_path: Path) -> None:
        path = tmp_path / "my.yaml"
        path.write_text(
            """
            name: hybrid
            weights: {words: 0.3}
            members:
              words: bm25
              likely:
                name: query-likelihood
                smoothing: jelinek-mercer
                stop_words: [der, die, das]
                stemmer: german
              plain: {name: bm25, stemmer: null}
            """
        )
        for spec in (path, str(path)):
            found = recipe(spec)
            assert isinstance(found, HybridRecipe)
            assert found.members["likely"] == QueryLikelihoodRecipe(
                smoothing="jelinek-mercer", stop_words=("der", "die", "das"), stemmer="german"
            )
            assert found.members["plain"] == BM25Recipe(stemmer=None)
        assert recipe(path, {"depth": 7}).depth == 7  # type: ignore[attr-defined]

    @pytest.mark.parametrize(
        "content",
        [
            "",
            "- bm25",
            "bm25",
            "name: [",
            "name: bm25\nname2: !!python/object/apply:os.getcwd []",
            "{1: 2}",
            "a: 1\n1: 2",
        ],
    )
    def test_other_content_is_refused(self, tmp_path: Path, content: str) -> None:
        path = tmp_path / "my.yml"
        path.write_text(content)
        with pytest.raises(InvalidInput):
            recipe(path)

    def test_a_recipe_that_holds_itself_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "endless.yaml"
        path.write_text("name: hybrid\nmembers: &all\n  again: {name: hybrid, members: *all}")
        with pytest.raises(InvalidInput, match="holds itself"):
            recipe(path)

    def test_unreadable_files_are_named(self, tmp_path: Path) -> None:
        (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
        for path in (tmp_path / "missing.yaml", tmp_path / "binary.yaml", tmp_path):
            with pytest.raises(InvalidInput, match=path.name):
                recipe(path)


class TestMistakes:
    def test_unknown_names_list_the_known(self) -> None:
        with pytest.raises(UnknownName, match=r"'bm52'.*Did you mean 'bm25'\?.*query-likelihood"):
            create("bm52")
        with pytest.raises(UnknownName, match=r"'xyzzy'.*Known: bm25"):
            create("hybrid", members={"a": "xyzzy"})

    def test_unknown_fields_are_named(self) -> None:
        with pytest.raises(InvalidInput, match=r"'bm25'.*unknown field 'k2'.*k1, b"):
            create("bm25", k2=1.0)
        with pytest.raises(InvalidInput, match="unknown field 'k2'"):
            create("hybrid", members={"a": {"name": "bm25", "k2": 1.0}})

    @pytest.mark.parametrize(
        ("name", "field", "value"),
        [
            ("bm25", "k1", -1), ("bm25", "k1", "much"), ("bm25", "b", 1.5), ("bm25", "k1", float("nan")),
            ("bm25", "k1", float("inf")), ("bm25", "variant", "bm26"), ("bm25", "identifiers", None),
            ("query-likelihood", "mu", 0), ("query-likelihood", "weight", 1), ("hybrid", "members", {}),
            ("hybrid", "members", "bm25"), ("hybrid", "depth", 0), ("hybrid", "rank_constant", float("inf")),
            ("dense", "max_length", 0), ("dense", "precision", "fp8"),
        ],
    )  # fmt: skip
    def test_bad_values_are_named(self, name: str, field: str, value: Any) -> None:
        with pytest.raises(InvalidInput, match=f"field '{field}"):
            create(name, **{field: value})

    @pytest.mark.parametrize("fields", [{"stemmer": "klingon"}, {"stop_words": "german"}])
    def test_bad_analysis_is_refused_when_built(self, fields: dict[str, Any]) -> None:
        with pytest.raises(InvalidInput, match="not known"):
            create("bm25", **fields)

    def test_weights_must_name_members(self) -> None:
        with pytest.raises(InvalidInput, match=r"'c'.*not members.*'a'"):
            create("hybrid", members={"a": "bm25"}, weights={"c": 1.0})

    @pytest.mark.parametrize("spec", [{}, {"k1": 1.0}, {"name": 3}, {"name": None}])
    def test_a_name_is_needed(self, spec: dict[str, Any]) -> None:
        with pytest.raises(InvalidInput, match="needs a `name`"):
            create(spec)

    @pytest.mark.parametrize("spec", [3, None, ["bm25"], b"bm25", BM25Recipe])
    def test_what_is_no_recipe_is_refused(self, spec: Any) -> None:
        with pytest.raises(InvalidInput, match="a name, a mapping"):
            create(spec)

    def test_recipes_are_frozen(self) -> None:
        with pytest.raises(ValidationError):
            recipe("bm25").k1 = 2.0  # type: ignore[attr-defined]

    def test_a_recipe_without_build(self) -> None:
        class Unbuilt(Recipe):
            name: Literal["unbuilt"] = "unbuilt"

        with pytest.raises(InvalidInput, match="define `build`"):
            Unbuilt().build()
        assert list(Unbuilt().variants(None)) == []


@pytest.mark.usefixtures("registered")
class TestRegister:
    def test_a_recipe_of_ones_own(self) -> None:
        @register
        class Mine(Recipe):
            name: Literal["mine"] = "mine"
            k1: float = 0.4

            def build(self) -> Retriever:
                return create("bm25", k1=self.k1)

        assert names()[-1] == "mine"
        assert cast(Updatable, create("mine", k1=0.5)).recipe == Mine(k1=0.5)
        assert cast(Any, create("hybrid", members={"a": "mine"})).recipe.members["a"] == Mine()
        assert register(Mine) is Mine
        assert next(d for d in describe_all() if d.name == "mine").origin == __name__

    def test_names_are_taken_once(self) -> None:
        class First(Recipe):
            name: Literal["first"] = "first"

        class Second(Recipe):
            name: Literal["first"] = "first"

        class Bm25(Recipe):
            name: Literal["bm25"] = "bm25"

        class Nameless(Recipe):
            pass

        register(First)
        for taken in (Second, Bm25):
            with pytest.raises(InvalidInput, match="already taken"):
                register(taken)
        with pytest.raises(InvalidInput, match="Nameless"):
            register(Nameless)


class TestPlugIns:
    def test_a_plug_in_is_like_a_built_in_one(self, install: Callable[..., None]) -> None:
        install(plugged="plugged_in:Plugged")
        assert "plugged" in names()
        assert cast(Updatable, create("plugged", k1=0.9)).recipe.k1 == 0.9
        assert cast(Any, create("hybrid", members={"a": "plugged"})).recipe.members["a"].k1 == 0.3
        found = next(d for d in describe_all() if d.name == "plugged")
        assert (found.summary, found.origin, found.problem) == ("from elsewhere", "plugged_in:Plugged", "")

    @pytest.mark.parametrize(
        ("value", "problem"),
        [
            ("broken_module:Anything", "nonsense_that_is_not_installed"),
            ("plugged_in:Missing", "Missing"),
            ("plugged_in:not_a_recipe", "subclass of ragistry.Recipe"),
            ("plugged_in:Plugged", "own name is 'plugged'"),
            ("no_such_module:X", "no_such_module"),
        ],
    )
    def test_a_broken_one_harms_nothing_else(self, install: Callable[..., None], value: str, problem: str) -> None:
        install(plugged="plugged_in:Plugged", broken=value)
        assert "broken" not in names()
        assert "plugged" in names()
        assert len(create("bm25").search(["cat"])) == 1
        found = next(d for d in describe_all() if d.name == "broken")
        assert problem in found.problem
        with pytest.raises(InvalidInput, match=r"plug-in 'broken'"):
            create("broken")
        with pytest.raises(UnknownName):
            create("unheard-of")

    def test_built_in_names_cannot_be_replaced(self, install: Callable[..., None]) -> None:
        install(bm25="plugged_in:Taken")
        assert names().count("bm25") == 1
        assert recipe_class("bm25") is BM25Recipe
        assert any(d.name == "bm25" and "already taken" in d.problem for d in describe_all())


class TestRequire:
    def test_a_missing_package_is_named_with_its_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "torch", None)
        for ask in (lambda: require("torch", "dense"), lambda: create("dense"), lambda: create("hybrid")):
            with pytest.raises(MissingExtra, match=r"'torch'.*pip install 'ragistry\[dense\]'"):
                ask()

    def test_an_installed_package_is_given(self) -> None:
        assert require("json", "any") is json
        assert require("json.decoder", "any") is json.decoder

    def test_a_missing_dependency_of_a_package_is_not_mistaken(self, install: Callable[..., None]) -> None:
        install()
        with pytest.raises(ModuleNotFoundError, match="nonsense_that_is_not_installed") as caught:
            require("broken_module", "any")
        assert not isinstance(caught.value, MissingExtra)


class TestSchema:
    @pytest.mark.parametrize("name", BUILT_IN)
    def test_is_json(self, name: str) -> None:
        found = json.loads(json.dumps(schema(name)))
        assert found["additionalProperties"] is False
        assert found["properties"]["name"]["const"] == name

    def test_members_may_be_names_or_have_fields_of_their_own(self) -> None:
        member = schema("hybrid")["properties"]["members"]["additionalProperties"]
        text, mapping = member["anyOf"]
        assert text["type"] == "string"
        assert (mapping["type"], mapping["required"]) == ("object", ["name"])
        assert mapping.get("additionalProperties", True) is True  # or a validator refuses {"name": "bm25", "k1": 0.9}

    def test_describes_fields(self) -> None:
        k1 = schema("bm25")["properties"]["k1"]
        assert (k1["type"], k1["minimum"], k1["default"]) == ("number", 0, 1.2)
        assert k1["description"]
        with pytest.raises(UnknownName):
            schema("xyzzy")


def test_public_functions_are_these() -> None:
    assert ragistry.create is create
    assert {"create", "names", "recipe", "register", "schema", "Recipe"} <= set(ragistry.__all__)

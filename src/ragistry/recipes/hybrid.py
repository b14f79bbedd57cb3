"""Several retrievers joined into one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from ..protocols import Retriever
from ..registry import Lesson, Nested, Recipe, create, recipe


class HybridRecipe(Recipe):
    """Words and meaning together: several retrievers, their scores added up."""

    summary: ClassVar[str] = "words and meaning together: several retrievers, their scores added up"
    name: Literal["hybrid"] = "hybrid"
    members: Annotated[
        dict[str, Nested], Field(min_length=1, description="retrievers by a name of your choice; they may nest")
    ] = Field(default_factory=lambda: {"bm25": recipe("bm25"), "dense": recipe("dense")})
    weights: Annotated[dict[str, float], Field(description="by the same names; equal where not given")] = Field(
        default_factory=dict
    )
    method: Literal["interpolation", "reciprocal-rank"] = "interpolation"
    normalise: Literal["min-max", "z-score", "maximum", "none"] = "z-score"
    missing: Annotated[
        Literal["search", "minimum", "zero", "drop"],
        Field(
            description="the score of documents that a member did not find: its true one, its lowest one, 0, or left out"
        ),
    ] = "search"
    depth: Annotated[int, Field(gt=0, description="how many documents each member is asked for")] = 100
    rank_constant: Annotated[float, Field(ge=0)] = 60.0

    @model_validator(mode="after")
    def _known_weights(self) -> HybridRecipe:
        if unknown := set(self.weights) - set(self.members):
            raise ValueError(f"weights name {sorted(unknown)}, which are not members ({sorted(self.members)})")
        return self

    @property
    def batch(self) -> int:
        """That of the slowest member."""
        return min(member.batch for member in self.members.values())

    def build(self) -> Retriever:
        """A fusion of the members, each built by its own recipe."""
        return self._fuse({name: create(member) for name, member in self.members.items()})

    def variants(self, retriever: Any) -> Iterable[tuple[Recipe, Retriever]]:
        """Other weights, and reciprocal ranks; every member searches once and is remembered."""
        from ..retrievers.remembered import Remembered

        members = {name: Remembered(member) for name, member in retriever.members.items()}
        for weights in _weightings(list(members)):
            other = self.model_copy(update={"weights": weights, "method": "interpolation"})
            yield other, other._fuse(members)
        other = self.model_copy(update={"weights": {}, "method": "reciprocal-rank"})
        yield other, other._fuse(members)

    def learn(self, retriever: Any, judged: Mapping[str, Mapping[str, int]], ids: Sequence[str], lesson: Lesson) -> Any:
        """Teach the members that can learn, then choose weights; none where there are none, and only weights are chosen."""
        if all(type(member).learn is Recipe.learn for member in self.members.values()):
            return None
        from ..training.members import teach_members

        return teach_members(retriever, self, judged, ids, lesson, lambda other, members: other._fuse(dict(members)))

    def _fuse(self, members: dict[str, Any]) -> Retriever:
        from ..retrievers.fuse import Fuse

        return Fuse(
            members,
            self.weights,
            method=self.method,
            normalise=self.normalise,
            missing=self.missing,
            depth=self.depth,
            rank_constant=self.rank_constant,
        )


def _weightings(names: list[str]) -> Iterable[dict[str, float]]:
    """Each member against the others together, from none of it to all of it; nothing to choose for one alone."""
    if len(names) < 2:
        return
    for name in names[:1] if len(names) == 2 else names:
        for tenths in range(11):
            rest = (10 - tenths) / 10 / (len(names) - 1)
            yield {other: tenths / 10 if other == name else rest for other in names}

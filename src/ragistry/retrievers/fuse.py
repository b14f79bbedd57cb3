"""Several retrievers joined into one: weighted interpolation and reciprocal rank fusion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, Literal, Self, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInput, UnknownName
from ..protocols import NOTHING, Files, Reading, Retriever, State, Updatable
from ..types import Among, Document, Query, Ranking
from .asking import check_search

Method: TypeAlias = Literal["interpolation", "reciprocal-rank"]
Normalise: TypeAlias = Literal["min-max", "z-score", "maximum", "none"]
Missing: TypeAlias = Literal["search", "minimum", "zero", "drop"]
Scores: TypeAlias = npt.NDArray[np.float64]

_VETO = 2.0  # deviations; chosen on queries for development of three data sets, none of which lost by it


class Fuse:
    """Merges the rankings of several retrievers.

    *Interpolation* sums the members' scores, each normalised over the best `depth` that member found, times its weight.
    A document that a member did not find among its best `depth` gets, by the rule `missing`:

    - "search": its true score, asked for with `among`. After "z-score" what it is below the lowest that the member returned,
      g, counts as 2 (1 - exp(-g / 2)), so never more than 2: over a narrow list, one that knows nothing would otherwise
      veto what another one is sure of. If the member still does not return it, as "minimum" does;
    - "minimum": the lowest score that the member returned;
    - "zero": 0 after normalisation;
    - "drop": the document is left out altogether.

    *Reciprocal rank* sums weight / (rank_constant + rank), rank counting from 1; documents not found add nothing.

    Args:
        members: Retrievers by name.
        weights: By the same names, >= 0; equal ones by default. Members of weight 0 are not asked, and with one member
            left its rankings are returned as they are.
        method: "interpolation" or "reciprocal-rank".
        normalise: "min-max" (to 0 .. 1), "z-score" (mean 0, deviation 1), "maximum" (divided by the largest magnitude) or
            "none". Over a list of equal scores, "min-max" gives 1 and "z-score" 0.
        missing: See above.
        depth: How many documents each member is asked for (never fewer than `k`).
        rank_constant: 60 in the paper.

    Raises:
        InvalidInput: If a parameter is out of range or a weight names no member.

    Example:
        >>> from ragistry import create
        >>> both = Fuse({"a": create("bm25"), "b": create("query-likelihood")}, method="reciprocal-rank")
        >>> both.add([Document("1", "fourteen lines"), Document("2", "three lines")])
        >>> both.search(["fourteen lines"])[0].ids
        ('1', '2')

    Source: Bruch et al., "An analysis of fusion functions for hybrid retrieval" (TOIS 42(1), 2023); Cormack et al.,
    "Reciprocal rank fusion outperforms Condorcet and individual rank learning methods" (SIGIR 2009). Deviations: the rule
    for missing documents is explicit, normalisation bounds are those of the best `depth`, not of the whole collection, and
    what a member can take from a document is bounded.
    """

    recipe: Any = None

    def __init__(
        self,
        members: Mapping[str, Retriever],
        weights: Mapping[str, float] | None = None,
        method: Method = "interpolation",
        normalise: Normalise = "z-score",
        missing: Missing = "search",
        depth: int = 100,
        rank_constant: float = 60.0,
    ) -> None:
        self.members = dict(members)
        self.weights = dict.fromkeys(members, 1.0) | dict(weights or {})
        self.method, self.normalise, self.missing = method, normalise, missing
        self.depth, self.rank_constant = depth, rank_constant
        if unknown := set(self.weights) - set(self.members):
            raise InvalidInput(
                f"weights name {sorted(unknown)}, which are not members; members: {sorted(self.members)}"
            )
        if not isinstance(depth, int) or not all(isinstance(n, Real) for n in (rank_constant, *self.weights.values())):
            raise InvalidInput(
                f"depth must be a whole number, rank_constant and weights numbers; given {depth!r}, {rank_constant!r} and "
                f"{self.weights}"
            )
        if not any(self.weights.values()) or not all(0 <= w < float("inf") for w in self.weights.values()):
            raise InvalidInput(f"weights must be finite, >= 0 and not all 0; given {self.weights}")
        for value, choice, name in (
            (method, Method, "method"),
            (normalise, Normalise, "normalise"),
            (missing, Missing, "missing"),
        ):
            if value not in get_args(choice):
                raise InvalidInput(f"{name}={value!r} is not known; known: {', '.join(get_args(choice))}")
        if depth < 1 or not 0 <= rank_constant < float("inf"):
            raise InvalidInput(
                f"depth must be >= 1 and rank_constant >= 0 and finite; given {depth} and {rank_constant}"
            )

    @property
    def reads_metadata(self) -> bool:
        """See `ragistry.protocols.Updatable`."""
        return any(getattr(member, "reads_metadata", False) for member in self.members.values())

    def search(self, queries: Sequence[Query], k: int = 10, *, among: Among = None) -> list[Ranking]:
        """One ranking per query, at most `k` long, of ids in `among`.

        Raises:
            InvalidInput: If `queries` is no sequence of texts, `k` no whole number, or `among` no collection.
        """
        check_search(queries, k, among)
        if k <= 0:
            return [Ranking((), np.empty(0, np.float32))] * len(queries)
        asked = {name: member for name, member in self.members.items() if self.weights[name] > 0}
        if len(asked) == 1:
            return next(iter(asked.values())).search(queries, k, among=among)
        depth = max(self.depth, k)
        lists = {name: member.search(queries, depth, among=among) for name, member in asked.items()}
        fuse: Callable[[Query, dict[str, Ranking]], dict[str, float]]
        fuse = self._interpolate if self.method == "interpolation" else self._reciprocal
        found = []
        for i, query in enumerate(queries):
            fused = fuse(query, {name: rankings[i] for name, rankings in lists.items()})
            found.append(Ranking.of(list(fused), np.fromiter(fused.values(), np.float32, len(fused)), k))
        return found

    def add(self, documents: Sequence[Document], *, same: Mapping[str, str] = NOTHING) -> None:
        """Insert; a document whose id is already there is replaced. For `same` see `ragistry.protocols.Updatable`."""
        for member in self._updatable().values():
            member.add(documents, same=same)

    def remove(self, ids: Iterable[str]) -> None:
        """Take ids out; ids that are not there are passed over."""
        if isinstance(ids, str):
            raise InvalidInput(f"ids are given as one text, {ids!r:.100}; give a list of ids")
        gone = list(ids)
        for member in self._updatable().values():
            member.remove(gone)

    def read_from(self, documents: Callable[[Sequence[str]], Sequence[Document]]) -> None:
        """Tell the members that read texts where to: see `ragistry.protocols.Reading`."""
        for member in self.members.values():
            if isinstance(member, Reading):
                member.read_from(documents)

    def fork(self) -> Self:
        """A copy that shares what is stored: changing one leaves the other as it was."""
        return self._twin({name: member.fork() for name, member in self._updatable().items()})

    def save(self, files: Files) -> State:
        """Store arrays in `files` and return the rest."""
        return {"members": {name: member.save(files) for name, member in self._updatable().items()}}

    def load(self, state: State, files: Files) -> None:
        """Become what was saved."""
        for name, member in self._updatable().items():
            if name not in state["members"]:
                raise UnknownName(f"what was saved has no member {name!r}; it has {sorted(state['members'])}")
            member.load(state["members"][name], files)

    def _twin(self, members: Mapping[str, Retriever]) -> Self:
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__, members=dict(members))
        return twin

    def _updatable(self) -> dict[str, Updatable]:
        for name, member in self.members.items():
            if not isinstance(member, Updatable):
                raise InvalidInput(f"the member {name!r} ({type(member).__name__}) takes no documents of its own")
        return {name: member for name, member in self.members.items() if isinstance(member, Updatable)}

    def _reciprocal(self, query: Query, rankings: dict[str, Ranking]) -> dict[str, float]:
        fused: dict[str, float] = {}
        for name, ranking in rankings.items():
            for rank, value in enumerate(ranking.ids, start=1):
                fused[value] = fused.get(value, 0.0) + self.weights[name] / (self.rank_constant + rank)
        return fused

    def _interpolate(self, query: Query, rankings: dict[str, Ranking]) -> dict[str, float]:
        found = Counter(value for ranking in rankings.values() for value in ranking.ids)
        ids = [value for value, times in found.items() if self.missing != "drop" or times == len(rankings)]
        total = np.zeros(len(ids))
        for name, ranking in rankings.items():
            if len(ranking):
                total += self.weights[name] * self._scores(query, name, ranking, ids)
        return dict(zip(ids, total.tolist(), strict=True))

    def _scores(self, query: Query, name: str, ranking: Ranking, ids: Sequence[str]) -> Scores:
        """A member's normalised score of each id."""
        known, best = dict(ranking), ranking.scores[: self.depth].astype(np.float64)
        scale = scaling(best, self.normalise)  # so that asking for more hits changes no scores
        unknown = [value for value in ids if value not in known]
        if unknown and self.missing == "search":
            known |= dict(self.members[name].search([query], len(unknown), among=frozenset(unknown))[0])
        lowest = float(best[-1])
        scores = scale(np.array([known.get(value, lowest) for value in ids], np.float64))
        if self.missing == "search" and self.normalise == "z-score":
            floor = scale(np.array([lowest]))
            below = np.maximum(floor - scores, 0.0)
            scores = np.where(below > 0, floor - _VETO * (1 - np.exp(-below / _VETO)), scores)
        if self.missing == "zero":
            scores[[value not in known for value in ids]] = 0.0
        return scores


def scaling(scores: Scores, how: Normalise) -> Callable[[Scores], Scores]:
    """How scores are made comparable with those of another retriever, in the terms of `Fuse`, as a function of scores."""
    if how == "none":
        return lambda values: values
    if how == "maximum":
        largest = float(np.abs(scores).max()) or 1.0
        return lambda values: values / largest
    if how == "z-score":
        mean, deviation = float(scores.mean()), float(scores.std())
        return lambda values: (values - mean) / deviation if deviation else np.zeros_like(values)
    low, high = float(scores.min()), float(scores.max())
    return lambda values: (values - low) / (high - low) if high > low else (values >= low).astype(np.float64)

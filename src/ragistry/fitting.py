"""The command `ragistry fit`: learn from pairs of queries and documents, and say what it brought."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.text import Text

from .console import Bar, counted, left_out, note, show, show_columns, show_fit, show_json
from .errors import InvalidInput

if TYPE_CHECKING:
    from .collection import Collection
    from .evaluation.selection import Fit


def fit(
    directory: Annotated[
        str,
        typer.Argument(
            metavar="DIR", help="The collection's directory, or its postgresql:// address.", show_default=False
        ),
    ],
    pairs: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|DIR",
            help="Queries with the ids of documents that answer them: JSON Lines, TSV or CSV of query, document_id and "
            "maybe relevance (0: no answer, though it looks like one); or a directory in BEIR's layout, whose training "
            "part is read.",
        ),
    ] = None,
    own: Annotated[
        bool,
        typer.Option(
            "--self",
            help="Make the pairs from the collection's own documents: their rare terms, first sentences, titles and parts. "
            "They are not users' questions, and what helps with them may not help your users: prefer --pairs. It is kept "
            "only if queries that were held out, made in the same way, improve.",
            show_default=False,
        ),
    ] = False,
    measure: Annotated[str, typer.Option(metavar="NAME", help="What to improve, as in ir_measures.")] = "nDCG@10",
    goal: Annotated[
        Literal["balanced", "seen", "unseen"],
        typer.Option(
            help="Which new queries are to gain: those for documents that PAIRS have queries for (seen), those for other "
            "documents (unseen), or both, where the latter must not lose (balanced). Settings serve all queries alike."
        ),
    ] = "balanced",
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw how quality rose in training: curve.png, .svg or .pdf.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.", show_default=False)] = False,
) -> None:
    """Learn from queries with known answers, and keep what was learnt only if it helps beyond chance.

    `ragistry fit my-docs --pairs pairs.tsv`

    What is learnt depends on the retriever: **adder** turns the vectors of its embedding model, **lexsembridge** adds the
    words of texts to them, **bpr**, **jpq** and **bidr** turn their codes, **pefa-xs** and **pefa-xl** remember the queries,
    **colbert** and **ance-prf** train how queries are read, **lexicon**, **llm-ql** and **genre** a model of documents, the
    others choose better settings. Documents are encoded again only where their own model was trained. Whether it helps is
    measured on queries that were held out; if it does not, the collection stays as it was.
    """
    if (pairs is None) == (not own):
        problem = "were both given" if own else "were both left out"
        raise InvalidInput(
            f"--pairs and --self {problem}; give one of them: --pairs FILE with queries and the ids of documents that "
            "answer them, or --self to make some from the documents"
        )
    if plot is not None:
        _check_plot(plot)
    from .collection import Collection
    from .mirror import differences
    from .registry import recipe

    with Collection.open(directory) as collection:
        given = _made(collection) if pairs is None else pairs
        before = collection.recipe
        total = None if _learns(recipe(before)) else sum(1 for _ in recipe(before).variants(collection.retriever()))
        with Bar("Learning", "measurements" if total is None else "candidates", total) as bar:
            found = collection.fit(given, measure=measure, goal=goal, progress=bar.advance)
    drawn = plot is not None and _drawn(found, plot)
    if as_json:
        show_json(found.to_json() | ({"plot": str(plot)} if drawn else {}))
        return
    if found.goal:
        show_learnt(found)
    else:
        show_fit(found, differences(before, found.recipe.model_dump(mode="json")))
    if drawn:
        note(f"plot: {plot}")


def show_learnt(found: Fit) -> None:
    """Of a retriever that learns from pairs: what was learnt, what it brings where, and whether it was kept."""
    from .evaluation.selection import SIGNIFICANT

    show(Text(f"chosen: {found.chosen}\n\n{found.measure} on queries that were held out, not learnt from:"))
    overall = {"base": found.base, "fitted": found.fitted, "headroom": found.headroom, "p": found.p}
    overall |= {} if found.parts else {"queries": found.queries[1]}
    rows: Mapping[str, Mapping[str, float]] = {**found.parts, f"overall ({found.goal})": overall}
    columns = {"queries": [f"{row['queries']:,}" if "queries" in row else "" for row in rows.values()]}
    columns |= {name: [f"{row[name]:.4f}" for row in rows.values()] for name in ("base", "fitted", "headroom")}
    columns["p"] = ["<0.001" if row["p"] < 0.001 else f"{row['p']:.3f}" for row in rows.values()]
    show_columns([Text(name) for name in rows], [(name, [*map(Text, cells)]) for name, cells in columns.items()])
    if found.parts:
        show(Text("seen: other queries taught the documents that answer these; unseen: none did", "dim"))
    base = "untaught" if found.parts else "as it was"
    show(Text(f"base: {base}; headroom: its best 100 in perfect order; p: how likely by chance", "dim"))
    if curve := _curve(found.history):
        show(Text(f"\nby epoch of training, in one of the trials: {curve}"))
    if found.kept:
        verdict = f"kept: {found.measure} rose from {found.base:.4f} to {found.fitted:.4f}"
    elif found.fitted > found.base and found.p >= SIGNIFICANT:
        verdict = "not kept, for a gain like this may be chance: more pairs may tell"
    else:
        verdict = "not kept: the collection stays as it was"
    show(Text(f"\n{verdict}", "bold"))
    show(
        f"{counted(found.candidates, 'candidate')} tried on {counted(found.queries[0], 'query')} in {found.seconds:.1f} s"
        f"{left_out(found)}"
    )


def _curve(history: Mapping[str, Any]) -> str:
    """The values on held-out queries; none where nothing was trained."""
    points = [(point["epoch"], point["values"]) for point in history.get("points", ())]
    return ", ".join(f"{epoch} {values['goal']:.3f}" for epoch, values in points if "goal" in values)


def _learns(recipe: Any) -> bool:
    """Whether a recipe, or one that it joins, learns more than settings."""
    from .registry import Recipe

    members = getattr(recipe, "members", None)
    return any(map(_learns, members.values())) if members else type(recipe).learn is not Recipe.learn


def _made(collection: Collection) -> Any:
    """Pairs from the collection's own documents."""
    from .training.own_pairs import own_pairs

    pairs = own_pairs(collection.documents())
    queries = len({pair.query for pair in pairs})
    note(f"{counted(queries, 'query')} were made from the documents; none of them is a user's question")
    return pairs


def _check_plot(path: Path) -> None:
    """Before minutes of work, whether its end can be drawn and written."""
    from .registry import require
    from .training.plot import PICTURES

    if path.suffix.lstrip(".").lower() not in PICTURES:
        raise InvalidInput(f"--plot is {str(path)!r}; give a name that ends in .{', .'.join(PICTURES)}")
    if not path.resolve().parent.is_dir():
        raise InvalidInput(f"--plot {str(path)!r}: there is no folder {str(path.resolve().parent)!r}; make it first")
    if path.is_dir():
        raise InvalidInput(f"--plot {str(path)!r} is a folder; name a file, such as {str(path / 'curve.png')!r}")
    require("matplotlib", "plot")


def _drawn(found: Fit, path: Path) -> bool:
    """Draw the validation curve, if there is one."""
    if not _curve(found.history):
        note(f"nothing was trained, so there is no curve to draw and {str(path)!r} was not written")
        return False
    from .training.trainer import History, Point

    points = [Point(**point) for point in found.history["points"]]
    History(points, found.history["best"]).plot(path, f"{found.recipe.name}: {found.measure}")
    return True

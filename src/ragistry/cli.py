"""The command line `ragistry`: index files, search, measure, learn.

Heavy packages are imported inside the commands that need them, so that help comes at once.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from . import __version__
from .answering import serve
from .comparing import compare
from .console import (
    Bar,
    Commands,
    Notes,
    analyzer_of,
    counted,
    note,
    nothing,
    show,
    show_evaluation,
    show_hits,
    show_info,
    show_json,
    show_table,
)
from .errors import InvalidInput
from .fitting import fit
from .indexing import Directory, Json, add, index

_EXIT_CODES = """
**Exit codes**: 0 fine; 1 nothing found, or nothing to do; 2 wrong usage or input that cannot be used; 3 a file or
directory cannot be read or written; 4 stored data is damaged; 5 another process is writing; 130 interrupted (nothing
committed is lost; repeat the command to continue).

With `--json` a command prints one JSON document on standard output and nothing else; an error is
`{"error": {"type": ..., "message": ...}}`. Progress and messages go to standard error.
"""

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_EXIT_CODES,
)
Where = Annotated[
    str | None,
    typer.Option(metavar="JSON", help='Only documents whose metadata passes this filter, such as {"lang": "en"}.'),
]


def main() -> None:
    """Run the command line; the entry point of the `ragistry` script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    logging.getLogger("ragistry").addHandler(Notes())
    app(prog_name="ragistry")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def ragistry(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Index files, search them, measure the answers, and learn from your own data.

    Start with `ragistry index docs -o my-docs`, then `ragistry search my-docs "who coined the term?"`.
    """


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List the retrievers there are, those of plug-ins included."""
    from .registry import describe_all

    found = describe_all()
    if as_json:
        show_json([asdict(description) for description in found])
        return
    rows = [(d.name, Text(d.problem, "red") if d.problem else d.summary, d.origin) for d in found]
    show_table(("name", "what it is", "from"), rows)


@app.command()
def schema(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A retriever, as in `ragistry list`.")],
    as_json: Json = False,
) -> None:
    """Print the JSON schema of a retriever's fields: what `--set` and YAML files may hold."""
    from .registry import schema

    show_json(schema(name))


app.command()(index)
app.command()(add)


@app.command()
def remove(
    directory: Directory,
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help="Documents by id.", show_default=False)] = None,
    where: Where = None,
    as_json: Json = False,
) -> None:
    """Remove documents by id, or all those that a filter finds.

    A file's: `ragistry remove my-docs --where '{"source": "guide.md"}'`
    """
    from .collection import Collection

    condition = _condition(where)
    if bool(ids) == bool(condition):
        raise InvalidInput("give either ids or a --where with at least one condition, to say what to remove")
    with Collection.open(directory) as collection:
        wanted = ids or [document.id for document in collection.documents(condition)]
        removed, left = collection.remove(wanted), len(collection)
    missing = len(set(wanted)) - removed
    done = {"path": collection.location, "removed": removed, "missing": missing, "documents": left}
    if not removed:
        nothing("the collection has none of these documents, so nothing was removed", done, as_json=as_json)
    if missing:
        note(f"{counted(missing, 'document')} of those named were not there")
    if as_json:
        show_json(done)
    else:
        show(f"removed {counted(removed, 'document')}, {left:,} left")


@app.command()
def search(
    directory: Directory,
    query: Annotated[list[str], typer.Argument(metavar="QUERY", help="What is asked; - reads it from standard input.")],
    k: Annotated[int, typer.Option("-k", min=1, help="The most hits to show.")] = 10,
    where: Where = None,
    as_json: Json = False,
) -> None:
    """Search a collection: the best documents, each with the passage that fits best.

    A filter: `ragistry search my-docs "install" --where '{"page": {"lte": 20}}'`
    """
    from .collection import Collection

    asked, condition = " ".join(query), _condition(where)
    if asked == "-":
        asked = sys.stdin.read().strip()
    with Collection.open(directory) as collection:
        hits, recipe = collection.search(asked, k, where=condition), collection.recipe
    found = {"query": asked, "hits": [{"rank": rank, **asdict(hit)} for rank, hit in enumerate(hits, 1)]}
    if not hits:
        nothing("nothing found", found, as_json=as_json)
    if as_json:
        show_json(found)
    else:
        show_hits(asked, hits, analyzer_of(recipe))


@app.command()
def evaluate(
    directory: Directory,
    queries: Annotated[Path, typer.Option(metavar="FILE", help="Queries: JSON Lines, TSV or CSV.")],
    qrels: Annotated[Path, typer.Option(metavar="FILE", help="Judgements: BEIR, TREC, CSV or JSON Lines.")],
    measure: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="As in ir_measures, such as MRR@10; repeatable. nDCG@10 and R@100 if left out."
        ),
    ] = None,
    per_query: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write each query's values to this CSV file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure a collection on queries with known answers; queries without judgements are left out."""
    from .collection import Collection
    from .evaluation.files import read_qrels, read_queries
    from .storage import explained

    asked, judged, measures = read_queries(queries), read_qrels(qrels), measure or ["nDCG@10", "R@100"]
    total = sum(bool(judged.get(query)) for query in asked)
    with Collection.open(directory) as collection, Bar("Searching", "queries", total) as bar:
        found = collection.evaluate(asked, judged, measures, progress=bar.advance)
    if per_query is not None:
        with explained("write", per_query), per_query.open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["query", *measures])
            table.writerows([query, *(found.per_query[name][query] for name in measures)] for query in found.run)
    if as_json:
        show_json({key: value for key, value in found.to_json().items() if key != "per_query"})
    else:
        show_evaluation(found)


app.command()(compare)
app.command()(fit)
app.command()(serve)


@app.command("copy")
def copy_(
    source: Annotated[
        str, typer.Argument(metavar="FROM", help="A collection's directory or address.", show_default=False)
    ],
    target: Annotated[
        str, typer.Argument(metavar="TO", help="Of nothing yet, or of a copy that was begun.", show_default=False)
    ],
    as_json: Json = False,
) -> None:
    """Copy a collection between a directory and a database, with its vectors and what it has learnt.

    An interrupted copy is continued by the same command. Repeated later, it brings the copy up to date. In the end every
    document and vector of both is compared.
    """
    from .engines import store_at
    from .registry import require

    require("psycopg_pool", "postgres")
    from .engines.copying import copy

    with contextlib.closing(store_at(source)) as store, Bar("Copying", "documents", None) as bar:
        done = copy(store, target, progress=bar.advance)
    if as_json:
        show_json(done._asdict())
    else:
        show(
            f"copied {counted(done.copied, 'document')}, {done.unchanged:,} were there, {done.removed:,} removed; both have "
            f"the checksum {done.checksum}"
        )


@app.command()
def info(directory: Directory, as_json: Json = False) -> None:
    """Say what a collection holds."""
    from .collection import Collection

    with Collection.open(directory) as collection:
        found = collection.info()
    if as_json:
        show_json(found)
    else:
        show_info(found)


def _condition(where: str | None) -> Mapping[str, Any] | None:
    if where is None:
        return None
    try:
        found = json.loads(where)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        given = where if len(where) <= 60 else f"{where[:60]}…"
        raise InvalidInput(f'--where is {given!r}, which is not a JSON object; write it as {{"lang": "en"}}, in quotes')
    return found


if __name__ == "__main__":
    main()

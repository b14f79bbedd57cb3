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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

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
    show_change,
    show_evaluation,
    show_hits,
    show_info,
    show_json,
    show_table,
)
from .errors import InvalidInput
from .fitting import fit

if TYPE_CHECKING:
    from .collection import Collection
    from .mirror import Reading

_EXIT_CODES = """
**Exit codes**: 0 fine; 1 nothing found, or nothing to do; 2 wrong usage or input that cannot be used; 3 a file or
directory cannot be read or written; 4 stored data is damaged; 5 another process is writing; 130 interrupted (nothing
committed is lost; repeat the command to continue).

With `--json` a command prints one JSON document on standard output and nothing else; an error is
`{"error": {"type": ..., "message": ...}}`. Progress and messages go to standard error.
"""
_NOTES_SHOWN = 10

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_EXIT_CODES,
)
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.", show_default=False)]
Directory = Annotated[
    str,
    typer.Argument(metavar="DIR", help="The collection's directory, or its postgresql:// address.", show_default=False),
]
Paths = Annotated[list[Path], typer.Argument(metavar="PATH", help="Files and folders.", show_default=False)]
Tokens = Annotated[int, typer.Option(min=1, help="The most tokens in a chunk.")]
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


@app.command()
def index(
    paths: Paths,
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            "--to",
            metavar="DIR",
            help="The collection's directory, or its postgresql:// address.",
            show_default=False,
        ),
    ],
    retriever: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="A name as in `ragistry list`, or a YAML file; bm25 if left out."),
    ] = None,
    fields: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Set a field of the retriever; repeatable.")
    ] = None,
    tokens: Tokens = 200,
    as_json: Json = False,
) -> None:
    """Make a collection of files, or bring an existing one up to date.

    Text, Markdown, HTML, PDF and source code become chunks; rows of CSV and JSON Lines become documents.

    **Up to date** means that afterwards the collection holds of each PATH what its files hold now. Chunks that have not
    changed are passed over, new ones are added, and a document that `index` or `add` once read from a file at or below a
    PATH is removed if that file no longer gives it: because it was edited, deleted or moved, or because `--tokens` cuts
    it otherwise. Documents from files elsewhere, and documents that did not come from files, are left alone. A PATH may
    be a part of a folder that was indexed before: only that part is looked at, and ids stay as they are.

    An interrupted run has committed what it had finished; the same command continues. A collection keeps its retriever:
    asking for another one is an error.
    """
    from .engines import holds_one
    from .mirror import Reading, opened, read_fields, stale

    reading = Reading(paths, tokens, apart=Path(output))
    if not reading.files and not Path(output).exists() and not holds_one(output):
        nothing(f"there is no file to index at {', '.join(map(str, paths))}", {"files": 0}, as_json=as_json)
    with opened(output, retriever, read_fields(fields or [])) as collection:
        _add(collection, reading, stale, as_json)


@app.command()
def add(directory: Directory, paths: Paths, tokens: Tokens = 200, as_json: Json = False) -> None:
    """Add files to a collection, removing nothing.

    Chunks that are there already are passed over. Of a file that was edited the old chunks stay: use `index` to have
    them removed.
    """
    from .collection import Collection
    from .mirror import Reading

    reading = Reading(paths, tokens, apart=Path(directory))
    with Collection.open(directory) as collection:
        _add(collection, reading, lambda collection, reading: [], as_json)


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


def _add(
    collection: Collection, reading: Reading, stale: Callable[[Collection, Reading], list[str]], as_json: bool
) -> None:
    """Add what is read, remove what is stale after that, and report."""
    began = perf_counter()
    with _resumable(collection):
        with Bar("Indexing", "documents", reading.size) as bar:
            change = collection.add(reading.documents(collection, bar.advance))
        removed = collection.remove(stale(collection, reading))
    done = {
        "path": collection.location,
        "documents": len(collection),
        "added": change.added,
        "replaced": change.replaced,
        "removed": removed,
        "unchanged": change.unchanged,
        "files": len(reading.files),
        "bytes": reading.size,
        "seconds": round(perf_counter() - began, 3),
        "problems": reading.problems,
    }
    for problem in reading.problems[:_NOTES_SHOWN]:
        note(problem)
    if (more := len(reading.problems) - _NOTES_SHOWN) > 0:
        note(f"... and {more:,} more such notes; --json lists them all")
    if not (removed or any(change)):
        nothing(f"the {counted(len(reading.files), 'file')} gave no document", done, as_json=as_json)
    if as_json:
        show_json(done)
    else:
        show_change(done)


@contextlib.contextmanager
def _resumable(collection: Collection) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted: {counted(len(collection), 'document')} of {collection.location!r} are committed and safe; "
            "repeat the command to continue"
        ) from None


if __name__ == "__main__":
    main()

"""The commands `ragistry index` and `ragistry add`: files into a collection."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from .console import Bar, counted, note, nothing, show_change, show_json

if TYPE_CHECKING:
    from .collection import Collection
    from .mirror import Reading

_NOTES_SHOWN = 10

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.", show_default=False)]
Directory = Annotated[
    str,
    typer.Argument(metavar="DIR", help="The collection's directory, or its postgresql:// address.", show_default=False),
]
Paths = Annotated[list[Path], typer.Argument(metavar="PATH", help="Files and folders.", show_default=False)]
Tokens = Annotated[int, typer.Option(min=1, help="The most tokens in a chunk.")]
Workers = Annotated[
    str,
    typer.Option(
        metavar="N|ray|ray://HOST:PORT",
        help="Processes that encode documents, which pays for models on machines of more than 8 cores; or a Ray cluster.",
    ),
]


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
    workers: Workers = "1",
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

    several = _workers(workers)
    reading = Reading(paths, tokens, apart=Path(output))
    if not reading.files and not Path(output).exists() and not holds_one(output):
        nothing(f"there is no file to index at {', '.join(map(str, paths))}", {"files": 0}, as_json=as_json)
    with opened(output, retriever, read_fields(fields or [])) as collection:
        _add(collection, reading, stale, several, as_json)


def add(
    directory: Directory,
    paths: Paths,
    tokens: Tokens = 200,
    workers: Workers = "1",
    as_json: Json = False,
) -> None:
    """Add files to a collection, removing nothing.

    Chunks that are there already are passed over. Of a file that was edited the old chunks stay: use `index` to have
    them removed.
    """
    from .collection import Collection
    from .mirror import Reading

    several = _workers(workers)
    reading = Reading(paths, tokens, apart=Path(directory))
    with Collection.open(directory) as collection:
        _add(collection, reading, lambda collection, reading: [], several, as_json)


def _add(
    collection: Collection,
    reading: Reading,
    stale: Callable[[Collection, Reading], list[str]],
    workers: int | str,
    as_json: bool,
) -> None:
    """Add what is read, remove what is stale after that, and report."""
    began = perf_counter()
    with _resumable(collection):
        with Bar("Indexing", "documents", reading.size) as bar:
            change = collection.add(reading.documents(collection, bar.advance), workers=workers)
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


def _workers(given: str) -> int | str:
    """How many, or which cluster; refused before anything is made."""
    from .spreading import check_workers

    return check_workers(int(given) if given.isdecimal() else given)


@contextlib.contextmanager
def _resumable(collection: Collection) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted: {counted(len(collection), 'document')} of {collection.location!r} are committed and safe; "
            "repeat the command to continue"
        ) from None

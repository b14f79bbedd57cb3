"""How the command line speaks: results for people, JSON for programs, progress, messages, errors and exit codes."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self

import typer
from rich.console import Console, RenderableType
from rich.filesize import decimal
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from . import passages
from .errors import Corrupt, Locked, RagistryError, StorageError
from .passages import analyzer_of as analyzer_of  # also named here, beside `passage`, for those who show results
from .passages import printable as printable

if TYPE_CHECKING:
    from .evaluation import Evaluation
    from .evaluation.selection import Fit
    from .text import Analyzer
    from .types import Hit

PASSAGE = passages.LENGTH
"""Characters of a document that are shown."""

NOTHING, USAGE, STORAGE, DAMAGED, BUSY, INTERRUPTED = 1, 2, 3, 4, 5, 130
"""Exit codes other than 0."""

# Click's UsageError, wherever this version of typer keeps it.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]
_WIDEST = 100
_SPEED_OVER = 120.0  # seconds; indexing reads thousands of documents, then pauses to commit them
_UNSAFE_IN_JSON = re.compile(f"[{passages.COMMANDS}]")  # JSON escapes the others itself


class Commands(TyperGroup):
    """A group of commands whose errors end in one message and an exit code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Note whether JSON is wanted, so that errors of any kind know."""
        ctx.meta["json"] = "--json" in args
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        as_json: bool = ctx.meta["json"]
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except _UsageError as error:
            if as_json:
                _show_error("UsageError", str(error))
            raise
        except (RagistryError, OSError) as error:
            if isinstance(error, BrokenPipeError):  # the reader has seen enough, as `head` does
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise typer.Exit from None
            kinds = (
                (Locked, BUSY),
                (Corrupt, DAMAGED),
                (StorageError, STORAGE),
                (RagistryError, USAGE),
                (OSError, STORAGE),
            )
            _fail(error, str(error), next(code for kind, code in kinds if isinstance(error, kind)), as_json)
        except KeyboardInterrupt as interrupt:
            message = str(interrupt) or "interrupted; nothing that was committed is lost"
            _fail(interrupt, message, INTERRUPTED, as_json)


class Notes(logging.Handler):
    """Shows what is logged as messages."""

    def emit(self, record: logging.LogRecord) -> None:
        """Show one."""
        note(record.getMessage())


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise  # rich would exit with 1, which here means "nothing found"


_WIDE = _Console(width=10_000)


def show(shown: RenderableType, *, wrap: bool = True) -> None:
    """Print on standard output, in lines that can be read."""
    console = _Console(highlight=False, markup=False, emoji=False)
    console.print(shown, width=min(console.width, _WIDEST) if wrap else None, soft_wrap=not wrap)


def show_json(document: Any) -> None:
    """Print one JSON document on standard output; control characters, and what its encoding lacks, are escaped."""
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    text = json.dumps(document, ensure_ascii=not encoding.lower().startswith("utf"), indent=2)
    sys.stdout.write(_UNSAFE_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")


def note(message: str, style: str = "dim") -> None:
    """A message on standard error."""
    _errors().print(Text(printable(message), style), soft_wrap=True)


def nothing(message: str, document: Any, *, as_json: bool) -> NoReturn:
    """Say that there is nothing, and end with the exit code that says so."""
    if as_json:
        show_json(document)
    note(message)
    raise typer.Exit(NOTHING)


def counted(number: int, what: str) -> str:
    """A number of things.

    Example:
        >>> counted(1, "query"), counted(2000, "query"), counted(3, "file")
        ('1 query', '2,000 queries', '3 files')
    """
    plural = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{number:,} {what if number == 1 else plural}"


def passage(text: str, terms: Iterable[str], analyzer: Analyzer) -> Text:
    """The part of a text that holds most of the terms, about 300 characters, with the words that match marked.

    Example:
        >>> from ragistry import Analyzer
        >>> shown = passage("Sonnets have [14] lines.", {"sonnet", "line"}, Analyzer())
        >>> shown.plain, [shown.plain[span.start:span.end] for span in shown.spans]
        ('Sonnets have [14] lines.', ['Sonnets', 'lines'])
    """
    found = passages.find(text, terms, analyzer)
    shown = Text("… " if found.before else "")
    shift = len(shown)
    shown.append(found.text)
    for start, end in found.marks:
        shown.stylize("bold magenta", start + shift, end + shift)
    return shown.append(" …") if found.after else shown


def show_hits(query: str, hits: Sequence[Hit], analyzer: Analyzer) -> None:
    """Rank, score, title, place and passage of each hit."""
    terms = frozenset(analyzer.terms(query))
    scores = [f"{hit.score:#.4g}" for hit in hits]
    ranks, widest = len(str(len(hits))), max(map(len, scores), default=0)
    indent = " " * (ranks + widest + 4)
    for rank, (hit, score) in enumerate(zip(hits, scores, strict=True), 1):
        head = Text.assemble((f"{rank:>{ranks}}", "bold"), "  ", (f"{score:>{widest}}", "dim"), "  ")
        where = Text(place(hit), "cyan")
        if hit.title:
            title = passage(hit.title, terms, analyzer)
            title.style = "bold"
            head.append(title).append(f"\n{indent}")
        show(head.append(where), wrap=False)
        show(Padding(passage(hit.text, terms, analyzer), (0, 0, 1, len(indent)), expand=False))


def place(hit: Hit) -> str:
    """Where a hit comes from: its file and line if it has them, and its id unless that says no more."""
    source, line, page = (hit.metadata.get(name) for name in ("source", "line", "page"))
    if not isinstance(source, str):
        return printable(hit.id)
    where = _from_here(hit.metadata.get("root"), source)
    where += f", page {page}, line {line}" if page else f":{line}" if line else ""
    return printable(where if hit.id.startswith(f"{source}#") else f"{hit.id} in {where}")


def show_change(done: Mapping[str, Any]) -> None:
    """What indexing did."""
    changed = [f"{done[what]:,} {what}" for what in ("added", "replaced", "removed", "unchanged") if done[what]]
    show(
        f"{printable(done['path'])} holds {counted(done['documents'], 'document')}: {', '.join(changed)}; read "
        f"{counted(done['files'], 'file')}, {decimal(done['bytes'])}, in {done['seconds']:.1f} s"
    )


def show_evaluation(found: Evaluation) -> None:
    """The mean of each measure."""
    _show_pairs({name: f"{value:.4f}" for name, value in found.means.items()})
    left_out = f", {found.unjudged:,} left out for want of judgements" if found.unjudged else ""
    show(f"{found.name}, {counted(len(found.run), 'query')}, {found.queries_per_second:,.0f} a second{left_out}")


def show_fit(found: Fit, changes: Sequence[tuple[str, Any, Any]]) -> None:
    """What choosing settings brought, and what it changed."""
    chosen, tested = found.queries
    _show_pairs(
        {
            f"{found.measure} before": f"{found.base:.4f}",
            "best other settings": f"{found.fitted:.4f}",
            "in perfect order": f"{found.headroom:.4f}, were the first 100 hits so sorted",
        }
    )
    if found.kept:
        changed = ", ".join(f"{field} {before} → {after}" for field, before, after in changes)
        show(f"kept: {changed} (p = {found.p:.3f})")
    elif found.fitted > found.base:
        show(f"not kept, for a gain like this may be chance (p = {found.p:.3f}): more pairs may tell")
    else:
        show("nothing helped, so the settings stay as they were")
    show(
        f"{counted(found.candidates, 'candidate')} tried on {counted(chosen, 'query')}, measured on {tested} others"
        f"{left_out(found)}"
    )


def left_out(found: Fit) -> str:
    """What is said of pairs that could not be used."""
    return f"; {counted(found.skipped, 'pair')} left out, as their documents are not there" if found.skipped else ""


def show_info(found: Mapping[str, Any]) -> None:
    """What a collection holds."""
    fields = {name: value for name, value in found["recipe"].items() if name != "name"}
    recall = {} if found["recall"] is None else {"recall@10": f"{found['recall']:.4f}, measured when it was indexed"}
    _show_pairs(
        {
            "path": found["path"],
            "documents": f"{found['documents']:,}",
            "repeated texts": f"{found['duplicates']:,}",
            "retriever": f"{found['retriever']}  {json.dumps(fields, ensure_ascii=False)}",
            "size": f"{decimal(found['corpus_bytes'])} of documents, {decimal(found['index_bytes'])} of index",
            **recall,
            "generation": found["generation"],
            "version": f"{found['version']}, format {found['format']}",
        }
    )


def show_table(header: Sequence[str], rows: Iterable[Sequence[Text | str]]) -> None:
    """A table without lines."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(printable(cell)) for cell in row))
    show(table)


def show_columns(rows: Sequence[Text], columns: Sequence[tuple[str, Sequence[Text]]]) -> None:
    """A table of named rows and columns, as wide as it needs to be; on a narrower terminal, in parts below each other."""
    console = _Console(highlight=False, markup=False, emoji=False)
    widest = console.width if console.is_terminal else sys.maxsize
    left = list(columns)
    while left:
        count = len(left)
        while (width := Measurement.get(_WIDE, _WIDE.options, table := _columned(rows, left[:count])).maximum) > widest:
            if count == 1:
                break
            count -= 1
        _Console(width=width, highlight=False, markup=False, emoji=False).print(table)
        left = left[count:]


def _columned(rows: Sequence[Text], columns: Sequence[tuple[str, Sequence[Text]]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("", no_wrap=True)
    for name, _ in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for number, row in enumerate(rows):
        table.add_row(row, *(cells[number] for _, cells in columns))
    return table


class Bar:
    """A progress bar with rate and time left, or time passed, on standard error and only if that is a terminal.

    Args:
        doing: What is being done, such as "Indexing".
        unit: What is counted, such as "documents".
        total: When all is done, in the units of `advance`'s `amount`; None if it is not known: the bar then only moves.
    """

    def __init__(self, doing: str, unit: str, total: float | None) -> None:
        from rich.progress import (
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn() if total is None else TimeRemainingColumn(elapsed_when_finished=True),
        )
        self.count = 0
        self._unit = unit
        self._progress = Progress(
            *columns,
            console=_errors(),
            transient=True,
            disable=not sys.stderr.isatty(),
            speed_estimate_period=_SPEED_OVER,
        )
        self._task = self._progress.add_task(doing, total=total, rate="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def advance(self, count: int = 1, amount: float | None = None) -> None:
        """Count some more, which brings the bar on by as much unless `amount` is given."""
        self.count += count
        if not self._progress.disable:
            elapsed = self._progress.tasks[0].elapsed or 1e-9
            speed = self.count / elapsed
            rate = f"{self.count:,} {self._unit}, {speed:,.{0 if speed >= 10 else 1}f}/s"
            self._progress.update(self._task, advance=count if amount is None else amount, rate=rate)


def _fail(error: BaseException, message: str, code: int, as_json: bool) -> NoReturn:
    if as_json:
        _show_error(type(error).__name__, message)
    _errors().print(Text.assemble(("error: ", "bold red"), printable(message)), soft_wrap=True)
    raise typer.Exit(code) from None


def _show_error(kind: str, message: str) -> None:
    show_json({"error": {"type": kind, "message": message}})


def _show_pairs(pairs: Mapping[str, object]) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in pairs.items():
        table.add_row(name, Text(printable(str(value))))
    show(table)


def _errors() -> Console:
    return _Console(stderr=True, highlight=False, markup=False, emoji=False)


def _from_here(root: Any, source: str) -> str:
    """The path of a file, from the current directory if it is below that."""
    if not isinstance(root, str):
        return source
    path = Path(root, source)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else os.fspath(path)

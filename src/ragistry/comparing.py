"""The command `ragistry compare`: which retriever is best for these documents, and what does it cost?"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer
from rich.filesize import decimal
from rich.text import Text

from .console import Bar, counted, note, printable, show, show_columns, show_json
from .errors import InvalidInput, MissingExtra

if TYPE_CHECKING:
    from .evaluation.leaderboard import Cost, Entry, Leaderboard
    from .evaluation.task import Task
    from .experiment import Advance
    from .registry import Spec
    from .types import Document

_NOTES_SHOWN = 10
_COSTS = (
    "Index: time from nothing, shared embeddings counted in full. Memory: the most that a fresh process held while it "
    "answered queries one at a time; p50 and p95 are its times. Queries/s: in batches."
)
_MADE = ("keyword", "part-of-passage-32")
"""What is asked where there are no judgements: both search the documents as they are, so that one index serves both."""


def compare(
    corpus: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CORPUS",
            help="Files and folders, a collection, or a data set: a name, beir:DIR, trec:DIR, csv:DIR, ir_datasets:NAME.",
            show_default=False,
        ),
    ] = None,
    retrievers: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Names as in `ragistry list` and YAML files, with commas between them; NAME=FILE gives a file another "
            "name. All there are if left out.",
        ),
    ] = None,
    queries: Annotated[Path | None, typer.Option(metavar="FILE", help="Queries: JSON Lines, TSV or CSV.")] = None,
    qrels: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Judgements: BEIR, TREC, CSV or JSON Lines.")
    ] = None,
    split: Annotated[str | None, typer.Option(metavar="NAME", help="Of a data set; test if it has one.")] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TASK",
            help="Questions made from the documents: keyword, part-of-passage-16 (or 32, 64), title, first-sentence; or "
            "limit, which makes its documents too. Repeatable.",
        ),
    ] = None,
    measure: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="As in ir_measures; repeatable. The first one decides which is best."),
    ] = None,
    sample: Annotated[int, typer.Option(min=1, help="The most questions that a task makes.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of tasks, intervals and tests.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Where everything is kept; CORPUS.compare if left out."),
    ] = None,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page to look at: out.html.")] = None,
    runs: Annotated[
        bool, typer.Option("--runs", help="Compare run files, given in place of CORPUS.", show_default=False)
    ] = False,
    texts: Annotated[
        list[str] | None,
        typer.Option("--texts", metavar="CORPUS", help="With --runs: whose texts the report shows. Repeatable."),
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, help="The most tokens in a chunk.")] = 200,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.", show_default=False)] = False,
) -> None:
    """Compare retrievers on your own documents: quality, time and size, side by side.

    With **--queries and --qrels**, or a data set that has them, people's judgements decide. Without, questions are made
    from the documents themselves (**--task**): they show weaknesses, yet none of them is a real user's question.

    `ragistry compare handbook/ --retrievers bm25,dense,hybrid --report out.html`

    Every retriever is built and asked in DIR, and taken from there the next time: an interrupted comparison continues,
    and one more retriever costs only its own work. The runs in DIR are TREC files with their settings and judgements
    beside them, so that they can be compared later and elsewhere:

    `ragistry compare --runs a.run b.run`
    """
    given = corpus or []
    if report is not None:
        _check_report(report)
    if runs:
        for option, value in {
            "--retrievers": retrievers,
            "--split": split,
            "--task": task,
            "--output": output,
        }.items():
            if value:
                raise InvalidInput(
                    f"{option} is of no use with --runs, which compares what was found before; leave it out"
                )
        boards, finds, files = _of_runs(given, queries, qrels, measure, seed, texts or [], tokens)
    else:
        if texts:
            raise InvalidInput("--texts goes with --runs; without it the documents are those of CORPUS")
        boards, finds, files = _of_corpus(
            given, retrievers, queries, qrels, split, task or [], measure, sample, seed, output, tokens, report
        )
    if report is not None:
        from .evaluation.report import report as page
        from .storage import write_file

        write_file(report, page(boards, finds, title="Which retriever is best?").encode())
    if as_json:
        found = {"leaderboards": [board.to_json() for board in boards], "runs": files}
        show_json(found | ({"report": str(report)} if report else {}))
        return
    for board in boards:
        show_leaderboard(board)
    if not runs:
        note(f"runs: {_common(files)}")
    if report is not None:
        note(f"report: {report}")


def show_leaderboard(board: Leaderboard) -> None:
    """One table: quality with intervals and tests, then costs; below it what a reader must know."""
    head = f"{board.task}: {counted(len(board.entries[0].evaluation.run), 'query')}"
    show(Text(printable(head + (f", {counted(board.documents, 'document')}" if board.documents else "")), "bold"))
    show_columns([Text(printable(entry.name)) for entry in board.entries], [*_quality(board), *_costs(board)])
    show(Text(printable(board.verdict())))
    known = any(entry.cost != type(entry.cost)() for entry in board.entries)
    for line in (*board.notes, *([_COSTS] if known else [])):
        show(Text(printable(line), "dim"))
    show("")


_Column: TypeAlias = tuple[str, list[Text]]


def _quality(board: Leaderboard) -> Iterator[_Column]:
    for name in board.measures:
        cells = []
        for entry in board.entries:
            bounds = entry.intervals[name]
            said = f" [{_short(bounds[0])}, {_short(bounds[1])}]" if bounds else ""
            cells.append(Text.assemble(f"{entry.evaluation.means[name]:.3f}", (said, "dim")))
        yield f"{name} [95 %]", cells
    if len(board.entries) > 1:
        yield "to best", [_difference(entry) for entry in board.entries]


def _difference(entry: Entry) -> Text:
    if (test := entry.against_best) is None:
        return Text("best")
    p = "p < .001" if test.corrected < 0.001 else f"p = {_short(test.corrected)}"
    return Text(f"{test.difference:+.3f}, {p}", "bold" if entry.behind else "dim")


def _costs(board: Leaderboard) -> Iterator[_Column]:
    shown: dict[str, Callable[[Cost], str]] = {
        "index": lambda cost: _or_dash(cost.index_seconds, lambda value: f"{value:,.1f} s"),
        "disk": lambda cost: _or_dash(cost.index_bytes, lambda value: decimal(int(value))),
        "memory": lambda cost: _or_dash(cost.memory_bytes, lambda value: decimal(int(value))),
        "queries/s": lambda cost: _or_dash(cost.queries_per_second, lambda value: f"{value:,.0f}"),
        "p50 / p95 ms": lambda cost: " / ".join(
            _or_dash(ms, lambda value: f"{value:#.3g}") for ms in (cost.p50_ms, cost.p95_ms)
        ),
    }
    for name, say in shown.items():
        yield name, [Text(say(entry.cost)) for entry in board.entries]


def _short(value: float) -> str:
    """A share without its leading zero."""
    return f"{value:.3f}".removeprefix("0")


def _or_dash(value: float | None, shown: Callable[[float], str]) -> str:
    return "–" if value is None else shown(value)


def _common(files: Sequence[str]) -> str:
    """The folder that holds all of them."""
    return os.path.commonpath([str(Path(file).parent) for file in files])


class _Find:
    """Documents by id, for the report."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self._documents = {document.id: document for document in documents}

    def __call__(self, ids: Collection[str]) -> Mapping[str, Document]:
        return {id: self._documents[id] for id in ids if id in self._documents}


def _of_runs(
    files: Sequence[str],
    queries: Path | None,
    qrels: Path | None,
    measures: Sequence[str] | None,
    seed: int,
    texts: Sequence[str],
    tokens: int,
) -> tuple[list[Leaderboard], list[_Find], list[str]]:
    from .evaluation.files import read_queries
    from .evaluation.runs import compare_runs

    if not files:
        raise InvalidInput("--runs was given without files; name them: ragistry compare --runs a.run b.run")
    asked = None if queries is None else read_queries(queries)
    board = compare_runs(files, qrels=qrels, queries=asked, measures=measures, seed=seed)
    documents = _material(texts, tokens)[1] if texts else ()
    return [board], [_Find(documents)], list(files)


def _of_corpus(
    given: Sequence[str],
    retrievers: str | None,
    queries: Path | None,
    qrels: Path | None,
    split: str | None,
    tasks: Sequence[str],
    measures: Sequence[str] | None,
    sample: int,
    seed: int,
    output: Path | None,
    tokens: int,
    report: Path | None,
) -> tuple[list[Leaderboard], list[_Find], list[str]]:
    from .evaluation.measures import parse_measure
    from .evaluation.tasks import make
    from .experiment import Experiment

    if (queries is None) != (qrels is None):
        raise InvalidInput("--queries and --qrels go together: what is asked, and which documents answer it")
    if queries is not None and (tasks or split):
        raise InvalidInput("--queries and --qrels leave no room for --task or --split; give one of them")
    if split and tasks:
        raise InvalidInput("--split chooses judgements, and --task makes questions without them; give one of them")
    if not given and not (tasks and all(name.partition(":")[0] == "limit" for name in tasks)):
        raise InvalidInput("no CORPUS was given; name files, a folder, a collection or a data set")
    wanted = _retrievers(retrievers)
    for one in measures or ():
        parse_measure(one)
    name, documents, dataset = _material(given, tokens, output, report) if given else ("limit", [], None)
    asked: list[Task]
    if queries is not None and qrels is not None:
        from .evaluation.files import read_qrels, read_queries
        from .evaluation.tasks import labelled

        asked = [labelled(qrels.stem, documents, read_queries(queries), read_qrels(qrels))]
    elif tasks:
        asked = [make(task, documents, queries=sample, seed=seed) for task in tasks]
        if len({task.name for task in asked}) < len(asked):  # told apart by what was typed
            asked = [replace(task, name=spec) for task, spec in zip(asked, tasks, strict=True)]
    elif dataset is None:
        if split:
            raise InvalidInput(f"--split {split!r} is of a data set, and {', '.join(given)} is none; leave it out")
        asked = _made(documents, sample, seed)
    else:
        asked = [_split_of(dataset, split, name, documents)]
    experiment = Experiment(output or Path(f"{name}.compare"), _watch, note, seed)
    try:
        boards = [experiment.run(task, wanted, measures) for task in asked]
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted: what is done is kept in {str(experiment.directory)!r}; repeat the command to continue"
        ) from None
    return boards, [_Find(task.documents) for task in asked], [str(path) for path in experiment.runs]


def _made(documents: Sequence[Document], sample: int, seed: int) -> list[Task]:
    """The usual tasks, as far as the documents allow."""
    from .evaluation.tasks import make

    made, problems = [], []
    for task in _MADE:
        try:
            made.append(make(task, documents, queries=sample, seed=seed))
        except InvalidInput as error:
            problems.append(f"{task}: {error}")
    if not made:
        raise InvalidInput(f"no questions could be made from the documents. {'. '.join(problems)}")
    names = ", ".join(task.name for task in made)
    note(f"there are no judgements, so questions are made from the documents: {names} (see --task)")
    for problem in problems:
        note(f"not asked: {problem}")
    return made


def _split_of(dataset: Any, split: str | None, name: str, documents: Sequence[Document]) -> Task:
    from .evaluation.tasks import labelled

    wanted = split or ("test" if "test" in dataset.splits else dataset.splits[0])
    found = dataset.split(wanted)
    made = labelled(f"{name}-{wanted}", documents, found.queries, found.qrels)
    return replace(made, notes=(*found.notes, *made.notes))


def _retrievers(given: str | None) -> dict[str, Spec]:
    """Specifications by name."""
    from .registry import create, names, recipe

    if given is None:
        found: dict[str, Spec] = {}
        for name in names():
            try:
                create(name)
                found[name] = name
            except MissingExtra as error:
                note(f"{name} is left out: {error}")
        return found
    found = {}
    for part in filter(None, (part.strip() for part in given.split(","))):
        label, equals, spec = part.partition("=")
        label, spec = (label, spec) if equals else (Path(part).stem if Path(part).suffix else part, part)
        if label in found:
            raise InvalidInput(f"two retrievers are called {label!r}; give one of them another name: NAME=FILE")
        found[label] = recipe(spec)
    if not found:
        raise InvalidInput("--retrievers names none; give names as in `ragistry list`, with commas between them")
    return found


def _material(
    given: Sequence[str], tokens: int, output: Path | None = None, report: Path | None = None
) -> tuple[str, list[Document], Any]:
    """Name, documents and, if it is one, the data set."""
    from .collection import Collection as Stored
    from .evaluation.datasets import load
    from .storage import MANIFEST

    path = Path(given[0])
    if len(given) == 1 and (path / MANIFEST).exists():
        with Stored.open(path) as collection:
            return path.resolve().name, list(collection.documents()), None
    if len(given) == 1 and (not path.exists() or (path / "queries.jsonl").is_file()):
        dataset = load(given[0])
        return dataset.name, dataset.documents, dataset
    name = path.resolve().stem
    return name, _read([Path(each) for each in given], tokens, output or Path(f"{name}.compare"), report), None


def _read(paths: Sequence[Path], tokens: int, apart: Path, report: Path | None) -> list[Document]:
    """The documents of files, those of this command's own left out."""
    from .mirror import Reading

    reading = Reading(paths, tokens, apart=apart)
    with Bar("Reading", "documents", reading.size) as bar:
        documents = [
            document
            for document in reading.documents(None, bar.advance)
            if report is None or Path(document.metadata["root"], document.metadata["source"]) != report.resolve()
        ]
    for problem in reading.problems[:_NOTES_SHOWN]:
        note(problem)
    if len(reading.problems) > _NOTES_SHOWN:
        note(f"... and {len(reading.problems) - _NOTES_SHOWN:,} more such notes")
    if not documents:
        raise InvalidInput(f"{counted(len(reading.files), 'file')} at {', '.join(map(str, paths))} gave no document")
    note(f"read {counted(len(documents), 'document')} from {counted(len(reading.files), 'file')}")
    return documents


def _watch(doing: str, unit: str, total: int) -> AbstractContextManager[Advance]:
    return Bar(doing, unit, total)


def _check_report(path: Path) -> None:
    """Before hours of work, whether its end can be written."""
    if not path.resolve().parent.is_dir():
        raise InvalidInput(f"--report {str(path)!r}: there is no folder {str(path.resolve().parent)!r}; make it first")
    if path.is_dir():
        raise InvalidInput(f"--report {str(path)!r} is a folder; name a file, such as {str(path / 'report.html')!r}")

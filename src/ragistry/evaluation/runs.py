"""Runs as files: a TREC run that any tool reads, and beside it the settings and judgements that give it a meaning.

`bm25.run` holds the rankings (see `write_run`), `bm25.run.json` everything else, so that runs can be compared later,
elsewhere, and without the documents.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import Corrupt, InvalidInput
from ..storage import explained, write_file
from ..types import Ranking
from .evaluate import Evaluation, Qrels, measure_run
from .files import read_qrels, read_run, write_run
from .leaderboard import Cost, Leaderboard, leaderboard
from .measures import depth_of, distinct, parse_measure
from .records import FilePath
from .task import DEFAULT_MEASURES


class Settings(BaseModel):
    """What a run was made with and of.

    Args:
        format: Of this file.
        version: Of Ragistry.
        name: Of the retriever.
        retriever: Its recipe.
        task: What was asked.
        documents: How many were searched.
        corpus: Tells whether others are the same.
        depth: How many hits were asked for.
        measures: By which it was measured.
        seconds: What the searching took, in batches.
        cost: What the retriever costs, see `ragistry.evaluation.leaderboard.Cost`.
        notes: Of the task.
        uniqueness: Of the task.
        queries: Texts by query id.
        qrels: Relevance by query id and document id.
        key: Tells whether another run would be the same.
        digest: Of the run's file, SHA-256.
    """

    model_config = ConfigDict(frozen=True)
    format: int = 1
    version: str = ""
    name: str = ""
    retriever: dict[str, Any] = {}
    task: str = ""
    documents: int | None = None
    corpus: str = ""
    depth: int = 0
    measures: tuple[str, ...] = ()
    seconds: float = 0.0
    cost: Cost = Cost()
    notes: tuple[str, ...] = ()
    uniqueness: float | None = None
    queries: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    key: str = ""
    digest: str = ""


def settings_path(path: FilePath) -> Path:
    """Where the settings of a run lie: beside it.

    Example:
        >>> settings_path("bm25.run").name
        'bm25.run.json'
    """
    return Path(f"{path}.json")


def save_run(path: FilePath, run: Mapping[str, Ranking], settings: Settings) -> None:
    """Write a run and its settings; settings come last, so that where they are, the run is whole.

    Raises:
        StorageError: If a file cannot be written.
        InvalidInput: If an id cannot stand in a run, see `write_run`.

    Example:
        >>> path = getfixture("tmp_path") / "bm25.run"
        >>> save_run(path, {"q1": Ranking.of(["d1"], [2.0])}, Settings(name="bm25", depth=10))
        >>> read_settings(path).depth
        10
    """
    settings_path(path).unlink(missing_ok=True)
    write_run(path, run, tag=settings.name or "ragistry", apart=True)
    kept = settings.model_copy(update={"digest": _digest(Path(path))})
    write_file(settings_path(path), kept.model_dump_json(indent=1).encode() + b"\n")


def read_settings(path: FilePath) -> Settings | None:
    """The settings beside a run; None if there are none, as with runs of other tools.

    Raises:
        StorageError: If the file is there and cannot be read.
        Corrupt: If it holds something else.
    """
    beside = settings_path(path)
    if not beside.exists():
        return None
    try:
        with explained("read", beside):
            return Settings.model_validate_json(beside.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        raise Corrupt(
            f"{str(beside)!r} does not hold a run's settings ({'.'.join(map(str, first['loc']))}: {first['msg']}); move it "
            "away to use the run without it"
        ) from None


def load_run(path: FilePath) -> dict[str, Ranking]:
    """The rankings of a run by query id, if it is as it was saved. One that found nothing at all has none.

    Raises:
        StorageError: If the file cannot be read.
        Corrupt: If settings lie beside it, and it has changed since they were written.
        InvalidInput: If it is no run.

    Example:
        >>> path = getfixture("tmp_path") / "none.run"
        >>> save_run(path, {"q1": Ranking.of([], [])}, Settings(name="none"))
        >>> load_run(path)
        {}
    """
    settings = read_settings(path)
    if settings is None or not settings.digest:
        return read_run(path)
    if settings.digest != _digest(Path(path)):
        raise Corrupt(
            f"{str(path)!r} has changed since it was saved; move {str(settings_path(path))!r} away to use it as it is"
        )
    return read_run(path) if Path(path).stat().st_size else {}


def _digest(path: Path) -> str:
    with explained("read", path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def compare_runs(
    paths: Sequence[FilePath],
    *,
    qrels: FilePath | Qrels | None = None,
    queries: Mapping[str, str] | None = None,
    measures: Sequence[str] | None = None,
    seed: int = 0,
) -> Leaderboard:
    """Compare runs from files, best first.

    Args:
        paths: Runs in TREC's format, with settings beside them or without.
        qrels: Judgements; by default those that were saved with the runs, which must then be the same.
        queries: Texts by query id; by default those that were saved with the runs.
        measures: By default those saved with the first run, else nDCG@10 and R@100.
        seed: Of intervals and tests.

    Raises:
        StorageError: If a file cannot be read.
        InvalidInput: If a file is no run, there are no judgements, saved judgements differ, or no query of a run is
            judged.

    Example:
        >>> folder = getfixture("tmp_path")
        >>> for name, id in (("a", "d1"), ("b", "d2")):
        ...     write_run(folder / f"{name}.run", {"q1": Ranking.of([id], [1.0])})
        >>> found = compare_runs([folder / "a.run", folder / "b.run"], qrels={"q1": {"d2": 1}}, measures=["R@10"])
        >>> [(entry.name, entry.evaluation.means["R@10"]) for entry in found.entries]
        [('b', 1.0), ('a', 0.0)]
    """
    if not paths:
        raise InvalidInput("no run was given; at least one file is needed")
    if len({Path(path).resolve() for path in paths}) < len(paths):
        raise InvalidInput("a run was given twice; name each file once")
    known = {str(path): read_settings(path) or Settings() for path in paths}
    judged = _judgements(known, qrels)
    texts: dict[str, str] = {query: text for found in known.values() for query, text in found.queries.items()}
    first = next((found for found in known.values() if found.measures), Settings(measures=DEFAULT_MEASURES))
    wanted = distinct(measures or first.measures)
    names = _names(known)
    evaluations: list[Evaluation] = []
    notes: list[str] = []
    same = Settings()
    for path, name in names.items():
        run, settings = load_run(path), known[path]
        found = measure_run(run, judged, wanted, seconds=settings.seconds, name=name)
        notes += _notes(found, run, judged, settings)
        evaluations.append(found)
    tasks = list(dict.fromkeys(found.task for found in known.values() if found.task))
    if len(tasks) > 1:
        notes.append(
            f"the runs were made for different tasks ({', '.join(tasks)}); all are measured by the same judgements"
        )
    if len({found.corpus for found in known.values() if found.corpus}) > 1:
        notes.append("the runs were made over different documents")
    elif len(tasks) == 1:
        same = first
    return leaderboard(
        tasks[0] if len(tasks) == 1 else "runs",
        evaluations,
        {query: text for query in judged if (text := (queries or {}).get(query, texts.get(query)))},
        judged,
        documents=same.documents,
        costs={name: known[path].cost for path, name in names.items()},
        settings={name: known[path].retriever for path, name in names.items()},
        notes=[*same.notes, *notes],
        uniqueness=same.uniqueness,
        seed=seed,
    )


def _judgements(known: Mapping[str, Settings], given: FilePath | Qrels | None) -> dict[str, dict[str, int]]:
    if isinstance(given, Mapping):
        return {query: dict(found) for query, found in given.items() if found}
    if given is not None:
        return read_qrels(given)
    saved = {path: settings.qrels for path, settings in known.items() if settings.qrels}
    if not saved:
        raise InvalidInput(
            f"there is no file {str(settings_path(next(iter(known))))!r} with judgements beside the run; give them with "
            "qrels (--qrels FILE)"
        )
    first, judged = next(iter(saved.items()))
    for path, other in saved.items():
        if other != judged:
            raise InvalidInput(
                f"{first!r} and {path!r} were saved with different judgements ({len(judged)} and {len(other)} queries); "
                "give those to measure both by, with qrels (--qrels FILE)"
            )
    return judged


def _names(known: Mapping[str, Settings]) -> dict[str, str]:
    """A name of its own for each path: the retriever's, else the file's, else the path."""
    found: dict[str, str] = {}
    for path, settings in known.items():
        wanted = (settings.name, Path(path).name.removesuffix(".run"), path)
        found[path] = next(name for name in wanted if name and name not in found.values())
    return found


def _notes(found: Evaluation, run: Mapping[str, Ranking], judged: Qrels, settings: Settings) -> list[str]:
    """What a reader of the numbers must know of a run."""
    notes = []
    if found.unjudged:
        notes.append(
            f"{found.name}: {found.unjudged:,} of {len(run):,} queries of the run have no judgements and were left out"
        )
    if missing := sum(not len(run.get(query, ())) for query in judged):
        notes.append(
            f"{found.name}: {missing:,} of {len(judged):,} judged queries have no hits in the run and count as 0"
        )
    deepest = settings.depth or max(map(len, run.values()), default=0)
    short = [measure for measure in found.measures if deepest < depth_of([parse_measure(measure)])]
    notes += [
        f"{found.name}: {measure} sees no more than the {deepest:,} hits a query that the run holds"
        for measure in short
    ]
    return notes

"""Build several retrievers over the same documents, ask them the same questions, and say which one is best.

Everything is kept in one directory and taken from there the next time, so that an interrupted experiment goes on where it
was, and one more retriever costs only its own work:

| path | what it holds |
|---|---|
| `collections/<retriever>-<hash>` | a collection for each retriever, settings and documents; `ragistry search` takes it |
| `runs/<task>-<hash>/<retriever>.run`, `.run.json` | what it found, as in `ragistry.evaluation.runs` |
| `runs/<task>-<hash>/qrels.txt` | the judgements, for other tools |
| `embeddings.sqlite` | vectors by content, shared by all |
| `times.json` | what indexing and encoding took |
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

from filelock import FileLock, Timeout

from . import __version__
from .collection import Collection
from .compiled import ready
from .corpus import digest
from .encoders.cached import tallied
from .errors import InvalidInput, Locked, RagistryError, StorageError
from .evaluation.evaluate import Evaluation, evaluate, measure_run
from .evaluation.files import write_qrels
from .evaluation.leaderboard import Cost, Leaderboard, leaderboard
from .evaluation.measures import depth_of, distinct, parse_measure
from .evaluation.runs import Settings, load_run, read_settings, save_run
from .evaluation.task import Task
from .readers.files import APART
from .registry import Recipe, Spec, create, recipe
from .serving import FIRST, measure
from .storage import MANIFEST, explained
from .times import Times
from .types import Document, Ranking

DEPTH = 100
"""Hits asked for at least: a fusion looks no less deep, so that which measures are asked for changes no ranking."""

TIMED = 200
"""Questions that are asked one at a time, to time them."""

NUMBERS = 2
"""Raised by every change that alters scores or rankings: what was kept from before is then asked again."""

_NAME = re.compile(r"\w[\w.+-]*")
_BREAKS = re.compile(r"[\t\r\n]")


class Advance(Protocol):
    """Shows progress."""

    def advance(self, count: int = 1) -> None:
        """So many more are done."""


Watch = Callable[[str, str, int], AbstractContextManager[Advance]]
"""Makes a progress display of what is being done, what is counted, and how many there are."""


class _Unwatched:
    def advance(self, count: int = 1) -> None:
        """Show nothing."""


@dataclass
class Experiment:
    """A directory in which retrievers are built and compared.

    Args:
        directory: It is made when first needed. One experiment runs in it at a time.
        watch: Shows progress; nothing by default.
        tell: Takes a line about each step that is done.
        seed: Of intervals and tests.

    Attributes:
        runs: The files of the runs made or taken so far.
        collections: Where the collection of each retriever lies that was asked last.

    Example:
        >>> from ragistry.evaluation.tasks import part_of_passage
        >>> documents = [Document(str(i), f"The {word} has many lines.") for i, word in enumerate(("sonnet", "ode"))]
        >>> experiment = Experiment(getfixture("tmp_path") / "poems.compare")
        >>> found = experiment.run(part_of_passage(documents, words=3), {"bm25": "bm25"}, timed=0)
        >>> found.entries[0].name
        'bm25'
    """

    directory: Path
    watch: Watch = lambda doing, unit, total: nullcontext(_Unwatched())
    tell: Callable[[str], object] = lambda line: None
    seed: int = 0
    runs: list[Path] = field(default_factory=list, init=False)
    collections: dict[str, Path] = field(default_factory=dict, init=False)

    def run(
        self,
        task: Task,
        retrievers: Mapping[str, Spec],
        measures: Sequence[str] | None = None,
        *,
        timed: int = TIMED,
    ) -> Leaderboard:
        """Build, ask and measure each retriever, as far as that is not done yet.

        Args:
            task: What is asked.
            retrievers: Specifications as `create` takes them, by a name for tables and files.
            measures: The first one decides which is best; by default those of the task.
            timed: How many questions to ask one at a time in a process of its own; 0 to leave latency and memory out.

        Returns:
            The retrievers, best first.

        Raises:
            InvalidInput: If the documents are fewer than two, a name or measure cannot be used, or a collection in the
                directory was changed.
            UnknownName: If a retriever or measure is not known.
            MissingExtra: If a retriever needs a package that is not there.
            StorageError: If the directory cannot be written.
            Locked: If another experiment is running there.
        """
        if len(task.documents) < 2:
            raise InvalidInput(
                f"the task {task.name!r} has {len(task.documents)} document; at least two are needed, for whatever finds "
                "the only one is perfect"
            )
        recipes = {_named(name): recipe(spec) for name, spec in retrievers.items()}
        if not recipes:
            raise InvalidInput("no retriever was given; at least one is needed")
        for one in recipes.values():
            create(one)  # refuses what is missing before hours are spent on the others
        asked = _Asked.of(task, distinct(measures or task.measures))
        if any(" " in id for id in asked.ids):
            self.tell("ids hold spaces: `ragistry compare --runs` reads such runs, tools that split at spaces do not")
        with self._alone():
            found = [self._one(asked, name, one, timed) for name, one in recipes.items()]
        return leaderboard(
            task.name,
            [evaluation for evaluation, _ in found],
            task.queries,
            task.qrels,
            documents=len(task.documents),
            costs={evaluation.name: cost for evaluation, cost in found},
            settings={name: one.model_dump(mode="json") for name, one in recipes.items()},
            notes=task.notes,
            uniqueness=task.uniqueness,
            seed=self.seed,
        )

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Make the directory and keep others out of it."""
        with explained("create", self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
            (self.directory / APART).touch()
        lock = FileLock(self.directory / "lock", thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise Locked(
                f"another comparison is running in {str(self.directory)!r}; wait until it has finished and repeat, or use "
                "another directory (--output)"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def _one(self, asked: _Asked, name: str, one: Recipe, timed: int) -> tuple[Evaluation, Cost]:
        """The evaluation and cost of one retriever."""
        described, task = one.model_dump(mode="json"), asked.task
        path = self.directory / "runs" / asked.name / f"{name}.run"
        place = self.directory / "collections" / f"{name}-{_hash([described, asked.corpus])}"
        self.runs.append(path)
        self.collections[name] = place
        key = _hash([NUMBERS, __version__, described, asked.key])
        if (kept := self._kept(path, key, asked, timed)) is not None:
            settings, run = kept
            self.tell(f"{name}: was asked before; its answers are in {path}")
            found = measure_run(run, asked.qrels, asked.measures, seconds=settings.seconds, name=name)
            return found, settings.cost
        seconds = self._built(place, name, one, task.documents)
        with Collection.open(place) as collection:
            retriever = collection.retriever()
            retriever.search([FIRST])
            with self.watch(f"Searching with {name}", "queries", len(asked.qrels)) as bar:
                found = evaluate(
                    retriever,
                    task.queries,
                    asked.qrels,
                    asked.measures,
                    k=asked.depth,
                    name=name,
                    progress=bar.advance,
                )
            cost = Cost(seconds, collection.info()["index_bytes"], queries_per_second=found.queries_per_second)
        if timed:
            cost = self._served(place, name, list(dict.fromkeys(task.queries.values())), timed, cost)
        with explained("create", path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_qrels(path.with_name("qrels.txt"), asked.qrels)
        settings = asked.settings(name, described, key).model_copy(update={"seconds": found.seconds, "cost": cost})
        save_run(path, found.run, settings)
        self.tell(f"{name}: answered {len(found.run):,} queries in {found.seconds:.1f} s")
        return found, cost

    def _kept(self, path: Path, key: str, asked: _Asked, timed: int) -> tuple[Settings, dict[str, Ranking]] | None:
        """What was found before, if it is what would be found now."""
        try:
            settings = read_settings(path)
            if settings is None or settings.key != key or settings.depth != asked.depth:
                return None
            if timed and settings.cost.p50_ms is None:
                return None
            return settings, load_run(path)
        except StorageError as error:
            self.tell(f"asked again: {error}")
            return None

    def _built(self, place: Path, name: str, one: Recipe, documents: Sequence[Document]) -> float | None:
        """Build a collection, or the rest of it, and give the seconds that all of it takes from nothing."""
        times, key = Times(self.directory / "times.json"), place.name
        if not (place / MANIFEST).exists():
            Collection.create(place, create(_sharing(one, (self.directory / "embeddings.sqlite").resolve()))).close()
            times.forget(key)
        with Collection.open(place) as collection:
            left = len(documents) - len(collection)
            if left > 0:
                collection.retriever().search([FIRST])
                ready()  # what the first large piece of work in a process waits for is nobody's fault
                with tallied() as tally, self.watch(f"Indexing with {name}", "documents", len(documents)) as bar:
                    began = perf_counter()

                    def count(more: int) -> None:
                        nonlocal began
                        times.add(key, perf_counter() - began, tally)
                        began = perf_counter()
                        bar.advance(more)

                    collection.add(documents, progress=count)
                self.tell(f"{name}: indexed {left:,} documents")
            else:
                self.tell(f"{name}: was indexed before, in {place}")
            same = _sharing(recipe(collection.recipe), None) == _sharing(one, None)
            if not same or {_content(each) for each in collection.documents()} != {
                _content(each) for each in documents
            }:
                raise InvalidInput(
                    f"the collection {str(place)!r} was changed since it was built for this comparison; move it away, or "
                    "use another directory (--output)"
                )
        return times.alone(key)

    def _served(self, place: Path, name: str, queries: Sequence[str], timed: int, cost: Cost) -> Cost:
        """The cost with latency and memory."""
        some = queries[:: max(1, len(queries) // timed)][:timed]
        try:
            with self.watch(f"Timing {name}", "processes", 1) as bar:
                found = measure(place, some)
                bar.advance(1)
        except RagistryError as error:
            self.tell(f"{name}: latency and memory are not known: {error}")
            return cost
        return replace(cost, memory_bytes=found.memory_bytes, p50_ms=found.p50_ms, p95_ms=found.p95_ms)


@dataclass(frozen=True)
class _Asked:
    """A task with what tells it apart from others."""

    task: Task
    measures: tuple[str, ...]
    depth: int
    qrels: dict[str, dict[str, int]]
    ids: list[str]
    corpus: str
    key: str

    @classmethod
    def of(cls, task: Task, measures: tuple[str, ...]) -> _Asked:
        ids = [*task.qrels, *(document.id for document in task.documents)]
        if broken := next((id for id in ids if _BREAKS.search(id)), None):
            raise InvalidInput(
                f"the id {broken!r} holds a tab or a line break, which no run can hold; give it another id"
            )
        qrels = {query: dict(judged) for query, judged in task.qrels.items()}
        corpus = _hash([_content(document) for document in task.documents])
        key = _hash([corpus, dict(task.queries), qrels])
        depth = max(DEPTH, depth_of([parse_measure(name) for name in measures]))
        return cls(task, measures, depth, qrels, ids, corpus, key)

    @property
    def name(self) -> str:
        """For a folder."""
        return f"{re.sub(r'[^0-9A-Za-z_.-]', '_', self.task.name)}-{self.key}"

    def settings(self, name: str, described: dict[str, Any], key: str) -> Settings:
        """Of a run."""
        return Settings(
            version=__version__,
            name=name,
            retriever=described,
            task=self.task.name,
            documents=len(self.task.documents),
            corpus=self.corpus,
            depth=self.depth,
            measures=self.measures,
            notes=self.task.notes,
            uniqueness=self.task.uniqueness,
            queries=dict(self.task.queries),
            qrels=self.qrels,
            key=key,
        )


def _named(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"a retriever is called {name!r}; use letters, digits, '.', '+', '-' and '_', for files are named after it"
        )
    return name


def _sharing(one: Recipe, cache: Path | None) -> Recipe:
    """A recipe in which whatever can keep embeddings in a file, and has none of its own, keeps them in this one; for
    None, one in which nothing does."""
    changed: dict[str, Any] = {}
    for name in type(one).model_fields:
        value = getattr(one, name)
        if name == "cache" and (value is None or cache is None):
            changed[name] = None if cache is None else str(cache)
        elif isinstance(value, Recipe):
            changed[name] = _sharing(value, cache)
        elif isinstance(value, dict):
            changed[name] = {k: _sharing(v, cache) if isinstance(v, Recipe) else v for k, v in value.items()}
    return one.model_copy(update=changed)


def _hash(value: object) -> str:
    return blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=5).hexdigest()


def _content(document: Document) -> str:
    """Tells what is searched of a document."""
    return f"{document.id}\0{digest(document, content=True).hex()}"

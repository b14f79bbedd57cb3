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
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol, cast

from . import __version__
from .collection import Collection
from .corpus import digest
from .encoders.cached import Tally, tallied
from .errors import InvalidInput, RagistryError
from .evaluation.evaluate import Evaluation, evaluate, measure_run
from .evaluation.files import write_qrels
from .evaluation.leaderboard import Cost, Leaderboard, leaderboard
from .evaluation.measures import depth_of, parse_measure
from .evaluation.runs import Settings, load_run, read_settings, save_run
from .evaluation.task import Task
from .protocols import Updatable
from .registry import Recipe, Spec, create, recipe
from .serving import measure
from .storage import MANIFEST, explained, write_file
from .types import Document

TIMED = 200
"""Questions that are asked one at a time, to time them."""

_NAME = re.compile(r"\w[\w.+-]*")
_BREAKS = re.compile(r"[\t\r\n]")
_WARM = 8  # documents; imports, compiled kernels and models are loaded before the clock starts


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
        directory: It is made when first needed. Only one process may use it at a time.
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
    _warm: set[str] = field(default_factory=set, init=False)

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
            Locked: If another process is building there.
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
        wanted = tuple(measures or task.measures)
        depth = depth_of([parse_measure(name) for name in wanted])
        with explained("create", self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
        ids = [*task.qrels, *(document.id for document in task.documents)]
        if broken := next((id for id in ids if _BREAKS.search(id)), None):
            raise InvalidInput(
                f"the id {broken!r} holds a tab or a line break, which no run can hold; give it another id"
            )
        if any(" " in id for id in ids):
            self.tell("ids hold spaces: `ragistry compare --runs` reads such runs, tools that split at spaces do not")
        corpus = _hash([digest(document).hex() for document in task.documents])
        found = [self._one(task, corpus, name, one, wanted, depth, timed) for name, one in recipes.items()]
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

    def _one(
        self, task: Task, corpus: str, name: str, one: Recipe, measures: tuple[str, ...], depth: int, timed: int
    ) -> tuple[Evaluation, Cost]:
        """The evaluation and cost of one retriever."""
        described, qrels = one.model_dump(mode="json"), {query: dict(judged) for query, judged in task.qrels.items()}
        safe = re.sub(r"[^\w.-]", "_", task.name)
        path = self.directory / "runs" / f"{safe}-{corpus}" / f"{name}.run"
        place = self.directory / "collections" / f"{name}-{_hash([described, corpus])}"
        self.runs.append(path)
        self.collections[name] = place
        key = _hash([__version__, described, corpus, dict(task.queries), qrels])
        done = read_settings(path)
        if done is not None and done.key == key and done.depth >= depth and (done.cost.p50_ms is not None or not timed):
            self.tell(f"{name}: was asked before; its answers are in {path}")
            return measure_run(load_run(path), qrels, measures, seconds=done.seconds, name=name), done.cost
        seconds = self._built(place, name, one, task.documents)
        with Collection.open(place) as collection:
            retriever = cast(Updatable, collection.retriever()).fork()  # one that remembers no query
            with self.watch(f"Searching with {name}", "queries", len(qrels)) as bar:
                found = evaluate(retriever, task.queries, qrels, measures, k=depth, name=name, progress=bar.advance)
            cost = Cost(seconds, collection.info()["index_bytes"], queries_per_second=found.queries_per_second)
        if timed:
            cost = self._served(place, name, list(task.queries.values()), timed, cost)
        settings = Settings(
            version=__version__,
            name=name,
            retriever=described,
            task=task.name,
            documents=len(task.documents),
            depth=depth,
            measures=measures,
            seconds=found.seconds,
            cost=cost,
            notes=task.notes,
            uniqueness=task.uniqueness,
            queries=dict(task.queries),
            qrels=qrels,
            key=key,
        )
        with explained("create", path.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_qrels(path.with_name("qrels.txt"), qrels)
        save_run(path, found.run, settings)
        self.tell(f"{name}: answered {len(found.run):,} queries in {found.seconds:.1f} s")
        return found, cost

    def _built(self, place: Path, name: str, one: Recipe, documents: Sequence[Document]) -> float | None:
        """Build a collection, or the rest of it, and give the seconds that all of it takes from nothing."""
        times, key = _Times(self.directory / "times.json"), place.name
        if not (place / MANIFEST).exists():
            self._warm_up(one, documents)
            Collection.create(place, create(_sharing(one, (self.directory / "embeddings.sqlite").resolve()))).close()
            times.forget(key)
        with Collection.open(place) as collection:
            left = len(documents) - len(collection)
            if left > 0:
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
            if not same or len(collection) != len(documents):
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

    def _warm_up(self, one: Recipe, documents: Sequence[Document]) -> None:
        """Load what the first documents would wait for."""
        if one.name not in self._warm:
            cast(Updatable, create(_sharing(one, None))).add(documents[:_WARM])
            self._warm.add(one.name)


class _Times:
    """What building took, kept on disk so that an interruption does not lose it.

    A vector that was taken from the cache took no time here, yet has its price: what encoding one took on average.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            self.built: dict[str, Any] = dict(found["built"])
            self.encoders: dict[str, Any] = dict(found["encoders"])
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
        ):  # times that are lost are not known, and nothing else is lost
            self.built, self.encoders = {}, {}

    def forget(self, key: str) -> None:
        """Of a collection that is begun anew."""
        self.built[key] = {"seconds": 0.0, "reused": {}}

    def add(self, key: str, seconds: float, tally: Tally) -> None:
        """Some more of a collection was built; the tally is cleared."""
        for fingerprint, texts in tally.encoded.items():
            encoder = self.encoders.setdefault(fingerprint, {"texts": 0, "seconds": 0.0})
            encoder["texts"] += texts
            encoder["seconds"] += tally.seconds[fingerprint]
        if key in self.built:
            self.built[key]["seconds"] += seconds
            reused = self.built[key]["reused"]
            for fingerprint, texts in tally.reused.items():
                reused[fingerprint] = reused.get(fingerprint, 0) + texts
        tally.clear()
        write_file(self.path, json.dumps({"built": self.built, "encoders": self.encoders}, indent=1).encode())

    def alone(self, key: str) -> float | None:
        """Seconds to build a collection without any shared vectors; None if they are not known."""
        built = self.built.get(key)
        if built is None:
            return None
        seconds: float = built["seconds"]
        for fingerprint, texts in built["reused"].items():
            if texts and fingerprint not in self.encoders:
                return None
            if texts:
                seconds += texts * self.encoders[fingerprint]["seconds"] / self.encoders[fingerprint]["texts"]
        return seconds


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

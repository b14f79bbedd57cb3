"""Experiments: built once, resumed where they stopped, and honest about what each retriever costs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tests.tiny import tiny_model

from ragistry import Collection, Document, create
from ragistry.errors import InvalidInput, Locked, RagistryError, StorageError, UnknownName
from ragistry.evaluation import read_qrels
from ragistry.evaluation.runs import compare_runs, read_settings, settings_path
from ragistry.evaluation.task import Task
from ragistry.evaluation.tasks import labelled
from ragistry.experiment import Experiment
from ragistry.readers import find
from ragistry.registry import Spec
from ragistry.serving import measure, peak_memory

WORDS = ("sonnet", "poem", "line", "cat", "dog", "mat", "fourteen", "ode", "haiku", "verse")
DOCUMENTS = [Document(f"d{number}", f"the {word} sat on a {WORDS[number - 3]}") for number, word in enumerate(WORDS)]
TASK = Task(
    "words",
    DOCUMENTS,
    {f"q{number}": f"the {word} sat" for number, word in enumerate(WORDS)},
    {f"q{number}": {f"d{number}": 1} for number in range(len(WORDS))},
    ("RR@10", "R@2"),
)


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Spec:
    return {"name": "dense", "model": str(tiny_model(tmp_path_factory.mktemp("model"))), "precision": "fp32"}


def told(directory: Path, retrievers: dict[str, Spec], task: Task = TASK) -> list[str]:
    lines: list[str] = []
    Experiment(directory, tell=lines.append).run(task, retrievers, timed=0)
    return lines


def test_the_best_comes_first_with_its_costs(tmp_path: Path) -> None:
    retrievers: dict[str, Spec] = {"plain": {"name": "bm25", "stemmer": None}, "likely": "query-likelihood"}
    experiment = Experiment(tmp_path / "c")
    board = experiment.run(TASK, retrievers, timed=3)
    assert {entry.name for entry in board.entries} == {"plain", "likely"}
    assert board.measures == ("RR@10", "R@2")
    for entry in board.entries:
        cost = entry.cost
        assert cost.index_seconds is not None
        assert cost.index_seconds > 0
        assert cost.index_bytes is not None
        assert cost.index_bytes > 100
        assert cost.p50_ms is not None
        assert cost.p95_ms is not None
        assert 0 < cost.p50_ms <= cost.p95_ms
        assert cost.memory_bytes is not None
        assert 2**24 < cost.memory_bytes < 2**31
        assert entry.settings["name"] in {"bm25", "query-likelihood"}
    assert [path.name for path in experiment.runs] == ["plain.run", "likely.run"]
    assert compare_runs(experiment.runs).to_json() == board.to_json() | {"notes": []}


def test_everything_is_taken_from_where_it_was(tmp_path: Path) -> None:
    assert told(tmp_path, {"bm25": "bm25"}) == ["bm25: indexed 10 documents", told_answered("bm25", tmp_path)]
    before = read_settings(next(tmp_path.rglob("bm25.run")))
    [line] = told(tmp_path, {"bm25": "bm25"})
    assert "was asked before" in line
    assert read_settings(next(tmp_path.rglob("bm25.run"))) == before
    lines = told(tmp_path, {"bm25": "bm25", "other": {"name": "bm25", "k1": 0.5}})
    assert [line.partition(":")[0] for line in lines] == ["bm25", "other", "other"]


def told_answered(name: str, directory: Path) -> str:
    found = read_settings(next(directory.rglob(f"{name}.run")))
    assert found is not None
    return f"{name}: answered 10 queries in {found.seconds:.1f} s"


def test_another_task_asks_again_over_the_same_collection(tmp_path: Path) -> None:
    told(tmp_path, {"bm25": "bm25"})
    other = Task("other", DOCUMENTS, {"q": "haiku"}, {"q": {"d8": 1}}, ("RR@10",))
    assert "was indexed before" in told(tmp_path, {"bm25": "bm25"}, other)[0]
    changed = Task("words", [*DOCUMENTS, Document("new", "new")], TASK.queries, TASK.qrels, TASK.measures)
    assert told(tmp_path, {"bm25": "bm25"}, changed)[0] == "bm25: indexed 11 documents"


@pytest.mark.parametrize("at", ["Indexing with dense", "Searching with dense", "Indexing with hybrid"])
def test_an_interruption_loses_only_the_step_it_comes_in(tmp_path: Path, dense: Spec, at: str) -> None:
    @contextmanager
    def watch(doing: str, unit: str, total: int) -> Iterator[Interrupting]:
        yield Interrupting(doing == at)

    retrievers: dict[str, Spec] = {
        "bm25": "bm25",
        "dense": dense,
        "hybrid": {"name": "hybrid", "members": {"bm25": "bm25", "dense": dense}},
    }
    experiment = Experiment(tmp_path, watch=watch)
    with pytest.raises(KeyboardInterrupt):
        experiment.run(TASK, retrievers, timed=0)
    lines = told(tmp_path, retrievers)
    assert "bm25: was asked before" in lines[0]
    assert "dense: was indexed before" in lines[1] or "dense: was asked before" in lines[1]
    encoders = json.loads((tmp_path / "times.json").read_text())["encoders"]
    assert [encoder["texts"] for encoder in encoders.values()] == [len(DOCUMENTS)]  # each was encoded once


class Interrupting:
    def __init__(self, now: bool) -> None:
        self.now = now

    def advance(self, count: int = 1) -> None:
        if self.now:
            raise KeyboardInterrupt


def test_shared_embeddings_are_computed_once_and_charged_to_each(tmp_path: Path, dense: Spec) -> None:
    hybrid: Spec = {"name": "hybrid", "members": {"bm25": "bm25", "dense": dense}}
    board = Experiment(tmp_path).run(TASK, {"dense": dense, "hybrid": hybrid}, timed=0)
    times = json.loads((tmp_path / "times.json").read_text())
    [(fingerprint, encoder)] = times["encoders"].items()
    assert encoder["texts"] == len(DOCUMENTS)
    built = {key.partition("-")[0]: found for key, found in times["built"].items()}
    assert not built["dense"]["reused"].get(fingerprint)
    assert built["hybrid"]["reused"][fingerprint] == encoder["characters"] == sum(len(d.text) for d in DOCUMENTS)
    costs = {entry.name: entry.cost.index_seconds or 0 for entry in board.entries}
    assert costs["hybrid"] == pytest.approx(built["hybrid"]["seconds"] + encoder["seconds"])
    assert costs["dense"] == pytest.approx(built["dense"]["seconds"])
    assert all("cache" not in str(entry.settings) or "sqlite" not in str(entry.settings) for entry in board.entries)


def test_the_collections_are_those_that_create_makes(tmp_path: Path, dense: Spec) -> None:
    told(tmp_path, {"dense": dense})
    with Collection.open(next((tmp_path / "collections").glob("dense-*"))) as made:
        retriever = create(dense)
        retriever.add(DOCUMENTS)  # type: ignore[attr-defined]
        assert made.retriever().search(["a cat"])[0].ids == retriever.search(["a cat"])[0].ids


@pytest.mark.parametrize("change", [Document("more", "more"), Document("d3", "changed")])
def test_a_collection_that_was_changed_is_not_used(tmp_path: Path, change: Document) -> None:
    told(tmp_path, {"bm25": "bm25"})
    with Collection.open(next((tmp_path / "collections").glob("bm25-*"))) as collection:
        collection.add(change)
    next(tmp_path.rglob("bm25.run.json")).unlink()
    with pytest.raises(InvalidInput, match="was changed since"):
        told(tmp_path, {"bm25": "bm25"})


def test_times_that_are_lost_are_not_known(tmp_path: Path) -> None:
    told(tmp_path, {"bm25": "bm25"})
    next(tmp_path.rglob("bm25.run.json")).unlink()
    (tmp_path / "times.json").write_text("{")
    board = Experiment(tmp_path).run(TASK, {"bm25": "bm25"}, timed=0)
    assert board.entries[0].cost.index_seconds is None
    assert board.entries[0].cost.index_bytes


def test_which_measures_are_asked_for_changes_no_ranking(tmp_path: Path) -> None:
    experiment = Experiment(tmp_path)
    experiment.run(TASK, {"bm25": "bm25"}, ["R@2"], timed=0)
    [path] = experiment.runs
    stamp = settings_path(path).stat().st_mtime_ns
    board = experiment.run(TASK, {"bm25": "bm25"}, ["nDCG@3", "R@100", "ndcg@3"], timed=0)
    assert board.measures == ("nDCG@3", "R@100")
    assert settings_path(path).stat().st_mtime_ns == stamp
    experiment.run(TASK, {"bm25": "bm25"}, ["R@500"], timed=0)
    assert (read_settings(path) or pytest.fail()).depth == 500
    experiment.run(TASK, {"bm25": "bm25"}, ["R@2"], timed=0)
    assert (read_settings(path) or pytest.fail()).depth == 100


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text(""), lambda path: path.write_text("x")])
def test_a_kept_run_that_is_damaged_is_made_again(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    experiment = Experiment(tmp_path)
    whole = experiment.run(TASK, {"bm25": "bm25"}, timed=0).entries[0].evaluation.means
    [path] = experiment.runs
    damage(path)
    with pytest.raises(StorageError):
        compare_runs([path])
    lines = told(tmp_path, {"bm25": "bm25"})
    assert lines[0].startswith("asked again")
    assert compare_runs([path]).entries[0].evaluation.means == whole


def test_tasks_of_one_name_keep_runs_of_their_own(tmp_path: Path) -> None:
    experiment = Experiment(tmp_path)
    for query in ("the haiku sat", "the verse sat"):
        experiment.run(Task("same", DOCUMENTS, {"q": query}, {"q": {"d8": 1}}, ("RR@10",)), {"bm25": "bm25"}, timed=0)
    first, second = experiment.runs
    assert first != second
    assert first.exists()
    assert second.exists()
    assert compare_runs([first]).entries[0].evaluation.means != compare_runs([second]).entries[0].evaluation.means


def test_one_experiment_at_a_time(tmp_path: Path) -> None:
    @contextmanager
    def watch(doing: str, unit: str, total: int) -> Iterator[Interrupting]:
        with pytest.raises(Locked, match="another comparison is running"):
            Experiment(tmp_path).run(TASK, {"bm25": "bm25"}, timed=0)
        yield Interrupting(False)

    Experiment(tmp_path, watch=watch).run(TASK, {"bm25": "bm25"}, timed=0)
    assert told(tmp_path, {"bm25": "bm25"})


def test_what_it_leaves_is_not_read_as_documents(tmp_path: Path) -> None:
    (tmp_path / "poem.txt").write_text("fourteen lines")
    told(tmp_path / "anywhere", {"bm25": "bm25"})
    assert [path.name for path in find(tmp_path)] == ["poem.txt"]


def test_documents_that_were_moved_are_the_same(tmp_path: Path) -> None:
    told(tmp_path, {"bm25": "bm25"})
    moved = [replace(document, metadata={"root": "/elsewhere"}) for document in DOCUMENTS]
    assert "was asked before" in told(tmp_path, {"bm25": "bm25"}, replace(TASK, documents=moved))[0]


def test_a_retriever_that_finds_nothing_has_zero(tmp_path: Path) -> None:
    nothing = Task("none", DOCUMENTS, {"q": "zebra"}, {"q": {"d1": 1}}, ("RR@10",))
    for _ in range(2):
        board = Experiment(tmp_path).run(nothing, {"bm25": "bm25"}, timed=0)
        assert board.entries[0].evaluation.means == {"RR@10": 0.0}


@pytest.mark.parametrize(
    ("retrievers", "error", "message"),
    [
        ({}, InvalidInput, "at least one"),
        ({"a/b": "bm25"}, InvalidInput, "files are named after it"),
        ({"bm25": "bm26"}, UnknownName, "Did you mean 'bm25'"),
        ({"bm25": {"name": "bm25", "k9": 1}}, InvalidInput, "k9"),
    ],
)
def test_what_cannot_be_run_is_refused_before_work(
    tmp_path: Path, retrievers: dict[str, Spec], error: type[RagistryError], message: str
) -> None:
    with pytest.raises(error, match=message):
        Experiment(tmp_path / "c").run(TASK, retrievers)
    assert not (tmp_path / "c").exists()


def test_ids_that_no_run_can_hold_are_refused_before_work(tmp_path: Path) -> None:
    odd = [Document("a\tb", "one"), Document("c d", "two")]
    with pytest.raises(InvalidInput, match="holds a tab"):
        Experiment(tmp_path / "c").run(Task("odd", odd, {"q": "two"}, {"q": {"c d": 1}}), {"bm25": "bm25"})
    assert not (tmp_path / "c" / "collections").exists()
    lines: list[str] = []
    spaced = Task("spaced", [odd[1], Document("e", "three")], {"q": "two"}, {"q": {"c d": 1}}, ("R@2",))
    experiment = Experiment(tmp_path / "c", tell=lines.append)
    assert experiment.run(spaced, {"bm25": "bm25"}, timed=0).entries[0].evaluation.means == {"R@2": 1.0}
    assert "ids hold spaces" in lines[0]
    assert compare_runs(experiment.runs).entries[0].evaluation.means == {"R@2": 1.0}
    assert read_qrels(experiment.runs[0].with_name("qrels.txt")) == {"q": {"c d": 1}}


def test_one_document_is_not_enough(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="at least two"):
        Experiment(tmp_path / "c").run(Task("one", DOCUMENTS[:1], {"q": "x"}, {"q": {"d0": 1}}), {"bm25": "bm25"})
    with pytest.raises(InvalidInput, match="at least two"):
        labelled("one", DOCUMENTS[:1], {"q": "x"}, {"q": {"d0": 1}})


def test_a_process_that_cannot_serve_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RagistryError, match=r"failed: .*StorageError"):
        measure(tmp_path, ["why?"])
    monkeypatch.setattr("sys.executable", str(tmp_path / "none"))
    lines: list[str] = []
    board = Experiment(tmp_path / "c", tell=lines.append).run(TASK, {"bm25": "bm25"})
    assert board.entries[0].cost.p50_ms is None
    assert any("latency and memory are not known" in line for line in lines)


def test_memory_is_that_of_this_process() -> None:
    before = peak_memory()
    if before is None:
        pytest.skip("the system does not say how much memory a process holds")
    held = bytearray(2 * before)
    held[::4096] = bytes([1]) * len(held[::4096])
    assert (peak_memory() or 0) > 1.5 * before

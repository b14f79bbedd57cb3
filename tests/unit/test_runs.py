"""Runs as files: what is written reads back, compares alike, and gives other tools the same values."""

from __future__ import annotations

import json
from pathlib import Path

import ir_measures
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragistry.errors import Corrupt, InvalidInput, StorageError
from ragistry.evaluation import measure_run, read_run, write_run
from ragistry.evaluation.leaderboard import Cost
from ragistry.evaluation.runs import Settings, compare_runs, read_settings, save_run, settings_path
from ragistry.types import Ranking

QRELS = {"q1": {"d1": 1, "d2": 0}, "q2": {"d3": 2}, "q3": {"d1": 1}}
QUERIES = {"q1": "who?", "q2": "why?", "q3": "when?"}
MEASURES = ("nDCG@10", "R@2", "RR@10", "AP")
GOOD = {"q1": Ranking.of(["d1", "d2"], [2.0, 1.0]), "q2": Ranking.of(["d3"], [1.0]), "q3": Ranking.of(["d1"], [1.0])}
BAD = {"q1": Ranking.of(["d2", "d1"], [2.0, 1.0]), "q2": Ranking.of(["d1"], [1.0])}
DOCUMENTS = [f"d{number}" for number in range(30)]


def saved(path: Path, run: dict[str, Ranking], name: str, **changes: object) -> Path:
    given: dict[str, object] = {"name": name, "task": "small", "documents": 3, "depth": 10, "measures": MEASURES}
    given |= {"queries": QUERIES, "qrels": QRELS, "retriever": {"name": name}, "seconds": 0.5}
    save_run(path, run, Settings.model_validate(given | changes))
    return path


def test_settings_read_back(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.run", GOOD, "good", cost=Cost(1.0, 2, 3, 4.0, 5.0, 6.0), uniqueness=0.5, notes=("one",))
    found = read_settings(path)
    assert found is not None
    assert (found.name, found.cost.p95_ms, found.qrels, found.measures) == ("good", 5.0, QRELS, MEASURES)
    assert read_run(path) == GOOD
    assert read_settings(tmp_path / "b.run") is None


def test_runs_compare_without_anything_else(tmp_path: Path) -> None:
    paths = [saved(tmp_path / "bad.run", BAD, "bad"), saved(tmp_path / "good.run", GOOD, "good")]
    board = compare_runs(paths)
    assert [entry.name for entry in board.entries] == ["good", "bad"]
    assert (board.task, board.documents, board.measures) == ("small", 3, MEASURES)
    assert dict(board.queries) == QUERIES
    assert board.entries[0].evaluation.means["nDCG@10"] == 1.0
    assert board.entries[0].settings == {"name": "good"}
    assert board.entries[0].evaluation.queries_per_second == pytest.approx(6.0)
    assert "bad: 1 of 3 judged queries have no hits in the run and count as 0" in board.notes


def test_runs_of_other_tools_need_judgements(tmp_path: Path) -> None:
    (tmp_path / "theirs.run").write_text("q1 Q0 d1 1 9.5 lucene\nq9 Q0 d1 1 9.5 lucene\n")
    with pytest.raises(InvalidInput, match="--qrels"):
        compare_runs([tmp_path / "theirs.run"])
    (tmp_path / "qrels.txt").write_text("q1 0 d1 1\nq2 0 d3 2\n")
    board = compare_runs([tmp_path / "theirs.run"], qrels=tmp_path / "qrels.txt", queries={"q1": "who?"})
    assert board.entries[0].name == "theirs"
    assert board.entries[0].evaluation.means == {"nDCG@10": 0.5, "R@100": 0.5}
    assert dict(board.queries) == {"q1": "who?"}
    assert board.entries[0].cost == Cost()
    said = " ".join(board.notes)
    assert "1 of 2 queries of the run have no judgements and were left out" in said
    assert "nDCG@10 sees no more than the 1 hits a query" in said


def test_saved_judgements_that_differ_are_not_mixed(tmp_path: Path) -> None:
    paths = [saved(tmp_path / "a.run", GOOD, "a"), saved(tmp_path / "b.run", BAD, "b", qrels={"q1": {"d2": 1}})]
    with pytest.raises(InvalidInput, match=r"different judgements \(3 and 1 queries\)"):
        compare_runs(paths)
    assert compare_runs(paths, qrels=QRELS).entries[0].name == "a"


def test_runs_of_different_tasks_are_told(tmp_path: Path) -> None:
    paths = [saved(tmp_path / "a.run", GOOD, "a"), saved(tmp_path / "b.run", GOOD, "b", task="other")]
    board = compare_runs(paths)
    assert board.task == "runs"
    assert any("different tasks (small, other)" in line for line in board.notes)


def test_runs_over_different_documents_are_told(tmp_path: Path) -> None:
    paths = [saved(tmp_path / "a.run", GOOD, "a", corpus="x"), saved(tmp_path / "b.run", GOOD, "b", corpus="y")]
    board = compare_runs(paths)
    assert board.documents is None
    assert "the runs were made over different documents" in board.notes


def test_a_run_that_changed_is_not_taken_for_what_it_was(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.run", GOOD, "a")
    path.write_text(path.read_text().replace("d1", "d2"))
    with pytest.raises(Corrupt, match="has changed since it was saved"):
        compare_runs([path])


def test_speed_that_is_not_known_is_not_made_up(tmp_path: Path) -> None:
    (tmp_path / "theirs.run").write_text("q1 Q0 d1 1 9.5 lucene\n")
    board = compare_runs([tmp_path / "theirs.run"], qrels=QRELS)
    assert board.to_json()["retrievers"][0]["queries_per_second"] is None


def test_two_runs_of_one_retriever_have_names_of_their_own(tmp_path: Path) -> None:
    paths = [saved(tmp_path / f"{name}.run", GOOD, "bm25") for name in "ab"]
    assert {entry.name for entry in compare_runs(paths).entries} == {"bm25", "b"}
    with pytest.raises(InvalidInput, match="twice"):
        compare_runs([paths[0], paths[0]])


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="at least one file"):
        compare_runs([])
    with pytest.raises(StorageError, match="does not exist"):
        compare_runs([tmp_path / "none.run"], qrels=QRELS)
    (tmp_path / "other.run").write_text("q7 Q0 d1 1 2.0 x\n")
    with pytest.raises(InvalidInput, match="'q7'; the judgements are of 3 queries, such as 'q1'"):
        compare_runs([tmp_path / "other.run"], qrels=QRELS)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"name": 3}', '{"qrels": {"q": {"d": 1.5}}}'])
def test_damaged_settings_are_told(tmp_path: Path, content: str) -> None:
    write_run(tmp_path / "a.run", GOOD)
    settings_path(tmp_path / "a.run").write_text(content)
    with pytest.raises(Corrupt, match=r"a\.run\.json"):
        compare_runs([tmp_path / "a.run"], qrels=QRELS)


def test_settings_of_a_later_version_still_read(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.run", GOOD, "a")
    content = json.loads(settings_path(path).read_text()) | {"colour": "blue"}
    settings_path(path).write_text(json.dumps(content))
    assert compare_runs([path]).entries[0].name == "a"


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from([0.0, 1.0, 1.0, 2.5, -3.0, 1e-30]), min_size=1, max_size=len(DOCUMENTS)), st.data())
def test_other_tools_give_the_same_values_though_scores_tie(
    tmp_path: Path, scores: list[float], data: st.DataObject
) -> None:
    ids = data.draw(st.permutations(DOCUMENTS))[: len(scores)]
    run = {"q1": Ranking.of(ids, scores)}
    qrels = {"q1": data.draw(st.dictionaries(st.sampled_from(DOCUMENTS), st.integers(0, 3), min_size=1, max_size=9))}
    path = saved(tmp_path / "ties.run", run, "ties", qrels=qrels)
    (tmp_path / "qrels").write_text("".join(f"q1 0 {id} {relevance}\n" for id, relevance in qrels["q1"].items()))
    theirs = ir_measures.calc_aggregate(
        [ir_measures.nDCG @ 10, ir_measures.R @ 2, ir_measures.RR @ 10, ir_measures.AP],
        list(ir_measures.read_trec_qrels(str(tmp_path / "qrels"))),
        list(ir_measures.read_trec_run(str(path))),
    )
    ours = measure_run(read_run(path), qrels, MEASURES).means
    assert ours == pytest.approx(measure_run(run, qrels, MEASURES).means, abs=1e-12)
    assert {str(name): value for name, value in theirs.items()} == pytest.approx(ours, abs=1e-6)
    back = read_run(path)["q1"]
    assert back.ids == run["q1"].ids
    np.testing.assert_allclose(back.scores, run["q1"].scores, rtol=1e-5, atol=1e-37)

"""The script that puts the results of benchmarks into the README: its rows, and that it leaves all else as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "table.py"
AROUND = ("# Title\n\n<!-- benchmarks -->", "<!-- /benchmarks -->\n\nÉnd.\n")
MACHINE = {"processor": "Intel(R) Xeon(R) Processor (avx2, avx512f)", "cores": 2, "load": 0.31}


def written(folder: Path, results: dict[str, Any], readme: str) -> subprocess.CompletedProcess[str]:
    """Run the script over some results and a text."""
    (folder / "README.md").write_text(readme, "utf-8")
    for name, found in results.items():
        (folder / f"{name}.json").write_text(json.dumps({"machine": MACHINE} | found), "utf-8")
    command = [sys.executable, str(SCRIPT), "--readme", str(folder / "README.md")]
    environment = os.environ | {"RAGISTRY_RESULTS": str(folder)}
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment, check=False)


def memory(documents: str) -> dict[str, Any]:
    """Results of benchmarks/memory.py."""
    rows = [
        {"engine": "ragistry hybrid", "peak MB": 900, "anonymous MB": 300, "x ours": 1.0},
        {"engine": "EnsembleRetriever", "peak MB": 1500, "anonymous MB": 1400, "x ours": ""},
        {"engine": "EnsembleRetriever, by a line", "peak MB": 6300, "anonymous MB": 6000, "x ours": 7.0},
    ]
    return {"title": f"Memory of a hybrid collection, {documents} documents", "rows": rows}


def test_results_become_rows_between_the_markers_and_a_second_run_changes_nothing(tmp_path: Path) -> None:
    assert not written(tmp_path, {"memory": memory("1,000,000")}, "old".join(AROUND)).returncode
    first = (tmp_path / "README.md").read_text("utf-8")
    inside = first.removeprefix(AROUND[0]).removesuffix(AROUND[1])
    assert first == inside.join(AROUND)
    lines = inside.strip().split("\n")
    assert len({line.count("|") for line in lines}) == 1
    assert lines[-1].endswith(
        "(900 MB; theirs is extrapolated from smaller collections); without pages of files, which a system short of memory "
        "takes back, 1/20 (300 MB) | Intel Xeon, 2 cores, load 0.3 |"
    )
    assert "| <= 1/4 | 1/7 of theirs " in lines[-1]
    assert all(line.endswith("| not run |  |") for line in lines[2:-1])
    assert not written(tmp_path, {}, first).returncode
    assert (tmp_path / "README.md").read_text("utf-8") == first


@pytest.mark.parametrize(
    ("found", "says"),
    [
        pytest.param(memory("6,000"), "not run at this size", id="too small"),
        pytest.param(memory("1,000,000") | {"rows": memory("")["rows"][:1]}, "not run with all peers", id="no peer"),
    ],
)
def test_a_row_is_filled_by_a_whole_run_only(tmp_path: Path, found: dict[str, Any], says: str) -> None:
    assert not written(tmp_path, {"memory": found}, "".join(AROUND)).returncode
    assert f"| {says} |  |\n<!-- /benchmarks -->" in (tmp_path / "README.md").read_text("utf-8")


@pytest.mark.parametrize("readme", ["# Title\n", AROUND[1] + AROUND[0], AROUND[0]], ids=["none", "reversed", "open"])
def test_without_its_markers_a_text_stays_as_it_is(tmp_path: Path, readme: str) -> None:
    done = written(tmp_path, {}, readme)
    assert done.returncode and "<!-- benchmarks -->" in done.stderr
    assert (tmp_path / "README.md").read_text("utf-8") == readme

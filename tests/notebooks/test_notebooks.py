"""Every notebook runs from its first cell to its last, says what it is there to say, and is kept without outputs."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SAYS = {
    "01_quickstart": r"hybrid +nDCG@10 0\.[89]\d+ .*(?s:.)*'documents': 17, 'retriever': 'hybrid'",
    "02_adapt_your_embeddings": r"taught: nDCG@10 rose from 0\.[01]\d+ to 0\.[89]\d+",  # asserted there as well
    "03_langchain_llamaindex_agents": r"front +I read: (?s:.)*id: rare(?s:.)*borrowed: .* 1?\d% before, (9\d|100)% after",
    "04_compare": "is best",
}
"""What each notebook's output must hold, whatever else: a pattern."""
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_each_has_something_to_say() -> None:
    assert {path.stem for path in NOTEBOOKS} == set(SAYS)


@every_notebook
def test_outputs_are_stripped(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    for cell in cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
    assert [cell.id for cell in cells] == [f"cell-{number:02}" for number in range(len(cells))]


@every_notebook
def test_it_runs(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output.output_type == "error"]
    said = "".join(output.text for output in outputs if output.get("name") == "stdout")
    assert re.search(SAYS[path.stem], said), said

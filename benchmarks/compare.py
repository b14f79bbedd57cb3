"""What `ragistry compare` costs: 1,000 SciFact queries, five retrievers, from nothing to a report; then once more.

Run it with `python benchmarks/compare.py`; `--queries` and `--set` make it smaller. The time to open the report is
measured if selenium, chromium and chromedriver are there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
from itertools import islice
from pathlib import Path
from time import perf_counter

from common import data, report, required

from ragistry.evaluation import Leaderboard, load
from ragistry.evaluation.report import report as page
from ragistry.evaluation.tasks import labelled
from ragistry.experiment import Experiment
from ragistry.registry import Spec

RETRIEVERS: dict[str, Spec] = {
    "bm25": "bm25",
    "query-likelihood": "query-likelihood",
    "dense": "dense",
    "hybrid": "hybrid",
    "hybrid-ranks": {"name": "hybrid", "method": "reciprocal-rank"},
}


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", default="scifact")
    parser.add_argument("--queries", type=int, default=1000)
    given = parser.parse_args()
    os.environ.setdefault("RAGISTRY_DATA", str(data(".")))
    required(data(given.set))
    dataset = load(given.set)
    splits = [dataset.split(name) for name in dataset.splits]
    queries = dict(islice((pair for split in splits for pair in split.queries.items()), given.queries))
    qrels = {query: judged for split in splits for query, judged in split.qrels.items() if query in queries}
    task = labelled(given.set, dataset.documents, queries, qrels)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "compare")
        began = perf_counter()
        board = Experiment(place, tell=print).run(task, RETRIEVERS)
        first = perf_counter() - began
        began = perf_counter()
        documents = {document.id: document for document in dataset.documents}
        html = page([board], lambda ids: {id: documents[id] for id in ids if id in documents})
        written = perf_counter() - began
        began = perf_counter()
        Experiment(place).run(task, RETRIEVERS)
        again = perf_counter() - began
        encoders = json.loads((place / "times.json").read_text())["encoders"].values()
        opened = opening(html, Path(folder))
    board_rows(board)
    print(board.verdict())
    report(
        "compare",
        [
            {
                "data": f"{given.set} ({len(dataset.documents):,} documents, {len(queries):,} queries, 5 retrievers)",
                "first time, s": round(first, 1),
                "again, s": round(again, 1),
                "texts encoded": sum(encoder["texts"] for encoder in encoders),
                "of it encoding, s": round(sum(encoder["seconds"] for encoder in encoders), 1),
                "report made in, s": round(written, 1),
                "report, MB": round(len(html.encode()) / 1e6, 2),
                "report opens in, s": round(opened, 2) if opened else "",
            }
        ],
        title="A comparison from nothing to a report",
        notes="texts encoded: documents whose vectors were computed, once for the three retrievers that need them",
    )


def board_rows(board: Leaderboard) -> None:
    """Print the table."""
    from ragistry.comparing import show_leaderboard

    show_leaderboard(board)


def opening(html: str, folder: Path, rounds: int = 5) -> float | None:
    """Seconds from navigation to the page's having drawn itself, median; None without a browser."""
    driver = shutil.which("chromedriver")
    try:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service
    except ImportError:
        return None
    if driver is None:
        return None
    path = folder / "report.html"
    path.write_text(html, encoding="utf-8")
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(flag)
    took = []
    with webdriver.Chrome(options, Service(executable_path=driver)) as browser:
        for _ in range(rounds):
            browser.get(path.as_uri())
            milliseconds = browser.execute_script("return performance.getEntriesByType('navigation')[0].loadEventEnd")
            took.append(milliseconds / 1000)
    return statistics.median(took)


if __name__ == "__main__":
    main()

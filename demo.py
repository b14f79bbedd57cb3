"""Index the standard library's own documentation three ways, compare them, and ask a few questions (`make demo`)."""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from ragistry import Collection
from ragistry.comparing import show_leaderboard
from ragistry.console import Bar, note
from ragistry.evaluation import load
from ragistry.evaluation.report import report
from ragistry.evaluation.tasks import labelled
from ragistry.experiment import Experiment

HERE = Path(".demo")
RETRIEVERS = {"bm25": "bm25", "dense": "dense", "hybrid": "hybrid"}
QUESTIONS = (
    "run a shell command and get its output as text",
    "how many days are in this month?",
    "parse a date written as text",
    "how similar are two strings?",
    "find the common beginning of several file paths",
)
console = Console(highlight=False)


def main() -> None:
    """Build, compare, ask."""
    logging.getLogger("ragistry").setLevel(logging.ERROR)
    began = time.perf_counter()
    dataset = load("python-docs")
    test = dataset.split("test")
    version = ".".join(map(str, sys.version_info[:3]))
    console.print(
        f"[bold]python-docs[/bold]: {len(dataset.documents):,} functions, classes and methods of Python {version}; the "
        f"{len(test.queries):,} test queries are first sentences of docstrings, taken out of the documents.\n"
    )
    task = labelled("python-docs", dataset.documents, test.queries, test.qrels)
    experiment = Experiment(HERE, Bar, note)
    board = experiment.run(task, RETRIEVERS)
    console.print()
    show_leaderboard(board)
    documents = {document.id: document for document in dataset.documents}
    page = report([board], lambda ids: {id: documents[id] for id in ids}, title="Which retriever for python-docs?")
    (HERE / "report.html").write_text(page, encoding="utf-8")
    console.print(f"Every query, and where the three differ: open [bold]{HERE / 'report.html'}[/bold] in a browser.")
    console.print("\nQuestions in plain English, answered by the hybrid:\n")
    with Collection.open(experiment.collections["hybrid"]) as docs:
        for question in QUESTIONS:
            answer(docs, question)
    console.print(
        f"All of it took {time.perf_counter() - began:.0f} s. Ask your own, or compare on documents of yours:\n"
    )
    command = f"{os.path.relpath(Path(sys.executable).parent)}/ragistry"
    console.print(f'  [bold]{command} search {experiment.collections["hybrid"]} "your question"[/bold]', soft_wrap=True)
    console.print(f"  [bold]{command} compare your-documents/ --report report.html[/bold]", soft_wrap=True)


def answer(docs: Collection, question: str) -> None:
    """Print the best three documents for a question."""
    lines = Text(no_wrap=True, overflow="ellipsis")
    for hit in docs.search(question, k=3):
        lines.append(f"{hit.score:6.3f}  ", style="dim")
        lines.append(hit.id, style="bold")
        lines.append(f"   {' '.join(hit.text.split())[:200]}\n", style="dim")
    lines.rstrip()
    console.print(Panel(lines, title=question, title_align="left"))


if __name__ == "__main__":
    main()

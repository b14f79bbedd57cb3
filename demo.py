"""Index the standard library's own documentation three ways, compare them, and ask a few questions (`make demo`)."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ragistry import Collection, Document, create
from ragistry.evaluation import Evaluation, compare, load
from ragistry.registry import Spec

HERE = Path(".demo")
DENSE = {"name": "dense", "cache": str(HERE / "embeddings.sqlite")}
RETRIEVERS: dict[str, Spec] = {
    "bm25": "bm25",
    "dense": DENSE,
    "hybrid": {"name": "hybrid", "members": {"bm25": "bm25", "dense": DENSE}},
}
QUESTIONS = (
    "run a shell command and get its output as text",
    "how many days are in this month?",
    "parse a date written as text",
    "how similar are two strings?",
    "find the common beginning of several file paths",
)
console = Console()


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
    results: list[Evaluation] = []
    table = Table("retriever", "nDCG@10", "R@100", "queries/s", "index size", "indexed in")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, spec in RETRIEVERS.items():
        docs, seconds = build(name, spec, dataset.documents)
        with docs:
            docs.search("the first question loads the model")
            found = docs.evaluate(test.queries, test.qrels, ["nDCG@10", "R@100"])
            results.append(found)
            table.add_row(
                name,
                f"{found.means['nDCG@10']:.3f}",
                f"{found.means['R@100']:.3f}",
                f"{found.queries_per_second:,.0f}",
                f"{docs.info()['index_bytes'] / 2**20:.1f} MB",
                f"{seconds:.0f} s",
            )
    console.print(table)
    console.print("[dim]Embeddings are kept by content: hybrid reuses those of dense, and so does the next run.[/dim]")
    for one in compare(results, "nDCG@10", baseline="bm25"):
        verdict = "beyond chance" if one.significant() else "may be chance"
        console.print(
            f"{one.name} against {one.baseline}: {one.difference:+.3f} nDCG@10, {verdict} (paired randomisation test, "
            f"Holm-corrected p = {one.corrected:.2g})"
        )
    console.print("\nQuestions in plain English, answered by the hybrid:\n")
    with Collection.open(HERE / "hybrid") as docs:
        for question in QUESTIONS:
            answer(docs, question)
    console.print(
        f"All of it took {time.perf_counter() - began:.0f} s. Ask your own: "
        f'[bold]{os.path.relpath(Path(sys.executable).parent)}/ragistry search {HERE}/hybrid "your question"[/bold]'
    )


def build(name: str, spec: Spec, documents: list[Document]) -> tuple[Collection, float]:
    """Index the documents anew; the embeddings cache makes this quick the second time."""
    shutil.rmtree(HERE / name, ignore_errors=True)
    docs = Collection.create(HERE / name, create(spec))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    began = time.perf_counter()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"indexing with {name}", total=len(documents))
        docs.add(documents, progress=lambda done: progress.advance(task, done))
    return docs, time.perf_counter() - began


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

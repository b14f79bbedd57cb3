"""What the benchmarks share: where data lies, fair timing, and one way to report."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(os.environ.get("RAGISTRY_RESULTS", Path(__file__).parent / "results"))
PACKAGES = ("ragistry", "numpy", "torch", "transformers", "sentence-transformers", "faiss-cpu", "bm25s", "numba")


def data(name: str) -> Path:
    """A data set's folder below `RAGISTRY_DATA` (by default ../shared/data, beside the repository). It may be missing."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    return Path(os.environ.get("RAGISTRY_DATA", beside)) / name


def required(path: Path) -> Path:
    """The path, if it is there; else the script ends and says what to set."""
    if not path.exists():
        raise SystemExit(f"{path} is missing; set RAGISTRY_DATA to the folder that holds the data sets")
    return path


def jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file, one a line."""
    with open(path, encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def machine() -> dict[str, Any]:
    """Processor, cores, memory, load and the versions of what is measured."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found: dict[str, Any] = {"processor": _processor(), "cores": cores, "system": platform.platform()}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory_gib"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    if hasattr(os, "getloadavg"):
        found["load"] = round(os.getloadavg()[0], 2)
    found["python"] = platform.python_version()
    return found | {"versions": {name: version for name in PACKAGES if (version := _version(name))}}


def interleaved(functions: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call of each function. Every round calls all of them, the first one changing from round to round,
    so that a machine that is slow for a while is slow for all."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    names = list(functions)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            start = time.perf_counter()
            functions[name]()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def median_ratio(seconds: Mapping[str, Sequence[float]], baseline: str, name: str) -> float:
    """How many times faster `name` is than `baseline`: the median over rounds of their ratio in the same round."""
    return statistics.median(a / b for a, b in zip(seconds[baseline], seconds[name], strict=True))


def report(
    name: str,
    rows: Sequence[Mapping[str, object]],
    *,
    title: str,
    notes: str = "",
    versions: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """Print rows as a table, and write them with the machine to `results/<name>.json`.

    Args:
        name: Of the JSON file.
        rows: All with the same keys, which head the columns.
        title: Above the table.
        notes: What was measured and how, below it.
        versions: Of packages that are not in this environment.

    Returns:
        The path written.
    """
    described = machine()
    described["versions"] |= versions
    table = Table(
        title=title, caption=f"{notes}\n{described['processor']}, {described['cores']} cores", caption_justify="left"
    )
    for column in rows[0]:
        table.add_column(str(column), justify="left" if isinstance(rows[0][column], str) else "right")
    for row in rows:
        table.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console(width=None if os.isatty(1) else 120).print(table)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    content = {"title": title, "notes": notes, "machine": described, "rows": [dict(row) for row in rows]}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    special = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    return f"{names[0] if names else platform.machine()} ({', '.join(special)})"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""

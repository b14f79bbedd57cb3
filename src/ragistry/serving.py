"""What serving a collection costs, measured where nothing else disturbs it: in a process of its own.

`python -m ragistry.serving DIRECTORY` reads questions from standard input as a JSON list, asks them one at a time, and
prints one JSON object.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from .errors import RagistryError

FIRST = "what loads the model?"
"""Asked before anything is timed: it loads models and compiled code."""

HITS = 10
"""How many hits are asked for: what an application shows, or gives to a model."""

_ANSWER = "ragistry.serving: "  # begins the line that counts, among what a model may print
_PATIENCE = 600.0  # seconds


@dataclass(frozen=True)
class Serving:
    """What answering questions one at a time took.

    Args:
        p50_ms: Median time for one, in milliseconds, its documents fetched.
        p95_ms: What 95 % of them stay below.
        first_seconds: From the start of a new process to its first answer.
        memory_bytes: The most that the process held; None where the system does not say.
    """

    p50_ms: float
    p95_ms: float
    first_seconds: float
    memory_bytes: int | None


def measure(directory: Path, questions: Sequence[str]) -> Serving:
    """Open a collection in a fresh process and ask it questions it has not seen, one at a time.

    Args:
        directory: The collection's.
        questions: At least one. Another one is asked before, which loads what there is to load and is not timed.

    Raises:
        RagistryError: If the process fails; the message gives its last words.
    """
    began = perf_counter()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "ragistry.serving", str(directory)],
            input=json.dumps(list(questions)),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise RagistryError(f"a process for {str(directory)!r} could not be run to its end: {error}") from None
    lines = [line.removeprefix(_ANSWER) for line in done.stdout.splitlines() if line.startswith(_ANSWER)]
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise RagistryError(f"a process that opens {str(directory)!r} and searches it failed: {last}")
    found = json.loads(lines[-1])
    took = found["seconds"]
    return Serving(
        p50_ms=1000 * statistics.median(took),
        p95_ms=1000 * statistics.quantiles(took, n=20, method="inclusive")[-1] if len(took) > 1 else 1000 * took[0],
        first_seconds=perf_counter() - began - sum(took),
        memory_bytes=found["memory_bytes"],
    )


def serve(directory: Path, questions: Sequence[str]) -> None:
    """What the process does."""
    from .collection import Collection

    with Collection.open(directory) as collection:
        collection.search(FIRST, HITS)
        seconds = []
        for question in questions:
            began = perf_counter()
            collection.search(question, HITS)
            seconds.append(perf_counter() - began)
    print(_ANSWER + json.dumps({"seconds": seconds, "memory_bytes": peak_memory()}), flush=True)


def peak_memory() -> int | None:
    """The most memory this process has held so far, in bytes; None where the system does not say.

    Example:
        >>> (peak_memory() or 2**20) >= 2**20
        True
    """
    # On Linux `ru_maxrss` is inherited from the process that started this one; the status file is not.
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), json.load(sys.stdin))

"""The other end of `peers.Worker`: answers calls from standard input, one line of JSON each. Standard library only."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import traceback
from pathlib import Path
from typing import Any


def serve(engine: object) -> None:
    """Answer calls of an engine's methods, and of `memory`, until the input ends.

    What libraries print goes to standard error, so that the answers are alone.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        asked = json.loads(line)
        began = time.perf_counter()
        said: dict[str, Any]
        try:
            value = memory() if asked["method"] == "memory" else getattr(engine, asked["method"])(**asked["given"])
        except Exception:
            said = {"error": traceback.format_exc(limit=-3)}
        else:
            said = {"value": value, "seconds": time.perf_counter() - began}
        print(json.dumps(said), file=answers, flush=True)
    answers.flush()
    os._exit(0)  # a process that holds gigabytes, or a virtual machine, takes long to tidy up


def memory() -> dict[str, Any]:
    """Megabytes of this process: the most it held, what it holds, and how much of that no file gives back."""
    status = Path("/proc/self/status")
    if not status.exists():
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {"peak": most / (1e6 if sys.platform == "darwin" else 1e3), "now": None, "anonymous": None}
    # Not `getrusage`, which on Linux counts what the process held that this one was started from.
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
    names = {"peak": "VmHWM", "now": "VmRSS", "anonymous": "RssAnon"}
    return {name: int(lines[key].split()[0]) * 1024 / 1e6 for name, key in names.items()}

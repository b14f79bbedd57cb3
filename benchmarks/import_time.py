"""What `import ragistry` takes in a fresh process, beside Python's own start, and what it leaves unloaded.

python benchmarks/import_time.py [--rounds 15]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from functools import partial

from common import interleaved, report

HEAVY = ("torch", "transformers", "faiss", "numba", "numpy", "scipy", "langchain_core", "llama_index", "mcp")
USE = "import ragistry; ragistry.Collection, ragistry.create, ragistry.Document"
RUNS = {
    "python": "pass",
    "import ragistry": "import ragistry",
    "and its everyday names": USE,
    'and create("bm25")': f'{USE}; ragistry.create("bm25")',
    "import numpy": "import numpy",
    "import bm25s": "import bm25s",
}


def main() -> None:
    """Measure, print and write results/import_time.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    runs = {name: partial(python, code) for name, code in RUNS.items()}
    interleaved(runs, 1)  # compile to byte code
    seconds = interleaved(runs, options.rounds)
    bare = statistics.median(seconds["python"])
    rows = [
        {
            "what": name,
            "seconds": round(statistics.median(times), 3),
            "above python": round(statistics.median(times) - bare, 3),
            "of these loaded": ", ".join(loaded(RUNS[name])) or "none",
        }
        for name, times in seconds.items()
    ]
    notes = f"medians of {options.rounds} interleaved rounds, each in a fresh process; looked for: {', '.join(HEAVY)}"
    report("import_time", rows, title="Imports", notes=notes)


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ).stdout


def loaded(code: str) -> list[str]:
    """Which of the heavy packages some code loads."""
    return python(f"{code}\nimport sys\nprint(*(name for name in {HEAVY} if name in sys.modules))").split()


if __name__ == "__main__":
    main()

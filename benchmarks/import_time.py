"""What `import ragistry` takes in a fresh process, beside Python's own start and peers, and what it leaves unloaded.

    python benchmarks/import_time.py [--rounds 7]

txtai is imported in an environment of its own, in which it is installed when first needed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from functools import partial

from common import interleaved, report
from peers import installed, python

HEAVY = ("torch", "transformers", "faiss", "numba", "numpy", "scipy", "langchain_core", "llama_index", "mcp")
USE = "import ragistry; ragistry.Collection, ragistry.create, ragistry.Document"
RUNS = {
    "python": "pass",
    "import ragistry": "import ragistry",
    "and its everyday names": USE,
    'and create("bm25")': f'{USE}; ragistry.create("bm25")',
    "import numpy": "import numpy",
    "import bm25s": "import bm25s",
    "import sentence_transformers": "import sentence_transformers",
    "import txtai": "import txtai",
}


def main() -> None:
    """Measure, print and write results/import_time.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    codes = {name: code for name, code in RUNS.items() if name != "import txtai" or installed("txtai")}
    runs = {name: partial(output, name, code) for name, code in codes.items()}
    interleaved(runs, 1)  # compile to byte code
    seconds = interleaved(runs, options.rounds)
    bare = statistics.median(seconds["python"])
    rows = [
        {
            "what": name,
            "seconds": round(statistics.median(times), 3),
            "above python": round(statistics.median(times) - bare, 3),
            "of these loaded": ", ".join(loaded(name)) or "none",
        }
        for name, times in seconds.items()
    ]
    notes = f"medians of {options.rounds} interleaved rounds, each in a fresh process; looked for: {', '.join(HEAVY)}"
    report("import_time", rows, title="Imports", notes=notes)


def output(name: str, code: str) -> str:
    """What a fresh interpreter prints."""
    interpreter = str(python("txtai")) if name == "import txtai" else sys.executable
    return subprocess.run([interpreter, "-c", code], check=True, capture_output=True, text=True, env=os.environ).stdout


def loaded(name: str) -> list[str]:
    """Which of the heavy packages some code loads."""
    asked = f"import sys\nprint(*(name for name in {HEAVY} if name in sys.modules))"
    return output(name, f"{RUNS[name]}\n{asked}").split()


if __name__ == "__main__":
    main()

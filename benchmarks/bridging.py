"""What token-aware augmentation costs when it is used: one query, from its text to its vector.

Run it with `python benchmarks/bridging.py`. Every query is new; plain and augmented encoders are asked in turn. Questions
are SciFact's, read from RAGISTRY_DATA.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from itertools import cycle, product
from typing import Any

import numpy as np
from common import data, interleaved, jsonl, report, required

from ragistry.encoders.backbones import stack
from ragistry.encoders.steps.token_bridge import Statistics
from ragistry.encoders.token_aware import TokenAware, new_bridge

ROUNDS = 200


def main() -> None:
    """Print the table and write the results."""
    questions: Iterator[str] = cycle([row["text"] for row in jsonl(required(data("scifact") / "queries.jsonl"))])
    base = stack(precision="fp32")
    encoders: dict[str, Any] = {"plain": base}
    for paradigm, form in product(("slr", "llr", "clr"), ("gate", "sum")):
        settings: Any = {"paradigm": paradigm, "form": form, "side": "shared"}
        bridge = new_bridge(base, **settings)
        vectors = np.random.default_rng(0).normal(size=(500, bridge.dimension)).astype(np.float32)
        bridge.start(Statistics(np.ones(bridge.vocabulary, np.float32), 200.0), vectors, strength=0.7)
        encoders[f"{paradigm} {form}"] = TokenAware(base, bridge)
    asked = {name: lambda found=found: found.encode([next(questions)], "query") for name, found in encoders.items()}
    for ask in asked.values():
        ask()
    seconds = interleaved(asked, ROUNDS)
    plain = statistics.median(seconds["plain"])
    rows = [
        {
            "what": name,
            "median": f"{1e3 * statistics.median(found):.2f} ms",
            "against plain": f"{statistics.median(found) / plain:.3f}",
        }
        for name, found in seconds.items()
    ]
    notes = f"Medians of {ROUNDS} rounds in turn, one query at a time, each from its text; MiniLM, fp32."
    report("bridging", rows, title="Encoding one query with token-aware augmentation", notes=notes)


if __name__ == "__main__":
    main()

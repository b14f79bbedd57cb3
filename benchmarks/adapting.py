"""What teaching costs: seconds to fit an adapter, and microseconds to use it on one query.

Run it with `python benchmarks/adapting.py`. Vectors are made up (unit vectors around 500 centres, queries turned by a fixed
random map), so that nothing is encoded: 10,000 pairs over 10,000 documents of 384 dimensions, and 300 pairs over
the same. Fitting is all of it: folds, choice, the final adapter, as `Collection.fit` does it.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
from common import report
from scipy.sparse import csr_array

from ragistry import create
from ragistry.encoders.projected import unit
from ragistry.training.adapting import Problem, Settings, adapt
from ragistry.types import Floats

DIMENSION, DOCUMENTS, ROUNDS = 384, 10_000, 3


def problem(pairs: int, seed: int) -> Problem:
    """Made-up pairs: a query is its document, turned, with noise."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(500, DIMENSION))
    held = unit(
        (centres[draw.integers(0, 500, DOCUMENTS)] + draw.normal(size=(DOCUMENTS, DIMENSION))).astype(np.float32)
    )
    turn = np.linalg.qr(draw.normal(size=(DIMENSION, DIMENSION)))[0]
    answers = draw.permutation(DOCUMENTS)[:pairs] if pairs <= DOCUMENTS else draw.integers(0, DOCUMENTS, pairs)
    noise = draw.normal(size=(pairs, DIMENSION)) / DIMENSION**0.5
    asked: Floats = unit((0.6 * held[answers] + 0.4 * held[answers] @ turn + 0.7 * noise).astype(np.float32))
    judged = csr_array((np.ones(pairs, np.float32), answers, np.arange(pairs + 1)), shape=(pairs, DOCUMENTS))
    return Problem([f"q{i}" for i in range(pairs)], asked, [f"d{i}" for i in range(DOCUMENTS)], held, judged)


def fitted(pairs: int) -> dict[str, object]:
    """Seconds of a fit with the recipe's own settings, the median of several."""
    recipe: Any = create("adder", model="all-MiniLM-L6-v2").recipe  # type: ignore[attr-defined]
    settings: list[Settings] = recipe.settings(pairs)
    seconds, gains = [], []
    for seed in range(ROUNDS):
        given = problem(pairs, seed)
        began = time.perf_counter()
        learnt = adapt(given, settings)
        seconds.append(time.perf_counter() - began)
        gains.append(learnt.choice.fitted - learnt.choice.base)
    return {
        "what": f"fit {pairs:,} pairs over {DOCUMENTS:,} documents",
        "median": f"{statistics.median(seconds):.1f} s",
        "all": ", ".join(f"{value:.1f}" for value in seconds),
        "note": f"held-out nDCG@10 {statistics.median(gains):+.3f}",
    }


def served(**settings: Any) -> dict[str, object]:
    """Microseconds to turn the vector of one query."""
    from ragistry.encoders.steps.residual import Residual

    projection = Residual(DIMENSION, side="query", **settings).projection()
    vector = unit(np.random.default_rng(0).normal(size=(1, DIMENSION)).astype(np.float32))
    times = []
    for _ in range(2000):
        began = time.perf_counter()
        projection(vector, "query")
        times.append((time.perf_counter() - began) * 1e6)
    shape = f"{settings.get('form', 'linear')}, rank {settings.get('rank') or 'full'}"
    return {
        "what": f"turn one query ({shape})",
        "median": f"{statistics.median(times):.1f} µs",
        "all": f"p95 {np.percentile(times, 95):.1f}",
        "note": "",
    }


def main() -> None:
    """Measure and report."""
    rows = [served(), served(rank=64), served(form="softmax", rank=64)]
    rows += [fitted(pairs) for pairs in (300, 10_000)]
    report("adapting", rows, title="Teaching an adapter", notes="Made-up vectors; nothing is encoded.")


if __name__ == "__main__":
    main()

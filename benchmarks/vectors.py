"""Vectors in any amount: those of MiniLM for real passages and questions, and further ones between them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from passages import passages, questions

from ragistry.errors import RagistryError
from ragistry.types import Floats

CHUNK = 20_000


def embedded(count: int, real: int, asked: Sequence[str] | int) -> tuple[Floats, Floats, str]:
    """Vectors [count, dimensions], those of queries, and a sentence that says where they come from.

    The first `real` are of real passages, all others lie between two of these, with noise, as encoding so many would take
    long: closer together than real ones would, which is harder. Without the model they are random directions around common
    ones. Vectors have length 1; `asked` is the queries' texts, or how many questions.
    """
    rng = np.random.default_rng(3)
    real = min(count, real)
    texts, origin = passages(real)
    queries = questions(asked) if isinstance(asked, int) else list(asked)
    try:
        from ragistry.encoders.named import encoder

        model = encoder("all-MiniLM-L6-v2")
        known = np.concatenate([model.encode(texts[i : i + 512], "document") for i in range(0, len(texts), 512)])
        sought = np.asarray(model.encode(queries, "query"), np.float32)
    except RagistryError:
        origin = "random directions around 200 common ones"
        around = rng.standard_normal((200, 384))
        known = unit(around[rng.integers(0, 200, real)] + rng.standard_normal((real, 384)))
        sought = unit(around[rng.integers(0, 200, len(queries))] + rng.standard_normal((len(queries), 384)))
    vectors = np.empty((count, known.shape[1]), np.float32)
    vectors[:real] = known
    for first in range(real, count, CHUNK):
        made = min(CHUNK, count - first)
        one, other = rng.integers(0, real, (2, made))
        share, noise = rng.uniform(0.5, 1, (made, 1)), rng.standard_normal((made, known.shape[1]))
        vectors[first : first + made] = unit(
            share * known[one] + (1 - share) * known[other] + 0.3 / known.shape[1] ** 0.5 * noise
        )
    return vectors, sought, f"vectors of {origin}, {count - real:,} more made between them"


def unit(vectors: np.ndarray) -> Floats:
    """Of length 1."""
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

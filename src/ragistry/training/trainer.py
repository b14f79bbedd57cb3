"""Fits an encoder: epochs of batches, with a look at held-out queries and a way back to the best."""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from ..encoders.steps import Features
from ..errors import InvalidInput
from ..registry import require
from ..storage import write_file
from ..types import Floats, Ints
from .losses import Batch, Loss
from .samplers import Sampler


class Source(Protocol):
    """Where the features of queries and documents come from, by row."""

    def queries(self, rows: Ints) -> Features:
        """Features of some queries."""

    def documents(self, rows: Ints) -> Features:
        """Features of some documents."""

    def nearest(self, encoder: nn.Module, rows: Ints, k: int, answers: Any) -> Ints:
        """Rows of the `k` nearest documents that do not answer them, int64 [len(rows), k]; -1 where there are fewer."""


@dataclass(frozen=True, slots=True)
class Point:
    """One look at an encoder in training: epoch 0 is the untrained one, `loss` the mean since the look before."""

    epoch: int
    loss: float | None
    values: dict[str, float]
    seconds: float


@dataclass
class History:
    """The validation curve of a training run; `best` is the epoch whose weights were kept."""

    points: list[Point] = field(default_factory=list)
    best: int = 0

    def to_json(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON.

        Raises:
            StorageError: If it cannot be written.
        """
        write_file(Path(path), (json.dumps(self.to_json(), indent=1) + "\n").encode())

    def plot(self, path: str | os.PathLike[str], title: str = "") -> None:
        """Draw it: the values on held-out queries and the loss by epoch, the kept epoch marked. PNG, SVG or PDF by name.

        Raises:
            MissingExtra: If matplotlib is not installed.
            InvalidInput: If the file's extension is no picture's.
            StorageError: If it cannot be written.
        """
        from .plot import draw

        require("matplotlib", "plot")
        draw(self, Path(path), title)


class Trainer:
    """Fits an encoder with a loss over batches of a sampler.

    AdamW with a linear warm-up and decay. The encoder is measured before the first epoch and about `looks` times during
    training; the weights of the best look are what remains, the untrained ones among them. The same seed, data and number of
    threads give the same weights.

    Args:
        epochs: At most so many.
        rate: The highest learning rate.
        decay: Weight decay; on a residual it pulls towards the identity.
        warmup: Share of the steps in which the rate rises.
        looks: How often to measure.
        patience: Stop after so many looks without a better one; none never stops early.
        seed: Of anything random in the encoder and the loss, such as dropout.
        slower: By the beginning of a weight's name in the encoder, a share of the rate that it learns with.

    Raises:
        InvalidInput: If a value is out of range.
    """

    def __init__(
        self,
        *,
        epochs: int = 10,
        rate: float = 1e-3,
        decay: float = 0.0,
        warmup: float = 0.05,
        looks: int = 10,
        patience: int | None = None,
        seed: int = 0,
        slower: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        if epochs < 1 or not rate > 0 or decay < 0 or not 0 <= warmup <= 1 or looks < 1 or (patience or 1) < 1:
            raise InvalidInput(
                f"epochs={epochs}, rate={rate}, decay={decay}, warmup={warmup}, looks={looks}, patience={patience}: epochs, "
                "looks and patience must be at least 1, the rate above 0, decay at least 0, warmup from 0 to 1"
            )
        self.epochs, self.rate, self.decay, self.warmup = epochs, rate, decay, warmup
        self.looks, self.patience, self.seed, self.slower = looks, patience, seed, slower

    def fit(
        self,
        encoder: nn.Module,
        loss: Loss,
        sampler: Sampler,
        source: Source,
        *,
        measure: Callable[[nn.Module, int], Mapping[str, float]] | None = None,
        until: int | None = None,
        progress: Callable[[Point], None] | None = None,
    ) -> History:
        """Train the encoder in place.

        Args:
            encoder: A module from features and role to features with `vector`, such as a `Step`.
            loss: What to make small; weights of its own are trained as well.
            sampler: Of batches.
            source: Of their features.
            measure: From the encoder and the epoch to values on held-out queries, the first of which is to be high; without
                it the last weights remain.
            until: Stop after this epoch of a schedule that goes on to `epochs`: what was best before is so repeated on more
                data.
            progress: Called after each look.

        Raises:
            InvalidInput: If the loss stops being a number.
        """
        total, last = self.epochs * len(sampler), self.epochs if until is None else until
        optimiser = torch.optim.AdamW(self._groups(encoder, loss), lr=self.rate, weight_decay=self.decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, total, self.warmup))
        history, best, kept, waited = History(), -math.inf, copy.deepcopy(encoder.state_dict()), 0
        began, losses, every, step = perf_counter(), list[float](), -(-self.epochs // self.looks), 0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            for epoch in range(last + 1):
                if epoch:
                    for batch in self._batches(epoch, encoder, sampler, source):
                        losses.append(_step(encoder, loss, batch, optimiser))
                        schedule.step()
                        loss.after_step(encoder, step := step + 1)
                if epoch % every and epoch != last:
                    continue
                values = _measured(encoder, epoch, measure)
                mean = float(np.mean(losses)) if losses else None
                history.points.append(Point(epoch, mean, values, round(perf_counter() - began, 3)))
                losses.clear()
                if progress is not None:
                    progress(history.points[-1])
                value = next(iter(values.values()), math.inf if measure is None else -math.inf)
                if value > best or measure is None:
                    best, waited, history.best, kept = value, 0, epoch, copy.deepcopy(encoder.state_dict())
                elif self.patience is not None and (waited := waited + 1) >= self.patience:
                    break
        if measure is not None:
            encoder.load_state_dict(kept)
        encoder.eval()
        return history

    def _groups(self, encoder: nn.Module, loss: Loss) -> list[dict[str, Any]]:
        """Weights by their rate."""
        groups: dict[float, list[Any]] = {}
        for module in (encoder, loss):
            for name, weight in module.named_parameters():
                share = next((found for start, found in self.slower.items() if name.startswith(start)), 1.0)
                if weight.requires_grad:
                    groups.setdefault(share if module is encoder else 1.0, []).append(weight)
        return [{"params": weights, "lr": self.rate * share} for share, weights in groups.items()]

    def _batches(self, epoch: int, encoder: nn.Module, sampler: Sampler, source: Source) -> Any:
        def nearest(rows: Ints, k: int) -> Ints:
            encoder.eval()
            with torch.no_grad():
                return source.nearest(encoder, rows, k, sampler.judged)

        for rows in sampler.epoch(epoch, nearest):
            yield Batch(
                source.queries(rows.queries), source.documents(rows.documents), torch.from_numpy(rows.relevance)
            )


class Stored:
    """Vectors that were computed before, as the source of features: what an adapter is trained on.

    Args:
        queries: float32 [n, d].
        documents: float32 [m, d].
    """

    def __init__(self, queries: Floats, documents: Floats) -> None:
        self._queries = torch.from_numpy(np.ascontiguousarray(queries, np.float32))
        self._documents = torch.from_numpy(np.ascontiguousarray(documents, np.float32))

    def queries(self, rows: Ints) -> Features:
        """Their vectors."""
        return {"vector": self._queries[torch.from_numpy(rows)]}

    def documents(self, rows: Ints) -> Features:
        """Their vectors."""
        return {"vector": self._documents[torch.from_numpy(rows)]}

    def nearest(self, encoder: nn.Module, rows: Ints, k: int, answers: Any) -> Ints:
        """By brute force over all documents, equal scores by row."""
        documents = torch.nn.functional.normalize(encoder({"vector": self._documents}, "document")["vector"], dim=-1)
        found = np.full((len(rows), k), -1, np.int64)
        most = min(k + int(np.diff(answers.indptr).max(initial=0)), len(documents))
        for first in range(0, len(rows), 256):
            some = rows[first : first + 256]
            scores = (encoder(self.queries(some), "query")["vector"] @ documents.T).numpy()
            for i, row in enumerate(some):
                near = np.argpartition(-scores[i], most - 1)[:most] if most < len(documents) else np.arange(most)
                # Every document that ties with the last one counts, so that which are taken does not depend on luck.
                near = np.flatnonzero(scores[i] >= scores[i, near].min())
                near = near[np.lexsort((near, -scores[i, near]))]
                start, end = answers.indptr[row], answers.indptr[row + 1]
                own = answers.indices[start:end][answers.data[start:end] > 0]
                left = near[~np.isin(near, own)][:k]
                found[first + i, : len(left)] = left
        return found


def _step(encoder: nn.Module, loss: Loss, batch: Batch, optimiser: torch.optim.Optimizer) -> float:
    encoder.train()
    value = loss(encoder, batch)
    if not torch.isfinite(value):
        raise InvalidInput(
            f"training diverged: the loss is {value.item()}; check the vectors for NaN, or lower the rate or raise the "
            "temperature"
        )
    optimiser.zero_grad()
    value.backward()
    optimiser.step()
    return float(value.item())


def _measured(
    encoder: nn.Module, epoch: int, measure: Callable[[nn.Module, int], Mapping[str, float]] | None
) -> dict[str, float]:
    if measure is None:
        return {}
    encoder.eval()
    with torch.no_grad():
        return dict(measure(encoder, epoch))


def _rate(step: int, total: int, warmup: float) -> float:
    rising = max(1.0, warmup * total)
    return min(1.0, (step + 1) / rising) * max(0.0, 1 - step / total)

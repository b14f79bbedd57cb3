"""Training: the best weights remain, the untrained ones among them, and what is repeated comes out alike."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from ragistry.encoders.steps import Features
from ragistry.encoders.steps.residual import Residual
from ragistry.errors import InvalidInput, StorageError
from ragistry.training.losses import Batch, Loss
from ragistry.training.losses.ranking import InfoNCE, Triplet
from ragistry.training.samplers import Negatives, Sampler
from ragistry.training.trainer import History, Point, Stored, Trainer
from ragistry.types import Ints, Role

N, D = 24, 5
Measure = Callable[[nn.Module, int], Mapping[str, float]]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def vectors(seed: int) -> Stored:
    draw = np.random.default_rng(seed)
    return Stored(draw.normal(size=(N, D)).astype(np.float32), draw.normal(size=(N, D)).astype(np.float32))


def sampler(negatives: Negatives = "judged", seed: int = 0) -> Sampler:
    return Sampler(csr_array(np.eye(N, dtype=np.float32)), negatives=negatives, size=8, sample=10, depth=3, seed=seed)


def residual() -> Residual:
    return Residual(D, "linear", None, "both")


def weights(encoder: nn.Module) -> dict[str, list[float]]:
    return {name: value.ravel().tolist() for name, value in encoder.state_dict().items()}


def best_at(epoch: int) -> Measure:
    return lambda encoder, now: {"value": -abs(now - epoch)}


def fit(
    trainer: Trainer,
    measure: Measure | None = None,
    until: int | None = None,
    *,
    encoder: nn.Module | None = None,
    loss: Loss | None = None,
    batches: Sampler | None = None,
    seen: list[Point] | None = None,
) -> tuple[nn.Module, History]:
    encoder = encoder or residual()
    history = trainer.fit(
        encoder,
        loss or InfoNCE(0.1),
        batches or sampler(),
        vectors(0),
        measure=measure,
        until=until,
        progress=None if seen is None else seen.append,
    )
    return encoder, history


def test_the_loss_falls() -> None:
    encoder, history = fit(Trainer(epochs=10, rate=0.02))
    losses = [point.loss for point in history.points]
    assert losses[0] is None
    assert losses[-1] is not None
    assert losses[1] is not None
    assert losses[-1] < 0.9 * losses[1]
    assert history.best == 10
    assert not encoder.training


def test_untrained_weights_are_what_remains_if_nothing_was_better() -> None:
    start = residual()
    encoder, history = fit(Trainer(epochs=5, rate=0.1), best_at(0))
    assert weights(encoder) == weights(start)
    assert history.best == 0
    assert [point.epoch for point in history.points] == [0, 1, 2, 3, 4, 5]
    level, history = fit(Trainer(epochs=5, rate=0.1), lambda encoder, epoch: {"value": 1.0})
    assert weights(level) == weights(start)
    assert history.best == 0


@pytest.mark.parametrize("bad", [float("nan"), -float("inf")])
def test_values_that_are_no_numbers_are_never_the_best(bad: float) -> None:
    encoder, history = fit(Trainer(epochs=3), lambda encoder, epoch: {"value": 1.0 if epoch == 2 else bad})
    assert history.best == 2
    assert weights(encoder) != weights(residual())
    worse, history = fit(Trainer(epochs=3), lambda encoder, epoch: {"value": bad})
    assert history.best == 0
    assert weights(worse) == weights(residual())


@pytest.mark.parametrize("negatives", ["judged", "mined"])
@pytest.mark.parametrize("epoch", [0, 2, 5, 6])
def test_the_beginning_of_a_schedule_gives_the_weights_that_were_best_then(epoch: int, negatives: Negatives) -> None:
    trainer = Trainer(epochs=6, rate=0.05)
    whole, history = fit(trainer, best_at(epoch), batches=sampler(negatives))
    part, again = fit(trainer, until=epoch, batches=sampler(negatives))
    assert history.best == epoch == again.points[-1].epoch
    assert weights(whole) == weights(part)
    last, _ = fit(trainer, batches=sampler(negatives))
    assert (weights(whole) == weights(last)) == (epoch == 6)


def test_the_last_epoch_is_looked_at_wherever_it_is() -> None:
    trainer = Trainer(epochs=10, looks=4)
    part, history = fit(trainer, until=4)
    assert ([point.epoch for point in history.points], history.best) == ([0, 3, 4], 4)
    measured, _ = fit(trainer, best_at(4), until=4)
    assert weights(measured) == weights(part)


def test_seeds() -> None:
    one, two, other = (fit(Trainer(epochs=3), batches=sampler(seed=seed))[0] for seed in (1, 1, 2))
    assert weights(one) == weights(two) != weights(other)


class Dropping(Residual):
    """Drops out coordinates while it trains."""

    def forward(self, features: Features, role: Role) -> Features:
        dropped = nn.functional.dropout(features["vector"], 0.5, self.training)
        return super().forward(features | {"vector": dropped}, role)


def test_what_is_random_in_an_encoder_has_a_seed_and_the_process_keeps_its_own() -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    encoders = []
    for seed in (7, 7, 8):
        encoders.append(fit(Trainer(epochs=2, seed=seed), encoder=Dropping(D))[0])
        assert torch.equal(torch.get_rng_state(), state)
        torch.rand(1)
        state = torch.get_rng_state()
    assert weights(encoders[0]) == weights(encoders[1]) != weights(encoders[2])


def test_an_encoder_trains_while_it_learns_and_not_while_it_is_looked_at() -> None:
    modes: list[tuple[str, bool, bool]] = []

    class Watching(Residual):
        def forward(self, features: Features, role: Role) -> Features:
            modes.append(("train", self.training, torch.is_grad_enabled()))
            return super().forward(features, role)

    def measure(encoder: nn.Module, epoch: int) -> dict[str, float]:
        modes.append(("look", encoder.training, torch.is_grad_enabled()))
        return {"value": float(epoch)}

    fit(Trainer(epochs=2), measure, encoder=Watching(D))
    assert {mode for mode in modes if mode[0] == "look"} == {("look", False, False)}
    assert {mode for mode in modes if mode[0] == "train"} == {("train", True, True)}


def test_patience_counts_looks_without_a_better_one() -> None:
    seen: list[Point] = []
    values = {0: 1.0, 1: 3.0, 2: 2.0, 3: 4.0, 4: 4.0, 5: 3.9, 6: 9.0}
    encoder, history = fit(Trainer(epochs=6, patience=2), lambda encoder, epoch: {"v": values[epoch]}, seen=seen)
    assert [point.epoch for point in history.points] == [0, 1, 2, 3, 4, 5]
    assert history.best == 3
    assert seen == history.points
    want, _ = fit(Trainer(epochs=6), until=3)
    assert weights(encoder) == weights(want)
    _, patient = fit(Trainer(epochs=6), lambda encoder, epoch: {"v": values[epoch]})
    assert patient.best == 6


@pytest.mark.parametrize(
    ("epochs", "looks", "want"), [(4, 10, [0, 1, 2, 3, 4]), (10, 4, [0, 3, 6, 9, 10]), (5, 1, [0, 5])]
)
def test_looks_are_spread_over_training(epochs: int, looks: int, want: list[int]) -> None:
    _, history = fit(Trainer(epochs=epochs, looks=looks), best_at(0))
    assert [point.epoch for point in history.points] == want
    assert all(point.values for point in history.points)


def test_the_first_value_is_the_one_that_counts() -> None:
    _, history = fit(Trainer(epochs=3), lambda encoder, epoch: {"goal": -epoch, "other": epoch})
    assert history.best == 0
    assert [point.values for point in history.points] == [{"goal": -epoch, "other": epoch} for epoch in range(4)]


def test_weights_of_the_loss_are_trained_and_it_is_told_of_each_step() -> None:
    class Own(Loss):
        def __init__(self) -> None:
            super().__init__()
            self.own = nn.Parameter(torch.tensor(1.0))
            self.steps: list[int] = []

        def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
            moved = encoder(batch.queries, "query")["vector"].sum()
            return self.own**2 + moved * 0

        def after_step(self, encoder: nn.Module, step: int) -> None:
            self.steps.append(step)

    loss = Own()
    fit(Trainer(epochs=2, rate=0.1), loss=loss)
    assert loss.own.item() < 0.9
    assert loss.steps == [1, 2, 3, 4, 5, 6]


def test_decay_pulls_a_residual_towards_the_identity() -> None:
    free, pulled = (fit(Trainer(epochs=10, rate=0.02, decay=decay))[0] for decay in (0.0, 5.0))
    size = [sum(value.abs().sum().item() for value in encoder.state_dict().values()) for encoder in (free, pulled)]
    assert 0 < size[1] < 0.8 * size[0]


def test_mining_is_done_once_an_epoch_under_the_encoder_as_it_is() -> None:
    calls: list[tuple[bool, list[float]]] = []

    class Noting(Stored):
        def nearest(self, encoder: nn.Module, rows: Ints, k: int, answers: csr_array) -> Ints:
            calls.append((encoder.training, weights(encoder)["maps.query.weight"]))
            found = super().nearest(encoder, rows, k, answers)
            assert not (found == rows[:, None]).any()
            return found

    draw = np.random.default_rng(0)
    source = Noting(draw.normal(size=(N, D)), draw.normal(size=(N, D)))
    Trainer(epochs=3).fit(residual(), Triplet(0.3), sampler("mined"), source)
    assert [training for training, _ in calls] == [False] * 3
    assert len({tuple(found) for _, found in calls}) == 3
    assert not any(calls[0][1])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("negatives", ["judged", "mined"])
def test_vectors_that_are_no_numbers_stop_training(bad: float, negatives: Negatives) -> None:
    held = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
    asked = held.copy()
    asked[3, 1] = bad
    with pytest.raises(InvalidInput, match="training diverged"):
        Trainer(epochs=2).fit(residual(), InfoNCE(), sampler(negatives), Stored(asked, held))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"rate": 0.0}, "rate=0.0"),
        ({"rate": float("nan")}, "rate=nan"),
        ({"decay": -1.0}, "decay=-1.0"),
        ({"warmup": 1.5}, "warmup=1.5"),
        ({"looks": 0}, "looks=0"),
        ({"patience": -1}, "patience=-1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Trainer(**values)  # type: ignore[arg-type]


HISTORY = History(
    [
        Point(0, None, {"goal": 0.5, "seen": 0.4}, 0.0),
        Point(2, 1.25, {"goal": 0.75, "seen": 0.6}, 0.5),
        Point(4, 1.0, {"goal": 0.625, "seen": 0.7}, 1.0),
    ],
    2,
)


def test_a_history_is_what_json_can_hold(tmp_path: Path) -> None:
    HISTORY.save(tmp_path / "history.json")
    read = json.loads((tmp_path / "history.json").read_text())
    assert read == HISTORY.to_json()
    assert History([Point(**point) for point in read["points"]], read["best"]) == HISTORY
    with pytest.raises(StorageError):
        HISTORY.save(tmp_path / "nowhere" / "history.json")


@pytest.mark.parametrize(("name", "begin"), [("a.png", b"\x89PNG"), ("A.SVG", b"<?xml")])
def test_a_curve_is_drawn(tmp_path: Path, name: str, begin: bytes) -> None:
    pytest.importorskip("matplotlib")
    HISTORY.plot(tmp_path / name, "a title")
    assert (tmp_path / name).read_bytes().startswith(begin)


def test_curves_without_values_or_points_are_drawn_too(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for number, history in enumerate((History(), History([Point(0, None, {}, 0.0), Point(1, 2.0, {}, 1.0)]))):
        history.plot(tmp_path / f"{number}.svg")
        assert (tmp_path / f"{number}.svg").read_bytes().startswith(b"<?xml")


@pytest.mark.parametrize("name", ["curve.gif", "curve", "png", ".png"])
def test_a_name_that_is_no_pictures_is_refused(tmp_path: Path, name: str) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(InvalidInput, match=r"\.png, \.svg, \.pdf"):
        HISTORY.plot(tmp_path / name)
    assert not list(tmp_path.iterdir())

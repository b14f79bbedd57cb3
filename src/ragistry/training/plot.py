"""The validation curve of a training run as a picture."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInput
from ..registry import require
from ..storage import write_file

if TYPE_CHECKING:
    from .trainer import History

PICTURES = ("png", "svg", "pdf")
COLOURS = {"goal": "#1f4e79", "seen": "#b45f06", "unseen": "#38761d"}


def draw(history: History, path: Path, title: str = "") -> None:
    """Write the picture: see `History.plot`."""
    kind = path.suffix.lstrip(".").lower()
    if kind not in PICTURES:
        raise InvalidInput(f"the plot is to be {str(path)!r}; give a name that ends in .{', .'.join(PICTURES)}")
    require("matplotlib", "plot")
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    epochs = [point.epoch for point in history.points]
    for name in history.points[0].values if history.points else ():
        values = [point.values[name] for point in history.points]
        axes.plot(epochs, values, marker="o", markersize=3, label=name, color=COLOURS.get(name))
    axes.axvline(history.best, color="grey", linestyle=":", label=f"chosen: epoch {history.best}")
    axes.set(xlabel="epoch (0: untrained)", ylabel="on held-out queries", title=title)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    losses = [(point.epoch, point.loss) for point in history.points if point.loss is not None]
    if losses:
        other = axes.twinx()
        other.plot(*zip(*losses, strict=True), color="lightgrey", linewidth=2, zorder=0)
        other.set_ylabel("training loss (grey)")
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=150)
    write_file(path, buffer.getvalue())

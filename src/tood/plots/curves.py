"""How a training went, out of its metrics.csv."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tood.drawing import PALETTE, figure_letters, figure_text
from tood.errors import ToodError
from tood.whole_file import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Columns = Mapping[str, NDArray[np.float64]]

# Name in the legend by column; other columns `loss_<name>` are called by their name.
_LOSSES = {"loss": "total", "loss_cls": "classification", "loss_box": "boxes"}
_AP = {"AP": "AP (0.50:0.95)", "AP50": "AP50", "AP75": "AP75"}
_COLOURS = [tuple(part / 255 for part in PALETTE[i]) for i in (4, 5, 2, 6, 0)]


def training_curves(metrics_csv: Path | str, out_png: Path | str, *, title: str = "") -> None:
    """Draws losses, AP and learning rate over the epochs into a PNG.

    Columns that are missing or empty are left out: epoch, lr, the losses, AP, AP50, AP75 are looked for.

    Args:
        metrics_csv: one row an epoch (or several), with a header; AP is empty where nothing was evaluated.
        out_png: picture to write.
        title: headline.

    Raises:
        ToodError: if the file is missing, is no such table, or the picture cannot be written.
    """
    # Imported here: commands that draw no curve do without its half second.
    from matplotlib.figure import Figure

    columns = _read(Path(metrics_csv))
    some = next(iter(columns.values()))
    epochs = columns["epoch"] if "epoch" in columns else np.arange(1.0, len(some) + 1)
    with figure_letters([title, *columns]):
        figure = Figure(figsize=(13, 4), layout="constrained")
        losses, precision, rate = figure.subplots(1, 3)
        names = {name: name.removeprefix("loss_") for name in columns if name.startswith("loss")} | _LOSSES
        _panel(losses, "Loss", epochs, columns, names)
        _panel(precision, "Average precision on the validation split", epochs, columns, _AP, marked=True)
        _panel(rate, "Learning rate", epochs, columns, {"lr": "learning rate"})
        values = columns.get("AP")
        if values is not None and np.isfinite(values).any():
            precision.set_ylim(0, 1)
            best = int(np.nanargmax(values))
            precision.annotate(
                f"best {values[best]:.3f}",
                (epochs[best], values[best]),
                xytext=(0, -14),
                textcoords="offset points",
                ha="right",
                va="top",
            )
        losses.set_ylim(bottom=0)
        rate.set_ylim(bottom=0)
        rate.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        if title:
            figure.suptitle(figure_text(title), x=0.01, ha="left", fontweight="bold")
        with whole_file(out_png) as temporary:
            figure.savefig(temporary, dpi=110, format="png")


def _panel(
    axes: Axes,
    title: str,
    epochs: NDArray[np.float64],
    columns: Columns,
    names: Mapping[str, str],
    marked: bool = False,
) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel("epoch")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    drawn = 0
    for (column, name), colour in zip(names.items(), _COLOURS, strict=False):
        values = columns.get(column)
        if values is None or not np.isfinite(values).any():
            continue
        there = np.isfinite(values)
        # A single value makes no line, and very many dots none that one sees.
        dot = "o" if there.sum() == 1 or (marked and there.sum() < 40) else ""
        axes.plot(
            epochs[there], values[there], color=colour, label=figure_text(name), marker=dot, markersize=4, linewidth=1.8
        )
        drawn += 1
    if len(epochs) == 1:
        axes.set_xlim(epochs[0] - 0.5, epochs[0] + 0.5)
    if drawn > 1:
        axes.legend(frameon=False)
    if not drawn:
        axes.text(0.5, 0.5, "nothing recorded", ha="center", va="center", transform=axes.transAxes, color="0.5")
        axes.set_yticks([])
        axes.set_xticks([])


def _read(path: Path) -> dict[str, NDArray[np.float64]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows: list[dict[str, Any]] = list(csv.DictReader(file))
    except FileNotFoundError as error:
        raise ToodError(f"there is no metrics file {path}: check the path") from error
    except (OSError, ValueError, csv.Error) as error:
        raise ToodError(f"the metrics file {path} cannot be read: {error}") from error
    if not rows:
        raise ToodError(f"the metrics file {path} holds no row yet: wait for the first epoch")
    names = [name for name in rows[0] if name]
    return {name: np.array([_number(row.get(name)) for row in rows]) for name in names}


def _number(text: Any) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        return math.nan

"""Figures of a run, as `metrics.csv` and for TensorBoard."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TextIO

from tood.whole_file import whole_file


@dataclass(frozen=True)
class MetricsRow:
    """One line of `metrics.csv`: what training or an evaluation gave since the line before.

    Attributes:
        epoch: passes over the data, with their fraction.
        step: optimiser steps.
        seconds: time spent on the run.
        images_per_second: training speed, loading included.
        lr: learning rate.
        loss, loss_cls, loss_box: means over the steps since the row before.
        AP, AP50, AP75: 0..1, of an evaluation.
    """

    epoch: float
    step: int
    seconds: float
    images_per_second: float | None = None
    lr: float | None = None
    loss: float | None = None
    loss_cls: float | None = None
    loss_box: float | None = None
    AP: float | None = None
    AP50: float | None = None
    AP75: float | None = None


COLUMNS = tuple(field.name for field in fields(MetricsRow))
_TENSORBOARD_NAMES = {
    "images_per_second": "speed/images_per_second",
    "lr": "train/lr",
    "loss": "train/loss",
    "loss_cls": "train/loss_cls",
    "loss_box": "train/loss_box",
    "AP": "val/AP",
    "AP50": "val/AP50",
    "AP75": "val/AP75",
}


class MetricsLog:
    """Writes rows; a resumed run goes on where its checkpoint was.

    Args:
        folder: of the run, where `metrics.csv` and `tensorboard/` are written.
        step: the step that the run goes on from; later rows of an interrupted run are dropped.
        enabled: False in all processes but one.
    """

    def __init__(self, folder: Path, step: int = 0, enabled: bool = True) -> None:
        self._file: TextIO | None = None
        self._tensorboard: Any = None
        if enabled:
            from torch.utils.tensorboard import SummaryWriter

            path = folder / "metrics.csv"
            _keep_rows(path, step)
            self._file = path.open("a", newline="", encoding="utf-8")
            self._csv = csv.writer(self._file)
            self._tensorboard = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def write(self, row: MetricsRow) -> None:
        """Adds a row, on the disk at once."""
        if self._file is None:
            return
        values = asdict(row)
        self._csv.writerow([_cell(value) for value in values.values()])
        self._file.flush()
        for name, title in _TENSORBOARD_NAMES.items():
            if values[name] is not None:
                self._tensorboard.add_scalar(title, values[name], row.step)

    def close(self) -> None:
        """Closes the files."""
        if self._file is not None:
            self._file.close()
            self._tensorboard.close()


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.6g}"


def _keep_rows(path: Path, step: int) -> None:
    """Leaves the header and the whole rows up to `step`."""
    rows: list[list[str]] = []
    if step and path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            position = COLUMNS.index("step")
            rows = [row for row in csv.reader(file) if len(row) == len(COLUMNS) and row[position].isdigit()]
            rows = [row for row in rows if int(row[position]) <= step]
    with whole_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([list(COLUMNS), *rows])

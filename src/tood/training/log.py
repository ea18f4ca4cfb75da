"""Figures of a run, as `metrics.csv` and for TensorBoard."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
        losses: by name, means over the steps since the row before; columns `loss_<name>`, and `loss` for their sum.
        AP, AP50, AP75: 0..1, of an evaluation.
    """

    epoch: float
    step: int
    seconds: float
    images_per_second: float | None = None
    lr: float | None = None
    losses: Mapping[str, float] = field(default_factory=dict)
    AP: float | None = None
    AP50: float | None = None
    AP75: float | None = None

    def cells(self, losses: Sequence[str]) -> dict[str, float | None]:
        """Value by column, None where the cell is empty, in a table of these losses."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.seconds,
            "images_per_second": self.images_per_second,
            "lr": self.lr,
            "loss": sum(self.losses.values()) if self.losses else None,
            **{f"loss_{name}": self.losses.get(name) for name in losses},
            "AP": self.AP,
            "AP50": self.AP50,
            "AP75": self.AP75,
        }


_TENSORBOARD_GROUPS = {"images_per_second": "speed", "lr": "train", "loss": "train", "AP": "val"}


class MetricsLog:
    """Writes rows; a resumed run goes on where its checkpoint was.

    Args:
        folder: of the run, where `metrics.csv` and `tensorboard/` are written.
        losses: names of those that have a column.
        step: the step that the run goes on from; later rows of an interrupted run are dropped.
        enabled: False in all processes but one.
    """

    def __init__(self, folder: Path, losses: Sequence[str], step: int = 0, enabled: bool = True) -> None:
        self._file: TextIO | None = None
        self._tensorboard: Any = None
        self._losses = tuple(losses)
        if enabled:
            from torch.utils.tensorboard import SummaryWriter

            path = folder / "metrics.csv"
            _keep_rows(path, step, tuple(MetricsRow(0, 0, 0).cells(losses)))
            self._file = path.open("a", newline="", encoding="utf-8")
            self._csv = csv.writer(self._file)
            self._tensorboard = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def write(self, row: MetricsRow) -> None:
        """Adds a row, on the disk at once."""
        if self._file is None:
            return
        cells = row.cells(self._losses)
        self._csv.writerow([_text(value) for value in cells.values()])
        self._file.flush()
        for column, value in cells.items():
            # loss_cls is of the group of loss, AP50 of that of AP.
            group = next((g for start, g in _TENSORBOARD_GROUPS.items() if column.startswith(start)), None)
            if group is not None and value is not None:
                self._tensorboard.add_scalar(f"{group}/{column}", value, row.step)

    def close(self) -> None:
        """Closes the files."""
        if self._file is not None:
            self._file.close()
            self._tensorboard.close()


def _text(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.6g}"


def _keep_rows(path: Path, step: int, columns: tuple[str, ...]) -> None:
    """Leaves the header and the whole rows up to `step`."""
    rows: list[list[str]] = []
    if step and path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            position = columns.index("step")
            rows = [row for row in csv.reader(file) if len(row) == len(columns) and row[position].isdigit()]
            rows = [row for row in rows if int(row[position]) <= step]
    with whole_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([list(columns), *rows])

"""Figures of a run, as `metrics.csv` and for the trackers."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from tood.training.trackers import Trackers
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


_GROUPS = {"images_per_second": "speed", "lr": "train", "loss": "train", "AP": "val"}


class MetricsLog:
    """Writes rows; a resumed run goes on where its checkpoint was.

    Args:
        folder: of the run, where `metrics.csv` is written.
        losses: names of those that have a column.
        step: the step that the run goes on from; later rows of an interrupted run are dropped.
        trackers: who else is told.
    """

    def __init__(self, folder: Path, losses: Sequence[str], step: int = 0, trackers: Trackers | None = None) -> None:
        self._losses, self._trackers = tuple(losses), trackers
        path = folder / "metrics.csv"
        _keep_rows(path, step, tuple(MetricsRow(0, 0, 0).cells(losses)))
        self._file: TextIO = path.open("a", newline="", encoding="utf-8")
        self._csv = csv.writer(self._file)

    def write(self, row: MetricsRow) -> None:
        """Adds a row, on the disk at once."""
        cells = row.cells(self._losses)
        self._csv.writerow([_text(value) for value in cells.values()])
        self._file.flush()
        if self._trackers is not None:
            # loss_cls is of the group of loss, AP50 of that of AP.
            groups = {
                column: next((g for start, g in _GROUPS.items() if column.startswith(start)), None) for column in cells
            }
            values = {f"{groups[c]}/{c}": v for c, v in cells.items() if groups[c] is not None and v is not None}
            self._trackers.log(values, row.step)

    def close(self) -> None:
        """Closes the file, and ends what the trackers have begun."""
        self._file.close()
        if self._trackers is not None:
            self._trackers.finish()


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

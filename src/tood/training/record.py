"""What a run tells of itself while it goes: a status line, the rows of `metrics.csv`, trackers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tood import configuration
from tood.training.checkpoint import CheckpointWriteError
from tood.training.config import RunConfig
from tood.training.log import MetricsLog, MetricsRow
from tood.training.progress import Status, TrainingDisplay, duration
from tood.training.schedule import Clock
from tood.training.state import Position, Window
from tood.training.trackers import Trackers


class RunRecord:
    """Shows and writes the figures of one process's run; only the main one's is opened and writes.

    Args:
        config: of the run.
        out: its folder.
        display: shows it.

    Attributes:
        window: sums since the last row.
        rate: the learning rate of the last step.
        tracker_ids: the trackers' names of this run, to go on with.
    """

    def __init__(self, config: RunConfig, out: Path, display: TrainingDisplay) -> None:
        self.config, self.out, self.display = config, out, display
        self.window, self.rate = Window(), 0.0
        self.tracker_ids: Mapping[str, str] = {}
        self._trackers: Trackers | None = None
        self._log: MetricsLog | None = None

    def open(self, terms: tuple[str, ...], step: int) -> None:
        """Begins to write, or goes on from a step, with a column for each loss of `terms`."""
        settings = configuration.flat(self.config)
        self._trackers = Trackers(self.config.trackers, self.out, settings, step, self.tracker_ids)
        self._log = MetricsLog(self.out, terms, step, self._trackers)

    def close(self) -> None:
        """Ends the file and the trackers."""
        if self._log is not None:
            self._log.close()

    @property
    def own_tracker_ids(self) -> Mapping[str, str]:
        """For a checkpoint."""
        return {} if self._trackers is None else self._trackers.ids

    def show(self, position: Position, progress: float, clock: Clock) -> None:
        """The status line after a step."""
        status = Status(
            epoch=position.epoch + 1,
            epochs=self.config.epochs if self.config.minutes is None else None,
            step=position.step,
            progress=progress,
            seconds_left=clock.seconds_left(position.step),
            losses=self.window.mean_losses,
            lr=self.rate,
            images_per_second=self.window.images_per_second,
            ap=position.ap,
        )
        self.display.step(status)

    def say_scores(self, row: MetricsRow, position: Position, best: bool, ends_early: bool) -> None:
        """What an evaluation gave, `best` where no earlier one was as good, `ends_early` where the run ends for it."""
        if position.ap is None:
            if position.evaluations == 1:
                self.display.say("nothing can be measured on the validation images: best.safetensors is the last")
            return
        remark = "  (best so far)" if best else ""
        self.display.say(
            f"epoch {row.epoch:.3g}, step {row.step}, {duration(row.seconds)}: "
            f"AP {row.AP:.3f}  AP50 {row.AP50:.3f}  AP75 {row.AP75:.3f}{remark}"
        )
        patience = self.config.patience
        if patience is not None and position.evaluations == patience + 1 and not position.has_risen:
            self.display.say(
                f"AP is 0.000 in all {position.evaluations} evaluations, which is no plateau: the run goes on until it "
                "has risen, at most its whole length; see meanwhile whether the boxes are right (`tood data check`) "
                "and large enough at this --size"
            )
        if ends_early:
            self.display.say(
                f"the run ends early: {position.evaluations_since_rise} evaluations brought no higher AP (patience)"
            )

    def training_row(self, epochs: float, step: int, seconds: float) -> MetricsRow | None:
        """The means of the window, if it has any, and a new window."""
        window, self.window = self.window, Window()
        if not window.steps:
            return None
        return MetricsRow(
            epochs,
            step,
            seconds,
            images_per_second=window.images_per_second,
            lr=self.rate,
            losses=window.mean_losses,
        )

    def write(self, row: MetricsRow) -> None:
        """Adds a row.

        Raises:
            CheckpointWriteError: the disk is full.
        """
        if self._log is None:
            return
        try:
            self._log.write(row)
        except OSError as error:
            raise CheckpointWriteError(f"cannot write to {self.out}: {error.strerror}") from error

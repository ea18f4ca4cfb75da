"""The training loop: epochs of steps, with evaluations, checkpoints and interruptions."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import Any

from accelerate import Accelerator, skip_first_batches
from accelerate.data_loader import prepare_data_loader

from tood.alignment import Progress
from tood.data import Batch, TrainBatchSampler, WorkerDeaths, WorkerDiedError
from tood.errors import ToodError, quoted
from tood.models import AnyDetector
from tood.stop import LAUNCHER_ECHO, StopSignal
from tood.training.agreement import Situation, agreed
from tood.training.checkpoint import CheckpointWriteError, random_states, set_random_states, write_checkpoint
from tood.training.config import RunConfig
from tood.training.guard import MOST_SKIPPED, NotFiniteError
from tood.training.learner import Learner
from tood.training.log import MetricsRow
from tood.training.progress import TrainingDisplay
from tood.training.record import RunRecord
from tood.training.resuming import TrainingImages
from tood.training.run_state import RunState, StepUnderWay
from tood.training.schedule import Clock, Turn, rate_factor
from tood.training.state import Position, Positives, Scores, TrainResult, Window, result_of
from tood.training.validation import Validation
from tood.weights import save_weights

BEST = "best.safetensors"


class Trainer:
    """One run. `run()` goes from wherever it stands to its end or to a signal.

    Args:
        config: the run.
        model: the network, weights initialised.
        images: what it learns from.
        validation: what it is evaluated on, None for nothing.
        accelerator: device, precision and processes.
        display: shows the run.
    """

    def __init__(
        self,
        config: RunConfig,
        model: AnyDetector,
        images: TrainingImages,
        validation: Validation | None,
        accelerator: Accelerator,
        display: TrainingDisplay,
    ) -> None:
        assert config.out is not None
        assert config.epochs is not None or config.minutes is not None, "`with_length` has seen to it"
        self.config, self.out, self.images, self.validation = config, config.out, images, validation
        self.accelerator, self.display = accelerator, display
        self.learner = Learner(config, model, accelerator)
        self.processes = self.learner.processes
        # Alone: the loader gives this process's batches already.
        self.loader = prepare_data_loader(
            images.loader, accelerator.device, 1, 0, put_on_device=True, non_blocking=True
        )
        self.steps_per_epoch = math.ceil(len(self.loader) / self.learner.accumulation)
        self.clock = Clock(self.steps_per_epoch * (config.epochs or 0), config.minutes)
        self.position = Position()
        self.record = RunRecord(config, config.out, display)
        self.under_way: list[StepUnderWay] = []  # launched, their numbers not read
        self.positives = Positives()
        self.better_ap: float | None = None  # of best.safetensors, where no checkpoint knows it
        self.random_states: Mapping[str, Any] | None = None
        self.last_checkpoint = time.monotonic()
        self.worker_deaths = WorkerDeaths(
            "set data.workers to 1 or 0, or data.cache=false, and go on from the last checkpoint"
        )
        self.failure: Exception | None = None  # of this process, not told to the others yet
        self.stopped_by = 0  # the signal that all have agreed to stop for

    # --- the run ---------------------------------------------------------------------------------------------------

    def run(self) -> TrainResult:
        """Trains to the end, or until SIGINT, SIGTERM or SIGHUP, or until nobody can read what is shown any more.

        Those end in a checkpoint.

        Raises:
            ToodError: a loss that is not finite, an image that cannot be read, a disk that is full. A checkpoint of the
                last good state was written before, if the disk takes one.
        """
        with StopSignal(echo=0.0 if self.processes.alone else LAUNCHER_ECHO) as stop, self.display, self.worker_deaths:
            self.stop = stop
            with self.processes.agreed():
                if self.processes.main:
                    self.record.open(self.learner.criterion.terms, self.position.step)
            try:
                self._run()
            except CheckpointWriteError:
                raise
            except Exception:
                self._keep_last_good_state()
                raise
            finally:
                self.record.close()
        return result_of(self.position, self.out, self.out / BEST, self.epochs, self.clock.seconds, self.stopped_by)

    def _keep_last_good_state(self) -> None:
        """A last checkpoint, without the other processes' random states: they have failed too, or wait no longer."""
        with suppress(NotFiniteError):  # then the run stands before that step
            self._settle(ask=False)
        if self.processes.main and self.position.step and not self.learner.moving:
            with suppress(Exception):
                self._log_training()
                self._write_files([random_states()])
                self.display.say(
                    f"all {self.position.step} steps are kept: once that is mended, "
                    f"`tood train --resume --out {quoted(self.out)}` goes on"
                )

    def _run(self) -> None:
        self.clock.start()
        self.last_checkpoint = time.monotonic()
        at_epoch_end = self.position.batch == 0  # a run that goes on may not have evaluated that epoch yet
        while True:
            # Each process has a clock of its own.
            if at_epoch_end and self.processes.from_main(self._evaluation_due):
                self._evaluate()
                self._turn_to_the_end()
            if self._ends_early:
                break
            goes_on = self._train_epoch()
            self.images.tell(self.processes)
            if not goes_on:
                break
            at_epoch_end = True
        self.clock.pause()
        self._log_training()
        if not self.stopped_by and self.position.evaluated_step != self.position.step:
            self._evaluate()
        self._write_checkpoint()
        self.processes.raise_first(self.failure)

    @property
    def epochs(self) -> float:
        """Passes over the training images, with their fraction."""
        return self.position.epoch + self.position.batch / len(self.loader)

    @property
    def finished(self) -> bool:
        """Whether the run has gone its whole length, or as far as its patience, and nothing is left to evaluate."""
        at_end = self.clock.progress(self.position.step) >= 1 or self._ends_early
        return at_end and self.position.evaluated_step == self.position.step

    def require_unfinished(self) -> None:
        """Refuses to go on with a run that is complete.

        Raises:
            ToodError: it is; the message says what makes it go on.
        """
        if not self.finished:
            return
        if not self._patience_is_over:
            why, more = f"({self.config.length})", "give more --epochs or --minutes to go on with it"
        else:
            why = f"(patience={self.config.patience}: so many evaluations brought no higher AP)"
            more = "give a higher patience to go on with it, or --set patience=null"
            if self.clock.progress(self.position.step) >= 1:
                more += ", and more --epochs or --minutes"
        raise ToodError(f"the run in {self.out} is complete {why}: {more}")

    def keep_better(self, ap: float | None) -> None:
        """Lets only weights of this AP or more take the place of the best ones, before `run`.

        A run that was killed between an evaluation and the next checkpoint has left them, and need not reach them
        again: sums on a GPU differ from run to run, a timed run ends elsewhere.
        """
        highest = self.position.highest_ap
        if ap is not None and (highest is None or ap > highest):
            self.better_ap = self.position.best_ap = ap
            self.display.say(f"{self.out / BEST} is of an evaluation after that, AP {ap:.3f}: no lower one replaces it")

    def _train_epoch(self) -> bool:
        """The rest of the epoch under way; whether the run goes on after it."""
        position = self.position
        self.learner.train_mode()
        self.positives.begin(position.batch == 0)
        if position.batch == 0:
            position.epoch_share = self.processes.from_main(lambda: self.clock.progress(position.step))
        if isinstance(self.images.loader.batch_sampler, TrainBatchSampler):
            self.images.loader.batch_sampler.set_share(position.epoch_share)
        self.loader.set_epoch(position.epoch)
        batches = skip_first_batches(self.loader, position.batch) if position.batch else self.loader
        if position.batch == 0:
            self._restore_random_states()
        for loaded in _groups(self._loaded(batches), self.learner.accumulation):
            self._restore_random_states()  # after what starting the loader drew
            progress, goes_on, group = self._agree(loaded, checkpoint=True)
            if not goes_on:
                return False
            self._step(group, progress)
            position.batch += len(group)
        if position.batch < len(self.loader):
            self._agree([])
            return False  # the loading processes were stopped first
        self._settle()
        position.epoch, position.batch = position.epoch + 1, 0
        if complaint := self.positives.complaint(position.epoch, self.config.model.input.short):
            self.display.say(complaint)
        _, goes_on, _ = self._agree([])
        return goes_on

    def _loaded(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches; Ctrl-C reaches the loading processes too, whose end then is no error."""
        try:
            yield from self.worker_deaths.batches(batches)
        except Exception as error:
            if not (isinstance(error, WorkerDiedError) and self.stop.number):
                self._fail(error)

    def _step(self, group: list[Batch], progress: float) -> None:
        """One optimiser step, or none where its numbers are not finite and the run is to go on."""
        position, learner = self.position, self.learner
        self.record.rate = learner.peak_rate * rate_factor(self.config.schedule, position.step, progress)
        before, number = replace(position), position.step + 1
        try:
            step = learner.launch(group, number, self.record.rate, Progress(position.epoch, progress))
        except NotFiniteError as error:
            self._settle()
            self._pass_over(error, before)
        else:
            images = sum(len(batch.infos) for batch in group) * self.processes.count
            self.under_way.append(StepUnderWay(step, before, images))
        position.step += 1
        self._settle(but=int(learner.guard.deferred))
        self.record.show(self.position, progress, self.clock)
        if position.step == 1 or position.step % self.config.log_every == 0:
            self._log_training()

    def _settle(self, but: int = 0, ask: bool = True) -> None:
        """Reads what the steps under way have computed; waits for the device.

        Args:
            but: so many of the last ones are left.
            ask: the other processes, where a number is not finite, for their images.

        Raises:
            NotFiniteError: of a step that ends the run, which then stands before it.
        """
        while len(self.under_way) > but:
            first = self.under_way.pop(0)
            try:
                losses = first.step.losses(ask)
            except NotFiniteError as error:
                self._pass_over(error, first.before)
            else:
                self.position.skipped = 0
                self.record.window.add(losses, first.images)
                self.positives.add(losses)

    def _pass_over(self, error: NotFiniteError, before: Position) -> None:
        """Goes on after a bad step, or ends the run, which then stands before it: nothing has changed since."""
        self.position.skipped += 1
        if self.config.not_finite == "stop" or self.position.skipped > MOST_SKIPPED:
            self.under_way.clear()  # the device has left them out
            self.position = replace(before, skipped=self.position.skipped)
            raise error
        self.display.say(f"step {before.step + 1} is skipped: {error}")

    def _agree(self, group: list[Batch], checkpoint: bool = False) -> tuple[float, bool, list[Batch]]:
        """What all processes must see alike, each with its own clock, signals and images.

        Args:
            group: batches of the next step, if there is one.
            checkpoint: write one here, if it is time.

        Returns:
            Progress, whether to go on, and the batches of a step padded as all processes' images together would be:
            what a network finds near an image's border depends on its padding.

        Raises:
            ToodError: where a process has failed since the last time.
        """
        due = time.monotonic() - self.last_checkpoint >= self.config.checkpoint_minutes * 60
        progress, stopped_by = self.clock.progress(self.position.step), self.stop.number or self.display.lost
        own = Situation(progress, stopped_by, due, self.failure is not None)
        all_see, group = agreed(own, group, self.learner.accumulation, self.processes)
        if all_see.failed:
            self.processes.raise_first(self.failure)
        self.stopped_by = all_see.stopped_by
        # However short its time is, a run takes a step: untrained weights are of no use.
        goes_on = not self.stopped_by and (all_see.progress < 1 or not self.position.step)
        if checkpoint and all_see.due and goes_on and self.position.step:
            self._write_checkpoint()
        return all_see.progress, goes_on, group

    def _fail(self, error: Exception) -> None:
        """Ends a lone process; of several each ends the next time that they agree."""
        if self.processes.alone:
            raise error
        self.failure = error

    # --- evaluation ------------------------------------------------------------------------------------------------

    def _evaluation_due(self) -> bool:
        """Whether to evaluate after the epoch that has just ended."""
        position = self.position
        if self.validation is None or position.step == 0 or position.evaluated_step == position.step:
            return False
        return self.validation.due(self.config, position, self.learner.images_per_step, self.clock.seconds)

    @property
    def _patience_is_over(self) -> bool:
        return self.position.patience_is_over(self.config.patience)

    @property
    def _ends_early(self) -> bool:
        return self._patience_is_over and not self.config.cool_down

    def _turn_to_the_end(self) -> None:
        """At a plateau: what is left of the schedule is gone through in a share of the run so far."""
        position, share = self.position, self.config.cool_down
        if not share or position.plateau is not None or not self._patience_is_over:
            return
        seconds = self.processes.from_main(lambda: self.clock.seconds)
        position.plateau = (position.step, seconds, position.evaluations_since_rise)
        self.clock.turn = self._turn
        self.display.say(
            f"AP has not risen in {position.evaluations_since_rise} evaluations: from here the rate falls to its end, "
            f"in {share:.0%} of the run so far"
        )

    @property
    def _turn(self) -> Turn | None:
        plateau, share = self.position.plateau, self.config.cool_down
        return None if plateau is None or not share else Turn(plateau[0], plateau[1], share)

    def _evaluate(self) -> None:
        """AP now; the best weights so far are saved as `best.safetensors`."""
        self._log_training()
        # Noted when all of it has succeeded: what fails half-way is done again by the run that goes on.
        position, model = replace(self.position), self.learner.averaged
        scores, best, figures = None, True, {}
        if self.validation is not None:
            scores, best = self.validation.run(model.eval(), position)
            if position.ap is not None:
                if best and self.better_ap is not None and position.ap < self.better_ap:
                    best, position.best_ap = False, self.better_ap
                figures = {"AP": position.ap, "step": position.step} if self.validation.selects else {}
        position.evaluated_step = position.step
        with self.processes.agreed():
            if best and self.processes.main:
                save_weights(self.out / BEST, model, self.images.class_names, figures=figures)
        self.position = position
        if scores is not None:
            self._tell(scores, best)
        self.record.window = Window()

    def _tell(self, scores: Scores, best: bool) -> None:
        position, seconds = self.position, self.clock.seconds
        row = MetricsRow(self.epochs, position.step, seconds, AP=scores.ap, AP50=scores.ap50, AP75=scores.ap75)
        if position.ap is not None:
            self._write_row(row)
        selects = self.validation is not None and self.validation.selects
        self.record.say_scores(row, position, best and selects, self._ends_early)

    # --- log, checkpoints ------------------------------------------------------------------------------------------

    def _log_training(self) -> None:
        """A row with the means of the window, and a new window."""
        self._settle()
        row = self.record.training_row(self.epochs, self.position.step, self.clock.seconds)
        if row is not None:
            self._write_row(row)

    def _write_row(self, row: MetricsRow) -> None:
        try:
            self.record.write(row)
        except CheckpointWriteError as error:
            self._fail(error)

    def _write_checkpoint(self) -> None:
        """`checkpoint.pt` and `last.safetensors`; all processes are needed for it."""
        self._settle()
        states = self.processes.gather(random_states())
        if self.processes.main:
            try:
                self._write_files(states)
            except Exception as error:
                self._fail(error)
        self.last_checkpoint = time.monotonic()

    def _write_files(self, states: list[dict[str, Any]]) -> None:
        write_checkpoint(self.out, self.state_dict(states), self.config.keep)
        save_weights(self.out / "last.safetensors", self.learner.averaged, self.images.class_names)

    def state_dict(self, states: list[dict[str, Any]]) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on from here; `states` are the processes' random states."""
        ids = self.record.own_tracker_ids
        state = RunState(self.position, self.record.window, self.clock.seconds, states, ids)
        return state.to_dict(self.learner, self.images, self.config.seed)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes up what `state_dict` gave, before `run`.

        Raises:
            ToodError: if it is of another network or optimiser.
        """
        taken, remarks = RunState.take_up(state, self.learner, self.images, self.config.seed, self.out)
        self.position, self.record.window, self.record.tracker_ids = taken.position, taken.window, taken.tracker_ids
        plateau, patience = self.position.plateau, self.config.patience
        if plateau is not None and (patience is None or patience > plateau[2]):
            self.position.plateau = None  # it was told to be more patient
        self.clock = Clock(self.clock.total_steps, self.config.minutes, taken.seconds, self._turn)
        states = taken.random_states
        self.random_states = states[self.processes.rank] if self.processes.rank < len(states) else None
        for remark in remarks:
            self.display.say(remark)

    def _restore_random_states(self) -> None:
        if self.random_states is not None:
            set_random_states(self.random_states)
            self.random_states = None


def _groups(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Lists of so many batches, the last one perhaps of fewer."""
    iterator = iter(batches)
    while group := list(islice(iterator, size)):
        yield group

"""The training loop: batch -> predictions -> losses -> step, with evaluations, checkpoints and interruptions."""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from itertools import islice
from typing import Any

import torch
from accelerate import Accelerator, skip_first_batches
from accelerate.data_loader import prepare_data_loader
from torch import Tensor
from torch.utils.data import DataLoader

from tood.alignment import Losses, build_criterion
from tood.data import Batch
from tood.errors import ToodError
from tood.models import AnyDetector, normalise, padded_sizes, save_weights
from tood.processes import Processes
from tood.training.batch_norm import share_batch_statistics
from tood.training.checkpoint import random_states, set_random_states, write_checkpoint
from tood.training.config import RunConfig
from tood.training.ema import EMA
from tood.training.log import MetricsLog, MetricsRow
from tood.training.optim import build_optimizer, scaled_rate
from tood.training.progress import Status, TrainingDisplay, duration
from tood.training.schedule import Clock, rate_factor
from tood.training.state import Position, Scores, TrainResult, Window
from tood.training.stop import LAUNCHER_ECHO, StopSignal


class Trainer:
    """One run. `run()` goes from wherever it stands to its end or to a signal.

    Args:
        config: the run; its `out` is where files go.
        model: the network, weights initialised.
        class_names: saved with the weights.
        loader: training batches of this process; its batch sampler has `set_epoch`.
        evaluate: AP of a network on the validation images, None where there are none.
        validation_images: their number, to guess the time that takes.
        selects: whether the AP may choose the best weights; it may not where the images are those of the test.
        accelerator: device, precision and processes.
        display: shows the run.
    """

    def __init__(
        self,
        config: RunConfig,
        model: AnyDetector,
        class_names: tuple[str, ...],
        loader: DataLoader[Batch],
        evaluate: Callable[[AnyDetector], Scores] | None,
        validation_images: int,
        selects: bool,
        accelerator: Accelerator,
        display: TrainingDisplay,
    ) -> None:
        assert config.out is not None
        self.config, self.out, self.class_names = config, config.out, class_names
        self.evaluate, self.validation_images, self.selects = evaluate, validation_images, selects
        self.accelerator, self.display = accelerator, display
        self.processes = Processes(accelerator.num_processes, accelerator.process_index)
        self.criterion = build_criterion(config.criterion)
        self.input = model.config.input
        model.to(accelerator.device)
        if config.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = EMA(model, config.ema) if config.ema.enabled else None
        self.shared_norms = [] if self.processes.alone else share_batch_statistics(model)
        batch_size, self.accumulation = config.batches(self.processes.count)
        self.images_per_step = batch_size * self.accumulation * self.processes.count
        self.peak_rate = scaled_rate(config.optimizer, self.images_per_step)
        optimizer = build_optimizer(config.optimizer, model, self.peak_rate)
        # The same modules and weights, without the lower precision that Accelerate puts into `model.forward` for good.
        self.plain = copy.copy(model)
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        # Alone: the loader gives this process's batches already.
        self.loader = prepare_data_loader(loader, accelerator.device, 1, 0, put_on_device=True)
        self.steps_per_epoch = math.ceil(len(self.loader) / self.accumulation)
        self.clock = Clock(self.steps_per_epoch * config.epochs, config.minutes)
        self.position = Position()
        self.log: MetricsLog | None = None
        self.window = Window()
        self.random_states: Mapping[str, Any] | None = None
        self.last_checkpoint = time.monotonic()
        self.failure: Exception | None = None  # of this process, not told to the others yet
        self.stopped_by = 0  # the signal that all have agreed to stop for

    # --- the run ---------------------------------------------------------------------------------------------------

    def run(self) -> TrainResult:
        """Trains to the end, or until SIGINT or SIGTERM, which end in a checkpoint.

        Raises:
            ToodError: a loss that is not finite, an image that cannot be read, a disk that is full.
        """
        with StopSignal(echo=0.0 if self.processes.alone else LAUNCHER_ECHO) as stop, self.display:
            self.stop = stop
            self.log = MetricsLog(self.out, self.criterion.terms, self.position.step, self.accelerator.is_main_process)
            try:
                self.clock.start()
                self.last_checkpoint = time.monotonic()
                while self._train_epoch():
                    if self.processes.from_main(self._evaluation_due):  # each has a clock of its own
                        self._evaluate()
                self.clock.pause()
                if not self.stopped_by:
                    self._log_training()
                    if self.position.evaluated_step != self.position.step:
                        self._evaluate()
                self._write_checkpoint()
                self.processes.raise_first(self.failure)
            finally:
                self.log.close()
        return self._result(self.stopped_by)

    @property
    def epochs(self) -> float:
        """Passes over the training images, with their fraction."""
        return self.position.epoch + self.position.batch / len(self.loader)

    @property
    def finished(self) -> bool:
        """Whether the run has gone its whole length."""
        return self.clock.progress(self.position.step) >= 1

    def _train_epoch(self) -> bool:
        """The rest of the epoch under way; whether the run goes on after it."""
        position = self.position
        self.model.train()
        self.loader.set_epoch(position.epoch)
        batches = skip_first_batches(self.loader, position.batch) if position.batch else self.loader
        if position.batch == 0:
            self._restore_random_states()
        for loaded in _groups(self._loaded(batches), self.accumulation):
            self._restore_random_states()  # after what starting the loader drew
            progress, stopped, group = self._agree(loaded)
            if stopped or progress >= 1:
                return False
            self._step(group, progress)
            position.batch += len(group)
            if position.batch < len(self.loader):
                self._write_checkpoint_if_due()
        if position.batch < len(self.loader):
            self._agree([])
            return False  # the loading processes were stopped first
        position.epoch, position.batch = position.epoch + 1, 0
        self._write_checkpoint_if_due()
        progress, stopped, _ = self._agree([])
        return not stopped and progress < 1

    def _loaded(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches; Ctrl-C reaches the loading processes too, whose end then is no error."""
        iterator = iter(batches)
        while True:
            try:
                batch = next(iterator)
            except StopIteration:
                return
            except Exception as error:
                if not (isinstance(error, RuntimeError) and self.stop.number):
                    self._fail(error)
                return
            yield batch

    def _step(self, group: list[Batch], progress: float) -> None:
        """One optimiser step over the gradients of a group of batches."""
        config, position = self.config, self.position
        rate = self.peak_rate * rate_factor(config.schedule, position.step, progress)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = rate
        warm_up = config.warms_up_assigner(position.epoch, progress)
        for number, batch in enumerate(group, start=1):
            last = number == len(group)
            with contextlib.nullcontext() if last else self.accelerator.no_sync(self.model):
                losses = self._losses(batch, warm_up)
                self.accelerator.backward(losses.total / len(group))
            self._count(batch, losses, len(group))
        if config.clip_gradient is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), config.clip_gradient)
        self.optimizer.step()
        self.optimizer.zero_grad()
        position.step += 1
        if self.ema is not None:
            self.ema.update(self.accelerator.unwrap_model(self.model), position.step)
        self._show(rate, progress)

    def _losses(self, batch: Batch, warm_up: bool) -> Losses:
        for norm in self.shared_norms:
            norm.counts = not batch.blank
        predictions = self.model(normalise(batch.images, batch.sizes, self.input))
        # Looked at before the criterion, whose cross entropy ends the process at a score that is no number. The sum
        # of many logits is more than fp16 holds.
        output = predictions.scores.float().sum() + predictions.boxes.float().sum()
        self._finite("the network's output", batch, output)
        return self.criterion(predictions, batch.targets, padded_sizes(batch.sizes, self.input.divisor), warm_up)

    def _count(self, batch: Batch, losses: Losses, batches: int) -> None:
        """Adds a batch to the window; stops at a loss that is not finite, before it reaches the weights."""
        values = self._finite("the loss", batch, *losses.terms.values())
        self.window.images += len(batch.infos) * self.processes.count
        for name, value in zip(losses.terms, values, strict=True):
            self.window.losses[name] = self.window.losses.get(name, 0.0) + value / batches

    def _finite(self, what: str, batch: Batch, *scalars: Tensor) -> list[float]:
        """The scalars' means over the processes, which all stop together where one is not finite."""
        own = torch.stack([scalar.detach().float() for scalar in scalars])
        mean = own if self.processes.alone else self.processes.mean(own)
        numbers: list[float] = mean.tolist()  # the one wait for the device
        if not math.isfinite(sum(numbers)):
            values = own.tolist()
            finite = math.isfinite(sum(values)) and not self.processes.alone
            self.processes.raise_first(None if finite else self._not_finite(what, batch, values))
        return numbers

    def _not_finite(self, what: str, batch: Batch, values: list[float]) -> ToodError:
        return ToodError(
            f"{what} ({', '.join(map(str, values))}) is not finite at step {self.position.step + 1}, on the images "
            f"{', '.join(info.path for info in batch.infos)}: lower optimizer.lr, set clip_gradient (10 is usual) or "
            "use precision=fp32"
        )

    def _agree(self, group: list[Batch]) -> tuple[float, bool, list[Batch]]:
        """What all processes must see alike, each with its own clock, signals and images.

        Returns:
            Progress, whether to stop, and the batches of a step padded as all processes' images together would be: what
            a network finds near an image's border depends on its padding.

        Raises:
            ToodError: where a process has failed since the last time.
        """
        progress, self.stopped_by = self.clock.progress(self.position.step), self.stop.number
        if self.processes.alone:
            return progress, self.stopped_by != 0, group
        shapes = [side for batch in group for side in batch.images.shape[2:]]
        shapes += [0] * (2 * self.accumulation - len(shapes))
        own = [progress, float(self.stopped_by), float(self.failure is not None), *shapes]
        values = torch.tensor(own, dtype=torch.float64, device=self.accelerator.device)
        progress, stopped_by, failed, *sides = self.processes.largest(values).tolist()
        if failed:
            self.processes.raise_first(self.failure)
        self.stopped_by = int(stopped_by)
        padded = [
            batch.padded_to(int(height), int(width))
            for batch, height, width in zip(group, sides[::2], sides[1::2], strict=False)
        ]
        return progress, self.stopped_by != 0, padded

    def _fail(self, error: Exception) -> None:
        """Ends a lone process; of several each ends the next time that they agree."""
        if self.processes.alone:
            raise error
        self.failure = error

    # --- evaluation ------------------------------------------------------------------------------------------------

    @property
    def averaged(self) -> AnyDetector:
        """The network that is evaluated (in fp32) and saved: the average, if there is one."""
        return self.plain if self.ema is None else self.ema.module

    def _evaluation_due(self) -> bool:
        """Whether to evaluate after this epoch."""
        if self.evaluate is None or self.position.epoch % self.config.evaluate_every:
            return False
        if self.config.minutes is None:
            return True
        # In a timed run all evaluations together may take `evaluation_share` of the time so far. One takes what the
        # earlier ones took or, for the first one, half the time of training on as many images.
        position, seconds = self.position, self.clock.seconds
        expected = self.validation_images * seconds / (position.step * self.images_per_step) / 2
        if position.evaluations:
            expected = position.evaluation_seconds / position.evaluations
        return bool(position.evaluation_seconds + expected <= self.config.evaluation_share * seconds)

    def _evaluate(self) -> None:
        """AP now; the best weights so far are saved as `best.safetensors`."""
        position, best = self.position, True
        position.evaluated_step = position.step
        if self.evaluate is not None:
            started = time.monotonic()
            scores = self.evaluate(self.averaged.eval())
            position.evaluations += 1
            position.evaluation_seconds += time.monotonic() - started
            position.ap, position.ap50, position.ap75 = scores.ap, scores.ap50, scores.ap75
            best = position.best_ap is None or scores.ap > position.best_ap or not self.selects
            self._write_row(AP=scores.ap, AP50=scores.ap50, AP75=scores.ap75)
            remark = "  (best so far)" if best and self.selects else ""
            self.display.say(
                f"epoch {self.epochs:.3g}, step {position.step}, {duration(self.clock.seconds)}: "
                f"AP {scores.ap:.3f}  AP50 {scores.ap50:.3f}  AP75 {scores.ap75:.3f}{remark}"
            )
            if best:
                position.best_ap = scores.ap
        with self.processes.agreed():
            if best and self.processes.main:
                save_weights(self.out / "best.safetensors", self.averaged, self.class_names)
        self.window = Window()

    # --- log, checkpoints ------------------------------------------------------------------------------------------

    def _show(self, rate: float, progress: float) -> None:
        position, window = self.position, self.window
        window.steps += 1
        self.rate = rate
        status = Status(
            epoch=position.epoch + 1,
            epochs=self.config.epochs if self.config.minutes is None else None,
            step=position.step,
            progress=progress,
            seconds_left=self.clock.seconds_left(position.step),
            losses=window.mean_losses,
            lr=rate,
            images_per_second=window.images_per_second,
            ap=position.ap,
        )
        self.display.step(status)
        if position.step == 1 or position.step % self.config.log_every == 0:
            self._log_training()

    def _log_training(self) -> None:
        """A row with the means of the window, and a new window."""
        window = self.window
        if window.steps:
            self._write_row(images_per_second=window.images_per_second, lr=self.rate, losses=window.mean_losses)
        self.window = Window()

    def _write_row(self, **values: Any) -> None:
        assert self.log is not None
        try:
            self.log.write(MetricsRow(epoch=self.epochs, step=self.position.step, seconds=self.clock.seconds, **values))
        except OSError as error:  # the disk is full
            self._fail(error)

    def _write_checkpoint_if_due(self) -> None:
        if time.monotonic() - self.last_checkpoint >= self.config.checkpoint_minutes * 60:
            self._write_checkpoint()

    def _write_checkpoint(self) -> None:
        """`checkpoint.pt` and `last.safetensors`."""
        if self.processes.main:
            try:
                write_checkpoint(self.out, self.state_dict(), self.config.keep)
                save_weights(self.out / "last.safetensors", self.averaged, self.class_names)
            except Exception as error:
                self._fail(error)
        self.last_checkpoint = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on from here."""
        return {
            "model": self.accelerator.unwrap_model(self.model).state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if self.accelerator.scaler is None else self.accelerator.scaler.state_dict(),
            "position": asdict(self.position),
            "images_per_step": self.images_per_step,
            "accumulation": self.accumulation,
            "seconds": self.clock.seconds,
            "random_states": random_states(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes up what `state_dict` gave, before `run`.

        Raises:
            ToodError: if it is of another network or optimiser.
        """
        try:
            self.accelerator.unwrap_model(self.model).load_state_dict(state["model"])
            if self.ema is not None:
                self.ema.load_state_dict(state["ema"] or state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.accelerator.scaler is not None and state["scaler"] is not None:
                self.accelerator.scaler.load_state_dict(state["scaler"])
            self.position = Position(**state["position"])
            self._keep_step_size(state["images_per_step"], state["accumulation"])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            first_line = str(error).strip().split("\n")[0]
            raise ToodError(f"the checkpoint in {self.out} is of another model or recipe: {first_line}") from error
        self.clock = Clock(self.clock.total_steps, self.config.minutes, state["seconds"])
        self.random_states = state["random_states"]

    def _keep_step_size(self, images_per_step: int, accumulation: int) -> None:
        """Counts the epoch's batches anew where more or fewer of them make a step; a step keeps its images."""
        if images_per_step != self.images_per_step:
            raise ToodError(
                f"the run in {self.out} takes {images_per_step} images a step, this would be {self.images_per_step}: "
                "give the --batch-size or the number of processes that makes them equal"
            )
        self.position.batch = self.position.batch // accumulation * self.accumulation

    def _restore_random_states(self) -> None:
        if self.random_states is not None:
            set_random_states(self.random_states)
            self.random_states = None

    def _result(self, interrupted_by: int) -> TrainResult:
        position, best = self.position, self.out / "best.safetensors"
        return TrainResult(
            out=self.out,
            best=best if best.is_file() else None,
            last=self.out / "last.safetensors",
            ap=position.ap,
            ap50=position.ap50,
            ap75=position.ap75,
            best_ap=position.best_ap,
            epochs=self.epochs,
            steps=position.step,
            seconds=self.clock.seconds,
            interrupted_by=interrupted_by or None,
        )


def _groups(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    """Lists of so many batches, the last one perhaps of fewer."""
    iterator = iter(batches)
    while group := list(islice(iterator, size)):
        yield group

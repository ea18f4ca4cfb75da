"""What learns and how: a network, its criterion, its optimiser and its average; one step at a time."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from tood.alignment import Losses, Progress
from tood.data import Batch
from tood.input import normalise, padded_sizes
from tood.models import AnyDetector
from tood.processes import Processes
from tood.training.batch_norm import share_batch_statistics
from tood.training.config import RunConfig
from tood.training.ema import EMA
from tood.training.freeze import freeze_parts
from tood.training.guard import MOST_SKIPPED, FiniteGuard, StepCheck, gradient_norm
from tood.training.optim import build_optimizer, inner_optimizer, load_optimizer, scaled_rate, set_rate, start_momenta

# Steps in a row that fp16's scaler may drop: it halves its scale each time, from 2^16.
MOST_OVERFLOWS = 30


class Learner:
    """A network in training.

    Args:
        config: of the run.
        model: the network, weights initialised.
        accelerator: device, precision and processes.

    Attributes:
        criterion: what is minimised.
        images_per_step: of all processes together.
        accumulation: batches of one process that make a step.
        peak_rate: the learning rate that the schedule's factor multiplies.

    Raises:
        ToodError: if a part that is to be frozen does not exist.
    """

    def __init__(self, config: RunConfig, model: AnyDetector, accelerator: Accelerator) -> None:
        self.config, self.accelerator = config, accelerator
        self.processes = Processes(accelerator.num_processes, accelerator.process_index)
        most_skipped = MOST_SKIPPED if config.not_finite == "skip" else 0
        self.guard = FiniteGuard(self.processes, most_skipped, deferred=accelerator.device.type != "cpu")
        self.check = self.guard.begin(0)  # of the step under way
        self.criterion = config.criterion.build()
        self.input = model.config.input
        model.to(accelerator.device)
        if config.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.frozen = freeze_parts(model, config.freeze) if config.freeze else []
        self.ema = EMA(model, config.ema) if config.ema.enabled else None
        shares = config.sync_batch_norm and not self.processes.alone
        self.shared_norms = share_batch_statistics(model) if shares else []
        batch_size, self.accumulation = config.batches(self.processes.count)
        self.images_per_step = batch_size * self.accumulation * self.processes.count
        self.peak_rate = scaled_rate(config.optimizer, self.images_per_step)
        optimizer = build_optimizer(config.optimizer, model, self.peak_rate)
        # The same modules and weights, without the lower precision that Accelerate puts into `model.forward` for good.
        self.plain = copy.copy(model)
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self.moving = False  # whether weights and average are in the middle of a step
        self.overflows = 0  # steps in a row that fp16's scaler has dropped

    @property
    def averaged(self) -> AnyDetector:
        """The network that is evaluated (in fp32) and saved: the average, if there is one."""
        return self.plain if self.ema is None else self.ema.averaged()

    def train_mode(self) -> None:
        """Makes it ready for steps, after an evaluation too."""
        self.model.train()
        for part in self.frozen:
            part.eval()

    def step(self, batches: Sequence[Batch], number: int, rate: float, progress: Progress) -> dict[str, float]:
        """One optimiser step over the gradients of a group of batches; waits until it is done.

        Args:
            batches: of this process.
            number: of the step, from 1.
            rate: learning rate.
            progress: of the run, which the criterion's phases go by.

        Returns:
            The step's losses by name, over all processes.

        Raises:
            NotFiniteError: a loss or gradient is no number; the weights are as they were.
        """
        return self.launch(batches, number, rate, progress).losses()

    def launch(self, batches: Sequence[Batch], number: int, rate: float, progress: Progress) -> LaunchedStep:
        """As `step`, but an accelerator is only given the work: `losses` of what is returned waits and raises."""
        set_rate(self.optimizer, rate)
        statistics = self._statistics()
        before = [buffer.clone() for buffer in statistics]
        self.check = self.guard.begin(number)
        try:
            parts = self._gradients(batches, number, progress)
            self._limit_gradient(batches, number)
            skipped = self.check.send() if self.guard.deferred else None
        except Exception:
            self.optimizer.zero_grad()
            for buffer, value in zip(statistics, before, strict=True):
                buffer.copy_(value)  # the forward pass has changed it
            raise
        self.moving = True
        if skipped is None:
            self.optimizer.step()
        else:
            self._step_unless(skipped)
            for buffer, value in zip(statistics, before, strict=True):
                torch.where(skipped, value, buffer, out=buffer)
        self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.update(self.accelerator.unwrap_model(self.model), number, skipped)
        self.moving = False
        return LaunchedStep(self, self.check, parts)

    def _statistics(self) -> list[Tensor]:
        """What a forward pass changes: buffers of the modules that are in training mode."""
        return [
            buffer for module in self.plain.modules() if module.training for buffer in module.buffers(recurse=False)
        ]

    def _step_unless(self, skipped: Tensor) -> None:
        """The optimiser's step, which leaves weights and its own state as they are where `skipped` [] is true."""
        optimizer, scaler = inner_optimizer(self.optimizer), self.accelerator.scaler
        start_momenta(optimizer)
        optimizer.found_inf = skipped.float()  # type: ignore[attr-defined]  # fused steps look at it
        if scaler is None:
            self.optimizer.step()
        else:  # whose own `step` would not know of the losses
            optimizer.step()
            scaler.update()

    def _gradients(
        self, batches: Sequence[Batch], number: int, progress: Progress
    ) -> list[tuple[int, tuple[str, ...], float]]:
        """The gradients of all batches; of each the place of its losses in the check, their names, and its share."""
        sums = None
        if len(batches) > 1 and self.config.exact_accumulation:
            sums = self._weight_sums(batches, number, progress)
        share = 1 if sums is not None else 1 / len(batches)
        parts = []
        for i, batch in enumerate(batches, start=1):
            with contextlib.nullcontext() if i == len(batches) else self.accelerator.no_sync(self.model):
                losses = self.losses(batch, number, progress, sums)
                self.accelerator.backward(losses.total * share)
            place = self.check.look("the loss", [batch], *losses.terms.values())
            parts.append((place, tuple(losses.terms), share))
        return parts

    @torch.no_grad()
    def _weight_sums(self, batches: Sequence[Batch], number: int, progress: Progress) -> dict[str, Tensor]:
        """What the losses of the batches together are divided by, in this process."""
        self.model.eval()  # the statistics of BatchNorms are for the pass that learns
        sums: dict[str, Tensor] = {}
        try:
            for batch in batches:
                for name, value in self.losses(batch, number, progress).weight_sums.items():
                    sums[name] = sums[name] + value if name in sums else value
        finally:
            self.train_mode()  # also where the step is given up, which others may follow
        return sums

    def losses(
        self, batch: Batch, number: int, progress: Progress, weight_sums: Mapping[str, Tensor] | None = None
    ) -> Losses:
        """Losses of a batch.

        Raises:
            NotFiniteError: where the network's output is no number.
        """
        for norm in self.shared_norms:
            norm.counts = not batch.blank
        predictions = self.model(normalise(batch.images, batch.sizes, self.input))
        # Looked at before the criterion, whose cross entropy ends the process at a score that is no number. The sum
        # of many logits is more than fp16 holds.
        output = predictions.scores.float().sum() + predictions.boxes.float().sum()
        self.check.look("the network's output", [batch], output)
        if self.guard.deferred:
            finite = output.detach().isfinite()
            predictions = replace(
                predictions,
                scores=torch.where(finite, predictions.scores, 0),
                boxes=torch.where(finite, predictions.boxes, 0),
            )
        sizes = padded_sizes(batch.sizes, self.input.divisor)
        return self.criterion(predictions, batch.targets, sizes, progress, weight_sums)

    def _limit_gradient(self, batches: Sequence[Batch], number: int) -> None:
        limit, scaler = self.config.clip_gradient, self.accelerator.scaler
        if scaler is not None:
            scaler.unscale_(inner_optimizer(self.optimizer))
        parameters = list(self.model.parameters())
        norm = gradient_norm(parameters) if limit is None else nn.utils.clip_grad_norm_(parameters, limit)
        # fp16's scaler drops such steps itself, and lowers its scale.
        self.check.look("the gradient", batches, norm, tolerated=scaler is not None)

    def count_overflow(self, check: StepCheck) -> None:
        """Counts the steps in a row that fp16's scaler has dropped.

        Raises:
            NotFiniteError: they are too many.
        """
        self.overflows = self.overflows + 1 if check.tolerated else 0
        if self.overflows > MOST_OVERFLOWS:
            raise check.looked[-1].error([math.inf], self.processes, f", as at the {MOST_OVERFLOWS} steps before,")

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on from here."""
        scaler = self.accelerator.scaler
        return {
            "model": self.accelerator.unwrap_model(self.model).state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes up what `state_dict` gave.

        Raises:
            RuntimeError, ValueError, KeyError: if it is of another network or optimiser.
        """
        self.accelerator.unwrap_model(self.model).load_state_dict(state["model"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"] or state["model"])
        load_optimizer(self.optimizer, state["optimizer"])
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])


@dataclass(frozen=True)
class LaunchedStep:
    """A step that a device may still be computing.

    Attributes:
        learner: that makes it.
        check: of its numbers.
        parts: of each batch the place of its losses in the check, their names, and its share of the step.
    """

    learner: Learner
    check: StepCheck
    parts: Sequence[tuple[int, tuple[str, ...], float]]

    def losses(self, ask: bool = True) -> dict[str, float]:
        """The step's losses by name, over all processes; waits for them.

        Args:
            ask: the other processes for their images, where a number is not finite.

        Raises:
            NotFiniteError: a loss or gradient is no number; the step has left everything as it was.
        """
        self.check.read(ask)
        self.learner.count_overflow(self.check)
        totals: dict[str, float] = {}
        for place, names, share in self.parts:
            for name, value in zip(names, self.check.means(place), strict=True):
                totals[name] = totals.get(name, 0.0) + value * share
        return totals

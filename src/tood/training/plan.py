"""What a run is about to do, in words."""

from __future__ import annotations

from collections.abc import Sequence

from tood.machine import busy_advice
from tood.models import AnyDetector
from tood.precision import ChosenPrecision
from tood.training.loop import Trainer
from tood.training.progress import TrainingDisplay
from tood.training.reasons import how_it_learns, what_it_sees


def reasons(trainer: Trainer, model: AnyDetector, thawed: bool) -> tuple[str, str]:
    """What was chosen for the run and why, a line on learning and one on pictures.

    Args:
        trainer: of the run.
        model: that it trains.
        thawed: whether there were objects enough to let more of the backbone learn.
    """
    trainer.learner.train_mode()
    return how_it_learns(trainer.config, model, trainer.learner.peak_rate, thawed), what_it_sees(trainer.config)


def say_plan(
    display: TrainingDisplay,
    trainer: Trainer,
    model: AnyDetector,
    start: str,
    precision: ChosenPrecision,
    why: Sequence[str],
) -> None:
    """Says model, starting weights, recipe, batch, rate and device, before the first step.

    Args:
        display, trainer, model, precision: of the run.
        start: the weights that it starts from, in words.
        why: lines of `reasons`.
    """
    config, size = trainer.config, model.config.input
    everything = sum(p.numel() for p in model.parameters())
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    processes = trainer.processes.count
    display.say(
        f"model: {config.name}, {everything:,} parameters ({learning:,} learn), input {size.short} x {size.long}"
    )
    display.say(f"weights: {start}")
    images, accumulation = config.batches(processes)
    batch = f"batch {images}"
    batch += f" x {accumulation} accumulated" if accumulation > 1 else ""
    batch += f" x {processes} processes" if processes > 1 else ""
    batch += f" = {trainer.learner.images_per_step} images a step" if accumulation * processes > 1 else ""
    rate = f"peak rate {trainer.learner.peak_rate:.3g}"
    if trainer.learner.peak_rate != config.optimizer.lr:
        rate += f" ({config.optimizer.lr:g} is for {config.optimizer.lr_batch} images a step, scaled linearly)"
    display.say(
        f"recipe: {config.recipe}, {config.length}, {config.optimizer.kind}, {config.schedule.kind} schedule, "
        f"{batch}, {rate}"
    )
    for line in why:
        display.say(line)
    computes = f"{trainer.accelerator.device}, precision {precision.name} ({precision.why})"
    display.say(f"device: {computes}; files: {trainer.out}")
    if advice := busy_advice():
        display.say(advice)

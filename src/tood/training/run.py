"""From a `RunConfig` to a trained model: opens the data, builds the network, says what it found, trains."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from rich.console import Console

from tood import configuration
from tood.errors import ToodError, quoted
from tood.models import build_model
from tood.precision import ChosenPrecision
from tood.processes import Launch, Processes
from tood.training.accelerator import accelerated, deterministic, require_device
from tood.training.checkpoint import (
    CHECKPOINT,
    newest_checkpoint,
    parse_checkpoint,
    put_damaged_aside,
)
from tood.training.choice import begun_run
from tood.training.config import RunConfig
from tood.training.datasets import Datasets, describe, open_datasets, order_of, training_batches, validation_on
from tood.training.folder import CONFIG, Resume, RunFolder, claimed_folder, run_folders
from tood.training.freeze import thawed
from tood.training.input_size import box_report
from tood.training.length import with_length
from tood.training.loop import BEST, Trainer
from tood.training.plan import reasons, say_plan
from tood.training.progress import TrainingDisplay
from tood.training.resuming import TrainingImages, changed_settings
from tood.training.start import initialise_model, started, starting_point
from tood.training.state import TrainResult
from tood.weights import recorded_figures
from tood.weights.published import COCO_CLASSES


def train(
    config: RunConfig,
    resume: Resume = False,
    console: Console | None = None,
    folder: RunFolder | None = None,
    why: Sequence[str] = (),
    datasets: Datasets | None = None,
) -> TrainResult:
    """Trains a detector; `best.safetensors` in the run's folder is what to use afterwards.

    The folder also gets `last.safetensors`, `config.yaml` (the run as resolved, which starts the same run again),
    `metrics.csv`, `tensorboard/` and `checkpoint.pt` (to resume from).

    Args:
        config: the run.
        resume: True goes on from the checkpoint in `config.out`; "auto" does so if there is a run, and begins one if
            not, so that the same call can be repeated until it is done.
        console: where progress is shown; None shows nothing.
        folder: `config.out`, where the caller has claimed it already.
        why: what was chosen for the run before, a sentence each (`RunChoice.why`): told, and kept with its reasons.
        datasets: of `config.data`, where the caller has read them already (`RunChoice.datasets`).

    Raises:
        ToodError: a dataset that cannot be read or has nothing to learn from, a folder that holds another run or that
            one is being written to, no checkpoint to resume from, a loss that is not finite.
    """
    config.require_all_trained()
    with torch.device("meta"):
        build_model(config.model)  # what cannot be built is told before any picture is looked at
    with accelerated(config) as (accelerator, precision), deterministic(config.deterministic):
        heard = console if accelerator.is_main_process else None
        processes = Processes(accelerator.num_processes, accelerator.process_index)
        require_device(config, accelerator)
        with ExitStack() as held:
            claim = _run_folder(config, resume) if folder is None else nullcontext(folder)
            found = processes.from_main(lambda: held.enter_context(claim))
            return _train(config, found, resume, heard, accelerator, precision, why, datasets)


def _train(
    config: RunConfig,
    folder: RunFolder,
    resume: Resume,
    console: Console | None,
    accelerator: Accelerator,
    precision: ChosenPrecision,
    chosen: Sequence[str],
    datasets: Datasets | None,
) -> TrainResult:
    processes = Processes(accelerator.num_processes, accelerator.process_index)
    out, resumes = folder.path, folder.resumes
    set_seed(config.seed)
    # Of DDP, about 1x1 convolutions in channels-last memory, whose strides mean nothing.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    display = TrainingDisplay(console)
    for sentence in chosen:
        display.say(sentence)

    if datasets is None:
        with processes.agreed():
            datasets = open_datasets(config.data)
    training, validation = datasets.training, datasets.validation
    for dataset in (training, validation):
        if dataset is not None:
            display.say(describe(dataset))
    if datasets.note:
        display.say(datasets.note)
    classes = len(training.categories)
    if config.model.classes not in (classes, len(COCO_CLASSES)):  # COCO's number is nobody's choice
        display.say(f"classes: {classes} as in the dataset (the model's configuration said {config.model.classes})")
    config = started(replace(config, out=out, model=replace(config.model, classes=classes)))
    with processes.agreed():
        boxes = box_report(training, config)
        boxes.require_any()
    frozen, config = config.model.backbone, thawed(config, boxes.found.reachable)
    thaws = config.model.backbone != frozen
    selects = validation is not None and datasets.selects
    config = with_length(config, len(training.images), len(validation.images) if validation and selects else None)

    if resumes and (changes := processes.from_main(lambda: _changes(config, out))):
        display.say(changes)
    if boxes.told:
        display.say(boxes.told)
    model = build_model(config.model)
    with processes.agreed():
        loader = training_batches(config, training, processes, display, on_gpu=accelerator.device.type == "cuda")
        measured = None if validation is None else validation_on(config, validation, processes, datasets, display)
    found = processes.from_main(lambda: newest_checkpoint(out) if resumes else None)
    with processes.agreed():
        start = (
            "from the checkpoint" if found else initialise_model(model, starting_point(config), training.class_names)
        )
    images = TrainingImages(
        loader, training.class_names, training.digest(), order_of(loader), training.picture_notes.tell
    )
    trainer = Trainer(config, model, images, measured, accelerator, display)
    why = reasons(trainer, model, thaws)
    say_plan(display, trainer, model, start, precision, why)
    if found is not None:
        _resume(trainer, *found, processes)
        if resume is True:
            trainer.require_unfinished()
    elif resumes:
        display.say(f"{out} stopped before its first checkpoint: it starts anew")
    found = None  # the content of a large checkpoint is not kept for the whole run
    if resumes and measured is not None and measured.selects:
        trainer.keep_better(processes.from_main(lambda: recorded_figures(out / BEST).get("AP")))
    processes.from_main(lambda: _save_config(config, out, (*chosen, *why)))
    return trainer.run()


def _changes(config: RunConfig, out: Path) -> str:
    if not (out / CONFIG).is_file():
        return ""
    return changed_settings(begun_run(out), config)


def _save_config(config: RunConfig, out: Path, why: Sequence[str]) -> None:
    command = f"tood train --config {quoted(out / CONFIG)} --out ANOTHER_FOLDER"
    try:
        configuration.save(config, out / CONFIG, comment="\n".join((command, *why)))
    except OSError as error:
        raise ToodError(f"cannot write to {out}: {error.strerror}; give another --out") from error


# --- the run's folder ----------------------------------------------------------------------------------------------


@contextmanager
def _run_folder(config: RunConfig, resume: Resume) -> Iterator[RunFolder]:
    """The folder, claimed; torchrun's next attempt goes on with the run of the one before."""
    launch = Launch.of_this_process()
    restarts = launch is not None and (launch.attempt or int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")))
    if config.out is None and (restarts or resume == "auto"):
        raise ToodError(
            "a run that is to go on by itself after a restart needs a name to be found by: give --out FOLDER"
        )
    with claimed_folder(config.out, run_folders(config.name), resume, launch=launch if restarts else None) as folder:
        yield folder


def _resume(trainer: Trainer, content: bytes, path: Path, processes: Processes) -> None:
    with processes.agreed():
        trainer.load_state_dict(parse_checkpoint(content, path))
        aside = put_damaged_aside(trainer.out, path) if processes.main else None
    if aside is not None:
        trainer.display.say(
            f"{trainer.out / CHECKPOINT} is damaged: going on from {path}, the one before it; the damaged one is now "
            f"{aside}"
        )
    position = trainer.position
    trainer.display.say(f"resuming at epoch {position.epoch + 1}, step {position.step}")

"""From a `RunConfig` to a trained model: opens the data, builds the network, says what it found, trains."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from rich.console import Console
from torch.utils.data import DataLoader

from tood import configuration
from tood.data import (
    Batch,
    BatchPlan,
    DetectionDataset,
    SkippedImages,
    TrainBatchSampler,
    load_dataset,
    pick_splits,
    require_same_categories,
    train_loader,
)
from tood.errors import ToodError, quoted
from tood.machine import busy_advice
from tood.models import AnyDetector, build_model, cpu_multiplies_bf16, recorded_figures
from tood.ops.allocator import keep_freed_memory
from tood.processes import Processes, join_restarted
from tood.training.checkpoint import (
    CHECKPOINT,
    newest_checkpoint,
    parse_checkpoint,
    put_damaged_aside,
)
from tood.training.config import RunConfig
from tood.training.folder import CONFIG, Resume, RunFolder, claimed_folder, run_folders
from tood.training.input_size import box_report
from tood.training.loop import BEST, Trainer
from tood.training.progress import TrainingDisplay
from tood.training.resuming import TrainingImages
from tood.training.start import initialise_model, starting_point
from tood.training.state import Scores, TrainResult
from tood.training.validation import Validation

# Most images at once in the evaluations of a run.
EVALUATION_BATCH = 8


def train(
    config: RunConfig, resume: Resume = False, console: Console | None = None, folder: RunFolder | None = None
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

    Raises:
        ToodError: a dataset that cannot be read or has nothing to learn from, a folder that holds another run or that
            one is being written to, no checkpoint to resume from, a loss that is not finite.
    """
    config.require_all_trained()
    precision, why = choose_precision(config)
    try:
        mixed = "no" if precision == "fp32" else precision
        # Without this, processes launched together on a machine that has no GPU would each train alone.
        on_cpu = config.device == "cpu" or (config.device == "auto" and not torch.accelerator.is_available())
        if on_cpu and precision == "fp16":
            raise ToodError("precision is 'fp16', which only a GPU computes in: use bf16, fp32 or auto")
        if on_cpu:
            keep_freed_memory()
        join_restarted(on_cpu)
        accelerator = Accelerator(mixed_precision=mixed, cpu=on_cpu)
    except ValueError as error:
        AcceleratorState._reset_state(reset_partial_state=True)
        raise ToodError(f"precision is '{precision}', which this machine cannot do ({error}): use auto") from error
    try:
        with deterministic(config.deterministic):
            heard = console if accelerator.is_main_process else None
            processes = Processes(accelerator.num_processes, accelerator.process_index)
            _require_device(config, accelerator)
            with ExitStack() as held:
                claim = _run_folder(config, resume) if folder is None else nullcontext(folder)
                found = processes.from_main(lambda: held.enter_context(claim))
                return _train(config, found, resume, heard, accelerator, f"{precision} ({why})")
    except torch.OutOfMemoryError as error:
        size, _ = config.batches(accelerator.num_processes)
        raise ToodError(
            f"the GPU's memory does not hold the training on {size} images at once: give a smaller --batch-size (the "
            "published recipes then take as many batches a step as make up their 16 images)"
        ) from error
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ToodError(
            "a batch of one picture this small leaves a BatchNorm a single value to learn from: give a larger --size "
            "or --batch-size"
        ) from error
    except RuntimeError as error:
        if accelerator.num_processes == 1 or not _is_lost_connection(error):
            raise
        raise ToodError(f"process {accelerator.process_index} lost the others, one of which ended: {error}") from error
    finally:
        # Accelerate remembers device and precision for the whole process: the next run may want others.
        accelerator.free_memory()
        if accelerator.num_processes == 1:
            AcceleratorState._reset_state(reset_partial_state=True)


def _require_device(config: RunConfig, accelerator: Accelerator) -> None:
    if config.device not in ("auto", "cpu") and accelerator.device.type != config.device:
        raise ToodError(f"device is '{config.device}', but this machine has none: leave it out or use cpu")


def _train(
    config: RunConfig,
    folder: RunFolder,
    resume: Resume,
    console: Console | None,
    accelerator: Accelerator,
    precision: str,
) -> TrainResult:
    processes = Processes(accelerator.num_processes, accelerator.process_index)
    out, resumes = folder.path, folder.resumes
    set_seed(config.seed)
    # Of DDP, about 1x1 convolutions in channels-last memory, whose strides mean nothing.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    display = TrainingDisplay(console)

    with processes.agreed():
        datasets = open_datasets(config)
    training, validation = datasets.training, datasets.validation
    for dataset in (training, validation):
        if dataset is not None:
            display.say(describe(dataset))
    if datasets.note:
        display.say(datasets.note)
    classes = len(training.categories)
    if classes != config.model.classes:
        display.say(f"classes: {classes} as in the dataset (the model's configuration said {config.model.classes})")
    config = replace(config, out=out, model=replace(config.model, classes=classes), start_from=starting_point(config))

    with processes.agreed():
        boxes = box_report(training, config)
        boxes.require_any()
    if boxes.told:
        display.say(boxes.told)
    model = build_model(config.model)
    with processes.agreed():
        loader = _loader(config, training, processes, display, on_gpu=accelerator.device.type == "cuda")
        measured = None if validation is None else _validation(config, validation, processes, datasets, display)
    found = processes.from_main(lambda: newest_checkpoint(out) if resumes else None)
    with processes.agreed():
        start = (
            "from the checkpoint" if found else initialise_model(model, starting_point(config), training.class_names)
        )
    images = TrainingImages(
        loader, training.class_names, training.digest(), _order(loader), training.picture_notes.tell
    )
    trainer = Trainer(config, model, images, measured, accelerator, display)
    _say_plan(display, trainer, model, start, precision)
    if found is not None:
        _resume(trainer, *found, processes)
        if resume is True:
            trainer.require_unfinished()
    elif resumes:
        display.say(f"{out} stopped before its first checkpoint: it starts anew")
    found = None  # the content of a large checkpoint is not kept for the whole run
    if resumes and measured is not None and measured.selects:
        trainer.keep_better(processes.from_main(lambda: recorded_figures(out / BEST).get("AP")))
    processes.from_main(lambda: _save_config(config, out))
    return trainer.run()


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Only algorithms that give the same numbers every time, while this lasts."""
    if not wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]


def _is_lost_connection(error: RuntimeError) -> bool:
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error)


def _loader(
    config: RunConfig, training: DetectionDataset, processes: Processes, display: TrainingDisplay, *, on_gpu: bool
) -> DataLoader[Batch]:
    batch_size, accumulation = config.batches(processes.count)
    plan = BatchPlan(batch_size, accumulation, config.seed)
    loader = train_loader(training, config.data, config.augment, config.model.input, plan, processes, on_gpu=on_gpu)
    left_out = len(training.images) - len(loader.dataset)  # type: ignore[arg-type]  # it has a length
    if left_out:
        why = ["without any annotation"] if not config.data.keep_empty else []
        why += [f"with a side under {config.data.smallest_side} pixels"] if config.data.smallest_side > 1 else []
        display.say(
            f"left out of training: {left_out:,} images {' or '.join(why)}, as MMDetection does "
            "(data.keep_empty, data.smallest_side)"
        )
    return loader


def _order(loader: DataLoader[Batch]) -> str:
    sampler = loader.batch_sampler
    assert isinstance(sampler, TrainBatchSampler)
    return sampler.digest


def _save_config(config: RunConfig, out: Path) -> None:
    try:
        configuration.save(
            config, out / CONFIG, comment=f"tood train --config {quoted(out / CONFIG)} --out ANOTHER_FOLDER"
        )
    except OSError as error:
        raise ToodError(f"cannot write to {out}: {error.strerror}; give another --out") from error


def choose_precision(config: RunConfig) -> tuple[str, str]:
    """ "fp32", "bf16" or "fp16", and why."""
    if config.precision != "auto":
        return config.precision, "as configured"
    if config.device in ("auto", "cuda") and torch.cuda.is_available():
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", "the GPU has it"
        return "fp32", "the GPU has no bf16"
    if config.device in ("auto", "cpu") and not torch.backends.mps.is_available() and cpu_multiplies_bf16():
        return "bf16", "this CPU has instructions for it"
    return "fp32", "no hardware for less"


@dataclass(frozen=True)
class Datasets:
    """The splits of a run.

    Attributes:
        training: what is learned from.
        validation: what AP is measured on, None if there is nothing for it.
        validates_on_test: whether those are the images that the final test is made on: AP then is only shown and
            chooses no weights.
        note: what may surprise in the choice, else empty.
    """

    training: DetectionDataset
    validation: DetectionDataset | None
    validates_on_test: bool
    note: str


def open_datasets(config: RunConfig) -> Datasets:
    """The training split and, if there is one, the validation split.

    Raises:
        ToodError: if a split cannot be read, has no boxes to learn from, or the two differ in their classes.
    """
    splits = pick_splits(config.data.path, train=config.data.train, val=config.data.val)
    training = load_dataset(config.data.path, splits.train, exif=config.data.exif)
    if training.object_count == 0:
        why = _why_nothing(training)
        raise ToodError(f"{training.root}, split '{training.split}': there is no box to learn from: {why}")
    if splits.val is None:
        return Datasets(training, None, False, f"{splits.note}: there will be no AP, and best.safetensors is the last")
    validation = load_dataset(config.data.path, splits.val, exif=config.data.exif)
    if validation.object_count == 0:
        note = f"nothing can be measured on split '{validation.split}': {_why_nothing(validation)}"
        return Datasets(training, None, False, f"{note}; there will be no AP, and best.safetensors is the last")
    require_same_categories(training, validation)
    if splits.val == splits.test and config.data.val is None:
        note = f"{splits.note}; the AP is only shown: it does not choose the weights, best.safetensors is the last"
        return Datasets(training, validation, True, note)
    return Datasets(training, validation, False, splits.note)


def _why_nothing(dataset: DetectionDataset) -> str:
    if not dataset.annotated:
        return "it has no annotations"
    if dataset.box_count:
        kind = "difficult" if dataset.format == "voc" else "crowds"
        return f"all of its {dataset.box_count:,} boxes are {kind}, which are neither learned nor measured"
    return "none of its pictures has a box"


def describe(dataset: DetectionDataset) -> str:
    """A split in one line, with what had to be mended while reading it."""
    text = (
        f"{dataset.split}: {len(dataset.images):,} images, {dataset.box_count:,} boxes, "
        f"{len(dataset.categories)} classes ({dataset.format}, {dataset.root})"
    )
    counts = dataset.problem_counts()
    if counts:
        found = ", ".join(f"{kind.replace('_', ' ')} ({count})" for kind, count in counts.items())
        text += f"; mended: {found} (`tood data check {quoted(dataset.root)}` lists them)"
    return "; ".join([text, *dataset.notes])


def _validation(
    config: RunConfig,
    validation: DetectionDataset,
    processes: Processes,
    datasets: Datasets,
    display: TrainingDisplay,
) -> Validation:
    from tood.evaluation import GroundTruth, detect, evaluate_detections

    # The same for any number of processes that share one batch; without gradients a GPU holds more than it trains on.
    batch_size = min(config.batches(processes.count)[0] * processes.count, EVALUATION_BATCH)
    # Once: of a COCO folder it reads the whole json.
    truth = GroundTruth.from_dataset(validation) if processes.main else None
    # Kept from one evaluation to the next: what once could not be read is left out of all later figures.
    skipped = None
    if config.data.unreadable == "skip":
        skipped = SkippedImages(validation.images, "left out of the evaluation")

    def evaluate(model: AnyDetector) -> Scores:
        before = 0 if skipped is None else skipped.count
        found = detect(
            model,
            validation,
            batch_size=batch_size,
            workers=config.data.workers,
            processes=processes,
            skipped=skipped,
        )
        against = truth
        if skipped is not None and skipped.count:
            if skipped.count > before:
                display.say(
                    f"{validation.split}: {skipped.count:,} of {len(validation.images):,} images cannot be read; AP is "
                    "measured over the others (data.unreadable=skip)"
                )
            against = None if truth is None else truth.only(skipped.readable_ids)
        return processes.from_main(lambda: evaluate_detections(found, against or validation))

    return Validation(evaluate, len(validation.images), selects=not datasets.validates_on_test)


def _say_plan(display: TrainingDisplay, trainer: Trainer, model: AnyDetector, start: str, precision: str) -> None:
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
    display.say(f"device: {trainer.accelerator.device}, precision {precision}; files: {trainer.out}")
    if advice := busy_advice():
        display.say(advice)


# --- the run's folder ----------------------------------------------------------------------------------------------


@contextmanager
def _run_folder(config: RunConfig, resume: Resume) -> Iterator[RunFolder]:
    """The folder, claimed; torchrun's next attempt goes on with the run of the one before."""
    restarted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    restarts = restarted or int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0
    if config.out is None and (restarts or resume == "auto"):
        raise ToodError(
            "a run that is to go on by itself after a restart needs a name to be found by: give --out FOLDER"
        )
    mode: Resume = "auto" if restarted and resume is False else resume
    with claimed_folder(config.out, run_folders(config.name), mode) as folder:
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

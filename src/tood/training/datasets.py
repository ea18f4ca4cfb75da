"""What a run learns from and is measured on: its splits, their batches, its evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from torch.utils.data import DataLoader

from tood.counted import counted
from tood.data import (
    Batch,
    BatchPlan,
    DataConfig,
    DetectionDataset,
    SkippedImages,
    TrainBatchSampler,
    load_dataset,
    pick_splits,
    require_same_categories,
    shared_images,
    train_loader,
)
from tood.errors import ToodError, quoted
from tood.models import AnyDetector
from tood.processes import Processes
from tood.training.config import RunConfig
from tood.training.progress import TrainingDisplay
from tood.training.state import Scores
from tood.training.validation import Validation

# Most images at once in the evaluations of a run.
EVALUATION_BATCH = 8


@dataclass(frozen=True)
class Datasets:
    """The splits of a run.

    Attributes:
        training: what is learned from.
        validation: what AP is measured on, None if there is nothing for it.
        selects: whether AP may choose the weights. It is only shown where nobody asked for these images and they are
            those that the final test is made on, or mostly those that are learned from.
        note: what may surprise in the choice, else empty.
    """

    training: DetectionDataset
    validation: DetectionDataset | None
    selects: bool
    note: str


def open_datasets(data: DataConfig) -> Datasets:
    """The training split and, if there is one, the validation split.

    Raises:
        ToodError: if a split cannot be read, has no boxes to learn from, or the two differ in their classes.
    """
    splits = pick_splits(data.path, train=data.train, val=data.val)
    skip = data.unreadable == "skip"
    training = load_dataset(data.path, splits.train, exif=data.exif, keep_going=skip)
    if training.object_count == 0:
        why = _why_nothing(training)
        raise ToodError(f"{training.root}, split '{training.split}': there is no box to learn from: {why}")
    if splits.val is None:
        return Datasets(training, None, True, f"{splits.note}: there will be no AP, and best.safetensors is the last")
    validation = load_dataset(data.path, splits.val, exif=data.exif, keep_going=skip)
    if validation.object_count == 0:
        note = f"nothing can be measured on split '{validation.split}': {_why_nothing(validation)}"
        return Datasets(training, None, True, f"{note}; there will be no AP, and best.safetensors is the last")
    require_same_categories(training, validation)
    asked = data.val is not None
    shared = shared_images(training, validation)
    notes = [splits.note] if splits.note else []
    if known := 2 * shared > len(validation.images):
        notes.append(
            f"{shared:,} of the {len(validation.images):,} images of split '{validation.split}' are trained on, too: "
            "what is measured on them says nothing of other pictures (`tood data split` sets some aside)"
        )
    selects = asked or not (known or splits.val == splits.test)
    if not selects:
        notes.append("the AP is only shown: it does not choose the weights, best.safetensors is the last")
    return Datasets(training, validation, selects, "; ".join(notes))


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
        f"{dataset.split}: {counted(len(dataset.images), 'image')}, {counted(dataset.box_count, 'box', 'boxes')}, "
        f"{counted(len(dataset.categories), 'class', 'classes')} ({dataset.format}, {dataset.root})"
    )
    counts = dataset.problem_counts()
    if shared := counts.pop("in_two_splits", 0):
        text += f"; {shared:,} of these images are in another split, too"
    if counts:
        found = ", ".join(f"{kind.replace('_', ' ')} ({count})" for kind, count in counts.items())
        text += f"; mended: {found} (`tood data check {quoted(dataset.root)}` lists them)"
    return "; ".join([text, *dataset.notes])


def training_batches(
    config: RunConfig, training: DetectionDataset, processes: Processes, display: TrainingDisplay, *, on_gpu: bool
) -> DataLoader[Batch]:
    """The batches of this process, and a word on what is left out of them."""
    batch_size, accumulation = config.batches(processes.count)
    plan = BatchPlan(batch_size, accumulation, config.seed)
    loader = train_loader(training, config.data, config.augment, config.model.input, plan, processes, on_gpu=on_gpu)
    left_out = len(training.images) - len(loader.dataset)  # type: ignore[arg-type]  # it has a length
    if left_out:
        why = ["without any annotation"] if not config.data.keep_empty else []
        why += [f"with a side under {config.data.smallest_side} pixels"] if config.data.smallest_side > 1 else []
        display.say(
            f"left out of training: {counted(left_out, 'image')} {' or '.join(why)}, as MMDetection does "
            "(data.keep_empty, data.smallest_side)"
        )
    return loader


def order_of(loader: DataLoader[Batch]) -> str:
    """What decides, with the seed, which images make a step."""
    sampler = loader.batch_sampler
    assert isinstance(sampler, TrainBatchSampler)
    return sampler.digest


def validation_on(
    config: RunConfig,
    validation: DetectionDataset,
    processes: Processes,
    datasets: Datasets,
    display: TrainingDisplay,
) -> Validation:
    """The evaluation of a run on a split; what is read for it is read once."""
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

    return Validation(evaluate, len(validation.images), selects=datasets.selects)

"""A model over a dataset: all its detections, and how good they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tood.choices import PredictionPrecision
from tood.counted import counted
from tood.data import Category, DetectionDataset, SkippedImages, WorkerDeaths, eval_loader
from tood.engines import Engine
from tood.errors import ToodError
from tood.evaluation.coco import CocoResult, evaluate_detections
from tood.evaluation.detections import DetectionTable
from tood.inference import Predictor, engine_predictor
from tood.models import AnyDetector, for_inference
from tood.precision import choose_precision
from tood.processes import Processes

# Called with the number of images done and of all.
Progress = Callable[[int, int], None]


# What to do when one of them is killed.
FEWER_WORKERS = "load with fewer of them (--workers; in a training run data.workers), or smaller batches"


@dataclass(frozen=True)
class EvaluationConfig:
    """How a model is run over a dataset.

    Attributes:
        batch_size: images at once.
        workers: processes that load images; 0 loads them in this one, None picks what suits the machine.
        device: where to compute; None is where the model is.
        precision: what the network computes in: "fp32", "bf16", or "auto" for bf16 on a CPU that has instructions for
            it. Figures to publish or compare want fp32.
    """

    batch_size: int = 8
    workers: int | None = None
    device: torch.device | str | None = None
    precision: PredictionPrecision = "fp32"

    def place(self, model: AnyDetector | Engine) -> torch.device:
        """Where the model computes; an exported one takes its images from the CPU's memory."""
        if isinstance(model, Engine):
            return torch.device("cpu")
        return next(model.parameters()).device if self.device is None else torch.device(self.device)


def evaluate(
    model: AnyDetector | Engine,
    dataset: DetectionDataset,
    class_names: Sequence[str] | None = None,
    *,
    batch_size: int = 8,
    workers: int | None = None,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
    processes: Processes | None = None,
    precision: PredictionPrecision = "fp32",
) -> CocoResult:
    """Runs the model over every image and compares what it finds with the annotations.

    Args and errors: as for `detect`. Of several processes the main one compares, all get the result.
    """
    work = _Work(EvaluationConfig(batch_size, workers, device, precision), processes or Processes(), progress)
    found = work.detect(model, dataset, class_names)
    return work.processes.from_main(lambda: evaluate_detections(found, dataset))


def detect(
    model: AnyDetector | Engine,
    dataset: DetectionDataset,
    class_names: Sequence[str] | None = None,
    *,
    batch_size: int = 8,
    workers: int | None = None,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
    processes: Processes | None = None,
    precision: PredictionPrecision = "fp32",
    skipped: SkippedImages | None = None,
) -> DetectionTable:
    """Every detection of the model in the dataset, under the dataset's own image and category ids.

    The model runs in evaluation mode and is left in the mode it was in. What is found in the pictures (JPEGs that lack
    their last bytes, unused bits) is told in the log at the end.

    Args:
        model: any network of this package, or an exported one, whose precision is its own; its configuration says
            input size and thresholds.
        dataset: images to look at.
        class_names: what the model calls its classes, where they may differ from the dataset's: they are then matched
            by name. None: they are the dataset's, in its order.
        batch_size, workers, device, precision: as in `EvaluationConfig`.
        progress: called after each batch.
        processes: those that share the work: each looks at its own images, every image is looked at once, and all
            get all detections. All of them call this, with the same model. None: this one alone.
        skipped: where given, images that cannot be read are counted there, by all processes, and nothing is found in
            them.

    Raises:
        ToodError: if the classes cannot be matched, or an image cannot be read (with `skipped`: none can).
    """
    config = EvaluationConfig(batch_size, workers, device, precision)
    return _Work(config, processes or Processes(), progress, skipped).detect(model, dataset, class_names)


@dataclass(frozen=True)
class _Work:
    """One evaluation: how, by whom, and who hears of it; see `detect`."""

    config: EvaluationConfig
    processes: Processes
    progress: Progress | None = None
    skipped: SkippedImages | None = None

    def detect(
        self, model: AnyDetector | Engine, dataset: DetectionDataset, class_names: Sequence[str] | None
    ) -> DetectionTable:
        """What all processes find."""
        processes, skipped = self.processes, self.skipped
        with processes.agreed():
            classes = model.classes if isinstance(model, Engine) else model.config.classes
            with self._predictor(model) as predictor:
                found = self._detect_share(predictor, dataset, _match(classes, class_names, dataset))
        dataset.picture_notes.tell(processes)
        if skipped is not None:
            skipped.flags.copy_(torch.stack(processes.gather(skipped.flags.clone())).amax(dim=0))
            if skipped.count == len(dataset.images):
                raise ToodError(f"{dataset.root}, split {dataset.split!r}: no image can be read: is the disk there?")
        return DetectionTable.join(processes.gather(found)).by_image()

    @contextmanager
    def _predictor(self, model: AnyDetector | Engine) -> Iterator[Predictor]:
        """What runs the model, which is in evaluation mode meanwhile."""
        if isinstance(model, Engine):
            yield engine_predictor(model)
            return
        place = self.config.place(model)
        was_training = model.training
        try:
            model.to(place).eval()
            network = for_inference(model, choose_precision(self.config.precision, place).dtype)
            yield Predictor(network, model.config.input, model.config.postprocess, place)
        finally:
            model.train(was_training)

    def _detect_share(self, predictor: Predictor, dataset: DetectionDataset, matching: _Matching) -> DetectionTable:
        """What this process finds in its share of the images."""
        loader = eval_loader(
            dataset,
            predictor.input,
            self.config.batch_size,
            self.config.workers,
            self.processes,
            on_gpu=predictor.device.type == "cuda",
            skipped=self.skipped,
        )
        tables = []
        total, done = len(dataset.images), 0
        with WorkerDeaths(FEWER_WORKERS) as deaths:
            for batch in deaths.batches(loader):
                if batch.blank:  # none of it can be read
                    continue
                results = predictor(batch.images, [info.geometry for info in batch.infos])
                for info, found in zip(batch.infos, results, strict=True):
                    if info.blank:  # a blank, for one that cannot be read
                        continue
                    tables.append(matching.table(info.id, *(part.cpu().numpy() for part in found)))
                done += len(batch.infos)
                if self.progress is not None:
                    self.progress(min(done * self.processes.count, total), total)
        return DetectionTable.join(tables)


@dataclass(frozen=True, eq=False)
class _Matching:
    """category_ids: [C] int64, the dataset's category of each class of the model; known: [C] whether it has one."""

    category_ids: NDArray[np.int64]
    known: NDArray[np.bool_]

    def table(
        self, image_id: int, boxes: NDArray[np.float32], scores: NDArray[np.float32], labels: NDArray[np.int64]
    ) -> DetectionTable:
        keep = self.known[labels]
        ids = self.category_ids[labels[keep]]
        return DetectionTable.from_corners(np.full(len(ids), image_id, np.int64), ids, boxes[keep], scores[keep])


def _match(classes: int, class_names: Sequence[str] | None, dataset: DetectionDataset) -> _Matching:
    where = f"{dataset.root} ({dataset.split})"
    if not dataset.categories:
        raise ToodError(f"{where} names no classes to look for: `tood predict` finds the model's own in pictures alone")
    if class_names is None:
        if classes != len(dataset.categories):
            raise ToodError(
                f"the model has {counted(classes, 'class', 'classes')} and {where} has {len(dataset.categories)}: "
                "give the names of the model's classes, or another dataset"
            )
        class_names = dataset.class_names
    if tuple(class_names) == dataset.class_names:
        ids = np.array([category.id for category in dataset.categories], np.int64)
        return _Matching(ids, np.ones(len(ids), np.bool_))
    shared = [name for name in dict.fromkeys(dataset.class_names) if name in class_names]
    repeated = [name for name in shared if [*class_names].count(name) + [*dataset.class_names].count(name) > 2]
    if repeated:
        raise ToodError(
            f"the classes of the model and of {where} cannot be matched by name: several are called "
            f"{', '.join(repeated[:5])}; give each a name of its own"
        )
    by_name: dict[str, Category] = {category.name: category for category in dataset.categories}
    annotated = set(np.unique(dataset.columns.boxes.labels).tolist())
    missing = [
        category.name
        for label, category in enumerate(dataset.categories)
        if label in annotated and category.name not in class_names
    ]
    if missing:
        names = ", ".join(f"'{name}'" for name in missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise ToodError(
            f"the model does not know {len(missing)} of the {len(dataset.categories)} classes of {where}: {names}; "
            f"its own are {', '.join(class_names[:5])}{', ...' if len(class_names) > 5 else ''}"
        )
    return _Matching(
        np.array([by_name[name].id if name in by_name else -1 for name in class_names], np.int64),
        np.array([name in by_name for name in class_names], np.bool_),
    )

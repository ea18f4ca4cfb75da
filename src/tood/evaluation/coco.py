"""The COCO figures (AP and AR over IoU 0.50:0.95), computed by hotcoco, equal to pycocotools'."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import hotcoco
import numpy as np

from tood.data import DetectionDataset
from tood.errors import ToodError
from tood.evaluation.detections import DetectionTable, plain_entries
from tood.evaluation.ground_truth import GroundTruth

# Beyond these a side of the box is no number to calculate with.
USABLE_AREAS = [-1e300, 1e300]
# Beyond COCO's widest range of areas (1e10): an object of it is ignored in all of them, yet matched by IoU.
IGNORED_AREA = 1e300
# Whole numbers below this are exact as floats.
EXACT = 2**53


@dataclass(frozen=True)
class CocoResult:
    """COCO's twelve figures, in 0..1; -1 where there is nothing to measure (no object of that size), as COCO says it.

    Attributes:
        ap: AP averaged over IoU 0.50, 0.55, ... 0.95 and over classes: "the" AP.
        ap50, ap75: AP at IoU 0.50 and 0.75.
        ap_small, ap_medium, ap_large: AP of objects up to 32^2, up to 96^2, above 96^2 pixels of annotated area.
        ar1, ar10, ar100: average recall with at most so many detections an image.
        ar_small, ar_medium, ar_large: average recall by size, with at most 100 detections an image.
        per_class: AP by class name, in the dataset's order.
        per_class_ap50: AP at IoU 0.50 by class name.
        per_class_objects: number of annotated objects (crowds aside) by class name.
        images: number of images evaluated.
        detections: number of detections on them.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar1: float
    ar10: float
    ar100: float
    ar_small: float
    ar_medium: float
    ar_large: float
    per_class: Mapping[str, float]
    per_class_ap50: Mapping[str, float]
    per_class_objects: Mapping[str, int]
    images: int
    detections: int

    @property
    def figures(self) -> dict[str, float]:
        """The twelve figures by name, in COCO's order."""
        return {field.name: getattr(self, field.name) for field in fields(self)[:12]}

    @property
    def objects(self) -> int:
        """Number of annotated objects, crowds aside."""
        return sum(self.per_class_objects.values())

    def as_dict(self) -> dict[str, Any]:
        """All figures as plain values that json can hold."""
        return asdict(self)


def evaluate_detections(
    detections: DetectionTable | Path | str, truth: DetectionDataset | GroundTruth | Path | str
) -> CocoResult:
    """Compares detections with the annotations, whatever made them.

    Args:
        detections: a table, or a COCO results json.
        truth: a dataset, or a COCO annotations json. A dataset in COCO's format is compared by the boxes and areas of
            its json as they stand there, so that the figures are pycocotools' on that file.

    Raises:
        ToodError: if a file is missing or broken, or a detection names an image or a category that the truth lacks.
    """
    ground_truth = _ground_truth(truth)
    annotated, found, count = _load(detections, ground_truth)
    evaluation = hotcoco.COCOeval(annotated, found, "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summary_lines()
    return _result(evaluation, ground_truth, count)


def _load(detections: DetectionTable | Path | str, truth: GroundTruth) -> tuple[Any, Any, int]:
    """Annotations and detections as hotcoco holds them, and the number of the latter."""
    if isinstance(detections, DetectionTable):
        table, source = detections, "the detections"
    else:
        loaded = _load_plain(Path(detections), truth)
        if loaded is not None:
            return loaded
        table, source = DetectionTable.read(detections), str(detections)
    _check_ids(table, truth, source)
    # To hotcoco these ids are floats, which are exact below 2^53 alone, and never negative: it gets numbers from 0 on.
    images = np.searchsorted(np.unique(truth.image_ids), table.image_ids)
    categories = np.searchsorted(np.array(sorted(truth.categories), np.int64), table.category_ids)
    rows = np.column_stack([images, table.boxes, table.scores, categories]).astype(np.float64)
    annotated = _annotated(truth.numbered())
    return annotated, annotated.load_res(rows), len(table)


def _annotated(truth: GroundTruth) -> Any:
    """The annotations as hotcoco holds them."""
    difficult = truth.crowd & truth.crowds_are_difficult
    return hotcoco.COCO.from_arrays(
        [{"id": i, "width": 1, "height": 1, "file_name": ""} for i in truth.image_ids.tolist()],
        [{"id": i, "name": name} for i, name in truth.categories.items()],
        truth.annotation_image_ids,
        truth.annotation_category_ids,
        truth.boxes,
        area=np.where(difficult, IGNORED_AREA, truth.areas),
        iscrowd=truth.crowd & ~difficult,
    )


def _load_plain(path: Path, truth: GroundTruth) -> tuple[Any, Any, int] | None:
    """A results file read by hotcoco itself, eight times as fast as through Python's objects.

    None where hotcoco would not notice what is wrong with the file, or might not: `DetectionTable.read` then reads it,
    or says what is wrong.
    """
    try:
        count = plain_entries(path.read_bytes())
        # To hotcoco an empty list of ids stands for all ids.
        if not count or not len(truth.image_ids) or not truth.categories:
            return None
        ids = [*truth.categories, int(truth.image_ids.min()), int(truth.image_ids.max())]
        if min(ids) < 0 or max(ids) >= EXACT:
            return None
        annotated = _annotated(truth)
        found = annotated.load_res(str(path))
    except (OSError, ValueError):
        return None
    known = found.get_ann_ids(img_ids=truth.image_ids.tolist(), cat_ids=list(truth.categories), area_rng=USABLE_AREAS)
    return (annotated, found, count) if len(known) == count else None


def _ground_truth(truth: DetectionDataset | GroundTruth | Path | str) -> GroundTruth:
    if isinstance(truth, GroundTruth):
        return truth
    if isinstance(truth, DetectionDataset):
        return GroundTruth.from_dataset(truth)
    return GroundTruth.from_json(truth)


def _check_ids(table: DetectionTable, truth: GroundTruth, source: str) -> None:
    wanted = np.array(list(truth.categories), np.int64)
    for kind, given, known in (
        ("image_id", table.image_ids, truth.image_ids),
        ("category_id", table.category_ids, wanted),
    ):
        unknown = ~np.isin(given, known)
        if unknown.any():
            raise ToodError(
                f"{source}: {int(unknown.sum())} of {len(table)} detections have a {kind} that the annotations "
                f"{truth.source} lack (first {given[unknown][0]}): are they of another split or dataset?"
            )


def _result(evaluation: Any, truth: GroundTruth, detections: int) -> CocoResult:
    # [thresholds, recalls, classes, sizes, limits]: all sizes, at most 100 detections.
    precision = np.asarray(evaluation.eval["precision"])[:, :, :, 0, -1]
    order = sorted(truth.categories)
    over_all = {i: _mean(precision[:, :, k]) for k, i in enumerate(order)}
    at_half = {i: _mean(precision[0, :, k]) for k, i in enumerate(order)}
    objects = {i: int(((truth.annotation_category_ids == i) & ~truth.crowd).sum()) for i in order}
    names = truth.unique_names
    stats = [float(figure) for figure in evaluation.stats]
    return CocoResult(
        ap=stats[0],
        ap50=stats[1],
        ap75=stats[2],
        ap_small=stats[3],
        ap_medium=stats[4],
        ap_large=stats[5],
        ar1=stats[6],
        ar10=stats[7],
        ar100=stats[8],
        ar_small=stats[9],
        ar_medium=stats[10],
        ar_large=stats[11],
        per_class={name: over_all[i] for i, name in names.items()},
        per_class_ap50={name: at_half[i] for i, name in names.items()},
        per_class_objects={name: objects[i] for i, name in names.items()},
        images=len(truth.image_ids),
        detections=detections,
    )


def _mean(precision: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    """COCO's mean: -1 marks what could not be measured."""
    measured = precision[precision > -1]
    return float(measured.mean()) if measured.size else -1.0

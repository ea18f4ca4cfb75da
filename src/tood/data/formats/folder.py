"""What the three format readers share: the face they show, and the cleaning of boxes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tood.data.dataset import DetectionDataset, ImageRecord
from tood.data.images import FileFacts

# Rounding in a file (COCO keeps 2 decimals, YOLO usually 6) moves an edge by less than this many pixels.
ROUNDING = 0.5

# In square pixels; no picture has so many.
_LARGEST_AREA = 1e300

# The names that people give to the three usual splits.
SYNONYMS = {"valid": "val", "validation": "val", "training": "train", "testing": "test"}


@dataclass(frozen=True)
class SplitInfo:
    """One split that a dataset offers: its name, the file or folder it comes from, whether it has ground truth."""

    name: str
    source: Path
    annotated: bool = True


class DatasetFolder(Protocol):
    """A recognised dataset whose splits can be read one by one."""

    @property
    def root(self) -> Path:
        """The folder or file that was named."""

    @property
    def format(self) -> str:
        """`coco`, `yolo` or `voc`; `pictures` without any labels."""

    @property
    def splits(self) -> Mapping[str, SplitInfo]:
        """The splits by name, in a steady order."""

    @property
    def missing(self) -> Mapping[str, str]:
        """A sentence for each split that the dataset names, but that has no picture."""

    def read(self, split: str, images_required: bool) -> DetectionDataset:
        """Read a split of `splits`, with every problem in it, errors among them.

        Records with an error (unreadable size, missing file) are still listed wherever their numbers are usable.
        With `images_required` False a missing image file is no problem.
        """


@dataclass(frozen=True)
class CleanBoxes:
    """Boxes after clipping to their images; all arrays are as long as the input.

    Attributes:
        boxes: [A, 4] float32 clipped x1 y1 x2 y2.
        kept: [A] bool, False where the box is not finite or has no area (left).
        clipped: [A] bool, True where a kept box lost more than rounding.
        outside: [A] bool, True where a dropped box had an area, but none of it inside its image.
    """

    boxes: NDArray[np.float32]
    kept: NDArray[np.bool_]
    clipped: NDArray[np.bool_]
    outside: NDArray[np.bool_]


def clean_boxes(boxes: NDArray[np.float64], sizes: NDArray[np.float64]) -> CleanBoxes:
    """Clip boxes to their images and find those of no use.

    Args:
        boxes: [A, 4] x1 y1 x2 y2 in pixels, of any value (NaN, negative, reversed).
        sizes: [A, 2] width and height of the image that each lies in.
    """
    finite = np.asarray(np.isfinite(boxes).all(axis=1))
    safe = np.where(finite[:, None], boxes, 0.0)
    limits = np.concatenate([sizes, sizes], axis=1)
    inside = np.clip(safe, 0.0, limits)
    stored = inside.astype(np.float32)
    had_area = finite & (safe[:, 2] > safe[:, 0]) & (safe[:, 3] > safe[:, 1])
    # In float32, as it is stored: a box thinner than one float step has no area there either.
    has_area = (stored[:, 2] > stored[:, 0]) & (stored[:, 3] > stored[:, 1])
    kept = had_area & has_area
    clipped = kept & (np.abs(inside - safe).max(axis=1, initial=0.0) > ROUNDING)
    beyond = (safe[:, 0] >= sizes[:, 0]) | (safe[:, 1] >= sizes[:, 1]) | (safe[:, 2] <= 0) | (safe[:, 3] <= 0)
    return CleanBoxes(stored, kept, clipped, had_area & ~has_area & beyond)


def drop_reason(box: NDArray[np.float64], outside: bool, size: tuple[int, int]) -> str:
    """Sentence for a dropped box: `box` is its x1 y1 x2 y2 as the file has it, `size` its image's width and height."""
    x1, y1, x2, y2 = box.tolist()
    told = f"[{x1:g}, {y1:g}, {x2:g}, {y2:g}]"
    if not np.isfinite(box).all():
        return f"box {told} (x1 y1 x2 y2) is not a number everywhere: dropped"
    if outside:
        return f"box {told} (x1 y1 x2 y2) lies wholly outside its {size[0]}x{size[1]} image: dropped"
    if x2 < x1 or y2 < y1:
        return f"box {told} (x1 y1 x2 y2) has a negative width or height: dropped"
    return f"box {told} (x1 y1 x2 y2) has no area: dropped"


def clip_reason(box: NDArray[np.float64], size: tuple[int, int]) -> str:
    """Sentence for a clipped box: arguments as for `drop_reason`."""
    x1, y1, x2, y2 = box.tolist()
    told = f"[{x1:g}, {y1:g}, {x2:g}, {y2:g}]"
    return f"box {told} (x1 y1 x2 y2) reaches outside its {size[0]}x{size[1]} image: clipped"


def box_areas(boxes: NDArray[np.float32]) -> NDArray[np.float64]:
    """[G] area of [G, 4] boxes in square pixels."""
    wide = boxes.astype(np.float64)
    areas: NDArray[np.float64] = (wide[:, 2] - wide[:, 0]) * (wide[:, 3] - wide[:, 1])
    return areas


def told_areas(told: Iterable[object]) -> NDArray[np.float64]:
    """[A] areas as a file tells them, whatever stands there; NaN where that is no number that an area can be."""
    # True is no area, and a whole number may be more than a double holds.
    numbers = [
        area if isinstance(area, int | float) and area is not True and 0 < area < _LARGEST_AREA else np.nan
        for area in told
    ]
    return np.array(numbers, np.float64).reshape(-1)


def valid_areas(told: NDArray[np.float64], of_boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """[A] areas in square pixels as a file tells them; one that is missing, or not above 0, is the box's.

    Args:
        told: [A] areas in the file, NaN where there is none.
        of_boxes: [A] areas of the boxes.
    """
    return np.where((told > 0) & (told < _LARGEST_AREA), told, of_boxes)


def annotated_areas(told: Iterable[object], of_boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """As `valid_areas`, of whatever the file has in place of areas, None where there is none."""
    return valid_areas(told_areas(told), of_boxes)


def empty_record(image_id: int, path: Path, facts: FileFacts, file_name: str) -> ImageRecord:
    """An image without ground truth; `facts` are those of its file."""
    return ImageRecord(
        id=image_id,
        path=path,
        width=facts.size[0],
        height=facts.size[1],
        boxes=np.zeros((0, 4), np.float32),
        labels=np.zeros(0, np.int64),
        crowd=np.zeros(0, np.bool_),
        areas=np.zeros(0, np.float64),
        annotation_ids=np.zeros(0, np.int64),
        file_name=file_name,
        size_from_file=True,
        orientation=facts.orientation,
    )


def find_name(wanted: str, names: Mapping[str, SplitInfo]) -> str | None:
    """The split that `wanted` means: exact, another usual name for it, or with a COCO year (`train2017`, `valid`)."""
    if wanted in names:
        return wanted
    plain = canonical(wanted)
    if plain in names:
        return plain
    sources = {info.source.stem: name for name, info in names.items()}
    sources |= {stem.removeprefix("instances_"): name for stem, name in sources.items()}
    return sources.get(wanted)


def canonical(name: str) -> str:
    """The usual name of a split: `instances_train2017`, `training` and `train` are all `train`."""
    plain = name.lower()
    for prefix in ("instances_", "image_info_", "annotations_", "instances-", "person_keypoints_"):
        plain = plain.removeprefix(prefix)
    if len(plain) > 4 and plain[-4:].isdigit():
        plain = plain[:-4].rstrip("_-")
    return SYNONYMS.get(plain, plain)

"""What a dataset holds, in numbers: sizes of pictures, classes, boxes an image, sizes and shapes of boxes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tood.data.dataset import DetectionDataset

# COCO's limits between small, medium and large objects, square pixels of the stored image.
SMALL, LARGE = 32.0**2, 96.0**2

# Share of the values that lie below, of each number of a `Spread`.
_SHARES = (0.0, 0.05, 0.5, 0.95, 1.0)


@dataclass(frozen=True)
class Spread:
    """How values lie: their extremes, those that a twentieth lies below or above, and the median; 0 of none."""

    smallest: float
    low: float
    median: float
    high: float
    largest: float

    @staticmethod
    def of(values: NDArray[Any]) -> Spread:
        """The spread of any number of values."""
        if not len(values):
            return Spread(0.0, 0.0, 0.0, 0.0, 0.0)
        return Spread(*(float(value) for value in np.quantile(values.astype(np.float64), _SHARES)))


@dataclass(frozen=True)
class ClassStats:
    """One class: its name, its boxes (crowds aside), and the images that show one."""

    name: str
    boxes: int
    images: int


@dataclass(frozen=True, eq=False)
class DatasetStats:
    """One split in numbers.

    Attributes:
        root, split, format: of the dataset.
        widths, heights: [I] pixels of each image.
        boxes_an_image: [I] objects on each image, crowds aside.
        classes: every class, in label order.
        box_widths, box_heights: [G] pixels of each object, crowds aside.
        areas: [G] square pixels of each, of its mask where the dataset has them.
        centres: [G, 2] x, y of each object's middle, as parts of its image.
        crowds: number of boxes that stand for groups.
    """

    root: Path
    split: str
    format: str
    widths: NDArray[np.int64]
    heights: NDArray[np.int64]
    boxes_an_image: NDArray[np.int64]
    classes: tuple[ClassStats, ...]
    box_widths: NDArray[np.float64]
    box_heights: NDArray[np.float64]
    areas: NDArray[np.float64]
    centres: NDArray[np.float64]
    crowds: int

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.widths)

    @property
    def boxes(self) -> int:
        """Number of objects, crowds aside."""
        return len(self.areas)

    @property
    def by_size(self) -> dict[str, int]:
        """How many objects are small, medium and large, as COCO counts them."""
        small, large = int((self.areas < SMALL).sum()), int((self.areas >= LARGE).sum())
        return {"small": small, "medium": self.boxes - small - large, "large": large}

    def spreads(self) -> dict[str, Spread]:
        """How the numbers lie that matter for a training, by what they are."""
        return {
            "image width": Spread.of(self.widths),
            "image height": Spread.of(self.heights),
            "boxes an image": Spread.of(self.boxes_an_image),
            "box width": Spread.of(self.box_widths),
            "box height": Spread.of(self.box_heights),
            "box aspect (w/h)": Spread.of(self.box_widths / self.box_heights),
        }

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain values, for json."""
        return {
            "root": str(self.root),
            "split": self.split,
            "format": self.format,
            "images": self.images,
            "images_without_object": int((self.boxes_an_image == 0).sum()),
            "boxes": self.boxes,
            "crowds": self.crowds,
            "boxes_by_size": self.by_size,
            "spreads": {name: vars(spread) for name, spread in self.spreads().items()},
            "classes": [vars(one) for one in self.classes],
        }


def dataset_stats(dataset: DetectionDataset) -> DatasetStats:
    """The numbers of a split; no image file is opened."""
    images = dataset.columns
    use, at = ~images.boxes.crowd, images.image_at
    boxes, labels = images.boxes.boxes, images.boxes.labels
    if not use.all():  # of millions a copy is to be spared
        boxes, labels, at = boxes[use], labels[use], at[use]
    counts, sizes = np.bincount(at, minlength=len(images)), images.sizes.astype(np.int64)
    classes = len(dataset.categories)
    per_class, per_image = np.bincount(labels, minlength=classes), _images_of_classes(at, labels, classes)
    names = zip(dataset.class_names, per_class.tolist(), per_image.tolist(), strict=True)
    return DatasetStats(
        root=dataset.root,
        split=dataset.split,
        format=dataset.format,
        widths=sizes[:, 0],
        heights=sizes[:, 1],
        boxes_an_image=counts,
        classes=tuple(ClassStats(*row) for row in names),
        box_widths=np.subtract(boxes[:, 2], boxes[:, 0], dtype=np.float64),
        box_heights=np.subtract(boxes[:, 3], boxes[:, 1], dtype=np.float64),
        areas=images.boxes.areas[use],
        centres=_centres(boxes, images.sizes[at]),
        crowds=dataset.crowd_count,
    )


def _centres(boxes: NDArray[np.float32], sizes: NDArray[np.int32]) -> NDArray[np.float64]:
    """[G, 2] x, y of each box's middle, as parts of its image of so many pixels, [G, 2]."""
    found = np.add(boxes[:, :2], boxes[:, 2:], dtype=np.float64)
    found /= 2
    found /= np.maximum(sizes, 1)
    return found


def _images_of_classes(at: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """[C] images that show a class, each once, however often it is there."""
    shown = at * max(classes, 1)
    shown += labels
    shown.sort()
    fresh = np.ones(len(shown), np.bool_)
    fresh[1:] = shown[1:] != shown[:-1]
    return np.bincount(shown[fresh] % max(classes, 1), minlength=classes)

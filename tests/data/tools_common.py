"""Comparing what was read from a tool's folder with what the tool put there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tood.data import DetectionDataset, available_splits, load_dataset

Object = tuple[str, float, float, float, float, bool]


def read_back(root: Path) -> dict[str, dict[str, list[Object]]]:
    """For each split and picture (its path below `root`) the objects as (class, x1, y1, x2, y2, ignored)."""
    return {split: objects_of(load_dataset(root, split), root) for split in available_splits(root)}


def objects_of(dataset: DetectionDataset, root: Path) -> dict[str, list[Object]]:
    """The same of one split."""
    return {
        image.path.relative_to(root).as_posix(): [
            (dataset.class_names[label], *(round(value, 2) for value in box), ignored)
            for label, box, ignored in zip(
                image.labels.tolist(), image.boxes.tolist(), image.crowd.tolist(), strict=True
            )
        ]
        for image in dataset.images
    }


def in_order(found: Mapping[str, Mapping[str, Sequence[Object]]]) -> dict[str, dict[str, list[Object]]]:
    """The same with the objects of each picture in order."""
    return {split: {name: sorted(items) for name, items in images.items()} for split, images in found.items()}

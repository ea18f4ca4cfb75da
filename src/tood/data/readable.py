"""The pictures of a dataset that can be trained on, for commands that write another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePath

import numpy as np

from tood.data.dataset import DetectionDataset
from tood.data.files import IMAGE_SUFFIXES
from tood.data.images import image_damage
from tood.errors import ToodError


def without_unreadable(datasets: Sequence[DetectionDataset]) -> tuple[list[DetectionDataset], list[str]]:
    """Splits without the pictures that cannot be read, and a sentence for the person if there are some.

    Args:
        datasets: as loaded with `keep_going`; pictures that a format's reader could not use are missing already, and
            errors in `problems`. Files that are not even called images stay: naming them is another fault.

    Raises:
        ToodError: if a split has no other picture.
    """
    looked_at: dict[str, str | None] = {}
    for dataset in datasets:
        for path in dataset.columns.paths.texts():
            if path not in looked_at:
                looked_at[path] = image_damage(Path(path)) if _is_called_image(path) else None
    left_out = [damage for damage in looked_at.values() if damage is not None]
    left_out += dict.fromkeys(
        f"{problem.file}: {problem.message}"
        for part in datasets
        for problem in part.problems
        if problem.kind == "image_unreadable"
    )
    kept = []
    for dataset in datasets:
        readable = [looked_at[path] is None for path in dataset.columns.paths.texts()]
        images = dataset.columns.take(np.flatnonzero(readable))
        if not len(images):
            raise ToodError(f"{dataset.root}, split {dataset.split!r}: none of its pictures can be read: {left_out[0]}")
        kept.append(replace(dataset, images=images))
    if not left_out:
        return kept, []
    more = f" (and {len(left_out) - 1} more: `tood data check` lists them)" if len(left_out) > 1 else ""
    what = "1 picture" if len(left_out) == 1 else f"{len(left_out)} pictures"
    return kept, [f"left out, as it cannot be read, {what}: {left_out[0]}{more}"]


def _is_called_image(path: str) -> bool:
    return PurePath(path).suffix.lower() in IMAGE_SUFFIXES

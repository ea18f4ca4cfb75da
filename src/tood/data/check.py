"""Look at everything in a dataset: annotations and every single image."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tood.choices import Exif
from tood.data.dataset import DetectionDataset, ImageRecord, Problem, Severity
from tood.data.images import decode_image, image_header, orientation, turned_size
from tood.data.notes import NARROW
from tood.data.splits import read_leniently, require_images
from tood.errors import PictureError, ToodError
from tood.machine import usable_cores


@dataclass(frozen=True)
class CheckReport:
    """What a split holds, and all that was found in it.

    Attributes:
        root, split, format, annotated: of the dataset.
        images: number of images listed; unreadable, grey, empty: how many of them cannot be decoded, have no colour,
            have no object.
        boxes: number of usable boxes, crowds among them; crowds, clipped, dropped: how many boxes are crowds, were
            clipped to their image, or were left out for having no area.
        boxes_per_class: usable boxes by class name, in label order (crowds among them).
        smallest, largest: (width, height) of the images of fewest and most pixels.
        problems: everything found: errors first, then warnings, then notes.
        notes: what is to be said about how the folder was read, as files that were passed over.
    """

    root: Path
    split: str
    format: str
    annotated: bool
    images: int
    unreadable: int
    grey: int
    empty: int
    boxes: int
    crowds: int
    clipped: int
    dropped: int
    boxes_per_class: tuple[tuple[str, int], ...]
    smallest: tuple[int, int]
    largest: tuple[int, int]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()

    def of(self, severity: Severity) -> tuple[Problem, ...]:
        """The problems of one severity."""
        return tuple(problem for problem in self.problems if problem.severity == severity)

    @property
    def ok(self) -> bool:
        """Whether training and evaluation could run: there is no error."""
        return not self.of("error")

    def to_dict(self) -> dict[str, Any]:
        """All figures and problems as plain values that json can hold."""
        return {**asdict(self), "root": str(self.root), "ok": self.ok}


def check_dataset(
    root: str | Path,
    split: str | None = None,
    *,
    exif: Exif = "auto",
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Read a split and decode every image of it.

    Errors are what training or evaluation would stop at (unreadable or missing images, sizes that disagree, duplicate
    or unknown ids), warnings what loading mends (boxes clipped or dropped, JPEGs that lack their last bytes) or cannot
    know (EXIF orientation where the labels tell nothing), notes what is worth knowing (crowds, grey pictures, images
    without an object, EXIF orientation, 10 bits in a file of 16, the same box twice).

    Args:
        root: a dataset as for `load_dataset`.
        split, exif: as for `load_dataset`.
        workers: threads that decode images; None takes the machine's cores.
        progress: called with the images done and their total.

    Raises:
        ToodError: if nothing can be read at all: no dataset, no such split, a broken json or yaml, no image.
    """
    dataset = read_leniently(root, split, exif)
    if not dataset.images and all(problem.severity != "error" for problem in dataset.problems):
        require_images(dataset)
    missing = {problem.image_id for problem in dataset.problems if problem.kind == "image_missing"}
    present = [image for image in dataset.images if image.id not in missing]
    found: list[list[Problem]] = []
    with ThreadPoolExecutor(workers or usable_cores()) as pool:
        for problems in pool.map(_check_image, present):
            found.append(problems)
            if progress is not None:
                progress(len(found), len(present))
    notes = [note for image in dataset.images for note in _annotation_notes(image, dataset)]
    return _report(dataset, [*(problem for problems in found for problem in problems), *notes])


def _check_image(image: ImageRecord) -> list[Problem]:
    """What is to be said about the file of one image."""
    file = str(image.path)
    try:
        data = image.path.read_bytes()
        decoded = decode_image(data, name=file)
        header = image_header(data, name=file)
    except PictureError as error:
        return [Problem("image_unreadable", file, error.reason, image.id)]
    except ToodError as error:
        return [Problem("image_unreadable", file, str(error), image.id)]
    except (OSError, ValueError) as error:
        return [Problem("image_unreadable", file, f"cannot be read ({error})", image.id)]
    problems = []
    value = orientation(data)
    stored, size = (header.width, header.height), (image.width, image.height)
    turned = image.turned or stored != size == turned_size(stored, value)
    if size != (turned_size(stored, value) if turned else stored):
        message = f"is {header.width}x{header.height} pixels, but its annotations are for {image.width}x{image.height}"
        problems.append(Problem("size_differs", file, message, image.id))
    if value != 1:
        used = "applied, as its labels were made on the turned picture"
        message = f"its EXIF orientation is {value}: {used if turned else 'not applied, the pixels are used as stored'}"
        problems.append(Problem("exif_orientation", file, message, image.id, severity="note"))
    if decoded.rows is not None:
        message = f"lacks its last bytes or has a damaged part: {decoded.rows} of {header.height} rows are there"
        problems.append(Problem("image_cut", file, message, image.id, severity="warning"))
    if decoded.bits is not None and decoded.bits < 16:
        message = f"uses {decoded.bits} of 16 bits a channel: scaled to 8 bits from those"
        problems.append(Problem("few_bits", file, message, image.id, severity="note"))
    if decoded.levels is not None:
        message = f"has {decoded.levels} levels in 8 bits: {NARROW}"
        problems.append(Problem("few_levels", file, message, image.id, severity="warning"))
    if _is_grey(decoded.pixels):
        problems.append(Problem("grey", file, "is grey: it has no colour", image.id, severity="note"))
    return problems


def _is_grey(pixels: NDArray[np.uint8]) -> bool:
    """Whether the three channels are equal everywhere; a few rows decide for most pictures."""
    for part in (pixels[:: max(1, len(pixels) // 8)], pixels):
        if not (np.array_equal(part[..., 0], part[..., 1]) and np.array_equal(part[..., 1], part[..., 2])):
            return False
    return True


def _annotation_notes(image: ImageRecord, dataset: DetectionDataset) -> list[Problem]:
    file = str(image.path)
    if not len(image.boxes):
        if not dataset.annotated:
            return []
        return [Problem("empty", file, "has no object", image.id, severity="note")]
    notes = []
    for row in np.flatnonzero(image.crowd).tolist():
        name = dataset.categories[int(image.labels[row])].name
        message = (
            f"{name} box is {'difficult' if dataset.format == 'voc' else 'a crowd'}: ignored in training and evaluation"
        )
        notes.append(Problem("crowd", file, message, image.id, int(image.annotation_ids[row]), "note"))
    rows = np.concatenate([image.boxes, image.labels[:, None].astype(np.float32)], axis=1)
    _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    firsts = first[inverse.reshape(-1)]
    for row in np.flatnonzero(firsts != np.arange(len(rows))).tolist():
        name = dataset.categories[int(image.labels[row])].name
        message = f"{name} box is there twice, also as annotation {image.annotation_ids[firsts[row]]}"
        notes.append(Problem("duplicate_box", file, message, image.id, int(image.annotation_ids[row]), "note"))
    return notes


def _report(dataset: DetectionDataset, found: list[Problem]) -> CheckReport:
    rank = {"error": 0, "warning": 1, "note": 2}
    problems = tuple(sorted([*dataset.problems, *found], key=lambda problem: rank[problem.severity]))

    def count(*kinds: str) -> int:
        return sum(problem.kind in kinds for problem in problems)

    labels = np.concatenate([np.zeros(0, np.int64), *(image.labels for image in dataset.images)])
    per_class = np.bincount(labels, minlength=len(dataset.categories)).tolist()
    sizes = sorted(
        {(image.width, image.height) for image in dataset.images}, key=lambda size: (size[0] * size[1], size)
    )
    return CheckReport(
        root=dataset.root,
        split=dataset.split,
        format=dataset.format,
        annotated=dataset.annotated,
        images=len(dataset.images),
        unreadable=count("image_unreadable", "image_missing"),
        grey=count("grey"),
        empty=count("empty"),
        boxes=dataset.box_count,
        crowds=sum(int(image.crowd.sum()) for image in dataset.images),
        clipped=count("box_clipped"),
        dropped=count("box_dropped"),
        boxes_per_class=tuple(zip(dataset.class_names, per_class, strict=True)),
        smallest=sizes[0] if sizes else (0, 0),
        largest=sizes[-1] if sizes else (0, 0),
        problems=problems,
        notes=dataset.notes,
    )

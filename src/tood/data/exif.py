"""Pictures with an EXIF orientation: whether labels were made on the pixels as stored, or on the turned picture.

Where the labels tell the size of a picture that was turned by a quarter, the size tells. Otherwise nothing does (square
pictures, half turns, mirrors, YOLO's parts of an image): then the setting decides, else what the dataset says of
itself, else the pictures of the same split that do tell, if they agree, else they are taken as stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from tood.choices import Exif
from tood.data.dataset import DetectionDataset, ImageRecord, ImageRecords
from tood.data.images import file_orientation, image_size, turn_boxes, turned_size
from tood.errors import ToodError

# Of more pictures than this whose size the labels tell, so many are looked at first; the others if one of them has an
# orientation. Their files need not be opened otherwise, and those whose size tells are turned when they are read.
_LOOKED_AT = 10_000
# A corner counted from 1, and rounding, may lie so far outside.
_MARGIN = 2.0


def label_exif(value: Any, source: Path) -> Exif:
    """What a dataset's own settings say of its labels, `auto` if nothing.

    Raises:
        ToodError: if it is another word than there are.
    """
    if value is None:
        return "auto"
    if value not in get_args(Exif):
        raise ToodError(f"{source}: 'exif' is {value!r}: expected {', '.join(get_args(Exif))}")
    found: Exif = value
    return found


def size_that_holds(path: Path, corners: NDArray[np.float64]) -> tuple[int, int]:
    """(width, height) of a picture whose labels tell no size: as stored, or turned where its boxes only fit so.

    Args:
        path: the picture.
        corners: [G, 4] x1 y1 x2 y2 of its boxes, in pixels.

    Raises:
        ToodError: as `image_size`.
    """
    stored = image_size(path)
    turned = turned_size(stored, file_orientation(path))
    return turned if _beyond(corners, turned) + _MARGIN < _beyond(corners, stored) else stored


def oriented(dataset: DetectionDataset, exif: Exif = "auto", *, look: bool = True) -> tuple[DetectionDataset, str]:
    """A dataset of which each picture with an EXIF orientation is either turned or not.

    Args:
        dataset: as its files have it.
        exif: what the labels were made on, where they do not tell.
        look: whether to open files of which the labels tell the size.

    Returns:
        The dataset, and a sentence for the person where nothing tells (else empty).
    """
    values = _orientations(dataset.columns, look)
    if not values:
        return dataset, ""
    told = {index: _told(dataset.images[index], value, dataset.format) for index, value in values.items()}
    known = {turned for turned in told.values() if turned is not None}
    # With boxes alone there is something to lie elsewhere.
    open_ones = [index for index, turned in told.items() if turned is None]
    setting = exif if exif != "auto" else dataset.exif
    otherwise = setting == "turned" if setting != "auto" else known == {True}
    changed = {
        index: _turned(dataset.images[index], values[index], dataset.format)
        for index, turned in told.items()
        if (otherwise if turned is None else turned)
    }
    images = dataset.columns.replaced(changed)
    unsure = int((images.counts[open_ones] > 0).sum())
    sentence = _sentence(dataset, unsure, otherwise, len(known) == 1) if unsure and setting == "auto" else ""
    return replace(dataset, images=images), sentence


@dataclass(frozen=True)
class WrittenFrames:
    """What is written of pictures with an EXIF orientation.

    Attributes:
        datasets: their labels in the frame that a reader will take them to be in.
        exif: for a format that can say so, which one that is; None if no picture has an orientation.
        pictures: how many have one.
    """

    datasets: tuple[DetectionDataset, ...]
    exif: Literal["stored", "turned"] | None
    pictures: int

    def sentences(self) -> list[str]:
        """What a person is to know who reads a YOLO folder with other programs."""
        if self.exif is None:
            return []
        many = "1 picture has" if self.pictures == 1 else f"{self.pictures} pictures have"
        how = {"stored": "the pixels as stored", "turned": "the turned picture"}[self.exif]
        return [f"{many} an EXIF orientation: labels are for {how}, as `exif: {self.exif}` in data.yaml says"]


def frames_to_write(datasets: Sequence[DetectionDataset], to: str) -> WrittenFrames:
    """Labels that mean the same boxes when they are read again, from pictures that keep their EXIF.

    In YOLO's format all are of one kind, which its yaml says; in others the size tells where it can, and pictures
    where it cannot go with those.

    Args:
        datasets: the splits.
        to: `coco`, `yolo` or `voc`.
    """
    values = [
        {index: value for index, path in enumerate(part.columns.paths) if (value := file_orientation(path)) != 1}
        for part in datasets
    ]
    pictures = sum(map(len, values))
    if not pictures:
        return WrittenFrames(tuple(datasets), None, 0)
    frames = [
        {index: _is_turned(part.images[index], value) for index, value in found.items()}
        for part, found in zip(datasets, values, strict=True)
    ]
    any_turned = any(turned for part in frames for turned in part.values())
    written = []
    for part, found, turned in zip(datasets, values, frames, strict=True):
        told = {index for index, value in found.items() if to != "yolo" and _size_tells(part.images[index], value)}
        wanted = any_turned if to == "yolo" else {turned[index] for index in told} == {True}
        changed = {
            index: _moved(part.images[index], found[index], wanted)
            for index in found.keys() - told
            if turned[index] != wanted
        }
        written.append(replace(part, images=part.columns.replaced(changed)))
    return WrittenFrames(tuple(written), "turned" if any_turned else "stored", pictures)


def _orientations(images: ImageRecords, look: bool) -> dict[int, int]:
    """EXIF orientations other than 1, by image."""
    sized = np.flatnonzero(~images.size_from_file) if look else np.zeros(0, np.int64)
    first = sized
    if len(sized) > _LOOKED_AT:
        first = sized[np.linspace(0, len(sized) - 1, _LOOKED_AT).astype(int)]
    found = _looked_up(images, first)
    if len(first) < len(sized) and found:
        found |= _looked_up(images, np.setdiff1d(sized, first))
    found |= _looked_up(images, np.flatnonzero(images.size_from_file & (images.orientations == 0)))
    known = np.flatnonzero(images.size_from_file & (images.orientations > 1))
    return found | dict(zip(known.tolist(), images.orientations[known].tolist(), strict=True))


def _looked_up(images: ImageRecords, indices: NDArray[np.int64]) -> dict[int, int]:
    """EXIF orientations other than 1 that the files of these images tell, by image."""
    found = {index: file_orientation(images.paths[index]) for index in indices.tolist()}
    return {index: value for index, value in found.items() if value != 1}


def _told(image: ImageRecord, value: int, kind: str) -> bool | None:
    """Whether the labels were made on the turned picture, by their size or corners; None where they do not tell."""
    if not _size_tells(image, value):
        return None
    size = (image.width, image.height)
    stored = _stored_size(image, size)
    if size == turned_size(stored, value):
        return True
    if image.size_from_file:  # which is what was assumed: did the other one fit, too?
        fits_too = kind == "yolo" or _beyond(image.boxes.astype(np.float64), turned_size(stored, value)) <= _MARGIN
        return None if fits_too else False
    return False


def _size_tells(image: ImageRecord, value: int) -> bool:
    return value >= 5 and image.width != image.height


def _is_turned(image: ImageRecord, value: int) -> bool:
    """Whether a picture is turned as it is read, by `oriented` or for its size alone."""
    size = (image.width, image.height)
    return image.turned or (_size_tells(image, value) and size != _stored_size(image, size))


def _stored_size(image: ImageRecord, otherwise: tuple[int, int]) -> tuple[int, int]:
    try:
        return image_size(image.path)
    except ToodError:
        return otherwise


def _turned(image: ImageRecord, value: int, kind: str) -> ImageRecord:
    """The record of a turned picture: of YOLO's parts of an image now parts of the turned one."""
    size = (image.width, image.height)
    turned = turned_size(_stored_size(image, size), value)
    if not image.size_from_file or turned == size:
        return replace(image, turned=True)
    boxes = image.boxes
    if kind == "yolo":
        limits = np.array([*turned, *turned], np.float64)
        scaled = boxes.astype(np.float64) / np.array([*size, *size]) * limits
        boxes = np.minimum(scaled, limits).astype(np.float32)
    return replace(image, turned=True, width=turned[0], height=turned[1], boxes=boxes)


def _moved(image: ImageRecord, value: int, to_turned: bool) -> ImageRecord:
    """The same boxes on the other one of the stored and the turned picture."""
    size = (image.width, image.height)
    value = value if to_turned else {6: 8, 8: 6}.get(value, value)
    width, height = turned_size(size, value)
    return replace(image, turned=to_turned, width=width, height=height, boxes=turn_boxes(image.boxes, size, value))


def _beyond(corners: NDArray[np.float64], size: tuple[int, int]) -> float:
    """By how many pixels boxes reach beyond a picture, at the most."""
    finite = corners[np.isfinite(corners).all(axis=1)]
    return float(max(0.0, (finite[:, 2:] - np.array(size)).max(initial=0.0)))


def _sentence(dataset: DetectionDataset, unsure: int, turned: bool, alike: bool) -> str:
    many = f"{unsure} pictures have" if unsure != 1 else "1 picture has"
    taken = "turned" if turned else "stored"
    why = ", like those of this split that do tell" if alike else ""
    other = "stored" if turned else "turned"
    return (
        f"{dataset.root}, split {dataset.split!r}: {many} an EXIF orientation, and labels that do not tell whether "
        f"they were made on the picture as stored or turned: taken as {taken}{why}. If the boxes lie elsewhere, say "
        f"so: in `tood train` --set data.exif={other}, in `tood eval` and `tood data check|convert|split|stats` "
        f"--exif {other}"
    )

"""Labels in texts of other formats than YOLO's, told by the form of their lines, and masks, told by their folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tood.data.files import IMAGE_SUFFIXES
from tood.data.formats.text import read_lines
from tood.data.formats.yolo_paths import KERAS_LINE

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_LARGEST_TEXT = 1 << 26
_MASK_FOLDERS = frozenset(
    {"segmentationclass", "segmentationobject", "segmentationclassaug", "segmentation", "segmentations"}
    | {"mask", "masks", "trimap", "trimaps", "gt", "gtfine", "groundtruth", "ground_truth", "labels", "annotations"}
)
_SHARE_PAIRED = 0.8


@dataclass(frozen=True)
class Foreign:
    """A format that is not read: whose it is, and how to come to one that is."""

    what: str
    remedy: str

    def told(self, path: Path) -> str:
        """The sentence on a file of this format."""
        return f"{path} is {self.what}, which is not read: {self.remedy}"


_CONVERT = "convert it to COCO, YOLO or Pascal VOC (Datumaro knows it)"
_EXPORT = "export again as COCO, YOLO or Pascal VOC from the tool that wrote it"
_KERAS = Foreign("a list of Keras-YOLO with the boxes in it", _EXPORT)
_WIDER = Foreign("WIDER FACE's list of boxes", _CONVERT)
_MOT = Foreign("a MOT Challenge's table of tracks", _CONVERT)
_KITTI = Foreign("KITTI's label file", _CONVERT)
_VISDRONE = Foreign(
    "VisDrone's own format (x, y, width, height, score, category, truncation, occlusion)",
    "convert it to COCO, YOLO or Pascal VOC, leaving out category 0, which marks regions to ignore",
)
_DOTA = Foreign("DOTA's label file (four corners, a name, a difficulty)", "convert it to COCO, YOLO or Pascal VOC")
_OPEN_IMAGES = Foreign(
    "a label file of the OIDv4 ToolKit (a class's name, x1 y1 x2 y2 in pixels)",
    "convert it to COCO, YOLO or Pascal VOC, or download the classes with FiftyOne's zoo and export them as COCO",
)
_NAMED_YOLO = Foreign(
    "a label file with the names of classes where YOLO has their numbers, from 0",
    "write the numbers, and the names, in their order, to classes.txt",
)
_UNKNOWN = Foreign("a text of numbers in no format that is known", _EXPORT)


def text_told(path: Path) -> str | None:
    """A sentence on a text that holds boxes in another form than YOLO's; None if it is YOLO's or says nothing."""
    kind = _kind(path)
    return None if kind is None else kind.told(path)


def masks_among(pictures: Sequence[Path]) -> str | None:
    """A sentence on pictures that are masks of others; None if there are none."""
    folders: dict[Path, set[str]] = {}
    for path in pictures:
        folders.setdefault(path.parent, set()).add(path.stem)
    for folder, stems in folders.items():
        if folder.name.lower() not in _MASK_FOLDERS:
            continue
        others = set().union(*(own for other, own in folders.items() if other != folder))
        if len(stems & others) >= _SHARE_PAIRED * len(stems):
            return (
                f"{folder} holds {len(stems)} masks of the other pictures, which are not read: export the boxes too, "
                "as COCO, YOLO or Pascal VOC, or move the folder away if the pictures are all that is meant"
            )
    return None


def _kind(path: Path) -> Foreign | None:
    try:
        lines = [] if path.stat().st_size > _LARGEST_TEXT else read_lines(path)[:50]
    except (OSError, ValueError):
        return None
    if not lines:
        return None
    if KERAS_LINE.fullmatch(lines[0]):
        return _KERAS
    if len(lines) > 2 and Path(lines[0]).suffix.lower() in IMAGE_SUFFIXES and lines[1].isdigit():
        return _WIDER if len(_numbers(lines[2].split())) >= 4 else None
    words = [word for word in re.split(r"[,\s]+", lines[0]) if word]
    if path.name.lower() == "gt.txt" and len(_numbers(words)) >= 6:
        return _MOT
    if lines[0].startswith("imagesource:") or _is_dota(words):
        return _DOTA
    return _kind_of_line(words)


def _kind_of_line(words: Sequence[str]) -> Foreign | None:
    """The format of a line of numbers, perhaps with a name before them."""
    numbers = _numbers(words)
    if len(numbers) == len(words):
        return _VISDRONE if _is_visdrone(words) else _UNKNOWN if len(words) == 4 else None
    behind = next((count for count, word in enumerate(reversed(words)) if not _NUMBER.fullmatch(word)), len(words))
    if behind in (14, 15) and len(words) == behind + 1:
        return _KITTI
    if behind == 4 and len(words) <= 9:
        return _NAMED_YOLO if all(0 <= number <= 1 for number in numbers[-4:]) else _OPEN_IMAGES
    return _UNKNOWN if behind >= 4 and 2 * behind >= len(words) else None


def _numbers(words: Sequence[str]) -> list[float]:
    return [float(word) for word in words if _NUMBER.fullmatch(word)]


def _is_visdrone(words: Sequence[str]) -> bool:
    if len(words) != 8 or not all(word.lstrip("-").isdigit() for word in words):
        return False
    score, category, truncation, occlusion = map(int, words[4:])
    return -1 <= score <= 1 and 0 <= category <= 11 and -1 <= truncation <= 1 and -1 <= occlusion <= 2


def _is_dota(words: Sequence[str]) -> bool:
    return len(words) == 10 and len(_numbers(words[:8])) == 8 and not _NUMBER.fullmatch(words[8]) and words[9].isdigit()

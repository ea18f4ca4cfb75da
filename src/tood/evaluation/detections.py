"""A dataset's detections as columns, and as the json that the COCO servers take."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tood.errors import ToodError
from tood.evaluation.json_file import is_id, read_json
from tood.whole_file import whole_file

# Decimals kept of coordinates (pixels) and of scores: COCO's full test set stays a small file, no figure moves.
BOX_DECIMALS = 3
SCORE_DECIMALS = 6


@dataclass(frozen=True)
class DetectionTable:
    """All detections in a dataset, in any order.

    Attributes:
        image_ids: [D] int64, as in the annotations.
        category_ids: [D] int64, as in the annotations (COCO's are not contiguous).
        boxes: [D, 4] float64, x y width height in pixels of the original image.
        scores: [D] float64 probabilities.
    """

    image_ids: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.scores)

    @staticmethod
    def empty() -> DetectionTable:
        """The table of a model that found nothing in any image."""
        none = np.zeros(0, np.int64)
        return DetectionTable(none, none, np.zeros((0, 4)), np.zeros(0))

    @staticmethod
    def from_corners(
        image_ids: NDArray[np.int64],
        category_ids: NDArray[np.int64],
        boxes: NDArray[np.floating[Any]],
        scores: NDArray[np.floating[Any]],
    ) -> DetectionTable:
        """From x1 y1 x2 y2 boxes [D, 4]; rounded as the json is, so that both give the same figures."""
        corners = boxes.astype(np.float64)
        sized = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        return DetectionTable(
            image_ids.astype(np.int64),
            category_ids.astype(np.int64),
            sized.round(BOX_DECIMALS),
            scores.astype(np.float64).round(SCORE_DECIMALS),
        )

    @staticmethod
    def join(tables: Sequence[DetectionTable]) -> DetectionTable:
        """One table of all rows of several, in their order."""
        tables = [*tables, DetectionTable.empty()]
        return DetectionTable(
            np.concatenate([table.image_ids for table in tables]),
            np.concatenate([table.category_ids for table in tables]),
            np.concatenate([table.boxes for table in tables]),
            np.concatenate([table.scores for table in tables]),
        )

    def by_image(self) -> DetectionTable:
        """In the order of the image ids; an image's own detections keep theirs."""
        order = np.argsort(self.image_ids, kind="stable")
        return DetectionTable(self.image_ids[order], self.category_ids[order], self.boxes[order], self.scores[order])

    def save(self, path: Path | str) -> None:
        """Writes a COCO results file; it appears whole or not at all."""
        columns = (self.image_ids.tolist(), self.category_ids.tolist(), self.boxes.tolist(), self.scores.tolist())
        rows = zip(*columns, strict=True)
        text = json.dumps(
            [
                {"image_id": image, "category_id": category, "bbox": box, "score": score}
                for image, category, box, score in rows
            ],
            separators=(",", ":"),
        )
        with whole_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")

    @staticmethod
    def read(path: Path | str) -> DetectionTable:
        """Reads a COCO results file: a list of {image_id, category_id, bbox: [x, y, width, height], score}.

        Raises:
            ToodError: if the file is missing or no such list; it names the first wrong entry.
        """
        path = Path(path)
        entries = read_json(path, "detections", "write it again")
        if not isinstance(entries, list):
            raise ToodError(f"the detections file {path} holds no list of detections but a {type(entries).__name__}")
        for i, entry in enumerate(entries):
            problem = _problem(entry)
            if problem:
                raise ToodError(f"{path}, detection {i}: {problem}")
        if not entries:
            return DetectionTable.empty()
        return DetectionTable(
            np.array([int(entry["image_id"]) for entry in entries], np.int64),
            np.array([int(entry["category_id"]) for entry in entries], np.int64),
            np.array([entry["bbox"] for entry in entries], np.float64),
            np.array([entry["score"] for entry in entries], np.float64),
        )


def plain_entries(content: bytes) -> int | None:
    """Number of detections in a results file of nothing but the four keys, or None for any other file.

    It is meant beside a strict reader that requires the ids, refuses a key given twice and any type but a number, and
    merely lets a missing or null bbox or score pass. With four strings a detection, every string in the file is then
    one of the four names, and every detection has each of them, once.
    """
    count = content.count(b'"bbox"')
    plain = (
        content[:64].lstrip()[:1] == b"["
        and content.count(b'"score"') == count
        and content.count(b'"') == 8 * count
        and b"n" not in content  # null: none of the names has the letter
    )
    return count if plain else None


def _problem(entry: object) -> str | None:
    if not isinstance(entry, dict):
        return f"expected an object with image_id, category_id, bbox, score, found {entry!r:.60}"
    for key in ("image_id", "category_id"):
        if not is_id(entry.get(key)):
            return f"{key} must be a whole number of 64 bits, found {entry.get(key)!r:.60}"
    box, score = entry.get("bbox"), entry.get("score")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_finite, box)):
        return f"bbox must be four numbers x, y, width, height, found {box!r:.60}"
    if not _finite(score):
        return f"score must be a number, found {score!r:.60}"
    return None


def _finite(value: object) -> bool:
    # A whole number too large for a double is as useless as an infinite one.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1e300 < value < 1e300

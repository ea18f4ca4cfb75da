"""Detections of a video as json lines, CSV and parquet, made of the lines that a run has kept."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from tood.errors import ToodError
from tood.video.frames import TICKS, FailedFrame, Position
from tood.video.tracking import Seen

COLUMNS = ("frame", "time", "track", "name", "label", "score", "x1", "y1", "x2", "y2")
"""Of CSV and parquet; `track` is empty for an object that is not followed."""

# Rows of a parquet file that are held together.
_GROUP = 50_000


def line(position: Position, seen: Seen, counts: dict[str, Any]) -> dict[str, Any]:
    """A frame as the tables have it: boxes to 2 decimals, scores to 4, seconds to 3."""
    rows = zip(seen.boxes.tolist(), seen.scores.tolist(), seen.labels.tolist(), seen.tracks.tolist(), strict=True)
    found = [[track, label, round(score, 4), *(round(side, 2) for side in box)] for box, score, label, track in rows]
    told: dict[str, Any] = {"frame": position.number, "time": round(position.ticks / TICKS, 3), "found": found}
    return {**told, "counts": counts} if counts else told


def failed_line(failed: FailedFrame) -> dict[str, Any]:
    """A frame that failed, as the tables have it."""
    return {"frame": failed.number, "error": failed.reason}


def write_jsonl(lines: Iterable[dict[str, Any]], class_names: Sequence[str], path: Path) -> None:
    """One line a frame, also of one that failed or has nothing on it."""
    with path.open("w", encoding="utf-8", newline="") as file:
        for kept in lines:
            told = {key: value for key, value in kept.items() if key not in ("found", "counts")}
            if "found" in kept:
                told["detections"] = [
                    {
                        **({"track": track} if track >= 0 else {}),
                        "name": _name(label, class_names),
                        "label": label,
                        "score": score,
                        "box": box,
                    }
                    for track, label, score, *box in kept["found"]
                ]
            told |= {"counts": kept["counts"]} if "counts" in kept else {}
            file.write(json.dumps(told, ensure_ascii="error" in told) + "\n")


def write_csv(lines: Iterable[dict[str, Any]], class_names: Sequence[str], path: Path) -> None:
    """One row a detection."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for frame, time, track, *rest in _rows(lines, class_names):
            table.writerow([frame, time, "" if track is None else track, *rest])


def require_parquet() -> Any:
    """The package that writes parquet.

    Raises:
        ToodError: if it is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError:
        raise ToodError(
            "parquet needs the package pyarrow, which is not installed: pip install 'tood[video]'"
        ) from None
    return pyarrow


def write_parquet(lines: Iterable[dict[str, Any]], class_names: Sequence[str], path: Path) -> None:
    """One row a detection, at most 50,000 of them in memory."""
    arrow = require_parquet()
    whole, real = arrow.int64(), arrow.float32()
    kinds = [whole, arrow.float64(), whole, arrow.string(), whole, real, real, real, real, real]
    schema = arrow.schema(list(zip(COLUMNS, kinds, strict=True)))
    rows = _rows(lines, class_names)
    with arrow.parquet.ParquetWriter(path, schema) as writer:
        while group := list(islice(rows, _GROUP)):
            columns = zip(*group, strict=True)
            arrays = [arrow.array(values, kind) for values, kind in zip(columns, kinds, strict=True)]
            writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))


def _rows(lines: Iterable[dict[str, Any]], class_names: Sequence[str]) -> Iterator[list[Any]]:
    return chain.from_iterable(
        (
            [kept["frame"], kept["time"], track if track >= 0 else None, _name(label, class_names), label, score, *box]
            for track, label, score, *box in kept.get("found", ())
        )
        for kept in lines
    )


def _name(label: int, class_names: Sequence[str]) -> str:
    return class_names[label] if label < len(class_names) else str(label)

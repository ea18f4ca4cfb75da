"""The built-in dataset as a folder: pictures and COCO annotations."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tood.data.digits.scans import SPLITS, Scans, Split, load_scans
from tood.data.digits.scenes import SceneConfig, render_scene
from tood.errors import ToodError
from tood.whole_file import settle_unfinished, whole_folder

STAMP = "digits.json"
"""File at the root of the folder that says how it was made."""

_GENERATOR = 1  # raised when the same parameters give other scenes
_JPEG_QUALITY = 95
_CREDIT = (
    "Handwritten digits: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning "
    "Repository, https://doi.org/10.24432/C50P49, CC BY 4.0; composed into scenes by tood"
)


@dataclass(frozen=True)
class DigitsConfig:
    """What the folder holds: everything that decides its bytes.

    Attributes:
        train, val, test: pictures in each split; 0 leaves it out. The splits come from different writers' digits.
        seed: of the scenes.
        scenes: what a scene looks like.
    """

    train: int = 2000
    val: int = 200
    test: int = 400
    seed: int = 0
    scenes: SceneConfig = field(default_factory=SceneConfig)

    def __post_init__(self) -> None:
        if min(self.train, self.val, self.test, self.seed) < 0:
            raise ToodError("digits: the numbers of pictures and the seed must not be negative")
        if self.train + self.val + self.test == 0:
            raise ToodError("digits: all splits are to hold 0 pictures; ask for at least one")

    def count(self, split: Split) -> int:
        """Number of pictures in a split."""
        return {"train": self.train, "val": self.val, "test": self.test}[split]


def write_digits(
    out: str | Path,
    config: DigitsConfig | None = None,
    *,
    processes: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the dataset `digits` as a COCO folder: `annotations/instances_<split>.json` and `<split>/*.jpg`.

    The same configuration gives the same bytes. A folder that already holds just this dataset is left as it is. The
    folder appears whole or not at all.

    Args:
        out: the folder; may exist if it is empty.
        config: what to write.
        processes: how many to render with; the result is the same. More than one needs a script to be guarded by
            `if __name__ == "__main__"` where processes are spawned (macOS, Windows).
        progress: called with the pictures done and their total.

    Returns:
        The folder.

    Raises:
        ToodError: `out` holds anything else, or cannot be written.
    """
    out, config = Path(out), config or DigitsConfig()
    if _holds(out, config):
        return out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        was = "digits made otherwise" if (out / STAMP).is_file() else "something else"
        raise ToodError(f"{out}: already holds {was}; remove it, or name another folder")
    settle_unfinished(out, Path.rmdir)
    try:
        with whole_folder(out) as folder:
            _write(folder, config, processes, progress)
    except OSError as error:
        raise ToodError(f"{out}: cannot be written ({error.strerror or error})") from error
    return out


def _holds(folder: Path, config: DigitsConfig) -> bool:
    """Whether the folder holds this very dataset, whole."""
    try:
        if json.loads((folder / STAMP).read_text("utf-8")) != _stamp(config):
            return False
    except (OSError, ValueError):
        return False
    return all(
        (folder / "annotations" / f"instances_{split}.json").is_file()
        and len(list((folder / split).glob("*.jpg"))) == config.count(split)
        for split in SPLITS
        if config.count(split)
    )


def _stamp(config: DigitsConfig) -> dict[str, Any]:
    return {"generator": _GENERATOR, "credit": _CREDIT, **asdict(config)}


def _write(folder: Path, config: DigitsConfig, processes: int, progress: Callable[[int, int], None] | None) -> None:
    total = sum(config.count(split) for split in SPLITS)
    done = 0
    for split in SPLITS:
        if config.count(split) == 0:
            continue
        (folder / split).mkdir()
        pictures: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for boxes, labels in _draw(folder / split, split, config, processes):
            pictures.append(
                {
                    "id": len(pictures) + 1,
                    "file_name": _file_name(len(pictures)),
                    "width": config.scenes.side,
                    "height": config.scenes.side,
                    "license": 1,
                }
            )
            for (x1, y1, x2, y2), label in zip(boxes, labels, strict=True):
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": len(pictures),
                        "category_id": label,
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": (x2 - x1) * (y2 - y1),
                        "iscrowd": 0,
                    }
                )
            done += 1
            if progress:
                progress(done, total)
        content = {
            "info": {"description": f"digits, {split}", "contributor": _CREDIT},
            "licenses": [{"id": 1, "name": "CC BY 4.0", "url": "https://creativecommons.org/licenses/by/4.0/"}],
            "images": pictures,
            "annotations": annotations,
            "categories": [{"id": digit, "name": str(digit), "supercategory": "digit"} for digit in range(10)],
        }
        _write_json(folder / "annotations" / f"instances_{split}.json", content)
    _write_json(folder / STAMP, _stamp(config), indent=2)


def _draw(
    folder: Path, split: Split, config: DigitsConfig, processes: int
) -> Iterator[tuple[list[list[int]], list[int]]]:
    """Render and store the pictures of a split, in order; gives the boxes and labels of each."""
    draw = partial(_draw_one, folder, load_scans(split), (config.seed, SPLITS.index(split)), config.scenes)
    if processes <= 1:
        yield from map(draw, range(config.count(split)))
        return
    with ProcessPoolExecutor(processes, initializer=_prepare_process) as pool:
        yield from pool.map(draw, range(config.count(split)), chunksize=16)


def _prepare_process() -> None:
    """One thread a process; it ends when its parent wants that, who alone obeys signals."""
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _draw_one(
    folder: Path, scans: Scans, seeds: tuple[int, int], scenes: SceneConfig, index: int
) -> tuple[list[list[int]], list[int]]:
    scene = render_scene(scans, np.random.default_rng((*seeds, index)), scenes)
    bgr = cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    (folder / _file_name(index)).write_bytes(encoded.tobytes())
    return scene.boxes.tolist(), scene.labels.tolist()


def _file_name(index: int) -> str:
    return f"{index + 1:06d}.jpg"


def _write_json(path: Path, content: dict[str, Any], indent: int | None = None) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=indent) + "\n", "utf-8")

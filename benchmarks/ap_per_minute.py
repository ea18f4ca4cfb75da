"""AP per minute: our smallest model and Ultralytics' YOLOv8n, from scratch, on the same cores for the same minutes.

Both see the same folders at the same size of image, with their defaults (handwriting is mirrored by neither), one after
the other. What they find on the test split at several times of their training is judged by the same COCO evaluation.
Written are ap_per_minute.json, .md and .png.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tood.data import DetectionDataset, DigitsConfig, convert_dataset, load_dataset, write_digits
from tood.evaluation import DetectionTable, evaluate_detections

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROOT = Path(__file__).parents[1]
OURS, PEER = "tood_tiny", "YOLOv8n (Ultralytics)"
# Both trainers' own defaults for this size of model.
OUR_BATCH, PEER_BATCH = 8, 16
MOMENTS = 12

# (minutes, AP, AP50)
Curve = list[tuple[float, float, float]]


@dataclass(frozen=True)
class Task:
    """A dataset in YOLO's layout, which both read."""

    name: str
    folder: Path
    size: int
    flip: bool


def main() -> None:
    """Trains, evaluates, draws."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--peers", type=Path, default=Path(".peers"), help="folder that `make bench-peers` made")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--cells",
        type=Path,
        default=Path(os.environ.get("TOOD_TEST_DATA", "data")) / "bccd",
        help="the blood cells (BCCD) in Pascal VOC's layout; left out where there is no such folder",
    )
    parser.add_argument("--only", choices=("cells", "digits"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    peer = arguments.peers.absolute() / "python"
    curves: dict[str, dict[str, Curve]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for task in tasks(Path(folder), arguments.cells, arguments.only):
            work = Path(folder) / f"{task.name}-runs"
            work.mkdir()
            curves[task.name] = {OURS: train_ours(task, arguments.minutes, work, arguments.threads)}
            if peer.exists():
                curves[task.name][PEER] = train_peer(task, arguments.minutes, work, peer, arguments.threads)
            else:
                print(f"no peers in {arguments.peers} (`make bench-peers` sets them up): ours alone", file=sys.stderr)
    content = {"minutes": arguments.minutes, "threads": arguments.threads, "curves": curves}
    (arguments.out / "ap_per_minute.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    text = markdown(curves, arguments.minutes)
    (arguments.out / "ap_per_minute.md").write_text(text + "\n", encoding="utf-8")
    draw(curves, arguments.out / "ap_per_minute.png")
    print(text)


def tasks(folder: Path, cells: Path, only: str | None) -> list[Task]:
    """The datasets, written."""
    found = []
    if only != "digits":
        if cells.is_dir():
            convert_dataset(cells, folder / "cells", "yolo", splits=("train", "val", "test"))
            found.append(Task("cells", folder / "cells", 320, flip=True))
        else:
            print(f"no blood cells in {cells}: digits alone (--cells names their folder)", file=sys.stderr)
    if only != "cells":
        write_digits(folder / "digits-drawn", DigitsConfig(val=20, test=100), processes=os.cpu_count() or 1)
        convert_dataset(folder / "digits-drawn", folder / "digits", "yolo")
        found.append(Task("digits", folder / "digits", 256, flip=False))
    return found


def train_ours(task: Task, minutes: float, work: Path, threads: int) -> Curve:
    """`tood train`, which evaluates as it goes, within its minutes; the weights of the end are evaluated after them."""
    out = work / "ours"
    command = [sys.executable, "-m", "tood", "train", "--data", str(task.folder), "--model", OURS]
    command += ["--size", str(task.size), "--minutes", str(minutes), "--batch-size", str(OUR_BATCH), "--out", str(out)]
    command += ["--train-split", "train", "--val-split", "test", "--from", "scratch"]
    if not task.flip:
        command += ["--set", "augment.flip=0"]
    run(command, threads)
    with (out / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["AP"]]
    # The last row's clock includes the evaluation after the run.
    return [(min(float(row["seconds"]) / 60, minutes), float(row["AP"]), float(row["AP50"])) for row in rows]


def train_peer(task: Task, minutes: float, work: Path, python: Path, threads: int) -> Curve:
    """YOLOv8n in the peers' environment; its boxes at each moment judged here."""
    dataset = load_dataset(task.folder, "test")
    out = work / "peer"
    out.mkdir()
    asked = {
        "data": str(task.folder / "data.yaml"),
        "images": [str(image.path) for image in dataset.images],
        "minutes": minutes,
        "size": task.size,
        "batch": PEER_BATCH,
        "flip": task.flip,
        "moments": MOMENTS,
        "out": str(out),
    }
    run([str(python), "-m", "benchmarks.peers.ultralytics_train", json.dumps(asked)], threads)
    curve = []
    for moment in json.loads((out / "found.json").read_text()):
        result = evaluate_detections(table(moment["images"], dataset), dataset)
        curve.append((moment["seconds"] / 60, result.ap, result.ap50))
    return curve


def table(found: Mapping[str, Sequence[Sequence[float]]], dataset: DetectionDataset) -> DetectionTable:
    """A peer's boxes under the dataset's ids."""
    categories = np.array([category.id for category in dataset.categories], np.int64)
    parts = []
    for image in dataset.images:
        rows = np.array(found[str(image.path)], np.float64).reshape(-1, 6)
        ids = np.full(len(rows), image.id, np.int64)
        parts.append(DetectionTable.from_corners(ids, categories[rows[:, 5].astype(np.int64)], rows[:, :4], rows[:, 4]))
    return DetectionTable.join(parts)


def run(command: list[str], threads: int) -> None:
    """A trainer, with what it says passed on."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    environment["YOLO_OFFLINE"] = "1"
    if command[0] == sys.executable:
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    subprocess.run(command, cwd=ROOT, env=environment, stdout=sys.stderr, check=True)


def markdown(curves: Mapping[str, Mapping[str, Curve]], minutes: float) -> str:
    """AP and AP50 at the end of each run."""
    lines = [f"| dataset, {minutes:g} minutes from scratch | model | AP | AP50 |", "|---|---|---:|---:|"]
    for name, of in curves.items():
        lines += [f"| {name} | {who} | {curve[-1][1]:.3f} | {curve[-1][2]:.3f} |" for who, curve in of.items() if curve]
    return "\n".join(lines)


def draw(curves: Mapping[str, Mapping[str, Curve]], path: Path) -> None:
    """Both curves of each dataset in one picture."""
    from matplotlib.figure import Figure

    from tood.drawing import PALETTE

    colours = dict(zip((OURS, PEER), (PALETTE[4], PALETTE[5]), strict=True))
    figure = Figure(figsize=(6.5 * len(curves), 4), layout="constrained")
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for axes, (name, of) in zip(panels, curves.items(), strict=True):
        for who, curve in of.items():
            times, ap, _ = np.array(curve).reshape(-1, 3).T
            colour = tuple(part / 255 for part in colours[who])
            axes.plot(times, ap, color=colour, label=who, marker="o", markersize=4, linewidth=1.8)
            if len(ap):
                axes.annotate(f"{ap[-1]:.3f}", (times[-1], ap[-1]), (0, 6), textcoords="offset points", ha="center")
        finish_ap_axes(axes, f"{name}: AP (0.50:0.95) on the test split", "minutes of training")
    figure.savefig(path, dpi=110)


def finish_ap_axes(axes: Axes, title: str, below: str) -> None:
    """What a panel of AP from 0 to 1 has beside its lines."""
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel(below)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1)
    axes.legend(frameon=False)


if __name__ == "__main__":
    main()

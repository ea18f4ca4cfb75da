"""AP by number of training pictures: `tood_lite0`, `tood_tiny` from scratch, YOLOv8n from scratch; same images shown.

    python -m benchmarks.few_pictures DATASET [--pictures 20 50 100] [--seeds 0 1 2] [--shown 2000]

Of the dataset's train split (`tood data split` makes one) subsets are drawn, each within the next of the same seed;
validation and test pictures stay. A row a run is added to rows.jsonl; runs that are in it are not done again, so that
it may be stopped at any time. The table and a picture of it are made from the rows of this dataset, which is known by
its folder's name, and of so many images shown.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.ap_per_minute import PEER, PEER_BATCH, ROOT, finish_ap_axes, table
from tood.data import convert_dataset, load_dataset
from tood.errors import ToodError
from tood.evaluation import evaluate_detections

STARTED, SCRATCH = "tood_lite0", "tood_tiny from scratch"
MODELS = (STARTED, SCRATCH, PEER)
# Side of the images that YOLOv8n gets: the one that `tood_lite0` predicts at.
SIZE = 448
# What rows are of that do not say it.
FIRST_DATASET, FIRST_SHOWN = "raccoon", 2000


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        pictures: of the train split that it learns from.
        seed: by which they are drawn, and trained.
        model: by whom.
        dataset: name of the dataset's folder.
        shown: images that it is shown, about.
    """

    pictures: int
    seed: int
    model: str
    dataset: str
    shown: int

    @staticmethod
    def of(row: dict) -> Run:
        """The one that a row tells of."""
        dataset, shown = row.get("dataset", FIRST_DATASET), row.get("shown", FIRST_SHOWN)
        return Run(row["pictures"], row["seed"], row["model"], dataset, shown)


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains what is missing, then writes the table and the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--pictures", type=int, nargs="+", default=[20, 50, 100])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--shown", type=int, default=2000, help="images that each run is shown")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peers", type=Path, default=Path(".peers"), help="folder that `make bench-peers` made")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "few_pictures")
    options = parser.parse_args(arguments)
    try:
        there = len(load_dataset(options.dataset, "train"))
    except ToodError as error:
        parser.error(str(error))
    if not 1 <= min(options.pictures) <= max(options.pictures) <= there:
        parser.error(f"--pictures: expected 1 to {there}, as {options.dataset} has so many to train on")
    if options.shown < 1 or options.threads < 1:
        parser.error("--shown and --threads: expected 1 or more")
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "rows.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    dataset = options.dataset.resolve().name
    wanted = [
        Run(count, seed, model, dataset, options.shown)
        for seed in options.seeds
        for count in options.pictures
        for model in MODELS
    ]
    missing = [run for run in wanted if run not in map(Run.of, rows)]
    peer = options.peers.absolute() / "python"
    if not peer.exists() and any(run.model == PEER for run in missing):
        print(f"{PEER} is left out: there is no {peer}, which `make bench-peers` makes", file=sys.stderr)
        missing = [run for run in missing if run.model != PEER]
    for run in missing:
        rows.append(measured(run, options.dataset, options.threads, peer))
        print(rows[-1], flush=True)
        with file.open("a") as opened:
            opened.write(json.dumps(rows[-1]) + "\n")
    rows = [row for row in rows if (Run.of(row).dataset, Run.of(row).shown) == (dataset, options.shown)]
    (options.out / "few_pictures.md").write_text(markdown(rows) + "\n", encoding="utf-8")
    draw(rows, options.out / "few_pictures.png")
    print(markdown(rows))


def measured(run: Run, dataset: Path, threads: int, peer: Path) -> dict[str, object]:
    """Trains and evaluates on the test split."""
    with tempfile.TemporaryDirectory() as work:
        data, out = Path(work) / "data", Path(work) / "run"
        subset(dataset, data, run.pictures, run.seed)
        epochs = max(1, round(run.shown / run.pictures))
        started = time.monotonic()
        if run.model == PEER:
            ap, ap50 = train_peer(run, data, out, epochs, threads, peer)
        else:
            ap, ap50 = train_ours(run, data, out, epochs, threads)
        seconds = time.monotonic() - started
    return asdict(run) | {"epochs": epochs, "AP": ap, "AP50": ap50, "seconds": round(seconds)}


def subset(dataset: Path, out: Path, pictures: int, seed: int) -> None:
    """The dataset in YOLO's layout with so many of its training pictures."""
    convert_dataset(dataset, out, "yolo", splits=("train", "val", "test"))
    names = sorted(path.name for path in (out / "images" / "train").iterdir())
    order = np.random.default_rng(seed).permutation(len(names))
    for number in order[pictures:]:
        picture = out / "images" / "train" / names[number]
        picture.unlink()
        (out / "labels" / "train" / picture.with_suffix(".txt").name).unlink(missing_ok=True)


def train_ours(run: Run, data: Path, out: Path, epochs: int, threads: int) -> tuple[float, float]:
    """`tood train` with its defaults, and `tood eval` of the best weights by the validation pictures."""
    command = ["train", "--data", str(data), "--out", str(out), "--epochs", str(epochs), "--seed", str(run.seed)]
    command += ["--set", f"evaluate_every={max(1, epochs // 4)}", "--threads", str(threads)]
    if run.model == SCRATCH:
        command += ["--model", "tood_tiny", "--from", "scratch"]
    tood(command)
    found = out / "test.json"
    evaluate = ["eval", "--model", str(out / "best.safetensors"), "--data", str(data), "--split", "test"]
    tood([*evaluate, "--json", str(found), "--threads", str(threads)])
    result = json.loads(found.read_text())
    return result["ap"], result["ap50"]


def train_peer(run: Run, data: Path, out: Path, epochs: int, threads: int, peer: Path) -> tuple[float, float]:
    """YOLOv8n with its defaults in the peers' environment; its boxes judged here."""
    out.mkdir()
    dataset = load_dataset(data, "test")
    asked = {
        "data": str(data / "data.yaml"),
        "images": [str(image.path) for image in dataset.images],
        "epochs": epochs,
        "size": SIZE,
        "batch": PEER_BATCH,
        "flip": True,
        "moments": 1,
        "seed": run.seed,
        "threads": threads,
        "out": str(out),
    }
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "YOLO_OFFLINE": "1"}
    command = [str(peer), "-m", "benchmarks.peers.ultralytics_train", json.dumps(asked)]
    subprocess.run(command, cwd=ROOT, env=environment, stdout=sys.stderr, check=True)
    (last,) = json.loads((out / "found.json").read_text())
    result = evaluate_detections(table(last["images"], dataset), dataset)
    return result.ap, result.ap50


def tood(command: list[str]) -> None:
    """Runs a command of ours, what it says passed on."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, "-m", "tood", *command], env=environment, stdout=sys.stderr, check=True)


def by_model(rows: list[dict], model: str, key: str) -> dict[int, list[float]]:
    """Figures of all seeds, by number of pictures."""
    found: dict[int, list[float]] = {}
    for row in rows:
        if row["model"] == model:
            found.setdefault(row["pictures"], []).append(row[key])
    return dict(sorted(found.items()))


def markdown(rows: list[dict]) -> str:
    """Means over seeds, and the range between them."""
    lines = ["| model | pictures | seeds | AP | of the seeds | AP50 |", "|---|---:|---:|---:|---|---:|"]
    for model in MODELS:
        halves = by_model(rows, model, "AP50")
        for count, values in by_model(rows, model, "AP").items():
            mean, between = np.mean(values), f"{min(values):.3f} to {max(values):.3f}"
            lines.append(
                f"| {model} | {count} | {len(values)} | {mean:.3f} | {between} | {np.mean(halves[count]):.3f} |"
            )
    return "\n".join(lines)


def draw(rows: list[dict], path: Path) -> None:
    """A line a model through the means, a dot a run."""
    from matplotlib.figure import Figure

    from tood.drawing import PALETTE

    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.subplots()
    for model, colour in zip(MODELS, (PALETTE[4], PALETTE[2], PALETTE[5]), strict=True):
        values = by_model(rows, model, "AP")
        if not values:
            continue
        shade = tuple(part / 255 for part in colour)
        axes.plot(list(values), [np.mean(of) for of in values.values()], color=shade, label=model, linewidth=1.8)
        dots = [(count, ap) for count, of in values.items() for ap in of]
        axes.scatter(*zip(*dots, strict=True), color=shade, s=14)
    finish_ap_axes(axes, "AP (0.50:0.95) on the test pictures", "training pictures")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()

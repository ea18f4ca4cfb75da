"""Time and memory of full-size models' way into the published layout and back: `python -m benchmarks.full_size IMAGE`.

Prints a table a model, in Markdown, and fails where the detections change on the way; all files lie in a temporary
folder. Weights are random, the image is scaled to fit 1333 x 800, or what --size says.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from benchmarks.timing import peak_memory
from tood.inference import Detector
from tood.models import AnyDetector, build_model
from tood.models.common.deform_conv import DeformConv2d
from tood.weights import export_weights, import_weights, load_detector_file, save_weights
from tood.zoo import named_model

MODELS = ("tood_r50_fpn_1x", "tood_x101_dcnv2_fpn_2x")
T = TypeVar("T")


def measured(what: str, step: Callable[[], T]) -> T:
    """Runs a step and prints its row."""
    started, cpu_started = time.perf_counter(), time.process_time()
    result = step()
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu_started
    print(f"| {what} | {seconds:.2f} | {cpu:.2f} | {peak_memory():.0f} |", flush=True)
    return result


def build(name: str) -> AnyDetector:
    """The model with offsets and residual branches that do something: they start at zero."""
    model = build_model(named_model(name).config()).eval()
    for module in model.modules():
        if isinstance(module, DeformConv2d):
            nn.init.normal_(module.offset.weight, std=0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.1, 0.4)
    return model


def detections(
    model: AnyDetector, class_names: tuple[str, ...], image: Path, size: Sequence[int] | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, scores and labels of the best places, however low their scores."""
    if size is not None:
        model.config = replace(model.config, input=replace(model.config.input, short=size[0], long=size[1]))
    found = Detector.from_model(model, class_names, "cpu", threshold=0.0)(image, keep_image=False)
    return found.boxes, found.scores, found.labels


def run(name: str, image: Path, size: Sequence[int] | None) -> None:
    """Every step once; the detections before and after must be the same bits."""
    print(f"\n{name}, {torch.get_num_threads()} threads\n")
    print("| step | seconds | CPU seconds | peak MiB so far |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        ours, published, again = (Path(folder) / file for file in ("a.safetensors", "a.pth", "b.safetensors"))
        model = measured("build", lambda: build(name))
        class_names = tuple(f"class {i}" for i in range(model.config.classes))
        measured("save", lambda: save_weights(ours, model, class_names))
        before = measured("detect", lambda: detections(model, class_names, image, size))
        measured("export, original layout", lambda: export_weights(ours, published, "original"))
        measured("import", lambda: import_weights(published, again))
        loaded, names = measured("load", lambda: load_detector_file(again))
        after = measured("detect", lambda: detections(loaded, names, image, size))
        mib = published.stat().st_size / 2**20
    same = names == class_names and all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    print(f"\n{mib:.0f} MiB a file; {len(before[1])} detections, {'identical' if same else 'not the same'} afterwards")
    if not same or not len(before[1]):
        raise SystemExit(1)


def main() -> None:
    """Each model in a process of its own, whose peak memory it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", type=Path)
    parser.add_argument("--model", choices=MODELS)
    parser.add_argument("--size", type=int, nargs=2, help="short and long side of the network's input")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    if arguments.model is None:
        for name in MODELS:
            subprocess.run([sys.executable, "-m", "benchmarks.full_size", *sys.argv[1:], "--model", name], check=True)
        return
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    run(arguments.model, arguments.image, arguments.size)


if __name__ == "__main__":
    main()

"""How long a person waits: imports, help texts, and the first detection of a cold process."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.timing import emit, fastest


def main() -> None:
    """Prints seconds of whole processes, the interpreter's own start included."""
    python = sys.executable
    for name, arguments in (
        ("import tood", ["-c", "import tood"]),
        ("tood --help", ["-m", "tood", "--help"]),
        ("tood train --help", ["-m", "tood", "train", "--help"]),
        ("tood models", ["-m", "tood", "models"]),
    ):
        emit(name, seconds([python, *arguments], 2 if name == "tood models" else 5), "s")
    with tempfile.TemporaryDirectory() as folder:
        # In a process of its own: a process that has imported torch would start children slowly.
        subprocess.run([python, "-m", "benchmarks.rows_start", folder], check=True)
        for line, model in (("first detection", "tood_tiny"), ("first detection, tood_lite0", "tood_lite0")):
            files = [f"{folder}/picture.png", "--model", f"{folder}/{model}.safetensors", "--out", f"{folder}/{model}"]
            emit(line, seconds([python, "-m", "tood", "predict", *files], 3), "s")


def seconds(command: list[str], times: int) -> float:
    """The fastest of several runs of a process, after one that warms the disk."""
    return fastest(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL), times)


def write_files(folder: Path) -> None:
    """Two small models and a photograph's worth of noise."""
    import numpy as np

    from tood.models import build_model
    from tood.plots import write_image
    from tood.weights import save_weights
    from tood.zoo import named_model

    for name in ("tood_tiny", "tood_lite0"):
        model = build_model(named_model(name).config())
        save_weights(folder / f"{name}.safetensors", model, [str(i) for i in range(model.config.classes)])
    write_image(folder / "picture.png", np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8))


if __name__ == "__main__":
    write_files(Path(sys.argv[1])) if len(sys.argv) > 1 else main()

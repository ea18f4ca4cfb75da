"""The first detection of YOLOv8n in a cold process."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.timing import emit, fastest

CODE = """
import sys
from benchmarks.peers import torchvision_standin
from ultralytics import YOLO
YOLO('yolov8n.yaml').predict(sys.argv[1], device='cpu', project=sys.argv[2], save=True, verbose=False)
"""


def main() -> None:
    """Prints seconds of the whole process."""
    import cv2
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        picture = str(Path(folder) / "picture.png")
        cv2.imwrite(picture, np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8))
        command = [sys.executable, "-c", CODE, picture, folder]
        emit("first detection", fastest(lambda: subprocess.run(command, check=True, capture_output=True), 2), "s")


if __name__ == "__main__":
    main()

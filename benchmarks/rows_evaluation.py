"""Our COCO evaluation, from two files of json to the figures of all classes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.coco_files import write_files
from benchmarks.timing import emit, fastest


def main() -> None:
    """Prints seconds of the evaluation in a process that is there, and of the whole command."""
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder))
        truth, detections = f"{folder}/truth.json", f"{folder}/detections.json"
        from tood.evaluation import evaluate_detections, result_table

        result = evaluate_detections(detections, truth)
        emit("evaluation", fastest(lambda: evaluate_detections(detections, truth), 4), "s")
        started = time.perf_counter()
        result_table(result)
        emit("evaluation, class table", time.perf_counter() - started, "s")
        emit("evaluation, AP", result.ap, "")
        command = [sys.executable, "-m", "tood", "eval", "--data", truth, "--detections", detections]
        emit("evaluation, tood eval", fastest(lambda: subprocess.run(command, check=True, capture_output=True), 2), "s")


if __name__ == "__main__":
    main()

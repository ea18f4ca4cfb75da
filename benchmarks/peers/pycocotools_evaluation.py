"""pycocotools on the files of `benchmarks.coco_files`."""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from pathlib import Path

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmarks.coco_files import write_files
from benchmarks.timing import emit


def main() -> None:
    """Prints the seconds of one evaluation, files read included; it is too slow to be repeated."""
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder))
        started = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO(f"{folder}/truth.json")
            evaluation = COCOeval(truth, truth.loadRes(f"{folder}/detections.json"), "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        emit("evaluation", time.perf_counter() - started, "s")
        emit("evaluation, AP", float(evaluation.stats[0]), "")


if __name__ == "__main__":
    main()

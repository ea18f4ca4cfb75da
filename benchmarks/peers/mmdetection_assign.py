"""MMDetection's TAL and ATSS on the scenes."""

from __future__ import annotations

import torch
from mmdet.models.task_modules.assigners import ATSSAssigner, TaskAlignedAssigner
from mmengine.structures import InstanceData

from benchmarks.scenes import ASSIGNMENT_SCENES, scene
from benchmarks.timing import THREADS, emit, fastest, peak_growth


def main() -> None:
    """Prints the lines that `benchmarks.rows_assign` prints of ours."""
    torch.set_num_threads(THREADS)
    tal, atss = TaskAlignedAssigner(topk=13), ATSSAssigner(topk=9)
    for name, height, width, strides, truths in reversed(ASSIGNMENT_SCENES):
        s = scene(height, width, strides, truths)
        half = s.strides[:, None] * 4
        anchors = torch.cat([s.centres - half, s.centres + half], 1)
        predicted = InstanceData(priors=anchors, scores=s.scores, bboxes=s.boxes)
        truth = InstanceData(bboxes=s.truth_boxes, labels=s.truth_labels)

        def assign(predicted=predicted, truth=truth) -> object:
            return tal.assign(predicted, truth, None, alpha=1, beta=6)

        if name == "8400x5000":
            emit(f"tal memory {name}", peak_growth(assign), "MiB")
        emit(f"tal {name}", fastest(assign, 3) * 1e3, "ms")
        if name.startswith("22400"):
            levels = [rows * columns for rows, columns in s.shapes]
            seconds = fastest(lambda p=predicted, n=levels, t=truth: atss.assign(p, n, t, None), 2)
            emit(f"atss {name}", seconds * 1e3, "ms")


if __name__ == "__main__":
    main()

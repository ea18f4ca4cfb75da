"""Ultralytics' TAL on the scenes."""

from __future__ import annotations

from benchmarks.peers import torchvision_standin  # noqa: F401 - before ultralytics

# isort: split
import torch
from ultralytics.utils.tal import TaskAlignedAssigner

from benchmarks.scenes import ASSIGNMENT_SCENES, CLASSES, scene
from benchmarks.timing import THREADS, emit, fastest, peak_growth


def main() -> None:
    """Prints the TAL lines that `benchmarks.rows_assign` prints of ours."""
    torch.set_num_threads(THREADS)
    tal = TaskAlignedAssigner(topk=10, num_classes=CLASSES, alpha=0.5, beta=6.0)
    for name, height, width, strides, truths in reversed(ASSIGNMENT_SCENES):
        s = scene(height, width, strides, truths, half_cell=True)
        labels, present = s.truth_labels[None, :, None].float(), torch.ones(1, truths, 1, dtype=torch.bool)
        arguments = (s.scores[None], s.boxes[None], s.centres, labels, s.truth_boxes[None], present)
        if name == "8400x5000":
            emit(f"tal memory {name}", peak_growth(lambda a=arguments: tal(*a)), "MiB")
        emit(f"tal {name}", fastest(lambda a=arguments: tal(*a), 3) * 1e3, "ms")


if __name__ == "__main__":
    main()

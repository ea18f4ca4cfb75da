"""Our assigners on the scenes."""

from __future__ import annotations

import torch

from benchmarks.scenes import ASSIGNMENT_SCENES, scene
from benchmarks.timing import THREADS, emit, fastest, peak_growth
from tood.alignment import ATSSAssigner, TaskAlignedAssigner
from tood.structures import Priors, Targets


def main() -> None:
    """Prints the time of each scene, and the memory that the densest takes."""
    torch.set_num_threads(THREADS)
    tal, atss = TaskAlignedAssigner(), ATSSAssigner()
    for name, height, width, strides, truths in reversed(ASSIGNMENT_SCENES):
        s = scene(height, width, strides, truths)
        targets = [Targets(s.truth_boxes, s.truth_labels, torch.zeros(truths, dtype=torch.bool))]
        priors = Priors(s.centres, s.strides * 8, s.strides, s.shapes)

        def assign(s=s, targets=targets) -> object:
            return tal(s.scores[None], s.boxes[None], s.centres, targets)

        if name == "8400x5000":
            emit(f"tal memory {name}", peak_growth(assign), "MiB")
        emit(f"tal {name}", fastest(assign, 7) * 1e3, "ms")
        if name.startswith("22400"):
            emit(f"atss {name}", fastest(lambda p=priors, t=targets: atss(p, t), 5) * 1e3, "ms")


if __name__ == "__main__":
    main()

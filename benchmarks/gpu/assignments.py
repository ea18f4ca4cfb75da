"""Whether a GPU assigns as a CPU does: 1,000 scenes, some crowded, some empty."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.gpu.bench import Bench
from benchmarks.scenes import LARGE, SQUARE, Scene, scene
from tood.alignment import ATSSAssigner, TaskAlignedAssigner, alignment_metric
from tood.boxes import iou_matrix
from tood.structures import Priors, Targets

# Height, width, strides; how many objects; of how many scenes each.
SMALL = (320, 416, SQUARE[2])
KINDS = (
    *((SMALL, truths, 140) for truths in (0, 1, 3, 10, 30, 33)),
    *((SQUARE, truths, 30) for truths in (10, 60, 200)),
    (LARGE, 20, 40),
    (LARGE, 300, 20),
    (SQUARE, 1200, 10),
)
# Relative distance at which rounding may say which of two is the larger.
TIE = 1e-5
TAL = TaskAlignedAssigner()


def run(bench: Bench) -> None:
    """TAL and ATSS over all scenes."""
    kinds = KINDS if not bench.dry else (*((SMALL, truths, 1) for truths in (0, 3, 33)),)
    scenes, differing, unexplained, of_atss = 0, 0, 0, 0
    for (height, width, strides), truths, count in kinds:
        for _ in range(count):
            made = scene(height, width, strides, truths, seed=scenes)
            scenes += 1
            crowd = torch.arange(truths) % 17 == 16
            targets = Targets(made.truth_boxes, made.truth_labels, crowd)
            own, other = _tal(made, targets), _tal(made, targets, bench.device)
            if not torch.equal(own, other):
                differing += 1
                unexplained += not _equally_good(made, targets, own, other)
            of_atss += not torch.equal(_atss(made, targets), _atss(made, targets, bench.device))
    table = "scenes assigned to the last prior as on the CPU"
    for name, other_ones in (("TAL", differing), ("ATSS", of_atss)):
        bench.cell(table, name, f"of {scenes}", scenes - other_ones, "")
    bench.check(
        "TAL's assignments differ only where two candidates are equally good", not unexplained, f"{differing} do differ"
    )
    bench.check("ATSS's assignments are the same in 99 of 100 scenes", of_atss <= scenes / 100, f"{of_atss} differ")


def _tal(made: Scene, targets: Targets, device: torch.device | str = "cpu") -> Tensor:
    """[N] which object each prior answers for."""
    given = (made.scores[None].to(device), made.boxes[None].to(device), made.centres.to(device))
    return TAL(*given, [targets.to(device)]).gt_index[0].cpu()


def _atss(made: Scene, targets: Targets, device: torch.device | str = "cpu") -> Tensor:
    centres, strides = made.centres.to(device), made.strides.to(device)
    priors = Priors(centres, strides * 8, strides, made.shapes)
    return ATSSAssigner()(priors, [targets.to(device)]).gt_index[0].cpu()


def _equally_good(made: Scene, targets: Targets, one: Tensor, other: Tensor) -> bool:
    """Whether rounding explains every prior that two assignments disagree about.

    Either an object's last candidate and the next are equally aligned, or a prior overlaps two objects alike.
    """
    boxes, labels = made.truth_boxes[~targets.crowd], made.truth_labels[~targets.crowd]
    iou = iou_matrix(boxes.double(), made.boxes.double())  # [G, N]
    metric = alignment_metric(made.scores.double().t()[labels], iou, TAL.alpha, TAL.beta)
    least = metric.topk(TAL.topk, dim=1).values[:, -1]  # [G]
    for prior in (one != other).nonzero().flatten().tolist():
        claims = [int(answers[prior]) for answers in (one, other) if answers[prior] >= 0]
        at_the_edge = any(abs(metric[truth, prior] - least[truth]) <= TIE * least[truth] for truth in claims)
        overlaps = [iou[truth, prior] for truth in claims]
        if not at_the_edge and not (len(claims) == 2 and abs(overlaps[0] - overlaps[1]) <= TIE * overlaps[0]):
            return False
    return True

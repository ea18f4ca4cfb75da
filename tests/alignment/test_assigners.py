from __future__ import annotations

import pytest
import torch
from torch import Tensor

from golden_values import golden, targets_of
from tood.alignment import ATSSAssigner, TaskAlignedAssigner
from tood.errors import ToodError
from tood.structures import Priors


def priors_of(data: dict) -> Priors:
    anchors: Tensor = data["anchors"]
    side = anchors[:, 2] - anchors[:, 0]
    shapes = ((32, 40), (16, 20), (8, 10), (4, 5), (2, 3))
    assert [h * w for h, w in shapes] == data["level_sizes"]
    return Priors((anchors[:, :2] + anchors[:, 2:]) / 2, side, side / 8, shapes)


@pytest.mark.parametrize("case", range(3))
def test_tal_equals_the_reference(case: int) -> None:
    data, values = golden("assigners"), golden("assigners")["cases"][case]
    targets = targets_of([values["gt_boxes"]], [values["gt_labels"]])
    given = TaskAlignedAssigner()(
        values["pred_scores"][None], values["pred_boxes"][None], priors_of(data).centres, targets
    )
    assert torch.equal(given.gt_index[0] + 1, values["tal_gt_inds"])
    positive = given.positive[0]
    torch.testing.assert_close(given.iou[0][positive], values["tal_ious"][positive], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(given.metric[0][positive], values["tal_metrics"][positive], rtol=1e-4, atol=0)


@pytest.mark.parametrize("case", range(3))
def test_atss_equals_the_reference(case: int) -> None:
    data, values = golden("assigners"), golden("assigners")["cases"][case]
    targets = targets_of([values["gt_boxes"]], [values["gt_labels"]])
    given = ATSSAssigner()(priors_of(data), targets)
    assert torch.equal(given.gt_index[0] + 1, values["atss_gt_inds"])
    positive = given.positive[0]
    torch.testing.assert_close(given.iou[0][positive], values["atss_ious"][positive], rtol=1e-5, atol=1e-6)


def test_an_exponent_that_would_align_boxes_without_overlap_is_refused() -> None:
    with pytest.raises(ToodError, match="beta is 0"):
        TaskAlignedAssigner(beta=0.0)

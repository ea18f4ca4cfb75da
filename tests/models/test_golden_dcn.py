"""The narrow TOOD with DCNv2 in C3-C5 and in the first two head layers.

Its random offsets amplify rounding from layer to layer: scores of two correct fp32 formulations differ by up to 8e-4,
so 2e-3 is asked for. Where a sample's position lies within rounding of a cell's border its gradient jumps; gradients
are compared where nothing is amplified yet, in the head on the reference's own pyramid.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from golden_values import NARROW, golden, narrow_model, targets_of
from tood.alignment import TaskAlignedCriterion
from tood.models import padded_sizes
from tood.models.tood.weights import our_name
from tood.structures import DensePredictions

VALUES = golden("dcn_r50")
DEFORMABLE = replace(
    NARROW,
    backbone=replace(NARROW.backbone, deformable_stages=(1, 2, 3)),
    head=replace(NARROW.head, deformable_layers=2),
)


def test_pyramid_and_head_maps() -> None:
    model = narrow_model("dcn_r50", DEFORMABLE)
    with torch.inference_mode():
        maps = model.neck(model.backbone(VALUES["images"]))
        predictions = model.head(maps)
    for given, wanted in zip(maps, VALUES["fpn"], strict=True):
        torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))
    sizes = predictions.priors.level_sizes
    for given, wanted in zip(predictions.scores.split(sizes, 1), VALUES["cls_scores"], strict=True):
        torch.testing.assert_close(given, wanted.flatten(2).transpose(1, 2), rtol=2e-3, atol=1e-5)
    strides = predictions.priors.strides[:, None]
    for given, wanted in zip((predictions.boxes / strides).split(sizes, 1), VALUES["bbox_preds"], strict=True):
        torch.testing.assert_close(given, wanted.flatten(2).transpose(1, 2), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("epoch", [0, 4])
def test_losses(epoch: int) -> None:
    predictions = narrow_model("dcn_r50", DEFORMABLE).train()(VALUES["images"])
    check_losses(predictions, epoch, rtol=2e-3)


@pytest.mark.parametrize("epoch", [0, 4])
def test_gradients_of_the_head(epoch: int) -> None:
    head = narrow_model("dcn_r50", DEFORMABLE).train().head
    check_losses(head(VALUES["fpn"]), epoch, rtol=1e-4).backward()
    gradients = {f"head.{name}": parameter.grad for name, parameter in head.named_parameters()}
    compared = 0
    for published, value in VALUES[f"epoch{epoch}"]["grads"].items():
        if published.startswith("bbox_head"):
            given = gradients[our_name(published, maps=3)]
            assert given is not None, published
            torch.testing.assert_close(given, value, rtol=1e-3, atol=1e-3 * float(value.abs().max()), msg=published)
            compared += 1
    assert compared > 20


def check_losses(predictions: DensePredictions, epoch: int, rtol: float) -> torch.Tensor:
    losses = TaskAlignedCriterion()(
        predictions,
        targets_of(VALUES["gt_boxes"], VALUES["gt_labels"]),
        padded_sizes(VALUES["img_shapes"], 32),
        warm_up=epoch < 4,
    )
    for given, name in ((losses.per_prior["cls"], "loss_cls"), (losses.per_prior["box"], "loss_bbox")):
        levels = torch.stack([level.sum() for level in given.split(predictions.priors.level_sizes, dim=1)])
        torch.testing.assert_close(levels, VALUES[f"epoch{epoch}"][name], rtol=rtol, atol=1e-5)
    return losses.total

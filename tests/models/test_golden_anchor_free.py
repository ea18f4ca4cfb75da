"""The narrow anchor-free TOOD of the golden file, from the image to every gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from golden_values import NARROW, golden, narrow_model, targets_of
from tood.alignment import TaskAlignedCriterion
from tood.models import padded_sizes
from tood.models.tood.weights import our_name
from tood.structures import DensePredictions

VALUES = golden("anchor_free")


def level_maps(flat: Tensor, predictions: DensePredictions) -> list[Tensor]:
    """[B, N, D] -> one [B, D, h, w] a level."""
    levels = flat.split(predictions.priors.level_sizes, dim=1)
    shapes = predictions.priors.shapes
    return [level.transpose(1, 2).unflatten(2, shape) for level, shape in zip(levels, shapes, strict=True)]


def test_pyramid() -> None:
    model = narrow_model()
    with torch.inference_mode():
        maps = model.neck(model.backbone(VALUES["images"]))
    for given, wanted in zip(maps, VALUES["fpn"], strict=True):
        torch.testing.assert_close(given, wanted, rtol=1e-5, atol=1e-6 * float(wanted.abs().max()))


def test_head_maps() -> None:
    with torch.inference_mode():
        predictions = narrow_model()(VALUES["images"])
    for given, wanted in zip(level_maps(predictions.scores, predictions), VALUES["cls_scores"], strict=True):
        torch.testing.assert_close(given, wanted, rtol=1e-5, atol=1e-6)
    strides = predictions.priors.strides[:, None]
    for given, wanted in zip(level_maps(predictions.boxes / strides, predictions), VALUES["bbox_preds"], strict=True):
        torch.testing.assert_close(given, wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("epoch", [0, 4])
def test_losses_and_gradients(epoch: int) -> None:
    wanted = VALUES[f"epoch{epoch}"]
    model = narrow_model().train()
    predictions = model(VALUES["images"])
    sizes = padded_sizes(VALUES["img_shapes"], NARROW.input.divisor)
    targets = targets_of(VALUES["gt_boxes"], VALUES["gt_labels"])
    losses = TaskAlignedCriterion()(predictions, targets, sizes, warm_up=epoch < 4)
    for given, name in ((losses.per_prior["cls"], "loss_cls"), (losses.per_prior["box"], "loss_bbox")):
        levels = torch.stack([level.sum() for level in given.split(predictions.priors.level_sizes, dim=1)])
        torch.testing.assert_close(levels, wanted[name], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(losses.total, (wanted["loss_cls"] + wanted["loss_bbox"]).sum(), rtol=1e-4, atol=0)
    losses.total.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    for published, value in wanted["grads"].items():
        given = gradients[our_name(published, maps=3)]
        assert given is not None, published
        torch.testing.assert_close(given, value, rtol=1e-4, atol=1e-4 * float(value.abs().max()), msg=published)

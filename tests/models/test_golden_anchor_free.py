"""The narrow anchor-free TOOD of the golden file, from the image to every gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from golden_values import NARROW, golden, narrow_model, targets_of
from tood.alignment import Progress, TaskAlignedCriterion
from tood.inference import postprocess
from tood.input import padded_sizes
from tood.models.tood.weights import to_published
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
    wanted_boxes = zip(VALUES["bbox_preds"], (8, 16, 32, 64, 128), strict=True)  # in strides
    for given, (wanted, stride) in zip(level_maps(predictions.boxes, predictions), wanted_boxes, strict=True):
        torch.testing.assert_close(given, wanted * stride, rtol=0, atol=1e-2)


def test_from_images_to_detections() -> None:
    model = narrow_model()
    scales = VALUES["scale_factors"][:, None].expand(-1, 2)
    with torch.inference_mode():
        results = postprocess(model(VALUES["images"]), scales, NARROW.postprocess)
    for found, wanted in zip(results, VALUES["detections"], strict=True):
        assert torch.equal(found.labels, wanted["labels"])
        torch.testing.assert_close(found.scores, wanted["scores"], rtol=1e-4, atol=0)
        torch.testing.assert_close(found.boxes, wanted["boxes"], rtol=0, atol=1e-2)  # pixels of the original image


@pytest.mark.parametrize("epoch", [0, 4])
def test_losses_and_gradients(epoch: int) -> None:
    wanted = VALUES[f"epoch{epoch}"]
    model = narrow_model().train()
    predictions = model(VALUES["images"])
    sizes = padded_sizes(VALUES["img_shapes"], NARROW.input.divisor)
    targets = targets_of(VALUES["gt_boxes"], VALUES["gt_labels"])
    losses = TaskAlignedCriterion()(predictions, targets, sizes, progress=Progress(epoch))
    for given, name in ((losses.per_prior["cls"], "loss_cls"), (losses.per_prior["box"], "loss_bbox")):
        levels = torch.stack([level.sum() for level in given.split(predictions.priors.level_sizes, dim=1)])
        torch.testing.assert_close(levels, wanted[name], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(losses.total, (wanted["loss_cls"] + wanted["loss_bbox"]).sum(), rtol=1e-4, atol=0)
    losses.total.backward()
    gradients = to_published({name: p.grad for name, p in model.named_parameters() if p.grad is not None}, "mmdet")
    for published, value in wanted["grads"].items():
        given = gradients[published]
        torch.testing.assert_close(given, value, rtol=1e-4, atol=1e-4 * float(value.abs().max()), msg=published)

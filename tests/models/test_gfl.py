"""GFL from the image to every gradient, against the golden file; its names and its head."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from golden_values import golden, targets_of
from tood.inference import postprocess
from tood.input import padded_sizes
from tood.models import for_inference
from tood.models.backbones import ResNetConfig
from tood.models.gfl import GFL, GFLConfig, GFLCriterion, GFLHeadConfig
from tood.models.gfl.weights import from_published, to_published
from tood.models.necks import FPNConfig
from tood.structures import DensePredictions

VALUES = golden("gfl")
NARROW = GFLConfig(
    classes=7,
    backbone=ResNetConfig(width=8, stem_width=8),
    neck=FPNConfig(width=32),
    head=GFLHeadConfig(width=32, norm_groups=8),
)


def golden_model() -> GFL:
    model = GFL(NARROW)
    model.load_state_dict(from_published(VALUES["state_dict"]))
    return model.eval()


def level_maps(flat: Tensor, predictions: DensePredictions) -> list[Tensor]:
    """[B, N, D] -> one [B, D, h, w] a level."""
    levels = flat.split(predictions.priors.level_sizes, dim=1)
    shapes = predictions.priors.shapes
    return [level.transpose(1, 2).unflatten(2, shape) for level, shape in zip(levels, shapes, strict=True)]


def test_head_maps() -> None:
    with torch.inference_mode():
        predictions = golden_model()(VALUES["images"])
    assert predictions.logits
    assert predictions.distributions is not None
    logits, distributions = VALUES["head_outputs"]
    for given, wanted in (
        (predictions.scores, logits),
        (predictions.distributions.flatten(2), distributions),
    ):
        for level, reference in zip(level_maps(given, predictions), wanted, strict=True):
            torch.testing.assert_close(level, reference, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("fused", [False, True])
def test_from_images_to_detections(fused: bool) -> None:
    model = for_inference(golden_model()) if fused else golden_model()
    scales = VALUES["scale_factors"][:, None].expand(-1, 2)
    with torch.inference_mode():
        predictions = model(VALUES["images"])
    results = postprocess(predictions, scales, NARROW.postprocess, VALUES["img_shapes"])
    for found, wanted in zip(results, VALUES["detections"], strict=True):
        assert torch.equal(found.labels, wanted["labels"])
        torch.testing.assert_close(found.scores, wanted["scores"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.boxes, wanted["boxes"], rtol=1e-4, atol=1e-2)  # pixels of the original image


def test_losses_and_gradients() -> None:
    wanted = VALUES["losses"]
    model = golden_model().train()
    predictions = model(VALUES["images"])
    sizes = padded_sizes(VALUES["img_shapes"], NARROW.input.divisor)
    targets = targets_of(VALUES["gt_boxes"], VALUES["gt_labels"])
    losses = GFLCriterion()(predictions, targets, sizes)
    assert tuple(losses.terms) == GFLCriterion.terms
    for term, name in (("cls", "loss_cls"), ("box", "loss_bbox"), ("dfl", "loss_dfl")):
        levels = losses.per_prior[term].split(predictions.priors.level_sizes, dim=1)
        torch.testing.assert_close(torch.stack([level.sum() for level in levels]), wanted[name], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(losses.total, sum(wanted.values()).sum(), rtol=1e-4, atol=0)
    losses.total.backward()
    gradients = to_published({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    for name, value in VALUES["grads"].items():
        torch.testing.assert_close(gradients[name], value, rtol=1e-3, atol=1e-3 * float(value.abs().max()), msg=name)

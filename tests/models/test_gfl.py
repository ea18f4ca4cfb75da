"""GFL from the image to every gradient, against the golden file; its names and its head."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from golden_values import golden, targets_of
from tood.alignment import Assignment, distribution_focal_loss
from tood.alignment.criteria.criterion import distribution_losses
from tood.errors import ToodError
from tood.inference import postprocess
from tood.input import padded_sizes
from tood.models import for_inference
from tood.models.backbones import ResNetConfig
from tood.models.common.distribution import expected_bins, side_distributions
from tood.models.common.priors import grid_priors
from tood.models.common.published import Hints
from tood.models.gfl import GFL, GFLConfig, GFLCriterion, GFLHeadConfig
from tood.models.gfl.weights import from_published, infer_config, matches, to_published
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
    for found, wanted in (
        (predictions.scores, logits),
        (predictions.distributions.flatten(2), distributions),
    ):
        for level, reference in zip(level_maps(found, predictions), wanted, strict=True):
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


def test_every_bin_is_a_stride_and_a_side_is_their_mean() -> None:
    distributions = torch.full((1, 3, 4, 17), -torch.inf)
    for side, place in enumerate((0, 3, 16, 7)):
        distributions[..., side, place] = 0.0
    distributions[..., 1, 4] = 0.0  # half of 3 and half of 4
    assert expected_bins(distributions)[0, 0].tolist() == [0, 3.5, 16, 7]
    maps = torch.arange(2 * 12 * 6.0).view(2, 12, 2, 3)  # three bins a side
    again = side_distributions(maps.flatten(2).transpose(1, 2))
    assert torch.equal(again[1, 4, 2], maps[1, 6:9, 1, 1])


@given(st.integers(2, 20), st.integers(0, 10_000))
def test_the_loss_of_a_distribution_is_the_cross_entropy_with_its_two_nearest_bins(bins: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(30, bins, generator=generator, dtype=torch.float64) * 5
    targets = torch.rand(30, generator=generator, dtype=torch.float64) * (bins - 1)
    targets[:2] = torch.tensor([0.0, bins - 1])  # the ends themselves
    found = distribution_focal_loss(logits, targets)
    for one, target, loss in zip(logits, targets.tolist(), found, strict=True):
        left = min(int(target), bins - 2)
        negative = -one.log_softmax(0)
        wanted = (left + 1 - target) * negative[left] + (target - left) * negative[left + 1]
        assert loss.item() == pytest.approx(wanted.item(), rel=1e-9, abs=1e-9)


def test_targets_beyond_the_last_bin_end_before_it_and_places_outside_are_at_zero() -> None:
    priors = grid_priors([torch.zeros(1, 1, 2, 2)], (8,), 8.0)  # at 0 and 8 pixels
    logits = torch.zeros(1, 4, 4, 5, requires_grad=True)
    box = torch.tensor([4.0, 4, 100, 12]).expand(1, 4, 4)  # to the prior at (8, 8): 0.5, 0.5, 11.5 and 0.5 strides
    nothing = torch.zeros(1, 4)
    assigned = torch.tensor([[-1, -1, 0, 0]])
    assignment = Assignment(assigned, assigned, box, nothing, nothing, nothing)
    losses = distribution_losses(logits, priors, assignment, torch.full((1, 4), 2.0), 0.1)
    torch.testing.assert_close(losses, torch.tensor([[0.0, 0, 1, 1]]) * 2 * math.log(5))
    losses.sum().backward()
    assert logits.grad is not None
    assert not logits.grad[0, :2].any()
    # With equal logits the gradient tells the targets: 1/5 less the share of each bin, over four sides, times 2.
    shares = 0.2 - logits.grad[0, 2:] * 2
    torch.testing.assert_close(shares[1, 0], torch.tensor([0.5, 0.5, 0, 0, 0]))
    torch.testing.assert_close(shares[1, 2], torch.tensor([0, 0, 0, 0.1, 0.9]))
    torch.testing.assert_close(shares[0, 0], torch.tensor([1.0, 0, 0, 0, 0]))  # the prior at (0, 8) is left of the box


def test_a_head_without_distributions_learns_by_gfl_s_losses_all_the_same() -> None:
    with torch.no_grad():
        predictions = golden_model()(VALUES["images"])
    targets = targets_of(VALUES["gt_boxes"], VALUES["gt_labels"])
    whole = GFLCriterion()(predictions, targets).terms
    plain = GFLCriterion()(
        replace(predictions, distributions=None, scores=predictions.scores.sigmoid(), logits=False), targets
    ).terms
    assert tuple(plain) == ("cls", "box")
    for name, value in plain.items():
        torch.testing.assert_close(value, whole[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("bins", [17, 9])
def test_the_network_shows_in_its_tensors(bins: int) -> None:
    config = replace(NARROW, head=replace(NARROW.head, bins=bins, tower_layers=3))
    state = GFL(config).state_dict()
    published = to_published(state)
    assert matches(published)
    assert matches(state)
    assert published["bbox_head.integral.project"].tolist() == list(range(bins))
    assert from_published(published).keys() == state.keys()
    assert infer_config(from_published(published)) == config
    said = Hints(model={"bbox_head": {"norm_cfg": {"num_groups": 4}, "anchor_generator": {"octave_base_scale": 6}}})
    hinted = infer_config(state, said).head
    assert (hinted.norm_groups, hinted.anchor_scale) == (4, 6.0)


def test_a_distribution_over_one_place_is_refused() -> None:
    with pytest.raises(ToodError, match=r"model\.head\.bins is 1"):
        GFL(replace(NARROW, head=replace(NARROW.head, bins=1)))

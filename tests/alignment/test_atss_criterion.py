"""ATSS's losses against their definitions, written once more with loops over priors and classes, and against GFL's."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from golden_values import golden, targets_of
from tood.alignment import (
    ATSSAssigner,
    ATSSCriterion,
    ATSSCriterionConfig,
    Progress,
    TaskAlignedCriterion,
    TaskAlignedCriterionConfig,
    focal_loss,
    quality_focal_loss,
)
from tood.alignment.criteria.criterion import (
    box_losses,
    class_losses,
    class_targets,
    mean_over_processes,
    valid_priors,
)
from tood.boxes import decode_distances, iou_pairs
from tood.input import padded_sizes
from tood.models.common.priors import grid_priors
from tood.structures import DensePredictions, Targets

CLASSES = 3
PRIORS = grid_priors([torch.zeros(1, 1, 8, 10), torch.zeros(1, 1, 4, 5), torch.zeros(1, 1, 2, 3)], (8, 16, 32), 8.0)


def scenes(counts: list[int], seed: int = 0) -> tuple[DensePredictions, list[Targets]]:
    """A batch with so many ground truths an image."""
    generator = torch.Generator().manual_seed(seed)
    batch, count = len(counts), len(PRIORS.centres)
    reach = torch.rand(batch, count, 4, generator=generator) * 30 + 1
    predictions = DensePredictions(
        scores=torch.randn(batch, count, CLASSES, generator=generator).requires_grad_(),
        boxes=torch.cat([PRIORS.centres - reach[..., :2], PRIORS.centres + reach[..., 2:]], 2).requires_grad_(),
        priors=PRIORS,
        logits=True,
        quality=torch.randn(batch, count, generator=generator).requires_grad_(),
    )
    targets = []
    for number in counts:
        corner = torch.rand(number, 2, generator=generator) * torch.tensor([50.0, 34.0])
        size = torch.rand(number, 2, generator=generator) * 30 + 8
        labels = torch.randint(0, CLASSES, (number,), generator=generator)
        targets.append(Targets(torch.cat([corner, corner + size], 1), labels, torch.zeros(number, dtype=torch.bool)))
    return predictions, targets


def slow_centerness(point: list[float], box: list[float]) -> float:
    left, top, right, bottom = point[0] - box[0], point[1] - box[1], box[2] - point[0], box[3] - point[1]
    return math.sqrt(min(left, right) / max(left, right) * min(top, bottom) / max(top, bottom))


def slow_giou(a: list[float], b: list[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    overlap = max(width, 0.0) * max(height, 0.0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return overlap / union - (hull - union) / hull


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def slow_losses(predictions: DensePredictions, targets: list[Targets]) -> dict[str, float]:
    """The published definition; who answers for what is the assigner's, which has tests of its own."""
    classification = box = centred = 0.0
    number, weights = 0, 0.0
    assert predictions.quality is not None
    owners = ATSSAssigner()(PRIORS, targets).gt_index.tolist()
    for image, truth in enumerate(targets):
        number += max(sum(owner >= 0 for owner in owners[image]), 1)
        for n, owner in enumerate(owners[image]):
            for c in range(CLASSES):
                p = sigmoid(predictions.scores[image, n, c].item())
                if owner >= 0 and truth.labels[owner] == c:
                    classification += -0.25 * (1 - p) ** 2 * math.log(p)
                else:
                    classification += -0.75 * p**2 * math.log(1 - p)
            if owner >= 0:
                wanted = truth.boxes[owner].tolist()
                weight = slow_centerness(PRIORS.centres[n].tolist(), wanted)
                weights += weight
                box += 2 * weight * (1 - slow_giou(predictions.boxes[image, n].tolist(), wanted))
                q = sigmoid(predictions.quality[image, n].item())
                centred += -weight * math.log(q) - (1 - weight) * math.log(1 - q)
    return {"cls": classification / number, "box": box / max(weights, 1.0), "centerness": centred / number}


@pytest.mark.parametrize("counts", [[0], [0, 0], [1], [5, 0], [1, 7, 0, 20]])
def test_losses_are_the_published_ones(counts: list[int]) -> None:
    predictions, targets = scenes(counts)
    losses = ATSSCriterion()(predictions, targets)
    wanted = slow_losses(predictions, targets)
    assert tuple(losses.terms) == ("cls", "box", "centerness") == ATSSCriterion.terms
    for name, value in losses.terms.items():
        assert value.item() == pytest.approx(wanted[name], rel=1e-4, abs=1e-6), name
        assert losses.per_prior[name].sum().item() == pytest.approx(wanted[name], rel=1e-4, abs=1e-6), name
    assert losses.total.item() == pytest.approx(sum(wanted.values()), rel=1e-4)
    losses.total.backward()
    assert predictions.quality is not None
    for values, positives_only in ((predictions.scores, False), (predictions.boxes, True), (predictions.quality, True)):
        assert values.grad is not None
        assert torch.isfinite(values.grad).all()
        assert not positives_only or not values.grad[~losses.assignment.positive].any()
        assert positives_only or values.grad.any()


def test_weights_of_the_losses_are_the_configured_ones() -> None:
    predictions, targets = scenes([4])
    usual = ATSSCriterion()(predictions, targets).terms
    config = ATSSCriterionConfig(classification_weight=3.0, box_weight=0.5, centerness_weight=7.0)
    changed = ATSSCriterion(config)(predictions, targets).terms
    for name, factor in (("cls", 3.0), ("box", 0.25), ("centerness", 7.0)):
        torch.testing.assert_close(changed[name], usual[name] * factor)


def test_predictions_without_a_quality_have_no_centerness_loss() -> None:
    predictions, targets = scenes([4])
    plain = DensePredictions(predictions.scores, predictions.boxes, PRIORS, logits=True)
    with_quality, without = ATSSCriterion()(predictions, targets).terms, ATSSCriterion()(plain, targets).terms
    assert tuple(without) == ("cls", "box")
    assert all(torch.equal(value, with_quality[name]) for name, value in without.items())


@pytest.mark.parametrize("warm_up", [False, True])
@pytest.mark.parametrize("config", [ATSSCriterionConfig(), TaskAlignedCriterionConfig()])
def test_logits_and_their_probabilities_give_the_same(
    config: ATSSCriterionConfig | TaskAlignedCriterionConfig, warm_up: bool
) -> None:
    predictions, targets = scenes([3, 0, 6])
    logits = DensePredictions(predictions.scores, predictions.boxes, PRIORS, logits=True)
    probabilities = DensePredictions(predictions.scores.sigmoid(), predictions.boxes, PRIORS)
    criterion = config.build()
    gradients = []
    for given in (logits, probabilities):
        losses = criterion(given, targets, None, Progress() if warm_up else None)
        gradients.append(torch.autograd.grad(losses.total, predictions.scores)[0])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", [focal_loss, quality_focal_loss])
@pytest.mark.parametrize("target", [0.0, 1.0])
def test_the_loss_of_hopeless_logits_stays_exact(loss, target: float) -> None:  # type: ignore[no-untyped-def]
    wrong = -60.0 if target else 60.0
    logits = torch.tensor([wrong], requires_grad=True)
    value = loss(logits, torch.tensor([target]), logits=True)
    balance = {0.0: 0.75, 1.0: 0.25}[target] if loss is focal_loss else 1.0
    assert value.item() == pytest.approx(balance * 60)
    value.sum().backward()
    assert logits.grad is not None
    assert logits.grad.item() == pytest.approx(-balance if target else balance)


def test_priors_beyond_an_image_s_own_padding_take_no_part() -> None:
    predictions, targets = scenes([3, 3])
    sizes = torch.tensor([[32, 64], [64, 96]])
    losses = ATSSCriterion()(predictions, targets, sizes)
    beyond = ~valid_priors(PRIORS, sizes)  # type: ignore[operator]
    assert beyond[0].any()
    assert not losses.assignment.positive[beyond].any()
    assert not any(values[beyond].any() for values in losses.per_prior.values())


def test_a_blank_image_counts_as_no_positive() -> None:
    """It fills up the batch of a process for which no image is left; an image without objects counts as one."""
    (predictions, targets), both = scenes([5, 0]), torch.tensor([[64, 96], [64, 96]])
    blank, lone = torch.tensor([[64, 96], [0, 0]]), torch.tensor([[64, 96]])
    first = DensePredictions(
        predictions.scores[:1], predictions.boxes[:1], PRIORS, logits=True, quality=predictions.quality[:1]
    )  # type: ignore[index]
    alone = ATSSCriterion()(first, targets[:1], lone)
    for name, value in ATSSCriterion()(predictions, targets, blank).terms.items():
        torch.testing.assert_close(value, alone.terms[name])
    number = alone.assignment.positive.sum()
    centred = ATSSCriterion()(predictions, targets, both).terms["centerness"]
    torch.testing.assert_close(centred, alone.terms["centerness"] * number / (number + 1))


def test_infinities_of_negatives_do_not_poison_the_gradient() -> None:
    predictions, targets = scenes([2])
    negative = ~ATSSAssigner()(PRIORS, targets).positive[0]
    first = negative.nonzero()[0]
    boxes, quality = predictions.boxes.detach().clone(), predictions.quality.detach().clone()  # type: ignore[union-attr]
    boxes[0, first] = torch.tensor([-torch.inf, -torch.inf, torch.inf, torch.inf])
    quality[0, first] = torch.inf
    boxes.requires_grad_()
    quality.requires_grad_()
    losses = ATSSCriterion()(DensePredictions(predictions.scores, boxes, PRIORS, True, quality), targets)
    losses.total.backward()
    assert boxes.grad is not None
    assert quality.grad is not None
    assert torch.isfinite(boxes.grad).all()
    assert torch.isfinite(quality.grad).all()


def test_parts_give_the_reference_s_losses_of_gfl() -> None:
    """GFL assigns as ATSS does; its class loss is the quality focal form on logits, its box loss GIoU by score."""
    values = golden("gfl")
    logits, distributions = ([level.flatten(2).transpose(1, 2) for level in maps] for maps in values["head_outputs"])
    strides = (8, 16, 32, 64, 128)
    priors = grid_priors(values["head_outputs"][0], strides, 8.0)
    scores = torch.cat(logits, 1)
    sides = torch.cat(
        [
            level.unflatten(2, (4, 17)).softmax(3) @ torch.arange(17.0) * stride
            for level, stride in zip(distributions, strides, strict=True)
        ],
        1,
    )
    boxes = decode_distances(priors.centres, sides)
    targets = targets_of(values["gt_boxes"], values["gt_labels"])
    valid = valid_priors(priors, padded_sizes(values["img_shapes"], 32))
    assignment = ATSSAssigner()(priors, targets, valid)
    wanted = class_targets(assignment, 7) * iou_pairs(boxes, assignment.boxes)[..., None]
    number = mean_over_processes(assignment.positive.sum(dim=1).clamp(min=1).sum())
    weights = scores.sigmoid().amax(dim=2) * assignment.positive
    found: dict[str, Tensor] = {
        "loss_cls": class_losses(quality_focal_loss(scores, wanted, logits=True), valid, 1 / number),
        "loss_bbox": box_losses(boxes, assignment, weights) * 2 / mean_over_processes(weights.sum()),
    }
    for name, per_prior in found.items():
        levels = torch.stack([level.sum() for level in per_prior.split(priors.level_sizes, dim=1)])
        torch.testing.assert_close(levels, values["losses"][name], rtol=1e-4, atol=1e-6)


def test_a_configuration_builds_its_own_criterion() -> None:
    assert isinstance(ATSSCriterionConfig().build(), ATSSCriterion)
    assert isinstance(TaskAlignedCriterionConfig().build(), TaskAlignedCriterion)

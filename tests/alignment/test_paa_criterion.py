"""PAA's losses against their definitions, written once more with loops over priors and classes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from alignment.slow_paa import slow_candidates, slow_paa
from tood.alignment import Losses
from tood.boxes import giou_pairs, iou_pairs
from tood.models.common.priors import grid_priors
from tood.models.gfl import GFLCriterion
from tood.models.paa import PAACriterion, PAACriterionConfig
from tood.structures import DensePredictions, Targets

CLASSES = 3
PRIORS = grid_priors([torch.zeros(1, 1, 8, 10), torch.zeros(1, 1, 4, 5), torch.zeros(1, 1, 2, 3)], (8, 16, 32), 4.0)
COUNT = len(PRIORS.centres)


def scenes(counts: list[int], seed: int = 0) -> tuple[DensePredictions, list[Targets]]:
    """A batch with so many ground truths an image."""
    generator = torch.Generator().manual_seed(seed)
    batch = len(counts)
    reach = torch.rand(batch, COUNT, 4, generator=generator) * 30 + 1
    predictions = DensePredictions(
        scores=torch.randn(batch, COUNT, CLASSES, generator=generator).requires_grad_(),
        boxes=torch.cat([PRIORS.centres - reach[..., :2], PRIORS.centres + reach[..., 2:]], 2).requires_grad_(),
        priors=PRIORS,
        logits=True,
        quality=torch.randn(batch, COUNT, generator=generator).requires_grad_(),
    )
    targets = []
    for number in counts:
        corner = torch.rand(number, 2, generator=generator) * torch.tensor([50.0, 34.0])
        size = torch.rand(number, 2, generator=generator) * 30 + 8
        labels = torch.randint(0, CLASSES, (number,), generator=generator)
        targets.append(Targets(torch.cat([corner, corner + size], 1), labels, torch.zeros(number, dtype=torch.bool)))
    return predictions, targets


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def focal(logits: list[float], label: int | None) -> float:
    total = 0.0
    for c, logit in enumerate(logits):
        p = sigmoid(logit)
        total += -0.25 * (1 - p) ** 2 * math.log(p) if c == label else -0.75 * p**2 * math.log(1 - p)
    return total


def slow_losses(predictions: DensePredictions, targets: list[Targets]) -> dict[str, float]:
    classification = box = judged = overlaps = 0.0
    number = 0
    assert predictions.quality is not None
    for image, truth in enumerate(targets):
        scores, boxes = predictions.scores[image].detach(), predictions.boxes[image].detach()
        costs = torch.zeros(COUNT)
        for n, g in slow_candidates(PRIORS, truth, [True] * COUNT).items():
            apart = 1 - giou_pairs(boxes[n], truth.boxes[g]).item()
            costs[n] = focal(scores[n].tolist(), int(truth.labels[g])) + 1.3 * apart
        owners = slow_paa(PRIORS, truth, costs, [True] * COUNT)[0]
        number += len(owners)
        for n in range(COUNT):
            owner = owners.get(n)
            classification += focal(scores[n].tolist(), None if owner is None else int(truth.labels[owner]))
            if owner is not None:
                overlap = iou_pairs(boxes[n], truth.boxes[owner]).item()
                overlaps += overlap
                box += 1.3 * overlap * (1 - giou_pairs(boxes[n], truth.boxes[owner]).item())
                q = sigmoid(predictions.quality[image, n].item())
                judged += 0.5 * (-overlap * math.log(q) - (1 - overlap) * math.log(1 - q))
    return {
        "cls": classification / max(number, len(targets)),
        "box": box / max(overlaps, 1e-7),
        "iou": judged / max(number, 1),
    }


@pytest.mark.parametrize("counts", [[0], [0, 0], [1], [5, 0], [1, 7, 0, 20]])
def test_losses_are_the_published_ones(counts: list[int]) -> None:
    predictions, targets = scenes(counts)
    losses = PAACriterion()(predictions, targets)
    wanted = slow_losses(predictions, targets)
    assert tuple(losses.terms) == ("cls", "box", "iou") == PAACriterion.terms
    for name, value in losses.terms.items():
        assert value.item() == pytest.approx(wanted[name], rel=1e-4, abs=1e-6), name
    losses.total.backward()
    assert predictions.quality is not None
    for values, positives_only in ((predictions.scores, False), (predictions.boxes, True), (predictions.quality, True)):
        assert values.grad is not None
        assert torch.isfinite(values.grad).all()
        assert not positives_only or not values.grad[~losses.assignment.positive].any()


def test_a_sum_of_overlaps_below_one_is_not_rounded_up() -> None:
    """Of a single small object the IoUs add up to little: the box loss is their weighted mean all the same."""
    predictions, targets = scenes([1])
    predictions = replace(predictions, boxes=torch.cat([PRIORS.centres - 1, PRIORS.centres + 1], 1)[None])
    losses = PAACriterion()(predictions, targets)
    assert 0 < losses.weight_sums["box"] < 1
    apart = 1 - giou_pairs(predictions.boxes, losses.assignment.boxes)
    weights = iou_pairs(predictions.boxes, losses.assignment.boxes) * losses.assignment.positive
    torch.testing.assert_close(losses.terms["box"], 1.3 * (weights * apart).sum() / weights.sum())


def test_weights_of_the_losses_are_the_configured_ones() -> None:
    """They weigh the scores of anchors, too: with the same shares these fall into the same two parts."""
    predictions, targets = scenes([4])
    usual = PAACriterion()(predictions, targets)
    changed = PAACriterion(PAACriterionConfig(iou_weight=3.5))(predictions, targets)
    torch.testing.assert_close(changed.terms["iou"], usual.terms["iou"] * 7)
    boxes_alone = PAACriterion(PAACriterionConfig(classification_weight=0.0))(predictions, targets)
    assert not torch.equal(boxes_alone.assignment.gt_index, usual.assignment.gt_index)


def test_predictions_without_a_quality_have_no_iou_loss_and_probabilities_do_as_well() -> None:
    predictions, targets = scenes([4, 2], seed=1)
    plain = DensePredictions(predictions.scores.sigmoid(), predictions.boxes, PRIORS)
    with_quality, without = PAACriterion()(predictions, targets).terms, PAACriterion()(plain, targets).terms
    assert tuple(without) == ("cls", "box")
    for name, value in without.items():
        torch.testing.assert_close(value, with_quality[name], rtol=1e-4, atol=1e-6)


def test_ignored_priors_learn_nothing() -> None:
    predictions, targets = scenes([6])
    config = PAACriterionConfig()
    ignoring = replace(config, assigner=replace(config.assigner, beyond_peak="ignored"))
    losses = {name: PAACriterion(c)(predictions, targets) for name, c in (("all", config), ("some", ignoring))}
    ignored = losses["some"].assignment.ignored
    assert ignored is not None
    assert ignored.any()
    assert not (ignored & losses["some"].assignment.positive).any()
    assert torch.equal(losses["some"].assignment.gt_index, losses["all"].assignment.gt_index)
    one, other = (losses[name].per_prior["cls"] for name in ("all", "some"))
    assert not other[ignored].any()
    torch.testing.assert_close(one[~ignored], other[~ignored])


def test_priors_beyond_an_image_s_own_padding_take_no_part() -> None:
    predictions, targets = scenes([3, 3])
    sizes = torch.tensor([[32, 64], [64, 96]])
    losses: Losses = PAACriterion()(predictions, targets, sizes)
    beyond = (PRIORS.centres[:, 0] >= 64) | (PRIORS.centres[:, 1] >= 32)
    assert not losses.assignment.positive[0, beyond].any()
    assert not any(values[0, beyond].any() for values in losses.per_prior.values())
    blank = torch.tensor([[64, 96], [0, 0]])
    first = replace(
        predictions,
        scores=predictions.scores[:1],
        boxes=predictions.boxes[:1],
        quality=predictions.quality[:1],  # type: ignore[index]
    )
    alone = PAACriterion()(first, targets[:1], blank[:1])
    for name, value in PAACriterion()(predictions, targets, blank).terms.items():
        torch.testing.assert_close(value, alone.terms[name])


@pytest.mark.parametrize("criterion", [PAACriterion(), GFLCriterion()], ids=["paa", "gfl"])
@pytest.mark.parametrize("counts", [[3, 0], [0, 0], [0, 8], [4, 6]])
def test_batches_of_one_step_share_their_weights(criterion: PAACriterion | GFLCriterion, counts: list[int]) -> None:
    """Of several processes too: the sums of both batches' weights make of their losses those of one batch."""
    predictions, targets = scenes(counts)
    whole = criterion(predictions, targets)
    parts = []
    for image in range(2):
        part = DensePredictions(
            predictions.scores[image, None],
            predictions.boxes[image, None],
            PRIORS,
            logits=True,
            quality=predictions.quality[image, None],  # type: ignore[index]
        )
        parts.append((part, [targets[image]]))
    sums = [criterion(*part).weight_sums for part in parts]
    together = {name: sums[0][name] + sums[1][name] for name in sums[0]}
    for name, value in whole.terms.items():
        given = sum(criterion(*part, weight_sums=together).terms[name] for part in parts)
        torch.testing.assert_close(given, value, rtol=1e-5, atol=1e-7)

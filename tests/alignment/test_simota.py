"""SimOTA against the reference's cases and a plain formulation with loops; its losses against their formulas."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from golden_values import golden
from tood.alignment import Progress, SimOTAAssigner, SimOTACriterion, SimOTACriterionConfig
from tood.alignment.assigners import assignment as assignment_module
from tood.alignment.criteria.simota import cell_middles
from tood.boxes import iou_matrix
from tood.errors import ToodError
from tood.models.common.priors import grid_priors
from tood.structures import DensePredictions, Priors, Targets

STRIDES = (8, 16, 32)
PRIORS = grid_priors([torch.zeros(1, 1, 96 // stride, 128 // stride) for stride in STRIDES], STRIDES, 1.0)
MIDDLES = cell_middles(PRIORS)


def truths(boxes: Tensor, labels: Tensor) -> Targets:
    return Targets(boxes, labels, torch.zeros(len(labels), dtype=torch.bool))


@pytest.mark.parametrize("case", range(5))
def test_the_reference_s_cases(case: int) -> None:
    values = golden("simota")
    given, priors = values["cases"][case], values["priors"]
    kept = zip(given["gt_boxes"], given["gt_labels"], given["gt_mask"], strict=True)
    targets = [truths(boxes[mask], labels[mask]) for boxes, labels, mask in kept]
    found = SimOTAAssigner()(given["pred_scores"], given["pred_boxes"], priors[:, :2], priors[:, 2], targets)
    for image, wanted in enumerate(given["results"]):
        positive = wanted["gt_inds"] > 0
        assert torch.equal(found.gt_index[image] + 1, wanted["gt_inds"])
        torch.testing.assert_close(found.iou[image][positive], wanted["ious"][positive], rtol=1e-4, atol=1e-6)
        assert torch.equal(found.labels[image][positive], targets[image].labels[wanted["gt_inds"][positive] - 1])


def plain(
    assigner: SimOTAAssigner, scores: Tensor, boxes: Tensor, places: Tensor, strides: Tensor, gt: Targets
) -> list[int]:
    """The owners of N places, -1 for none: one pair after the other, as the paper tells it."""
    count, number = len(places), len(gt)
    owners = [-1] * count
    if not number:
        return owners
    ious = iou_matrix(gt.boxes, boxes).tolist()
    inside = [[False] * count for _ in range(number)]
    near = [[False] * count for _ in range(number)]
    costs = [[0.0] * count for _ in range(number)]
    for g, (x1, y1, x2, y2) in enumerate(gt.boxes.tolist()):
        wanted = F.one_hot(gt.labels[g], scores.shape[1]).float()
        for n, ((x, y), stride) in enumerate(zip(places.tolist(), strides.tolist(), strict=True)):
            reach = assigner.radius * stride
            inside[g][n] = x1 < x < x2 and y1 < y < y2
            near[g][n] = abs(x - (x1 + x2) / 2) < reach and abs(y - (y1 + y2) / 2) < reach
            entropy = F.binary_cross_entropy(scores[n], wanted, reduction="sum").item()
            costs[g][n] = entropy * assigner.class_weight - assigner.iou_weight * math.log(
                ious[g][n] + assigner.epsilon
            )
            costs[g][n] += 0 if inside[g][n] and near[g][n] else 1e5
    possible = [n for n in range(count) if any(inside[g][n] or near[g][n] for g in range(number))]
    claims: dict[int, list[int]] = {n: [] for n in possible}
    for g in range(number):
        largest = sorted((ious[g][n] for n in possible), reverse=True)[: assigner.candidates]
        take = max(int(torch.tensor(largest).sum()), 1) if possible else 0
        for n in sorted(possible, key=lambda n: costs[g][n])[:take]:
            claims[n].append(g)
    for n, claimants in claims.items():
        if len(claimants) == 1:
            owners[n] = claimants[0]
        elif claimants:
            owners[n] = min(range(number), key=lambda g: costs[g][n])
    return owners


def scene(seed: int, kind: str, number: int) -> tuple[Tensor, Tensor, Targets]:
    """Scores and boxes of all places, and the ground truth of an image of 96 x 128 pixels."""
    rng = torch.Generator().manual_seed(seed)
    least, most = {"random": (0.1, 0.6), "crowded": (0.05, 0.15), "tiny": (0.01, 0.04), "nested": (0.2, 0.9)}[kind]
    size = (torch.rand(number, 2, generator=rng) * (most - least) + least) * torch.tensor([128.0, 96])
    middle = torch.rand(number, 2, generator=rng) * torch.tensor([128.0, 96])
    if kind == "nested":  # each around the same point, one in the other
        middle[:] = torch.tensor([61.0, 47])
        size = size.sort(dim=0).values
    gt = truths(torch.cat([middle - size / 2, middle + size / 2], 1), torch.randint(5, (number,), generator=rng))
    scores = torch.rand(len(MIDDLES), 5, generator=rng) * 0.9 + 0.05
    boxes = torch.cat([MIDDLES, MIDDLES], 1) + torch.randn(len(MIDDLES), 4, generator=rng) * 4
    half = torch.rand(len(MIDDLES), 2, generator=rng) * 40 + 2
    boxes = boxes + torch.cat([-half, half], 1)
    return scores, boxes, gt


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 10_000),
    st.sampled_from(["random", "crowded", "tiny", "nested"]),
    st.integers(0, 9),
    st.sampled_from([SimOTAAssigner(), SimOTAAssigner(candidates=4, radius=1.5, class_weight=0.5, iou_weight=2.0)]),
)
def test_any_scene_is_assigned_as_the_paper_tells_it(
    seed: int, kind: str, number: int, assigner: SimOTAAssigner
) -> None:
    both = [scene(seed, kind, number), scene(seed + 1, kind, max(number - 2, 0))]
    scores, boxes = (torch.stack([one[i] for one in both]) for i in range(2))  # type: ignore[misc]
    # In double precision costs beyond 1e5 are told apart, which in single precision are equal to within 0.01.
    found = assigner(scores, boxes, MIDDLES, PRIORS.strides, [one[2] for one in both])
    for image, (own_scores, own_boxes, gt) in enumerate(both):
        wanted = torch.tensor(plain(assigner, own_scores, own_boxes, MIDDLES, PRIORS.strides, gt))
        differing = (found.gt_index[image] != wanted).nonzero().flatten().tolist()
        assert not [n for n in differing if not _far(n, gt, assigner)], (differing, kind)


def _far(n: int, gt: Targets, assigner: SimOTAAssigner) -> bool:
    """Whether a place lies in no ground truth that it is near to: such are told apart by rounding alone."""
    (x, y), reach = MIDDLES[n].tolist(), assigner.radius * PRIORS.strides[n].item()
    return not any(
        x1 < x < x2 and y1 < y < y2 and abs(x - (x1 + x2) / 2) < reach and abs(y - (y1 + y2) / 2) < reach
        for x1, y1, x2, y2 in gt.boxes.tolist()
    )


def test_blocks_of_ground_truths_give_what_all_at_once_do(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [scene(5, "crowded", 23), scene(6, "random", 7)]
    scores, boxes = (torch.stack([one[i] for one in both]) for i in range(2))  # type: ignore[misc]
    targets = [one[2] for one in both]
    at_once = SimOTAAssigner()(scores, boxes, MIDDLES, PRIORS.strides, targets)
    monkeypatch.setattr(assignment_module, "BLOCK", 2 * len(MIDDLES) * 3)
    in_blocks = SimOTAAssigner()(scores, boxes, MIDDLES, PRIORS.strides, targets)
    assert torch.equal(in_blocks.gt_index, at_once.gt_index)
    assert torch.equal(in_blocks.iou, at_once.iou)


def test_crowds_and_padding_take_no_part() -> None:
    scores, boxes, gt = scene(1, "random", 6)
    crowd = torch.tensor([False, True, False, False, True, False])
    valid = (MIDDLES[:, 0] < 64)[None]
    whole = Targets(gt.boxes, gt.labels, crowd)
    single = truths(gt.boxes[~crowd], gt.labels[~crowd])
    found, wanted = (
        SimOTAAssigner()(scores[None], boxes[None], MIDDLES, PRIORS.strides, [one], valid) for one in (whole, single)
    )
    assert torch.equal(found.gt_index, wanted.gt_index)
    assert found.positive.any()
    assert not found.positive[~valid].any()


def test_an_image_whose_objects_no_place_is_near_has_no_positive() -> None:
    scores, boxes, _ = scene(1, "random", 1)
    far = truths(torch.tensor([[900.0, 900, 910, 910]]), torch.tensor([1]))
    found = SimOTAAssigner()(scores[None], boxes[None], MIDDLES, PRIORS.strides, [far])
    assert not found.positive.any()
    losses = SimOTACriterion()(predictions_of(scores, boxes), [far])
    assert {name: value.item() for name, value in losses.terms.items() if name != "objectness"} == {
        "cls": 0,
        "box": 0,
        "l1": 0,
    }


def predictions_of(scores: Tensor, boxes: Tensor, quality: bool = True) -> DensePredictions:
    rng = torch.Generator().manual_seed(9)
    judged = torch.randn(1, len(scores), generator=rng).requires_grad_() if quality else None
    logits = scores.logit()[None].clone().requires_grad_()
    return DensePredictions(logits, boxes[None].clone().requires_grad_(), PRIORS, logits=True, quality=judged)


@pytest.mark.parametrize("box_loss", ["squared_iou", "hull"])
def test_losses_are_their_formulas(box_loss: str) -> None:
    scores, boxes, gt = scene(3, "random", 5)
    predictions = predictions_of(scores, boxes)
    config = SimOTACriterionConfig(box_loss=box_loss, l1_weight=0.5)  # type: ignore[arg-type]
    losses = config.build()(predictions, [gt])
    owners = losses.assignment.gt_index[0].tolist()
    positives = [n for n, owner in enumerate(owners) if owner >= 0]
    assert len(positives) > 3
    assert predictions.quality is not None
    cls = box = l1 = 0.0
    for n in positives:
        wanted, own = gt.boxes[owners[n]], boxes[n]
        iou = iou_matrix(wanted[None], own[None]).item()
        target = F.one_hot(gt.labels[owners[n]], 5) * iou
        cls += F.binary_cross_entropy_with_logits(predictions.scores[0, n], target, reduction="sum").item()
        common = (torch.minimum(wanted[2:], own[2:]) - torch.maximum(wanted[:2], own[:2])).clamp(min=0).prod().item()
        hull = (torch.maximum(wanted[2:], own[2:]) - torch.minimum(wanted[:2], own[:2])).prod().item()
        box += 1 - iou**2 if box_loss == "squared_iou" else 1 - max(iou - (hull - common) / hull, -1)
        stride = PRIORS.strides[n].item()
        l1 += ((own - wanted)[:2] + (own - wanted)[2:]).abs().sum().item() / 2 / stride
        l1 += ((own[2:] - own[:2]).log() - (wanted[2:] - wanted[:2]).log()).abs().sum().item()
    wanted_objectness = F.binary_cross_entropy_with_logits(
        predictions.quality[0], losses.assignment.positive[0].float(), reduction="sum"
    ).item()
    expected = {"cls": cls, "box": 5 * box, "objectness": wanted_objectness, "l1": 0.5 * l1}
    given = {name: value.item() * len(positives) for name, value in losses.terms.items()}
    assert given == pytest.approx(expected, rel=1e-4)


def test_the_l1_loss_joins_for_the_end_of_the_run() -> None:
    scores, boxes, gt = scene(3, "random", 5)
    criterion = SimOTACriterion()
    before, after = (
        set(criterion(predictions_of(scores, boxes), [gt], None, Progress(epoch, epoch / 300)).terms)
        for epoch in (284, 285)
    )
    assert before == {"cls", "box", "objectness"}
    assert after == {*before, "l1"} == set(criterion.terms)
    with pytest.raises(ToodError, match=r"l1_share is 1\.5"):
        SimOTACriterionConfig(l1_share=1.5)


def test_without_objectness_the_classes_of_all_places_learn() -> None:
    scores, boxes, gt = scene(4, "random", 4)
    predictions = predictions_of(scores, boxes, quality=False)
    losses = SimOTACriterion()(predictions, [gt])
    assert "objectness" not in losses.terms
    losses.total.backward()
    assert predictions.scores.grad is not None
    assert predictions.scores.grad[0].abs().amax(dim=1).gt(0).all()
    # Probabilities, as the T-Head has them, give what logits do.
    given = replace(predictions, scores=predictions.scores.detach().sigmoid(), logits=False)
    torch.testing.assert_close(SimOTACriterion()(given, [gt]).total, losses.total, rtol=1e-4, atol=0)


def test_what_negatives_hold_sends_no_gradient() -> None:
    scores, boxes, gt = scene(2, "random", 3)
    predictions = predictions_of(scores, boxes)
    negative = ~SimOTACriterion()(predictions, [gt]).assignment.positive[0]
    first = negative.nonzero()[0]
    poisoned = predictions.boxes.detach().clone()
    poisoned[0, first] = torch.tensor([-torch.inf, -torch.inf, torch.inf, torch.inf])
    poisoned.requires_grad_()
    losses = SimOTACriterion()(replace(predictions, boxes=poisoned), [gt])
    losses.total.backward()
    assert poisoned.grad is not None
    assert poisoned.grad.isfinite().all()


def test_priors_may_lie_on_corners_or_in_the_middle_of_their_cells() -> None:
    middles = Priors(MIDDLES, PRIORS.sizes, PRIORS.strides, PRIORS.shapes)
    assert torch.equal(cell_middles(middles), MIDDLES)
    assert torch.equal(MIDDLES - PRIORS.centres, (PRIORS.strides / 2)[:, None].expand(-1, 2))


def test_the_mean_of_several_batches_is_the_loss_of_one() -> None:
    """What exact accumulation counts on: losses divided by the sums of all batches."""
    parts = [scene(7, "random", 6), scene(8, "random", 2)]
    criterion = SimOTACriterion()
    single = [criterion(predictions_of(scores, boxes), [gt]) for scores, boxes, gt in parts]
    total = {"positives": sum(losses.weight_sums["positives"] for losses in single)}
    shared = [
        criterion(predictions_of(scores, boxes), [gt], weight_sums=total).total
        for scores, boxes, gt in parts  # type: ignore[arg-type]
    ]
    both = DensePredictions(
        torch.cat([predictions_of(*part[:2]).scores for part in parts]),
        torch.cat([predictions_of(*part[:2]).boxes for part in parts]),
        PRIORS,
        logits=True,
        quality=torch.cat([predictions_of(*part[:2]).quality for part in parts]),  # type: ignore[misc]
    )
    together = criterion(both, [part[2] for part in parts])
    torch.testing.assert_close(torch.stack(shared).sum(), together.total, rtol=1e-5, atol=0)

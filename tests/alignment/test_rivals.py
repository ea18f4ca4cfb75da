"""Whom a place that several ground truths chose may go to: PP-YOLOE's golden values, and definitions by plain loops."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from alignment.test_properties import PRIORS, as_dict, is_inside, scene
from golden_values import golden, targets_of
from tood.alignment import ATSSAssigner, TaskAlignedAssigner, VarifocalCriterionConfig
from tood.alignment.assigners import assignment, task_aligned
from tood.alignment.assigners.contested import Rivals, settle_among
from tood.boxes import ciou_pairs, iou_matrix, iou_pairs
from tood.structures import Priors, Targets

CASES = range(len(golden("ppyoloe_assigners")["cases"]))
PUBLISHED = VarifocalCriterionConfig()


def golden_case(number: int) -> tuple[dict[str, Any], Priors, list[Targets]]:
    values = golden("ppyoloe_assigners")
    case, anchors = values["cases"][number], values["anchors"]
    sizes = anchors[:, 2] - anchors[:, 0]
    shapes = tuple((128 // stride, 192 // stride) for stride in (32, 16, 8))
    assert [h * w for h, w in shapes] == list(values["level_sizes"])
    priors = Priors((anchors[:, :2] + anchors[:, 2:]) / 2, sizes, values["strides"].flatten(), shapes)
    given = [
        (boxes[mask.bool()], labels.flatten()[mask.bool()].long())
        for boxes, labels, mask in zip(case["gt_boxes"], case["gt_labels"], case["gt_mask"].flatten(1), strict=True)
    ]
    return case, priors, targets_of([boxes for boxes, _ in given], [labels for _, labels in given])


def assert_assigned(given: assignment.Assignment, wanted: dict[str, Tensor], classes: int) -> None:
    scores = torch.zeros_like(wanted["scores"])
    scores.scatter_(2, given.labels.clamp(min=0)[..., None], given.target_scores[..., None])
    torch.testing.assert_close(scores, wanted["scores"], rtol=1e-4, atol=1e-6)
    learnt = wanted["scores"].sum(dim=2) > 1e-6
    assert torch.equal(given.labels[learnt], wanted["labels"].long()[learnt])
    torch.testing.assert_close(given.boxes[learnt], wanted["boxes"][learnt])
    assert not (given.positive & (wanted["labels"] == classes) & (given.target_scores > 1e-6)).any()


@pytest.mark.parametrize("number", CASES)
@pytest.mark.parametrize("few", [True, False])
def test_task_aligned_positives_are_the_reference_s(number: int, few: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    case, priors, targets = golden_case(number)
    monkeypatch.setattr(task_aligned, "FEW", 1000 if few else 0)
    given = PUBLISHED.assigner(case["pred_scores"], case["pred_boxes"], priors.centres, targets)
    assert_assigned(given, case["tal"], golden("ppyoloe_assigners")["num_classes"])


@pytest.mark.parametrize("number", CASES)
def test_geometric_positives_are_the_reference_s(number: int) -> None:
    case, priors, targets = golden_case(number)
    given = PUBLISHED.warm_up_assigner(priors, targets).with_overlap_of(case["pred_boxes"])
    assert_assigned(given, case["atss"], golden("ppyoloe_assigners")["num_classes"])


def slow_settled(
    claims: dict[int, list[int]], rivals: str, ious: Tensor, truth: Targets, margin: float
) -> dict[int, int]:
    """Prior -> ground truth: its only claimant, or else the rival of highest overlap, the first among equals."""
    owners = {}
    for prior, claimants in claims.items():
        asked = claimants
        if len(claimants) > 1 and rivals == "all":
            asked = list(range(len(truth)))
        elif len(claimants) > 1 and rivals == "containing":
            centre = PRIORS.centres[prior].tolist()
            asked = [g for g, box in enumerate(truth.boxes.tolist()) if is_inside(centre, box, margin)]
        owners[prior] = min(asked, key=lambda g: (-ious[g, prior].item(), g))
    return owners


def slow_tal(scores: Tensor, boxes: Tensor, truth: Targets, assigner: TaskAlignedAssigner) -> dict[int, int]:
    ious = iou_matrix(truth.boxes, boxes)
    claims: dict[int, list[int]] = {}
    for g, box in enumerate(truth.boxes.tolist()):
        metric = scores[:, truth.labels[g]] ** assigner.alpha * ious[g] ** assigner.beta
        inside = [is_inside(centre, box, assigner.margin) for centre in PRIORS.centres.tolist()]
        ranked = [t if ok or assigner.inside == "after" else 0.0 for t, ok in zip(metric.tolist(), inside, strict=True)]
        for prior in sorted(range(len(ranked)), key=lambda n: -ranked[n])[: assigner.topk]:
            if ranked[prior] > 0 and inside[prior]:
                claims.setdefault(prior, []).append(g)
    return slow_settled(claims, assigner.rivals, ious, truth, assigner.margin)


def slow_atss(truth: Targets, assigner: ATSSAssigner) -> dict[int, int]:
    ious = iou_matrix(truth.boxes, PRIORS.boxes)
    claims: dict[int, list[int]] = {}
    for g, box in enumerate(truth.boxes):
        candidates, start = [], 0
        for size in PRIORS.level_sizes:
            distance = (PRIORS.centres[start : start + size] - (box[:2] + box[2:]) / 2).norm(dim=1)
            candidates += [start + int(i) for i in distance.argsort(stable=True)[: assigner.topk]]
            start += size
        threshold = ious[g, candidates].mean() + ious[g, candidates].std()
        for prior in candidates:
            enough = ious[g, prior] > threshold if assigner.above else ious[g, prior] >= threshold
            if enough and is_inside(PRIORS.centres[prior].tolist(), box.tolist(), assigner.margin):
                claims.setdefault(prior, []).append(g)
    return slow_settled(claims, assigner.rivals, ious, truth, assigner.margin)


def nested(seed: int, truths: int) -> Targets:
    """Boxes within boxes, of two classes."""
    _, _, truth = scene(seed, 1)
    middle = (truth.boxes[:, :2] + truth.boxes[:, 2:]) / 2
    half = torch.linspace(30, 4, truths)[:, None]
    boxes = torch.cat([middle - half, middle + half], dim=1)
    return Targets(boxes, torch.arange(truths) % 2, torch.zeros(truths, dtype=torch.bool))


@settings(deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(0, 14),
    st.sampled_from(["chosen", "containing", "all"]),
    st.sampled_from(["before", "after"]),
    st.sampled_from([1, 5, 13]),
    st.booleans(),
    st.booleans(),
)
def test_tal_with_every_kind_of_rivals_is_its_definition(
    seed: int, truths: int, rivals: str, inside: str, topk: int, within: bool, few: bool
) -> None:
    scores, boxes, truth = scene(seed, truths)
    truth = nested(seed, truths) if within and truths else truth
    assigner = TaskAlignedAssigner(topk=topk, inside=inside, margin=1e-9, epsilon=1e-9, rivals=rivals)  # type: ignore[arg-type]
    before = task_aligned.FEW
    task_aligned.FEW = 1000 if few else 0
    try:
        given = assigner(scores[None], boxes[None], PRIORS.centres, [truth])
    finally:
        task_aligned.FEW = before
    wanted = slow_tal(scores, boxes, truth, assigner)
    assert as_dict(given.gt_index[0]) == wanted
    for g in range(truths):
        mine = torch.tensor([n for n, owner in wanted.items() if owner == g], dtype=torch.long)
        if len(mine):
            iou = iou_pairs(boxes[mine], truth.boxes[g])
            metric = scores[mine, truth.labels[g]] * iou**6
            target = metric / (metric.max() + 1e-9) * iou.max()
            torch.testing.assert_close(given.target_scores[0, mine], target)
            torch.testing.assert_close(given.boxes[0, mine], truth.boxes[g].expand(len(mine), 4))
            assert (given.labels[0, mine] == truth.labels[g]).all()


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.integers(0, 14), st.sampled_from(["chosen", "containing", "all"]), st.booleans())
def test_atss_with_every_kind_of_rivals_is_its_definition(seed: int, truths: int, rivals: str, within: bool) -> None:
    truth = nested(seed, truths) if within and truths else scene(seed, truths)[2]
    assigner = ATSSAssigner(topk=5, margin=1e-9, above=True, rivals=rivals)  # type: ignore[arg-type]
    assert as_dict(assigner(PRIORS, [truth]).gt_index[0]) == slow_atss(truth, assigner)


@pytest.mark.parametrize("rivals", ["containing", "all"])
def test_blocks_and_crowds_change_nothing(rivals: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scores, boxes, truth = scene(5, 14)
    tal = TaskAlignedAssigner(inside="before", margin=1e-9, rivals=rivals)  # type: ignore[arg-type]
    whole = tal(scores[None], boxes[None], PRIORS.centres, [truth])
    crowd = replace(truth, crowd=torch.arange(14) >= 9)
    some = tal(scores[None], boxes[None], PRIORS.centres, [crowd])
    fewer = Targets(truth.boxes[:9], truth.labels[:9], truth.crowd[:9])
    assert torch.equal(some.gt_index, tal(scores[None], boxes[None], PRIORS.centres, [fewer]).gt_index)
    monkeypatch.setattr(assignment, "BLOCK", 30)
    assert torch.equal(tal(scores[None], boxes[None], PRIORS.centres, [truth]).gt_index, whole.gt_index)


@pytest.mark.parametrize("rivals", ["containing", "all"])
def test_contested_places_go_to_the_rival_of_highest_overlap_and_the_others_to_who_chose_them(rivals: Rivals) -> None:
    _, boxes, truth = scene(8, 9)
    generator = torch.Generator().manual_seed(0)
    index = torch.rand(9, len(boxes), generator=generator).argsort(dim=1)[None, :, :60]  # [1, G, K]
    eligible = torch.rand(1, 9, 60, generator=generator) < 0.7
    nothing = torch.zeros(1, 9, 60)
    given = settle_among(
        rivals,
        assignment.Candidates(index, nothing, nothing, eligible),
        assignment.PaddedTargets.of([truth]),
        boxes,
        PRIORS.centres,
        1e-9,
    )[0]
    overlap = iou_matrix(truth.boxes, boxes)
    contested = 0
    for prior, owner in enumerate(given.tolist()):
        chosen = [gt for gt in range(9) if (index[0, gt][eligible[0, gt]] == prior).any()]
        if len(chosen) < 2:
            assert owner == (chosen[0] if chosen else -1)
            continue
        contested += 1
        inside = [gt for gt in range(9) if rivals == "all" or is_inside(PRIORS.centres[prior], truth.boxes[gt])]
        if inside:
            assert owner == max(inside, key=lambda gt: float(overlap[gt, prior]))
    assert contested > 20


def test_complete_iou_is_the_reference_s() -> None:
    values = golden("tal_variants")["ciou"]
    a = values["a"].clone().requires_grad_()
    given = ciou_pairs(a, values["b"])
    torch.testing.assert_close(given, values["ciou"].view_as(given), rtol=1e-4, atol=1e-5)


def test_overlap_counts_everywhere() -> None:
    scores, boxes, truth = scene(11, 6)
    given = TaskAlignedAssigner(inside="before", overlap="ciou", rivals="containing")(
        scores[None], boxes[None], PRIORS.centres, [truth]
    )
    mine = given.positive[0]
    assert mine.any()
    wanted = ciou_pairs(truth.boxes[given.gt_index[0, mine]], boxes[mine]).clamp(min=0)
    torch.testing.assert_close(given.iou[0, mine], wanted)
    torch.testing.assert_close(given.metric[0, mine], scores[mine, given.labels[0, mine]] * wanted**6)


@pytest.mark.parametrize("variant", ["classic", "one_to_one"])
@pytest.mark.parametrize("number", range(len(golden("tal_variants")["cases"])))
def test_the_options_cover_the_assigner_of_yolov8(variant: str, number: int) -> None:
    values = golden("tal_variants")
    case = values["cases"][number]
    given = [
        (boxes[mask.bool()], labels.flatten()[mask.bool()].long())
        for boxes, labels, mask in zip(case["gt_boxes"], case["gt_labels"], case["gt_mask"].flatten(1), strict=True)
    ]
    targets = targets_of([boxes for boxes, _ in given], [labels for _, labels in given])
    assigner = TaskAlignedAssigner(
        topk=values["variants"][variant]["topk"],
        alpha=values["alpha"],
        beta=values["beta"],
        inside="before",
        margin=1e-9,
        epsilon=1e-9,
        rivals="containing",
        overlap="ciou",
    )
    result = assigner(case["pred_scores"], case["pred_boxes"], values["anchor_points"], targets)
    wanted = case["results"][variant]
    score = wanted["score"].view_as(result.target_scores)
    torch.testing.assert_close(result.target_scores, score, rtol=1e-3, atol=1e-5)
    learnt = score > 1e-6
    assert torch.equal(result.gt_index[learnt], wanted["gt_index"].long()[learnt])

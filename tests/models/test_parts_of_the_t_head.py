"""TOOD without one of its parts: nothing of it is left, and what remains is the same by every way of computing it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from narrow_models import EXAMPLES, lively
from tood.alignment import (
    ATSSAssigner,
    Losses,
    Progress,
    TaskAlignedAssigner,
    TaskAlignedCriterionConfig,
    focal_loss,
)
from tood.boxes import iou_pairs
from tood.models import build_model, for_inference
from tood.models.inference import InferenceDetector
from tood.models.tood import TOODConfig, weights
from tood.ops import plain
from tood.structures import DensePredictions, Targets

PARTS = {
    "layer_attention": ("attention.",),
    "score_alignment": ("classification_alignment.",),
    "box_alignment": ("regression_alignment.",),
}
TARGETS = [
    Targets(torch.tensor([[8.0, 8, 40, 40], [30, 20, 80, 60]]), torch.tensor([0, 1]), torch.tensor([False, False])),
    Targets(torch.tensor([[20.0, 10, 60, 56]]), torch.tensor([2]), torch.tensor([False])),
]


def without(*parts: str) -> TOODConfig:
    config = EXAMPLES["tood-plain"]
    assert isinstance(config, TOODConfig)
    return replace(config, head=replace(config.head, **dict.fromkeys(parts, False)))


@pytest.mark.parametrize("parts", [*((part,) for part in PARTS), ("score_alignment", "box_alignment"), tuple(PARTS)])
def test_what_is_left_out_is_gone_and_all_ways_agree(parts: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    config = without(*parts)
    model = lively(build_model(config)).eval()
    gone = [start for part in parts for start in PARTS[part]]
    assert not any(start in name for name in model.state_dict() for start in gone)
    images = torch.randn(2, 3, 64, 96)
    gradients = []
    for slowly in (False, True):
        model.zero_grad()
        if slowly:
            with plain():
                found = model(images)
        else:
            found = model(images)
        (found.scores.square().sum() + found.boxes.sum() / 1000).backward()
        gradients.append((found, [value.grad for value in model.parameters() if value.requires_grad]))
    (fast, of_fast), (slow, of_slow) = gradients
    torch.testing.assert_close(fast.scores, slow.scores, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fast.boxes, slow.boxes, rtol=1e-4, atol=1e-3)
    for one, other in zip(of_fast, of_slow, strict=True):
        assert one is not None, "all that is there learns"
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    with torch.no_grad():
        copied = for_inference(model)
        assert isinstance(copied, InferenceDetector)
        predicted = copied(images)
    torch.testing.assert_close(predicted.scores, slow.scores.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(predicted.boxes, slow.boxes.detach(), rtol=1e-4, atol=1e-2)
    assert weights.infer_config(model.state_dict()).head == config.head


def test_without_alignments_scores_are_the_classifier_s_and_boxes_their_own() -> None:
    torch.manual_seed(1)
    whole, bare = build_model(without()).eval(), build_model(without("score_alignment", "box_alignment")).eval()
    bare.load_state_dict({name: value for name, value in whole.state_dict().items() if name in bare.state_dict()})
    with torch.no_grad():
        maps = whole.neck(whole.backbone(torch.randn(1, 3, 64, 96)))
        seen = next(iter(whole.head.seen(whole.head.trunks(maps))))  # type: ignore[operator]
        logits = whole.head.classifier(seen.classification)  # type: ignore[operator]
        found = bare.head(maps)
    first = logits.sigmoid().flatten(2).transpose(1, 2)
    torch.testing.assert_close(found.scores[:, : first.shape[1]], first)


def _losses(config: TaskAlignedCriterionConfig) -> tuple[DensePredictions, Losses]:
    torch.manual_seed(2)
    model = lively(build_model(without())).eval()
    found = model(torch.randn(2, 3, 64, 96))
    return found, config.build()(found, TARGETS)


def test_geometric_positives_have_targets_by_alignment() -> None:
    geometric = ATSSAssigner(topk=20)
    config = TaskAlignedCriterionConfig(positives="geometric", warm_up_assigner=geometric)
    found, losses = _losses(config)
    assignment = losses.assignment
    assert assignment.positive.any()
    assert torch.equal(assignment.gt_index, geometric(found.priors, TARGETS).gt_index)
    iou = iou_pairs(found.boxes, assignment.boxes)
    for image, target in enumerate(TARGETS):
        for number, label in enumerate(target.labels.tolist()):
            mine = assignment.gt_index[image] == number
            if mine.any():
                metric = found.scores[image, mine, label] * iou[image, mine] ** 6
                wanted = metric / (metric.max() + 1e-7) * iou[image, mine].max()
                torch.testing.assert_close(assignment.target_scores[image, mine], wanted, rtol=1e-4, atol=1e-6)


def test_focal_losses_on_the_aligned_positives() -> None:
    found, losses = _losses(TaskAlignedCriterionConfig(losses="focal"))
    assignment = TaskAlignedAssigner()(found.scores, found.boxes, found.priors.centres, TARGETS)
    assert torch.equal(losses.assignment.gt_index, assignment.gt_index)
    wanted = torch.zeros_like(found.scores)
    positive = assignment.positive
    wanted[(*positive.nonzero(as_tuple=True), assignment.labels[positive])] = 1
    entropy = focal_loss(found.scores, wanted, 0.25, 2.0, logits=found.logits).sum()
    torch.testing.assert_close(losses.terms["cls"], entropy / positive.sum().clamp(min=1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("setting", [{"positives": "geometric"}, {"losses": "focal"}])
def test_the_warm_up_is_the_same(setting: dict[str, str]) -> None:
    found, _ = _losses(TaskAlignedCriterionConfig())
    start = Progress(0, 0.0)
    usual = TaskAlignedCriterionConfig().build()(found, TARGETS, progress=start)
    other = TaskAlignedCriterionConfig(**setting).build()(found, TARGETS, progress=start)  # type: ignore[arg-type]
    assert usual.total.item() == other.total.item()


def test_an_image_without_objects_has_no_positives() -> None:
    found, _ = _losses(TaskAlignedCriterionConfig())
    empty = [Targets.empty(), Targets.empty()]
    for config in (TaskAlignedCriterionConfig(positives="geometric"), TaskAlignedCriterionConfig(losses="focal")):
        losses = config.build()(found, empty)
        assert losses.total.isfinite()
        assert not losses.assignment.positive.any()

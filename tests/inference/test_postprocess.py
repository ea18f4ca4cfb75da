"""Post-processing against the reference's detections, and against a slow formulation of the same rules."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from golden_values import golden
from tood.boxes import iou_matrix
from tood.inference import postprocess
from tood.models.common import PostprocessConfig
from tood.structures import DensePredictions, Priors


def priors_of(shapes: list[tuple[int, int]]) -> Priors:
    count = sum(height * width for height, width in shapes)
    return Priors(torch.zeros(count, 2), torch.zeros(count), torch.zeros(count), tuple(shapes))


def golden_predictions() -> DensePredictions:
    values = golden("anchor_free")
    maps, boxes = values["cls_scores"], values["bbox_preds"]
    strides = [8, 16, 32, 64, 128]
    return DensePredictions(
        torch.cat([level.flatten(2).transpose(1, 2) for level in maps], 1),
        torch.cat([(level * s).flatten(2).transpose(1, 2) for level, s in zip(boxes, strides, strict=True)], 1),
        priors_of([(level.shape[2], level.shape[3]) for level in maps]),
    )


@pytest.mark.parametrize("logits", [False, True])
def test_detections_are_the_reference_s(logits: bool) -> None:
    predictions = golden_predictions()
    if logits:
        predictions = replace(predictions, scores=predictions.scores.logit(), logits=True)
    scales = golden("anchor_free")["scale_factors"][:, None].expand(-1, 2)
    results = postprocess(predictions, scales, PostprocessConfig())
    for found, wanted in zip(results, golden("anchor_free")["detections"], strict=True):
        assert torch.equal(found.labels, wanted["labels"])
        torch.testing.assert_close(found.scores, wanted["scores"], rtol=1e-4, atol=0)
        torch.testing.assert_close(found.boxes, wanted["boxes"], rtol=0, atol=1e-2)


def random_predictions(seed: int, logits: bool = False) -> DensePredictions:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(4, 5), (2, 3), (1, 1)]
    count = sum(height * width for height, width in shapes)
    # Few distinct scores: ties are the rule.
    scores = torch.randint(0, 10, (2, count, 3), generator=generator) / 10
    corner = torch.randint(0, 40, (2, count, 2), generator=generator).float()
    sides = torch.randint(-1, 30, (2, count, 2), generator=generator).float()
    return DensePredictions(scores, torch.cat([corner, corner + sides], 2), priors_of(shapes), logits)


def slow(scores: Tensor, boxes: Tensor, sizes: list[int], config: PostprocessConfig) -> list[tuple[int, int]]:
    """(prior, class) of every detection, by sorting and comparing one by one."""
    candidates = []
    start = 0
    for size in sizes:
        pairs = [(p, c) for p in range(start, start + size) for c in range(scores.shape[1])]
        pairs = [pair for pair in pairs if scores[pair] > config.score_threshold]
        candidates += sorted(sorted(pairs, key=lambda pair: -scores[pair].item())[: config.per_level])
        start += size
    candidates = [(p, c) for p, c in candidates if (boxes[p, 2:] > boxes[p, :2]).all()]
    kept: list[tuple[int, int]] = []
    for p, c in sorted(candidates, key=lambda pair: -scores[pair].item()):
        rivals = [q for q, d in kept if d == c]
        if not rivals or iou_matrix(boxes[[p]], boxes[rivals]).max() <= config.iou_threshold:
            kept.append((p, c))
    return kept[: config.max_detections]


@given(st.integers(0, 10_000), st.sampled_from([1, 7, 1000]), st.sampled_from([0.0, 0.35, 0.8]))
def test_rules_one_by_one(seed: int, per_level: int, threshold: float) -> None:
    config = PostprocessConfig(score_threshold=threshold, per_level=per_level, iou_threshold=0.3, max_detections=9)
    predictions = random_predictions(seed)
    results = postprocess(predictions, None, config)
    for found, scores, boxes in zip(results, predictions.scores, predictions.boxes, strict=True):
        wanted = slow(scores, boxes, predictions.priors.level_sizes, config)
        assert found.labels.tolist() == [c for _, c in wanted]
        assert found.boxes.tolist() == [boxes[p].tolist() for p, _ in wanted]
        assert found.scores.tolist() == [scores[pair].item() for pair in wanted]


def test_scales_bring_boxes_to_original_pixels() -> None:
    predictions = random_predictions(3)
    config = PostprocessConfig(iou_threshold=1.0)
    plain = postprocess(predictions, None, config)
    scaled = postprocess(predictions, torch.tensor([[2.0, 4.0], [0.5, 1.0]]), config)
    torch.testing.assert_close(scaled[0].boxes * torch.tensor([2.0, 4.0, 2.0, 4.0]), plain[0].boxes)
    torch.testing.assert_close(scaled[1].boxes * torch.tensor([0.5, 1.0, 0.5, 1.0]), plain[1].boxes)


def test_boxes_that_are_no_numbers_are_dropped() -> None:
    predictions = random_predictions(1)
    predictions.scores[0] = 0
    predictions.scores[0, :4, 0] = torch.tensor([0.9, 0.8, torch.nan, 0.7])
    predictions.boxes[0, :4] = torch.tensor([[0, 0, torch.inf, 5], [0, 0, torch.nan, 5], [0, 0, 5, 5], [0, 0, 4, 4]])
    found = postprocess(predictions, None, PostprocessConfig())[0]
    assert found.boxes.tolist() == [[0, 0, 4, 4]]


@pytest.mark.parametrize("logits", [False, True])
@pytest.mark.parametrize("threshold", [0.95, 1.0])
def test_nothing_above_the_threshold(threshold: float, logits: bool) -> None:
    predictions = random_predictions(2)
    predictions = replace(predictions, scores=predictions.scores.logit(), logits=True) if logits else predictions
    for found in postprocess(predictions, None, PostprocessConfig(score_threshold=threshold)):
        assert found.boxes.shape == (0, 4)
        assert found.scores.shape == found.labels.shape == (0,)

"""From dense predictions to the few boxes of an image: threshold, best of each level, NMS, best of the image."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from tood.boxes import nms
from tood.models.common import PostprocessConfig
from tood.structures import DensePredictions


class Found(NamedTuple):
    """What one image holds, best first.

    Attributes:
        boxes: [K, 4] float32, x1 y1 x2 y2, in input pixels divided by the scales that `postprocess` was given.
        scores: [K] probabilities.
        labels: [K] int64 class index.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


def postprocess(predictions: DensePredictions, scales: Tensor | None, config: PostprocessConfig) -> list[Found]:
    """Each image's detections, with the reference's own steps and order.

    (Prior, class) pairs are ranked, not priors; boxes without area or with a coordinate that is no number are dropped;
    boxes are not cut to the image, whose border they may cross by a few pixels.

    Args:
        predictions: a batch of B images.
        scales: [B, 2] input pixels per original pixel, (x, y), so that boxes come out in pixels of the original images;
            None leaves them in input pixels.
        config: thresholds and limits.
    """
    images = []
    for i, (scores, boxes) in enumerate(zip(predictions.scores, predictions.boxes, strict=True)):
        scale = None if scales is None else scales[i].to(boxes)
        images.append(_one_image(scores, boxes, predictions, scale, config))
    return images


def _one_image(
    scores: Tensor, boxes: Tensor, predictions: DensePredictions, scale: Tensor | None, config: PostprocessConfig
) -> Found:
    classes = scores.shape[1]
    # Logits are compared as logits: a sigmoid over all N x C of them would cost more than the rest.
    threshold = _logit(config.score_threshold) if predictions.logits else config.score_threshold
    candidates = []
    start = 0
    for size in predictions.priors.level_sizes:
        level = scores[start : start + size].reshape(-1)
        pairs = _best(level, torch.nonzero(level > threshold).squeeze(1), config.per_level)
        candidates.append(pairs + start * classes)
        start += size
    pairs = torch.cat(candidates)  # [K] prior * C + class
    values = scores.reshape(-1)[pairs].float()
    kept_boxes = boxes[torch.div(pairs, classes, rounding_mode="floor")].float()
    if scale is not None:
        kept_boxes = kept_boxes / scale.repeat(2)
    sides = kept_boxes[:, 2:] - kept_boxes[:, :2]
    usable = kept_boxes.isfinite().all(dim=1) & (sides > 0).all(dim=1)
    kept_boxes, values, labels = kept_boxes[usable], values[usable], (pairs % classes)[usable]
    best = nms(kept_boxes, values, labels, config.iou_threshold)[: config.max_detections]
    probabilities = values[best].sigmoid() if predictions.logits else values[best]
    return Found(kept_boxes[best], probabilities, labels[best])


def _best(values: Tensor, indices: Tensor, limit: int) -> Tensor:
    """The `limit` of the `indices` with the largest values, in their given order; of equals the first."""
    if len(indices) <= limit:
        return indices
    chosen = values[indices]
    last = torch.topk(chosen, limit).values[-1]
    above = chosen > last
    equal = chosen == last
    # topk alone leaves open which of several equal values it takes.
    equal &= equal.cumsum(0) <= limit - above.sum()
    return indices[above | equal]


def _logit(probability: float) -> float:
    if probability <= 0:
        return -math.inf
    if probability >= 1:
        return math.inf
    return math.log(probability / (1 - probability))

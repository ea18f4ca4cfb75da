"""From dense predictions to the few boxes of an image: threshold, best of each level, NMS, best of the image."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from tood.boxes import clip, iou_matrix, nms
from tood.models.common import AnyPostprocessConfig, PostprocessConfig, ScoreVotingConfig, TopKConfig
from tood.models.common.postprocess_config import Ranking
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


def postprocess(
    predictions: DensePredictions, scales: Tensor | None, config: AnyPostprocessConfig, sizes: Tensor | None = None
) -> list[Found]:
    """Each image's detections, with the reference's own steps and order.

    (Prior, class) pairs are ranked, not priors; boxes without area or with a coordinate that is no number are dropped.
    Threshold and best of each level are taken by the class scores alone; where the predictions carry a quality,
    everything after goes by `config.ranking`, which is what detections are given as their score.

    Args:
        predictions: a batch of B images; a configuration without NMS takes their `one_to_one` where there is one.
        scales: [B, 2] input pixels per original pixel, (x, y), so that boxes come out in pixels of the original images;
            None leaves them in input pixels.
        config: thresholds and limits, and what becomes of boxes that overlap.
        sizes: [B, 2] height, width of each image in input pixels, without padding: where `config.clip` cuts boxes to.

    Raises:
        ValueError: if `config.clip` is set and there are no sizes.
    """
    if config.clip and sizes is None:
        raise ValueError("boxes are to be clipped to their images: postprocess needs the images' sizes")
    if isinstance(config, TopKConfig) and predictions.one_to_one is not None:
        predictions = predictions.one_to_one
    images = []
    for i in range(len(predictions.scores)):
        scale = None if scales is None else scales[i].to(predictions.boxes)
        limits = sizes[i].flip(0).to(predictions.boxes) if config.clip and sizes is not None else None
        candidates = _candidates(predictions, i, scale, limits, config)
        images.append(_kept(candidates, config))
    return images


def _candidates(
    predictions: DensePredictions, image: int, scale: Tensor | None, limits: Tensor | None, config: AnyPostprocessConfig
) -> Found:
    """Pairs of image number `image`, not in order; `limits` are its width and height in input pixels, None for none."""
    scores, boxes = predictions.scores[image], predictions.boxes[image]
    classes = scores.shape[1]
    # Logits are compared as logits: a sigmoid over all N x C of them would cost more than the rest.
    threshold = _logit(config.score_threshold) if predictions.logits else config.score_threshold
    pairs = _selected(scores, threshold, predictions.priors.level_sizes, config)  # [K] prior * C + class
    places = torch.div(pairs, classes, rounding_mode="floor")
    values = scores.reshape(-1)[pairs].float()
    if predictions.logits:
        values = values.sigmoid()
    if predictions.quality is not None:
        values = _ranked(values, predictions.quality[image, places].float().sigmoid(), config.ranking)
    kept_boxes = boxes[places].float()
    if limits is not None:
        kept_boxes = clip(kept_boxes, limits)
    if scale is not None:
        kept_boxes = kept_boxes / scale.repeat(2)
    sides = kept_boxes[:, 2:] - kept_boxes[:, :2]
    usable = kept_boxes.isfinite().all(dim=1) & (sides > 0).all(dim=1) & values.isfinite()
    return Found(kept_boxes[usable], values[usable], (pairs % classes)[usable])


def _selected(scores: Tensor, threshold: float, level_sizes: list[int], config: AnyPostprocessConfig) -> Tensor:
    """The best pairs of the scores [N, C]: of each level or, without NMS, of all levels together."""
    if isinstance(config, TopKConfig):
        return _best_pairs(scores, threshold, config.max_detections)
    candidates = []
    start = 0
    for size in level_sizes:
        pairs = _best_pairs(scores[start : start + size], threshold, config.per_level)
        candidates.append(pairs + start * scores.shape[1])
        start += size
    return torch.cat(candidates)


def _ranked(scores: Tensor, quality: Tensor, ranking: Ranking) -> Tensor:
    """[K] of the scores and qualities of K pairs, probabilities."""
    if ranking == "score":
        return scores
    return scores * quality if ranking == "product" else (scores * quality).sqrt()


def _kept(candidates: Found, config: AnyPostprocessConfig) -> Found:
    boxes, scores, labels = candidates
    if isinstance(config, TopKConfig):
        best = scores.argsort(descending=True, stable=True)
        return Found(boxes[best], scores[best], labels[best])
    agnostic = isinstance(config, PostprocessConfig) and config.class_agnostic
    groups = torch.zeros_like(labels) if agnostic else labels
    best = nms(boxes, scores, groups, config.iou_threshold)[: config.max_detections]
    found = Found(boxes[best], scores[best], labels[best])
    return _voted(found, candidates, config) if isinstance(config, ScoreVotingConfig) else found


def _voted(found: Found, candidates: Found, config: ScoreVotingConfig) -> Found:
    """Boxes as the mean of the candidates that they overlap; memory grows with detections x candidates."""
    overlap = iou_matrix(found.boxes, candidates.boxes)  # [K, M]
    votes = (overlap > config.voting_iou) & (found.labels[:, None] == candidates.labels)
    weights = (-(1 - overlap).square() / config.voting_sigma).exp() * candidates.scores * votes
    total = weights.sum(dim=1, keepdim=True)
    # A score so small that nothing is left of its weights keeps its box.
    boxes = torch.where(total > 0, weights @ candidates.boxes / total, found.boxes)
    return found._replace(boxes=boxes)


def _best_pairs(scores: Tensor, threshold: float, limit: int) -> Tensor:
    """The `limit` largest of the scores [n, C] above the threshold, as indices prior * C + class in rising order.

    Of equal ones the first are taken.
    """
    peaks = scores.amax(dim=1)  # [n]
    if peaks.isnan().any():
        scores = scores.nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-math.inf)
        peaks = scores.amax(dim=1)
    hopeful = peaks > threshold
    least = threshold
    if len(peaks) > limit:
        # `limit` priors have a score of at least this, so that nothing below is among the best.
        least = float(peaks.topk(limit).values[-1])
        hopeful &= peaks >= least
    places = hopeful.nonzero().squeeze(1)  # [m]
    values = scores[places]  # [m, C]
    row, label = ((values > threshold) & (values >= least)).nonzero(as_tuple=True)
    pairs, values = places[row] * scores.shape[1] + label, values[row, label]
    if len(pairs) <= limit:
        return pairs
    last = values.topk(limit).values[-1]
    above = values > last
    equal = values == last
    # topk alone leaves open which of several equal values it takes.
    equal &= equal.cumsum(0) <= limit - above.sum()
    return pairs[above | equal]


def _logit(probability: float) -> float:
    if probability <= 0:
        return -math.inf
    if probability >= 1:
        return math.inf
    return math.log(probability / (1 - probability))

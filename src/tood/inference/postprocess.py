"""From dense predictions to the few boxes of an image: threshold, best of each level, NMS, best of the image."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from tood.boxes import clip, iou_matrix, nms
from tood.models.common import AnyPostprocessConfig, PostprocessConfig, ScoreVotingConfig, TopKConfig, head_for
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
    predictions: DensePredictions,
    scales: Tensor | None,
    config: AnyPostprocessConfig,
    sizes: Tensor | None = None,
    offsets: Tensor | None = None,
) -> list[Found]:
    """Each image's detections, with the reference's own steps and order.

    (Prior, class) pairs are ranked, not priors; boxes without area or with a coordinate that is no number are dropped.
    Threshold and best of each level are taken by the class scores alone, unless `config.threshold_on` says otherwise;
    where the predictions carry a quality, everything after goes by `config.ranking`, which is what detections are given
    as their score. A `ScoreVotingConfig` goes by that from the beginning, and takes the best priors of each level with
    all their pairs above the threshold.

    Args:
        predictions: a batch of B images; a configuration without NMS takes their `one_to_one` where there is one.
        scales: [B, 2] input pixels per original pixel, (x, y), so that boxes come out in pixels of the original images;
            None leaves them in input pixels.
        config: thresholds and limits, and what becomes of boxes that overlap.
        sizes: [B, 2] height, width of each image in input pixels, without padding: where `config.clip` cuts boxes to.
        offsets: [B, 2] where each image's corner lies in input pixels, (x, y); None for (0, 0).

    Raises:
        ValueError: if `config.clip` is set and there are no sizes.
    """
    if config.clip and sizes is None:
        raise ValueError("boxes are to be clipped to their images: postprocess needs the images' sizes")
    predictions = head_for(predictions, config)
    images = []
    for i in range(len(predictions.scores)):
        pairs, scores = _selected(predictions, i, config)
        boxes = predictions.boxes[i, torch.div(pairs, predictions.scores.shape[2], rounding_mode="floor")].float()
        if offsets is not None:
            boxes = boxes - offsets[i].to(boxes).repeat(2)
        if config.clip and sizes is not None:
            boxes = clip(boxes, sizes[i].flip(0).to(boxes))
        if scales is not None:
            boxes = boxes / scales[i].to(boxes).repeat(2)
        usable = boxes.isfinite().all(dim=1) & (boxes[:, 2:] > boxes[:, :2]).all(dim=1) & scores.isfinite()
        labels = pairs % predictions.scores.shape[2]
        images.append(_kept(Found(boxes[usable], scores[usable], labels[usable]), config))
    return images


def _selected(predictions: DensePredictions, image: int, config: AnyPostprocessConfig) -> tuple[Tensor, Tensor]:
    """The best pairs of image number `image`, as [K] prior * C + class, and the [K] values that they are ranked by."""
    if isinstance(config, ScoreVotingConfig):
        return _selected_by_rank(predictions, image, config)
    scores, logits = predictions.scores[image], predictions.logits  # [N, C]
    quality = None if predictions.quality is None else predictions.quality[image].float()  # [N]
    labels = None
    if isinstance(config, PostprocessConfig) and config.best_class:
        scores, labels = scores.max(dim=1, keepdim=True)  # [N, 1]
    if quality is not None and isinstance(config, PostprocessConfig) and config.threshold_on == "ranked":
        probabilities = scores.float().sigmoid() if logits else scores.float()
        scores, logits = ranked(probabilities, quality.sigmoid()[:, None], config.ranking), False
        quality = None
    # Logits are compared as logits: a sigmoid over all N x C of them would cost more than the rest.
    threshold = _logit(config.score_threshold) if logits else config.score_threshold
    pairs = _best_of_levels(scores, threshold, predictions.priors.level_sizes, config)
    values = scores.reshape(-1)[pairs].float()
    if logits:
        values = values.sigmoid()
    if quality is not None:
        places = torch.div(pairs, scores.shape[1], rounding_mode="floor")
        values = ranked(values, quality[places].sigmoid(), config.ranking)
    if labels is not None:
        pairs = pairs * predictions.scores.shape[2] + labels[pairs, 0]
    return pairs, values


def _selected_by_rank(predictions: DensePredictions, image: int, config: ScoreVotingConfig) -> tuple[Tensor, Tensor]:
    """As `_selected`, of the best priors of each level, by what their pairs are ranked by."""
    scores = predictions.scores[image].float()  # [N, C]
    if scores.isnan().any():
        scores = scores.nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-math.inf)
    quality = None if predictions.quality is None else predictions.quality[image].float().sigmoid()  # [N]

    def values_of(chosen: Tensor, judged: Tensor | None) -> Tensor:
        values = chosen.sigmoid() if predictions.logits else chosen
        return values if judged is None else ranked(values, judged, config.ranking)

    # What ranks a prior's pairs rises with the score: its best class has its best value.
    peaks = values_of(scores.amax(dim=1), quality)  # [N]
    places = []
    start = 0
    for size in predictions.priors.level_sizes:
        hopeful = (peaks[start : start + size] > config.score_threshold).nonzero().squeeze(1) + start
        if len(hopeful) > config.per_level:
            hopeful = hopeful[peaks[hopeful].topk(config.per_level).indices.sort().values]
        places.append(hopeful)
        start += size
    place = torch.cat(places)
    values = values_of(scores[place], None if quality is None else quality[place, None])  # [m, C]
    row, label = (values > config.score_threshold).nonzero(as_tuple=True)
    return place[row] * scores.shape[1] + label, values[row, label]


def _best_of_levels(scores: Tensor, threshold: float, level_sizes: list[int], config: AnyPostprocessConfig) -> Tensor:
    """The best pairs of the scores [N, C]: of each level or, without NMS, of all levels together."""
    if isinstance(config, TopKConfig):
        return _best_pairs(scores, threshold, config.max_detections)
    if isinstance(config, PostprocessConfig) and config.per_class is not None:
        return _best_of_classes(scores, threshold, config.per_class)
    candidates = []
    start = 0
    for size in level_sizes:
        pairs = _best_pairs(scores[start : start + size], threshold, config.per_level)
        candidates.append(pairs + start * scores.shape[1])
        start += size
    return torch.cat(candidates)


def _best_of_classes(scores: Tensor, threshold: float, limit: int) -> Tensor:
    """The `limit` largest of each class of the scores [N, C] above the threshold, of equal ones the first."""
    row, label = (scores > threshold).nonzero(as_tuple=True)
    values = scores[row, label]
    order = values.argsort(descending=True, stable=True)
    order = order[label[order].argsort(stable=True)]  # class by class, in each the best first
    counts = label.bincount(minlength=scores.shape[1])
    rank = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[label[order]]
    return (row * scores.shape[1] + label)[order[rank < limit]]


def ranked(scores: Tensor, quality: Tensor, ranking: Ranking) -> Tensor:
    """What pairs are ranked by: of their scores and qualities, probabilities of shapes that broadcast."""
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
    if config.voting_sigma is not None:
        votes = candidates.scores * (found.labels[:, None] == candidates.labels)  # [K, M]
        found = found._replace(
            boxes=voted(found.boxes, candidates.boxes, votes, config.voting_sigma, config.voting_iou)
        )
    return found


def voted(boxes: Tensor, candidates: Tensor, votes: Tensor, sigma: float, least_iou: float) -> Tensor:
    """Boxes [..., K, 4] as the mean of the candidates [..., M, 4] that they overlap (PAA, Kim and Lee 2020, 3.4).

    Args:
        votes: [..., K, M] score of each candidate for each box, 0 of another class.
        sigma, least_iou: `voting_sigma` and `voting_iou` of the configuration.
    """
    overlap = iou_matrix(boxes, candidates)  # [..., K, M]
    weights = (-(1 - overlap).square() / sigma).exp() * votes * (overlap > least_iou)
    total = weights.sum(dim=-1, keepdim=True)
    # A score so small that nothing is left of its weights keeps its box.
    return torch.where(total > 0, weights @ candidates / total, boxes)


def _best_pairs(scores: Tensor, threshold: float, limit: int | None) -> Tensor:
    """The `limit` largest of the scores [n, C] above the threshold, as indices prior * C + class in rising order.

    Of equal ones the first are taken; of no limit all.
    """
    if limit is None:
        limit = scores.numel()
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

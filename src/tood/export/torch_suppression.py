"""Post-processing as operations of a PyTorch program of fixed shapes, as `inference.postprocess`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop

from tood.boxes import iou_pairs
from tood.export.config import rows_of
from tood.inference.postprocess import ranked, voted
from tood.models.common import PostprocessConfig, ScoreVotingConfig, TopKConfig

# The largest number of 32 bits, more than an image has pairs.
_LAST = 0xFFFFFFFF


class Dense(NamedTuple):
    """What a network predicts of a batch.

    Attributes:
        boxes: [B, N, 4]; scores: [B, N, C] probabilities; quality: [B, N] probabilities, or None.
        level_sizes: how many of the N are of each level.
        windows: [B, 4] or [1, 4], x1 y1 x2 y2 that boxes are cut to, or None.
    """

    boxes: Tensor
    scores: Tensor
    quality: Tensor | None
    level_sizes: list[int]
    windows: Tensor | None = None


class Rows(NamedTuple):
    """Detections of a batch, best first; rows beyond an image's count are zeros of label -1.

    Attributes:
        boxes: [B, D, 4]; scores: [B, D]; labels: [B, D] int64; counts: [B] int64.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    counts: Tensor


@dataclass(frozen=True, eq=False)
class _Candidates:
    """Pairs of prior and class that are left before suppression.

    Attributes:
        priors, labels: [B, M] int64.
        values: [B, M] what they are ranked by, 0 where there is none; of equal ones the first counts as higher.
    """

    priors: Tensor
    labels: Tensor
    values: Tensor


def top_k(dense: Dense, config: TopKConfig) -> Rows:
    """The best pairs of prior and class, nothing suppressed: `rows_of` rows."""
    classes = dense.scores.shape[2]
    flat = _above(dense.scores, dense.scores, config.score_threshold).flatten(1)  # [B, N * C]
    values, pairs = _best(F.pad(flat, (0, rows_of(config))), rows_of(config))
    priors = (pairs // classes).clamp(max=dense.boxes.shape[1] - 1)
    if dense.quality is not None:
        values = ranked(values, dense.quality.gather(1, priors), config.ranking)
    boxes = _taken(dense.boxes, priors)
    values, order = _best(values * _is_usable(boxes), rows_of(config))
    return _rows(_taken(boxes, order), values, (pairs % classes).gather(1, order))


def suppressed(dense: Dense, config: PostprocessConfig | ScoreVotingConfig) -> Rows:
    """Selection, greedy class-wise suppression, and the best: `rows_of` rows.

    Memory grows with the pairs above the threshold of that image that has most of them; time with their number times
    that of detections.
    """
    found = _best_priors(dense, config) if isinstance(config, ScoreVotingConfig) else _selected(dense, config)
    boxes = dense.boxes
    if dense.windows is not None:
        low, high = dense.windows[:, None, :2].repeat(1, 1, 2), dense.windows[:, None, 2:].repeat(1, 1, 2)
        boxes = boxes.maximum(low).minimum(high)
    values = found.values * _is_usable(boxes).gather(1, found.priors)
    # Most pairs are none: what is left has as many columns as the image of most candidates.
    (most,) = (values > 0).sum(dim=1).amax(dim=0, keepdim=True).tolist()
    values, order = _best(F.pad(values, (0, most + 1)), most + 1)
    order = order.clamp(max=found.priors.shape[1] - 1)
    labels = found.labels.gather(1, order)
    boxes = _taken(boxes.nan_to_num(), found.priors.gather(1, order))  # [B, M, 4]
    agnostic = isinstance(config, PostprocessConfig) and config.class_agnostic
    groups = torch.zeros_like(labels) if agnostic else labels
    kept, best = _greedy(boxes, values, groups, config.iou_threshold, rows_of(config))
    of_rows, of_labels = _taken(boxes, kept), labels.gather(1, kept)
    if config.voting_sigma is not None:
        votes = values[:, None] * (of_labels[:, :, None] == labels[:, None])  # [B, D, M]
        of_rows = voted(of_rows, boxes, votes, config.voting_sigma, config.voting_iou)
    return _rows(of_rows, best, of_labels)


def _greedy(boxes: Tensor, values: Tensor, groups: Tensor, threshold: float, rows: int) -> tuple[Tensor, Tensor]:
    """Places and values of the kept, [B, rows] each: the best is taken, what it overlaps goes, and so on.

    Args:
        boxes: [B, M, 4]; values: [B, M], 0 where there is none; groups: [B, M], which do not suppress each other.
        threshold: IoU above which the lower of two goes.
        rows: to be given; those beyond the kept have a value of 0.
    """
    numbers, columns = torch.arange(rows), torch.arange(boxes.shape[1])

    def goes_on(step: Tensor, left: Tensor, _: Tensor, __: Tensor) -> Tensor:
        return (step < rows) & (left > 0).any()

    def next_kept(step: Tensor, left: Tensor, kept: Tensor, best: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        value, place = left.max(dim=1, keepdim=True)  # [B, 1] of equal ones the first
        overlap = iou_pairs(_taken(boxes, place), boxes)  # [B, M]
        goes = (overlap > threshold) & (groups == groups.gather(1, place)) | (columns == place)
        here = numbers == step
        return step + 1, left.masked_fill(goes, 0.0), torch.where(here, place, kept), torch.where(here, value, best)

    kept = torch.zeros(boxes.shape[0], rows, dtype=torch.int64)
    start = (torch.zeros((), dtype=torch.int64), values, kept, values.new_zeros(boxes.shape[0], rows))
    _, _, kept, best = while_loop(goes_on, next_kept, start)  # type: ignore[no-untyped-call]
    return kept, best


# --- selection -----------------------------------------------------------------------------------------------------


def _selected(dense: Dense, config: PostprocessConfig) -> _Candidates:
    scores, quality = dense.scores, None if dense.quality is None else dense.quality[..., None]  # [B, N, 1]
    labels = None
    if config.best_class:
        scores, labels = scores.max(dim=2, keepdim=True)  # [B, N, 1]
    by_rank = scores if quality is None else ranked(scores, quality, config.ranking)
    chosen = by_rank if config.threshold_on == "ranked" else scores
    values = _above(chosen, by_rank, config.score_threshold)
    if config.per_class is not None:
        return _best_of_classes(chosen, values, config.per_class)
    classes = scores.shape[2]
    if config.per_level is None:
        pairs = torch.arange(scores.shape[1] * classes).expand(scores.shape[0], -1)  # [B, N * C]
    else:
        pairs = _best_of_levels(_above(chosen, chosen, config.score_threshold), dense.level_sizes, config.per_level)
    priors = pairs // classes
    of_class = pairs % classes if labels is None else labels[..., 0].gather(1, priors)
    return _Candidates(priors, of_class, values.flatten(1).gather(1, pairs))


def _best_of_levels(scores: Tensor, level_sizes: list[int], limit: int) -> Tensor:
    """[B, M] prior * C + class of the best of each level's scores [B, N, C], of equal ones the first."""
    parts, start = [], 0
    for level, size in zip(torch.split(scores, level_sizes, dim=1), level_sizes, strict=True):
        flat = level.flatten(1)
        pairs = _best(flat, _at_most(limit, flat.shape[1]))[1].sort(dim=1).values
        parts.append(pairs + start * scores.shape[2])
        start += size
    return torch.cat(parts, dim=1)


def _best_of_classes(scores: Tensor, values: Tensor, limit: int) -> _Candidates:
    """The best of each class by the scores [B, N, C], class by class."""
    count, classes = scores.shape[1:]
    priors = _best(scores.mT, _at_most(limit, count))[1]  # [B, C, L]
    labels = torch.arange(classes)[:, None].expand_as(priors)
    return _Candidates(priors.flatten(1), labels.flatten(1), values.mT.gather(2, priors).flatten(1))


def _best_priors(dense: Dense, config: ScoreVotingConfig) -> _Candidates:
    """The best priors of each level with all of their pairs, by what these are ranked by."""
    values = dense.scores
    if dense.quality is not None:
        values = ranked(values, dense.quality[..., None], config.ranking)
    values = _above(values, values, config.score_threshold)
    priors = _best_of_levels(values.amax(dim=2, keepdim=True), dense.level_sizes, config.per_level)
    chosen = _taken(values, priors)  # [B, M, C]
    labels = torch.arange(values.shape[2]).expand_as(chosen)
    return _Candidates(priors[..., None].expand_as(chosen).flatten(1), labels.flatten(1), chosen.flatten(1))


# --- pieces --------------------------------------------------------------------------------------------------------


def _best(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of the last axis, from 0 up, and their places, best first, of equal ones the first.

    PyTorch's `topk` leaves open which of equal ones it takes, so places are part of what is compared: numbers of 32
    bits from 0 up are ordered as their bits are.
    """
    places = torch.arange(values.shape[-1])
    keys = (values.contiguous().view(torch.int32).to(torch.int64) << 32) | (_LAST - places)
    places = _LAST - (keys.topk(count, dim=-1).values & _LAST)
    return values.gather(-1, places), places


def _at_most(limit: int, count: int) -> int:
    """The smaller one, of which the exporter need not know which it is."""
    return torch.sym_min(limit, count)  # type: ignore[no-untyped-call,no-any-return]


def _above(scores: Tensor, values: Tensor, threshold: float) -> Tensor:
    """The values whose scores are above the threshold, 0 elsewhere."""
    return torch.where(scores > threshold, values, 0.0)


def _taken(values: Tensor, places: Tensor) -> Tensor:
    """Rows of values [B, N, K] at places [B, M] -> [B, M, K]."""
    return values.gather(1, places[..., None].expand(-1, -1, values.shape[2]))


def _is_usable(boxes: Tensor) -> Tensor:
    """[B, M] whether boxes have an area and all their coordinates are numbers."""
    return boxes.isfinite().all(dim=2) & (boxes[..., 2:] > boxes[..., :2]).all(dim=2)


def _rows(boxes: Tensor, scores: Tensor, labels: Tensor) -> Rows:
    found = scores > 0  # [B, D]
    return Rows(boxes * found[..., None], scores, torch.where(found, labels, -1), found.sum(dim=1))

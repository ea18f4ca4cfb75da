"""Post-processing as ONNX nodes: selection and non-maximum suppression, or the best k, as `inference.postprocess`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tood.export.config import rows_of
from tood.export.onnx_nodes import OnnxNodes
from tood.models.common import PostprocessConfig, ScoreVotingConfig, TopKConfig
from tood.models.common.postprocess_config import Ranking

# More pairs than a level has.
_EVERY = 1 << 40
_LARGEST = float(np.finfo(np.float32).max)


class Dense(NamedTuple):
    """Names of a network's outputs.

    Attributes:
        boxes: [B, N, 4]; scores: [B, N, C] probabilities; quality: [B, N] probabilities, or None.
        windows: [B, 4] or [4], x1 y1 x2 y2 that boxes are cut to, or None.
    """

    boxes: str
    scores: str
    quality: str | None = None
    windows: str | None = None


@dataclass(frozen=True)
class _Candidates:
    """What is left before suppression.

    Attributes:
        boxes: [B, M, 4]; values: [B, G, M] what each candidate is ranked by in each group, 0 where it is none.
        labels: [B, M] class of each candidate; None: groups are classes.
        by_group: whether of equal values those of the first group come first, rather than those of the first candidate.
    """

    boxes: str
    values: str
    labels: str | None
    by_group: bool = False


def add_top_k(g: OnnxNodes, dense: Dense, config: TopKConfig, classes: int) -> None:
    """The best pairs of prior and class, nothing suppressed: boxes, scores, labels, counts of `rows_of` rows each."""
    flat = g.reshape(dense.scores, [0, -1])  # [B, N * C]
    values, pairs = _best(g, _with_rows_to_spare(g, flat, rows_of(config)), g.integer([rows_of(config)]))
    values = _above(g, values, values, config.score_threshold)
    priors = _clamped(g, g("Div", pairs, g.integer(classes)), dense.boxes)
    if dense.quality is not None:
        values = _ranked(g, values, g("GatherElements", dense.quality, priors, axis=1), config.ranking)
    boxes = _rows(g, dense.boxes, priors)
    values = g("Where", _is_usable(g, boxes), values, g.real(0.0))
    values, order = _best(g, values, g.integer([rows_of(config)]))
    labels = g("GatherElements", g("Mod", pairs, g.integer(classes)), order, axis=1)
    _outputs(g, _rows(g, boxes, order), values, labels)


def add_suppression(
    g: OnnxNodes, dense: Dense, config: PostprocessConfig | ScoreVotingConfig, classes: int, levels: list[str]
) -> None:
    """Selection, the standard NonMaxSuppression, and the best: boxes, scores, labels, counts of `rows_of` rows each.

    Args:
        g: takes the nodes.
        dense: the network's outputs.
        config: thresholds and limits.
        classes: number of classes.
        levels: [1] int64 number of priors of each level.
    """
    found = _candidates(g, dense, config, classes, levels)
    boxes = found.boxes if dense.windows is None else _cut(g, found.boxes, dense.windows)
    values = g("Where", g("Unsqueeze", _is_usable(g, boxes), g.integer([1])), found.values, g.real(0.0))
    boxes = _without_infinities(g, boxes)
    rows = rows_of(config)
    kept = g(
        "NonMaxSuppression",
        boxes,
        values,
        g.integer([rows]),
        g.real([config.iou_threshold]),
        g.real([1e-12]),  # what is no candidate has 0
    )  # [K, 3] image, group, candidate
    scores = _scattered(g, kept, values)  # [B, G, M], 0 where it was suppressed
    if not found.by_group:
        scores = g("Transpose", scores, perm=[0, 2, 1])
    inner = g.size(scores, 2)
    best, places = _best(g, _with_rows_to_spare(g, g.reshape(scores, [0, -1]), rows), g.integer([rows]))
    outer, within = g("Div", places, inner), g("Mod", places, inner)
    labels, candidates = (outer, within) if found.by_group else (within, outer)
    labels, candidates = _clamped(g, labels, values), _clamped(g, candidates, found.boxes)
    if found.labels is not None:
        labels = g("GatherElements", found.labels, candidates, axis=1)
    of_rows = _rows(g, boxes, candidates)
    if config.voting_sigma is not None:
        votes = _votes(g, found, labels, values)
        of_rows = _voted(g, of_rows, boxes, votes, config.voting_sigma, config.voting_iou)
    _outputs(g, of_rows, best, labels)


# --- selection -----------------------------------------------------------------------------------------------------


def _candidates(
    g: OnnxNodes, dense: Dense, config: PostprocessConfig | ScoreVotingConfig, classes: int, levels: list[str]
) -> _Candidates:
    if isinstance(config, ScoreVotingConfig):
        return _best_priors(g, dense, config, levels)
    quality = None if dense.quality is None else g("Unsqueeze", dense.quality, g.integer([2]))  # [B, N, 1]
    scores, labels = dense.scores, None
    if config.best_class:
        labels = g("ArgMax", scores, axis=2, keepdims=0)  # [B, N]
        scores, classes = g("ReduceMax", scores, g.integer([2])), 1  # [B, N, 1]
    ranked = scores if quality is None else _ranked(g, scores, quality, config.ranking)
    chosen = ranked if config.threshold_on == "ranked" else scores
    values = _above(g, chosen, ranked, config.score_threshold)  # [B, N, C or 1]
    if config.per_class is not None:
        values = _best_of_classes(g, chosen, values, config.per_class)
    elif config.per_level is not None:
        pairs = _best_pairs(g, chosen, config.per_level, classes, levels)  # [B, M]
        priors = g("Div", pairs, g.integer(classes))
        of_class = (
            g("Mod", pairs, g.integer(classes)) if labels is None else g("GatherElements", labels, priors, axis=1)
        )
        values = g("GatherElements", g.reshape(values, [0, -1]), pairs, axis=1)
        boxes = _rows(g, dense.boxes, priors)
        return _in_groups(g, boxes, values, of_class, config, dense.scores)
    if labels is not None:
        return _in_groups(g, dense.boxes, g("Squeeze", values, g.integer([2])), labels, config, dense.scores)
    if config.class_agnostic:
        # Each pair is a candidate of its own, prior by prior.
        pairs = _best_pairs(g, values, _EVERY, classes, levels)
        priors, of_class = g("Div", pairs, g.integer(classes)), g("Mod", pairs, g.integer(classes))
        values = g("GatherElements", g.reshape(values, [0, -1]), pairs, axis=1)
        return _in_groups(g, _rows(g, dense.boxes, priors), values, of_class, config, dense.scores)
    by_group = config.per_class is not None
    return _Candidates(dense.boxes, g("Transpose", values, perm=[0, 2, 1]), None, by_group)  # [B, C, N]


def _in_groups(
    g: OnnxNodes, boxes: str, values: str, labels: str, config: PostprocessConfig, scores: str
) -> _Candidates:
    """Candidates [B, M] that have one class each, in a group for every class, or in one for all."""
    alone = g("Unsqueeze", values, g.integer([1]))  # [B, 1, M]
    if config.class_agnostic:
        return _Candidates(boxes, alone, labels)
    numbers = g("Range", g.integer(0), g("Squeeze", g.size(scores, 2)), g.integer(1))  # [C]
    own = g("Equal", g("Unsqueeze", labels, g.integer([1])), g("Unsqueeze", numbers, g.integer([1])))  # [B, C, M]
    return _Candidates(boxes, g("Where", own, alone, g.real(0.0)), None)


def _best_pairs(g: OnnxNodes, scores: str, limit: int, classes: int, levels: list[str]) -> str:
    """[B, M] prior * C + class of the best of each level's scores [B, N, C], of equal ones the first."""
    parts, start = [], g.integer([0])
    for size in levels:
        end = g("Add", start, size)
        flat = g.reshape(g("Slice", scores, start, end, g.integer([1])), [0, -1])
        _, pairs = _best(g, flat, g("Min", g.integer([limit]), g.size(flat, 1)))
        parts.append(g("Add", pairs, g("Mul", start, g.integer([classes]))))
        start = end
    return g("Concat", *parts, axis=1)


def _best_of_classes(g: OnnxNodes, scores: str, values: str, limit: int) -> str:
    """The values [B, N, C] of the best of each class, 0 elsewhere."""
    count = g("Min", g.integer([limit]), g.size(scores, 1))
    _, places = g.several(2, "TopK", scores, count, axis=1)  # [B, limit, C]
    kept = g("GatherElements", values, places, axis=1)
    return g("ScatterElements", g("Mul", values, g.real(0.0)), places, kept, axis=1)


def _best_priors(g: OnnxNodes, dense: Dense, config: ScoreVotingConfig, levels: list[str]) -> _Candidates:
    """The best priors of each level with all of their pairs, by what these are ranked by."""
    values = dense.scores
    if dense.quality is not None:
        values = _ranked(g, values, g("Unsqueeze", dense.quality, g.integer([2])), config.ranking)
    values = _above(g, values, values, config.score_threshold)
    peaks = g("ReduceMax", values, g.integer([2]), keepdims=0)  # [B, N]
    parts, start = [], g.integer([0])
    for size in levels:
        end = g("Add", start, size)
        count = g("Min", g.integer([config.per_level]), size)
        _, places = _best(g, g("Slice", peaks, start, end, g.integer([1])), count)
        in_order, _ = g.several(2, "TopK", places, count, axis=1, largest=0)
        parts.append(g("Add", in_order, start))
        start = end
    priors = g("Concat", *parts, axis=1)  # [B, M]
    chosen = _rows(g, values, priors)  # [B, M, C]
    return _Candidates(_rows(g, dense.boxes, priors), g("Transpose", chosen, perm=[0, 2, 1]), None)


# --- pieces --------------------------------------------------------------------------------------------------------


def _best(g: OnnxNodes, values: str, count: str) -> tuple[str, str]:
    """The largest of the last axis and their places; the standard says that of equal ones the first come first."""
    largest, places = g.several(2, "TopK", values, count, axis=-1)
    return largest, places


def _above(g: OnnxNodes, scores: str, values: str, threshold: float) -> str:
    """The values whose scores are above the threshold, 0 elsewhere."""
    return g("Where", g("Greater", scores, g.real(threshold)), values, g.real(0.0))


def _ranked(g: OnnxNodes, scores: str, quality: str, ranking: Ranking) -> str:
    if ranking == "score":
        return scores
    product = g("Mul", scores, quality)
    return product if ranking == "product" else g("Sqrt", product)


def _rows(g: OnnxNodes, values: str, places: str) -> str:
    """Rows of values [B, N, K] at places [B, M] -> [B, M, K]."""
    return g("GatherND", values, g("Unsqueeze", places, g.integer([2])), batch_dims=1)


def _clamped(g: OnnxNodes, places: str, rows: str) -> str:
    """Places within the rows [B, M, ...], also of what was added to have enough of them."""
    return g("Min", places, g("Sub", g.size(rows, 1), g.integer([1])))


def _with_rows_to_spare(g: OnnxNodes, values: str, rows: int) -> str:
    """[B, M] and as many zeros as make sure that there are enough."""
    zeros = g("Expand", g.real(0.0), g.join(g.size(values, 0), g.integer([rows])))
    return g("Concat", values, zeros, axis=1)


def _cut(g: OnnxNodes, boxes: str, windows: str) -> str:
    """Boxes [B, M, 4] within the windows [B, 4] or [1, 4]."""
    least, most = (g("Unsqueeze", g.columns(windows, *part), g.integer([1])) for part in ((0, 2), (2, 4)))
    low, high = (g("Concat", part, part, axis=2) for part in (least, most))
    return g("Min", g("Max", boxes, low), high)


def _is_usable(g: OnnxNodes, boxes: str) -> str:
    """[B, M] whether boxes have an area and all their coordinates are numbers."""
    sides = g("Sub", g.columns(boxes, 2, 4), g.columns(boxes, 0, 2))
    smallest = g("ReduceMin", sides, g.integer([2]), keepdims=0)
    furthest = g("ReduceMax", g("Abs", boxes), g.integer([2]), keepdims=0)
    return g("And", g("Greater", smallest, g.real(0.0)), g("LessOrEqual", furthest, g.real(_LARGEST)))


def _without_infinities(g: OnnxNodes, boxes: str) -> str:
    """The boxes; those that are none lie at 0."""
    return g("Where", g("LessOrEqual", g("Abs", boxes), g.real(_LARGEST)), boxes, g.real(0.0))


def _scattered(g: OnnxNodes, kept: str, values: str) -> str:
    """The values [B, G, M] of the kept [K, 3] image, group, candidate; 0 elsewhere."""
    return g("ScatterND", g("Mul", values, g.real(0.0)), kept, g("GatherND", values, kept))


def _votes(g: OnnxNodes, found: _Candidates, labels: str, values: str) -> str:
    """[B, D, M] the value of each candidate for detections of these labels [B, D], 0 of another class."""
    if found.labels is None:
        return g("GatherND", values, g("Unsqueeze", labels, g.integer([2])), batch_dims=1)
    same = g("Equal", g("Unsqueeze", labels, g.integer([2])), g("Unsqueeze", found.labels, g.integer([1])))
    return g("Where", same, values, g.real(0.0))


def _voted(g: OnnxNodes, boxes: str, candidates: str, votes: str, sigma: float, least_iou: float) -> str:
    """Boxes [B, D, 4] as the mean of the candidates [B, M, 4] that they overlap, of which each has a vote [B, D, M]."""
    overlap = _iou(g, boxes, candidates)  # [B, D, M]
    far = g("Sub", g.real(1.0), overlap)
    weights = g("Exp", g("Div", g("Neg", g("Mul", far, far)), g.real(sigma)))
    weights = g("Mul", weights, votes)
    weights = g("Where", g("Greater", overlap, g.real(least_iou)), weights, g.real(0.0))
    total = g("ReduceSum", weights, g.integer([2]))  # [B, D, 1]
    mean = g("Div", g("MatMul", weights, candidates), g("Max", total, g.real(float(np.finfo(np.float32).tiny))))
    return g("Where", g("Greater", total, g.real(0.0)), mean, boxes)


def _iou(g: OnnxNodes, a: str, b: str) -> str:
    """IoU of every box of `a` with every box of `b`: [B, D, 4], [B, M, 4] -> [B, D, M]."""
    first, second = g("Unsqueeze", a, g.integer([2])), g("Unsqueeze", b, g.integer([1]))
    low = g("Max", g.columns(first, 0, 2), g.columns(second, 0, 2))
    high = g("Min", g.columns(first, 2, 4), g.columns(second, 2, 4))
    overlap = _area(g, g("Sub", high, low))
    areas = [_area(g, g("Sub", g.columns(box, 2, 4), g.columns(box, 0, 2))) for box in (first, second)]
    union = g("Sub", g("Add", *areas), overlap)
    return g("Div", overlap, g("Max", union, g.real(1e-6)))


def _area(g: OnnxNodes, sides: str) -> str:
    """Of widths and heights [..., 2], negative ones as none."""
    sides = g("Max", sides, g.real(0.0))
    width, height = (g("Squeeze", g.columns(sides, at, at + 1), g.integer([-1])) for at in (0, 1))
    return g("Mul", width, height)


def _outputs(g: OnnxNodes, boxes: str, scores: str, labels: str) -> None:
    """Rows without a detection are zeros, of label -1."""
    found = g("Greater", scores, g.real(0.0))  # [B, D]
    counts = g("ReduceSum", g.cast(found, np.int64), g.integer([1]), keepdims=0)
    g.named(g("Where", g("Unsqueeze", found, g.integer([2])), boxes, g.real(0.0)), "boxes")
    g.named(scores, "scores")
    g.named(g("Where", found, labels, g.integer(-1)), "labels")
    g.named(counts, "counts")

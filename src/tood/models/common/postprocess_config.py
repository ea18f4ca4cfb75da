"""How a network's dense predictions are meant to become detections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

if TYPE_CHECKING:
    from tood.structures import DensePredictions

Ranking = Literal["score", "product", "geometric_mean"]
"""What (prior, class) pairs are ranked by, and given as their score, where a head judges its boxes apart from their
class (`DensePredictions.quality`): the class score alone, its product with the quality, or the root of that product.
"""


@dataclass(frozen=True)
class PostprocessConfig:
    """Selection by score before non-maximum suppression (NMS) and after it, as TOOD does.

    Attributes:
        score_threshold: (prior, class) pairs of a higher probability are kept.
        threshold_on: whether that, and the best of each level, go by the class "score" alone or by what pairs are
            "ranked" by.
        best_class: whether each prior gives the pair of its best class alone.
        per_level: at most so many of the best pairs on each level, null for all.
        iou_threshold: boxes of larger overlap than this with a better one are suppressed.
        max_detections: at most so many of the best in an image, null for all.
        clip: whether boxes end at the image's border; otherwise they may cross it by a few pixels.
        ranking: see `Ranking`.
        class_agnostic: whether boxes of other classes suppress, too.
        per_class: instead of `per_level`, at most so many of the best pairs of each class over all levels together, as
            PaddleDetection does; null for no such limit.
        voting_sigma, voting_iou: with the first, every box left becomes the mean of the candidates of its class that it
            overlaps, as in `ScoreVotingConfig`; null leaves boxes as they were predicted.
    """

    # Files from before there was a choice name no kind.
    UNNAMED_KIND: ClassVar[bool] = True

    score_threshold: float = 0.05
    per_level: int | None = 1000
    iou_threshold: float = 0.6
    max_detections: int | None = 100
    clip: bool = False
    ranking: Ranking = "product"
    class_agnostic: bool = False
    per_class: int | None = None
    threshold_on: Literal["score", "ranked"] = "score"
    best_class: bool = False
    voting_sigma: float | None = None
    voting_iou: float = 0.01
    kind: Literal["nms"] = "nms"


@dataclass(frozen=True)
class ScoreVotingConfig:
    """Class-wise NMS, then every box left becomes the mean of those that it overlaps (PAA, Kim and Lee 2020, 3.4).

    Attributes:
        score_threshold: (prior, class) pairs are kept that are ranked by more than this.
        per_level: at most so many of the best priors on each level, each with all of its pairs.
        iou_threshold, max_detections, clip, ranking: as in `PostprocessConfig`.
        voting_sigma: a box of the same class weighs score * exp(-(1 - IoU)^2 / `voting_sigma`) in that mean.
        voting_iou: only boxes of larger overlap than this take part.
    """

    score_threshold: float = 0.05
    per_level: int = 1000
    iou_threshold: float = 0.6
    max_detections: int = 100
    clip: bool = False
    ranking: Ranking = "geometric_mean"
    voting_sigma: float = 0.025
    voting_iou: float = 0.01
    kind: Literal["score_voting"] = "score_voting"


@dataclass(frozen=True)
class TopKConfig:
    """The best pairs and nothing suppressed, for heads that give each object once (`DensePredictions.one_to_one`).

    Attributes:
        score_threshold, max_detections, clip, ranking: as in `PostprocessConfig`; the class score selects.
    """

    score_threshold: float = 0.0
    max_detections: int = 300
    clip: bool = False
    ranking: Ranking = "product"
    kind: Literal["top_k"] = "top_k"


AnyPostprocessConfig: TypeAlias = PostprocessConfig | ScoreVotingConfig | TopKConfig
"""What a model's configuration chooses from by `postprocess.kind`."""


def head_for(predictions: DensePredictions, config: AnyPostprocessConfig) -> DensePredictions:
    """Predictions of the head that a configuration reads: without NMS of that which gives each object once, if any."""
    one_to_one = predictions.one_to_one if isinstance(config, TopKConfig) else None
    return predictions if one_to_one is None else one_to_one

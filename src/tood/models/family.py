"""The record of a family: all that other rooms know of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from tood.alignment import AnyCriterionConfig, TaskAlignedCriterionConfig
from tood.models.common.detector import DenseDetector, ModelConfig
from tood.models.common.published import FamilyWeights
from tood.models.inference import fused_detector

ConfigT = TypeVar("ConfigT", bound=ModelConfig)


@dataclass(frozen=True)
class NamedModel:
    """A model with a name.

    Attributes:
        config: returns its configuration.
        recipe: name of the training recipe that it is meant for.
        published_ap: AP on COCO minival in percent, None where nothing was published. The paper's, where it has the
            model; the weights that are hosted for it were trained again and differ by 0.1 at most.
        published_ap_test_dev: AP on COCO test-dev in percent, None where nothing was published.
        criterion: returns the configuration of what it is trained by.
    """

    config: Callable[[], ModelConfig]
    recipe: str
    published_ap: float | None = None
    published_ap_test_dev: float | None = None
    criterion: Callable[[], AnyCriterionConfig] = TaskAlignedCriterionConfig


@dataclass(frozen=True)
class Family(Generic[ConfigT]):
    """A family of detectors, as its folder describes it.

    Attributes:
        config: class of its configurations, whose field `family` has the family's name as its only value.
        build: makes a network of a configuration, with freshly initialised weights.
        weights: names of its tensors in published files, and its shape as they show it.
        models: its named models, the smaller ones first.
        copy_for_inference: makes a copy that only predicts, of a network and what its convolutions compute in; raises
            `CannotFuse` where it knows none.
    """

    config: type[ConfigT]
    build: Callable[[ConfigT], DenseDetector[ConfigT]]
    weights: FamilyWeights[ConfigT]
    models: Mapping[str, NamedModel]
    copy_for_inference: Callable[[DenseDetector[Any], torch.dtype], nn.Module] = fused_detector

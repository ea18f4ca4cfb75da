"""The record of a family: all that other rooms know of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from tood.models.common.detector import DenseDetector, ModelConfig
from tood.models.common.published import FamilyWeights
from tood.models.inference import fused_detector

ConfigT = TypeVar("ConfigT", bound=ModelConfig)


@dataclass(frozen=True)
class Family(Generic[ConfigT]):
    """A family of detectors, as its folder describes it.

    Attributes:
        config: class of its configurations, whose field `family` has the family's name as its only value.
        build: makes a network of a configuration, with freshly initialised weights.
        weights: names of its tensors in published files, and its shape as they show it.
        copy_for_inference: makes a copy that only predicts, of a network and what its convolutions compute in; raises
            `CannotFuse` where it knows none.
    """

    config: type[ConfigT]
    build: Callable[[ConfigT], DenseDetector[ConfigT]]
    weights: FamilyWeights[ConfigT]
    copy_for_inference: Callable[[DenseDetector[Any], torch.dtype], nn.Module] = fused_detector

    @property
    def name(self) -> str:
        """What configurations call it."""
        return str(next(field.default for field in fields(self.config) if field.name == "family"))

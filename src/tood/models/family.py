"""The record of a family: all that other rooms know of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from tood.alignment import CriterionConfig
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
        criteria: classes of configurations of the criteria that came with it, its usual one first; all heads may be
            trained under any.
        examples: returns small configurations by name, the plainest one first, which between them have every kind of
            layer and branch that the family knows: what the house promises of all families is tried on them.
        copy_for_inference: makes a copy that only predicts, of a network and what its convolutions compute in; raises
            `CannotFuse` where it knows none.
    """

    config: type[ConfigT]
    build: Callable[[ConfigT], DenseDetector[ConfigT]]
    weights: FamilyWeights[ConfigT]
    criteria: tuple[type[CriterionConfig], ...]
    examples: Callable[[], Mapping[str, ConfigT]]
    copy_for_inference: Callable[[DenseDetector[Any], torch.dtype], nn.Module] = fused_detector

    @property
    def name(self) -> str:
        """What configurations call it."""
        return str(next(field.default for field in fields(self.config) if field.name == "family"))

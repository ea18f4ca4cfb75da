"""The family's record."""

from __future__ import annotations

from collections.abc import Mapping

from tood.models.toy import weights
from tood.models.toy.config import Toy, ToyConfig
from tood.models.toy.criterion import InsideCriterionConfig

from tood.models import examples
from tood.models.family import Family


def _examples() -> Mapping[str, ToyConfig]:
    return {"plain": ToyConfig(classes=7, input=examples.INPUT)}


FAMILY = Family(ToyConfig, Toy, weights, criteria=(InsideCriterionConfig,), examples=_examples)

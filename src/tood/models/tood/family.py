"""The family's record."""

from __future__ import annotations

from tood.models.family import Family
from tood.models.tood import weights, zoo
from tood.models.tood.config import TOOD, TOODConfig

FAMILY = Family(TOODConfig, TOOD, weights, zoo.MODELS)

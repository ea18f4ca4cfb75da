"""The family's record."""

from __future__ import annotations

from tood.models.family import Family
from tood.models.tood import weights
from tood.models.tood.config import TOOD, TOODConfig

FAMILY = Family(TOODConfig, TOOD, weights)

"""The family's record."""

from __future__ import annotations

from tood.models.atss import weights
from tood.models.atss.config import ATSS, ATSSConfig
from tood.models.family import Family

FAMILY = Family(ATSSConfig, ATSS, weights)

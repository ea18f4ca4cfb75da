"""Stub."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tood.models.measure import Cost

COSTS: Mapping[str, Cost] = MappingProxyType({})

"""Which family a file's tensors belong to."""

from __future__ import annotations

from collections.abc import Collection

from tood.models import FAMILIES, AnyModelConfig
from tood.models.common.published import FamilyWeights


def family_of(names: Collection[str]) -> FamilyWeights[AnyModelConfig] | None:
    """The family that has tensors of these names, published or ours; None if no family has."""
    return next((family.weights for family in FAMILIES if family.weights.matches(names)), None)

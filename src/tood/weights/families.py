"""Which family a file's tensors belong to."""

from __future__ import annotations

from collections.abc import Collection

from tood.models import AnyModelConfig
from tood.models.atss import weights as atss_weights
from tood.models.common.published import FamilyWeights
from tood.models.tood import weights as tood_weights

# A new family's `models/<family>/weights.py` joins here.
FAMILIES: tuple[FamilyWeights[AnyModelConfig], ...] = (tood_weights, atss_weights)


def family_of(names: Collection[str]) -> FamilyWeights[AnyModelConfig] | None:
    """The family that has tensors of these names, published or ours; None if no family has."""
    return next((family for family in FAMILIES if family.matches(names)), None)

"""The families: one line for each."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any

from tood.alignment import CriterionConfig
from tood.models.atss.family import FAMILY as ATSS
from tood.models.common.detector import DenseDetector, ModelConfig
from tood.models.family import Family
from tood.models.gfl.family import FAMILY as GFL
from tood.models.paa.family import FAMILY as PAA
from tood.models.ppyoloe.family import FAMILY as PPYOLOE
from tood.models.tood.family import FAMILY as TOOD
from tood.models.yolox.family import FAMILY as YOLOX

# A new family's record joins here; everything else asks the records.
FAMILIES: tuple[Family[Any], ...] = (
    TOOD,
    ATSS,
    GFL,
    PAA,
    PPYOLOE,
    YOLOX,
)

if TYPE_CHECKING:
    AnyModelConfig = ModelConfig
    AnyDetector = DenseDetector[Any]
    AnyCriterionConfig = CriterionConfig
else:
    # What configuration files are read as: the fields `family` and `kind` say which one.
    AnyModelConfig = reduce(or_, [family.config for family in FAMILIES])
    AnyCriterionConfig = reduce(or_, [criterion for family in FAMILIES for criterion in family.criteria])
    AnyDetector = DenseDetector


def family_of(config: AnyModelConfig) -> Family[Any]:
    """The record of a configuration's family."""
    return next(family for family in FAMILIES if isinstance(config, family.config))

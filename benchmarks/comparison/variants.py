"""What is compared: small models of one budget, and TOOD's with one part taken away."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeVar

from tood.alignment import TaskAlignedCriterionConfig
from tood.models.atss.config import ATSSConfig
from tood.models.tood.config import TOODConfig
from tood.training import RunConfig, run_config

TOOD = "tood"
# Its small rivals, whose large forms the paper compares with.
OF_THE_PAPER = ("atss", "gfl", "paa")

ConfigT = TypeVar("ConfigT")


@dataclass(frozen=True)
class Variant:
    """A model and how it learns.

    Attributes:
        key: in names of files.
        title: for people.
        part: whether it is TOOD without one of its parts, instead of a model of its own.
        run: returns its run, of an input's side in pixels.
    """

    key: str
    title: str
    part: bool
    run: Callable[[int], RunConfig]


def _named(model: str) -> Callable[[int], RunConfig]:
    return lambda side: run_config(model, side)


def _without(part: str) -> Callable[[int], RunConfig]:
    """TOOD whose head lacks a part."""

    def run(side: int) -> RunConfig:
        whole = run_config("tood_tiny", side)
        model = _of(TOODConfig, whole.model)
        return replace(whole, model=replace(model, head=replace(model.head, **{part: False})))

    return run


def _learning(
    criterion: Callable[[TaskAlignedCriterionConfig], TaskAlignedCriterionConfig],
) -> Callable[[int], RunConfig]:
    """TOOD that learns otherwise."""

    def run(side: int) -> RunConfig:
        whole = run_config("tood_tiny", side)
        return replace(whole, criterion=criterion(_of(TaskAlignedCriterionConfig, whole.criterion)))

    return run


def _parallel_head(side: int) -> RunConfig:
    """ATSS's head, without what judges its boxes, in place of the T-Head."""
    whole = run_config("tood_tiny", side)
    model = _of(ATSSConfig, run_config("atss_tiny", side).model)
    return replace(whole, model=replace(model, head=replace(model.head, centerness=False)))


def _of(kind: type[ConfigT], config: object) -> ConfigT:
    assert isinstance(config, kind)
    return config


_ALL = (
    Variant(TOOD, "TOOD", False, _named("tood_tiny")),
    Variant("atss", "ATSS", False, _named("atss_tiny")),
    Variant("gfl", "GFL", False, _named("gfl_tiny")),
    Variant("paa", "PAA", False, _named("paa_tiny")),
    Variant("ppyoloe", "PP-YOLOE", False, _named("ppyoloe_tiny")),
    Variant("yolox_pai", "YOLOX-PAI", False, _named("yolox_pai_tiny")),
    Variant("parallel_head", "parallel head for the T-Head", True, _parallel_head),
    Variant("no_layer_attention", "no layer attention", True, _without("layer_attention")),
    Variant("no_score_alignment", "no alignment of scores", True, _without("score_alignment")),
    Variant("no_box_alignment", "no alignment of boxes", True, _without("box_alignment")),
    Variant(
        "geometric_positives",
        "ATSS's positives for TAL's",
        True,
        _learning(lambda criterion: replace(criterion, positives="geometric")),
    ),
    Variant("focal", "focal loss for TAL's", True, _learning(lambda criterion: replace(criterion, losses="focal"))),
    Variant(
        "no_warm_up", "no warm-up by ATSS", True, _learning(lambda criterion: replace(criterion, warm_up_share=0.0))
    ),
)
VARIANTS: Mapping[str, Variant] = MappingProxyType({variant.key: variant for variant in _ALL})

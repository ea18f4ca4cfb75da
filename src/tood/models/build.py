"""From a configuration or a name to a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType

from tood.alignment import AnyCriterionConfig, ATSSCriterionConfig, TaskAlignedCriterionConfig
from tood.errors import ToodError
from tood.models.atss import ATSS, ATSSConfig
from tood.models.atss import zoo as atss_zoo
from tood.models.tood import TOOD, TOODConfig, zoo

# Networks and configurations of all families; a new family joins both unions here.
AnyDetector = TOOD | ATSS
AnyModelConfig = TOODConfig | ATSSConfig


@dataclass(frozen=True)
class NamedModel:
    """A model with a name.

    Attributes:
        config: returns its configuration.
        recipe: name of the training recipe that it is meant for.
        published_ap: AP on COCO minival in percent, None where nothing was published. The paper's, where it has the
            model; the weights that are hosted for it were trained again and differ by 0.1 at most.
        published_ap_test_dev: AP on COCO test-dev in percent, None where nothing was published.
        criterion: returns the configuration of what it is trained by.
    """

    config: Callable[[], AnyModelConfig]
    recipe: str
    published_ap: float | None = None
    published_ap_test_dev: float | None = None
    criterion: Callable[[], AnyCriterionConfig] = TaskAlignedCriterionConfig


_NAMED: Mapping[str, NamedModel] = MappingProxyType(
    {
        "tood_tiny": NamedModel(zoo.tood_tiny, "small"),
        "tood_r18_fpn": NamedModel(zoo.tood_r18_fpn, "1x"),
        "tood_r50_fpn_1x": NamedModel(zoo.tood_r50_fpn_1x, "1x", 42.5, 42.7),
        "tood_r50_fpn_anchor_based_1x": NamedModel(zoo.tood_r50_fpn_anchor_based_1x, "1x", 42.4, 42.8),
        # Not in the paper; MMDetection's figure. The name tells the schedule, the network is that of 1x.
        "tood_r50_fpn_2x": NamedModel(zoo.tood_r50_fpn_1x, "2x", 44.5),
        "tood_r101_fpn_2x": NamedModel(zoo.tood_r101_fpn_2x, "2x", 46.2, 46.7),
        "tood_r101_dcnv2_fpn_2x": NamedModel(zoo.tood_r101_dcnv2_fpn_2x, "2x", 49.2, 49.6),
        "tood_x101_fpn_2x": NamedModel(zoo.tood_x101_fpn_2x, "2x", 47.6, 48.5),
        "tood_x101_dcnv2_fpn_2x": NamedModel(zoo.tood_x101_dcnv2_fpn_2x, "2x", 50.5, 51.1),
        "atss_r50_fpn_1x": NamedModel(atss_zoo.atss_r50_fpn_1x, "1x", 39.4, criterion=ATSSCriterionConfig),
    }
)


def named_models() -> Mapping[str, NamedModel]:
    """All named models, family by family, the smaller ones first."""
    return _NAMED


def named_model(name: str) -> NamedModel:
    """The model of that name.

    Raises:
        ToodError: if there is none.
    """
    if name in _NAMED:
        return _NAMED[name]
    close = get_close_matches(name, _NAMED, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    raise ToodError(f"there is no model named '{name}': {hint}`tood models` lists them all")


def build_model(config: AnyModelConfig) -> AnyDetector:
    """A network with freshly initialised weights."""
    return ATSS(config) if isinstance(config, ATSSConfig) else TOOD(config)

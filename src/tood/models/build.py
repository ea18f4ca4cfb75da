"""From a configuration or a name to a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType

from tood.errors import ToodError
from tood.models.common.detector import DenseDetector
from tood.models.tood import TOOD, TOODConfig, zoo

# Configurations of all families; a new family joins the union here.
AnyModelConfig = TOODConfig
AnyDetector = DenseDetector[TOODConfig]


@dataclass(frozen=True)
class NamedModel:
    """A model with a name.

    Attributes:
        config: returns its configuration.
        recipe: name of the training recipe that it is meant for.
        published_ap: AP on COCO minival in percent, None where nothing was published.
    """

    config: Callable[[], AnyModelConfig]
    recipe: str
    published_ap: float | None = None


_NAMED: Mapping[str, NamedModel] = MappingProxyType(
    {
        "tood_tiny": NamedModel(zoo.tood_tiny, "small"),
        "tood_r18_fpn": NamedModel(zoo.tood_r18_fpn, "1x"),
        "tood_r50_fpn_1x": NamedModel(zoo.tood_r50_fpn_1x, "1x", 42.5),
    }
)


def named_models() -> Mapping[str, NamedModel]:
    """All named models, smallest first."""
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
    return TOOD(config)

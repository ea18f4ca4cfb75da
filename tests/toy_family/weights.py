"""Names of the family's tensors in files, and the network that they show."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from tood.models.toy.backbone import ToyBackboneConfig
from tood.models.toy.config import ToyConfig
from tood.models.toy.head import ToyHeadConfig
from tood.models.toy.neck import ToyNeckConfig
from torch import Tensor

from tood.models.common.published import Hints, Names, count, rename, shape

FRAMEWORK_TYPES = ("ToyHead", "Toy")
CLASSIFIER = ("head.classifier.weight", "head.classifier.bias")
_NAMES = Names((("bbox_head.toy_cls.", "head.classifier."), ("bbox_head.toy_reg.", "head.regressor.")))


def matches(names: Collection[str]) -> bool:
    """Whether these are a toy's names, published or ours."""
    return "backbone.halvings.0.0.weight" in names


def layouts(names: Collection[str]) -> tuple[str, ...]:
    """The layouts that published code reads."""
    return ("framework",)


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published state dict under this package's names; ours stay as they are."""
    return rename(state, _NAMES)


def to_published(state: Mapping[str, Tensor], layout: str = "framework") -> dict[str, Tensor]:
    """This package's state dict under the published names."""
    return {_NAMES.published(name): tensor for name, tensor in state.items()}


def infer_config(state: Mapping[str, Tensor], hints: Hints = Hints()) -> ToyConfig:  # noqa: B008 - frozen
    """The network of a state dict under this package's names."""
    halvings = range(count(state, "backbone.halvings.#."))
    return ToyConfig(
        classes=shape(state, "head.classifier.weight", 4)[0],
        backbone=ToyBackboneConfig(tuple(shape(state, f"backbone.halvings.{i}.0.weight", 4)[0] for i in halvings)),
        neck=ToyNeckConfig(shape(state, "neck.laterals.0.weight", 4)[0]),
        head=ToyHeadConfig(shape(state, "head.classifier.weight", 4)[1]),
    )

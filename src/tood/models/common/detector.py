"""Backbone, neck and head in a row: what every family's model is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from torch import Tensor, nn

from tood.errors import ToodError
from tood.input import InputConfig
from tood.models.common.postprocess_config import AnyPostprocessConfig
from tood.structures import DensePredictions


class BackboneConfig(Protocol):
    """What a backbone's configuration answers for itself."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each output map."""

    @property
    def strides(self) -> tuple[int, ...]:
        """Input pixels a cell of each output map."""

    @property
    def description(self) -> str:
        """A few words, such as "ResNet-50"."""

    @property
    def imagenet_file(self) -> PublishedFile | PackagedFile | None:
        """Published weights that training may start from, None if there are none."""

    def from_scratch(self) -> BackboneConfig:
        """The same, all of which learns."""

    def thawed(self) -> BackboneConfig:
        """The same with its stem alone at rest, where more of it was to be."""


class ModelConfig(Protocol):
    """What the rooms outside of `models` may ask any family's configuration."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def backbone(self) -> BackboneConfig:
        """Shape of the backbone."""

    @property
    def neck(self) -> Any:
        """Shape of the neck."""

    @property
    def head(self) -> Any:
        """Shape of the head."""

    @property
    def strides(self) -> tuple[int, ...]:
        """Input pixels a cell, one a level."""

    def __hash__(self) -> int: ...

    @property
    def family(self) -> str:
        """Name of the family's folder."""

    @property
    def classes(self) -> int:
        """Number of classes."""

    @property
    def input(self) -> InputConfig:
        """Size and colours of the input image."""

    @property
    def postprocess(self) -> AnyPostprocessConfig:
        """How predictions become detections."""

    @property
    def predicts_quality(self) -> bool:
        """Whether the head judges its boxes apart from their class (`DensePredictions.quality`)."""


if TYPE_CHECKING:
    from tood.models.common.published import PackagedFile, PublishedFile

ConfigT = TypeVar("ConfigT", bound=ModelConfig)


class BackboneNeckHead(nn.Module):
    """An image's way to dense predictions."""

    def __init__(self, backbone: nn.Module, neck: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.head = head

    def forward(self, images: Tensor) -> DensePredictions:
        """[B, 3, H, W] normalised images, H and W multiples of the input's divisor -> predictions in their pixels."""
        predictions: DensePredictions = self.head(self.neck(self.backbone(images)))
        return predictions


class DenseDetector(BackboneNeckHead, Generic[ConfigT]):
    """A network that can learn, with what it was built from.

    Attributes:
        config: everything that the three parts were built from.
    """

    def __init__(self, config: ConfigT, backbone: nn.Module, neck: nn.Module, head: nn.Module) -> None:
        super().__init__(backbone, neck, head)
        self.config = config

    def stages(self) -> list[list[nn.Module]]:
        """Its parts from the image to the predictions: the backbone's stages, the neck, the head."""
        of_backbone: list[list[nn.Module]] = self.backbone.stages()  # type: ignore[operator]
        return [*of_backbone, [self.neck], [self.head]]


def check_head(classes: int, width: int, norm_groups: int) -> None:
    """What every head with GroupNorms asks of its configuration.

    Raises:
        ToodError: if there is no class, or the groups do not divide the channels.
    """
    if classes < 1:
        raise ToodError(f"model.classes is {classes}: a detector needs at least one class")
    if norm_groups < 1 or width % norm_groups:
        raise ToodError(
            f"model.head.norm_groups is {norm_groups}, which does not divide model.head.width {width}: choose a divisor"
        )

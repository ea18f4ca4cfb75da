"""Networks that turn an image into feature maps."""

from typing import TypeAlias

from tood.models.backbones.csp_darknet import CSPDarknet, CSPDarknetConfig
from tood.models.backbones.csp_rep_resnet import CSPRepResNet, CSPRepResNetConfig
from tood.models.backbones.efficientnet_lite import EfficientNetLite, EfficientNetLiteConfig
from tood.models.backbones.repvgg import RepVGG, RepVGGConfig
from tood.models.backbones.resnet import ResNet, ResNetConfig

# What a detector's `backbone` may be; each builds its module.
AnyBackboneConfig: TypeAlias = (
    ResNetConfig | EfficientNetLiteConfig | CSPDarknetConfig | CSPRepResNetConfig | RepVGGConfig
)

__all__ = [
    "AnyBackboneConfig",
    "CSPDarknet",
    "CSPDarknetConfig",
    "CSPRepResNet",
    "CSPRepResNetConfig",
    "EfficientNetLite",
    "EfficientNetLiteConfig",
    "RepVGG",
    "RepVGGConfig",
    "ResNet",
    "ResNetConfig",
]

"""Networks that turn an image into feature maps."""

from tood.models.backbones.csp_darknet import CSPDarknet, CSPDarknetConfig
from tood.models.backbones.csp_rep_resnet import CSPRepResNet, CSPRepResNetConfig
from tood.models.backbones.repvgg import RepVGG, RepVGGConfig
from tood.models.backbones.resnet import ResNet, ResNetConfig

__all__ = [
    "CSPDarknet",
    "CSPDarknetConfig",
    "CSPRepResNet",
    "CSPRepResNetConfig",
    "RepVGG",
    "RepVGGConfig",
    "ResNet",
    "ResNetConfig",
]

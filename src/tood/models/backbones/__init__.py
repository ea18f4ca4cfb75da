"""Networks that turn an image into feature maps."""

from tood.models.backbones.csp_rep_resnet import CSPRepResNet, CSPRepResNetConfig
from tood.models.backbones.resnet import ResNet, ResNetConfig

__all__ = ["CSPRepResNet", "CSPRepResNetConfig", "ResNet", "ResNetConfig"]

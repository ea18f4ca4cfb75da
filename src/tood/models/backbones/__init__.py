"""Networks that turn an image into feature maps."""

from tood.models.backbones.efficientnet_lite import EfficientNetLite, EfficientNetLiteConfig
from tood.models.backbones.resnet import ResNet, ResNetConfig

# What a detector's `backbone` may be; each builds its module.
AnyBackboneConfig = ResNetConfig | EfficientNetLiteConfig

__all__ = ["AnyBackboneConfig", "EfficientNetLite", "EfficientNetLiteConfig", "ResNet", "ResNetConfig"]

"""Networks that turn an image into feature maps."""

from tood.models.backbones.resnet import ResNet, ResNetConfig

__all__ = ["ResNet", "ResNetConfig"]

"""Networks that exchange information between feature maps of different strides."""

from tood.models.necks.fpn import FPN, FPNConfig

__all__ = ["FPN", "FPNConfig"]

"""Networks that exchange information between feature maps of different strides."""

from tood.models.necks.csp_pan import CSPPAN, CSPPANConfig
from tood.models.necks.fpn import FPN, FPNConfig

__all__ = ["CSPPAN", "FPN", "CSPPANConfig", "FPNConfig"]

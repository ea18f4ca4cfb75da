"""Networks that exchange information between feature maps of different strides."""

from tood.models.necks.csp_pafpn import CSPPAFPN, CSPPAFPNConfig
from tood.models.necks.csp_pan import CSPPAN, CSPPANConfig
from tood.models.necks.fpn import FPN, FPNConfig

__all__ = ["CSPPAFPN", "CSPPAN", "FPN", "CSPPAFPNConfig", "CSPPANConfig", "FPNConfig"]

"""Networks that exchange information between feature maps of different strides."""

from typing import TypeAlias

from tood.models.necks.csp_pafpn import CSPPAFPN, CSPPAFPNConfig
from tood.models.necks.csp_pan import CSPPAN, CSPPANConfig
from tood.models.necks.fpn import FPN, FPNConfig

# What a detector's `neck` may be; each builds its module.
AnyNeckConfig: TypeAlias = FPNConfig | CSPPANConfig | CSPPAFPNConfig

__all__ = ["CSPPAFPN", "CSPPAN", "FPN", "AnyNeckConfig", "CSPPAFPNConfig", "CSPPANConfig", "FPNConfig"]

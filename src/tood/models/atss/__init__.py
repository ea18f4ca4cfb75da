"""ATSS: adaptive training sample selection on a classic parallel head (Zhang et al., CVPR 2020)."""

from tood.models.atss.config import ATSS, ATSSConfig
from tood.models.atss.head import ATSSHead, ATSSHeadConfig

__all__ = ["ATSS", "ATSSConfig", "ATSSHead", "ATSSHeadConfig"]

"""TOOD: Task-aligned One-stage Object Detection (Feng et al., ICCV 2021)."""

from tood.models.tood.config import TOOD, TOODConfig
from tood.models.tood.head import THead, THeadConfig

__all__ = ["TOOD", "THead", "THeadConfig", "TOODConfig"]

"""YOLOX (Ge et al. 2021), and YOLOX-PAI (Zou et al. 2022), which is YOLOX with other parts."""

from tood.models.yolox.config import YOLOX, YOLOXConfig
from tood.models.yolox.head import YOLOXHead, YOLOXHeadConfig

__all__ = ["YOLOX", "YOLOXConfig", "YOLOXHead", "YOLOXHeadConfig"]

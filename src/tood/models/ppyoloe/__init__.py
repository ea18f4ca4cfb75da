"""PP-YOLOE and PP-YOLOE+: task alignment learning on re-parameterisable blocks (Xu et al. 2022)."""

from tood.models.ppyoloe.config import PPYOLOE, PPYOLOEConfig
from tood.models.ppyoloe.head import ETHead, ETHeadConfig

__all__ = ["PPYOLOE", "ETHead", "ETHeadConfig", "PPYOLOEConfig"]

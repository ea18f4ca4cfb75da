"""PP-YOLOE's named models: each a function that returns a configuration, and its card."""

from __future__ import annotations

from collections.abc import Callable

from tood.alignment import VarifocalCriterionConfig
from tood.input import InputConfig
from tood.models.backbones import CSPRepResNetConfig
from tood.models.common.published import PublishedFile
from tood.models.necks import CSPPANConfig
from tood.models.ppyoloe.config import PPYOLOEConfig
from tood.zoo.card import ModelCard, PublishedWeights

_HOST = "https://paddledet.bj.bcebos.com/models"


def ppyoloe_s() -> PPYOLOEConfig:
    """PP-YOLOE at a half of the width and a third of the depth: 43.0 AP on COCO minival."""
    return PPYOLOEConfig.scaled(0.50, 0.33, plus=False)


def ppyoloe_m() -> PPYOLOEConfig:
    """PP-YOLOE at three quarters of the width and two thirds of the depth: 49.0 AP."""
    return PPYOLOEConfig.scaled(0.75, 0.67, plus=False)


def ppyoloe_l() -> PPYOLOEConfig:
    """PP-YOLOE in its full size: 51.4 AP."""
    return PPYOLOEConfig.scaled(1.0, 1.0, plus=False)


def ppyoloe_x() -> PPYOLOEConfig:
    """PP-YOLOE at one and a quarter of the width and one and a third of the depth: 52.3 AP."""
    return PPYOLOEConfig.scaled(1.25, 1.33, plus=False)


def ppyoloe_plus_s() -> PPYOLOEConfig:
    """PP-YOLOE+ of the size s, after Objects365: 43.7 AP."""
    return PPYOLOEConfig.scaled(0.50, 0.33, plus=True)


def ppyoloe_plus_m() -> PPYOLOEConfig:
    """PP-YOLOE+ of the size m, after Objects365: 49.8 AP."""
    return PPYOLOEConfig.scaled(0.75, 0.67, plus=True)


def ppyoloe_plus_l() -> PPYOLOEConfig:
    """PP-YOLOE+ of the size l, after Objects365: 52.9 AP."""
    return PPYOLOEConfig.scaled(1.0, 1.0, plus=True)


def ppyoloe_plus_x() -> PPYOLOEConfig:
    """PP-YOLOE+ of the size x, after Objects365: 54.7 AP."""
    return PPYOLOEConfig.scaled(1.25, 1.33, plus=True)


def ppyoloe_tiny() -> PPYOLOEConfig:
    """Of the cost of `tood_tiny`, for a laptop's CPU and for training from scratch."""
    return PPYOLOEConfig(
        backbone=CSPRepResNetConfig(widths=(24, 56, 96, 144, 192), blocks=(1, 1, 1, 1), alpha=True),
        neck=CSPPANConfig(widths=(72, 96, 128), blocks=1),
        input=InputConfig(short=448, long=448),
    )


def _legacy(size: str, config: Callable[[], PPYOLOEConfig], published_ap: float, step_images: int) -> ModelCard:
    """The card of a PP-YOLOE; how long ATSS assigns is the recipe's."""
    return ModelCard(
        f"ppyoloe_{size}",
        config,
        "ppyoloe",
        published_ap=published_ap,
        criterion=VarifocalCriterionConfig,
        weights=_on_paddle(f"ppyoloe_crn_{size}_300e_coco"),
        step_images=step_images,
    )


def _plus(size: str, config: Callable[[], PPYOLOEConfig], published_ap: float) -> ModelCard:
    """The card of a PP-YOLOE+."""
    return ModelCard(
        f"ppyoloe_plus_{size}",
        config,
        "ppyoloe_plus",
        published_ap=published_ap,
        criterion=VarifocalCriterionConfig,
        weights=_on_paddle(f"ppyoloe_plus_crn_{size}_80e_coco"),
    )


def _on_paddle(name: str) -> PublishedWeights:
    """Weights that PaddleDetection hosts, whose hashes it does not publish."""
    return PublishedWeights(PublishedFile(f"{_HOST}/{name}.pdparams", ""))


CARDS: tuple[ModelCard, ...] = (
    ModelCard("ppyoloe_tiny", ppyoloe_tiny, "small", criterion=VarifocalCriterionConfig),
    _legacy("s", ppyoloe_s, 43.0, step_images=256),
    _legacy("m", ppyoloe_m, 49.0, step_images=224),
    _legacy("l", ppyoloe_l, 51.4, step_images=160),
    _legacy("x", ppyoloe_x, 52.3, step_images=128),
    _plus("s", ppyoloe_plus_s, 43.7),
    _plus("m", ppyoloe_plus_m, 49.8),
    _plus("l", ppyoloe_plus_l, 52.9),
    _plus("x", ppyoloe_plus_x, 54.7),
)

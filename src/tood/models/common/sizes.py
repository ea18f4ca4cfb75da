"""How large a network's parts may be made by configuration: far beyond what was published, but not without end."""

from __future__ import annotations

from collections.abc import Sequence

from tood.errors import SettingError

# Channels of a map; ResNets and ResNeXts have up to 2,048.
MOST_CHANNELS = 4096
# Layers, or blocks of a stage, that follow each other; ResNet-152 has 36 in one stage.
MOST_LAYERS = 256
# Stages of a backbone and levels of a pyramid, each of which halves the map: strides up to 1,024.
MOST_STAGES = MOST_LEVELS = 8
# Width and depth over those of the network that factors are of; EfficientNet-L2 has 4.3 and 5.3.
MOST_FACTOR = 8.0
# Places that a side of a box is a distribution over.
MOST_BINS = 1024
# Side of an anchor, in strides.
MOST_ANCHOR_SCALE = 1024.0


def require_whole(key: str, value: int, most: int, least: int = 1) -> None:
    """Refuses a size that is too small or too large.

    Raises:
        SettingError: if it is below `least` or above `most`.
    """
    if not least <= value <= most:
        raise SettingError(key, f"is {value}: expected a whole number from {least} to {most:,}")


def require_each(key: str, values: Sequence[int], most: int, most_values: int, least: int = 1) -> None:
    """Refuses a list of sizes that is empty or too long, or has one that is too small or too large.

    Raises:
        SettingError: if there is none or there are more than `most_values`, or one is below `least` or above
            `most`.
    """
    if not 1 <= len(values) <= most_values or not all(least <= value <= most for value in values):
        shown = list(values[: most_values + 1])
        raise SettingError(key, f"is {shown}: expected 1 to {most_values} whole numbers, from {least} to {most:,} each")


def require_stages(widths: Sequence[int], blocks: Sequence[int]) -> None:
    """Refuses blocks of a backbone's stages that there cannot be, or not of all of them.

    Args:
        widths: channels of the stem and of each stage.
        blocks: of each stage.

    Raises:
        SettingError: if a stage has no block or too many, or blocks and widths are not of as many stages.
    """
    require_each("model.backbone.blocks", blocks, MOST_LAYERS, MOST_STAGES)
    if len(widths) != len(blocks) + 1:
        raise SettingError(
            "model.backbone.widths",
            f"is {list(widths)} and blocks {list(blocks)}: expected channels of the stem and of every stage",
        )


def require_factor(key: str, value: float, most: float = MOST_FACTOR) -> None:
    """Refuses a factor that leaves nothing or is too large.

    Raises:
        SettingError: if it is no number above 0, or above `most`.
    """
    if not 0 < value <= most:
        raise SettingError(key, f"is {value:g}: expected a number above 0, at most {most:g}")


def reduced(key: str, width: int, reduction: int) -> int:
    """Channels that a width divided by a setting leaves.

    Raises:
        SettingError: if these are none.
    """
    if not 1 <= reduction <= width:
        raise SettingError(key, f"is {reduction}: expected a whole number from 1 to model.head.width, {width}")
    return width // reduction

"""Published names of the necks' tensors, and their shapes read from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from torch import Tensor

from tood.models.common.paddle_names import conv_norm_names, csp_names
from tood.models.common.published import count, shape
from tood.models.necks import AnyNeckConfig
from tood.models.necks.csp_pafpn import CSPPAFPNConfig
from tood.models.necks.csp_pan import CSPPANConfig
from tood.models.necks.fpn import FPNConfig

_MOST_EXTRAS = 8


def infer_neck(state: Mapping[str, Tensor]) -> tuple[AnyNeckConfig, tuple[int, ...]]:
    """The neck that a detector's tensors (under our names) show, and the channels of the maps that it takes.

    Raises:
        ToodError: if a tensor is missing that tells the shape.
    """
    if any(name.startswith("neck.down.") for name in state):
        return infer_csp_pan(state)
    if any(name.startswith("neck.reduce_layers.") for name in state):
        return infer_csp_pafpn(state)
    return infer_fpn(state)


def fpn_names(maps: int) -> tuple[tuple[str, str], ...]:
    """MMDetection's names and ours: there the extra levels are numbered on after the `maps` of the backbone."""
    return (
        ("neck.lateral_convs.#.conv.", "neck.laterals.#."),
        *((f"neck.fpn_convs.{i}.conv.", f"neck.outputs.{i}.") for i in range(maps)),
        *((f"neck.fpn_convs.{maps + i}.conv.", f"neck.extras.{i}.") for i in range(_MOST_EXTRAS)),
    )


def count_maps(names: Iterable[str]) -> int:
    """Maps of the backbone that a pyramid of these names, published or ours, takes."""
    names = list(names)
    return count(names, "neck.lateral_convs.#.") or count(names, "neck.laterals.#.")


def infer_fpn(state: Mapping[str, Tensor]) -> tuple[FPNConfig, tuple[int, ...]]:
    """The pyramid that a detector's tensors (under our names) show, and the channels of the maps that it takes.

    Raises:
        ToodError: if a tensor is missing that tells the shape.
    """
    maps = [shape(state, f"neck.laterals.{i}.weight", 4) for i in range(max(count_maps(state), 1))]
    levels = len(maps) + count(state, "neck.extras.#.")
    return FPNConfig(width=maps[0][0], levels=levels), tuple(inputs for _, inputs, *_ in maps)


def csp_pan_names() -> tuple[tuple[str, str], ...]:
    """PaddleDetection's names of a CSPPAN's tensors and ours; both count its stages from the coarsest."""
    down, ours = "neck.fpn_stages.#.0.", "neck.down.#."
    return (
        *csp_names(down, ours, "convs"),
        *conv_norm_names(f"{down}convs.spp.conv.", f"{ours}blocks.pooling.conv."),
        *conv_norm_names("neck.fpn_routes.#.", "neck.down_routes.#."),
        *csp_names("neck.pan_stages.#.0.", "neck.up.#.", "convs"),
        *conv_norm_names("neck.pan_routes.#.", "neck.up_routes.#."),
    )


def infer_csp_pan(state: Mapping[str, Tensor]) -> tuple[CSPPANConfig, tuple[int, ...]]:
    """The neck that a detector's tensors (under our names) show, and the channels of the maps that it takes.

    Raises:
        ToodError: if a tensor is missing that tells the shape.
    """
    levels = max(count(state, "neck.down.#."), 1)
    # Both from the coarsest level on; what comes down from a level is half as wide as it.
    widths = [shape(state, f"neck.down.{level}.out.conv.weight", 4)[0] for level in range(levels)]
    inputs = [shape(state, f"neck.down.{level}.past.conv.weight", 4)[1] for level in range(levels)]
    channels = [own - (widths[level - 1] // 2 if level else 0) for level, own in enumerate(inputs)]
    blocks = max(count(state, "neck.down.0.blocks.#."), 1)
    return CSPPANConfig(widths=tuple(widths[::-1]), blocks=blocks), tuple(channels[::-1])


def infer_csp_pafpn(state: Mapping[str, Tensor]) -> tuple[CSPPAFPNConfig, tuple[int, ...]]:
    """The neck that a detector's tensors (under our names) show, and the channels of the maps that it takes.

    Raises:
        ToodError: if a tensor is missing that tells the shape.
    """
    steps = count(state, "neck.reduce_layers.#.")
    coarsest = shape(state, f"neck.bottom_up_blocks.{steps - 1}.final_conv.conv.weight", 4)[0]
    channels = [shape(state, f"neck.top_down_blocks.{i}.final_conv.conv.weight", 4)[0] for i in reversed(range(steps))]
    gsconv: Literal["none", "part", "all"] = "none"
    if "neck.reduce_layers.0.conv1.conv.weight" in state:
        gsconv = "all" if "neck.mixer.conv1.conv.weight" in state else "part"
    weighting = "neck.fusions.0.weighting.0.conv.weight"
    fused = weighting in state
    projection = "neck.projections.0.conv.weight"
    config = CSPPAFPNConfig(
        blocks=count(state, "neck.top_down_blocks.0.blocks.#."),
        depthwise="neck.top_down_blocks.0.blocks.0.conv2.depthwise_conv.conv.weight" in state,
        gsconv=gsconv,
        fusion="none" if not fused else "asff" if count(state, "neck.fusions.0.resizing.#.") else "asff_sim",
        fusion_channels=shape(state, weighting, 4)[0] if fused else CSPPAFPNConfig.fusion_channels,
        width=shape(state, projection, 4)[0] if projection in state else None,
    )
    return config, (*channels, coarsest)

"""Published names of the necks' tensors, and their shapes read from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from tood.models.common.paddle_names import conv_norm_names, csp_names
from tood.models.common.published import count, shape
from tood.models.necks.csp_pan import CSPPANConfig
from tood.models.necks.fpn import FPNConfig

_MOST_EXTRAS = 8


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


def infer_csp_pan(state: Mapping[str, Tensor]) -> CSPPANConfig:
    """The neck that a detector's tensors (under our names) show.

    Raises:
        ToodError: if a tensor is missing that tells the shape.
    """
    levels = max(count(state, "neck.down.#."), 1)
    widths = (shape(state, f"neck.down.{level}.out.conv.weight", 4)[0] for level in reversed(range(levels)))
    return CSPPANConfig(tuple(widths), max(count(state, "neck.down.0.blocks.#."), 1))

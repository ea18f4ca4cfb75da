"""Published names of the pyramid's tensors, and its shape read from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from tood.models.common.published import count, shape
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

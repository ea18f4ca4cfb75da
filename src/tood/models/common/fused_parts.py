"""Copies for inference of parts that keep their own forward and compute with fused convolutions."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from tood.ops import CannotFuse, fused_conv, known

PartT = TypeVar("PartT", bound=nn.Module)

# PyTorch's own, which have no weights of their own.
_WITHOUT_WEIGHTS: tuple[type[nn.Module], ...] = (
    nn.Sequential,
    nn.ModuleList,
    nn.ModuleDict,
    nn.MaxPool2d,
    nn.Identity,
)


def with_fused_parts(part: PartT, kinds: Sequence[type[nn.Module]], dtype: torch.dtype) -> PartT:
    """A copy of a part in which every convolution, with its norm and activation, is one operation.

    The forward methods stay as they are: they call the fused convolutions as they called what these were made of. Parts
    that are none of `kinds` say themselves how they fuse.

    Args:
        part: in evaluation mode.
        kinds: classes of modules within it, its own included, that have no weights of their own and whose forward only
            needs their children to give what they gave before.
        dtype: what convolutions compute in.

    Raises:
        CannotFuse: if a module within it is of another kind.
    """
    if type(part) is nn.Conv2d:
        return fused_conv(known(part, nn.Conv2d), None, False, dtype)  # type: ignore[return-value]
    kind = next((kind for kind in (*kinds, *_WITHOUT_WEIGHTS) if isinstance(part, kind)), None)
    if kind is None and hasattr(part, "fuse"):
        return part.fuse(dtype)  # type: ignore[operator, no-any-return]
    if kind is None or part._parameters or part._buffers:
        raise CannotFuse(f"a {type(part).__name__}")
    fused = copy.copy(part)
    for name, value in vars(part).items():
        if isinstance(value, dict):  # hooks that the network gets later are not its copy's
            vars(fused)[name] = value.copy()
    if kind not in (nn.ModuleList, nn.ModuleDict):  # which nothing calls
        known(part, kind)
    children = part._modules.items()
    fused._modules = {
        name: None if child is None else with_fused_parts(child, kinds, dtype) for name, child in children
    }
    return fused


class InferenceBackbone(nn.Module):
    """A backbone with fused parts, which takes images as they come.

    Args:
        body: the backbone's copy.
        dtype: what its convolutions compute in.
    """

    def __init__(self, body: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.body, self.dtype = body, dtype

    def forward(self, images: Tensor) -> list[Tensor]:
        """[B, 3, H, W] normalised -> the backbone's maps."""
        maps: list[Tensor] = self.body(images.to(self.dtype, memory_format=torch.channels_last))
        return maps

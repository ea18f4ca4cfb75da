"""Rows and their mean, and a product whose weights are scaled for every image, with gradients in few passes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tood.models.common.operators import arithmetic


def scaled_product(x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
    """Rows times weights that one factor an image, output and layer scales.

    The weights are scaled rather than the rows, which are far more in any usual image.

    Args:
        x: [B, P, L * C], L layers of C channels.
        weight: [O, L * C].
        scale: [B, O, L].

    Returns:
        [B, P, O], in autocast's dtype where it is on; differentiable once.
    """
    dtype = arithmetic(x)
    if torch.compiler.is_compiling():  # compilers want plain operations
        return torch.bmm(x.to(dtype), _scaled(weight, scale, dtype).transpose(1, 2))
    out: Tensor = _ScaledProduct.apply(x.to(dtype), weight, scale)  # type: ignore[no-untyped-call]
    return out


def with_mean(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [B, P, K] and their mean [B, K].

    Whatever is done with the rows given back and with the mean, the gradient of both is one sum.
    """
    if torch.compiler.is_compiling():
        return rows, rows.mean(dim=1)
    both: tuple[Tensor, Tensor] = _WithMean.apply(rows)  # type: ignore[no-untyped-call]
    return both


class _WithMean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> tuple[Tensor, Tensor]:
        ctx.count = rows.shape[1]
        return rows.view_as(rows), rows.mean(dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_rows: Tensor, to_mean: Tensor) -> Tensor:
        return torch.add(to_rows, (to_mean / ctx.count)[:, None])


def _scaled(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """[B, O, L * C]."""
    return (_layers(weight[None], scale) * scale[..., None]).flatten(2).to(dtype)


def _layers(weight: Tensor, scale: Tensor) -> Tensor:
    """[.., O, L * C] -> [.., O, L, C]."""
    return weight.view(*weight.shape[:2], scale.shape[2], -1)


class _ScaledProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
        scaled = _scaled(weight, scale, x.dtype)
        ctx.save_for_backward(x, weight, scale, scaled)
        return torch.bmm(x, scaled.transpose(1, 2))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale, scaled = ctx.saved_tensors
        to_x = torch.bmm(gradient, scaled) if ctx.needs_input_grad[0] else None
        if not any(ctx.needs_input_grad[1:]):
            return to_x, None, None
        to_scaled = torch.bmm(gradient.transpose(1, 2), x).to(weight.dtype)
        to_scaled = _layers(to_scaled, scale)  # [B, O, L, C]
        to_scale = (to_scaled * _layers(weight[None], scale)).sum(dim=3)
        to_weight = to_scaled.mul_(scale[..., None]).sum(dim=0).flatten(1)
        return to_x, to_weight, to_scale

"""A product whose weights are scaled for every image, with gradients in few passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tood.ops.arithmetic import arithmetic, differentiable_once, in_own_dtype
from tood.ops.guard import may_stand_in


def scaled_product(x: Tensor, weight: Tensor, scale: Tensor, sizes: Sequence[int]) -> Tensor:
    """Rows times weights that one factor an image, group of outputs and layer scales.

    The weights are scaled, or the rows, once for each group, where they are the fewer ones.

    Args:
        x: [B, P, L * C], L layers of C channels.
        weight: [O, L * C].
        scale: [B, G, L]; with C = 1 a factor for each channel.
        sizes: outputs of each of the G groups, O together.

    Returns:
        [B, P, O], in autocast's dtype where it is on; differentiable once.
    """
    if not may_stand_in((), (x, weight, scale)):
        return plain_scaled_product(x, weight, scale, sizes)
    few = x.shape[1] * len(sizes) < len(weight)
    product = _ProductOfScaledRows if few else _ProductOfScaledWeights
    out: Tensor = product.apply(x.to(arithmetic(x)), weight, scale, list(sizes))  # type: ignore[no-untyped-call]
    return out


def plain_scaled_product(x: Tensor, weight: Tensor, scale: Tensor, sizes: Sequence[int]) -> Tensor:
    """What `scaled_product` stands for: one matrix product an image, with its own weights."""
    scaled = _scaled_weights(weight, _of_outputs(scale, sizes), arithmetic(x))
    return torch.bmm(x.to(scaled.dtype), scaled.transpose(1, 2))


def _of_outputs(scale: Tensor, sizes: Sequence[int]) -> Tensor:
    """[B, G, L] -> [B, O, L]."""
    return torch.cat([part.expand(-1, size, -1) for part, size in zip(torch.split(scale, 1, 1), sizes, strict=True)], 1)


def _scaled_weights(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """[O, L * C] and [B, O, L] -> [B, O, L * C]."""
    return (_layers(weight[None], scale) * scale[..., None]).flatten(2).to(dtype)


def _layers(rows: Tensor, scale: Tensor) -> Tensor:
    """[.., R, L * C] -> [.., R, L, C]."""
    return rows.view(*rows.shape[:2], scale.shape[2], -1)


class _ProductOfScaledWeights(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scale: Tensor, sizes: list[int]) -> Tensor:
        factors = _of_outputs(scale, sizes)
        scaled = _scaled_weights(weight, factors, x.dtype)
        ctx.save_for_backward(x, weight, factors, scaled)
        ctx.sizes = sizes
        return torch.bmm(x, scaled.transpose(1, 2))

    @staticmethod
    @differentiable_once
    @in_own_dtype
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, factors, scaled = ctx.saved_tensors
        to_x = torch.bmm(gradient, scaled) if ctx.needs_input_grad[0] else None
        if not any(ctx.needs_input_grad[1:]):
            return to_x, None, None, None
        to_scaled = torch.bmm(gradient.transpose(1, 2), x).to(weight.dtype)
        to_scaled = _layers(to_scaled, factors)  # [B, O, L, C]
        to_factors = (to_scaled * _layers(weight[None], factors)).sum(dim=3)
        to_scale = torch.stack([part.sum(dim=1) for part in torch.split(to_factors, ctx.sizes, 1)], dim=1)
        to_weight = to_scaled.mul_(factors[..., None]).sum(dim=0).flatten(1)
        return to_x, to_weight, to_scale, None


class _ProductOfScaledRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scale: Tensor, sizes: list[int]) -> Tensor:
        ctx.save_for_backward(x, weight, scale)
        ctx.sizes = sizes
        parts = torch.split(weight.to(x.dtype), sizes)
        return torch.cat([_scaled_rows(x, scale, group) @ part.t() for group, part in enumerate(parts)], dim=2)

    @staticmethod
    @differentiable_once
    @in_own_dtype
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        needs_x, needs_weight, needs_scale = ctx.needs_input_grad[:3]
        layers = _layers(x, scale).to(scale.dtype)  # [B, P, L, C]
        to_x, to_weights, to_scales = torch.zeros_like(layers), [], []
        weights = torch.split(weight.to(x.dtype), ctx.sizes)
        for group, (of_outputs, part) in enumerate(zip(torch.split(gradient, ctx.sizes, 2), weights, strict=True)):
            if needs_x or needs_scale:
                to_rows = _layers(of_outputs @ part, scale).to(scale.dtype)  # [B, P, L, C], of the scaled rows
                to_x.addcmul_(to_rows, scale[:, group, None, :, None])
                to_scales.append((to_rows * layers).sum(dim=(1, 3)))  # [B, L]
            if needs_weight:
                rows = _scaled_rows(x, scale, group).flatten(0, 1)  # [B * P, L * C]
                to_weights.append(of_outputs.flatten(0, 1).t() @ rows)
        return (
            to_x.flatten(2).to(x.dtype) if needs_x else None,
            torch.cat(to_weights).to(weight.dtype) if needs_weight else None,
            torch.stack(to_scales, 1) if needs_scale else None,
            None,
        )


def _scaled_rows(x: Tensor, scale: Tensor, group: int) -> Tensor:
    """[B, P, L * C] as a group of outputs takes them."""
    return (_layers(x, scale) * scale[:, group, None, :, None]).flatten(2).to(x.dtype)

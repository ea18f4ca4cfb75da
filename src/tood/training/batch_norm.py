"""BatchNorm whose statistics span the images of all processes, so that several train as one does."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tood.models.common.norms import BiasedBatchNorm2d


class SharedBatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d` over the batches of all processes, on any device (`nn.SyncBatchNorm` wants a GPU).

    Attributes:
        counts: whether this process's batch does; a blank one does not.
        biased: whether the running variance follows the batches' own, as in `BiasedBatchNorm2d`.
    """

    counts = True
    biased = False

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape."""
        if not self.training or self.running_mean is None or self.running_var is None:
            return super().forward(input)
        values = input.float()
        share = float(self.counts)
        own = values.new_full((1,), values.numel() / values.shape[1])
        sums = _sum_over_processes(torch.cat([values.sum(dim=(0, 2, 3)), own]) * share)
        count = sums[-1].detach()
        mean = (sums[:-1] / count)[:, None, None]
        # About the mean, not from the squares: those cancel where the mean is large.
        variance = _sum_over_processes((values - mean).square().sum(dim=(0, 2, 3)) * share) / count
        with torch.no_grad():
            assert self.num_batches_tracked is not None
            self.num_batches_tracked += 1
            newness = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean[:, 0, 0], newness)
            seen = variance if self.biased else variance * (count / (count - 1).clamp(min=1))
            self.running_var.lerp_(seen, newness)
        scale = (variance + self.eps).rsqrt()[:, None, None]
        if self.affine:
            scale = scale * self.weight[:, None, None]
            return torch.addcmul(self.bias[:, None, None], values - mean, scale).to(input.dtype)
        return ((values - mean) * scale).to(input.dtype)

    def as_evaluated(self) -> nn.BatchNorm2d:
        """The ordinary norm that it is in evaluation mode, with its tensors."""
        norm = nn.BatchNorm2d(self.num_features, self.eps, self.momentum, self.affine).eval()
        if self.affine:
            norm.weight, norm.bias = self.weight, self.bias
        norm.running_mean, norm.running_var = self.running_mean, self.running_var
        return norm


# Whose statistics are shared; subclasses may do something else.
_KINDS = (nn.BatchNorm2d, BiasedBatchNorm2d)


def share_batch_statistics(model: nn.Module) -> list[SharedBatchNorm]:
    """Makes every BatchNorm of the model that learns its statistics a `SharedBatchNorm`, with its tensors."""
    was_training, made = model.training, []
    model.train()
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, _KINDS) and type(child) in _KINDS and child.training and child.track_running_stats:
                made.append(_shared(child))
                setattr(parent, name, made[-1])
    model.train(was_training)
    return made


def _shared(norm: nn.BatchNorm2d) -> SharedBatchNorm:
    shared = SharedBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine)
    if norm.affine:
        shared.weight, shared.bias = norm.weight, norm.bias
    shared.running_mean, shared.running_var = norm.running_mean, norm.running_var
    shared.num_batches_tracked = norm.num_batches_tracked
    shared.biased = isinstance(norm, BiasedBatchNorm2d)
    return shared.train(norm.training)


class _SumOverProcesses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # Each process's loss depends on the sum: what this one's part of it does is felt in all.
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def _sum_over_processes(value: Tensor) -> Tensor:
    summed: Tensor = _SumOverProcesses.apply(value)  # type: ignore[no-untyped-call]
    return summed

"""BatchNorms that differ from PyTorch's own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BiasedBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose running variance follows the batch's own variance, divided by n, as Paddle's does.

    PyTorch's follows the estimate for the population, divided by n - 1. Outputs and gradients are the same.
    """

    def forward(self, input: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape."""
        mean, variance, momentum = self.running_mean, self.running_var, self.momentum
        if not self.training or mean is None or variance is None or momentum is None:
            return super().forward(input)
        # Copies take the statistics: autograd keeps what it was given, which then must not change.
        new_mean, new_variance = mean.clone(), variance.clone()
        out = F.batch_norm(input, new_mean, new_variance, self.weight, self.bias, True, momentum, self.eps)
        with torch.no_grad():
            mean.copy_(new_mean)
            kept = variance * (1 - momentum)
            count = input.numel() // input.shape[1]
            variance.copy_(kept + (new_variance - kept) * ((count - 1) / count))
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        return out

    def as_evaluated(self) -> nn.BatchNorm2d:
        """The ordinary norm that it is in evaluation mode, with its tensors."""
        norm = nn.BatchNorm2d(self.num_features, self.eps, self.momentum, self.affine).eval()
        if self.affine:
            norm.weight, norm.bias = self.weight, self.bias
        norm.running_mean, norm.running_var = self.running_mean, self.running_var
        return norm

"""From a configuration to a network, and from a network to one that only predicts."""

from __future__ import annotations

import torch
from torch import nn

from tood.models.common.detector import DenseDetector
from tood.models.families import AnyDetector, AnyModelConfig, family_of
from tood.models.inference import settled
from tood.ops import CannotFuse, is_awaited, is_followed


def build_model(config: AnyModelConfig) -> AnyDetector:
    """A network with freshly initialised weights."""
    return family_of(config).build(config)


def for_inference(model: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A copy of a network that gives its predictions in evaluation mode sooner; to be called without gradients.

    BatchNorms are folded into convolutions, whose weights lie as the CPU's library wants them; sums and activations
    are computed where the data is. Predictions in fp32 are the network's but for rounding. Later changes of the
    network's weights do not reach the copy, and it stays on the device.

    Args:
        model: a network of this package, on the device to compute on. Where somebody waits for one of its modules to be
            called (hooks, pruning), or a part is not of the kind it was built of (a wrapped layer, a subclass with a
            forward of its own), the network itself is given back; so is any other module. Parametrised weights are
            taken as they are computed.
        dtype: torch.float32, or torch.bfloat16 for convolutions in bf16.
    """
    if not isinstance(model, DenseDetector) or is_followed() or any(map(is_awaited, model.modules())):
        return model
    try:
        with torch.no_grad():
            copied = family_of(model.config).copy_for_inference(settled(model), dtype)
            return copied.eval().requires_grad_(False)
    except CannotFuse:
        return model

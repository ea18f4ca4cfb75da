"""From a network to one that only predicts, faster."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from tood.models.common.detector import DenseDetector
from tood.ops import CannotFuse, is_awaited, is_followed, known
from tood.structures import DensePredictions


class InferenceDetector(nn.Module):
    """A network that only predicts; made by `for_inference`.

    Attributes:
        dtype: what its convolutions compute in; norms, boxes and scores always are fp32.
    """

    def __init__(self, backbone: nn.Module, neck: nn.Module, head: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.backbone = backbone
        self.neck = neck
        self.head = head

    def forward(self, images: Tensor) -> DensePredictions:
        """[B, 3, H, W] normalised images, H and W multiples of the input's divisor -> predictions in their pixels."""
        predictions: DensePredictions = self.head(self.neck(self.backbone(images)))
        return predictions


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
    settled = _settled(model)
    try:
        with torch.no_grad():
            known(settled, DenseDetector)
            backbone, neck, head = (_fused(part, dtype) for part in (settled.backbone, settled.neck, settled.head))
            return InferenceDetector(backbone, neck, head, dtype).eval().requires_grad_(False)
    except CannotFuse:
        return model


def _fused(part: nn.Module, dtype: torch.dtype) -> nn.Module:
    """What a part says of itself."""
    fuse: Callable[[torch.dtype], nn.Module] | None = getattr(part, "fuse", None)
    if fuse is None:
        raise CannotFuse(f"a {type(part).__name__}")
    return fuse(dtype)


def _settled(model: DenseDetector) -> DenseDetector:  # type: ignore[type-arg]
    """The network; if weights are computed from others, a copy in which they are what they are now in evaluation."""
    if not any(map(parametrize.is_parametrized, model.modules())):
        return model
    model = copy.deepcopy(model).eval()
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            # PyTorch's `remove_parametrizations` would change the class, which the network's own module has too.
            values = {name: getattr(module, name).detach() for name in module.parametrizations}  # type: ignore[union-attr]
            module.__class__ = parametrize.type_before_parametrizations(module)
            del module.parametrizations
            for name, value in values.items():
                module.register_parameter(name, nn.Parameter(value, requires_grad=False))
    return model

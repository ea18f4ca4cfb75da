"""From a network to one that only predicts, faster."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from tood.errors import ToodError
from tood.models.atss.head import ATSSHead
from tood.models.backbones import ResNet
from tood.models.common.detector import DenseDetector
from tood.models.inference.heads import InferenceATSSHead, InferenceTHead
from tood.models.inference.trunk import InferenceFPN, InferenceResNet
from tood.models.necks import FPN
from tood.models.tood.head import THead
from tood.structures import DensePredictions

Precision = Literal["auto", "fp32", "bf16"]


class InferenceDetector(nn.Module):
    """A network that only predicts; made by `for_inference`.

    Attributes:
        dtype: what its convolutions compute in; norms, boxes and scores always are fp32.
    """

    def __init__(self, backbone: ResNet, neck: FPN, head: THead | ATSSHead, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.backbone = InferenceResNet(backbone, dtype)
        self.neck = InferenceFPN(neck, dtype)
        self.head = InferenceTHead(head, dtype) if isinstance(head, THead) else InferenceATSSHead(head, dtype)

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
        model: a network of this package, on the device to compute on; any other module is given back as it is.
        dtype: torch.float32, or torch.bfloat16 for convolutions in bf16.
    """
    if not isinstance(model, DenseDetector):
        return model
    backbone, neck, head = model.backbone, model.neck, model.head
    assert isinstance(backbone, ResNet)
    assert isinstance(neck, FPN)
    assert isinstance(head, THead | ATSSHead)
    with torch.no_grad():
        return InferenceDetector(backbone, neck, head, dtype).eval().requires_grad_(False)


def choose_precision(asked: Precision, device: torch.device) -> tuple[torch.dtype, str]:
    """What a network is to compute in on a device, and why: "auto" is bf16 where the CPU has instructions for it.

    Raises:
        ToodError: if there is no such precision.
    """
    if asked == "auto":
        if device.type == "cpu" and cpu_multiplies_bf16():
            return torch.bfloat16, "bf16, as this CPU has instructions for it"
        return torch.float32, "fp32"
    if asked not in ("fp32", "bf16"):
        raise ToodError(f"precision is '{asked}': choose auto, fp32 or bf16")
    return (torch.float32 if asked == "fp32" else torch.bfloat16), f"{asked}, as asked"


def cpu_multiplies_bf16() -> bool:
    """Whether the CPU has instructions for it; without them bf16 is slower than fp32."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags

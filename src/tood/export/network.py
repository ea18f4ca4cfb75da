"""A network as it is handed to an exporter: norms folded, deformable convolutions in a form that the target knows."""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.export import Dim

from tood.engines import ExportedModel
from tood.export.config import ExportConfig
from tood.models import AnyDetector, AnyPostprocessConfig
from tood.models.common import head_for
from tood.models.common.deform_conv import DeformConv2d
from tood.models.common.detector import BackboneNeckHead
from tood.models.inference import settled
from tood.ops import CannotFuse
from tood.ops.deform_conv import plain_deform_conv2d
from tood.structures import DensePredictions

DeformForm: TypeAlias = Literal["deform_conv", "grid_sample"]
"""How deformable convolutions stand in a file: as ONNX's operator DeformConv, or nine GridSamples and a convolution."""

# The first set of ONNX operators that has it is 19; this one's is what ONNX Runtime's kernel is tried with here.
DEFORM_CONV_OPSET = 19


class ExportNetwork(nn.Module):
    """A network that gives tensors alone, in plain numbers that need no more knowledge of its family.

    Attributes:
        names: what the tensors are called, in their order.
    """

    def __init__(self, network: nn.Module, postprocess: AnyPostprocessConfig, judges_boxes: bool) -> None:
        super().__init__()
        self.network, self.postprocess = network, postprocess
        self.names = ("boxes", "scores", "quality") if judges_boxes else ("boxes", "scores")

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """[B, 3, H, W] normalised -> boxes [B, N, 4] in their pixels, probabilities [B, N, C], of boxes too [B, N]."""
        return plain_outputs(self.predictions(images))

    def predictions(self, images: Tensor) -> DensePredictions:
        """Of the head that is shown."""
        found: DensePredictions = head_for(self.network(images), self.postprocess)
        return found


def plain_outputs(found: DensePredictions) -> tuple[Tensor, ...]:
    """Boxes [B, N, 4], probabilities [B, N, C] and, where boxes are judged, those of that [B, N], in fp32."""
    outputs = (found.boxes.float(), found.probabilities().float())
    return outputs if found.quality is None else (*outputs, found.quality.float().sigmoid())


def export_network(model: AnyDetector, form: DeformForm) -> ExportNetwork:
    """A copy of a network for exporters, in evaluation mode; later changes of the network do not reach it.

    Args:
        model: any network of this package; of two heads it shows the one that the configuration reads (`head_for`).
        form: of its deformable convolutions.
    """
    own = settled(model)
    # A copy, as the network may be in training mode, and is to stay so.
    own = copy.deepcopy(own).cpu().eval().requires_grad_(False)
    # Without oneDNN what is fused is plain convolutions, which every exporter knows.
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, of hardware that has nothing to do with it
        with torch.backends.mkldnn.flags(enabled=False):
            parts = [_folded(part) for part in (own.backbone, own.neck, own.head)]
    network = BackboneNeckHead(*parts).eval().requires_grad_(False)
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, DeformConv2d):
                setattr(parent, name, _ExportDeformConv2d(child, form))
    return ExportNetwork(network, model.config.postprocess, model.config.predicts_quality)


def export_dimensions(model: AnyDetector, config: ExportConfig | ExportedModel) -> tuple[Tensor, dict[int, Any]]:
    """An example of a network's input [B, 3, H, W], and which of its dimensions are free."""
    batch = config.batch or 2
    free: dict[int, Any] = {0: Dim("batch")} if config.batch is None else {}
    if config.size is not None:
        return torch.zeros(batch, 3, *config.size), free
    divisor = model.config.input.divisor
    # Maps of a single row or column would make another graph.
    side = 2 * math.lcm(model.config.strides[-1], divisor)
    return torch.zeros(batch, 3, side, side + divisor), free | {2: divisor * Dim("_height"), 3: divisor * Dim("_width")}


def _folded(part: nn.Module) -> nn.Module:
    """The part with its BatchNorms folded into convolutions and its branches into one, if it knows how.

    A part without any stays as it is: what else fusing does is of use on PyTorch's own engine alone.
    """
    fuse: Any = getattr(part, "fuse", None)
    if fuse is None or not any(isinstance(module, nn.BatchNorm2d) for module in part.modules()):
        return part
    try:
        folded: nn.Module = fuse(torch.float32)
    except CannotFuse:
        return part
    return folded


class _ExportDeformConv2d(nn.Module):
    """A deformable convolution in operators that the target knows."""

    def __init__(self, conv: DeformConv2d, form: DeformForm) -> None:
        super().__init__()
        self.conv, self.form = conv, form

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H / stride, W / stride]."""
        conv = self.conv
        first, second, mask = conv.offset(x).chunk(3, dim=1)
        offsets, masks = torch.cat([first, second], dim=1), mask.sigmoid()
        stride, groups = conv.stride[0], conv.groups
        if self.form == "grid_sample":
            return plain_deform_conv2d(x, offsets, masks, conv.weight, stride, groups)
        bias = conv.weight.new_zeros(conv.out_channels)
        out: Tensor = torch.onnx.ops.symbolic(
            "DeformConv",
            (x, conv.weight, offsets, bias, masks),
            {
                "group": groups,
                "offset_group": conv.deform_groups,
                "kernel_shape": [3, 3],
                "pads": [1, 1, 1, 1],
                "strides": [stride, stride],
            },
            dtype=x.dtype,
            shape=(x.shape[0], conv.out_channels, *masks.shape[2:]),
            version=DEFORM_CONV_OPSET,
        )
        return out

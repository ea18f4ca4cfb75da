"""From a network to a PyTorch program (`torch.export`) that knows what it is."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._ops import HigherOrderOperator, OpOverload
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule
from torch.overrides import TorchFunctionMode

from tood.engines import ExportedModel
from tood.engines.program_file import METADATA
from tood.engines.quiet import quiet
from tood.export.network import ExportNetwork, export_dimensions, export_network, plain_outputs
from tood.export.torch_pictures import laid_pictures, whole_divisors
from tood.export.torch_suppression import Dense, suppressed, top_k
from tood.models import AnyDetector
from tood.models.common import TopKConfig
from tood.ops.inference import InferenceConv2d

# Of an example of whole pictures, neither side like the other, like the network's, or 1.
_EXAMPLE = (70, 101)


class WholeProgram(nn.Module):
    """A network with what stands before and behind it."""

    def __init__(self, network: ExportNetwork, description: ExportedModel) -> None:
        super().__init__()
        self.network, self.description = network, description

    def forward(self, images: Tensor, windows: Tensor | None = None) -> tuple[Tensor, ...]:
        """Pictures or images, as the description says, to what its graph ends with.

        Args:
            images: [B, H, W, 3] uint8 RGB or [B, 3, H, W] normalised.
            windows: [B, 4] x1 y1 x2 y2 of each picture within its image, where boxes are cut to that.
        """
        description = self.description
        own = description.model.postprocess
        laid = laid_pictures(images, description.network_input) if description.raw else None
        with _HalfConvolutions() if description.precision == "fp16" else nullcontext():
            found = self.network.predictions(self._of_any_size(images) if laid is None else laid.images)
        boxes, scores, *quality = plain_outputs(found)
        if laid is not None:
            boxes = (boxes - laid.offset) / laid.scale
            windows = laid.window
        if description.graph == "dense":
            return boxes, scores, *quality
        dense = Dense(boxes, scores, quality[0] if quality else None, found.priors.level_sizes)
        if isinstance(own, TopKConfig):
            return tuple(top_k(dense, own))
        return tuple(suppressed(dense._replace(windows=windows if own.clip else None), own))

    def _of_any_size(self, images: Tensor) -> Tensor:
        """The images [B, 3, H, W], of whose sides the exporter then knows no more than that they are whole divisors."""
        if self.description.size is not None:
            return images
        sides = torch.stack([torch.scalar_tensor(side, dtype=torch.int64) for side in images.shape[2:]])
        height, width = whole_divisors(sides, self.description.model.input.divisor)
        for side, own in zip((height, width), images.shape[2:], strict=True):
            torch._check(side <= own)  # type: ignore[no-untyped-call]
        return images.narrow(2, 0, height).narrow(3, 0, width)


class _HalfConvolutions(TorchFunctionMode):
    """Convolutions in fp16, what they are given and give in fp32."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        given = kwargs or {}
        if func is not F.conv2d:
            return func(*args, **given)
        return func(*map(_half, args), **{name: _half(value) for name, value in given.items()}).float()


def _half(value: Any) -> Any:
    """A tensor in fp16; anything else as it is."""
    return value.half() if isinstance(value, Tensor) else value


def _halve(conv: nn.Conv2d | InferenceConv2d) -> None:
    """Stores what a convolution keeps in fp16."""
    for name in ("weight", "bias"):
        kept = getattr(conv, name)
        if kept is not None:
            delattr(conv, name)
            setattr(conv, name, kept.half())


def whole_program(model: AnyDetector, description: ExportedModel) -> ExportedProgram:
    """The program of a model that a description is of."""
    network = export_network(model, "grid_sample")
    if description.precision == "fp16":
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, InferenceConv2d)):
                _halve(module)
    whole = WholeProgram(network, description).eval()
    example, free = export_dimensions(model, description)
    batch = {axis: length for axis, length in free.items() if axis == 0}
    inputs, lengths = {"images": example}, {"images": free}
    if description.raw:
        inputs = {"images": torch.zeros(len(example), *_EXAMPLE, 3, dtype=torch.uint8)}
        lengths = {"images": batch | {1: Dim("height"), 2: Dim("width")}}
    if description.wants_windows:
        inputs["windows"] = torch.zeros(len(example), 4)
        lengths["windows"] = batch
    # Loops that were compiled for an earlier program are asked whether they fit, which would narrow this one's sizes.
    torch.compiler.reset()
    with quiet():
        return torch.export.export(whole, tuple(inputs.values()), dynamic_shapes=lengths, strict=False)


def save_program(program: ExportedProgram, path: Path, description: ExportedModel) -> None:
    """Writes a program with its description."""
    with quiet():
        torch.export.save(program, path, extra_files={METADATA: json.dumps(description.texts())})


def operators_of(program: ExportedProgram) -> dict[str, int]:
    """How many calls of each operator a program has, those within its loops among them."""
    graphs = (module for module in program.graph_module.modules() if isinstance(module, GraphModule))
    called = (node.target for graph in graphs for node in graph.graph.nodes)
    # The others are arithmetic of lengths.
    operators = (target for target in called if isinstance(target, (OpOverload, HigherOrderOperator)))
    return dict(sorted(Counter(map(str, operators)).items()))

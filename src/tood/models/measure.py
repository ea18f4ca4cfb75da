"""What a network costs: parameters, multiplications, memory; computed without any weights or pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from tood.models.build import build_model
from tood.models.common.rep_block import RepBlock
from tood.models.families import AnyModelConfig


@dataclass(frozen=True)
class Cost:
    """What a network of a configuration costs, for one image in fp32.

    Attributes:
        parameters, trainable: numbers in it, and those of them that training changes.
        merged: numbers once every re-parameterisable block is one convolution with bias; norms that stand elsewhere
            count, which are folded as well where it predicts.
        weight_bytes: of its parameters and buffers.
        size: height, width of the image, padded, in pixels.
        multiply_adds: multiplications with an addition each, as published tables count "FLOPs": half of what torch's
            counter says, which takes a multiplication and an addition for two operations. It counts convolutions
            (deformable ones too) and matrix products, not norms, activations, sampling or decoding.
        map_bytes: the most that feature maps and other results hold at once without gradients, the image included,
            as the modules say it in plain PyTorch; without what an operation needs inside itself (a deformable
            convolution what it samples) or an allocator wastes. The copy that predicts on a CPU (`for_inference`)
            holds less: 171 MiB of 297 in the paper's R50; training holds more, all that its backward pass needs.
    """

    parameters: int
    trainable: int
    merged: int
    weight_bytes: int
    size: tuple[int, int]
    multiply_adds: int
    map_bytes: int


@cache
def measure(config: AnyModelConfig) -> Cost:
    """The cost of a network at the size of image that it is configured for, lying."""
    divisor = config.input.divisor
    height, width = (-(-side // divisor) * divisor for side in (config.input.short, config.input.long))
    with torch.device("meta"):
        model = build_model(config).eval()
        images = torch.empty(1, 3, height, width)
    pyramid, multiply_adds, trunk_bytes = _run(model, lambda: model.neck(model.backbone(images)), [images])
    shapes = tuple(tuple(level.shape) for level in pyramid)
    head_multiply_adds, head_bytes = _measure_head(_Head(type(config), config.classes, config.head, shapes, model.head))
    parameters = list(model.parameters())
    return Cost(
        parameters=sum(parameter.numel() for parameter in parameters),
        trainable=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        merged=sum(parameter.numel() for parameter in parameters) - sum(map(_spared, model.modules())),
        weight_bytes=sum(tensor.nbytes for tensor in model.state_dict().values()),
        size=(height, width),
        multiply_adds=multiply_adds + head_multiply_adds,
        map_bytes=max(trunk_bytes, images.nbytes + head_bytes),
    )


def _spared(module: nn.Module) -> int:
    """Parameters that merging a re-parameterisable block saves."""
    if not isinstance(module, RepBlock):
        return 0
    one = module.dense.conv.weight.numel() + module.dense.conv.out_channels
    return sum(parameter.numel() for parameter in module.parameters()) - one


@dataclass(frozen=True)
class _Head:
    """A head and its pyramid, by which networks of different backbones are alike."""

    family: type[Any]
    classes: int
    config: Any
    shapes: tuple[tuple[int, ...], ...]
    module: nn.Module = field(compare=False)


@cache
def _measure_head(head: _Head) -> tuple[int, int]:
    """Multiply-adds of a head, and the most bytes held, the pyramid included."""
    with torch.device("meta"):
        pyramid = [torch.empty(shape) for shape in head.shapes]
    _, multiply_adds, most = _run(head.module, lambda: head.module(pyramid), pyramid)
    return multiply_adds, most


def _run(owner: nn.Module, part: Callable[[], Any], given: Sequence[Tensor]) -> tuple[Any, int, int]:
    """What a part of a network gives, its multiply-adds and the most bytes held, `given` included."""
    # The memory's tracker inside the counter: the counter takes some operations apart.
    held = HeldBytes(given, owner.state_dict().values())
    with torch.inference_mode(), FlopCounterMode(display=False) as counter, held:
        result = part()
    return result, counter.get_total_flops() // 2, held.most


class HeldBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the memory of all results while they are computed.

    Args:
        given: what is there before and counts.
        weights: what does not count, as such or in results that are views of it.

    Attributes:
        most: bytes held at once so far.
    """

    def __init__(self, given: Iterable[Tensor], weights: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = 0
        self._now = 0
        self._held: dict[int, tuple[StorageWeakRef, int]] = {}
        self._uncounted = {weight.untyped_storage()._cdata for weight in weights}
        self._follow(given)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the operation."""
        out = function(*args, **(kwargs or {}))
        self._follow(leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor))
        return out

    def _follow(self, tensors: Iterable[Tensor]) -> None:
        gone = [key for key, (storage, _) in self._held.items() if storage.expired()]  # type: ignore[no-untyped-call]
        for key in gone:
            self._now -= self._held.pop(key)[1]
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage._cdata not in self._held and storage._cdata not in self._uncounted:
                self._held[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())  # type: ignore[no-untyped-call]
                self._now += storage.nbytes()
        self.most = max(self.most, self._now)

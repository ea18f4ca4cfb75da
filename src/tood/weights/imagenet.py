"""Backbones that were trained to classify ImageNet."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from tood.weights.checkpoint import Checkpoint
from tood.weights.safetensors_file import COUNTERS, load_tensors

# A deformable convolution starts from the ordinary one's weights and from offsets of zero.
_MAY_LACK = (*COUNTERS, ".offset.weight", ".offset.bias")


def load_imagenet(backbone: nn.Module, checkpoint: Checkpoint) -> None:
    """Takes over a published classifier but for what decides on classes.

    Args:
        backbone: takes the weights; its `from_imagenet`, if it has one, knows the names that they are published under.
        checkpoint: the classifier's file.

    Raises:
        ToodError: that lists what does not fit.
    """
    renamed: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = getattr(backbone, "from_imagenet", dict)
    tensors = renamed(checkpoint.tensors)
    load_tensors(backbone, tensors, f"{checkpoint.path} does not fit the backbone", _MAY_LACK)

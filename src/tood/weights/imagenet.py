"""Backbones that were trained to classify ImageNet."""

from __future__ import annotations

from torch import nn

from tood.weights.checkpoint import Checkpoint
from tood.weights.safetensors_file import COUNTERS, load_tensors

_CLASSIFIERS = ("fc.", "head.", "classifier.")
# A deformable convolution starts from the ordinary one's weights and from offsets of zero.
_MAY_LACK = (*COUNTERS, ".offset.weight", ".offset.bias")


def load_imagenet(backbone: nn.Module, checkpoint: Checkpoint) -> None:
    """Takes over a ResNet or ResNeXt of torchvision, timm or OpenMMLab, without its classifier.

    Raises:
        ToodError: that lists what does not fit.
    """
    tensors = checkpoint.tensors
    if any(name.startswith("backbone.") for name in tensors):
        tensors = {
            name.removeprefix("backbone."): tensor for name, tensor in tensors.items() if name.startswith("backbone.")
        }
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(_CLASSIFIERS)}
    load_tensors(backbone, tensors, f"{checkpoint.path} does not fit the backbone", _MAY_LACK)

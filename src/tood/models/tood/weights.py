"""Names of TOOD's tensors in published checkpoints (MMDetection's port) and here."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

# (published, ours): the first pattern that matches is replaced.
_RENAMES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), ours)
    for pattern, ours in (
        (r"(backbone\..+)\.conv_offset\.", r"\1.offset."),
        (r"bbox_head\.inter_convs\.(\d+)\.conv\.conv_offset\.", r"head.interactive.\1.conv.offset."),
        (r"neck\.lateral_convs\.(\d+)\.conv\.", r"neck.laterals.\1."),
        (r"neck\.fpn_convs\.(\d+)\.conv\.", r"neck.outputs.\1."),
        (r"bbox_head\.inter_convs\.(\d+)\.conv\.", r"head.interactive.\1.conv."),
        (r"bbox_head\.inter_convs\.(\d+)\.gn\.", r"head.interactive.\1.norm."),
        (r"bbox_head\.cls_decomp\.layer_attention\.", "head.classification_decomposition.attention."),
        (r"bbox_head\.cls_decomp\.reduction_conv\.conv\.", "head.classification_decomposition.reduction."),
        (r"bbox_head\.cls_decomp\.reduction_conv\.gn\.", "head.classification_decomposition.norm."),
        (r"bbox_head\.reg_decomp\.layer_attention\.", "head.regression_decomposition.attention."),
        (r"bbox_head\.reg_decomp\.reduction_conv\.conv\.", "head.regression_decomposition.reduction."),
        (r"bbox_head\.reg_decomp\.reduction_conv\.gn\.", "head.regression_decomposition.norm."),
        (r"bbox_head\.tood_cls\.", "head.classifier."),
        (r"bbox_head\.tood_reg\.", "head.regressor."),
        (r"bbox_head\.cls_prob_module\.", "head.classification_alignment."),
        (r"bbox_head\.reg_offset_module\.", "head.regression_alignment."),
        (r"bbox_head\.scales\.(\d+)\.scale$", r"head.scales.\1"),
    )
)


def from_published(state: Mapping[str, Tensor], maps: int) -> dict[str, Tensor]:
    """A published state dict under this package's names.

    Args:
        state: tensors in the port's naming.
        maps: number of the backbone's output maps; the pyramid's later convolutions are its extra levels.
    """
    return {our_name(name, maps): tensor for name, tensor in state.items()}


def our_name(published: str, maps: int) -> str:
    """This package's name of a published tensor; unknown names stay as they are."""
    for pattern, ours in _RENAMES:
        name, replaced = pattern.subn(ours, published, count=1)
        if replaced:
            return _split_outputs(name, maps)
    return published


def _split_outputs(name: str, maps: int) -> str:
    match = re.match(r"neck\.outputs\.(\d+)\.(.+)", name)
    if match and int(match[1]) >= maps:
        return f"neck.extras.{int(match[1]) - maps}.{match[2]}"
    return name

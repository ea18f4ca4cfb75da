"""The trunk read once for both tasks and both alignments: the faster way of what `THead.seen` says plainly.

All four begin with a 1x1 convolution on the trunk, the tasks' after weighting its layers. Weights of layers fold into
those of the convolution, or into the rows of a small map, so that one product gives all four.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tood.models.common.task_decomposition import TaskDecomposition
from tood.ops import group_norm_relu, may_stand_in, scaled_product
from tood.ops.conv_gradients import is_pointwise


class SeenInTrunk(NamedTuple):
    """What a level's trunk holds for the four that look at it.

    Attributes:
        classification, regression: [B, C, h, w] of the tasks.
        alignment: [B, 1, h, w], M of equation 4, logits; None of a head without it.
        offsets: [B, 8, h, w], O of equation 5, in cells; None of a head without them.
    """

    classification: Tensor
    regression: Tensor
    alignment: Tensor | None
    offsets: Tensor | None


def may_read_at_once(
    tasks: Sequence[TaskDecomposition], alignments: Sequence[nn.Sequential], trunks: Sequence[Tensor]
) -> bool:
    """Whether `read_at_once` gives what the modules would, all of which it passes by: the only place that decides."""
    bypassed: list[tuple[nn.Module, type[nn.Module]]] = []
    first: list[nn.Module] = []
    for task in tasks:
        bypassed.append((task, TaskDecomposition))
        first.append(getattr(task, "reduction", task))
    for alignment in alignments:
        if not isinstance(alignment, nn.Sequential) or len(alignment) != 3:
            return False
        bypassed += [(alignment, nn.Sequential), (alignment[1], nn.ReLU)]
        first.append(alignment[0])
    bypassed += [(conv, nn.Conv2d) for conv in first]
    return may_stand_in(bypassed, trunks) and all(
        isinstance(conv, nn.Conv2d) and is_pointwise(conv) and conv.stride == (1, 1) and (conv.bias is None) == of_task
        for conv, of_task in zip(first, (True, True, *(False for _ in alignments)), strict=True)
    )


def read_at_once(
    tasks: Sequence[TaskDecomposition], alignments: Sequence[nn.Sequential], trunks: Sequence[Tensor]
) -> Iterator[list[Tensor]]:
    """What two tasks and up to two alignments, in this order, make of each level's trunk [B, L * C, h, w]."""
    convolutions = [task.reduction for task in tasks] + [_conv(alignment) for alignment in alignments]
    weight = torch.cat([conv.weight for conv in convolutions]).flatten(1)  # [O, L * C]
    outputs = [conv.out_channels for conv in convolutions]
    sizes = [*outputs[:2], *([sum(outputs[2:])] if alignments else [])]
    rows = [trunk.permute(0, 2, 3, 1).flatten(1, 2) for trunk in trunks]  # [B, hw, L * C]
    averages = [cells.mean(dim=1) for cells in rows]  # [B, L * C]
    attentions = zip(*(_attentions(task, averages) for task in tasks), strict=True)
    for trunk, cells, of_tasks in zip(trunks, rows, attentions, strict=True):
        batch, _, height, width = trunk.shape
        scales = _scales(of_tasks, tasks[0].layers, trunk.shape[1])[:, : len(sizes)]
        reduced = scaled_product(cells, weight, scales, sizes)
        parts = torch.split(reduced.view(batch, height, width, -1), outputs, dim=3)
        maps = [part.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last) for part in parts]
        yield [
            *(group_norm_relu(task.norm, features) for task, features in zip(tasks, maps[:2], strict=True)),
            *(_aligned(branch, features) for branch, features in zip(alignments, maps[2:], strict=True)),
        ]


def _attentions(task: TaskDecomposition, averages: Sequence[Tensor]) -> Sequence[Tensor]:
    """Each level's attention, [B, L] or [B, L * C] fp32, from its average [B, L * C]; asked once where that may be."""
    kinds = (nn.Conv2d, nn.ReLU, nn.Conv2d, nn.Sigmoid)
    usual = (
        type(task).layer_attention is TaskDecomposition.layer_attention
        and "layer_attention" not in vars(task)
        and isinstance(task.attention, nn.Sequential)
        and len(task.attention) == len(kinds)
        and may_stand_in([(task.attention, nn.Sequential), *zip(task.attention, kinds, strict=True)], averages)
    )
    if not usual:
        return [task.layer_attention(average).float() for average in averages]
    return task.layer_attention(torch.cat(list(averages))).float().view(len(averages), len(averages[0]), -1).unbind()


def _scales(of_tasks: Sequence[Tensor], layers: int, channels: int) -> Tensor:
    """[B, 3, L] of both tasks and the alignments, which look at all layers alike; with L * C where a task has these."""
    if len({attention.shape[1] for attention in of_tasks}) > 1:
        each = channels // layers
        of_tasks = [
            attention.repeat_interleave(each, 1) if attention.shape[1] == layers else attention
            for attention in of_tasks
        ]
    return torch.stack([*of_tasks, torch.ones_like(of_tasks[0])], dim=1)


def _aligned(branch: nn.Sequential, reduced: Tensor) -> Tensor:
    """The branch from behind its first convolution's product on: [B, hidden, h, w] -> [B, outputs, h, w]."""
    bias = _conv(branch).bias
    assert bias is not None
    out: Tensor = branch[2]((reduced + bias[:, None, None].to(reduced.dtype)).relu_())
    return out


def _conv(branch: nn.Sequential) -> nn.Conv2d:
    conv = branch[0]
    assert isinstance(conv, nn.Conv2d)
    return conv

"""What one task takes from the layers of a common trunk (TOOD, section 3.1): its layer attention and reduction."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tood.models.common.layers import InferenceGroupNormReLU, on_levels
from tood.models.common.sizes import reduced
from tood.models.common.stacked import cells_of
from tood.ops import CannotFuse, group_norm_relu, known
from tood.ops.conv_gradients import is_pointwise


class TaskDecomposition(nn.Module):
    """What one task takes from the trunk: its layers weighted by attention, then reduced (equations 2 and 3).

    Args:
        width: channels of every layer of the trunk, and of what is given.
        layers: of the trunk.
        norm_groups: of the GroupNorm.
        attention_reduction: the attention has `width` divided by this hidden channels; None for no attention, so that
            all layers count alike.
    """

    # What a subclass may change: whoever computes the same sooner asks for it (`tood.ops.guard`).
    REPLACEABLE = frozenset({"layer_attention"})

    def __init__(self, width: int, layers: int, norm_groups: int, attention_reduction: int | None) -> None:
        super().__init__()
        self.layers = layers
        channels = width * layers
        self.attention: nn.Sequential | None = None
        if attention_reduction is not None:
            hidden = reduced("model.head.attention_reduction", width, attention_reduction)
            self.attention = nn.Sequential(
                nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, layers, 1), nn.Sigmoid()
            )
        self.reduction = nn.Conv2d(channels, width, 1, bias=False)
        self.norm = nn.GroupNorm(norm_groups, width)

    def forward(self, trunk: Tensor) -> Tensor:
        """[B, L * C, h, w], the trunk's L layers of C channels -> [B, C, h, w]."""
        return group_norm_relu(self.norm, self.reduction(self.weighted(trunk)))

    def weighted(self, trunk: Tensor) -> Tensor:
        """Every layer of the trunk [B, L * C, h, w] times its attention (equation 2): the same shape."""
        attention = self.layer_attention(trunk.mean(dim=(2, 3)))
        layers = torch.unflatten(trunk, 1, (self.layers, -1))  # [B, L, C, h, w]
        return (layers * torch.unflatten(attention, 1, (self.layers, -1))[..., None, None]).flatten(1, 2)

    def layer_attention(self, average: Tensor) -> Tensor:
        """The weights of the trunk's layers (equation 3); training, inference and export all ask here.

        Args:
            average: [B, L * C] over the places of a level.

        Returns:
            [B, L]; a subclass may give [B, L * C], a weight for each channel.
        """
        if self.attention is None:
            return average.new_ones(len(average), self.layers)
        weights: Tensor = self.attention(average[..., None, None])
        return weights.flatten(1)

    def fuse(self, dtype: torch.dtype) -> InferenceTaskDecomposition:
        """The same as fewer operations, to predict with; raises `CannotFuse` where a part is of another kind."""
        return InferenceTaskDecomposition(known(self, TaskDecomposition), dtype)


class WeightedReduction(nn.Module):
    """A task's attention folded into its reduction (equations 2 and 3).

    Raises:
        CannotFuse: if the reduction is no matrix, or the attention no method of the task.
    """

    def __init__(self, task: TaskDecomposition) -> None:
        super().__init__()
        reduction = known(task.reduction, nn.Conv2d)
        if not is_pointwise(reduction) or reduction.stride != (1, 1) or reduction.bias is not None:
            raise CannotFuse("a reduction that is no matrix")
        patched = vars(task).get("layer_attention")
        if patched is not None and getattr(patched, "__self__", None) is not task:
            raise CannotFuse("an attention that is no method and would go on reading the network's weights")
        self.task = copy.deepcopy(task)
        weight = reduction.weight.detach()
        # [L, C, O]: a matrix a layer. The copied task, which is only asked for its attention, shares their memory.
        self.layers = weight.view(len(weight), task.layers, -1).permute(1, 2, 0).contiguous()
        self.task.reduction.weight = nn.Parameter(self.layers.flatten(0, 1).t()[..., None, None], requires_grad=False)

    def forward(self, average: Tensor) -> Tensor:
        """Spatial average of the trunk [B, L * C], fp32 -> weights of the reduction [L, B, C, O]."""
        attention = torch.unflatten(self.task.layer_attention(average), 1, (self.task.layers, -1))  # [B, L, 1 or C]
        return attention.transpose(0, 1)[..., None].mul(self.layers[:, None])


class InferenceTaskDecomposition(nn.Module):
    """`TaskDecomposition` without gradient: one matrix product an image.

    Raises:
        CannotFuse: if a part is of another kind.
    """

    def __init__(self, task: TaskDecomposition, dtype: torch.dtype) -> None:
        super().__init__()
        self.reduction, self.norm, self.dtype = WeightedReduction(task), InferenceGroupNormReLU(task.norm), dtype

    def forward(self, trunk: Tensor) -> Tensor:
        """[B, L * C, h, w] in channels-last memory -> [B, C, h, w]."""
        batch, _, height, width = trunk.shape
        weights = self.reduction(trunk.mean(dim=(2, 3), dtype=torch.float32)).to(self.dtype)  # [L, B, C, O]
        reduced = torch.bmm(cells_of(trunk), weights.transpose(0, 1).flatten(1, 2))  # [B, h * w, O]
        return self.norm(reduced.view(batch, height, width, -1).permute(0, 3, 1, 2))  # type: ignore[no-any-return]


def trunks(interactive: nn.ModuleList, maps: Sequence[Tensor]) -> list[Tensor]:
    """The outputs of all interactive layers (equation 1): [B, inputs, h, w] -> [B, L * C, h, w], of each level."""
    layers = []
    for layer in interactive:
        maps = on_levels(layer, maps)
        layers.append(maps)
    return [torch.cat(of_level, dim=1) for of_level in zip(*layers, strict=True)]

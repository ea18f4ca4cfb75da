"""How layer attention works is one method: training, plain PyTorch and the copy for inference all ask it."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType

import pytest
import torch
from torch import Tensor, nn

from narrow_models import FREE, lively
from operation_calls import Calls
from tood.models import build_model, for_inference
from tood.models.tood import TOOD
from tood.models.tood.head import TaskDecomposition
from tood.ops import plain

IMAGES = torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(0))


class PerChannel(TaskDecomposition):
    """A weight for each channel instead of each layer."""

    def layer_attention(self, average: Tensor) -> Tensor:
        layers = super().layer_attention(average)  # [B, L]
        return (average + layers.repeat_interleave(average.shape[1] // self.layers, 1)).sigmoid()


def by_class(task: nn.Module) -> None:
    task.__class__ = PerChannel


def instance_method(self: TaskDecomposition, average: Tensor) -> Tensor:
    layers = self.attention(average[..., None, None]).flatten(1)
    return (average + layers.repeat_interleave(average.shape[1] // self.layers, 1)).sigmoid()


def by_patch(task: nn.Module) -> None:
    task.layer_attention = MethodType(instance_method, task)  # type: ignore[assignment]


def results(model: TOOD) -> list[Tensor]:
    model.zero_grad()
    found = model.train()(IMAGES)
    (found.scores.sum() + found.boxes.sum() / 100).backward()
    return [found.scores, found.boxes, *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("patch", [by_class, by_patch])
@pytest.mark.parametrize("both", [True, False])
def test_attention_of_channels(patch: Callable[[nn.Module], None], both: bool) -> None:
    torch.manual_seed(0)
    model = lively(build_model(FREE))
    before = results(model)
    tasks = [model.head.classification_decomposition, model.head.regression_decomposition]
    for task in tasks if both else tasks[1:]:
        patch(task)
    with Calls() as calls:
        ours = results(model)
    assert calls.counts["aten::bmm"] > 0, "still by one product"
    assert not torch.allclose(ours[1], before[1])
    with plain(), Calls() as calls:
        wanted = results(model)
    assert calls.counts["aten::bmm"] == 0
    for one, other in zip(ours, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=2e-4 * float(other.abs().max()))
    copy = for_inference(model.eval())
    assert copy is not model
    with torch.inference_mode():
        given, plainly = copy(IMAGES), model(IMAGES)
    torch.testing.assert_close(given.scores, plainly.scores, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(given.boxes, plainly.boxes, rtol=1e-4, atol=1e-2)

"""The named models are those of the published table, and cost what is said of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from golden_values import NARROW
from tood.input import InputConfig
from tood.models import AnyModelConfig, build_model
from tood.models.measure import HeldBytes, measure
from tood.training import run_config
from tood.zoo import named_model
from tood.zoo import tood as zoo

# Of the published table: parameters and those that learn, AP on minival and test-dev, schedule.
TABLE = {
    "tood_r50_fpn_1x": (32_200_494, 31_975_150, 42.5, 42.7, "1x"),
    "tood_r50_fpn_anchor_based_1x": (32_200_494, 31_975_150, 42.4, 42.8, "1x"),
    "tood_r50_fpn_2x": (32_200_494, 31_975_150, 44.5, None, "2x"),
    "tood_r101_fpn_2x": (51_192_622, 50_967_278, 46.2, 46.7, "2x"),
    "tood_x101_fpn_2x": (90_098_734, 89_695_982, 47.6, 48.5, "2x"),
    "tood_r101_dcnv2_fpn_2x": (53_619_760, 53_394_416, 49.2, 49.6, "2x"),
    "tood_x101_dcnv2_fpn_2x": (97_813_444, 97_410_692, 50.5, 51.1, "2x"),
}
NARROW_RESNEXT_DEFORMABLE = replace(
    NARROW,
    backbone=replace(NARROW.backbone, blocks=(1, 1, 2, 1), groups=4, width_per_group=2, deformable_stages=(2, 3)),
    head=replace(NARROW.head, deformable_layers=2, anchor="based"),
    input=InputConfig(short=160, long=224),
)


@pytest.mark.parametrize("name", TABLE)
def test_named_models_are_those_of_the_published_table(name: str) -> None:
    parameters, trainable, minival, test_dev, recipe = TABLE[name]
    named = named_model(name)
    cost = measure(named.config())
    assert (cost.parameters, cost.trainable) == (parameters, trainable)
    assert (named.published_ap, named.published_ap_test_dev, named.recipe) == (minival, test_dev, recipe)
    run = run_config(name)
    assert (run.recipe, run.epochs) == (recipe, 12 if recipe == "1x" else 24)


def test_what_tells_the_named_models_apart() -> None:
    assert named_model("tood_r50_fpn_anchor_based_1x").config().head.anchor == "based"  # type: ignore[union-attr]
    assert zoo.tood_r101_dcnv2_fpn_2x().backbone.deformable_stages == (1, 2, 3)
    assert zoo.tood_x101_dcnv2_fpn_2x().backbone.deformable_stages == (2, 3)
    for config in (zoo.tood_r101_dcnv2_fpn_2x(), zoo.tood_x101_dcnv2_fpn_2x()):
        assert (config.head.deformable_layers, config.head.deform_groups) == (2, 4)
    assert zoo.tood_r101_fpn_2x().head == zoo.tood_r50_fpn_1x().head


def conv_multiply_adds(model: nn.Module, images: torch.Tensor) -> int:
    """Those of all ordinary convolutions, layer by layer."""
    total = 0

    def add(layer: nn.Module, _: object, out: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(layer, nn.Conv2d)
        total += layer.weight[0].numel() * out.numel()

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(add)
    with torch.inference_mode():
        model(images)
    return total


@pytest.mark.parametrize(
    "config",
    [zoo.tood_r50_fpn_1x(), zoo.tood_x101_dcnv2_fpn_2x(), NARROW_RESNEXT_DEFORMABLE],
    ids=["r50", "x101", "narrow"],
)
def test_multiply_adds_are_those_of_all_convolutions(config: AnyModelConfig) -> None:
    cost = measure(config)
    with torch.device("meta"):
        model = build_model(config)
        images = torch.zeros(1, 3, *cost.size)
    assert cost.multiply_adds == conv_multiply_adds(model, images)


def test_memory_is_that_of_the_whole_network_in_a_row() -> None:
    cost = measure(NARROW_RESNEXT_DEFORMABLE)
    with torch.device("meta"):
        model = build_model(NARROW_RESNEXT_DEFORMABLE).eval()
        images = torch.zeros(1, 3, *cost.size)
    with torch.inference_mode(), HeldBytes([images], model.state_dict().values()) as held:
        model(images)
    assert cost.map_bytes == held.most


def test_held_memory_is_that_of_the_largest_moment() -> None:
    x = torch.zeros(1000)
    with HeldBytes([x]) as held:
        y = x + 1  # 2 x 4000 bytes
        y.mul_(2)
        y = y.view(10, 100)[1:] + 1  # 4000 + 4000 + 3600
        z = y * 2  # 4000 + 3600 + 3600
        del y
        z = z.sum(dim=1)
    assert held.most == 11_600

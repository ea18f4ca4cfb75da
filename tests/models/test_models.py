from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import tood
from golden_values import NARROW, narrow_model
from tood.errors import ToodError
from tood.input import normalise, padded_sizes
from tood.models import build_model
from tood.models.backbones import ResNet, ResNetConfig
from tood.models.necks import FPN, FPNConfig
from tood.models.tood import TOOD, THeadConfig
from tood.models.tood.head import aligned_boxes, aligned_scores
from tood.weights import load_weights, save_weights
from tood.zoo import named_model, named_models

SMALL = replace(
    NARROW, classes=3, backbone=ResNetConfig(block="basic", blocks=(1, 1, 1, 1), width=8, stem_width=8, norm_eval=False)
)


def parameters(model: nn.Module, learning: bool = False) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not learning)


def test_r50_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        model = TOOD(named_model("tood_r50_fpn_1x").config())
    assert parameters(model) == 32_200_494
    assert parameters(model, learning=True) == 31_975_150


@pytest.mark.no_cover  # its time goes into PyTorch's Python for the device `meta`
def test_every_named_model_gives_one_box_and_all_scores_a_place() -> None:
    # Models that differ in their training alone are one network.
    for config, name in {named.config(): name for name, named in named_models().items()}.items():
        with torch.device("meta"):
            predictions = build_model(config)(torch.zeros(2, 3, 64, 96))
        places = sum(math.ceil(64 / stride) * math.ceil(96 / stride) for stride in config.strides)
        assert predictions.scores.shape == (2, places, config.classes), name
        assert predictions.boxes.shape == (2, places, 4), name
        assert sum(predictions.priors.level_sizes) == places, name


@pytest.mark.parametrize(
    ("blocks", "block", "count"),
    [
        ((2, 2, 2, 2), "basic", 11_176_512),
        ((3, 4, 6, 3), "basic", 21_284_672),
        ((3, 4, 23, 3), "bottleneck", 42_500_160),
    ],
)
def test_resnets_have_the_published_number_of_parameters(blocks, block, count) -> None:
    with torch.device("meta"):
        assert parameters(ResNet(ResNetConfig(block=block, blocks=blocks))) == count


def test_resnext_101_64x4d_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        backbone = ResNet(ResNetConfig(blocks=(3, 4, 23, 3), groups=64, width_per_group=4))
    assert parameters(backbone) == 81_406_272


def test_frozen_parts_stay_as_they_are_while_the_rest_learns() -> None:
    backbone = ResNet(ResNetConfig(block="basic", blocks=(1, 1, 1, 1), width=8, stem_width=8, norm_eval=False))
    backbone.train()
    assert not backbone.layer1[0].bn1.training
    assert backbone.layer2[0].bn1.training
    frozen = {name for name, parameter in backbone.named_parameters() if not parameter.requires_grad}
    assert frozen == {n for n, _ in backbone.named_parameters() if n.startswith(("conv1", "bn1", "layer1"))}
    backbone = ResNet(ResNetConfig(block="basic", blocks=(1, 1, 1, 1), width=8, stem_width=8, frozen_stages=-1))
    backbone.train()
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    assert not any(m.training for m in backbone.modules() if isinstance(m, nn.BatchNorm2d))


def test_extra_levels_follow_from_the_coarsest_output() -> None:
    neck = FPN(FPNConfig(width=8, levels=5), (4, 6, 8))
    maps = [torch.randn(1, channels, side, side) for channels, side in ((4, 20), (6, 10), (8, 5))]
    levels = neck(maps)
    assert [tuple(level.shape) for level in levels] == [(1, 8, s, s) for s in (20, 10, 5, 3, 2)]
    torch.testing.assert_close(levels[3], neck.extras[0](levels[2]))
    torch.testing.assert_close(levels[4], neck.extras[1](levels[3]))


def test_coarse_levels_one_cell_wide_learn_in_reduced_precision() -> None:
    # oneDNN's bf16 gradient holds what the memory held before; many trials and dirtied memory make that show.
    torch.manual_seed(0)
    fpn = FPN(FPNConfig(width=64, levels=5), (64, 64, 64))
    maps = [torch.randn(2, 64, 8, 8), torch.randn(2, 64, 4, 4), torch.randn(2, 64, 2, 2)]
    expected = torch.autograd.grad(sum(level.sum() for level in fpn(maps)), fpn.extras[1].weight)[0]
    for _ in range(10):
        dirt = [torch.full((64 * 64 * 9 + 7 * i,), 1e30) for i in range(8)]
        del dirt
        with torch.autocast("cpu", torch.bfloat16):
            pyramid = fpn(maps)
        (gradient,) = torch.autograd.grad(sum(level.float().sum() for level in pyramid), fpn.extras[1].weight)
        torch.testing.assert_close(gradient, expected, atol=0.1, rtol=0.05)


def test_the_head_starts_as_specified() -> None:
    torch.manual_seed(0)
    head = TOOD(replace(NARROW, head=THeadConfig(width=64, norm_groups=8))).head
    spread = {name: parameter.std().item() for name, parameter in head.named_parameters() if parameter.numel() > 500}
    for name, std in spread.items():
        wanted = 0.001 if "attention" in name or "regression_alignment" in name else 0.01
        assert std == pytest.approx(wanted, rel=0.15), name
    assert head.classifier.bias.tolist() == pytest.approx([-math.log(99)] * 7)
    assert head.classification_alignment[2].bias.tolist() == pytest.approx([-math.log(99)])
    assert head.regression_alignment[2].bias.tolist() == [0] * 8
    assert [scale.item() for scale in head.scales] == [1] * 5


def test_aligned_scores_are_the_geometric_mean_of_two_probabilities() -> None:
    logits, alignment = torch.randn(2, 3, 4, 5), torch.randn(2, 1, 4, 5)
    wanted = (logits.sigmoid() * alignment.sigmoid()).sqrt()
    torch.testing.assert_close(aligned_scores(logits, alignment), wanted)


def test_the_gradient_of_hopeless_scores_stays_finite() -> None:
    logits = torch.full((1, 1, 1, 1), -200.0, requires_grad=True)
    aligned_scores(logits, torch.full((1, 1, 1, 1), -200.0)).sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def slow_sample(edge: torch.Tensor, y: float, x: float) -> float:
    top, left = math.floor(y), math.floor(x)
    total = 0.0
    for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        if 0 <= row < edge.shape[0] and 0 <= column < edge.shape[1]:
            total += (1 - abs(y - row)) * (1 - abs(x - column)) * edge[row, column].item()
    return total


def test_edges_are_read_bilinearly_from_where_the_offsets_point() -> None:
    generator = torch.Generator().manual_seed(0)
    height, width = 5, 7
    corner = torch.rand(1, 2, height, width, generator=generator)
    boxes = torch.cat([corner - 20, corner + 20], 1)  # too large to be turned inside out, but at the rim
    offsets = torch.randn(1, 8, height, width, generator=generator) * 2
    given = aligned_boxes(boxes, offsets)
    kept = 0
    shifts = offsets[0].view(4, 2, height, width).tolist()
    for row in range(height):
        for column in range(width):
            edges = []
            for edge, (dy, dx) in zip(boxes[0], shifts, strict=True):
                edges.append(slow_sample(edge, row + dy[row][column], column + dx[row][column]))
            if edges[0] > edges[2] or edges[1] > edges[3]:
                edges = boxes[0, :, row, column].tolist()
                kept += 1
            assert given[0, :, row, column].tolist() == pytest.approx(edges, abs=1e-3)
    assert kept < height * width


def test_a_box_turned_inside_out_is_kept_as_it_was() -> None:
    boxes = torch.zeros(1, 4, 1, 2)
    boxes[0, :, 0, 0] = torch.tensor([1.0, 1.0, 3.0, 3.0])
    boxes[0, :, 0, 1] = torch.tensor([9.0, 1.0, 11.0, 3.0])
    offsets = torch.zeros(1, 8, 1, 2)
    offsets[0, 1, 0, 0] = 1.0  # the left edge of the first box read from the second: 9 > 3
    assert torch.equal(aligned_boxes(boxes, offsets), boxes)


def test_anchor_based_and_anchor_free_differ_in_decoding_alone() -> None:
    based = TOOD(replace(NARROW, head=replace(NARROW.head, anchor="based"))).eval()
    based.load_state_dict(narrow_model().state_dict())
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        one, other = based(images), narrow_model()(images)
    torch.testing.assert_close(one.scores, other.scores)
    assert not torch.allclose(one.boxes, other.boxes)


def test_an_untouched_anchor_based_head_predicts_its_anchors() -> None:
    model = TOOD(replace(NARROW, head=replace(NARROW.head, anchor="based"))).eval()
    nn.init.zeros_(model.head.regressor.weight)
    for branch in model.head.regression_alignment:
        if isinstance(branch, nn.Conv2d):
            nn.init.zeros_(branch.weight)
    with torch.inference_mode():
        predictions = model(torch.randn(1, 3, 64, 64))
    torch.testing.assert_close(predictions.boxes[0], predictions.priors.boxes, rtol=1e-4, atol=1e-2)


def test_padding_is_zero_after_normalising() -> None:
    images = torch.randint(0, 256, (2, 3, 32, 64), dtype=torch.uint8)
    sizes = torch.tensor([[32, 40], [20, 64]])
    given = normalise(images, sizes, NARROW.input)
    assert (given[0, :, :, 40:] == 0).all()
    assert (given[1, :, 20:] == 0).all()
    wanted = (images[1, :, 5, 6].float() - torch.tensor(NARROW.input.mean)) / torch.tensor(NARROW.input.std)
    torch.testing.assert_close(given[1, :, 5, 6], wanted)
    assert padded_sizes(torch.tensor([[1, 32], [33, 64]]), 32).tolist() == [[32, 32], [64, 64]]


def test_weights_travel_with_architecture_and_class_names(tmp_path: Path) -> None:
    model = build_model(SMALL).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    save_weights(tmp_path / "a.safetensors", model, ("cat", "dog", "élan"))
    again, names = load_weights(tmp_path / "a.safetensors")
    assert names == ("cat", "dog", "élan")
    assert again.config == SMALL
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(again(images).boxes, model(images).boxes)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("content", [None, b"", b"not a tensor", b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_file_that_holds_no_weights_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "bad.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ToodError, match=r"bad\.safetensors"):
        load_weights(path)


def test_a_truncated_weights_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    save_weights(path, build_model(SMALL), ("a", "b", "c"))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ToodError, match="cut"):
        load_weights(path)


def test_an_unknown_model_name_is_met_with_a_suggestion() -> None:
    with pytest.raises(ToodError, match="did you mean 'tood_tiny'"):
        named_model("tood_tinny")


@pytest.mark.parametrize(
    "change",
    [
        {"classes": 0},
        {"head": replace(SMALL.head, norm_groups=5)},
        {"neck": FPNConfig(width=32, levels=2)},
    ],
)
def test_impossible_architectures_are_refused(change: dict) -> None:
    with pytest.raises(ToodError):
        TOOD(replace(SMALL, **change))


def test_a_narrow_backbone_trains_in_channels_last_without_harm_to_the_heap() -> None:
    """In a process of its own, whose memory allocator looks for damage: PyTorch 2.13's convolution did some."""
    script = """
import torch
from tood.models.backbones import ResNet, ResNetConfig
config = ResNetConfig(block="basic", blocks=(1, 1, 1, 1), width=8, stem_width=8, frozen_stages=-1, norm_eval=False)
backbone = ResNet(config).to(memory_format=torch.channels_last)
image = torch.randn(2, 3, 256, 256).contiguous(memory_format=torch.channels_last)
for _ in range(3):
    sum(features.sum() for features in backbone(image)).backward()
"""
    environment = {**os.environ, "MALLOC_PERTURB_": "7", "PYTHONPATH": str(Path(tood.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

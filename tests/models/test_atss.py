"""ATSS's network: towers, anchors, names, size; its backbone, neck and towers against MMDetection's numbers.

There is no golden file of ATSS itself. That of GFL has the same backbone, neck, towers, scales and assignment under the
same names; where the two differ, the definitions are written once more here.
"""

from __future__ import annotations

import gzip
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from golden_values import golden
from tood.errors import ToodError
from tood.models import build_model
from tood.models.atss import ATSS, ATSSConfig, ATSSHeadConfig
from tood.models.atss.weights import from_published, infer_config, matches, to_published
from tood.models.backbones import ResNetConfig
from tood.models.common.published import Hints
from tood.models.necks import FPNConfig
from tood.structures import DensePredictions
from tood.weights import load_weights, save_weights
from tood.zoo import named_model

NARROW = ATSSConfig(
    classes=7,
    backbone=ResNetConfig(width=8, stem_width=8),
    neck=FPNConfig(width=32),
    head=ATSSHeadConfig(width=32, norm_groups=8),
)
SMALL = replace(
    NARROW,
    classes=3,
    backbone=ResNetConfig(block="basic", blocks=(1, 1, 1, 1), width=8, stem_width=8, frozen_stages=-1, norm_eval=False),
)


def golden_model() -> ATSS:
    """GFL's backbone, neck, towers, classifier and scales in an ATSS; its own branches as initialised."""
    torch.manual_seed(0)
    model = ATSS(NARROW)
    given = golden("gfl")["state_dict"]
    kept = {name.replace("gfl_cls", "atss_cls"): value for name, value in given.items() if "gfl_reg" not in name}
    kept.pop("bbox_head.integral.project")
    missing, unexpected = model.load_state_dict(from_published(kept), strict=False)
    assert not unexpected
    assert sorted(missing) == [
        f"head.{part}.{kind}" for part in ("centerness", "regressor") for kind in ("bias", "weight")
    ]
    return model.eval()


def per_level(values: Tensor, predictions: DensePredictions) -> list[Tensor]:
    """[B, N, D] -> one [B, D, h, w] a level."""
    levels = values.split(predictions.priors.level_sizes, dim=1)
    shapes = predictions.priors.shapes
    return [level.transpose(1, 2).unflatten(2, shape) for level, shape in zip(levels, shapes, strict=True)]


def test_class_logits_and_regression_towers_are_the_reference_s() -> None:
    model, values = golden_model(), golden("gfl")
    state, (wanted_logits, wanted_boxes) = values["state_dict"], values["head_outputs"]
    with torch.inference_mode():
        predictions = model(values["images"])
        maps = model.neck(model.backbone(values["images"]))
        towers = [model.head.regression_tower(features) for features in maps]
    assert predictions.logits
    for given, wanted in zip(per_level(predictions.scores, predictions), wanted_logits, strict=True):
        torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-4)
    weight, bias = state["bbox_head.gfl_reg.weight"], state["bbox_head.gfl_reg.bias"]
    for features, scale, wanted in zip(towers, model.head.scales, wanted_boxes, strict=True):
        given = F.conv2d(features, weight, bias, padding=1) * scale
        torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-4)


def test_boxes_are_deltas_of_square_anchors_on_the_cells_corners() -> None:
    torch.manual_seed(1)
    model = ATSS(SMALL).eval()
    nn.init.normal_(model.head.regressor.weight, std=0.5)  # boxes far from their anchors
    for level, scale in enumerate(model.head.scales):
        nn.init.constant_(scale, 1 + level / 4)
    with torch.inference_mode():
        maps = model.neck(model.backbone(torch.randn(2, 3, 64, 96)))
        predictions = model.head(maps)
    n = 0
    for level, features in enumerate(maps):
        stride = 8 * 2**level
        with torch.inference_mode():
            deltas = model.head.regressor(model.head.regression_tower(features)) * (1 + level / 4)
        for row in range(features.shape[2]):
            for column in range(features.shape[3]):
                dx, dy, dw, dh = (deltas[1, :, row, column] * torch.tensor([0.1, 0.1, 0.2, 0.2])).tolist()
                side = 8 * stride
                limit = abs(math.log(16 / 1000))
                x, y = column * stride + dx * side, row * stride + dy * side
                width, height = (side * math.exp(min(max(d, -limit), limit)) for d in (dw, dh))
                wanted = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
                assert predictions.boxes[1, n].tolist() == pytest.approx(wanted, rel=1e-4, abs=1e-2)
                n += 1
    assert n == predictions.boxes.shape[1]


def test_centerness_comes_from_the_regression_tower_and_can_be_left_out() -> None:
    model = ATSS(SMALL).eval()
    images = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        predictions = model(images)
        maps = model.neck(model.backbone(images))
        wanted = [model.head.centerness(model.head.regression_tower(features)).flatten() for features in maps]
    assert predictions.quality is not None
    torch.testing.assert_close(predictions.quality[0], torch.cat(wanted))

    without = replace(SMALL, head=replace(SMALL.head, centerness=False))
    plain = ATSS(without).eval()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("head.centerness.")})
    with torch.inference_mode():
        again = plain(images)
    assert again.quality is None
    torch.testing.assert_close(again.scores, predictions.scores)
    assert (SMALL.predicts_quality, without.predicts_quality) == (True, False)


def test_the_head_starts_as_specified() -> None:
    torch.manual_seed(0)
    head = ATSS(replace(NARROW, head=ATSSHeadConfig(width=64, norm_groups=8))).head
    for name, parameter in head.named_parameters():
        if parameter.ndim == 4:
            assert parameter.std().item() == pytest.approx(0.01, rel=0.15), name
        elif name == "classifier.bias":
            assert parameter.tolist() == pytest.approx([-math.log(99)] * 7)
        elif name.endswith("bias"):
            assert not parameter.any(), name
    assert [scale.item() for scale in head.scales] == [1] * 5
    assert head.classification_tower[0].conv.bias is None


def published_r50() -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of the published file: backbone and neck are TOOD's."""
    shapes: dict[str, tuple[int, ...]] = {}
    listed = Path(__file__).parents[1] / "golden/state_dict_names/tood_r50_fpn_1x.tsv.gz"
    for line in gzip.decompress(listed.read_bytes()).decode().splitlines():
        name, _, shape = line.partition("\t")
        if name.startswith(("backbone.", "neck.")):
            shapes[name] = tuple(int(side) for side in re.findall(r"\d+", shape))
    for tower in ("cls_convs", "reg_convs"):
        for layer in range(4):
            shapes[f"bbox_head.{tower}.{layer}.conv.weight"] = (256, 256, 3, 3)
            shapes[f"bbox_head.{tower}.{layer}.gn.weight"] = shapes[f"bbox_head.{tower}.{layer}.gn.bias"] = (256,)
    for branch, outputs in (("cls", 80), ("reg", 4), ("centerness", 1)):
        shapes[f"bbox_head.atss_{branch}.weight"] = (outputs, 256, 3, 3)
        shapes[f"bbox_head.atss_{branch}.bias"] = (outputs,)
    return shapes | {f"bbox_head.scales.{level}.scale": () for level in range(5)}


def test_the_r50_has_the_published_names_shapes_and_parameters() -> None:
    with torch.device("meta"):
        model = build_model(named_model("atss_r50_fpn_1x").config())
    state = model.state_dict()
    published = to_published(state)
    assert {name: tuple(tensor.shape) for name, tensor in published.items()} == published_r50()
    assert len(published) == 369
    assert from_published(published).keys() == state.keys()
    assert sum(p.numel() for p in model.parameters()) == 32_295_322
    # MMDetection states 32.07 M: those that learn.
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 32_069_978


@pytest.mark.parametrize("config", [NARROW, SMALL, replace(NARROW, head=replace(NARROW.head, centerness=False))])
def test_the_network_shows_in_its_tensors(config: ATSSConfig) -> None:
    state = ATSS(config).state_dict()
    published = to_published(state)
    assert matches(published.keys())
    assert matches(state.keys())
    assert not matches(golden("anchor_free")["state_dict"].keys())
    inferred = infer_config(from_published(published))
    # What a training run freezes shows in no tensor.
    backbone = replace(
        inferred.backbone, frozen_stages=config.backbone.frozen_stages, norm_eval=config.backbone.norm_eval
    )
    assert replace(inferred, backbone=backbone) == config
    said = Hints(model={"bbox_head": {"norm_cfg": {"num_groups": 4}, "anchor_generator": {"octave_base_scale": 6}}})
    hinted = infer_config(state, said).head
    assert (hinted.norm_groups, hinted.anchor_scale) == (4, 6.0)


def test_weights_travel_with_their_family(tmp_path: Path) -> None:
    model = build_model(SMALL).eval()
    save_weights(tmp_path / "a.safetensors", model, ("cat", "dog", "élan"))
    again, names = load_weights(tmp_path / "a.safetensors")
    assert isinstance(again, ATSS)
    assert (again.config, names) == (SMALL, ("cat", "dog", "élan"))
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(again(images).quality, model(images).quality)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"classes": 0}, "model.classes"),
        ({"head": replace(SMALL.head, norm_groups=5)}, "model.head.norm_groups"),
        ({"neck": FPNConfig(width=32, levels=2)}, "model.neck.levels"),
    ],
)
def test_impossible_architectures_are_refused(change: dict, key: str) -> None:
    with pytest.raises(ToodError, match=key):
        ATSS(replace(SMALL, **change))

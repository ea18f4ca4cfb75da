"""The copy of a network that only predicts: the same predictions, by fewer operations."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from golden_values import NARROW, golden, narrow_model
from narrow_models import BASED, FREE, NARROW_ATSS, RESNEXT_DEFORMABLE, lively
from operation_calls import Calls
from tood.errors import ToodError
from tood.inference import postprocess
from tood.models import AnyDetector, AnyModelConfig, build_model, for_inference
from tood.ops.arithmetic import fuses_convolutions
from tood.ops.inference import InferenceConv2d
from tood.precision import choose_precision

VALUES = golden("anchor_free")
IMAGES = torch.randn(2, 3, 160, 224, generator=torch.Generator().manual_seed(0))


def network(config: AnyModelConfig) -> AnyDetector:
    torch.manual_seed(0)
    return lively(build_model(config))


def test_golden_detections() -> None:
    scales = VALUES["scale_factors"][:, None].expand(-1, 2)
    with torch.inference_mode():
        results = postprocess(for_inference(narrow_model())(VALUES["images"]), scales, NARROW.postprocess)
    for found, wanted in zip(results, VALUES["detections"], strict=True):
        assert torch.equal(found.labels, wanted["labels"])
        torch.testing.assert_close(found.scores, wanted["scores"], rtol=1e-4, atol=0)
        torch.testing.assert_close(found.boxes, wanted["boxes"], rtol=0, atol=1e-2)


def test_golden_maps() -> None:
    with torch.inference_mode():
        predictions = for_inference(narrow_model())(VALUES["images"])
    levels = zip(VALUES["cls_scores"], VALUES["bbox_preds"], (8, 16, 32, 64, 128), strict=True)
    scores = predictions.scores.split(predictions.priors.level_sizes, dim=1)
    boxes = predictions.boxes.split(predictions.priors.level_sizes, dim=1)
    for (wanted_scores, wanted_boxes, stride), given_scores, given_boxes in zip(levels, scores, boxes, strict=True):
        wanted_scores, wanted_boxes = (x.flatten(2).transpose(1, 2) for x in (wanted_scores, wanted_boxes))
        torch.testing.assert_close(given_scores, wanted_scores, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(given_boxes, wanted_boxes * stride, rtol=0, atol=1e-2)


@pytest.mark.parametrize(
    "config", [FREE, BASED, RESNEXT_DEFORMABLE, NARROW_ATSS], ids=["free", "based", "resnext-dcn", "atss"]
)
def test_every_kind_of_network(config: AnyModelConfig) -> None:
    model = network(config)
    with torch.inference_mode():
        wanted, given = model(IMAGES), for_inference(model)(IMAGES)
    # Random offsets of deformable layers amplify rounding, as test_golden_dcn.py says.
    deformable = 20 if config is RESNEXT_DEFORMABLE else 1
    torch.testing.assert_close(given.scores, wanted.scores, rtol=1e-4 * deformable, atol=1e-5 * deformable)
    torch.testing.assert_close(given.boxes, wanted.boxes, rtol=1e-4 * deformable, atol=1e-2 * deformable)
    assert given.logits == wanted.logits
    assert torch.equal(given.priors.centres, wanted.priors.centres)
    if wanted.quality is None:
        assert given.quality is None
    else:
        torch.testing.assert_close(given.quality, wanted.quality, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("config", [FREE, RESNEXT_DEFORMABLE, NARROW_ATSS], ids=["free", "resnext-dcn", "atss"])
def test_bf16_is_near_and_gives_fp32(config: AnyModelConfig) -> None:
    model = network(config)
    with torch.inference_mode():
        wanted, given = model(IMAGES), for_inference(model, torch.bfloat16)(IMAGES)
    assert given.scores.dtype == given.boxes.dtype == torch.float32
    error = (given.probabilities() - wanted.probabilities()).abs().mean()
    assert float(error) < 0.1 * float(wanted.probabilities().std())


def test_the_plain_network_is_left_alone() -> None:
    model = network(FREE).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    copy = for_inference(model)
    with torch.inference_mode():
        images = IMAGES.clone()
        first = copy(images).scores
        assert torch.equal(images, IMAGES)
        for value in model.state_dict().values():
            value.zero_()
        assert torch.equal(copy(IMAGES).scores, first)
    assert model.training
    assert set(model.state_dict()) == set(before)


def test_other_modules_are_given_back() -> None:
    module = nn.Linear(1, 1)
    assert for_inference(module) is module


def test_no_norm_is_a_pass_of_its_own_and_the_trunk_is_in_no_one_piece() -> None:
    copy = for_inference(network(FREE))
    with torch.no_grad(), Calls() as calls:  # inference mode would not take composite operations apart
        copy(IMAGES)
    assert not [name for name in calls.counts if "batch_norm" in name]
    assert calls.largest_cat < 2 * 6 * 32 * 20 * 28  # of the finest level


def test_wide_layers_take_winograd_s_way() -> None:
    wide = replace(FREE, neck=replace(FREE.neck, width=128), head=replace(FREE.head, width=128))
    model = network(wide)
    copy = for_inference(model)
    with torch.no_grad(), Calls() as calls:  # inference mode would not take composite operations apart
        given = copy(IMAGES)
    with torch.inference_mode():
        wanted = model(IMAGES)
    torch.testing.assert_close(given.scores, wanted.scores, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(given.boxes, wanted.boxes, rtol=1e-4, atol=1e-2)
    takers = [
        module for module in copy.modules() if isinstance(module, InferenceConv2d) and module.winograd is not None
    ]
    assert bool(takers) == fuses_convolutions(torch.float32)
    if takers:
        assert calls.counts["aten::bmm"] > 2 * 5


def test_precision() -> None:
    cpu = torch.device("cpu")
    assert choose_precision("fp32", cpu) == ("fp32", "asked")
    assert str(choose_precision("fp32", cpu)) == "fp32, as asked"
    assert choose_precision("bf16", cpu).dtype == torch.bfloat16
    assert choose_precision("auto", torch.device("cuda")).dtype == torch.float32
    with pytest.raises(ToodError, match="precision is 'fp8'"):
        choose_precision("fp8", cpu)  # type: ignore[arg-type]

"""PP-YOLOE and PP-YOLOE+ against PaddleDetection's numbers: maps, losses, gradients, merged blocks, sizes."""

from __future__ import annotations

import gzip
import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from golden_values import golden, targets_of
from tood.alignment import Progress, VarifocalCriterion, VarifocalCriterionConfig
from tood.alignment.criteria import Losses
from tood.errors import ToodError
from tood.inference.postprocess import postprocess
from tood.models import build_model, for_inference
from tood.models.backbones import CSPRepResNetConfig
from tood.models.common.rep_block import RepBlock
from tood.models.inference import InferenceDetector
from tood.models.measure import measure
from tood.models.necks import CSPPANConfig
from tood.models.ppyoloe import PPYOLOE, ETHeadConfig, PPYOLOEConfig
from tood.models.ppyoloe.weights import from_published, infer_config, matches, to_published
from tood.structures import DensePredictions, Targets
from tood.zoo import named_model

FILES = ("ppyoloe", "ppyoloe_plus")
PHASES = {"atss": Progress(epoch=0), "tal": None}
# Of the published networks without factors of branches: parameters with the 17 fixed bins, with merged blocks too,
# multiply-adds in units of 10^9.
SIZES = {
    "s": (8_084_605, 7_926_277, 8.796),
    "m": (24_134_909, 23_427_509, 25.618),
    "l": (54_078_573, 52_198_941, 56.885),
    "x": (102_331_501, 98_424_061, 107.222),
}


def golden_model(file: str) -> PPYOLOE:
    config = golden(file)["config"]
    torch.manual_seed(0)
    model = PPYOLOE(
        PPYOLOEConfig.scaled(config["width_mult"], config["depth_mult"], config["use_alpha"], config["num_classes"])
    )
    missing, unexpected = model.load_state_dict(from_published(golden(file)["state_dict"]), strict=False)
    assert not unexpected
    assert all(name.endswith(".num_batches_tracked") for name in missing)
    return model.eval()


def reversed_levels(predictions: DensePredictions) -> Tensor:
    """[N] the priors from the coarsest level to the finest, as PaddleDetection has them."""
    sizes = predictions.priors.level_sizes
    return torch.cat(torch.arange(sum(sizes)).split(sizes)[::-1])


def targets(file: str, with_objects: tuple[bool, bool] = (True, True)) -> list[Targets]:
    values = golden(file)
    pairs = zip(values["gt_boxes"], values["gt_labels"], with_objects, strict=True)
    given = [(boxes, labels.long()) if kept else (boxes[:0], labels[:0].long()) for boxes, labels, kept in pairs]
    return targets_of([boxes for boxes, _ in given], [labels for _, labels in given])


def assert_losses(losses: Losses, wanted: dict[str, Tensor], rtol: float = 1e-4) -> None:
    weights = {"cls": 1.0, "box": 2.5, "dfl": 0.5}
    for term, name in (("cls", "loss_cls"), ("box", "loss_iou"), ("dfl", "loss_dfl")):
        torch.testing.assert_close(losses.terms[term] / weights[term], wanted[name].view(()), rtol=rtol, atol=1e-6)
    torch.testing.assert_close(losses.total, wanted["loss"].view(()), rtol=rtol, atol=1e-6)


@pytest.mark.parametrize("file", FILES)
def test_maps_predictions_and_detections_are_the_reference_s(file: str) -> None:
    model, values = golden_model(file), golden(file)
    with torch.inference_mode():
        maps = model.backbone(values["images"])
        pyramid = model.neck(maps)
        found = model(values["images"])
    for given, wanted in zip([*maps, *pyramid], [*values["backbone"], *values["neck"][::-1]], strict=True):
        torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-5)
    order = reversed_levels(found)
    points = found.priors.centres[order] / found.priors.strides[order, None]
    torch.testing.assert_close(points, values["anchor_points"])
    torch.testing.assert_close(found.boxes[:, order], values["boxes"], rtol=1e-4, atol=2e-3)
    torch.testing.assert_close(found.probabilities()[:, order].mT, values["scores"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.probabilities()[:, order], values["train_scores"], rtol=1e-4, atol=1e-5)
    assert found.distributions is not None
    given = found.distributions[:, order].softmax(dim=-1)
    torch.testing.assert_close(given, values["train_distribution"], rtol=1e-4, atol=1e-5)

    detections = postprocess(found, values["scale_factors"].flip(1), model.config.postprocess)
    for image, wanted in zip(detections, values["detections"], strict=True):
        # Paddle's go class by class; ours by their score.
        order = wanted["scores"].flatten().argsort(descending=True, stable=True)
        torch.testing.assert_close(image.scores, wanted["scores"].flatten()[order], rtol=1e-4, atol=1e-5)
        assert image.labels.tolist() == wanted["labels"].flatten()[order].long().tolist()
        torch.testing.assert_close(image.boxes, wanted["boxes"][order], rtol=1e-4, atol=5e-3)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("file", FILES)
def test_losses_assignments_and_gradients_are_the_reference_s(file: str, phase: str) -> None:
    model, values = golden_model(file), golden(file)
    found = model(values["images"])
    losses = VarifocalCriterion()(found, targets(file), None, PHASES[phase])
    losses.total.backward()
    wanted = values[phase]
    assert_losses(losses, wanted)
    assigned, order = losses.assignment, reversed_levels(found)
    scores = torch.zeros_like(wanted["assigned_scores"])
    labels = assigned.labels[:, order]
    scores.scatter_(2, labels.clamp(min=0)[..., None], assigned.target_scores[:, order, None])
    torch.testing.assert_close(scores, wanted["assigned_scores"], rtol=1e-3, atol=1e-5)
    learnt = wanted["assigned_scores"].sum(dim=2) > 1e-6
    assert learnt.sum() > 50
    assert torch.equal(labels[learnt], wanted["assigned_labels"].long()[learnt])
    torch.testing.assert_close(assigned.boxes[:, order][learnt], wanted["assigned_boxes"][learnt])
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    published = to_published(gradients)
    for name, gradient in wanted["grads"].items():
        largest = float(gradient.abs().max())
        torch.testing.assert_close(published[name].view_as(gradient), gradient, rtol=1e-3, atol=1e-3 * largest)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("file", FILES)
def test_losses_without_objects_are_the_reference_s(file: str, phase: str) -> None:
    model, values = golden_model(file), golden(file)
    with torch.no_grad():
        found = model(values["images"])
    for name, with_objects in (("second_image", (True, False)), ("both_images", (False, False))):
        losses = VarifocalCriterion()(found, targets(file, with_objects), None, PHASES[phase])
        assert_losses(losses, values["empty"][name][phase])


@pytest.mark.parametrize("file", FILES)
def test_running_statistics_follow_the_batch_s_own_variance(file: str) -> None:
    model, values = golden_model(file), golden(file)
    model.train()
    losses = VarifocalCriterion()(model(values["images"]), targets(file))
    # Scores of up to 100 that fp32 rounds to probabilities of 1 cost what the last digit says.
    assert_losses(losses, values["batchnorm_training"]["losses"], rtol=1e-3)
    losses.total.backward()
    published = to_published(model.state_dict())
    for name, wanted in values["batchnorm_training"]["after"].items():
        torch.testing.assert_close(published[name], wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("file", FILES)
def test_merged_blocks_are_the_reference_s(file: str) -> None:
    model, values = golden_model(file), golden(file)
    names, state = set(), to_published(model.state_dict())
    blocks = {name: block for name, block in model.named_modules() if isinstance(block, RepBlock)}
    merged: dict[str, Tensor] = {}
    for name, block in blocks.items():
        place = published_name(f"{name}.dense.conv.weight", model).removesuffix(".conv1.conv.weight")
        conv = block.merged()
        merged |= {f"{place}.conv.weight": conv.weight, f"{place}.conv.bias": conv.bias}  # type: ignore[dict-item]
        names.add(place)
    kept = {
        name for name in state if not any(name.startswith((f"{place}.conv1.", f"{place}.conv2.")) for place in names)
    }
    assert kept | merged.keys() == set(values["deploy"]["names"])
    for name, wanted in values["deploy"]["state_dict"].items():
        torch.testing.assert_close(merged[name], wanted, rtol=1e-4, atol=1e-5)

    fused = for_inference(model)
    assert isinstance(fused, InferenceDetector)
    assert not any(isinstance(module, RepBlock | nn.BatchNorm2d) for module in fused.modules())
    with torch.inference_mode():
        found, plain = fused(values["images"]), model(values["images"])
    order = reversed_levels(found)
    torch.testing.assert_close(found.probabilities(), plain.probabilities(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.boxes[:, order], values["deploy"]["boxes"], rtol=1e-4, atol=4e-3)
    torch.testing.assert_close(found.probabilities()[:, order].mT, values["deploy"]["scores"], rtol=1e-4, atol=1e-4)


def published_name(name: str, model: PPYOLOE) -> str:
    """What PaddleDetection calls one of our tensors."""
    state = model.state_dict()
    (published,) = (key for key, tensor in to_published(state).items() if tensor is state[name])
    return published


@cache
def listed(name: str) -> dict[str, tuple[tuple[int, ...], bool]]:
    """Shape of every published tensor, and whether it is trained."""
    path = Path(__file__).parents[1] / f"golden/state_dict_names/{name}.tsv.gz"
    rows = (line.split("\t") for line in gzip.decompress(path.read_bytes()).decode().splitlines())
    return {
        key: (() if shape == "scalar" else tuple(map(int, shape.split("x"))), trained == "1")
        for key, shape, trained in rows
    }


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["ppyoloe", "ppyoloe_plus"])
def test_names_shapes_parameters_and_cost_of_every_size(kind: str, size: str) -> None:
    name = f"{kind}_{size}"
    config = named_model(name).config()
    with torch.device("meta"):
        model = build_model(config)
    published = to_published(model.state_dict())
    assert {key: tuple(tensor.shape) for key, tensor in published.items()} == {
        key: shape for key, (shape, _) in listed(name).items()
    }
    assert infer_config(from_published(published)) == config
    trained = {key for key, (_, is_trained) in listed(name).items() if is_trained}
    parameters, merged, multiply_adds = SIZES[size]
    blocks = [block for block in model.modules() if isinstance(block, RepBlock)]
    alphas = sum(block.alpha is not None for block in blocks)
    bins = 17
    cost = measure(config)
    assert (cost.parameters, cost.trainable) == (parameters + alphas, parameters + alphas - bins)
    assert sum(math.prod(listed(name)[key][0]) for key in trained) == cost.trainable
    assert cost.merged == merged
    assert cost.size == (640, 640)
    assert cost.multiply_adds / 1e9 == pytest.approx(multiply_adds, rel=0.02)


def test_the_tiny_one_costs_what_the_tiny_tood_costs() -> None:
    ours, theirs = (measure(named_model(name).config()) for name in ("ppyoloe_tiny", "tood_tiny"))
    assert ours.size == theirs.size
    assert ours.multiply_adds == pytest.approx(theirs.multiply_adds, rel=0.1)


def test_the_network_starts_as_specified() -> None:
    torch.manual_seed(0)
    model = PPYOLOE(PPYOLOEConfig.scaled(0.5, 0.33, plus=True, classes=3))
    for name, layer in model.named_modules():
        if not isinstance(layer, nn.Conv2d):
            continue
        if name.startswith(("head.classifiers", "head.regressors")):
            assert not layer.weight.any()
            assert layer.bias is not None
            assert layer.bias.unique().tolist() == pytest.approx([-4.595 if "classifiers" in name else 1.0])
            continue
        std = 0.001 if name.startswith("head") and name.endswith("fc") else math.sqrt(2 / layer.weight[0].numel())
        assert float(layer.weight.detach().std()) == pytest.approx(std, rel=0.2), name
        assert layer.bias is None or not layer.bias.any()
    assert all(
        block.alpha is None or block.alpha.item() == 1 for block in model.modules() if isinstance(block, RepBlock)
    )
    found = model.eval()(torch.zeros(1, 3, 64, 64))
    torch.testing.assert_close(found.probabilities(), torch.full_like(found.scores, 0.01), rtol=1e-3, atol=0)
    # Distributions without a preference: eight strides to every side.
    sides = (found.boxes[..., 2:] - found.boxes[..., :2]) / found.priors.strides[None, :, None]
    torch.testing.assert_close(sides, torch.full_like(sides, 16.0))


def test_whose_tensors_they_are() -> None:
    assert matches(golden("ppyoloe")["state_dict"].keys())
    assert not matches(golden("anchor_free")["state_dict"].keys())
    assert not matches(golden("gfl")["state_dict"].keys())


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda c: replace(c, classes=0), "model.classes"),
        (lambda c: replace(c, neck=CSPPANConfig(widths=(8, 8))), "model.neck.widths"),
        (lambda c: replace(c, neck=CSPPANConfig(blocks=0)), "model.neck.blocks"),
        (lambda c: replace(c, backbone=CSPRepResNetConfig(widths=(8, 8))), "model.backbone.widths"),
        (lambda c: replace(c, backbone=CSPRepResNetConfig(outputs=(1, 2, 7))), "model.backbone.outputs"),
        (lambda c: replace(c, head=ETHeadConfig(bins=1)), "model.head.bins"),
    ],
)
def test_impossible_architectures_are_refused(change: Any, key: str) -> None:
    with pytest.raises(ToodError, match=key):
        PPYOLOE(change(PPYOLOEConfig()))


def test_epochs_decide_who_assigns() -> None:
    config = VarifocalCriterionConfig(warm_up_epochs=30, warm_up_share=30 / 80)
    assert [config.in_warm_up(Progress(epoch, epoch / 80)) for epoch in (0, 29, 30, 79)] == [True, True, False, False]
    assert not config.in_warm_up(Progress(epoch=3, share=0.5))
    with pytest.raises(ToodError, match="warm_up_share"):
        VarifocalCriterionConfig(warm_up_share=1.5)

"""A narrow ATSS from a published file, against the whole of it written once more over the published tensors.

In place of a golden file: head, decoding, losses and their gradients are functions of the state dict here, positives
picked row by row as the reference picks them; backbone and neck are pinned by the golden values of TOOD and GFL.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from golden_values import golden, targets_of
from tood.alignment import ATSSAssigner, ATSSCriterion
from tood.inference import postprocess
from tood.input import padded_sizes
from tood.models.atss import ATSS
from tood.models.atss.weights import to_published
from tood.structures import Priors
from tood.weights import load_detector_file

STRIDES = (8, 16, 32, 64, 128)
VALUES = golden("gfl")


def published_file(path: Path) -> Path:
    """A file as MMDetection 3.x leaves it: GFL's golden backbone, neck, towers, scales; branches at random."""
    generator = torch.Generator().manual_seed(0)
    state = {
        name: value for name, value in VALUES["state_dict"].items() if "gfl_" not in name and "integral" not in name
    }
    for branch, outputs in (("cls", 7), ("reg", 4), ("centerness", 1)):
        state[f"bbox_head.atss_{branch}.weight"] = torch.randn(outputs, 32, 3, 3, generator=generator) * 0.05
        state[f"bbox_head.atss_{branch}.bias"] = torch.randn(outputs, generator=generator) - float(branch == "cls")
    torch.save({"state_dict": state, "meta": {"dataset_meta": {"classes": tuple("abcdefg")}}}, path)
    return path


def loaded(path: Path) -> ATSS:
    model, names = load_detector_file(published_file(path))
    assert isinstance(model, ATSS)
    assert names == tuple("abcdefg")
    assert model.config.head.norm_groups == 8
    return model


def anchors_of(maps: list[Tensor]) -> Tensor:
    boxes = []
    for features, stride in zip(maps, STRIDES, strict=True):
        for row in range(features.shape[2]):
            for column in range(features.shape[3]):
                x, y, half = column * stride, row * stride, 4 * stride
                boxes.append([x - half, y - half, x + half, y + half])
    return torch.tensor(boxes, dtype=torch.float32)


def head(state: dict[str, Tensor], maps: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [B, N, C], boxes [B, N, 4] in input pixels, centerness logits [B, N]."""

    def conv(features: Tensor, name: str) -> Tensor:
        return F.conv2d(features, state[f"bbox_head.{name}.weight"], state.get(f"bbox_head.{name}.bias"), padding=1)

    def tower(features: Tensor, name: str) -> Tensor:
        for layer in range(4):
            norm = f"bbox_head.{name}.{layer}.gn"
            features = conv(features, f"{name}.{layer}.conv")
            features = F.relu(F.group_norm(features, 8, state[f"{norm}.weight"], state[f"{norm}.bias"]))
        return features

    outputs: list[list[Tensor]] = [[], [], []]
    for level, features in enumerate(maps):
        regression = tower(features, "reg_convs")
        maps_of_level = (
            conv(tower(features, "cls_convs"), "atss_cls"),
            conv(regression, "atss_reg") * state[f"bbox_head.scales.{level}.scale"],
            conv(regression, "atss_centerness"),
        )
        for output, values in zip(outputs, maps_of_level, strict=True):
            output.append(values.permute(0, 2, 3, 1).flatten(1, 2))
    logits, deltas, centred = (torch.cat(output, 1) for output in outputs)
    anchors = anchors_of(maps)
    size, middle = anchors[:, 2:] - anchors[:, :2], (anchors[:, :2] + anchors[:, 2:]) / 2
    limit = abs(math.log(16 / 1000))
    middle = middle + deltas[..., :2] * 0.1 * size
    size = size * (deltas[..., 2:] * 0.2).clamp(-limit, limit).exp()
    return logits, torch.cat([middle - size / 2, middle + size / 2], 2), centred[..., 0]


def giou(a: Tensor, b: Tensor) -> Tensor:
    overlap = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(1)
    union = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - overlap
    hull = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).prod(1)
    return overlap / union - (hull - union) / hull


def losses(outputs: tuple[Tensor, Tensor, Tensor], priors: Priors, owners: Tensor, valid: Tensor) -> dict[str, Tensor]:
    """[N] per prior and loss, summed over the images; `owners` [B, N] index the ground truths, -1 on negatives."""
    logits, boxes, centred = outputs
    number = sum(max(int((row >= 0).sum()), 1) for row in owners)
    result = {name: torch.zeros(len(priors.centres)) for name in ("cls", "box", "centerness")}
    weights = []
    for i, row in enumerate(owners):
        rows = (row >= 0).nonzero()[:, 0]
        wanted, labels = VALUES["gt_boxes"][i][row[rows]], VALUES["gt_labels"][i][row[rows]]
        target = torch.zeros_like(logits[i])
        target[rows, labels] = 1
        p = logits[i].sigmoid()
        focal = torch.where(
            target == 1, 0.25 * (1 - p) ** 2 * -F.logsigmoid(logits[i]), 0.75 * p**2 * -F.logsigmoid(-logits[i])
        )
        result["cls"] = result["cls"] + focal.sum(1) * valid[i] / number
        near, far = priors.centres[rows] - wanted[:, :2], wanted[:, 2:] - priors.centres[rows]
        weight = (torch.minimum(near, far) / torch.maximum(near, far)).prod(1).sqrt()
        weights.append(weight.sum())
        result["box"] = result["box"].index_add(0, rows, 2 * weight * (1 - giou(boxes[i][rows], wanted)))
        entropy = F.binary_cross_entropy_with_logits(centred[i][rows], weight, reduction="none")
        result["centerness"] = result["centerness"].index_add(0, rows, entropy / number)
    result["box"] = result["box"] / torch.stack(weights).sum().clamp(min=1)
    return result


def test_outputs_losses_and_gradients(tmp_path: Path) -> None:
    model = loaded(tmp_path / "atss_r50_fpn_1x_coco_20200209-985f7bd0.pth").train()
    predictions = model(VALUES["images"])
    sizes = padded_sizes(VALUES["img_shapes"], 32)
    found = ATSSCriterion()(predictions, targets_of(VALUES["gt_boxes"], VALUES["gt_labels"]), sizes)
    found.total.backward()

    state = {
        name: value.detach().clone().requires_grad_(name.startswith("bbox_head."))
        if value.is_floating_point()
        else value
        for name, value in to_published(model.state_dict()).items()
    }
    with torch.no_grad():
        maps = model.neck(model.backbone(VALUES["images"]))
    outputs = head(state, maps)
    for given, wanted in zip((predictions.scores, predictions.boxes, predictions.quality), outputs, strict=True):
        assert given is not None
        torch.testing.assert_close(given, wanted, rtol=1e-5, atol=1e-3)

    priors = predictions.priors
    truth = targets_of(VALUES["gt_boxes"], VALUES["gt_labels"])
    cells = torch.div(priors.centres, priors.strides[:, None], rounding_mode="floor")
    valid = torch.stack([(cells < torch.ceil(side.flip(0) / priors.strides[:, None])).all(1) for side in sizes])
    wanted_losses = losses(outputs, priors, ATSSAssigner()(priors, truth, valid).gt_index, valid)
    for name, per_prior in wanted_losses.items():
        levels = torch.stack([level.sum() for level in per_prior.split(priors.level_sizes)])
        given_levels = torch.stack([level.sum() for level in found.per_prior[name].split(priors.level_sizes, dim=1)])
        torch.testing.assert_close(given_levels, levels, rtol=1e-4, atol=1e-6)
    sum(values.sum() for values in wanted_losses.values()).backward()  # type: ignore[union-attr]
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    compared = 0
    for name, gradient in to_published(gradients).items():
        if name.startswith("bbox_head."):
            given = state[name].grad
            assert given is not None, name
            torch.testing.assert_close(gradient, given, rtol=1e-4, atol=1e-4 * float(given.abs().max()), msg=name)
            compared += 1
    assert compared == 35


def test_an_image_without_ground_truth_counts_as_one_positive(tmp_path: Path) -> None:
    model = loaded(tmp_path / "a.pth")
    predictions = model(VALUES["images"])
    truth = targets_of(VALUES["gt_boxes"], VALUES["gt_labels"])
    nothing = targets_of([truth[0].boxes[:0], truth[1].boxes], [truth[0].labels[:0], truth[1].labels])
    found = ATSSCriterion()(predictions, nothing)
    owners = found.assignment.gt_index
    assert not (owners[0] >= 0).any()
    outputs = predictions.scores, predictions.boxes, predictions.quality
    wanted = losses(outputs, predictions.priors, owners, torch.ones_like(owners))  # type: ignore[arg-type]
    for name, value in found.terms.items():
        torch.testing.assert_close(value, wanted[name].sum(), rtol=1e-4, atol=1e-6)
    found.total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_detections_are_within_their_images(tmp_path: Path) -> None:
    model = loaded(tmp_path / "a.pth")
    scales = VALUES["scale_factors"][:, None].expand(-1, 2)
    with torch.inference_mode():
        results = postprocess(model(VALUES["images"]), scales, model.config.postprocess, VALUES["img_shapes"])
    for found, shape, scale in zip(results, VALUES["img_shapes"], VALUES["scale_factors"], strict=True):
        assert 0 < len(found.scores) <= 100
        assert found.boxes.min() >= 0
        assert (found.boxes[:, 2:] <= shape.flip(0) / scale + 1e-3).all()

"""TOOD's variants that no golden file shows, against the network written once more over the published tensors.

In float64 and plain PyTorch: attention scales the trunk itself, edges and deformable samples are four weighted reads,
assignments are loops over ground truths and places. Formulated after the paper and the published names alone.
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from golden_values import targets_of
from narrow_models import BASED, DEFORMABLE, FREE, RESNEXT_DEFORMABLE, lively
from tood.alignment import Progress, TaskAlignedCriterion
from tood.models.tood import TOOD, TOODConfig
from tood.models.tood.weights import to_published
from tood.structures import Targets

STRIDES = (8, 16, 32, 64, 128)
State = dict[str, Tensor]
# Two images of 96 x 128, the first of 66 x 90 pixels: padded on its own it would be 96 x 96.
IMAGES = torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(3))
PADDED = ((96, 96), (96, 128))
BOXES = (
    [[5.3, 7.1, 60.7, 50.6], [10.2, 9.4, 55.1, 61.9], [40.8, 30.5, 88.6, 64.2]],
    [[30.1, 20.7, 90.2, 80.3], [70.6, 5.2, 127.3, 45.9], [2.4, 60.1, 29.8, 95.5], [34.9, 25.2, 85.3, 78.1]],
)
LABELS = ([2, 5, 2], [0, 6, 3, 3])


def truth_of(counts: tuple[int, int]) -> list[Targets]:
    boxes = [torch.tensor(rows[:n]).reshape(-1, 4) for rows, n in zip(BOXES, counts, strict=True)]
    labels = [torch.tensor(rows[:n], dtype=torch.long) for rows, n in zip(LABELS, counts, strict=True)]
    return targets_of(boxes, labels)


def published(model: TOOD) -> State:
    """Published names, float64; those that learn are leaves."""
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    state = {}
    for name, tensor in model.state_dict().items():
        double = tensor.double() if tensor.is_floating_point() else tensor
        state[name] = double.clone().requires_grad_(name in learning)
    return to_published(state, "mmdet")


def bilinear(values: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """[C, H, W] read at [h, w] places -> [C, h, w], zeros outside."""
    height, width = values.shape[1:]
    total = values.new_zeros(len(values), *y.shape)
    for row in (y.detach().floor(), y.detach().floor() + 1):
        for column in (x.detach().floor(), x.detach().floor() + 1):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            share = (1 - (y - row).abs()) * (1 - (x - column).abs()) * inside
            rows, columns = row.clamp(0, height - 1).long(), column.clamp(0, width - 1).long()
            total = total + values[:, rows, columns] * share
    return total


def deformable(x: Tensor, weight: Tensor, predicted: Tensor, stride: int) -> Tensor:
    """DCNv2: `predicted` [B, 27 D, h, w] are two chunks of offsets, then masks."""
    batch, channels = x.shape[:2]
    first, second, masks = predicted.chunk(3, 1)
    offsets, masks = torch.cat([first, second], 1), masks.sigmoid()
    deform_groups, (height, width) = masks.shape[1] // 9, masks.shape[2:]
    rows = torch.arange(height)[:, None] * stride - 1
    columns = torch.arange(width)[None] * stride - 1
    per_group, per_weight = channels // deform_groups, weight.shape[1]
    out = []
    for b in range(batch):
        samples = x.new_zeros(9, channels, height, width)
        for group in range(deform_groups):
            for k in range(9):
                point = 9 * group + k
                y = rows + k // 3 + offsets[b, 2 * point]
                z = columns + k % 3 + offsets[b, 2 * point + 1]
                some = slice(group * per_group, (group + 1) * per_group)
                samples[k, some] = bilinear(x[b, some], y, z) * masks[b, point]
        groups = channels // per_weight
        outputs = weight.reshape(groups, -1, per_weight, 9)
        out.append(torch.einsum("goik,kgihw->gohw", outputs, samples.unflatten(1, (groups, per_weight))).flatten(0, 1))
    return torch.stack(out)


def conv(state: State, name: str, x: Tensor, stride: int = 1) -> Tensor:
    """The convolution of that name, deformable where it has offsets."""
    weight, padding = state[f"{name}.weight"], state[f"{name}.weight"].shape[2] // 2
    if f"{name}.conv_offset.weight" in state:
        return deformable(x, weight, conv(state, f"{name}.conv_offset", x, stride), stride)
    groups = x.shape[1] // weight.shape[1]
    return F.conv2d(x, weight, state.get(f"{name}.bias"), stride, padding, groups=groups)


def backbone_and_neck(state: State, images: Tensor) -> list[Tensor]:
    def norm(name: str, x: Tensor) -> Tensor:
        mean, variance, weight, bias = (
            state[f"backbone.{name}.{kind}"][:, None, None]
            for kind in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (variance + 1e-5).sqrt() * weight + bias

    x = F.max_pool2d(norm("bn1", conv(state, "backbone.conv1", images, 2)).relu(), 3, 2, 1)
    maps = []
    for stage in range(1, 5):
        block = 0
        while f"backbone.layer{stage}.{block}.conv1.weight" in state:
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            out = norm(f"{name}.bn1", conv(state, f"backbone.{name}.conv1", x)).relu()
            out = norm(f"{name}.bn2", conv(state, f"backbone.{name}.conv2", out, stride)).relu()
            out = norm(f"{name}.bn3", conv(state, f"backbone.{name}.conv3", out))
            if f"backbone.{name}.downsample.0.weight" in state:
                x = norm(f"{name}.downsample.1", conv(state, f"backbone.{name}.downsample.0", x, stride))
            x = (out + x).relu()
            block += 1
        maps.append(x)
    merged = [conv(state, f"neck.lateral_convs.{i}.conv", x) for i, x in enumerate(maps[1:])]
    for i in (1, 0):
        merged[i] = merged[i] + merged[i + 1].repeat_interleave(2, 2).repeat_interleave(2, 3)
    pyramid = [conv(state, f"neck.fpn_convs.{i}.conv", x) for i, x in enumerate(merged)]
    for i in (3, 4):
        pyramid.append(conv(state, f"neck.fpn_convs.{i}.conv", pyramid[-1], 2))
    return pyramid


def head_level(state: State, x: Tensor, level: int, based: bool) -> tuple[Tensor, Tensor]:
    """Probabilities [B, C, h, w] and boxes [B, 4, h, w] in strides."""

    def of(name: str, x: Tensor) -> Tensor:
        return conv(state, f"bbox_head.{name}", x)

    def group_norm(name: str, x: Tensor) -> Tensor:
        groups = x.unflatten(1, (8, -1))
        mean = groups.mean((2, 3, 4), keepdim=True)
        variance = (groups - mean).square().mean((2, 3, 4), keepdim=True)
        x = ((groups - mean) / (variance + 1e-5).sqrt()).flatten(1, 2)
        weight, bias = (state[f"bbox_head.{name}.{kind}"][:, None, None] for kind in ("weight", "bias"))
        return x * weight + bias

    layers = []
    for layer in range(6):
        x = group_norm(f"inter_convs.{layer}.gn", of(f"inter_convs.{layer}.conv", x)).relu()
        layers.append(x)
    trunk = torch.cat(layers, 1)

    def task(name: str) -> Tensor:
        average = trunk.mean((2, 3), keepdim=True)
        attention = of(f"{name}.layer_attention.2", of(f"{name}.layer_attention.0", average).relu()).sigmoid()
        scaled = torch.cat([features * attention[:, i : i + 1] for i, features in enumerate(layers)], 1)
        reduced = conv(state, f"bbox_head.{name}.reduction_conv.conv", scaled)
        return group_norm(f"{name}.reduction_conv.gn", reduced).relu()

    alignment = of("cls_prob_module.2", of("cls_prob_module.0", trunk).relu())
    scores = (of("tood_cls", task("cls_decomp")).sigmoid() * alignment.sigmoid()).sqrt()
    regression = of("tood_reg", task("reg_decomp"))
    offsets = of("reg_offset_module.2", of("reg_offset_module.0", trunk).relu())
    height, width = regression.shape[2:]
    rows, columns = torch.arange(height)[:, None].double(), torch.arange(width)[None].double()
    scale = state[f"bbox_head.scales.{level}.scale"]
    if based:
        dx, dy, dw, dh = (scale * regression * torch.tensor([0.1, 0.1, 0.2, 0.2])[:, None, None].double()).unbind(1)
        limit = abs(math.log(16 / 1000))
        x, y = columns + 8 * dx, rows + 8 * dy
        w, h = 8 * dw.clamp(-limit, limit).exp(), 8 * dh.clamp(-limit, limit).exp()
        edges = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1)
    else:
        left, top, right, bottom = (scale * regression.exp()).unbind(1)
        edges = torch.stack([columns - left, rows - top, columns + right, rows + bottom], 1)
    sampled = torch.stack(
        [
            torch.cat([bilinear(image[i : i + 1], rows + o[2 * i], columns + o[2 * i + 1]) for i in range(4)])
            for image, o in zip(edges, offsets, strict=True)
        ]
    )
    inverted = (sampled[:, 0] > sampled[:, 2]) | (sampled[:, 1] > sampled[:, 3])
    return scores, torch.where(inverted[:, None], edges, sampled)


def iou_and_giou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    overlap = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - overlap
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1)
    return overlap / union, overlap / union - (hull - union) / hull


class Places:
    """Centre, stride and square anchor of every place, level by level."""

    def __init__(self, maps: list[Tensor]) -> None:
        rows = [
            (column * stride, row * stride, stride, level)
            for level, (x, stride) in enumerate(zip(maps, STRIDES, strict=True))
            for row in range(x.shape[2])
            for column in range(x.shape[3])
        ]
        table = torch.tensor(rows, dtype=torch.float64)
        self.centres, self.strides, self.levels = table[:, :2], table[:, 2], table[:, 3].long()
        half = 4 * self.strides[:, None]
        self.anchors = torch.cat([self.centres - half, self.centres + half], 1)

    def valid(self, size: tuple[int, int]) -> list[int]:
        """Places whose cell lies in an image of that padded size."""
        return [
            n
            for n, ((x, y), stride) in enumerate(zip(self.centres.tolist(), self.strides.tolist(), strict=True))
            if x / stride < math.ceil(size[1] / stride) and y / stride < math.ceil(size[0] / stride)
        ]


def assign(
    places: Places, valid: list[int], scores: Tensor, boxes: Tensor, truth: Targets, warm_up: bool
) -> dict[int, tuple[int, float]]:
    """Positive place -> its ground truth and what its score shall become."""
    claims: dict[int, list[tuple[float, int, float]]] = {}
    for g, box in enumerate(truth.boxes.double()):
        ious = iou_and_giou(places.anchors if warm_up else boxes, box)[0]
        values = scores[:, truth.labels[g]] * ious**6
        if warm_up:
            distances = (places.centres - (box[:2] + box[2:]) / 2).norm(dim=1)
            chosen = []
            for level in range(5):
                chosen += sorted((n for n in valid if places.levels[n] == level), key=lambda n: distances[n])[:9]
            threshold = ious[chosen].mean() + ious[chosen].std()
            chosen = [n for n in chosen if ious[n] >= threshold]
        else:
            chosen = [n for n in sorted(valid, key=lambda n: -values[n])[:13] if values[n] > 0]
        for n in chosen:
            if min(*(places.centres[n] - box[:2]).tolist(), *(box[2:] - places.centres[n]).tolist()) > 0.01:
                claims.setdefault(n, []).append((float(ious[n]), -g, float(values[n])))
    won = {n: max(rivals) for n, rivals in claims.items()}
    if warm_up:
        return {n: (-g, 1.0) for n, (_, g, _) in won.items()}
    highest: dict[int, tuple[float, float]] = {}
    for u, g, t in won.values():
        best_t, best_u = highest.get(g, (0.0, 0.0))
        highest[g] = max(best_t, t), max(best_u, u)
    return {n: (-g, t / (highest[g][0] + 1e-7) * highest[g][1]) for n, (_, g, t) in won.items()}


def losses(
    scores: Tensor, boxes: Tensor, places: Places, truths: list[Targets], warm_up: bool
) -> tuple[Tensor, Tensor]:
    """Class and box loss of each place [B, N]."""
    classification, box_loss, averages = [], [], []
    for image, truth in enumerate(truths):
        valid = places.valid(PADDED[image])
        p, predicted = scores[image], boxes[image]
        owners = assign(places, valid, p.detach(), predicted.detach(), truth, warm_up)
        wanted, weights = torch.zeros_like(p), torch.zeros(len(p)).double()
        giou = [p.new_zeros(())] * len(p)
        for n, (g, target) in owners.items():
            wanted[n, truth.labels[g]] = target
            box = truth.boxes[g].double()
            giou[n] = 1 - iou_and_giou(predicted[n], box)[1]
            near, far = places.centres[n] - box[:2], box[2:] - places.centres[n]
            centred = (torch.minimum(near, far) / torch.maximum(near, far)).prod().sqrt()
            weights[n] = centred if warm_up else target
        entropy = -wanted * p.log() - (1 - wanted) * (1 - p).log()
        factor = (0.25 * wanted + 0.75 * (1 - wanted)) if warm_up else 1.0
        counted = torch.zeros(len(p)).double()
        counted[valid] = 1
        classification.append((factor * (wanted - p).abs() ** 2 * entropy).sum(1) * counted)
        box_loss.append(2 * torch.stack(giou) * weights)
        averages.append((wanted.sum(), weights.sum()))
    class_average, box_average = (max(float(sum(values)), 1.0) for values in zip(*averages, strict=True))
    return torch.stack(classification) / class_average, torch.stack(box_loss) / box_average


@pytest.mark.parametrize("config", [FREE, RESNEXT_DEFORMABLE, DEFORMABLE], ids=["resnet", "resnext-dcn", "resnet-dcn"])
def test_backbone_and_pyramid(config: TOODConfig) -> None:
    model = lively(TOOD(config)).double().train()
    state = published(model)
    images = IMAGES.double()
    given, wanted = model.neck(model.backbone(images)), backbone_and_neck(state, images)
    for ours, theirs in zip(given, wanted, strict=True):
        torch.testing.assert_close(ours, theirs)
    names = [name for name in state if state[name].requires_grad and not name.startswith("bbox_head.")]
    parameters = to_published(dict(model.named_parameters()), "mmdet")
    seeds = [torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).double() for x in given]
    ours = torch.autograd.grad(given, [parameters[name] for name in names], seeds)
    theirs = torch.autograd.grad(wanted, [state[name] for name in names], seeds)
    for name, one, other in zip(names, ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9 * float(other.abs().max()), msg=name)


@pytest.mark.parametrize("counts", [(3, 4), (0, 4), (0, 0)], ids=["objects", "one-image-empty", "all-empty"])
@pytest.mark.parametrize("epoch", [0, 4])
@pytest.mark.parametrize("config", [BASED, RESNEXT_DEFORMABLE], ids=["anchor-based", "resnext-dcn"])
def test_head_maps_losses_and_gradients(config: TOODConfig, epoch: int, counts: tuple[int, int]) -> None:
    # In float64 no sample lies within rounding of a cell's border, where its gradient jumps; outputs are fp32 anyway.
    model = lively(TOOD(config)).double().train()
    state = published(model)
    with torch.no_grad():
        maps = model.neck(model.backbone(IMAGES.double()))
    predictions = model.head(maps)
    levels = [head_level(state, x, i, config.head.anchor == "based") for i, x in enumerate(maps)]
    scores = torch.cat([level.flatten(2).transpose(1, 2) for level, _ in levels], 1)
    boxes = torch.cat(
        [level.flatten(2).transpose(1, 2) * stride for (_, level), stride in zip(levels, STRIDES, strict=True)], 1
    )
    torch.testing.assert_close(predictions.scores.double(), scores, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(predictions.boxes.double(), boxes, rtol=1e-5, atol=1e-3)

    truths = truth_of(counts)
    found = TaskAlignedCriterion()(predictions, truths, torch.tensor(PADDED), progress=Progress(epoch))
    wanted = losses(scores, boxes, Places(maps), truths, warm_up=epoch < 4)
    for name, per_place in zip(("cls", "box"), wanted, strict=True):
        torch.testing.assert_close(found.per_prior[name].double(), per_place, rtol=1e-4, atol=1e-6)
    total = wanted[0].sum() + wanted[1].sum()
    torch.testing.assert_close(found.total.double(), total, rtol=1e-5, atol=0)
    assert found.assignment.positive.any(1).tolist() == [number > 0 for number in counts]
    assert (wanted[1].sum(1) > 0).tolist() == [number > 0 for number in counts]

    found.total.backward()
    names = [name for name in state if state[name].requires_grad and name.startswith("bbox_head.")]
    gradients = torch.autograd.grad(total, [state[name] for name in names], allow_unused=True)
    given = to_published({name: p.grad for name, p in model.named_parameters() if p.grad is not None}, "mmdet")
    for name, gradient in zip(names, gradients, strict=True):
        # Without any positive no box has a loss.
        expected = torch.zeros_like(state[name]) if gradient is None else gradient
        largest = float(expected.abs().max())
        torch.testing.assert_close(given[name], expected, rtol=1e-4, atol=1e-5 * largest, msg=name)
    assert len(names) > 40

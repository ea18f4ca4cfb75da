from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tood import boxes


def random_boxes(count: int, seed: int, side: float = 40) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 100
    return torch.cat([corner, corner + torch.rand(count, 2, generator=generator) * side + 0.5], 1)


def slow_iou(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union


def slow_nms(given: Tensor, scores: Tensor, labels: Tensor, threshold: float) -> list[int]:
    left = sorted(range(len(given)), key=lambda i: (-scores[i].item(), i))
    kept = []
    while left:
        best, left = left[0], left[1:]
        kept.append(best)
        overlaps = boxes.iou_matrix(given[best : best + 1], given)[0]
        left = [i for i in left if labels[i] != labels[best] or overlaps[i] <= threshold]
    return kept


@given(st.integers(0, 10_000))
def test_iou_matrix_is_the_definition(seed: int) -> None:
    a, b = random_boxes(4, seed), random_boxes(5, seed + 1)
    wanted = [[slow_iou(x, y) for y in b.tolist()] for x in a.tolist()]
    torch.testing.assert_close(boxes.iou_matrix(a, b), torch.tensor(wanted), rtol=1e-4, atol=1e-5)


@given(st.integers(0, 10_000))
def test_giou_is_iou_less_the_empty_share_of_the_hull(seed: int) -> None:
    a, b = random_boxes(8, seed), random_boxes(8, seed + 1)
    hull = torch.cat([torch.minimum(a[:, :2], b[:, :2]), torch.maximum(a[:, 2:], b[:, 2:])], 1)
    iou = boxes.iou_pairs(a, b)
    overlap = iou * (boxes.area(a) + boxes.area(b)) / (1 + iou)
    union = boxes.area(a) + boxes.area(b) - overlap
    wanted = iou - (boxes.area(hull) - union) / boxes.area(hull)
    torch.testing.assert_close(boxes.giou_pairs(a, b), wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(boxes.giou_pairs(a, a), torch.ones(8), rtol=0, atol=1e-5)


def test_empty_boxes_have_no_overlap_and_no_nan() -> None:
    point = torch.tensor([[5.0, 5.0, 5.0, 5.0]])
    assert boxes.iou_pairs(point, point).item() == 0
    assert torch.isfinite(boxes.giou_pairs(point, point)).all()


@given(st.integers(0, 10_000), st.integers(0, 60), st.sampled_from([0.0, 0.3, 0.6, 1.0]))
def test_nms_is_the_greedy_definition(seed: int, count: int, threshold: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    given_boxes = random_boxes(count, seed, side=90)
    # Few distinct scores: ties are the rule.
    scores = torch.randint(0, 8, (count,), generator=generator) / 8
    labels = torch.randint(0, 3, (count,), generator=generator)
    kept = boxes.nms(given_boxes, scores, labels, threshold)
    assert kept.tolist() == slow_nms(given_boxes, scores, labels, threshold)


def test_nms_in_blocks_is_nms_in_one(monkeypatch) -> None:
    given_boxes, scores = random_boxes(300, 3, side=90), torch.rand(300)
    labels = torch.zeros(300, dtype=torch.long)
    whole = boxes.nms(given_boxes, scores, labels, 0.4)
    monkeypatch.setattr(boxes, "NMS_BLOCK", 3000)
    assert torch.equal(boxes.nms(given_boxes, scores, labels, 0.4), whole)


@given(st.integers(0, 10_000))
def test_distances_are_decoded_to_the_box_they_were_measured_on(seed: int) -> None:
    wanted = random_boxes(6, seed)
    points = (wanted[:, :2] + wanted[:, 2:]) / 2 + 0.1
    distances = torch.cat([points - wanted[:, :2], wanted[:, 2:] - points], 1)
    torch.testing.assert_close(boxes.decode_distances(points, distances), wanted)


def test_deltas_move_and_stretch_their_anchor() -> None:
    anchor = torch.tensor([[0.0, 0.0, 10.0, 20.0]])
    same = boxes.decode_deltas(anchor, torch.zeros(1, 4), (0.1, 0.1, 0.2, 0.2))
    torch.testing.assert_close(same, anchor)
    moved = boxes.decode_deltas(anchor, torch.tensor([[10.0, 0.0, 5 * math.log(2), 0.0]]), (0.1, 0.1, 0.2, 0.2))
    torch.testing.assert_close(moved, torch.tensor([[5.0, 0.0, 25.0, 20.0]]))
    huge = boxes.decode_deltas(anchor, torch.tensor([[0.0, 0.0, 1e9, 1e9]]), (0.1, 0.1, 0.2, 0.2))
    torch.testing.assert_close(huge[0, 2] - huge[0, 0], torch.tensor(10 * 1000 / 16))


def test_clip_keeps_boxes_in_the_image() -> None:
    cut = boxes.clip(torch.tensor([[-5.0, 2.0, 50.0, 90.0]]), torch.tensor([30.0, 40.0]))
    assert cut.tolist() == [[0, 2, 30, 40]]
